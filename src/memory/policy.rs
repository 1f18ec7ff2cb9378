//! From samples to a stage, and from the stage to what is allowed. Pure: no fd, no system call, no clock.
//!
//! A stage is entered with the first sample at its threshold, and left only after a second below 90 % of
//! it. What a stage changes is only what is extra: [`Flow::Trickle`], the closed gate, still admits
//! [`TRICKLE`] bytes per stream and [`TRICKLE_EVERY`], and the gate is closed only for as long as that lowers memory.
//!
//! Times are durations since the session's start, sizes are bytes.

mod catching_up;
pub mod collection;
mod effects;
mod flow_meter;
mod gate;
pub mod heap;
mod thresholds;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

pub use effects::{Effects, Flow, Observation, TextModes};
use gate::{Gate, Position, Terms};
pub use gate::{GateChange, Outcome, Try};
pub use thresholds::{Named, OutOfOrder, Thresholds};

/// What a closed gate admits per stream and [`TRICKLE_EVERY`], in bytes.
pub const TRICKLE: u32 = 64 << 10;

/// How often a closed gate admits [`TRICKLE`] bytes.
pub const TRICKLE_EVERY: Duration = Duration::from_millis(100);

/// The size of a pipe that the gate holds closed, in bytes.
pub const SMALL_PIPE: u32 = 64 << 10;

/// The largest transfer under pressure, in bytes.
pub const BOUNDED: u32 = 64 << 10;

/// The longest time from one sample to the next.
pub const SLOWEST: Duration = Duration::from_millis(200);

/// The shortest, unless the user names another.
pub const FASTEST: Duration = Duration::from_millis(10);

/// How long memory has to stay low before a stage is left.
const LEAVE_AFTER: Duration = Duration::from_secs(1);

/// A stage that is not yet left, or a gate that is being judged, needs samples at least this often.
const WATCHFUL: Duration = Duration::from_millis(50);

/// How long a stall that the kernel reported counts.
const STALL_COUNTS: Duration = Duration::from_secs(2);

/// How close memory is to its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Far from every threshold.
    Monitoring,
    /// Worth a line to the user.
    Attention,
    /// Extra work stops.
    Pressure,
    /// The gate is tried.
    Critical,
    /// No try begins or goes on: what waits is let out, unless the child is behind after a try that helped.
    Emergency,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Stage; 5] =
        [Stage::Monitoring, Stage::Attention, Stage::Pressure, Stage::Critical, Stage::Emergency];

    /// The name used in messages and reports.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Monitoring => "monitoring",
            Stage::Attention => "attention",
            Stage::Pressure => "pressure",
            Stage::Critical => "critical",
            Stage::Emergency => "emergency",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether the stage may close the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateMode {
    /// Tried in the critical stage, where that may help.
    Auto,
    /// Never closed.
    Off,
}

/// Whether the stage may switch text modes off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Degrade {
    /// From the pressure stage on.
    Auto,
    /// Never.
    Never,
}

/// What the user decides about the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `--gate`.
    pub gate: GateMode,
    /// `--degrade`.
    pub degrade: Degrade,
    /// `--tick`: the shortest time from one sample to the next.
    pub fastest: Duration,
}

/// What the child has out that nobody has taken yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nothing waits: if the child grows, not for want of room.
    Empty,
    /// Bytes wait unread in a source pipe.
    Waiting,
    /// So many that the child cannot write on.
    Full,
}

/// What is left of a limit on the group that the child is in, whoever has used the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that can still be had, page cache that can be dropped included.
    pub left: u64,
    /// Of so many.
    pub limit: u64,
}

impl Room {
    /// Bytes until less than a fifth of the limit is left: there the emergency stage begins.
    pub(super) fn before_emergency(self) -> u64 {
        self.left.saturating_sub(self.limit / 5)
    }

    /// Whether there is still too little to leave the emergency stage.
    fn keeps_emergency(self) -> bool {
        (self.left as f64) < self.limit as f64 * 0.28
    }
}

/// What was found at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Duration,
    /// Memory of everything watched.
    pub resident: u64,
    /// The fullness of the pipes that the gate holds.
    pub source: Source,
    /// Bytes taken from them since the start.
    pub output: u64,
    /// What is left of the tightest limit; `None` where there is none.
    pub room: Option<Room>,
    /// The narrowest of all limits, the machine's memory among them; `None` if nothing is known of them.
    pub narrowest: Option<Room>,
}

/// A new stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageChange {
    /// Until now.
    pub from: Stage,
    /// From now on.
    pub to: Stage,
}

/// What a sample changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The stage.
    pub stage: Option<StageChange>,
    /// The gate.
    pub gate: Option<GateChange>,
}

/// The rules, and what they have to remember: a few numbers, whatever has passed.
#[derive(Clone, Debug)]
pub struct Policy {
    thresholds: Thresholds,
    settings: Settings,
    stage: Stage,
    /// Since when memory has been low enough to leave the stage, and the highest stage that it would
    /// have fallen to in that time.
    low: Option<(Duration, Stage)>,
    gate: Gate,
    last: Option<Sample>,
    /// Bytes per second that memory has been growing by lately; shrinking counts as none.
    growth: f64,
    stalled_until: Option<Duration>,
    /// A stage that something else than memory has brought about.
    floor: Stage,
}

impl Policy {
    /// The policy at the start of a run.
    pub fn new(thresholds: Thresholds, settings: Settings) -> Policy {
        Policy {
            thresholds,
            settings,
            stage: Stage::Monitoring,
            low: None,
            gate: Gate::default(),
            last: None,
            growth: 0.0,
            stalled_until: None,
            floor: Stage::Monitoring,
        }
    }

    /// The stage after the last sample.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The thresholds in force.
    pub fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// Whether so many bytes are close enough to a threshold, or above one, for it to matter how they are counted.
    pub fn is_near(&self, bytes: u64) -> bool {
        let next = self.thresholds.next_above(Stage::Monitoring);
        next.is_some_and(|next| bytes >= next - next / 10)
    }

    /// The kernel says that tasks stalled for want of memory. It may be anybody's want, so it only moves
    /// a child that has our attention on to pressure.
    pub fn stalled(&mut self, at: Duration) {
        self.stalled_until = Some(at + STALL_COUNTS);
    }

    /// Moves the thresholds: a tighter limit than the one known so far was found.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// Takes a sample in. Samples come in the order of their times.
    pub fn sample(&mut self, sample: Sample) -> Changes {
        let last = self.last.replace(sample);
        self.follow_growth(last, sample);
        let from = self.stage;
        self.follow_stage(sample);
        let to = self.stage;
        let stage = (from != to).then_some(StageChange { from, to });
        let terms = self.terms();
        let gate = last.and_then(|last| self.gate.sample(last, sample, terms));
        Changes { stage, gate }
    }

    fn terms(&self) -> Terms {
        // A floor opens the gate, as emergency does, but closes none: what is behind it is not the memory judged here.
        let emergency = self.floor == Stage::Emergency;
        let stage = if emergency { Stage::Emergency } else { self.stage };
        let position = match (self.settings.gate, stage) {
            (GateMode::Off, _) => Position::Below,
            (GateMode::Auto, Stage::Critical) => Position::Critical,
            (GateMode::Auto, Stage::Emergency) => Position::Above,
            (GateMode::Auto, _) => Position::Below,
        };
        let [critical, emergency] =
            [Stage::Critical, Stage::Emergency].map(|stage| self.thresholds.of(stage));
        Terms { position, critical, emergency }
    }

    fn follow_growth(&mut self, last: Option<Sample>, sample: Sample) {
        let Some(last) = last else { return };
        let seconds = sample.at.saturating_sub(last.at).as_secs_f64().max(1e-3);
        let now = sample.resident.saturating_sub(last.resident) as f64 / seconds;
        // Up at once, down by halves: growth comes in steps.
        self.growth = now.max(self.growth / 2.0);
    }

    fn follow_stage(&mut self, sample: Sample) {
        let reached = self.raised(self.thresholds.reached(sample.resident), sample);
        if reached >= self.stage {
            self.stage = reached;
            self.low = None;
            return;
        }
        let kept = self.raised(self.thresholds.kept(sample.resident), sample);
        if kept >= self.stage {
            self.low = None;
            return;
        }
        let (since, highest) = self.low.unwrap_or((sample.at, kept));
        let highest = highest.max(kept);
        self.low = Some((since, highest));
        if sample.at.saturating_sub(since) >= LEAVE_AFTER {
            self.stage = highest;
            self.low = None;
        }
    }

    /// The stage that memory alone would be in, moved by what else is known: a stall, and the room that is really
    /// left. Who fills the group may be others, so a child that is small itself stays where it is.
    fn raised(&self, stage: Stage, sample: Sample) -> Stage {
        let stage = match self.stalled_until {
            Some(until) if stage == Stage::Attention && sample.at < until => Stage::Pressure,
            _ => stage,
        };
        let in_emergency = self.stage == Stage::Emergency;
        let no_room = sample.room.is_some_and(|room| {
            room.before_emergency() == 0 || in_emergency && room.keeps_emergency()
        });
        if no_room && stage >= Stage::Pressure { Stage::Emergency } else { stage }
    }

    /// Has at least this stage's effects from now on, whatever memory's own stage is.
    pub fn set_floor(&mut self, stage: Stage) {
        self.floor = stage;
    }

    /// What is allowed now.
    pub fn effects(&self) -> Effects {
        let stage = self.stage.max(self.floor);
        let (observation, history) = match stage {
            Stage::Monitoring | Stage::Attention => (Observation::Full, 1024),
            Stage::Pressure => (Observation::Summary, 128),
            Stage::Critical | Stage::Emergency => (Observation::Off, 0),
        };
        let text = match (self.settings.degrade, stage) {
            (Degrade::Auto, Stage::Pressure | Stage::Critical | Stage::Emergency) => TextModes::Off,
            _ => TextModes::AsAsked,
        };
        let flow = match (stage, self.settings.gate) {
            (Stage::Monitoring | Stage::Attention, _) => Flow::Open,
            (Stage::Pressure, _) | (Stage::Critical, GateMode::Off) => Flow::Bounded,
            (Stage::Critical, GateMode::Auto) if self.gate.is_closed() => Flow::Trickle,
            // It queues its own output: what lowers its memory is to take that.
            (Stage::Critical, GateMode::Auto) if self.gate.queued() => Flow::Drain,
            (Stage::Critical, GateMode::Auto) => Flow::Bounded,
            (Stage::Emergency, _) => Flow::Drain,
        };
        let flow = match (flow, self.gate.limit()) {
            (Flow::Trickle, _) | (_, None) => flow,
            _ if self.gate.queued() || self.floor == Stage::Emergency => flow,
            (_, Some(rate)) => Flow::Limited(rate),
        };
        Effects { observation, history, text, flow }
    }

    /// Bytes until there is too little room, where that counts.
    fn room(&self, sample: Sample) -> u64 {
        let counts = matches!(self.stage, Stage::Pressure | Stage::Critical);
        let room = sample.room.filter(|_| counts);
        room.map_or(u64::MAX, Room::before_emergency)
    }

    /// How long until the next sample: less when a threshold is near or memory grows fast.
    pub fn period(&self) -> Duration {
        let fastest = self.settings.fastest;
        let slowest = SLOWEST.max(fastest);
        let Some(last) = self.last else { return fastest };
        if self.gate.has_just_opened(last.at) {
            return fastest;
        }
        let watchful =
            self.low.is_some() || self.stage == Stage::Critical || self.gate.is_watching();
        let slowest = if watchful { WATCHFUL.max(fastest) } else { slowest };
        let Some(next) = self.thresholds.next_above(self.stage) else { return slowest };
        let distance = next.saturating_sub(last.resident).min(self.room(last)) as f64;
        // Four samples on the way there at this speed; and as if everything could grow by half of what is
        // missing in ten of the longest periods, so that near a threshold we look more often.
        let by_growth = distance / self.growth.max(1.0) / 4.0;
        let by_distance = SLOWEST.as_secs_f64() * 10.0 * distance / (next as f64).max(1.0);
        // A child that has only begun has not shown yet how fast it grows.
        let young = last.at.as_secs_f64() / 2.0;
        let wanted = by_growth.min(by_distance).min(young).min(slowest.as_secs_f64());
        Duration::from_secs_f64(wanted).max(fastest)
    }
}
