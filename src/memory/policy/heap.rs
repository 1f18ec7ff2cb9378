//! From V8 heaps to a stage. Pure, as all of the policy.
//!
//! A heap's own measure is what its last full collection left: garbage that waits for one says nothing of how close V8
//! is to its end.

use std::time::Duration;

use super::{LEAVE_AFTER, Stage};
use crate::memory::heap_page::Heap;

/// Percent of a heap's limit from which attention, pressure, critical and emergency begin.
pub const SHARES: [(Stage, u64); 4] =
    [(Stage::Attention, 30), (Stage::Pressure, 50), (Stage::Critical, 70), (Stage::Emergency, 80)];

/// A stage that the heaps have brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapChange {
    /// Until now.
    pub from: Stage,
    /// From now on.
    pub to: Stage,
    /// The heap that is fullest now.
    pub heap: Heap,
}

/// The stage of several heaps: that of the fullest, left as slowly as a stage of memory.
#[derive(Clone, Copy, Debug)]
pub struct Heaps {
    stage: Stage,
    /// Since when all have been low enough, and the highest stage that they would have fallen to in that time.
    low: Option<(Duration, Stage)>,
}

impl Default for Heaps {
    fn default() -> Self {
        Heaps { stage: Stage::Monitoring, low: None }
    }
}

impl Heaps {
    /// The stage after the last sample.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Takes in what all heaps say now. Samples come in the order of their times.
    pub fn sample(&mut self, heaps: &[Heap], at: Duration) -> Option<HeapChange> {
        let fullest = heaps.iter().max_by_key(|heap| (stage_of(heap, 100), share_of(heap)));
        let heap = fullest.copied().unwrap_or_default();
        let before = self.stage;
        self.follow(stage_of(&heap, 100), stage_of(&heap, 90), at);
        (self.stage != before).then_some(HeapChange { from: before, to: self.stage, heap })
    }

    fn follow(&mut self, reached: Stage, kept: Stage, at: Duration) {
        if reached >= self.stage || kept >= self.stage {
            self.stage = self.stage.max(reached);
            self.low = None;
            return;
        }
        let (since, highest) = self.low.unwrap_or((at, kept));
        let highest = highest.max(kept);
        self.low = Some((since, highest));
        if at.saturating_sub(since) >= LEAVE_AFTER {
            self.stage = highest;
            self.low = None;
        }
    }
}

/// How much of its limit a heap needs, in thousandths.
pub fn share_of(heap: &Heap) -> u64 {
    u64::try_from(u128::from(heap.live) * 1000 / u128::from(heap.limit.max(1))).unwrap_or(u64::MAX)
}

/// The stage of one heap.
pub fn stage_of_heap(heap: &Heap) -> Stage {
    stage_of(heap, 100)
}

/// The highest stage of which a heap has reached `percent` of the threshold.
fn stage_of(heap: &Heap, percent: u64) -> Stage {
    let share = share_of(heap);
    let found = SHARES.iter().rev().find(|(_, from)| share >= from * 10 * percent / 100);
    found.map_or(Stage::Monitoring, |(stage, _)| *stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heap(live: u64) -> Heap {
        Heap { pid: 1, live, limit: 2240, ..Heap::default() }
    }

    #[test]
    fn shares_of_the_limit() {
        let stages = [0, 671, 672, 1119, 1120, 1567, 1568, 1791, 1792, 9999]
            .map(|live| stage_of_heap(&heap(live)).name());
        let (none, first, second) = ("monitoring", "attention", "pressure");
        let (third, last) = ("critical", "emergency");
        assert_eq!(stages, [none, none, first, first, second, second, third, third, last, last]);
        assert_eq!(stage_of_heap(&Heap::default()), Stage::Monitoring);
    }

    #[test]
    fn the_fullest_counts_and_a_stage_is_left_after_a_second() {
        let mut heaps = Heaps::default();
        let at = Duration::from_millis;
        assert_eq!(heaps.sample(&[], at(0)), None);
        let change = heaps.sample(&[heap(100), heap(1200)], at(10)).expect("a change");
        assert_eq!((change.from, change.to), (Stage::Monitoring, Stage::Pressure));
        assert_eq!(change.heap.live, 1200);
        assert_eq!(heaps.sample(&[heap(100), heap(1010)], at(500)), None, "above 90 %");
        assert_eq!(heaps.sample(&[heap(100), heap(700)], at(600)), None);
        assert_eq!(heaps.sample(&[heap(100)], at(1599)), None);
        // The process with the fuller heap has ended meanwhile, but its share was seen within the second.
        let change = heaps.sample(&[heap(100)], at(1600)).expect("a change");
        assert_eq!((change.from, change.to), (Stage::Pressure, Stage::Attention));
        assert_eq!(heaps.sample(&[], at(1700)), None);
        assert_eq!(heaps.sample(&[], at(2700)).map(|change| change.to), Some(Stage::Monitoring));
    }
}
