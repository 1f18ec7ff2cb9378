//! Programs that nproxy starts for itself, beside the command: a shell that a copy goes into, a compressor.

#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

pub(crate) use super::orphans::Waited;
use super::signals;

/// Starts a program in a process group of its own and with no signal blocked: nproxy blocks those that it passes on,
/// and a thread's mask is inherited.
///
/// # Errors
/// What fork(2) and execve(2) say.
pub(crate) fn start(command: &mut Command) -> io::Result<Waited> {
    signals::wait_for_children().map_err(io::Error::from)?;
    // SAFETY: between fork and exec this makes one system call and allocates nothing.
    unsafe {
        command.process_group(0).pre_exec(|| {
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
                .map_err(io::Error::from)
        });
    }
    Waited::start(command)
}
