//! Pauses that grow while nothing succeeds.

use std::time::Duration;

/// The first pause is 0.1 s; each is twice the one before, up to 5 s. A success starts anew.
#[derive(Debug)]
pub(crate) struct Pauses {
    next: Duration,
}

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

impl Pauses {
    /// Pauses that begin with the shortest.
    pub(crate) fn new() -> Self {
        Pauses { next: FIRST }
    }

    /// How long to wait now; the next answer is longer.
    pub(crate) fn grow(&mut self) -> Duration {
        let now = self.next;
        self.next = (now * 2).min(LONGEST);
        now
    }

    /// Something succeeded.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_seconds_and_begin_anew() {
        let mut pauses = Pauses::new();
        let grown: Vec<u128> = (0..8).map(|_| pauses.grow().as_millis()).collect();
        assert_eq!(grown, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        pauses.reset();
        assert_eq!(pauses.grow(), FIRST);
    }
}
