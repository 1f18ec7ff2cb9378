//! The status socket: whoever connects is told the figures of this run and sent away.
//!
//! The listening fd is polled on the ring. A client has nothing to say and is not listened to: the answer
//! goes out in one send that cannot block, and the connection is closed. So one that stays silent costs
//! nothing, and one that floods is answered a few times per interval. Only the owner and root get in,
//! by the directory's mode and again by SO_PEERCRED.
//!
//! Most commands are over within milliseconds, and making a name in a directory costs more than all else that is done
//! for them. So all of it waits until the run has lasted.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::signal::kill;
use nix::sys::socket::{MsgFlags, getsockopt, send, sockopt};
use nix::unistd::{Pid, geteuid};

use super::runtime_directory::{SUFFIX, all_sockets, clean_dead, directory, is_private};
use crate::error::Error;
use crate::ring::{Fd, Op, Operation, Ring, Token};

/// Answers per interval; what comes beyond waits in the backlog for the next one.
const ANSWERS: u32 = 8;
const INTERVAL: Duration = Duration::from_millis(100);

/// A run that is over sooner has no socket.
const YOUNG: Duration = Duration::from_millis(10);

/// What becomes of a run's status socket.
#[derive(Debug)]
pub(crate) enum StatusServer {
    /// There is none, and there will be none.
    Absent,
    /// It is to be made then.
    Due(Instant),
    Listening(Listening),
}

/// The listening socket of this run. Its file goes with it.
#[derive(Debug)]
pub(crate) struct Listening {
    listener: UnixListener,
    fd: Fd,
    path: PathBuf,
    polled: bool,
    answered: u32,
    /// When the present interval ends.
    until: Instant,
}

impl StatusServer {
    /// Of a run that has begun at `started`.
    pub(crate) fn new(started: Instant) -> StatusServer {
        StatusServer::Due(started + YOUNG)
    }

    /// Makes the socket when it is time, having removed what is dead beside it, and keeps it polled.
    ///
    /// # Errors
    /// Only if the ring itself fails. What keeps the socket from being made is in the answer.
    pub(crate) fn advance(
        &mut self,
        ring: &mut Ring,
        now: Instant,
    ) -> io::Result<Result<(), Error>> {
        if let StatusServer::Due(due) = self
            && *due <= now
        {
            match Listening::open(&directory()) {
                Ok(listening) => *self = StatusServer::Listening(listening),
                Err(error) => {
                    *self = StatusServer::Absent;
                    return Ok(Err(error));
                }
            }
        }
        match self {
            StatusServer::Listening(listening) => listening.advance(ring, now).map(Ok),
            StatusServer::Absent | StatusServer::Due(_) => Ok(Ok(())),
        }
    }

    /// When something has to be done though nobody connects.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            StatusServer::Absent => None,
            StatusServer::Due(due) => Some(*due),
            StatusServer::Listening(listening) => listening.deadline(),
        }
    }

    /// Answers whoever has connected. The answer is made once, if anybody is there to hear it.
    pub(crate) fn answer(&mut self, make: impl FnOnce() -> String) {
        if let StatusServer::Listening(listening) = self {
            listening.answer(make);
        }
    }
}

fn refused(directory: &Path, error: io::Error) -> Error {
    Error::os(format!("listen in {}", directory.display()), error)
}

impl Listening {
    /// Makes the socket, in a directory that only this user can enter, and removes what is dead there.
    fn open(directory: &Path) -> Result<Listening, Error> {
        let tried = |error| refused(directory, error);
        make_private(directory).map_err(tried)?;
        clean(directory);
        let pid = std::process::id();
        // Listens before it gets its name, so that a named socket that refuses is a dead one.
        let (unnamed, path) =
            (directory.join(format!(".{pid}")), directory.join(format!("{pid}.{SUFFIX}")));
        // Left by a process that had our pid and died between two system calls.
        let _ = fs::remove_file(&unnamed);
        let listener = UnixListener::bind(&unnamed).map_err(tried)?;
        let named = listener.set_nonblocking(true).and_then(|()| {
            let fd = Rc::new(listener.as_fd().try_clone_to_owned()?);
            fs::rename(&unnamed, &path)?;
            Ok(fd)
        });
        let fd = named.map_err(|error| {
            let _ = fs::remove_file(&unnamed);
            tried(error)
        })?;
        let until = Instant::now() + INTERVAL;
        Ok(Listening { listener, fd, path, polled: false, answered: 0, until })
    }

    /// Keeps the socket polled, unless it has given enough answers for now.
    fn advance(&mut self, ring: &mut Ring, now: Instant) -> io::Result<()> {
        if now >= self.until {
            (self.answered, self.until) = (0, now + INTERVAL);
        }
        if !self.polled && self.answered < ANSWERS {
            let token = Token::session(Operation::Control);
            ring.submit(token, Op::poll(&self.fd, PollFlags::POLLIN))?;
            self.polled = true;
        }
        Ok(())
    }

    /// When the socket can be polled again.
    fn deadline(&self) -> Option<Instant> {
        (!self.polled).then_some(self.until)
    }

    fn answer(&mut self, make: impl FnOnce() -> String) {
        self.polled = false;
        let (mut make, mut answer) = (Some(make), String::new());
        while let Some(client) = self.next_client() {
            if let Some(make) = make.take() {
                answer = make();
            }
            // A fresh socket holds more than any answer. What does not fit is the client's loss.
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let _ = send(client.as_raw_fd(), answer.as_bytes(), flags);
        }
    }

    /// The next client that may know.
    fn next_client(&mut self) -> Option<UnixStream> {
        while self.answered < ANSWERS {
            let client = match self.listener.accept() {
                Ok((client, _)) => client,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(_) => {
                    // No fd to be had, say. It is still there to be polled, so another try would follow at once.
                    self.answered = ANSWERS;
                    return None;
                }
            };
            self.answered += 1;
            if may_know(&client) {
                return Some(client);
            }
        }
        None
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the directory if it is not there. In /tmp anybody may have made one of that name, or a link.
fn make_private(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    match is_private(directory)? {
        true => Ok(()),
        false => Err(Errno::EPERM.into()),
    }
}

/// Removes sockets that nobody listens on any more.
fn clean(directory: &Path) {
    for (pid, path) in all_sockets(directory) {
        // Only who has no process is asked: a live session would answer, and a stopped one not at all.
        let gone = kill(Pid::from_raw(pid as i32), None);
        if gone == Err(Errno::ESRCH) {
            clean_dead(&path);
        }
    }
}

/// Only the user whose session it is, and root.
fn may_know(client: &UnixStream) -> bool {
    let peer = getsockopt(client, sockopt::PeerCredentials);
    peer.is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw())
}
