//! This process's heap: its figures after each collection, and what is done before V8 gives up.

use std::ffi::c_void;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};

use nproxy::memory::group;
use nproxy::memory::heap_page::Slot;

use nproxy::units;

use crate::notice;
use crate::v8::{FULL_COLLECTION, Isolate, V8};

/// A heap that writes itself down.
pub(crate) struct Heap {
    pub(crate) v8: V8,
    slot: Slot<'static>,
    /// The slot is given away.
    ended: AtomicBool,
    told: Told,
    snapshot: Snapshot,
}

/// Whether a line is written before the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Yes,
    No,
}

/// Whether Node was told to write a snapshot before the limit (--heapsnapshot-near-heap-limit).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Snapshot {
    Asked,
    None,
}

/// The part of the limit that is added once, when V8 is about to reach it.
const HEADROOM_PART: usize = 4;

/// The limit goes back to what it was when so large a part of it is alive.
const RESTORE_AT: f64 = 0.9;

impl Heap {
    /// Registers the heap. `limit` is what V8 allows the old generation, in bytes, if it was named; else the whole heap's
    /// limit is near enough.
    pub(crate) fn new(
        v8: V8,
        slot: Slot<'static>,
        limit: u64,
        told: Told,
        snapshot: Snapshot,
    ) -> &'static Heap {
        let said = v8.statistics();
        slot.set_limit(if limit == 0 { said.limit } else { limit.min(said.limit) });
        slot.set_used(said.used, said.external);
        let heap: &'static Heap =
            Box::leak(Box::new(Heap { v8, slot, ended: AtomicBool::new(false), told, snapshot }));
        let data = std::ptr::from_ref(heap).cast_mut().cast();
        heap.v8.on_collection(after_collection, data);
        heap.v8.on_near_limit(near_limit, data);
        heap
    }

    /// The process is about to end: its slot is no longer written to.
    pub(crate) fn forget_slot(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    fn has_slot(&self) -> bool {
        !self.ended.load(Ordering::Relaxed)
    }

    fn after_collection(&self, kind: i32) {
        if !self.has_slot() {
            return;
        }
        let said = self.v8.statistics();
        self.slot.set_used(said.used, said.external);
        if kind & FULL_COLLECTION != 0 {
            self.slot.collected(said.used);
        }
    }

    /// Says so, and gives a little more, once. The next time V8 asks whoever asked to be told before us, or dies.
    fn near_limit(&self, limit: usize, at_first: usize) -> usize {
        if self.has_slot() {
            self.slot.near_limit();
        }
        let part = at_first / HEADROOM_PART;
        // Up to V8 12 it asks once per collection, and dies if the young generation would not fit even then. Node, which
        // is to be asked after us, would add so much itself.
        let young =
            usize::try_from(self.v8.statistics().limit).unwrap_or(0).saturating_sub(at_first);
        let wanted = if self.snapshot == Snapshot::Asked { part.max(young) } else { part };
        let more = wanted.min(usize::try_from(group::left_to_us()).unwrap_or(usize::MAX));
        if self.told == Told::Yes && notice::has_room() {
            let (pid, at, more) =
                (std::process::id(), units::bytes(limit as u64), units::bytes(more as u64));
            let line = format!(
                "nproxy: node {pid}: the V8 heap is at its limit of {at}: emergency; {more} more this once\n"
            );
            notice::write_all(line.as_bytes());
        }
        self.v8.restore_limit_at(RESTORE_AT);
        self.v8.off_near_limit(near_limit);
        limit.saturating_add(more)
    }
}

/// A panic must not go through V8's frames.
fn guarded<T>(then: impl FnOnce() -> T) -> Option<T> {
    panic::catch_unwind(panic::AssertUnwindSafe(then)).ok()
}

unsafe extern "C" fn after_collection(_: *mut Isolate, kind: i32, _: i32, data: *mut c_void) {
    // SAFETY: the data that it was registered with, which lives for ever.
    let heap = unsafe { &*data.cast::<Heap>() };
    let _ = guarded(|| heap.after_collection(kind));
}

unsafe extern "C" fn near_limit(data: *mut c_void, limit: usize, at_first: usize) -> usize {
    // SAFETY: as above.
    let heap = unsafe { &*data.cast::<Heap>() };
    guarded(|| heap.near_limit(limit, at_first)).unwrap_or(limit)
}
