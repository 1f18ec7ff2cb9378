//! An eventfd(2) by which a thread tells another that something is there for it.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd;

/// One that has not been rung: it cannot be read yet.
///
/// # Errors
/// What eventfd(2) says.
pub fn new() -> Result<OwnedFd, Errno> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    Ok(EventFd::from_value_and_flags(0, flags)?.into())
}

/// Wakes whoever polls it. Its counter has room, so the kernel takes it, at the latest when asked again.
pub fn ring(bell: impl AsFd) {
    let _ = (0..3).any(|_| unistd::write(&bell, &1u64.to_ne_bytes()).is_ok());
}

/// Takes note that it was rung.
pub fn hush(bell: impl AsFd) {
    let _ = unistd::read(bell, &mut [0; 8]);
}
