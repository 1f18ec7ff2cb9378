//! The epoll driver: the same operations and completions over readiness, for places where io_uring is
//! not allowed.
//!
//! Every operation is tried without blocking; what would block waits for the fd that it lacks and is
//! then tried again. Fds stay registered only while an operation waits for them, and the table holds
//! them open that long: an fd number is never reused under a registration.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::epoll::{Epoll as EpollFd, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd;

use super::op::{Action, Completion, Fd, Op, Outcome, Token};
use super::slots::{Slot, Slots};
use super::timer::{self, Timer};
use super::transfer::{self, Attempt, ready};

/// What a write may carry when the kernel cannot promise not to block: a pipe that polls writable
/// has a free page, so this much fits.
const SURE_WRITE: usize = 4096;
/// What the kernel's table knows the timer by. No fd has this number.
const TIMER: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Epoll {
    epoll: EpollFd,
    in_flight: Slots<State>,
    /// Operations to try at the next wait.
    ready: VecDeque<u32>,
    registered: Vec<Registration>,
    /// An empty list, kept for its room.
    unused: Vec<Registration>,
    pub(super) timer: Timer,
    /// What the timer is made of, once it has been set.
    timer_fd: Option<TimerFd>,
    /// Operations tried, each by a system call.
    tries: u64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// How many of the operation's waits are over.
    waited: usize,
    /// What has to become ready before the next try.
    blocked_on: Option<(Fd, PollFlags)>,
}

#[derive(Debug)]
struct Registration {
    fd: Fd,
    events: PollFlags,
}

impl Epoll {
    pub(super) fn open() -> io::Result<Epoll> {
        Ok(Epoll {
            epoll: EpollFd::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            in_flight: Slots::new(),
            ready: VecDeque::new(),
            registered: Vec::new(),
            unused: Vec::new(),
            timer: Timer::new(timer::Kind::One),
            timer_fd: None,
            tries: 0,
        })
    }

    /// What has to wait is registered without being asked first: if it need not wait, the kernel says so at once.
    pub(super) fn submit(&mut self, token: Token, op: Op, now: Instant) {
        let blocked_on = first_wait(&op);
        let tried = blocked_on.is_none();
        let slot = self.in_flight.insert(token, op, now, State { waited: 0, blocked_on });
        if tried {
            self.ready.push_back(slot);
        }
    }

    /// How many operations were tried so far.
    pub(super) fn tries(&self) -> u64 {
        self.tries
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    pub(super) fn cancel(&mut self, token: Token, completed: &mut VecDeque<Completion>) {
        if let Some(slot) = self.in_flight.find(token) {
            self.end(slot, Outcome::Cancelled, completed);
        }
    }

    pub(super) fn wait(
        &mut self,
        timeout: Option<Duration>,
        now: Instant,
        completed: &mut VecDeque<Completion>,
    ) -> io::Result<()> {
        self.register()?;
        let pending = !completed.is_empty() || !self.ready.is_empty();
        let timeout = if pending { Some(Duration::ZERO) } else { timeout };
        let set = |end| set_timer(&self.epoll, &mut self.timer_fd, end);
        let timeout = self.timer.limit(timeout, now, set);
        let mut events = [EpollEvent::empty(); 32];
        let count = match self.epoll_wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            answer => answer?,
        };
        for event in &events[..count] {
            if event.data() == TIMER {
                continue;
            }
            let found = PollFlags::from_bits_truncate(event.events().bits() as i16);
            self.wake(event.data() as i32, found, completed);
        }
        self.try_ready(completed);
        Ok(())
    }

    /// epoll_pwait2 (5.11) waits to the nanosecond; before it, milliseconds are rounded up.
    fn epoll_wait(
        &self,
        events: &mut [EpollEvent],
        timeout: Option<Duration>,
    ) -> Result<usize, Errno> {
        let limit = timeout.map(|limit| libc::timespec {
            tv_sec: limit.as_secs() as libc::time_t,
            tv_nsec: limit.subsec_nanos().into(),
        });
        let limit_ptr = limit.as_ref().map_or(std::ptr::null(), |limit| limit as *const _);
        // SAFETY: `EpollEvent` is a transparent wrapper of the kernel's `epoll_event`; the array and the
        // time limit outlive the call, and no signal mask is passed.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.0.as_raw_fd(),
                events.as_mut_ptr(),
                events.len() as libc::c_int,
                limit_ptr,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        match Errno::result(count) {
            Err(Errno::ENOSYS | Errno::EPERM) => {
                let millis = timeout.map_or(-1, |limit| {
                    i32::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
                });
                self.epoll.wait(events, EpollTimeout::try_from(millis).expect("-1 or more"))
            }
            answer => answer.map(|count| count as usize),
        }
    }

    /// Brings the kernel's table in line with what operations wait for now.
    fn register(&mut self) -> io::Result<()> {
        let mut wanted = std::mem::take(&mut self.unused);
        for (_, slot) in self.in_flight.iter_mut() {
            let Some((fd, events)) = &slot.state.blocked_on else { continue };
            match wanted.iter_mut().find(|entry| Rc::ptr_eq(&entry.fd, fd)) {
                Some(entry) => entry.events |= *events,
                None => wanted.push(Registration { fd: fd.clone(), events: *events }),
            }
        }
        for old in &self.registered {
            if !wanted.iter().any(|entry| Rc::ptr_eq(&entry.fd, &old.fd)) {
                self.epoll.delete(&old.fd)?;
            }
        }
        let mut unpollable = Vec::new();
        for entry in &wanted {
            let known = self.registered.iter().find(|old| Rc::ptr_eq(&old.fd, &entry.fd));
            let flags = EpollFlags::from_bits_truncate(entry.events.bits().into());
            let mut event = EpollEvent::new(flags, entry.fd.as_raw_fd() as u64);
            let result = match known {
                Some(old) if old.events == entry.events => Ok(()),
                Some(_) => self.epoll.modify(&entry.fd, &mut event),
                None => self.epoll.add(&entry.fd, event),
            };
            match result {
                // Regular files and some devices cannot be polled: they never make us wait. What is no open file
                // (O_PATH) is refused again when the operation is tried, and then it is known whose it is.
                Err(Errno::EPERM | Errno::EBADF) => unpollable.push(entry.fd.clone()),
                result => result?,
            }
        }
        wanted.retain(|entry| !unpollable.iter().any(|fd| Rc::ptr_eq(fd, &entry.fd)));
        self.unused = std::mem::replace(&mut self.registered, wanted);
        self.unused.clear();
        for (index, slot) in self.in_flight.iter_mut() {
            let state = &mut slot.state;
            let blocked = state.blocked_on.as_ref();
            if blocked.is_some_and(|(fd, _)| unpollable.iter().any(|other| Rc::ptr_eq(fd, other))) {
                state.blocked_on = None;
                self.ready.push_back(index);
            }
        }
        Ok(())
    }

    /// Wakes what waited for this fd: polls end, other operations are tried again.
    fn wake(&mut self, fd: i32, found: PollFlags, completed: &mut VecDeque<Completion>) {
        const ALWAYS: PollFlags = PollFlags::POLLERR.union(PollFlags::POLLHUP);
        let mut ended = Vec::new();
        for (index, slot) in self.in_flight.iter_mut() {
            let state = &mut slot.state;
            let Some((waiting, events)) = &state.blocked_on else { continue };
            if waiting.as_raw_fd() != fd || !found.intersects(events.union(ALWAYS)) {
                continue;
            }
            state.blocked_on = None;
            if state.waited < slot.op.waits.iter().flatten().count() {
                state.waited += 1;
            } else if matches!(slot.op.action, Action::Poll { .. }) {
                ended.push(index);
                continue;
            }
            self.ready.push_back(index);
        }
        for index in ended {
            self.end(index, Outcome::Done(found.bits() as u32), completed);
        }
    }

    /// Tries every operation that may be able to go on.
    pub(super) fn try_ready(&mut self, completed: &mut VecDeque<Completion>) {
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else { return };
            // A cancelled operation leaves its number behind.
            let Some(slot) = self.in_flight.get_mut(index) else { continue };
            self.tries += 1;
            match attempt(slot) {
                Attempt::Ended(outcome) => self.end(index, outcome, completed),
                Attempt::BlockedOn(fd, events) => slot.state.blocked_on = Some((fd, events)),
            }
        }
    }

    fn end(&mut self, slot: u32, outcome: Outcome, completed: &mut VecDeque<Completion>) {
        if let Some(slot) = self.in_flight.remove(slot) {
            let (token, submitted) = (slot.token, slot.submitted);
            let buffer = slot.op.into_buffer();
            completed.push_back(Completion { token, outcome, buffer, submitted });
        }
    }
}

/// Lets the timer go off then. It is told of once each time (`EPOLLET`), so it need not be read.
fn set_timer(epoll: &EpollFd, timer: &mut Option<TimerFd>, end: Instant) -> io::Result<()> {
    let timer = match timer {
        Some(timer) => timer,
        None => {
            let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
            let made = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
            epoll.add(&made, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, TIMER))?;
            timer.insert(made)
        }
    };
    let once = Expiration::OneShot(TimeSpec::from(timer::left(end)));
    Ok(timer.set(once, TimerSetTimeFlags::empty())?)
}

/// What the operation has to wait for before it is tried.
fn first_wait(op: &Op) -> Option<(Fd, PollFlags)> {
    match (op.waits.iter().flatten().next(), &op.action) {
        (Some(wait), _) => Some((wait.fd.clone(), wait.events)),
        (None, Action::Poll { fd, events }) => Some((fd.clone(), *events)),
        (None, _) => None,
    }
}

/// Carries the operation on as far as it goes without blocking.
pub(super) fn attempt(slot: &mut Slot<State>) -> Attempt {
    let waits = slot.op.waits.iter().flatten();
    for wait in waits.skip(slot.state.waited) {
        match ready(&wait.fd, wait.events) {
            Ok(found) if found.is_empty() => {
                return Attempt::BlockedOn(wait.fd.clone(), wait.events);
            }
            Ok(_) => slot.state.waited += 1,
            Err(errno) => return Attempt::Ended(Outcome::Failed(errno)),
        }
    }
    match &mut slot.op.action {
        Action::Poll { fd, events } => match ready(fd, *events) {
            Ok(found) if found.is_empty() => Attempt::BlockedOn(fd.clone(), *events),
            Ok(found) => Attempt::Ended(Outcome::Done(found.bits() as u32)),
            Err(errno) => Attempt::Ended(Outcome::Failed(errno)),
        },
        Action::Splice { from, to, len } => transfer::splice(from, to, *len),
        Action::Tee { from, to, len, full } => transfer::tee(from, to, *len, *full),
        Action::Read { fd, buffer, range } => {
            settle(read(fd, &mut buffer.bytes_mut()[range.clone()]), fd, PollFlags::POLLIN)
        }
        Action::Write { fd, buffer, range } => {
            settle(write(fd, &buffer.bytes()[range.clone()]), fd, PollFlags::POLLOUT)
        }
        Action::ReadFile { .. } | Action::WriteFile { .. } => {
            unreachable!("file operations are carried out while they are submitted")
        }
    }
}

fn settle(result: Result<usize, Errno>, fd: &Fd, events: PollFlags) -> Attempt {
    match result {
        Err(Errno::EAGAIN) => Attempt::BlockedOn(fd.clone(), events),
        result => Attempt::Ended(Outcome::from_errno(result)),
    }
}

fn read(fd: &Fd, into: &mut [u8]) -> Result<usize, Errno> {
    let iov = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: one iovec over a live, exclusively borrowed slice; offset −1 is the file's own position.
    let moved = unsafe { libc::preadv2(fd.as_raw_fd(), &iov, 1, -1, libc::RWF_NOWAIT) };
    match Errno::result(moved) {
        Ok(moved) => Ok(moved as usize),
        // Terminals, and pipes before 6.4, know no NOWAIT: read only what poll says is there.
        Err(errno) if !knows_nowait(errno) => match ready(fd, PollFlags::POLLIN)?.is_empty() {
            true => Err(Errno::EAGAIN),
            false => unistd::read(fd, into),
        },
        Err(errno) => Err(errno),
    }
}

fn write(fd: &Fd, bytes: &[u8]) -> Result<usize, Errno> {
    let iov = libc::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() };
    // SAFETY: one iovec over a live slice that the kernel only reads; offset −1 is the file's own position.
    let moved = unsafe { libc::pwritev2(fd.as_raw_fd(), &iov, 1, -1, libc::RWF_NOWAIT) };
    match Errno::result(moved) {
        Ok(moved) => Ok(moved as usize),
        Err(errno) if !knows_nowait(errno) => write_without_nowait(fd, bytes),
        Err(errno) => Err(errno),
    }
}

/// Whether the file or the kernel has understood RWF_NOWAIT. A seccomp filter says EPERM of a call that it forbids; if
/// it was the file after all, read(2) or write(2) says so again.
fn knows_nowait(errno: Errno) -> bool {
    !matches!(errno, Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM)
}

fn write_without_nowait(fd: &Fd, bytes: &[u8]) -> Result<usize, Errno> {
    match send(fd.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
        Err(Errno::ENOTSOCK) => {}
        answer => return answer,
    }
    if ready(fd, PollFlags::POLLOUT)?.is_empty() {
        return Err(Errno::EAGAIN);
    }
    unistd::write(fd, &bytes[..bytes.len().min(SURE_WRITE)])
}
