//! What an fd still holds: asked of the kernel, moved by nobody.

use std::os::fd::RawFd;

/// Bytes in a pipe that nobody has read, or in a socket that can be read. 0 where the kernel does not say.
pub fn unread(fd: RawFd) -> u64 {
    ask(fd, libc::FIONREAD)
}

/// Bytes that were written to a socket and that its peer's kernel (TCP), or the peer (Unix), has not taken yet.
pub fn unsent(fd: RawFd) -> u64 {
    ask(fd, libc::TIOCOUTQ)
}

#[allow(unsafe_code)]
fn ask(fd: RawFd, request: libc::Ioctl) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: both requests write one int, which lives as long as the call.
    match unsafe { libc::ioctl(fd, request, &mut bytes) } {
        0 => u64::try_from(bytes).unwrap_or(0),
        _ => 0,
    }
}
