//! Pipes that somebody else keeps locked.
//!
//! A transfer that the loop makes itself waits for the lock of its pipes, whatever its flags. Where one took long, kernel
//! workers wait in the loop's place from then on.

use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::ring::op::Fd;
use crate::ring::probe::{self, Workers};

/// A transfer in place that takes longer than this has waited for a pipe that somebody else keeps locked.
const TOO_LONG: Duration = Duration::from_millis(20);
/// Where no worker could be had then, what kept it away may have gone after this.
const ASKED_AGAIN: Duration = Duration::from_secs(10);

/// The pipes at which a transfer in place was held up.
#[derive(Debug)]
pub(super) struct HeldUp {
    pipes: Vec<Weak<OwnedFd>>,
    workers: Tried,
}

impl HeldUp {
    pub(super) fn new(workers: Workers) -> HeldUp {
        let workers = Tried { most: workers.most, seen: workers.needed, not_before: None };
        HeldUp { pipes: Vec::new(), workers }
    }

    /// Whether one of a transfer's ends is such a pipe.
    pub(super) fn holds(&self, ends: [&Fd; 2]) -> bool {
        let is = |fd: &Fd, pipe: &Weak<OwnedFd>| std::ptr::eq(Rc::as_ptr(fd), pipe.as_ptr());
        self.pipes.iter().any(|pipe| ends.iter().any(|fd| is(fd, pipe)))
    }

    /// When a transfer begins: by a clock that moves every few milliseconds, and costs a fraction of the exact one.
    pub(super) fn begin() -> Duration {
        clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(Duration::ZERO, Duration::from)
    }

    /// Takes note of a transfer that has just ended.
    pub(super) fn ended(&mut self, begun: Duration, ends: [&Fd; 2]) {
        if HeldUp::begin().saturating_sub(begun) > TOO_LONG && self.workers.are_there() {
            self.pipes.retain(|fd| fd.strong_count() > 0);
            self.pipes.extend(ends.map(Rc::downgrade));
        }
    }
}

/// The kernel's workers, and whether it has been seen to start them.
#[derive(Debug)]
struct Tried {
    most: u32,
    seen: bool,
    /// When they may be asked for again.
    not_before: Option<Instant>,
}

impl Tried {
    /// Workers belong to the thread, not to a ring, and an idle ring asks without disturbing what is in flight.
    fn are_there(&mut self) -> bool {
        if !self.seen && self.not_before.is_none_or(|at| at <= Instant::now()) {
            let ring = probe::open();
            let asked = ring.and_then(|mut ring| probe::check_workers(&mut ring, self.most));
            self.seen = asked.is_ok();
            self.not_before = Some(Instant::now() + ASKED_AGAIN);
        }
        self.seen
    }
}
