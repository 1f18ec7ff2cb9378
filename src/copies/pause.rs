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
        let until = Instant::now() + self.next();
        while Instant::now() < until && !intake.stop.is_asked() {
            intake.wait([], Some(until));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_seconds() {
        let mut pause = Pause::new();
        let pauses: Vec<u128> = (0..8).map(|_| pause.next().as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }
}
