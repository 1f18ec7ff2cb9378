//! The thread beside JavaScript: it waits for requests, and watches memory where nobody else does.
//!
//! It takes no signal, and is over before the isolate is.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::AtomicU64;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use nproxy::memory::heap_page::{Collection, Request, Slot};

use crate::heap::Heap;
use crate::page;
use crate::watch::Watch;

/// A sample reads a few small files, and a line is written.
const STACK: usize = 256 << 10;

/// The thread.
pub(crate) struct Thread {
    handle: JoinHandle<()>,
    slot: Slot<'static>,
}

impl Thread {
    /// Starts it.
    ///
    /// # Errors
    /// What pthread_create(3) says.
    pub(crate) fn start(
        slot: Slot<'static>,
        heap: Option<&'static Heap>,
        watch: Option<Watch>,
    ) -> io::Result<Thread> {
        let before = block_signals();
        let work = move || work(slot.request_word(), heap, watch);
        let handle = Builder::new().name("nproxy".to_owned()).stack_size(STACK).spawn(work);
        if let Some(before) = before {
            // SAFETY: the mask that this thread had.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut()) };
        }
        Ok(Thread { handle: handle?, slot })
    }

    /// Ends it, and waits until it is over.
    pub(crate) fn stop(self) {
        self.slot.request_end();
        page::wake(self.slot.request_word());
        let _ = self.handle.join();
    }
}

/// Blocks all signals for this thread, and for one that it starts; answers the mask before.
fn block_signals() -> Option<libc::sigset_t> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset(3) fills the set, and pthread_sigmask(3) the mask before, if it answers 0.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        let failed = libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        (failed == 0).then(|| before.assume_init())
    }
}

fn work(word: &'static AtomicU64, heap: Option<&'static Heap>, mut watch: Option<Watch>) {
    let mut seen = 0;
    loop {
        let now = Instant::now();
        let request = page::low(word);
        if request != seen {
            seen = request;
            match Request::of(request) {
                Request::End => break,
                Request::Collect(collection) => collect(heap, collection),
                Request::None => {}
            }
        }
        if let Some(collection) = watch.as_mut().and_then(|watch| watch.turn(now)) {
            collect(heap, collection);
        }
        let timeout =
            watch.as_ref().map(|watch| watch.due(now).saturating_duration_since(Instant::now()));
        page::wait(word, seen, timeout);
    }
    if let Some(watch) = &mut watch {
        watch.end();
    }
}

fn collect(heap: Option<&'static Heap>, collection: Collection) {
    let level = match collection {
        Collection::Moderate => 1,
        Collection::Critical => 2,
    };
    if let Some(heap) = heap {
        heap.v8.collect(level);
    }
}
