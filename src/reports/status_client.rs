//! Asks the running sessions how they are going: the other end of `status_server.rs`.
//!
//! All sessions are asked at the same time and have one time limit together. What they answer is taken as
//! from a stranger: bounded in size, and escaped before it is shown.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;

use super::runtime_directory::{connect_at_once, directory, is_private, named_directory, sockets};
use crate::config::{StatusFormat, StatusRequest};
use crate::error::Error;
use crate::notice;
use crate::observe::prometheus::prometheus;
use crate::observe::status::{self, SessionStatus};
use crate::terminal;

/// How long sessions may take to answer, all together.
const PATIENCE: Duration = Duration::from_secs(1);
/// The largest answer that is read, in bytes.
const LARGEST: usize = 1 << 20;
/// How many sockets are looked at in a directory of another user.
const MOST_OF_OTHERS: usize = 200;

/// Asks the sessions of this user (of every user, for root) and renders what they say, as wide as our terminal.
///
/// # Errors
/// When a session of that pid was asked for and there is none.
pub(crate) fn ask_sessions(request: &StatusRequest) -> Result<String, Error> {
    if let Some(named) = named_directory() {
        let tried = |error| Error::os(format!("look for sessions in {}", named.display()), error);
        match fs::read_dir(&named) {
            // There has been no session yet, but where it would be was named.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::metadata(named.parent().unwrap_or(&named)).map_err(tried)?;
            }
            found => drop(found.map_err(tried)?),
        }
    }
    let sessions = hear(ask_all(request));
    if let (Some(pid), true) = (request.pid, sessions.is_empty()) {
        return Err(Error::usage(format!("--status {pid}"), "no such session answers"));
    }
    Ok(match request.format {
        StatusFormat::Text => {
            // A terminal of no columns is one that nobody has told its size.
            let columns =
                terminal::columns(std::io::stdout().as_raw_fd()).filter(|columns| *columns > 0);
            status::text(&sessions, columns.map(usize::from))
        }
        StatusFormat::Json => status::json(&sessions),
        StatusFormat::Prometheus => prometheus(&sessions),
    })
}

/// Where sockets may be, each with the user that has to own what listens there. Dead ones are removed from
/// our own directories only: in those of others, who knows what a name leads to.
fn directories() -> Vec<(PathBuf, u32)> {
    let own = geteuid();
    let mut paths = vec![directory()];
    if named_directory().is_none() {
        paths.push(PathBuf::from(format!("/tmp/nproxy-{own}")));
    }
    if own.is_root() && named_directory().is_none() {
        let users = entries("/run/user").map(|user| user.join("nproxy"));
        paths.extend(users);
        let in_tmp = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.and_then(|name| name.strip_prefix("nproxy-"))
                .is_some_and(|uid| uid.parse::<u32>().is_ok())
        };
        paths.extend(entries("/tmp").filter(in_tmp));
    }
    paths.sort();
    paths.dedup();
    let owned = paths.into_iter().filter_map(|path| {
        let found = fs::symlink_metadata(&path).ok()?;
        let ours = found.uid() == own.as_raw() || own.is_root();
        (found.is_dir() && ours).then_some((path, found.uid()))
    });
    owned.collect()
}

fn entries(directory: &str) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Connects to every session that is wanted, without waiting. Of another user's directory no more is looked at than
/// somebody would honestly have there: what lies in it is that user's to make.
fn ask_all(request: &StatusRequest) -> Vec<Asked> {
    let wanted = |pid| request.pid.is_none_or(|wanted| wanted == pid);
    let mut asked = Vec::new();
    // Each session takes an fd; the usual limit is meant for programs that use select(2).
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    for (directory, owner) in directories() {
        let most = if owner == geteuid().as_raw() { usize::MAX } else { MOST_OF_OTHERS };
        let mut all = sockets(&directory).filter(|(pid, _)| wanted(*pid));
        for (pid, path) in all.by_ref().take(most) {
            asked.extend(ask(&path, owner).map(|stream| Asked::new(pid, owner, stream)));
        }
        if all.next().is_some() {
            let text = "more sockets than are looked at in a directory of another user";
            notice::error(&format!("{}: {text}", directory.display()));
        }
    }
    asked.sort_by_key(|asked| asked.pid);
    asked
}

/// Connects without waiting, and removes a socket on which nobody listens.
fn ask(path: &Path, owner: u32) -> Option<UnixStream> {
    match connect_at_once(path) {
        Ok(stream) => {
            let peer = getsockopt(&stream, sockopt::PeerCredentials).ok()?;
            (peer.uid() == owner || peer.uid() == 0).then_some(stream)
        }
        Err(Errno::ECONNREFUSED) => {
            if path.parent().is_some_and(|directory| is_private(directory).unwrap_or(false)) {
                let _ = fs::remove_file(path);
            }
            None
        }
        Err(_) => None,
    }
}

/// A session that has been asked, and what it has said so far.
struct Asked {
    pid: u32,
    owner: u32,
    stream: UnixStream,
    text: Vec<u8>,
    answer: Answer,
}

/// How far an answer has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// There is more to come.
    Open,
    /// All of it is there.
    Whole,
    /// It is longer than any honest one, or the connection has failed.
    Broken,
}

impl Asked {
    fn new(pid: u32, owner: u32, stream: UnixStream) -> Asked {
        Asked { pid, owner, stream, text: Vec::new(), answer: Answer::Open }
    }

    /// Takes what has come, without waiting.
    fn listen(&mut self) {
        let mut said = [0; 16 << 10];
        loop {
            match self.stream.read(&mut said) {
                Ok(0) => self.answer = Answer::Whole,
                Ok(length) if self.text.len() + length > LARGEST => self.answer = Answer::Broken,
                Ok(length) => {
                    self.text.extend_from_slice(&said[..length]);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.answer = Answer::Broken,
            }
            return;
        }
    }
}

/// Hears all of them at the same time, and no longer than one limit for all: who speaks slowly, a byte at a time, holds
/// up nobody.
fn hear(mut asked: Vec<Asked>) -> Vec<SessionStatus> {
    let deadline = Instant::now() + PATIENCE;
    while asked.iter().any(|asked| asked.answer == Answer::Open) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let open = || asked.iter().filter(|asked| asked.answer == Answer::Open);
        let mut fds: Vec<PollFd<'_>> =
            open().map(|asked| PollFd::new(asked.stream.as_fd(), PollFlags::POLLIN)).collect();
        let limit = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut fds, limit);
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        let open = asked.iter_mut().filter(|asked| asked.answer == Answer::Open);
        for (asked, _) in open.zip(ready).filter(|(_, ready)| *ready) {
            asked.listen();
        }
    }
    let mut sessions = Vec::with_capacity(asked.len());
    let mut silent = Vec::new();
    for asked in asked {
        match (asked.answer, serde_json::from_slice(&asked.text)) {
            (Answer::Whole, Ok(session)) => sessions.push(session),
            // It ended in this moment.
            (Answer::Whole, _) if asked.text.is_empty() => {}
            (Answer::Open, _) => silent.push((asked.pid, asked.owner)),
            _ => notice::error(&format!("session {}: its answer makes no sense", asked.pid)),
        }
    }
    report_silent(&silent);
    sessions
}

/// Says who has not answered: of our own sessions each by itself, of another user's how many.
fn report_silent(silent: &[(u32, u32)]) {
    let own = geteuid().as_raw();
    for (pid, _) in silent.iter().filter(|(_, owner)| *owner == own) {
        notice::error(&format!("session {pid} does not answer: it may be stopped"));
    }
    let mut others: Vec<u32> = silent.iter().map(|(_, owner)| *owner).collect();
    others.retain(|owner| *owner != own);
    others.sort_unstable();
    for user in others.chunk_by(|one, other| one == other) {
        let (uid, count) = (user[0], user.len());
        notice::error(&format!("user {uid}: {count} sessions do not answer: they may be stopped"));
    }
}
