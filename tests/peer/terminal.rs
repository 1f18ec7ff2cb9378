//! A terminal for a command, where no other program makes one: keys come from stdin, the screen goes to stdout.

use std::error::Error;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write, stdin, stdout};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::Outcome;

/// Runs a command as the leader of a session on a new terminal, until nobody has that open any more.
pub(crate) fn terminal(arguments: Vec<OsString>) -> Outcome {
    let leader = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&leader)?;
    unlockpt(&leader)?;
    let path = ptsname_r(&leader)?;
    let mut screen = File::from(leader.as_fd().try_clone_to_owned()?);
    tcsetwinsize(&screen, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 })?;
    let mut child = Command::new("/proc/self/exe")
        .arg("with")
        .arg(format!("tty={path}"))
        .arg("--")
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()?;
    let keys = screen.try_clone()?;
    std::thread::spawn(move || type_all(keys));
    let mut bytes = [0; 4096];
    // Its end is an error: EIO.
    while let Ok(shown @ 1..) = screen.read(&mut bytes) {
        stdout().write_all(&bytes[..shown])?;
        stdout().flush()?;
    }
    let status = child.wait()?;
    Ok(status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1))
}

fn type_all(mut keys: File) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut bytes = [0; 4096];
    loop {
        match stdin().read(&mut bytes)? {
            0 => return Ok(()),
            typed => keys.write_all(&bytes[..typed])?,
        }
    }
}
