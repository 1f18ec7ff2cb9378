//! Where the sessions of a user have their status sockets.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::geteuid;

/// The end of a socket's name, after the pid.
pub(crate) const SUFFIX: &str = "sock";

/// Where this user's sessions have their sockets. A runtime directory of somebody else, as `su` and `sudo -E` leave it in
/// the environment, is none of ours: what root made there would lock its owner out.
pub(crate) fn directory() -> PathBuf {
    if let Some(named) = named_directory() {
        return named;
    }
    let runtime = variable("XDG_RUNTIME_DIR").filter(|runtime| {
        let found = fs::metadata(runtime);
        found.is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw())
    });
    match runtime {
        Some(runtime) => runtime.join("nproxy"),
        None => PathBuf::from(format!("/tmp/nproxy-{}", geteuid())),
    }
}

/// The place that the user names for sockets, and for nothing else to be looked at.
pub(crate) fn named_directory() -> Option<PathBuf> {
    variable("NPROXY_RUNTIME_DIR").map(|named| named.join("nproxy"))
}

/// A variable that holds a path. An empty one is as good as none.
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Whether it is a directory of ours that nobody else can enter.
pub(crate) fn is_private(directory: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(directory)?;
    Ok(found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0)
}

/// The sockets in a directory, with the pids that they are named after.
pub(crate) fn sockets(directory: &Path) -> impl Iterator<Item = (u32, PathBuf)> + use<> {
    files(directory, |name| name.strip_suffix(SUFFIX)?.strip_suffix('.')?.parse().ok())
}

/// The same, and those that have not got their name yet.
pub(crate) fn all_sockets(directory: &Path) -> impl Iterator<Item = (u32, PathBuf)> + use<> {
    files(directory, |name| {
        let named = name.strip_suffix(SUFFIX).and_then(|name| name.strip_suffix('.'));
        named.or_else(|| name.strip_prefix('.'))?.parse().ok()
    })
}

/// The files whose names say a pid.
fn files(
    directory: &Path,
    pid: fn(&str) -> Option<u32>,
) -> impl Iterator<Item = (u32, PathBuf)> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(move |entry| Some((pid(entry.file_name().to_str()?)?, entry.path())))
}

/// Connects to a socket without waiting: one whose queue is full says EAGAIN.
///
/// # Errors
/// What socket(2) or connect(2) says; ECONNREFUSED if nobody listens there.
pub(crate) fn connect_at_once(path: &Path) -> Result<UnixStream, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(fd))
}

/// Removes a socket if nobody listens on it.
pub(crate) fn clean_dead(path: &Path) {
    if matches!(connect_at_once(path), Err(Errno::ECONNREFUSED)) {
        let _ = fs::remove_file(path);
    }
}
