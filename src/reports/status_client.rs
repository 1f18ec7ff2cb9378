//! Asks the running sessions how they are going: the other end of `status_server.rs`.
//!
//! All sessions are asked at the same time and have one time limit together. What they answer is taken as
//! from a stranger: bounded in size, and escaped before it is shown.

use std::fs;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt,
};
use nix::unistd::geteuid;

use super::runtime_directory::{clean_dead, directory, is_private, named_directory, sockets};
use crate::config::{StatusFormat, StatusRequest};
use crate::error::Error;
use crate::notice;
use crate::observe::status::{self, SessionStatus};

/// How long sessions may take to answer, all together.
const PATIENCE: Duration = Duration::from_secs(1);
/// The largest answer that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// Asks the sessions of this user (of every user, for root) and renders what they say.
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
    let mut asked = Vec::new();
    for (directory, owner) in directories() {
        for (pid, path) in sockets(&directory) {
            if request.pid.is_none_or(|wanted| wanted == pid) {
                asked.extend(ask(&path, owner).map(|stream| (pid, stream)));
            }
        }
    }
    asked.sort_by_key(|(pid, _)| *pid);
    let deadline = Instant::now() + PATIENCE;
    let mut sessions = Vec::with_capacity(asked.len());
    for (pid, stream) in asked {
        match answer(stream, deadline) {
            Ok(session) => sessions.push(session),
            // It ended in this moment.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(_) => notice::error(&format!("session {pid} does not answer: it may be stopped")),
        }
    }
    if let (Some(pid), true) = (request.pid, sessions.is_empty()) {
        return Err(Error::usage(format!("--status {pid}"), "no such session answers"));
    }
    Ok(match request.format {
        StatusFormat::Text => status::text(&sessions),
        StatusFormat::Json => status::json(&sessions),
        StatusFormat::Prometheus => status::prometheus(&sessions),
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

/// Connects without waiting, and removes a socket on which nobody listens.
fn ask(path: &Path, owner: u32) -> Option<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
    let address = UnixAddr::new(path).ok()?;
    match connect(fd.as_raw_fd(), &address) {
        Ok(()) => {}
        Err(Errno::ECONNREFUSED) => {
            if path.parent().is_some_and(|directory| is_private(directory).unwrap_or(false)) {
                clean_dead(path);
            }
            return None;
        }
        Err(_) => return None,
    }
    let peer = getsockopt(&fd, sockopt::PeerCredentials).ok()?;
    (peer.uid() == owner || peer.uid() == 0).then(|| UnixStream::from(fd))
}

fn answer(stream: UnixStream, deadline: Instant) -> io::Result<SessionStatus> {
    stream.set_nonblocking(false)?;
    let left = deadline.saturating_duration_since(Instant::now());
    stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
    let mut text = String::new();
    stream.take(LARGEST).read_to_string(&mut text)?;
    if text.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_str(&text).map_err(io::Error::other)
}
