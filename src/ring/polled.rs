//! An fd on which the kernel tells of something out of band: a pressure file, a group's events.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use nix::poll::PollFlags;

use super::Ring;
use super::op::{Fd, Op, Operation, Token};

/// An fd that is polled for POLLPRI, again and again.
#[derive(Debug)]
pub(crate) enum Polled {
    /// There is nothing to poll.
    No,
    /// To be armed.
    Due(Fd),
    /// Armed.
    InFlight(Fd),
}

impl Polled {
    /// What is due to be polled, if there is anything.
    pub(crate) fn new(fd: Option<OwnedFd>) -> Polled {
        fd.map_or(Polled::No, |fd| Polled::Due(Rc::new(fd)))
    }

    /// Keeps it polled.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub(crate) fn arm(&mut self, operation: Operation, ring: &mut Ring) -> io::Result<()> {
        if let Polled::Due(fd) = self {
            ring.submit(Token::session(operation), Op::poll(fd, PollFlags::POLLPRI))?;
            *self = Polled::InFlight(fd.clone());
        }
        Ok(())
    }

    /// A poll has completed.
    pub(crate) fn completed(&mut self) {
        if let Polled::InFlight(fd) = self {
            *self = Polled::Due(fd.clone());
        }
    }
}
