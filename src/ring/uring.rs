//! The io_uring driver.
//!
//! A splice or tee in the ring always runs on a kernel worker (io-wq), where it may block; reads and writes wait by
//! the ring's internal poll and hold no worker. An operation with waits is a chain of `POLL_ADD`s soft-linked
//! to it: a cancelled poll then takes the operation with it, while a poll that succeeded lets it run.
//!
//! A transfer that is to be made in place never enters the ring: it is tried without waiting, and what it lacks is
//! polled by the ring before the next try. That saves waking a worker and being woken by it.
//! No timeout is ever linked to anything (the timer stands alone): in front of a splice it makes workers without bound.

#![allow(unsafe_code)]

mod held_up;
mod registered;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd as RawTarget, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};
use nix::poll::PollFlags;

use held_up::HeldUp;
use registered::Registered;

use super::buffer::Buffer;
use super::op::{Action, Completion, Fd, Full, Op, Outcome, Token, UserData};
use super::probe::{self, Workers};
use super::slots::{Slot, Slots};
use super::timer::{self, Timer};
use super::transfer::{self, Attempt};

/// "Use and advance the file's own position", for reads, writes and splices alike.
const FILE_POSITION: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Uring {
    ring: IoUringDebug,
    in_flight: Slots<State>,
    buffers: Registered,
    pub(super) timer: Timer,
    /// Where the kernel reads what a timer is set to.
    timer_limit: Box<Timespec>,
    /// Transfers in place whose poll is over.
    due: Vec<u32>,
    held_up: HeldUp,
    /// Operations that have been cancelled and are in flight all the same, and when the kernel was last asked.
    cancelled: u32,
    asked: Instant,
}

/// How long a cancelled operation may stay in flight before the kernel is asked once more. Between a wait that is over and its
/// operation, which has not begun, it finds neither; and the operation may then wait for ever.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// What is known of an operation whose chain is in flight.
#[derive(Debug)]
struct State {
    /// Completions still to come: one for each wait and one for the operation.
    remaining: u8,
    /// The operation's own result.
    result: i32,
    /// A wait that failed by itself, which explains why the operation was never started.
    wait_error: Option<i32>,
    place: Place,
    cancelled: bool,
}

/// Where an operation is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Ring,
    /// By the loop; the ring only polls what it lacks.
    Loop,
    /// The same, and it has been taken back: it is not to wait any more.
    LoopNoLonger,
}

/// `IoUring` has no `Debug` of its own.
struct IoUringDebug(IoUring);

impl std::fmt::Debug for IoUringDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("IoUring").field(&self.0.as_raw_fd()).finish()
    }
}

impl Uring {
    pub(super) fn open(workers: Workers) -> io::Result<Uring> {
        let mut ring = probe::open()?;
        probe::check(&mut ring)?;
        if workers.needed {
            probe::check_workers(&mut ring, workers.most)?;
        }
        Ok(Uring {
            ring: IoUringDebug(ring),
            in_flight: Slots::new(),
            buffers: Registered::Unused,
            timer: Timer::new(timer::Kind::Many),
            timer_limit: Box::default(),
            due: Vec::new(),
            held_up: HeldUp::new(workers),
            cancelled: 0,
            asked: Instant::now(),
        })
    }

    /// Registers a buffer, unless the kernel has refused one before.
    pub(super) fn register(&mut self, buffer: &mut Buffer) {
        self.buffers.add(&self.ring.0, buffer);
    }

    pub(super) fn submit(
        &mut self,
        token: Token,
        op: Op,
        now: Instant,
        completed: &mut VecDeque<Completion>,
    ) -> io::Result<()> {
        match self.takes_worker(&op) {
            true => self.enter(token, op, now),
            false => self.begin_in_place(token, op, now, completed),
        }
    }

    /// Whether a worker carries the operation out, or the ring itself.
    pub(super) fn takes_worker(&self, op: &Op) -> bool {
        let ends = match &op.action {
            Action::Splice { from, to, .. } | Action::Tee { from, to, .. } if op.in_place => {
                [from, to]
            }
            _ => return true,
        };
        self.held_up.holds(ends)
    }

    /// Puts an operation, behind what it waits for, into the ring.
    fn enter(&mut self, token: Token, mut op: Op, now: Instant) -> io::Result<()> {
        let mut entries: [Option<Entry>; 3] = [None, None, None];
        let mut links = 0;
        for wait in op.waits.iter().flatten() {
            entries[links] = Some(
                opcode::PollAdd::new(target(&wait.fd), wait.events.bits() as u32)
                    .build()
                    .flags(Flags::IO_LINK),
            );
            links += 1;
        }
        let flags = if op.on_worker { Flags::ASYNC } else { Flags::empty() };
        entries[links] = Some(entry(&mut op.action).flags(flags));
        let count = links as u8 + 1;
        let state = State::new(count, Place::Ring);
        // Before there is a slot: one that was never submitted would be waited for in vain.
        self.make_room(count.into())?;
        let slot = self.in_flight.insert(token, op, now, state);
        for (index, entry) in entries.into_iter().flatten().enumerate() {
            // Links count down, so that the operation itself is link 0.
            let link = count - 1 - index as u8;
            let data = UserData { token, link, slot };
            self.push(entry.user_data(data.encode()));
        }
        Ok(())
    }

    /// Tries a transfer at once, or polls first what it is to wait for.
    fn begin_in_place(
        &mut self,
        token: Token,
        op: Op,
        now: Instant,
        completed: &mut VecDeque<Completion>,
    ) -> io::Result<()> {
        let wait = op.waits.iter().flatten().next();
        let wait = wait.map(|wait| (wait.fd.clone(), wait.events));
        self.make_room(1)?;
        let slot = self.in_flight.insert(token, op, now, State::new(0, Place::Loop));
        match wait {
            Some((fd, events)) => self.poll_for(slot, &fd, events),
            None => self.try_in_place(slot, completed),
        }
    }

    /// Lets the ring say when a transfer in place can be tried.
    fn poll_for(&mut self, slot: u32, fd: &Fd, events: PollFlags) -> io::Result<()> {
        self.make_room(1)?;
        let Some(found) = self.in_flight.get_mut(slot) else { return Ok(()) };
        found.state.remaining = 1;
        let data = UserData { token: found.token, link: 0, slot };
        let poll = opcode::PollAdd::new(target(fd), events.bits() as u32).build();
        self.push(poll.user_data(data.encode()));
        Ok(())
    }

    fn try_in_place(&mut self, slot: u32, completed: &mut VecDeque<Completion>) -> io::Result<()> {
        let Some(found) = self.in_flight.get_mut(slot) else { return Ok(()) };
        let begun = HeldUp::begin();
        let (attempt, ends) = match &found.op.action {
            Action::Splice { from, to, len } => (transfer::splice(from, to, *len), [from, to]),
            Action::Tee { from, to, len, full } => {
                (transfer::tee(from, to, *len, *full), [from, to])
            }
            _ => unreachable!("only transfers are made in place"),
        };
        self.held_up.ended(begun, ends);
        let outcome = match attempt {
            Attempt::Ended(outcome) => outcome,
            Attempt::BlockedOn(fd, events) => return self.poll_for(slot, &fd, events),
        };
        completed.extend(self.in_flight.remove(slot).map(|slot| ended(slot, outcome)));
        Ok(())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    pub(super) fn cancel(&mut self, token: Token) -> io::Result<()> {
        match self.in_flight.find(token) {
            Some(slot) => self.cancel_slot(slot),
            None => Ok(()),
        }
    }

    /// Cancels the waits first: each either falls and takes the operation with it, or is over, and
    /// then the operation itself can be found. The other order would miss one that starts in between.
    fn cancel_slot(&mut self, slot: u32) -> io::Result<()> {
        let Some(found) = self.in_flight.get_mut(slot) else { return Ok(()) };
        let token = found.token;
        if !std::mem::replace(&mut found.state.cancelled, true) {
            self.asked = if self.cancelled == 0 { Instant::now() } else { self.asked };
            self.cancelled += 1;
        }
        if found.state.place == Place::Loop {
            found.state.place = Place::LoopNoLonger;
        }
        let links = found.op.waits.iter().flatten().count() as u8;
        self.make_room(usize::from(links) + 1)?;
        for link in (0..=links).rev() {
            let data = UserData { token, link, slot }.encode();
            self.push(opcode::AsyncCancel::new(data).build().user_data(UserData::IGNORED));
        }
        Ok(())
    }

    /// Asks once more for what was cancelled some time ago and is still in flight. How long may be waited then.
    fn cancel_again(&mut self, timeout: Option<Duration>) -> io::Result<Option<Duration>> {
        if self.cancelled == 0 {
            return Ok(timeout);
        }
        if self.asked.elapsed() >= ASK_AGAIN {
            self.asked = Instant::now();
            let left = self.in_flight.iter_mut().filter(|(_, found)| found.state.cancelled);
            let left: Vec<u32> = left.map(|(slot, _)| slot).collect();
            left.into_iter().try_for_each(|slot| self.cancel_slot(slot))?;
        }
        Ok(Some(timeout.map_or(ASK_AGAIN, |timeout| timeout.min(ASK_AGAIN))))
    }

    /// Makes sure that the next `count` entries go out in one submission: a link must not be torn.
    fn make_room(&mut self, count: usize) -> io::Result<()> {
        let queue = self.ring.0.submission();
        if queue.capacity() - queue.len() >= count {
            return Ok(());
        }
        drop(queue);
        loop {
            match self.ring.0.submit() {
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                submitted => return submitted.map(drop),
            }
        }
    }

    fn push(&mut self, entry: Entry) {
        // SAFETY: fds and memory named by the entry are owned by the operation's slot until the last
        // completion of its chain has been seen; the buffer's heap memory does not move with the slot.
        let pushed = unsafe { self.ring.0.submission().push(&entry) };
        debug_assert!(pushed.is_ok(), "make_room left no room");
    }

    /// Lets a timer go off then, beside those that were set before.
    fn set_timer(&mut self, end: Instant) -> io::Result<()> {
        self.make_room(1)?;
        *self.timer_limit = Timespec::from(timer::left(end));
        let timer = opcode::Timeout::new(&*self.timer_limit).build();
        self.push(timer.user_data(UserData::TIMER));
        Ok(())
    }

    pub(super) fn wait(
        &mut self,
        timeout: Option<Duration>,
        now: Instant,
        completed: &mut VecDeque<Completion>,
    ) -> io::Result<()> {
        let mut timer = std::mem::replace(&mut self.timer, Timer::new(timer::Kind::Many));
        let timeout = timer.limit(timeout, now, |end| self.set_timer(end));
        self.timer = timer;
        let timeout = self.cancel_again(timeout)?;
        let wanted = usize::from(self.ring.0.completion().is_empty());
        let submitter = self.ring.0.submitter();
        let entered = match timeout {
            Some(limit) => {
                let limit = Timespec::from(limit);
                submitter.submit_with_args(wanted, &SubmitArgs::new().timespec(&limit))
            }
            None => submitter.submit_and_wait(wanted),
        };
        match entered.map_err(|error| error.raw_os_error()) {
            // EBUSY: the completion queue is full; reaping it below is what makes room.
            Ok(_) | Err(Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
            Err(code) => return Err(io::Error::from_raw_os_error(code.unwrap_or(libc::EIO))),
        }
        self.reap(completed);
        let mut due = std::mem::take(&mut self.due);
        for slot in due.drain(..) {
            self.try_in_place(slot, completed)?;
        }
        self.due = due;
        Ok(())
    }

    /// Takes what has completed out of the queue; an operation counts when its whole chain is done.
    fn reap(&mut self, completed: &mut VecDeque<Completion>) {
        for entry in self.ring.0.completion() {
            if entry.user_data() == UserData::TIMER && entry.result() != -libc::ETIME {
                self.timer.refuse();
            }
            let Some(data) = UserData::decode(entry.user_data()) else { continue };
            let Some(slot) = self.in_flight.get_mut(data.slot) else { continue };
            let result = entry.result();
            let state = &mut slot.state;
            state.remaining -= 1;
            if data.link == 0 {
                state.result = result;
            } else if result < 0 && result != -libc::ECANCELED {
                state.wait_error = Some(wait_failed(result, &slot.op));
            }
            if state.remaining > 0 {
                continue;
            }
            self.cancelled -= u32::from(state.cancelled);
            let outcome = match state.place {
                Place::Loop if result >= 0 => {
                    self.due.push(data.slot);
                    continue;
                }
                Place::LoopNoLonger if result >= 0 => Outcome::Cancelled,
                _ => Outcome::from_result(state.wait_error.unwrap_or(state.result)),
            };
            completed.extend(self.in_flight.remove(data.slot).map(|slot| ended(slot, outcome)));
        }
    }
}

impl State {
    fn new(remaining: u8, place: Place) -> State {
        State { remaining, result: 0, wait_error: None, place, cancelled: false }
    }
}

fn ended(slot: Slot<State>, outcome: Outcome) -> Completion {
    let Slot { token, op, submitted, .. } = slot;
    Completion { token, outcome, buffer: op.into_buffer(), submitted }
}

/// What a failed wait stands for. A terminal has two wait queues, and when one wakes a poll for nothing (as
/// tcsetattr(3) does), 6.18 arms the poll once more, takes its second entry for a third and reports EINVAL. That is
/// no refusal, only an interruption.
fn wait_failed(result: i32, op: &Op) -> i32 {
    let mut waits = op.waits.iter().flatten();
    let mut terminal = || waits.any(|wait| nix::unistd::isatty(&wait.fd).unwrap_or(false));
    if result == -libc::EINVAL && terminal() { -libc::EINTR } else { result }
}

/// The submission for an operation without its waits.
fn entry(action: &mut Action) -> Entry {
    match action {
        Action::Poll { fd, events } => {
            opcode::PollAdd::new(target(fd), events.bits() as u32).build()
        }
        Action::Splice { from, to, len } => {
            opcode::Splice::new(target(from), -1, target(to), -1, *len).build()
        }
        Action::Tee { from, to, len, full } => {
            let flags = match full {
                Full::Block => 0,
                Full::Refuse => libc::SPLICE_F_NONBLOCK,
            };
            opcode::Tee::new(target(from), target(to), *len).flags(flags).build()
        }
        Action::Read { fd, buffer, range } => {
            let index = buffer.index;
            let free = &mut buffer.bytes_mut()[range.clone()];
            let (at, len) = (free.as_mut_ptr(), free.len() as u32);
            match index {
                Some(index) => {
                    opcode::ReadFixed::new(target(fd), at, len, index).offset(FILE_POSITION).build()
                }
                None => opcode::Read::new(target(fd), at, len).offset(FILE_POSITION).build(),
            }
        }
        Action::Write { fd, buffer, range } => {
            let index = buffer.index;
            let bytes = &buffer.bytes()[range.clone()];
            let (at, len) = (bytes.as_ptr(), bytes.len() as u32);
            match index {
                Some(index) => opcode::WriteFixed::new(target(fd), at, len, index)
                    .offset(FILE_POSITION)
                    .build(),
                None => opcode::Write::new(target(fd), at, len).offset(FILE_POSITION).build(),
            }
        }
        Action::ReadFile { .. } | Action::WriteFile { .. } => {
            unreachable!("file operations are carried out while they are submitted")
        }
    }
}

fn target(fd: &Fd) -> RawTarget {
    RawTarget(fd.as_raw_fd())
}

impl Drop for Uring {
    /// Cancels what is in flight and waits for every completion: until then the kernel may still
    /// write into a buffer or hold an fd.
    fn drop(&mut self) {
        let slots: Vec<u32> = self.in_flight.iter_mut().map(|(slot, _)| slot).collect();
        let cancelled = slots.into_iter().try_for_each(|slot| self.cancel_slot(slot));
        let mut completed = VecDeque::new();
        let mut waited = cancelled;
        while waited.is_ok() && !self.in_flight.is_empty() {
            waited = self.wait(None, Instant::now(), &mut completed);
            completed.clear();
        }
        if waited.is_err() {
            // The kernel no longer answers. Leak what it may still use rather than free it.
            std::mem::forget(std::mem::replace(&mut self.in_flight, Slots::new()));
        }
    }
}
