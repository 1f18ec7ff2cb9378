//! The V8 heaps of the command's Node processes: looked at when that is due, and asked for collections.

use std::time::{Duration, Instant};

use crate::memory::heap::{HeapGuard, Record};
use crate::memory::heap_page::Page;
use crate::memory::policy::Stage;
use crate::memory::policy::collection::Collector;
use crate::memory::policy::heap::HeapChange;
use crate::observe::node::NodeReport;
use crate::process::heap_page::ask;
use crate::reports::stages::HeapFigures;
use crate::units::bytes;

/// Bytes that V8 fills in a second, about: a heap is looked at often enough to see a fifth of its limit pass.
const FILLED_PER_SECOND: f64 = 1e9;
const OFTENEST: Duration = Duration::from_millis(10);
const RAREST: Duration = Duration::from_millis(200);

/// Watches the heaps.
#[derive(Debug)]
pub(crate) struct NodeWatch {
    heaps: HeapGuard<'static>,
    collector: Collector,
    started: Instant,
    due: Instant,
    asked: u64,
}

impl NodeWatch {
    /// Watches the heaps that are written down in `page`.
    pub(crate) fn new(page: Page<'static>, now: Instant) -> NodeWatch {
        NodeWatch {
            heaps: HeapGuard::new(page),
            collector: Collector::default(),
            started: now,
            due: now + RAREST,
            asked: 0,
        }
    }

    /// When it has to look again.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Looks if that is due, and says whether the heaps' stage has changed.
    pub(crate) fn turn(&mut self, now: Instant) -> Option<HeapChange> {
        if now < self.due {
            return None;
        }
        let change = self.heaps.sample(now.saturating_duration_since(self.started));
        let smallest = self.heaps.heaps().iter().map(|heap| heap.limit).min();
        let period = smallest.map_or(RAREST / 2, |limit| {
            Duration::from_secs_f64(limit as f64 / 5.0 / FILLED_PER_SECOND)
        });
        self.due = now + period.clamp(OFTENEST, RAREST);
        change
    }

    /// Takes note of the stage of the memory, and of that of the run; asks for collections where memory is short.
    pub(crate) fn memory_sampled(&mut self, memory: Stage, bytes: u64, run: Stage, now: Instant) {
        let page = self.heaps.page();
        page.set_stage(Stage::ALL.iter().position(|stage| *stage == run).unwrap_or(0));
        if self.heaps.heaps().is_empty() {
            // Nobody could answer, which says nothing of what a collection would free.
            return;
        }
        let at = now.saturating_duration_since(self.started);
        let Some(collection) = self.collector.sample(memory, bytes, at) else { return };
        for heap in self.heaps.heaps() {
            if let Some(slot) = page.slot_of(heap.pid) {
                ask(slot, collection);
                self.asked += 1;
            }
        }
    }

    /// The stage of the fullest heap.
    pub(crate) fn stage(&self) -> Stage {
        self.heaps.stage()
    }

    /// The command has ended: a last look at what its processes have left.
    pub(crate) fn command_ended(&mut self, now: Instant) -> Option<HeapChange> {
        self.due = now;
        self.turn(now)
    }

    /// What is known now.
    pub(crate) fn figures(&self) -> HeapFigures {
        HeapFigures { heaps: self.heaps.heaps().to_vec(), near_limits: self.heaps.near_limits() }
    }

    /// How the heaps have changed lately, the oldest first.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.heaps.records().copied().collect()
    }

    /// The heaps in a few words, each behind a semicolon.
    pub(crate) fn words(&self) -> String {
        let words = self.heaps.heaps().iter().map(|heap| {
            let (live, limit) = (bytes(heap.live), bytes(heap.limit));
            let (used, external) = (bytes(heap.used), bytes(heap.external));
            let pid = heap.pid;
            format!("; node {pid}: heap {used} used, {live} alive of {limit}, external {external}")
        });
        words.collect()
    }

    /// The books.
    pub(crate) fn report(&self) -> NodeReport {
        NodeReport {
            processes: self.heaps.processes(),
            peak_live_bytes: self.heaps.peak_live(),
            highest_stage: self.heaps.highest().name(),
            near_limits: self.heaps.near_limits(),
            collections_asked: self.asked,
        }
    }
}
