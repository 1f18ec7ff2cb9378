//! A pty for the child: opening one, and what it starts with.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, unlockpt};
use nix::sys::termios::{
    InputFlags, LocalFlags, OutputFlags, SetArg, Termios, tcgetattr, tcsetattr,
};

use super::screen::Size;
use crate::relay::Endpoint;
use crate::text::newline::Newlines;

/// What happens to the child's output on its way through the pty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Processing {
    /// As at our terminal: a newline gets its carriage return.
    Terminal,
    /// None: the reader is no terminal.
    Plain,
}

/// Whether what is written to the leader comes back from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    /// As at our terminal.
    Terminal,
    /// No: what comes in has not been typed by anybody.
    Off,
}

/// What becomes of output from a group in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BackgroundOutput {
    /// As at our terminal.
    Terminal,
    /// It is never held back (TOSTOP): at our terminal that group would be in the foreground.
    Allowed,
}

/// How a new pty starts.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Modes to start from; the kernel's own without a terminal to copy.
    pub(crate) modes: Option<Termios>,
    pub(crate) size: Size,
    pub(crate) processing: Processing,
    pub(crate) echo: Echo,
    pub(crate) background_output: BackgroundOutput,
}

impl Settings {
    /// Whether the child's terminal has the modes of ours, all of them.
    pub(crate) fn is_faithful(&self) -> bool {
        self.processing == Processing::Terminal
            && self.echo == Echo::Terminal
            && self.background_output == BackgroundOutput::Terminal
    }

    /// How lines end in what is read from the leader, as long as the child leaves the modes alone.
    pub(crate) fn newlines(&self) -> Newlines {
        let wanted = OutputFlags::OPOST | OutputFlags::ONLCR;
        // The kernel's own modes have both.
        let on = self.modes.as_ref().is_none_or(|modes| modes.output_flags.contains(wanted));
        match self.processing {
            Processing::Terminal if on => Newlines::OfATerminal,
            Processing::Terminal | Processing::Plain => Newlines::AsTheyAre,
        }
    }

    /// A terminal's modes, as they are to be at the child's.
    pub(crate) fn adapt(&self, mut modes: Termios) -> Termios {
        if self.processing == Processing::Plain {
            modes.output_flags.remove(OutputFlags::OPOST);
        }
        if self.echo == Echo::Off {
            modes.local_flags.remove(LocalFlags::ECHO);
        }
        if self.background_output == BackgroundOutput::Allowed {
            modes.local_flags.remove(LocalFlags::TOSTOP);
        }
        modes
    }
}

/// Makes of the modes that some program has set those that a terminal has between programs. While a
/// shell waits for a command, its line editor has set its own.
pub(crate) fn between_programs(mut modes: Termios) -> Termios {
    modes.input_flags.insert(InputFlags::ICRNL | InputFlags::IXON);
    modes.output_flags.insert(OutputFlags::OPOST | OutputFlags::ONLCR);
    modes.local_flags.insert(
        LocalFlags::ICANON
            | LocalFlags::ISIG
            | LocalFlags::IEXTEN
            | LocalFlags::ECHO
            | LocalFlags::ECHOE
            | LocalFlags::ECHOK
            | LocalFlags::ECHOCTL
            | LocalFlags::ECHOKE,
    );
    modes
}

/// Opens a pty: the leader, which never blocks, and the follower.
///
/// # Errors
/// What the system says: no /dev/ptmx, too many ptys.
pub(crate) fn open(settings: &Settings) -> Result<(Endpoint, OwnedFd), Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let leader = posix_openpt(flags)?;
    grantpt(&leader)?;
    unlockpt(&leader)?;
    let follower = follower_of(leader.as_raw_fd(), 0)?;
    let modes = match &settings.modes {
        Some(modes) => modes.clone(),
        None => tcgetattr(&follower)?,
    };
    tcsetattr(&follower, SetArg::TCSANOW, &settings.adapt(modes))?;
    settings.size.set(leader.as_raw_fd());
    // SAFETY: `leader` gives up the fd that it owns.
    let leader = unsafe { OwnedFd::from_raw_fd(std::os::fd::IntoRawFd::into_raw_fd(leader)) };
    Ok((Endpoint::leader(leader), follower))
}

/// What has been typed and nobody has read, at most one of the kernel's terminal buffers. Nobody may read
/// there any more.
pub(crate) fn take_unread(leader: RawFd) -> Result<Vec<u8>, Errno> {
    let follower = follower_of(leader, libc::O_NONBLOCK)?;
    let modes = tcgetattr(&follower)?;
    let mut raw = modes.clone();
    // The beginning of a line is not to be had otherwise.
    raw.local_flags.remove(LocalFlags::ICANON);
    tcsetattr(&follower, SetArg::TCSANOW, &raw)?;
    let mut bytes = vec![0; 4096];
    let read = nix::unistd::read(&follower, &mut bytes);
    tcsetattr(&follower, SetArg::TCSANOW, &modes)?;
    bytes.truncate(read.unwrap_or(0));
    // As which an end of input lies in the buffer.
    bytes.retain(|byte| *byte != 0);
    Ok(bytes)
}

/// Opens the follower through its leader: a path may lead elsewhere in a mount namespace of its own
/// (TIOCGPTPEER, Linux 4.13).
fn follower_of(leader: RawFd, flags: libc::c_int) -> Result<OwnedFd, Errno> {
    let flags = flags | libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes a number.
    let fd = Errno::result(unsafe { libc::ioctl(leader, libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel just made this fd for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
