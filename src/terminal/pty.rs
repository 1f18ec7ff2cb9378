//! A pty for the child: opening one, and what it starts with.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, unlockpt};
use nix::sys::termios::{LocalFlags, OutputFlags, SetArg, Termios, tcgetattr, tcsetattr};

use super::screen::Size;
use crate::relay::Endpoint;
use crate::text::newline::Newlines;

/// Who does what a terminal does with lines: editing, echo, the keys' signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discipline {
    /// Our terminal, in the modes that the child sets. Each change of them is told by the leader.
    OfOurs,
    /// The pty itself, with echo for a person who types and output as the child writes it.
    Typed,
    /// The same without echo: what comes in has not been typed by anybody.
    Fed,
}

/// Opens a pty: the leader, which never blocks, and the follower. Its modes are `modes`; the kernel's own without a
/// terminal to copy, or without anybody who types.
///
/// # Errors
/// What the system says: no /dev/ptmx, too many ptys; ENOTSUP where its ptys do not know EXTPROC.
pub(crate) fn open(
    modes: Option<&Termios>,
    size: Size,
    discipline: Discipline,
) -> Result<(Endpoint, OwnedFd), Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let leader = posix_openpt(flags)?;
    grantpt(&leader)?;
    unlockpt(&leader)?;
    let follower = follower_of(&leader)?;
    let mut modes = match (modes, discipline) {
        (Some(ours), Discipline::OfOurs | Discipline::Typed) => ours.clone(),
        // Whatever ours are: only in canonical mode can the end of what is fed be told.
        (_, Discipline::Fed) | (None, _) => tcgetattr(&follower)?,
    };
    let packets = match discipline {
        Discipline::OfOurs => {
            modes.local_flags.insert(LocalFlags::EXTPROC);
            Some(newlines(&modes))
        }
        Discipline::Typed | Discipline::Fed => {
            modes.output_flags.remove(OutputFlags::OPOST);
            modes.local_flags.set(LocalFlags::ECHO, discipline == Discipline::Typed);
            None
        }
    };
    tcsetattr(&follower, SetArg::TCSANOW, &modes)?;
    if packets.is_some() {
        if !tcgetattr(&follower)?.local_flags.contains(LocalFlags::EXTPROC) {
            return Err(Errno::ENOTSUP);
        }
        let on: libc::c_int = 1;
        // SAFETY: TIOCPKT reads the number that it is given.
        Errno::result(unsafe { libc::ioctl(leader.as_raw_fd(), libc::TIOCPKT, &on) })?;
    }
    size.set(leader.as_raw_fd());
    // SAFETY: `leader` gives up the fd that it owns.
    let leader = unsafe { OwnedFd::from_raw_fd(leader.into_raw_fd()) };
    Ok((Endpoint::leader(leader, packets), follower))
}

/// How lines end in what is read from the leader of a pty in these modes.
pub(crate) fn newlines(modes: &Termios) -> Newlines {
    match modes.output_flags.contains(OutputFlags::OPOST | OutputFlags::ONLCR) {
        true => Newlines::OfATerminal,
        false => Newlines::AsTheyAre,
    }
}

/// Sends a key's signal to the foreground group of a pty, in the kernel's name. It takes INT, QUIT and TSTP.
///
/// # Errors
/// EINVAL for any other.
pub(crate) fn signal(leader: &OwnedFd, signal: i32) -> Result<(), Errno> {
    // SAFETY: TIOCSIG takes a number.
    Errno::result(unsafe { libc::ioctl(leader.as_raw_fd(), libc::TIOCSIG, signal) }).map(drop)
}

/// How many bytes lie in a terminal and have not been read.
pub(crate) fn unread(follower: &OwnedFd) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD fills in the number that it is given.
    unsafe { libc::ioctl(follower.as_raw_fd(), libc::FIONREAD, &mut count) };
    usize::try_from(count).unwrap_or(0)
}

/// Opens the follower through its leader: a path may lead elsewhere in a mount namespace of its own
/// (TIOCGPTPEER, Linux 4.13).
fn follower_of(leader: &impl AsRawFd) -> Result<OwnedFd, Errno> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes a number.
    let fd = Errno::result(unsafe { libc::ioctl(leader.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel just made this fd for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
