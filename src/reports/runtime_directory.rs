//! Where the sessions of a user have their status sockets.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// The end of a socket's name, after the pid.
pub(crate) const SUFFIX: &str = "sock";

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

/// Removes a socket if nobody listens on it. True if so.
pub(crate) fn clean_dead(path: &Path) -> bool {
    let refused = UnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    refused && fs::remove_file(path).is_ok()
}
