//! Watches the V8 heaps that Node processes write down in a shared page.

use std::collections::VecDeque;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::heap_page::{Heap, Page};
use super::kin::Stat;
use super::policy::Stage;
use super::policy::heap::{HeapChange, Heaps, SHARES};
use crate::units;

/// How often the dead are looked for: a process that was killed could not say that it ended.
const LOOK_FOR_DEAD: Duration = Duration::from_millis(200);

/// How many records of heaps are kept for a crash report.
const RECORDS: usize = 256;

/// What one heap was like at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Since the guard began.
    pub at: Duration,
    /// Its figures.
    pub heap: Heap,
}

/// Watches the heaps of a page.
#[derive(Debug)]
pub struct HeapGuard<'p> {
    page: Page<'p>,
    heaps: Heaps,
    /// The figures in the last sample.
    last: Vec<Heap>,
    records: VecDeque<Record>,
    looked_for_dead: Duration,
    near_limits: u64,
    highest: Stage,
    peak_live: u64,
    processes: u64,
}

impl<'p> HeapGuard<'p> {
    /// Watches the heaps that are written down in `page`.
    pub fn new(page: Page<'p>) -> HeapGuard<'p> {
        HeapGuard {
            page,
            heaps: Heaps::default(),
            last: Vec::new(),
            records: VecDeque::new(),
            looked_for_dead: Duration::ZERO,
            near_limits: 0,
            highest: Stage::Monitoring,
            peak_live: 0,
            processes: 0,
        }
    }

    /// Reads all heaps, and says whether their stage has changed. Without a system call, but for a look
    /// five times a second at who is still there.
    pub fn sample(&mut self, at: Duration) -> Option<HeapChange> {
        let before = std::mem::take(&mut self.last);
        self.last.extend(self.page.heaps());
        for heap in &self.last {
            let known = before.iter().find(|known| known.pid == heap.pid);
            if known == Some(heap) {
                continue;
            }
            self.processes += u64::from(known.is_none());
            self.peak_live = self.peak_live.max(heap.live);
            let near_before = known.map_or(0, |known| known.near_limits.min(heap.near_limits));
            self.near_limits += heap.near_limits - near_before;
            if self.records.len() == RECORDS {
                self.records.pop_front();
            }
            self.records.push_back(Record { at, heap: *heap });
        }
        let change = self.heaps.sample(&self.last, at);
        self.highest = self.highest.max(self.heaps.stage());
        // Only now: what a process has said last is worth knowing.
        if at.saturating_sub(self.looked_for_dead) >= LOOK_FOR_DEAD {
            self.looked_for_dead = at;
            self.bury_dead();
        }
        change
    }

    fn bury_dead(&self) {
        for heap in self.page.heaps().filter(|heap| !is_alive(heap.pid)) {
            if let Some(slot) = self.page.slot_of(heap.pid) {
                slot.bury(heap.pid);
            }
        }
    }

    /// The stage of the fullest heap.
    pub fn stage(&self) -> Stage {
        self.heaps.stage()
    }

    /// The highest stage so far.
    pub fn highest(&self) -> Stage {
        self.highest
    }

    /// The heaps in the last sample.
    pub fn heaps(&self) -> &[Heap] {
        &self.last
    }

    /// Times that V8 was about to reach a limit, in all processes so far.
    pub fn near_limits(&self) -> u64 {
        self.near_limits
    }

    /// The most that any heap needed after a full collection, in bytes.
    pub fn peak_live(&self) -> u64 {
        self.peak_live
    }

    /// Node processes seen so far.
    pub fn processes(&self) -> u64 {
        self.processes
    }

    /// How the heaps have changed lately, the oldest first.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    /// The page.
    pub fn page(&self) -> Page<'p> {
        self.page
    }
}

/// A change of the heaps' stage, in words.
pub fn described(change: &HeapChange) -> String {
    let (pid, to) = (change.heap.pid, change.to);
    let from = SHARES.iter().find(|(stage, _)| *stage == to);
    // The process that the stage is of may have ended meanwhile.
    let (Some((_, from)), 1..) = (from, pid) else { return format!("heap: {to}") };
    let (live, limit) = (units::bytes(change.heap.live), units::bytes(change.heap.limit));
    // V8 collects in large steps when its heap is small.
    let passed = |stage: Stage| change.from < stage && stage < to;
    let passed = SHARES.iter().filter(|(stage, _)| passed(*stage));
    let passed: String = passed.map(|(stage, _)| format!(", past {stage}")).collect();
    format!("heap of node {pid}: {to} from {from} % of {limit} ({live} alive{passed})")
}

/// Whether a process with this number runs. One that has ended does not, whether or not anybody has asked how.
pub fn is_alive(pid: u32) -> bool {
    let Ok(number) = i32::try_from(pid) else { return false };
    let exists = kill(Pid::from_raw(number), None) != Err(Errno::ESRCH);
    exists && !Stat::read(pid).is_some_and(|stat| stat.ended)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::super::heap_page::WORDS;
    use super::*;

    #[test]
    fn a_heap_is_followed_until_its_process_is_gone() {
        let words = [const { AtomicU64::new(0) }; WORDS];
        let page = Page::begin(&words);
        let mut guard = HeapGuard::new(page);
        let mut child = std::process::Command::new("sleep").arg("100").spawn().expect("sleep");
        let slot = page.register(child.id(), is_alive).expect("room");
        slot.set_limit(1000);
        let at = Duration::from_millis;
        assert_eq!(guard.sample(at(10)), None);
        slot.collected(310);
        assert_eq!(guard.sample(at(20)).map(|change| change.to), Some(Stage::Attention));
        slot.near_limit();
        let change = guard.sample(at(30)).expect("a change");
        let text = format!(
            "heap of node {}: emergency from 80 % of 1000 B (1000 B alive, past pressure, past critical)",
            child.id()
        );
        assert_eq!(described(&change), text);
        assert_eq!((guard.near_limits(), guard.records().count()), (1, 3));
        assert_eq!(guard.sample(at(40)), None);
        assert_eq!(guard.records().count(), 3, "nothing has changed");
        child.kill().expect("kill");
        // Nobody has asked yet how it ended.
        while is_alive(child.id()) {
            std::thread::yield_now();
        }
        guard.sample(at(300));
        assert_eq!(guard.heaps().len(), 1, "its last words");
        guard.sample(at(310));
        assert!(guard.heaps().is_empty());
        assert_eq!(guard.sample(at(1310)).map(|change| change.to), Some(Stage::Monitoring));
        assert_eq!(guard.highest(), Stage::Emergency);
        assert_eq!(guard.near_limits(), 1);
        child.wait().expect("wait");
    }
}
