//! What a copy's thread takes its bytes from: a pipe of its own, and the means to be woken.
//!
//! A splice keeps the pipe that it empties locked for as long as the sink takes, and whoever fills that pipe waits for the
//! lock, whatever flags it has. So the thread first moves what is there into a pipe of its own, which takes no time, and empties
//! that into the sink: nobody else touches it, and a slow disk or peer holds up nobody but its own copy.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice, tee};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd;

use crate::config::Verbosity;
use crate::relay::Beyond;
use crate::ring::bell;

/// What the thread's own pipe is to hold, in bytes.
const OWN_PIPE: i32 = 256 << 10;

/// How soon it is looked again what a sink's reader has taken, at the latest. A run that was asked to end gives it half a
/// second.
const LOOK: Duration = Duration::from_millis(125);

/// What a thread works with.
#[derive(Debug)]
pub(crate) struct Intake {
    /// What the copy's relay fills.
    pipe: OwnedFd,
    own: OwnPipe,
    pub(crate) stop: Arc<Stop>,
    /// Its books.
    pub(crate) beyond: Arc<Beyond>,
    /// How soon it is looked again what the sink's reader has taken.
    look: Duration,
    /// How messages call the copy.
    pub(crate) name: String,
    pub(crate) verbosity: Verbosity,
}

/// The pipe between the intake and a sink that may take its time.
#[derive(Debug)]
struct OwnPipe {
    reader: OwnedFd,
    writer: OwnedFd,
    /// Bytes in it: they come before those in the intake's pipe.
    held: Cell<usize>,
}

/// Asks a thread to leave what it has not done.
#[derive(Debug)]
pub(crate) struct Stop {
    asked: AtomicBool,
    hurried: AtomicBool,
    bell: OwnedFd,
}

impl Stop {
    pub(crate) fn new() -> Result<Stop, Errno> {
        let (asked, hurried) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Stop { asked, hurried, bell: bell::new()? })
    }

    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        bell::ring(&self.bell);
    }

    /// Asks because the run was asked to end: what goes on by itself is let go.
    pub(crate) fn hurry(&self) {
        self.hurried.store(true, Ordering::Release);
        self.ask();
    }

    pub(crate) fn is_hurried(&self) -> bool {
        self.hurried.load(Ordering::Acquire)
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
    /// Of a copy's bytes, which come out of `pipe`. The end of the run waits for it for as long as `wait` while nobody
    /// takes anything.
    ///
    /// # Errors
    /// What pipe(2) says.
    pub(crate) fn new(
        pipe: OwnedFd,
        stop: Arc<Stop>,
        beyond: Arc<Beyond>,
        name: String,
        wait: Option<Duration>,
        verbosity: Verbosity,
    ) -> Result<Intake, Errno> {
        let (reader, writer) = unistd::pipe2(OFlag::O_CLOEXEC)?;
        // One that stays small is as good, only slower.
        let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(OWN_PIPE));
        let own = OwnPipe { reader, writer, held: Cell::new(0) };
        // Often enough for a reader that takes little to be seen in that time.
        let look = wait.map_or(LOOK, |wait| LOOK.min(wait / 4));
        Ok(Intake { pipe, own, stop, beyond, look, name, verbosity })
    }

    /// Moves up to `most` bytes of what is there into the thread's own pipe, unless something is left in that: then it is
    /// `Bytes`. What comes later is not among them.
    ///
    /// # Errors
    /// What splice(2) says.
    pub(crate) fn hold(&self, most: u64) -> Result<Taken, Errno> {
        let OwnPipe { writer, held, .. } = &self.own;
        if held.get() == 0 {
            match Taken::of(restart(|| move_pages(&self.pipe, writer, most as usize)))? {
                Taken::Bytes(bytes) => held.set(bytes),
                nothing => return Ok(nothing),
            }
        }
        Ok(Taken::Bytes(held.get()))
    }

    /// Moves up to `most` bytes into `sink` inside the kernel. Does not wait for the pipe.
    ///
    /// # Errors
    /// What splice(2) says of the sink. What it has not taken comes next, whatever asks for it.
    pub(crate) fn splice(&self, sink: impl AsFd, most: u64) -> Result<Taken, Errno> {
        match self.hold(most)? {
            Taken::Bytes(_) => {}
            nothing => return Ok(nothing),
        }
        let OwnPipe { reader, held, .. } = &self.own;
        let most = held.get().min(most as usize);
        match restart(|| move_pages(reader, &sink, most)) {
            // Our own pipe does not end: this is a sink that takes no more.
            Ok(0) => Err(Errno::ENOSPC),
            Ok(bytes) => {
                held.set(held.get() - bytes);
                Ok(Taken::Bytes(bytes))
            }
            Err(errno) => Taken::of(Err(errno)),
        }
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// What read(2) says.
    pub(crate) fn read(&self, into: &mut [u8]) -> Result<Taken, Errno> {
        let OwnPipe { reader, held, .. } = &self.own;
        if held.get() > 0 {
            let taken = Taken::of(unistd::read(reader, into));
            if let Ok(Taken::Bytes(bytes)) = taken {
                held.set(held.get() - bytes);
            }
            return taken;
        }
        match is(self.pipe.as_fd(), PollFlags::POLLIN | PollFlags::POLLHUP) {
            true => Taken::of(unistd::read(&self.pipe, into)),
            false => Ok(Taken::Nothing),
        }
    }

    /// The pipe that the next byte comes from.
    fn head(&self) -> BorrowedFd<'_> {
        match self.own.held.get() {
            0 => self.pipe.as_fd(),
            _ => self.own.reader.as_fd(),
        }
    }

    /// Puts the first byte into `scratch` too, and leaves it where it is. False if there is none.
    ///
    /// # Errors
    /// What tee(2) says.
    pub(crate) fn show_first(&self, scratch: impl AsFd) -> Result<bool, Errno> {
        match tee(self.head(), scratch, 1, SpliceFFlags::SPLICE_F_NONBLOCK) {
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
        is(self.head(), PollFlags::POLLIN)
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

    /// When to look again what the sink's reader has taken.
    pub(crate) fn look_again(&self) -> Instant {
        Instant::now() + self.look
    }

    /// Waits for bytes, whether the thread is asked to leave or not.
    pub(crate) fn wait_for_bytes(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let limit = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut [PollFd::new(self.head(), PollFlags::POLLIN)], limit);
    }

    /// The end of the copy, to be waited for. `None` once it has come: poll(2) would tell of it for ever.
    pub(crate) fn end(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let pipe = self.pipe.as_fd();
        (!is(pipe, PollFlags::POLLHUP)).then_some((pipe, PollFlags::empty()))
    }

    /// Where the next byte comes from, to be waited for.
    pub(crate) fn input(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        Some((self.head(), PollFlags::POLLIN))
    }
}

/// What lay in a sink and was not read when that was last looked at.
///
/// A pipe has room once a page of it was read, a socket once much of its queue was: a reader may take little at a time, and
/// nothing can be written for long.
#[derive(Debug, Default)]
pub(crate) struct Unread(u64);

impl Unread {
    /// So many bytes are unread now. True if somebody reads: the copy gets on, although nothing is written.
    pub(crate) fn note(&mut self, unread: u64, intake: &Intake) -> bool {
        let is_read = unread < std::mem::replace(&mut self.0, unread);
        if is_read {
            intake.beyond.advance();
        }
        is_read
    }
}

fn move_pages(from: &OwnedFd, to: impl AsFd, most: usize) -> Result<usize, Errno> {
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    splice(from, None, to, None, most, flags)
}

/// Repeats a call for as long as signals interrupt it.
fn restart(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Whether an fd has one of `events` at this moment.
pub(crate) fn is(fd: BorrowedFd<'_>, events: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, events)];
    let polled = poll(&mut fds, PollTimeout::ZERO);
    polled.is_ok() && fds[0].revents().is_some_and(|found| found.intersects(events))
}
