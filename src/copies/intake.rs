//! What a copy's thread takes its bytes from: a pipe of its own, and the means to be woken.
//!
//! A splice keeps the pipe that it empties locked for as long as the sink takes, and whoever fills that pipe by tee(2)
//! waits for the lock. So the relay of the copy fills this pipe from the one that the streams fill, and only the thread
//! empties it: a slow disk or peer holds up nobody but its own copy.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice, tee};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd;

use crate::config::Verbosity;
use crate::relay::Beyond;

/// What a thread works with.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) pipe: OwnedFd,
    pub(crate) stop: Arc<Stop>,
    /// Its books.
    pub(crate) beyond: Arc<Beyond>,
    /// How messages call the copy.
    pub(crate) name: String,
    pub(crate) verbosity: Verbosity,
}

/// Asks a thread to leave what it has not done.
#[derive(Debug)]
pub(crate) struct Stop {
    asked: AtomicBool,
    bell: EventFd,
}

impl Stop {
    pub(crate) fn new() -> Result<Stop, Errno> {
        Ok(Stop {
            asked: AtomicBool::new(false),
            bell: EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?,
        })
    }

    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        let _ = self.bell.write(1);
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

/// What was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Bytes(usize),
    /// The copy has ended, and everything was taken before.
    End,
    /// Nothing is there, or there is no room for it.
    Nothing,
}

impl Taken {
    fn of(result: Result<usize, Errno>) -> Result<Taken, Errno> {
        match result {
            Ok(0) => Ok(Taken::End),
            Ok(bytes) => Ok(Taken::Bytes(bytes)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Taken::Nothing),
            Err(errno) => Err(errno),
        }
    }
}

impl Intake {
    /// Moves up to `most` bytes into `sink` inside the kernel. Does not wait for the pipe.
    ///
    /// # Errors
    /// What splice(2) says of the sink.
    pub(crate) fn splice(&self, sink: impl AsFd, most: u64) -> Result<Taken, Errno> {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        Taken::of(splice(&self.pipe, None, sink, None, most as usize, flags))
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// What read(2) says.
    pub(crate) fn read(&self, into: &mut [u8]) -> Result<Taken, Errno> {
        match is(self.pipe.as_fd(), PollFlags::POLLIN | PollFlags::POLLHUP) {
            true => Taken::of(unistd::read(&self.pipe, into)),
            false => Ok(Taken::Nothing),
        }
    }

    /// Puts the first byte into `scratch` too, and leaves it where it is. False if there is none.
    ///
    /// # Errors
    /// What tee(2) says.
    pub(crate) fn show_first(&self, scratch: impl AsFd) -> Result<bool, Errno> {
        match tee(&self.pipe, scratch, 1, SpliceFFlags::SPLICE_F_NONBLOCK) {
            Ok(bytes) => Ok(bytes > 0),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Whether the copy has ended and nothing is left of it.
    pub(crate) fn is_over(&self) -> bool {
        is(self.pipe.as_fd(), PollFlags::POLLHUP) && !self.has_bytes()
    }

    /// Whether bytes are there.
    pub(crate) fn has_bytes(&self) -> bool {
        is(self.pipe.as_fd(), PollFlags::POLLIN)
    }

    /// Waits until one of these is ready, the thread is asked to leave, or it is `until`. Says which are.
    pub(crate) fn wait<const N: usize>(
        &self,
        wanted: [Option<(BorrowedFd<'_>, PollFlags)>; N],
        until: Option<Instant>,
    ) -> [PollFlags; N] {
        let mut fds = vec![PollFd::new(self.stop.bell.as_fd(), PollFlags::POLLIN)];
        fds.extend(wanted.iter().flatten().map(|(fd, events)| PollFd::new(*fd, *events)));
        let limit = match until.map(|until| until.saturating_duration_since(Instant::now())) {
            None => PollTimeout::NONE,
            // Rounded up, or the last millisecond would be spent in turns of no length.
            Some(left) => {
                let millis = left.as_micros().div_ceil(1000).min(1 << 30);
                PollTimeout::try_from(millis as i32).unwrap_or(PollTimeout::MAX)
            }
        };
        if poll(&mut fds, limit).is_err() {
            return [PollFlags::empty(); N];
        }
        let mut polled = fds[1..].iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        wanted.map(|want| want.and_then(|_| polled.next()).unwrap_or(PollFlags::empty()))
    }

    /// The pipe, to be waited for.
    pub(crate) fn input(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        Some((self.pipe.as_fd(), PollFlags::POLLIN))
    }
}

/// Whether an fd has one of `events` at this moment.
pub(crate) fn is(fd: BorrowedFd<'_>, events: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, events)];
    let polled = poll(&mut fds, PollTimeout::ZERO);
    polled.is_ok() && fds[0].revents().is_some_and(|found| found.intersects(events))
}
