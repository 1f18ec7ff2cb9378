//! What the kernel says of an fd without anything being moved: what it still holds, and how a TCP connection fares.

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

/// The widest window that the peer of a TCP connection can ever offer, in bytes: what its kernel may have acknowledged and
/// it has not read yet. The peer has named its scale when the connection began, and its kernel chooses it by the largest
/// receive buffer that it allows (tcp_select_initial_window). 0 where the kernel does not say.
pub fn widest_window(fd: RawFd) -> u64 {
    let Some(info) = tcp_info(fd) else { return 0 };
    // Two bit fields of four bits, of which the first is the peer's.
    let scale = match cfg!(target_endian = "little") {
        true => info.tcpi_snd_rcv_wscale & 0xf,
        false => info.tcpi_snd_rcv_wscale >> 4,
    };
    u64::from(u16::MAX) << scale
}

/// How often in a row something has been sent again, or the peer been asked for room, without an answer: each time after
/// twice as long, the first time after 0.2 s or more. A peer that answers and has no room is not meant.
pub fn unanswered(fd: RawFd) -> u8 {
    tcp_info(fd).map_or(0, |info| info.tcpi_retransmits.max(info.tcpi_probes))
}

/// What the kernel says of a TCP connection.
#[allow(unsafe_code)]
fn tcp_info(fd: RawFd) -> Option<libc::tcp_info> {
    // SAFETY: a struct of integers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    let into = (&raw mut info).cast::<libc::c_void>();
    // SAFETY: getsockopt(2) writes at most `len` bytes into the struct, and both outlive the call.
    let got = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, into, &mut len) };
    (got == 0).then_some(info)
}
