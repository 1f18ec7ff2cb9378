//! How output comes back after a try of the gate: no faster than it was, and then faster and faster. Pure.

use std::time::Duration;

use super::{Sample, Source};

/// A child that is behind may write so much faster each second: less at first, and as long as memory is critical. It begins a little
/// faster than it was, because that is not known exactly. So many times as fast as before the try, or with nothing waiting for so long, it is behind no more.
const HEADROOM: f64 = 1.05;
const SLOW_GROWTH: f64 = 1.02;
const FAST_GROWTH: f64 = 2.0;
const SLOWLY_FOR: Duration = Duration::from_secs(5);
const CAUGHT_UP_AT: f64 = 16.0;
const CAUGHT_UP_AFTER: Duration = Duration::from_millis(300);

/// A child that writes by the clock is behind after a try. Let go, it would write what it owes at once, and with it would come
/// all the memory that the try has saved, and more.
#[derive(Clone, Debug)]
pub(super) struct CatchingUp {
    /// Bytes a second: at first what they were before the try.
    rate: f64,
    first: f64,
    most: f64,
    since: Duration,
    /// How long nothing has waited any more.
    idle: Duration,
}

impl CatchingUp {
    /// From `rate` on, in bytes a second.
    pub(super) fn new(rate: f64) -> CatchingUp {
        let (first, rate) = (rate, rate * HEADROOM);
        CatchingUp {
            first,
            rate,
            most: rate * CAUGHT_UP_AT,
            since: Duration::ZERO,
            idle: Duration::ZERO,
        }
    }

    /// Takes the time between two samples in, with memory in the critical stage or above or not; whether it is not over.
    pub(super) fn follow(&mut self, last: Sample, now: Sample, is_critical: bool) -> bool {
        let step = now.at.saturating_sub(last.at);
        self.since += step;
        let slowly = is_critical || self.since < SLOWLY_FOR;
        let growth = if slowly { SLOW_GROWTH } else { FAST_GROWTH };
        self.rate *= growth.powf(step.as_secs_f64());
        let empty = last.source == Source::Empty && now.source == Source::Empty;
        self.idle = if empty { self.idle + step } else { Duration::ZERO };
        self.idle < CAUGHT_UP_AFTER && self.rate < self.most
    }

    /// Bytes a second that may come now.
    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    /// Bytes a second before the try.
    pub(super) fn first(&self) -> f64 {
        self.first
    }
}
