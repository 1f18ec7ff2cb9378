//! A driver for tests: operations run when the test says so, as far as it says, or meet what it says.
//!
//! What runs is carried out for real, by the same calls as on the epoll driver, so that what arrives can be compared
//! with what was sent.

use std::collections::VecDeque;
use std::time::Instant;

use nix::poll::PollFlags;
use nix::sys::stat::fstat;

use super::epoll::{State, attempt};
use super::op::{Action, Completion, Fd, Op, Operation, Outcome, Token};
use super::slots::Slot;
use super::sync::{self, Run};
use super::transfer::{Attempt, ready};
use super::{Driver, Engine, Ring};

/// What becomes of an operation in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is carried out, with at most so many bytes; not yet, if it has to wait.
    Runs(u32),
    /// It is not carried out, and this is its result.
    Meets(Outcome),
}

/// The operations in flight, in the order in which they were submitted.
#[derive(Debug)]
pub(super) struct Scripted {
    pub(super) engine: Engine,
    in_flight: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    slot: Slot<State>,
    cancelled: bool,
}

impl Scripted {
    pub(super) fn submit(&mut self, token: Token, op: Op, submitted: Instant) {
        let twice = self.in_flight.iter().any(|entry| entry.slot.token == token);
        assert!(!twice, "{token:?} is in flight already");
        let slot = Slot { token, op, submitted, state: State::default() };
        self.in_flight.push(Entry { slot, cancelled: false });
    }

    pub(super) fn cancel(&mut self, token: Token) {
        for entry in self.in_flight.iter_mut().filter(|entry| entry.slot.token == token) {
            entry.cancelled = true;
        }
    }

    fn settle(&mut self, index: usize, fate: Fate, completed: &mut VecDeque<Completion>) -> bool {
        let entry = &mut self.in_flight[index];
        let outcome = match fate {
            Fate::Meets(outcome) => outcome,
            Fate::Runs(most) => {
                // A marker is smaller than PIPE_BUF: the kernel never cuts it.
                if entry.slot.token.operation != Operation::Mark {
                    bound(&mut entry.slot.op.action, most);
                }
                if is_of_a_file(&entry.slot.op.action) {
                    let Slot { token, op, submitted, .. } = self.in_flight.remove(index).slot;
                    let Run::Done(done) = sync::run(token, op, submitted) else {
                        unreachable!("a file's")
                    };
                    completed.push_back(done);
                    return true;
                }
                // A worker of io_uring would wait there; the test would wait for itself.
                let full = full_socket(&entry.slot.op.action);
                match full.map_or_else(|| attempt(&mut entry.slot), blocked_on) {
                    Attempt::Ended(outcome) => outcome,
                    Attempt::BlockedOn(..) if entry.cancelled => Outcome::Cancelled,
                    Attempt::BlockedOn(..) => return false,
                }
            }
        };
        let Slot { token, op, submitted, .. } = self.in_flight.remove(index).slot;
        completed.push_back(Completion { token, outcome, buffer: op.into_buffer(), submitted });
        true
    }
}

/// The socket that a splice would wait for, if it blocks: SPLICE_F_NONBLOCK is about the pipe only.
fn full_socket(action: &Action) -> Option<Fd> {
    let Action::Splice { to, .. } = action else { return None };
    let is_socket = fstat(to).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFSOCK);
    let is_full = || ready(to, PollFlags::POLLOUT).is_ok_and(|found| found.is_empty());
    (is_socket && is_full()).then(|| to.clone())
}

fn blocked_on(socket: Fd) -> Attempt {
    Attempt::BlockedOn(socket, PollFlags::POLLOUT)
}

fn is_of_a_file(action: &Action) -> bool {
    matches!(action, Action::ReadFile { .. } | Action::WriteFile { .. })
}

/// Makes a transfer a short one.
fn bound(action: &mut Action, most: u32) {
    match action {
        Action::Poll { .. } => {}
        Action::Splice { len, .. } | Action::Tee { len, .. } => *len = (*len).min(most),
        Action::Read { range, .. }
        | Action::Write { range, .. }
        | Action::ReadFile { range, .. }
        | Action::WriteFile { range, .. } => {
            range.end = range.end.min(range.start + most as usize);
        }
    }
}

impl Ring {
    /// A ring that does what a test says, and passes for one on this engine.
    pub(crate) fn scripted(engine: Engine) -> Ring {
        let driver = Driver::Scripted(Scripted { engine, in_flight: Vec::new() });
        let (completed, now) = (VecDeque::new(), Instant::now());
        Ring { driver, completed, now, calls: 0, apart: None, unasked: 0 }
    }

    /// What is in flight on a scripted ring, in the order in which it was submitted.
    pub(crate) fn in_flight(&self) -> Vec<Operation> {
        let Driver::Scripted(scripted) = &self.driver else { return Vec::new() };
        scripted.in_flight.iter().map(|entry| entry.slot.token.operation).collect()
    }

    /// Lets one of them come to its fate. False if it still waits.
    pub(crate) fn settle(&mut self, index: usize, fate: Fate) -> bool {
        match &mut self.driver {
            Driver::Scripted(scripted) => scripted.settle(index, fate, &mut self.completed),
            _ => false,
        }
    }
}
