//! The status socket: whoever connects is told the figures of this run and sent away.
//!
//! The listening fd is polled on the ring. A client has nothing to say and is not listened to: the answer
//! goes out in one send that cannot block, and the connection is closed. So one that stays silent costs
//! nothing, and one that floods is answered a few times per interval. Only the owner and root get in,
//! by the directory's mode and again by SO_PEERCRED.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::signal::kill;
use nix::sys::socket::{MsgFlags, getsockopt, send, sockopt};
use nix::unistd::{Pid, geteuid};

use super::{Session, notice};
use crate::error::Error;
use crate::observe::status::{SessionStatus, Subject};
use crate::ring::{Fd, Op, Operation, Ring, Token};

/// Answers per interval; what comes beyond waits in the backlog for the next one.
const ANSWERS: u32 = 8;
const INTERVAL: Duration = Duration::from_millis(100);

/// The end of a socket's name, after the pid.
const SUFFIX: &str = "sock";

/// The listening socket of this run. Its file goes with it.
#[derive(Debug)]
pub(super) struct Control {
    listener: UnixListener,
    fd: Fd,
    path: PathBuf,
    polled: bool,
    answered: u32,
    /// When the present interval ends.
    until: Instant,
}

impl Control {
    /// Makes the socket, in a directory that only this user can enter.
    ///
    /// # Errors
    /// What the system says, or that the directory is not private.
    pub(super) fn open() -> Result<Control, Error> {
        let directory = directory();
        let tried =
            |error: io::Error| Error::os(format!("listen in {}", directory.display()), error);
        make_private(&directory).map_err(tried)?;
        clean(&directory);
        let pid = std::process::id();
        // Listens before it gets its name, so that a named socket that refuses is a dead one.
        let (unnamed, path) =
            (directory.join(format!(".{pid}")), directory.join(format!("{pid}.{SUFFIX}")));
        // Left by a process that had our pid and died between two system calls.
        let _ = fs::remove_file(&unnamed);
        let listener = UnixListener::bind(&unnamed).map_err(tried)?;
        listener.set_nonblocking(true).map_err(tried)?;
        let fd = Rc::new(listener.as_fd().try_clone_to_owned().map_err(tried)?);
        fs::rename(&unnamed, &path).map_err(tried)?;
        let until = Instant::now() + INTERVAL;
        Ok(Control { listener, fd, path, polled: false, answered: 0, until })
    }

    /// Keeps the socket polled, unless it has given enough answers for now.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub(super) fn advance(&mut self, ring: &mut Ring, now: Instant) -> io::Result<()> {
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
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.polled).then_some(self.until)
    }

    /// The next client that may know.
    fn next_client(&mut self) -> Option<UnixStream> {
        while self.answered < ANSWERS {
            let (client, _) = self.listener.accept().ok()?;
            self.answered += 1;
            if may_know(&client) {
                return Some(client);
            }
        }
        None
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Session<'_> {
    /// Answers whoever has connected.
    pub(super) fn answer_clients(&mut self) {
        let Some(mut control) = self.observation.control.take() else { return };
        control.polled = false;
        let mut answer = None;
        while let Some(client) = control.next_client() {
            let answer = answer.get_or_insert_with(|| self.status(Instant::now()).json());
            // A fresh socket holds more than any answer. What does not fit is the client's loss.
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let _ = send(client.as_raw_fd(), answer.as_bytes(), flags);
        }
        self.observation.control = Some(control);
    }

    /// Listens for those who want to know how the run is going. Without, the run goes on.
    pub(super) fn open_control(&mut self) {
        if self.config.observe.control == crate::config::ControlMode::Off {
            return;
        }
        match Control::open() {
            Ok(control) => self.observation.control = Some(control),
            Err(error) => {
                notice::decision(self.config.verbosity, &format!("{error}; going on without"));
            }
        }
    }

    /// The figures of this run at this moment.
    pub(super) fn status(&self, now: Instant) -> SessionStatus {
        let subject = Subject {
            pid: std::process::id(),
            child: self.observation.child,
            command: self.observation.command.clone(),
        };
        SessionStatus {
            subject,
            engine: self.ring.engine().name().to_owned(),
            uptime_seconds: now.saturating_duration_since(self.started).as_secs_f64(),
            memory: self.observation.stages.status(),
            streams: self.live_streams(now),
            legs: self.leg_reports(),
        }
    }
}

/// Where this user's sessions have their sockets.
pub(crate) fn directory() -> PathBuf {
    if let Some(named) = named_directory() {
        return named;
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(runtime) if Path::new(&runtime).is_dir() => Path::new(&runtime).join("nproxy"),
        _ => PathBuf::from(format!("/tmp/nproxy-{}", geteuid())),
    }
}

/// The place that the user names for sockets, and for nothing else to be looked at.
pub(crate) fn named_directory() -> Option<PathBuf> {
    std::env::var_os("NPROXY_RUNTIME_DIR").map(|named| Path::new(&named).join("nproxy"))
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

/// Whether it is a directory of ours that nobody else can enter.
pub(crate) fn is_private(directory: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(directory)?;
    Ok(found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0)
}

/// The sockets in a directory, with the pids that they are named after.
pub(crate) fn sockets(directory: &Path) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let path = entry.path();
        let pid = path.file_stem()?.to_str()?.parse().ok()?;
        (path.extension()? == SUFFIX).then_some((pid, path))
    });
    named.collect()
}

/// Removes sockets that nobody listens on any more.
fn clean(directory: &Path) {
    for (pid, path) in sockets(directory) {
        // Only who has no process is asked: a live session would answer, and a stopped one not at all.
        let gone = kill(Pid::from_raw(pid as i32), None);
        if gone == Err(Errno::ESRCH) {
            clean_dead(&path);
        }
    }
}

/// Removes a socket if nobody listens on it. True if so.
pub(crate) fn clean_dead(path: &Path) -> bool {
    let refused = UnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    refused && fs::remove_file(path).is_ok()
}

/// Only the user whose session it is, and root.
fn may_know(client: &UnixStream) -> bool {
    let peer = getsockopt(client, sockopt::PeerCredentials);
    peer.is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw())
}
