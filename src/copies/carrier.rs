//! Bytes on their way from a copy's pipe into a command or a socket: inside the kernel, or, where a seccomp filter forbids
//! splice(2), through one buffer. What the sink has not taken stays there for the next one: a restarted command, or a new
//! connection.

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::unistd;

use super::intake::{Intake, Taken, Unread, is};
use crate::ring;

/// The most that one splice takes, in bytes.
const TRANSFER: u64 = 1 << 20;

/// So much goes into a pipe that polls writable without having to wait (PIPE_BUF in pipe(7)), in bytes.
const SURE_WRITE: usize = nix::libc::PIPE_BUF;

/// Size of the buffer, in bytes.
const BUFFER: usize = 64 << 10;

/// How bytes travel.
#[derive(Debug, Default)]
pub(super) struct Carrier {
    /// `None` while splice(2) does it.
    copied: Option<Copied>,
}

/// Why no more is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The copy has ended, and all of it is in the sink.
    Input,
    /// Nobody reads the sink any more.
    Sink,
    /// The thread was asked to leave what is left.
    Asked,
}

#[derive(Debug)]
struct Copied {
    buffer: Box<[u8]>,
    /// Of `buffer`: what the sink has not taken.
    held: Range<usize>,
}

impl Carrier {
    /// Takes what is there, unless something is left of the last time. What comes later is not carried before it is taken.
    ///
    /// # Errors
    /// What the system says of the copy's pipe.
    pub(super) fn take(&mut self, intake: &Intake) -> Result<Taken, Errno> {
        if self.copied.is_none() {
            match intake.hold(TRANSFER) {
                Err(errno) if is_forbidden(errno) => self.copy(),
                taken => return taken,
            }
        }
        self.fill(intake)
    }

    /// Moves what is there into `sink`, as far as neither end has to be waited for.
    ///
    /// # Errors
    /// What the system says of the sink.
    pub(super) fn carry(&mut self, intake: &Intake, sink: BorrowedFd<'_>) -> Result<Taken, Errno> {
        if self.copied.is_none() {
            match intake.splice(sink, TRANSFER) {
                Err(errno) if is_forbidden(errno) => self.copy(),
                taken => return taken,
            }
        }
        match self.fill(intake)? {
            Taken::Bytes(_) => self.write(sink),
            taken => Ok(taken),
        }
    }

    /// Fills a pipe or FIFO until it takes no more or there is no more.
    ///
    /// # Errors
    /// What the system says of the sink, but for a reader that has left.
    pub(super) fn feed(&mut self, intake: &Intake, sink: BorrowedFd<'_>) -> Result<Over, Errno> {
        let mut unread = Unread::default();
        while !intake.stop.is_asked() {
            match self.carry(intake, sink) {
                Ok(Taken::Bytes(bytes)) => intake.beyond.wrote(bytes as u64),
                Ok(Taken::End) => return Ok(Over::Input),
                Err(Errno::EPIPE) => return Ok(Over::Sink),
                Err(errno) => return Err(errno),
                Ok(Taken::Nothing) => {
                    // Whichever it is that makes it wait.
                    let (wanted, look) = match self.has_bytes(intake) {
                        true => {
                            unread.note(ring::unread(sink.as_raw_fd()), intake);
                            ([None, Some((sink, PollFlags::POLLOUT))], Some(intake.look_again()))
                        }
                        false => ([intake.input(), Some((sink, PollFlags::empty()))], None),
                    };
                    let [_, found] = intake.wait(wanted, look);
                    if found.contains(PollFlags::POLLERR) {
                        return Ok(Over::Sink);
                    }
                }
            }
        }
        Ok(Over::Asked)
    }

    /// Sends one byte. `None` if there is none; one that is not taken stays for the next sink.
    ///
    /// # Errors
    /// What the system says of the sink, or the errors of tee(2) that show that it is forbidden.
    pub(super) fn first(&mut self, intake: &Intake) -> Result<Option<u8>, Errno> {
        if self.copied.is_none() {
            let (scratch, filled) = unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
            match intake.show_first(filled.as_fd()) {
                Ok(false) => return Ok(None),
                Ok(true) => {
                    let mut byte = [0];
                    unistd::read(&scratch, &mut byte)?;
                    return Ok(Some(byte[0]));
                }
                Err(errno) if is_forbidden(errno) => self.copy(),
                Err(errno) => return Err(errno),
            }
        }
        match (self.fill(intake)?, &self.copied) {
            (Taken::Bytes(_), Some(copied)) => Ok(Some(copied.buffer[copied.held.start])),
            _ => Ok(None),
        }
    }

    /// The first byte has arrived by itself.
    ///
    /// # Errors
    /// What read(2) says.
    pub(super) fn skip_first(&mut self, intake: &Intake) -> Result<(), Errno> {
        match &mut self.copied {
            Some(copied) => copied.held.start += 1,
            None => drop(intake.read(&mut [0])?),
        }
        Ok(())
    }

    /// Whether bytes wait for the sink.
    pub(super) fn has_bytes(&self, intake: &Intake) -> bool {
        self.copied.as_ref().is_some_and(|copied| !copied.held.is_empty()) || intake.has_bytes()
    }

    /// Whether the copy has ended and nothing is left of it.
    pub(super) fn is_over(&self, intake: &Intake) -> bool {
        intake.is_over() && !self.has_bytes(intake)
    }

    fn copy(&mut self) {
        self.copied = Some(Copied { buffer: vec![0; BUFFER].into(), held: 0..0 });
    }

    /// Reads, unless something is left of the last time: then it is `Bytes`.
    fn fill(&mut self, intake: &Intake) -> Result<Taken, Errno> {
        let Some(Copied { buffer, held }) = &mut self.copied else { return Ok(Taken::Nothing) };
        if held.start == held.end {
            match intake.read(buffer)? {
                Taken::Bytes(read) => *held = 0..read,
                taken => return Ok(taken),
            }
        }
        Ok(Taken::Bytes(held.len()))
    }

    fn write(&mut self, sink: BorrowedFd<'_>) -> Result<Taken, Errno> {
        let Some(Copied { buffer, held }) = &mut self.copied else { return Ok(Taken::Nothing) };
        // One that has failed says so when it is written to.
        if !is(sink, PollFlags::POLLOUT | PollFlags::POLLERR | PollFlags::POLLHUP) {
            return Ok(Taken::Nothing);
        }
        let end = held.end.min(held.start + SURE_WRITE);
        match unistd::write(sink, &buffer[held.start..end]) {
            Ok(written) => {
                held.start += written;
                Ok(Taken::Bytes(written))
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Taken::Nothing),
            Err(errno) => Err(errno),
        }
    }
}

/// What the kernel, or a seccomp filter, says of a call that is not to be had.
fn is_forbidden(errno: Errno) -> bool {
    matches!(errno, Errno::ENOSYS | Errno::EPERM | Errno::EINVAL)
}
