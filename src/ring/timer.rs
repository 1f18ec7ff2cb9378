//! One timer that stands, in place of a limit on each wait.
//!
//! A wait with a limit costs the kernel the setting and the taking back of a timer. Most deadlines of a session (the next
//! sample of the memory, the end of an allowed silence) stay where they are, or only move away, while thousands of waits
//! pass. So a timer is set once and left alone; when it goes off, the loop looks what is due and waits on.

use std::io;
use std::time::{Duration, Instant};

/// A limit below this is given to the wait itself: it is over before many waits have passed.
const WORTH_A_TIMER: Duration = Duration::from_millis(10);

/// What is known of a driver's timer.
#[derive(Debug, Default)]
pub(super) struct Timer {
    /// When it goes off, if it is set.
    at: Option<Instant>,
    /// It could not be set once: every wait has its own limit from then on.
    refused: bool,
}

impl Timer {
    /// The limit that a wait needs by itself. None if the timer ends the wait, which `set` sets if it does not yet go off
    /// in time.
    pub(super) fn limit(
        &mut self,
        limit: Option<Duration>,
        now: Instant,
        set: impl FnOnce(Duration) -> io::Result<()>,
    ) -> Option<Duration> {
        let limit = limit?;
        if limit < WORTH_A_TIMER || self.refused {
            return Some(limit);
        }
        let end = now + limit;
        // One that should have gone off by now is not relied on.
        if self.at.is_none_or(|at| at > end || at <= now) {
            self.refused = set(limit).is_err();
            if self.refused {
                return Some(limit);
            }
            self.at = Some(end);
        }
        None
    }

    /// The timer has gone off.
    pub(super) fn went_off(&mut self) {
        self.at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for the limit of a wait, and says what the timer was set to meanwhile.
    fn ask(timer: &mut Timer, limit: u64, now: Instant) -> (Option<Duration>, Option<Duration>) {
        let mut set = None;
        let limit = timer.limit(Some(Duration::from_millis(limit)), now, |limit| {
            set = Some(limit);
            Ok(())
        });
        (limit, set)
    }

    fn millis(count: u64) -> Option<Duration> {
        Some(Duration::from_millis(count))
    }

    #[test]
    fn a_deadline_that_stands_or_moves_away_sets_the_timer_once() {
        let (mut timer, now) = (Timer::default(), Instant::now());
        assert_eq!(ask(&mut timer, 500, now), (None, millis(500)));
        let later = now + Duration::from_millis(100);
        assert_eq!(ask(&mut timer, 400, later), (None, None), "the same deadline");
        assert_eq!(ask(&mut timer, 500, later), (None, None), "a later one");
        timer.went_off();
        let late = now + Duration::from_millis(500);
        assert_eq!(ask(&mut timer, 100, late), (None, millis(100)));
    }

    #[test]
    fn an_earlier_deadline_sets_it_anew() {
        let (mut timer, now) = (Timer::default(), Instant::now());
        ask(&mut timer, 500, now);
        assert_eq!(ask(&mut timer, 499, now), (None, millis(499)));
        assert_eq!(ask(&mut timer, 500, now), (None, None));
    }

    #[test]
    fn a_timer_that_is_overdue_is_set_again() {
        let (mut timer, now) = (Timer::default(), Instant::now());
        ask(&mut timer, 500, now);
        assert_eq!(ask(&mut timer, 20, now + Duration::from_millis(500)), (None, millis(20)));
    }

    #[test]
    fn a_short_limit_is_the_waits_own() {
        let (mut timer, now) = (Timer::default(), Instant::now());
        ask(&mut timer, 500, now);
        assert_eq!(ask(&mut timer, 9, now), (millis(9), None));
        assert_eq!(ask(&mut timer, 0, now), (millis(0), None));
    }

    #[test]
    fn where_there_is_no_timer_every_wait_has_its_limit() {
        let (mut timer, now) = (Timer::default(), Instant::now());
        let refuse = |_| Err(io::ErrorKind::Unsupported.into());
        assert_eq!(timer.limit(millis(500), now, refuse), millis(500));
        let again = |_| panic!("asked for again");
        assert_eq!(timer.limit(millis(500), now, again), millis(500));
        assert_eq!(timer.limit(None, now, again), None);
    }
}
