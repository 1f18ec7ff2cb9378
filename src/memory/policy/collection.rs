//! When Node processes are asked to collect their garbage. Pure, as all of the policy.
//!
//! V8 decides by its own heap, and does not know that memory is short outside of it. A collection costs as much as
//! what is alive, so one that has freed little makes the next one rarer, unless the next is a more thorough one.

use std::time::Duration;

use super::Stage;
use crate::memory::heap_page::Collection;

/// The shortest time from one collection to the next.
const OFTEN: Duration = Duration::from_secs(5);

/// The longest.
const RARE: Duration = Duration::from_secs(80);

/// How long after it was asked for a collection is judged.
const JUDGED_AFTER: Duration = Duration::from_secs(2);

/// Decides when a collection is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Collector {
    next: Duration,
    interval: Duration,
    /// When the last one was asked for, and the memory in use then.
    asked: Option<(Duration, u64)>,
    last: Option<(Duration, Collection)>,
}

impl Default for Collector {
    fn default() -> Self {
        Collector { next: Duration::ZERO, interval: OFTEN, asked: None, last: None }
    }
}

impl Collector {
    /// Takes in the stage of the memory, and the bytes in use; says what to ask for now.
    pub fn sample(&mut self, stage: Stage, bytes: u64, at: Duration) -> Option<Collection> {
        if let Some((when, before)) = self.asked
            && at >= when + JUDGED_AFTER
        {
            self.asked = None;
            let helped = bytes < before - before / 10;
            self.interval = if helped { OFTEN } else { (self.interval * 2).min(RARE) };
            self.next = when + self.interval;
        }
        let collection = match stage {
            Stage::Monitoring | Stage::Attention => return None,
            Stage::Pressure => Collection::Moderate,
            Stage::Critical | Stage::Emergency => Collection::Critical,
        };
        let next = match self.last {
            Some((when, last)) if last < collection => self.next.min(when + OFTEN),
            _ => self.next,
        };
        if at < next {
            return None;
        }
        self.last = Some((at, collection));
        self.next = at + self.interval;
        self.asked = Some((at, bytes));
        Some(collection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds at which it asks, for memory that each collection lowers to `after`.
    fn asked(stage: Stage, after: u64) -> Vec<u64> {
        let mut collector = Collector::default();
        let mut bytes = 1000;
        let mut times = Vec::new();
        for tenth in 0..1000 {
            let at = Duration::from_millis(tenth * 100);
            if collector.sample(stage, bytes, at).is_some() {
                times.push(tenth / 10);
                bytes = after;
            } else if tenth % 50 == 49 {
                bytes = 1000;
            }
        }
        times
    }

    #[test]
    fn a_collection_that_helps_comes_again_after_five_seconds() {
        assert_eq!(asked(Stage::Pressure, 500)[..4], [0, 5, 10, 15]);
    }

    #[test]
    fn one_that_frees_little_makes_the_next_one_rarer() {
        assert_eq!(asked(Stage::Emergency, 950), [0, 10, 30, 70]);
    }

    #[test]
    fn none_is_asked_for_while_there_is_room() {
        assert!(asked(Stage::Attention, 1000).is_empty());
        let mut collector = Collector::default();
        let at = Duration::ZERO;
        assert_eq!(collector.sample(Stage::Pressure, 1, at), Some(Collection::Moderate));
        let mut collector = Collector::default();
        assert_eq!(collector.sample(Stage::Critical, 1, at), Some(Collection::Critical));
    }

    #[test]
    fn a_more_thorough_one_does_not_wait_longer_than_five_seconds() {
        let mut collector = Collector::default();
        let mut sample = |stage, second| collector.sample(stage, 9, Duration::from_secs(second));
        assert_eq!(sample(Stage::Pressure, 0), Some(Collection::Moderate));
        assert_eq!(sample(Stage::Critical, 3), None);
        assert_eq!(sample(Stage::Pressure, 5), None, "the first one has not helped");
        assert_eq!(sample(Stage::Critical, 5), Some(Collection::Critical));
        assert_eq!(sample(Stage::Critical, 10), None);
    }
}
