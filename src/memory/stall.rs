//! Pressure stall information: the kernel tells when tasks wait for memory, before figures do.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// 150 ms of stalls within two seconds. Only windows of a multiple of two seconds are open to users
/// without privileges (6.5).
const TRIGGER: &[u8] = b"some 150000 2000000\0";

/// An fd that polls POLLPRI when tasks have stalled for want of memory; nothing where the kernel has
/// no such thing or does not let us. See Documentation/accounting/psi.rst.
pub fn trigger(file: &Path) -> Option<OwnedFd> {
    let open = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(file);
    let mut file = open.ok()?;
    file.write_all(TRIGGER).ok()?;
    Some(file.into())
}

/// The machine's own file.
pub const MACHINE: &str = "/proc/pressure/memory";
