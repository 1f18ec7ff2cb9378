//! Pauses between tries: from 0.1 to 5 seconds, each twice as long as the one before.

use std::time::{Duration, Instant};

use super::intake::Intake;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// The next pause.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause(Duration);

impl Pause {
    pub(super) fn new() -> Pause {
        Pause(FIRST)
    }

    /// How long it is.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST);
        pause
    }

    /// Waits for so long, unless the thread is asked to leave.
    pub(super) fn wait(&mut self, intake: &Intake) {
        self.wait_unless(intake, || false);
    }

    /// The same, but no longer than there is something to wait with: `is_over` is asked once the copy has ended.
    pub(super) fn wait_unless(&mut self, intake: &Intake, is_over: impl Fn() -> bool) {
        let until = Instant::now() + self.next();
        loop {
            // Before it is asked: an end that comes in between would not be seen.
            let end = intake.end();
            if Instant::now() >= until || intake.stop.is_asked() || is_over() {
                break;
            }
            intake.wait([end], Some(until));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::fd::OwnedFd;
    use std::sync::Arc;

    use nix::fcntl::OFlag;
    use nix::unistd;

    use super::*;
    use crate::config::Verbosity;
    use crate::copies::intake::Stop;
    use crate::relay::Beyond;

    #[test]
    fn pauses_grow_to_five_seconds() {
        let mut pause = Pause::new();
        let pauses: Vec<u128> = (0..8).map(|_| pause.next().as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    /// An intake, and the end that is written to.
    fn intake() -> (Intake, OwnedFd) {
        let (pipe, writer) = unistd::pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let stop = Arc::new(Stop::new().expect("a bell"));
        let (books, name) = (Arc::new(Beyond::default()), "copy".to_owned());
        (Intake::new(pipe, stop, books, name, None, Verbosity::Quiet).expect("an intake"), writer)
    }

    #[test]
    fn an_end_that_comes_between_two_looks_is_seen() {
        let (intake, writer) = intake();
        let writer = Cell::new(Some(writer));
        let day = Duration::from_secs(24 * 60 * 60);
        Pause(day).wait_unless(&intake, || {
            let over = intake.is_over();
            drop(writer.take());
            over
        });
    }

    #[test]
    fn an_end_is_told_once() {
        let (intake, writer) = intake();
        drop(writer);
        let asked = Cell::new(0);
        Pause(FIRST).wait_unless(&intake, || {
            asked.set(asked.get() + 1);
            false
        });
        assert!(asked.get() < 10, "{} times", asked.get());
    }
}
