//! Where the stages begin. What the user names stands exactly; the others keep the order around it.

use std::fmt;

use super::Stage;

const MIB: u64 = 1 << 20;

/// The stages that have a threshold, in order.
const STAGES: [Stage; 4] = [Stage::Attention, Stage::Pressure, Stage::Critical, Stage::Emergency];

/// The table's figures for the first three.
const FIGURES: [u64; 3] = [256 * MIB, 512 * MIB, 1024 * MIB];

/// Percent of the limit: what is left of a figure on a big machine, and where emergency begins.
const SHARES: [u64; 4] = [30, 50, 70, 80];

/// From this limit on the shares count: on anything smaller the figures stand, as far as they are
/// below emergency.
const BIG: u64 = 2048 * MIB;

/// What the user named: bytes for attention, pressure, critical, emergency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Named(pub [Option<u64>; 4]);

/// Where attention, pressure, critical and emergency begin, in bytes, never falling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds(pub(super) [u64; 4]);

/// Two thresholds that the user named the wrong way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfOrder {
    /// Named with too much.
    pub lower: Stage,
    /// Named with too little.
    pub higher: Stage,
}

impl fmt::Display for OutOfOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} begins above {}", self.lower, self.higher)
    }
}

impl Thresholds {
    /// Thresholds for a memory limit of `limit` bytes.
    ///
    /// # Errors
    /// If two named ones are out of order. Equal ones are fine: the lesser stage is then never entered.
    pub fn new(named: Named, limit: u64) -> Result<Thresholds, OutOfOrder> {
        let Named(named) = named;
        Named(named).check()?;
        let defaults = defaults(limit);
        let mut at = defaults;
        // Far above a critical stage that was named low, emergency would come too late to open the gate.
        if let (Some(critical), None) = (named[2], named[3]) {
            let usual = u128::from(critical) * u128::from(SHARES[3]) / u128::from(SHARES[2]);
            at[3] = at[3].min(u64::try_from(usual).unwrap_or(u64::MAX));
        }
        for (slot, named) in at.iter_mut().zip(named) {
            *slot = named.unwrap_or(*slot);
        }
        for index in 0..4 {
            if named[index].is_some() {
                continue;
            }
            // The neighbours that stand: those below are settled already, of those above only named ones.
            let floor = index.checked_sub(1).map(|below| (at[below], defaults[below]));
            let ceiling = (index + 1..4).find_map(|above| Some((named[above]?, defaults[above])));
            let proportional = |(stands, default): (u64, u64)| {
                let scaled = u128::from(defaults[index]) * u128::from(stands);
                u64::try_from(scaled / u128::from(default.max(1))).unwrap_or(u64::MAX)
            };
            if let Some(ceiling) = ceiling.filter(|(stands, _)| at[index] >= *stands) {
                at[index] = proportional(ceiling);
            }
            if let Some(floor) = floor.filter(|(stands, _)| at[index] <= *stands) {
                at[index] = proportional(floor);
                if let Some((stands, _)) = ceiling.filter(|(stands, _)| at[index] >= *stands) {
                    at[index] = floor.0 + (stands - floor.0) / 2;
                }
            }
        }
        Ok(Thresholds(at))
    }

    /// Thresholds of which none is named.
    pub fn usual(limit: u64) -> Thresholds {
        Thresholds(defaults(limit))
    }

    /// The bytes from which `stage` begins.
    pub fn of(&self, stage: Stage) -> u64 {
        STAGES.iter().position(|named| *named == stage).map_or(0, |index| self.0[index])
    }

    /// The highest stage whose threshold `resident` has reached.
    pub(super) fn reached(&self, resident: u64) -> Stage {
        self.highest(|threshold| resident >= threshold)
    }

    /// The highest stage that `resident` is still too much to leave.
    pub(super) fn kept(&self, resident: u64) -> Stage {
        self.highest(|threshold| resident >= threshold - threshold / 10)
    }

    fn highest(&self, holds: impl Fn(u64) -> bool) -> Stage {
        let mut stages = STAGES.iter().zip(self.0).rev();
        stages.find(|(_, threshold)| holds(*threshold)).map_or(Stage::Monitoring, |found| *found.0)
    }

    /// The threshold that comes after `stage`.
    pub(super) fn next_above(&self, stage: Stage) -> Option<u64> {
        STAGES.iter().zip(self.0).find(|(above, _)| **above > stage).map(|found| found.1)
    }
}

impl Named {
    /// What was named for `stage`, in bytes.
    pub fn of(&self, stage: Stage) -> Option<u64> {
        STAGES.iter().position(|named| *named == stage).and_then(|index| self.0[index])
    }

    /// # Errors
    /// If two of them are out of order.
    pub fn check(&self) -> Result<(), OutOfOrder> {
        let mut below: Option<(Stage, u64)> = None;
        for (stage, named) in STAGES.iter().zip(self.0) {
            let Some(bytes) = named else { continue };
            match below {
                Some((lower, low)) if low > bytes => {
                    return Err(OutOfOrder { lower, higher: *stage });
                }
                _ => below = Some((*stage, bytes)),
            }
        }
        Ok(())
    }
}

/// The thresholds that nobody named.
fn defaults(limit: u64) -> [u64; 4] {
    let share = |percent: u64| (u128::from(limit) * u128::from(percent) / 100) as u64;
    let mut at = SHARES.map(share);
    // A figure that is not below the next threshold would never be reached, and gives way to its share.
    for index in (0..3).rev() {
        let figure = FIGURES[index];
        let larger = if limit >= BIG { figure.max(at[index]) } else { figure };
        if larger < at[index + 1] {
            at[index] = larger;
        }
    }
    at
}
