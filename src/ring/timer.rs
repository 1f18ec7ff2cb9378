//! One timer that stands, in place of a limit on each wait.
//!
//! A wait with a limit costs the kernel the setting and the taking back of a timer. Most deadlines of a session (the next
//! sample of the memory, the end of an allowed silence) stay where they are, or only move away, while thousands of waits
//! pass. So a timer is set once and left alone; when it goes off, the loop looks what is due and waits on.

use std::io;
use std::time::{Duration, Instant};

/// A limit below this is given to the wait itself: it is over before many waits have passed.
const WORTH_A_TIMER: Duration = Duration::from_millis(10);

/// What is known of the timers that a driver has set.
#[derive(Debug)]
pub(super) struct Timer {
    /// How many there can be.
    kind: Kind,
    /// When they go off, the next one last.
    pending: Vec<Instant>,
    /// One could not be set: every wait has its own limit from then on.
    refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Setting it takes back what it was set to before.
    One,
    /// Each that is set goes off.
    Many,
}

impl Timer {
    pub(super) fn new(kind: Kind) -> Timer {
        Timer { kind, pending: Vec::new(), refused: false }
    }

    /// The limit that a wait needs by itself. None if a timer ends the wait, which `set` sets if none goes off in time.
    pub(super) fn limit(
        &mut self,
        limit: Option<Duration>,
        now: Instant,
        set: impl FnOnce(Instant) -> io::Result<()>,
    ) -> Option<Duration> {
        let limit = limit?;
        if limit < WORTH_A_TIMER || self.refused {
            return Some(limit);
        }
        let end = now + limit;
        while self.pending.pop_if(|at| *at <= now).is_some() {}
        if self.pending.last().is_none_or(|next| *next > end) {
            if set(end).is_err() {
                self.refuse();
                return Some(limit);
            }
            if self.kind == Kind::One {
                self.pending.clear();
            }
            self.pending.push(end);
        }
        None
    }

    /// Timers cannot be had.
    pub(super) fn refuse(&mut self) {
        self.refused = true;
        self.pending.clear();
    }

    #[cfg(test)]
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }
}

/// How long a timer has to run that is to go off at `end`. The loop's own time is older than the clock's: what runs from
/// now on would go off later. Never zero, which would stop it.
pub(super) fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for the limit of a wait, and says whether a timer was set meanwhile.
    fn ask(timer: &mut Timer, limit: u64, now: Instant) -> (Option<Duration>, bool) {
        let mut was_set = false;
        let limit = timer.limit(millis(limit), now, |end| {
            assert_eq!(Some(end - now), millis(limit));
            was_set = true;
            Ok(())
        });
        (limit, was_set)
    }

    fn millis(count: u64) -> Option<Duration> {
        Some(Duration::from_millis(count))
    }

    const SET: (Option<Duration>, bool) = (None, true);
    const STANDS: (Option<Duration>, bool) = (None, false);

    #[test]
    fn a_deadline_that_stands_or_moves_away_sets_one_timer() {
        let (mut timer, now) = (Timer::new(Kind::Many), Instant::now());
        assert_eq!(ask(&mut timer, 500, now), SET);
        let later = now + Duration::from_millis(100);
        assert_eq!(ask(&mut timer, 400, later), STANDS, "the same deadline");
        assert_eq!(ask(&mut timer, 500, later), STANDS, "a later one");
        let late = now + Duration::from_millis(500);
        assert_eq!(ask(&mut timer, 100, late), SET, "the first has gone off");
    }

    #[test]
    fn an_earlier_deadline_sets_another() {
        let (mut timer, now) = (Timer::new(Kind::Many), Instant::now());
        ask(&mut timer, 500, now);
        assert_eq!(ask(&mut timer, 499, now), SET);
        assert_eq!(ask(&mut timer, 500, now), STANDS);
    }

    /// A deadline that is near now and then, before one that moves away all the time: the far timer is not set again
    /// whenever the near one has gone off.
    #[test]
    fn a_far_timer_stands_behind_near_ones() {
        let (mut timer, mut now) = (Timer::new(Kind::Many), Instant::now());
        let mut set = 0;
        for _ in 0..1000 {
            for limit in [60_000, 20, 60_000] {
                set += usize::from(ask(&mut timer, limit, now).1);
                now += Duration::from_millis(7);
            }
            assert!(timer.pending() <= 2, "{timer:?}");
        }
        // 21 s have passed.
        assert!(set <= 1001, "set {set} times");
    }

    /// Where there is only one, the near deadline has taken the far one's place.
    #[test]
    fn one_timer_is_set_again_for_what_it_stood_for() {
        let (mut timer, now) = (Timer::new(Kind::One), Instant::now());
        ask(&mut timer, 500, now);
        assert_eq!(ask(&mut timer, 20, now), SET);
        let later = now + Duration::from_millis(20);
        assert_eq!(ask(&mut timer, 480, later), SET);
        assert_eq!(timer.pending(), 1);
    }

    #[test]
    fn a_short_limit_is_the_waits_own() {
        let (mut timer, now) = (Timer::new(Kind::Many), Instant::now());
        ask(&mut timer, 500, now);
        assert_eq!(ask(&mut timer, 9, now), (millis(9), false));
        assert_eq!(ask(&mut timer, 0, now), (millis(0), false));
    }

    #[test]
    fn where_there_is_no_timer_every_wait_has_its_limit() {
        let (mut timer, now) = (Timer::new(Kind::Many), Instant::now());
        let refuse = |_| Err(io::ErrorKind::Unsupported.into());
        assert_eq!(timer.limit(millis(500), now, refuse), millis(500));
        let again = |_| panic!("asked for again");
        assert_eq!(timer.limit(millis(500), now, again), millis(500));
        assert_eq!(timer.limit(None, now, again), None);
    }

    #[test]
    fn a_timer_never_runs_for_no_time() {
        assert!(!left(Instant::now()).is_zero());
    }
}
