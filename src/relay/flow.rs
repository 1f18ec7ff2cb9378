//! The gate: how much a relay may take from its source now.
//!
//! It never closes for good: where it admits nothing at this moment, [`Admission::reopens`] says when it
//! will. Pure: time is handed in.

use std::time::{Duration, Instant};

use super::link::TRANSFER;
use super::rate::RateLimit;

/// How a relay may submit its next read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// As it likes.
    Open,
    /// In transfers of at most so many bytes.
    Bounded(u32),
    /// The gate is closed but for a trickle.
    Trickle(Trickle),
    /// As it likes, and without waiting for more bytes to come together.
    Drain,
    /// At most so many bytes a second.
    Limited(u64),
}

/// What a closed gate still admits to one relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trickle {
    /// So many bytes…
    pub bytes: u32,
    /// …in each of these periods.
    pub every: Duration,
}

/// Whether the text modes of a relay run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextSwitch {
    /// As the user asked.
    On,
    /// Bytes pass untouched.
    Off,
}

/// What the gate admits to one relay.
#[derive(Debug)]
pub(super) struct Admission {
    flow: Flow,
    /// Of a trickle: what may still be taken, in bytes, and when that was last added to.
    left: u32,
    filled: Option<Instant>,
    limit: Option<RateLimit>,
    /// Of a flow that is limited.
    flow_limit: Option<RateLimit>,
}

impl Admission {
    /// `rate` limits it to so many bytes a second.
    pub(super) fn new(rate: Option<u64>) -> Admission {
        let limit = rate.map(RateLimit::new);
        Admission { flow: Flow::Open, left: 0, filled: None, limit, flow_limit: None }
    }

    /// Opens or closes the gate. A gate that closes admits its first trickle at once.
    pub(super) fn set(&mut self, flow: Flow, now: Instant) {
        match (flow, self.flow) {
            (Flow::Trickle(_), Flow::Trickle(_)) => {}
            (Flow::Trickle(trickle), _) => {
                (self.left, self.filled) = (trickle.bytes, Some(now));
            }
            _ => {}
        }
        self.flow_limit = match (flow, self.flow_limit.take()) {
            (Flow::Limited(rate), Some(limit)) => Some(limit.at(rate)),
            (Flow::Limited(rate), None) => Some(RateLimit::new(rate)),
            _ => None,
        };
        self.flow = flow;
    }

    /// The most that the next transfer may move; 0 if it has to wait.
    pub(super) fn admits(&mut self, now: Instant) -> u32 {
        let limit = self.limit.as_mut().map_or(u32::MAX, |limit| limit.admits(now));
        limit.min(self.flow_admits(now))
    }

    fn flow_admits(&mut self, now: Instant) -> u32 {
        match self.flow {
            Flow::Open | Flow::Drain => TRANSFER,
            Flow::Limited(_) => self.flow_limit.as_mut().map_or(0, |limit| limit.admits(now)),
            Flow::Bounded(bytes) => bytes,
            Flow::Trickle(trickle) => {
                self.fill(trickle, now);
                self.left.min(trickle.bytes)
            }
        }
    }

    /// What was not taken in time is lost but for one share, so that a loop that wakes late still lets
    /// the trickle through on average.
    fn fill(&mut self, Trickle { bytes, every }: Trickle, now: Instant) {
        let filled = *self.filled.get_or_insert(now);
        let shares = now.saturating_duration_since(filled).as_millis() / every.as_millis();
        let shares = u32::try_from(shares).unwrap_or(u32::MAX);
        if shares > 0 {
            self.filled = Some(filled + every * shares);
            self.left = self.left.saturating_add(bytes.saturating_mul(shares)).min(2 * bytes);
        }
    }

    /// So many bytes were taken.
    pub(super) fn took(&mut self, bytes: u32) {
        self.left = self.left.saturating_sub(bytes);
        for limit in [&mut self.limit, &mut self.flow_limit].into_iter().flatten() {
            limit.took(bytes);
        }
    }

    /// When it admits something again, if it admits nothing now.
    pub(super) fn reopens(&self, now: Instant) -> Option<Instant> {
        let limits = [&self.limit, &self.flow_limit];
        let limits = limits.into_iter().flatten().filter_map(|limit| limit.reopens(now));
        let flow = match (self.flow, self.filled) {
            (Flow::Trickle(trickle), Some(filled)) if self.left == 0 => {
                Some(filled + trickle.every)
            }
            _ => None,
        };
        limits.chain(flow).max()
    }

    /// Whether waiting for more bytes is allowed.
    pub(super) fn may_wait(&self) -> bool {
        self.flow != Flow::Drain
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const TRICKLE: u32 = 64 << 10;
    const EVERY: Duration = Duration::from_millis(100);
    const CLOSED: Flow = Flow::Trickle(Trickle { bytes: TRICKLE, every: EVERY });

    #[test]
    fn an_open_gate_admits_what_its_flow_allows() {
        let now = Instant::now();
        let mut gate = Admission::new(None);
        for (flow, most) in
            [(Flow::Open, TRANSFER), (Flow::Bounded(65536), 65536), (Flow::Drain, TRANSFER)]
        {
            gate.set(flow, now);
            gate.took(u32::MAX);
            assert_eq!((gate.admits(now), gate.reopens(now)), (most, None));
        }
    }

    proptest! {
        /// However small or large the transfers and however late the loop: over any stretch of time a
        /// closed gate admits its figure, give or take two shares.
        #[test]
        fn a_closed_gate_admits_its_trickle(
            turns in prop::collection::vec((0u64..250, 1u32..200_000), 1..200)
        ) {
            let start = Instant::now();
            let mut gate = Admission::new(None);
            gate.set(CLOSED, start);
            let (mut now, mut total) = (start, 0u64);
            for (late, size) in turns {
                let admitted = gate.admits(now);
                let moved = admitted.min(size);
                gate.took(moved);
                total += u64::from(moved);
                prop_assert!(admitted <= TRICKLE);
                match gate.reopens(now) {
                    Some(at) => {
                        prop_assert!(at - now <= EVERY);
                        now = at + Duration::from_millis(late.min(99));
                        prop_assert!(gate.admits(now) > 0);
                    }
                    None => prop_assert!(gate.admits(now) > 0),
                }
            }
            let shares = (now - start).as_millis() as u64 / 100;
            prop_assert!(total <= (shares + 1) * u64::from(TRICKLE));
        }
    }

    #[test]
    fn a_limit_may_change_and_end() {
        let start = Instant::now();
        let mut gate = Admission::new(None);
        gate.set(Flow::Limited(1_000_000), start);
        let (mut now, mut total) = (start, 0);
        for turn in 0..2000 {
            if turn == 1000 {
                gate.set(Flow::Limited(3_000_000), now);
            }
            let admitted = gate.admits(now);
            gate.took(admitted);
            total += u64::from(admitted);
            now = gate.reopens(now).unwrap_or(now) + Duration::from_millis(1);
        }
        // 11 ms each.
        assert!((43_000_000..45_000_000).contains(&total), "{total}");
        gate.set(Flow::Open, now);
        assert_eq!((gate.admits(now), gate.reopens(now)), (TRANSFER, None));
    }

    #[test]
    fn a_writer_that_never_lets_up_gets_the_figure() {
        let start = Instant::now();
        let mut gate = Admission::new(None);
        gate.set(CLOSED, start);
        let mut total = 0;
        for millis in 0..10_000 {
            let now = start + Duration::from_millis(millis);
            let admitted = gate.admits(now);
            gate.took(admitted);
            total += admitted;
        }
        assert_eq!(total, 100 * TRICKLE);
    }
}
