//! Splice and tee made by the loop itself, which must not wait.
//!
//! SPLICE_F_NONBLOCK keeps them from waiting for bytes and for room. It does not keep them from waiting for a pipe that
//! somebody else has locked, as a splice into a disk or a socket does while that takes nothing.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{self, SpliceFFlags};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::op::{Fd, Full, Outcome};

/// What trying an operation came to.
pub(super) enum Attempt {
    Ended(Outcome),
    BlockedOn(Fd, PollFlags),
}

/// Moves up to `len` bytes, if that can be done now.
pub(super) fn splice(from: &Fd, to: &Fd, len: u32) -> Attempt {
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    between(from, to, || fcntl::splice(&**from, None, &**to, None, len as usize, flags))
}

/// Duplicates up to `len` bytes, if that can be done now.
pub(super) fn tee(from: &Fd, to: &Fd, len: u32, full: Full) -> Attempt {
    let tee = || fcntl::tee(&**from, &**to, len as usize, SpliceFFlags::SPLICE_F_NONBLOCK);
    match full {
        Full::Block => between(from, to, tee),
        Full::Refuse => Attempt::Ended(Outcome::from_errno(tee())),
    }
}

/// Tries a transfer between two fds, and finds out which of them it has to wait for. If it would be neither, that is for who
/// has asked to find out.
fn between(from: &Fd, to: &Fd, mut transfer: impl FnMut() -> Result<usize, Errno>) -> Attempt {
    let mut tried = false;
    loop {
        match transfer() {
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) => {}
            result => return Attempt::Ended(Outcome::from_errno(result)),
        }
        // Which end is to blame? If both became ready meanwhile, try once more.
        let mut ends = [
            PollFd::new(from.as_fd(), PollFlags::POLLIN),
            PollFd::new(to.as_fd(), PollFlags::POLLOUT),
        ];
        let [input, room] = match poll(&mut ends, PollTimeout::ZERO) {
            Ok(_) => ends.map(|end| end.any() != Some(false)),
            Err(Errno::EINTR) => continue,
            Err(errno) => return Attempt::Ended(Outcome::Failed(errno)),
        };
        if !input {
            return Attempt::BlockedOn(from.clone(), PollFlags::POLLIN);
        }
        if !room {
            return Attempt::BlockedOn(to.clone(), PollFlags::POLLOUT);
        }
        if std::mem::replace(&mut tried, true) {
            return Attempt::Ended(Outcome::Failed(Errno::EAGAIN));
        }
    }
}

/// Which of `events` (or error, hang-up) the fd has at this moment. What cannot be asked is not waited for: epoll would
/// say at once that it is ready.
pub(super) fn ready(fd: &Fd, events: PollFlags) -> Result<PollFlags, Errno> {
    let mut fds = [PollFd::new(fd.as_fd(), events)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) => Ok(fds[0].revents().unwrap_or(PollFlags::POLLERR)),
        Err(Errno::EINTR) => Ok(PollFlags::empty()),
        Err(errno) => Err(errno),
    }
}
