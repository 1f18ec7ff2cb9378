//! What is typed at our terminal, on its way to the child's.
//!
//! Our terminal is read only while somebody at the child's waits for input, and in canonical mode one line at a time: what
//! is typed ahead stays where it is, for whoever reads next. Nothing tells when somebody begins to wait, so while
//! something is there to be read, that is looked at again and again, at growing intervals.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SpecialCharacterIndices, Termios};
use nix::unistd::{getpgrp, read, tcgetpgrp, write};
use std::os::fd::{AsFd, OwnedFd};

use super::pty;
use super::screen::Screen;
use crate::process::waiting;
use crate::ring::{Op, Operation, Ring, Token};

/// One less than what a terminal holds: that much it takes in one piece, whatever its mode.
const PIECE: usize = 4095;
/// The first and, if a check is cheap, the last interval between two checks.
const SOON: Duration = Duration::from_micros(50);
const LATE: Duration = Duration::from_millis(50);
/// Checking takes at most one part in so many of a processor's time.
const SHARE: u32 = 100;

/// Keys on their way.
#[derive(Debug)]
pub(crate) struct Keys {
    bytes: Box<[u8; PIECE]>,
    /// Of `bytes`: what has been read and not passed on.
    held: Range<usize>,
    /// Polls in flight: for a key, for room at the child's terminal.
    awaited: [bool; 2],
    /// There is something to read.
    ready: bool,
    /// When to check next whether somebody waits for it, and how long that is after the last check.
    next_check: Option<Instant>,
    pause: Duration,
    reader: Option<u32>,
    can_see: bool,
}

/// Whether there are more keys to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Typist {
    There,
    /// The terminal has been hung up.
    Gone,
}

/// The two ends between which keys travel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends<'t> {
    pub(crate) screen: &'t Screen,
    pub(crate) leader: &'t crate::ring::Fd,
    pub(crate) follower: &'t OwnedFd,
    /// The follower as a device.
    pub(crate) device: u64,
}

impl Keys {
    pub(crate) fn new() -> Keys {
        Keys {
            bytes: Box::new([0; PIECE]),
            held: 0..0,
            awaited: [false; 2],
            ready: false,
            next_check: None,
            pause: SOON,
            reader: None,
            can_see: waiting::can_be_seen(),
        }
    }

    /// A poll has ended.
    pub(crate) fn polled(&mut self, operation: Operation) {
        self.awaited[usize::from(operation == Operation::KeyRoom)] = false;
        self.ready |= operation == Operation::Key;
    }

    /// When to check again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next_check.filter(|_| self.ready && self.held.is_empty())
    }

    /// Does what can be done now.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub(crate) fn turn(
        &mut self,
        ends: Ends<'_>,
        ring: &mut Ring,
        now: Instant,
    ) -> io::Result<Typist> {
        let is_gone = |state: PollFlags| state.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
        if !ends.screen.is_ours() {
            (self.ready, self.next_check) = (false, None);
            // One that is hung up is nobody's any more, and says EIO to every question.
            let gone = is_gone(state_of(ends.screen.end().fd()));
            return Ok(if gone { Typist::Gone } else { Typist::There });
        }
        self.pass_on(ends, ring)?;
        if !self.held.is_empty() || self.next_check.is_some_and(|at| now < at) {
            return Ok(Typist::There);
        }
        let state = state_of(ends.screen.end().fd());
        if is_gone(state) {
            return Ok(Typist::Gone);
        }
        self.ready = state.contains(PollFlags::POLLIN);
        if self.ready {
            let Some(modes) = ends.screen.modes() else { return Ok(Typist::Gone) };
            let canonical = modes.local_flags.contains(LocalFlags::ICANON);
            if self.is_wanted(ends, canonical) {
                self.take(ends, &modes);
                self.pass_on(ends, ring)?;
                // A line is read before the next one is passed on, and that takes a moment.
                (self.ready, self.pause) = (false, SOON);
                self.next_check = canonical.then(|| Instant::now() + SOON);
            } else {
                self.pause = (self.pause * 2).min(LATE.max(now.elapsed() * SHARE));
                self.next_check = Some(Instant::now() + self.pause);
            }
        } else {
            (self.pause, self.next_check) = (SOON, None);
        }
        if !self.ready {
            self.wait(Operation::Key, ends, ring)?;
        }
        Ok(Typist::There)
    }

    /// Whether somebody at the child's terminal waits for input. A program that has turned line editing off may look
    /// for keys without waiting; it gets them unless somebody else waits at our terminal.
    fn is_wanted(&mut self, ends: Ends<'_>, canonical: bool) -> bool {
        // Polled first: that lets the kernel move what has been written to where it is counted.
        let unread =
            state_of(ends.follower).contains(PollFlags::POLLIN) || pty::unread(ends.follower) > 0;
        if unread || !self.can_see {
            return !canonical || !unread;
        }
        let Ok(group) = tcgetpgrp(ends.leader) else { return false };
        let first = [self.reader.unwrap_or_default(), group.as_raw() as u32];
        self.reader = waiting::reader_in(group, ends.device, &first);
        let other = || {
            ends.screen.device().and_then(|ours| waiting::reader_in(getpgrp(), ours.into(), &[]))
        };
        self.reader.is_some() || !canonical && other().is_none()
    }

    fn take(&mut self, ends: Ends<'_>, modes: &Termios) {
        let taken = read(ends.screen.end().fd(), &mut self.bytes[..]);
        match taken {
            // The end of input was typed.
            Ok(0) if modes.local_flags.contains(LocalFlags::ICANON) => {
                self.bytes[0] = modes.control_chars[SpecialCharacterIndices::VEOF as usize];
                self.held = 0..1;
            }
            Ok(taken) => self.held = 0..taken,
            Err(_) => {}
        }
    }

    fn pass_on(&mut self, ends: Ends<'_>, ring: &mut Ring) -> io::Result<()> {
        while !self.held.is_empty() {
            match write(ends.leader, &self.bytes[self.held.clone()]) {
                Ok(passed) => self.held.start += passed,
                Err(Errno::EAGAIN) => return self.wait(Operation::KeyRoom, ends, ring),
                Err(Errno::EINTR) => {}
                // Nobody will read there any more.
                Err(_) => self.held = 0..0,
            }
        }
        Ok(())
    }

    fn wait(&mut self, operation: Operation, ends: Ends<'_>, ring: &mut Ring) -> io::Result<()> {
        let (awaited, fd, events) = match operation {
            Operation::KeyRoom => (&mut self.awaited[1], ends.leader, PollFlags::POLLOUT),
            _ => (&mut self.awaited[0], ends.screen.end().fd(), PollFlags::POLLIN),
        };
        if !std::mem::replace(awaited, true) {
            ring.submit(Token::session(operation), Op::poll(fd, events))?;
        }
        Ok(())
    }
}

fn state_of(fd: impl AsFd) -> PollFlags {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let _ = poll(&mut fds, PollTimeout::ZERO);
    fds[0].revents().unwrap_or(PollFlags::empty())
}
