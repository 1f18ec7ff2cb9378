//! The start of the command: nothing changed for it but its streams, its process group and its limits.

#![allow(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{Pid, execvpe, getpgrp, getpid, tcgetpgrp, tcsetpgrp};

use super::limits::{Confinement, NOT_ENTERED, NOT_LIMITED};
use super::signals::Inheritance;
use crate::config::Wrap;
use crate::error::{Error, STATUS_NOT_EXECUTABLE, STATUS_NOT_FOUND};

/// What the child gets as fd 0, 1 and 2.
#[derive(Debug)]
pub(crate) struct ChildStreams {
    /// `None`: ours, as it is.
    pub(crate) stdin: Option<OwnedFd>,
    /// Our stdin was closed, so the child's is too.
    pub(crate) stdin_closed: bool,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Where in its terminal the child's group runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// It may read and gets the keys' signals.
    Foreground,
    /// Reading, or setting modes, stops it.
    Background,
}

/// Which process group a child starts in, and what that has to do with a terminal.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ProcessGroup {
    /// Ours.
    Ours,
    /// A group of its own.
    Own,
    /// In the session of this terminal, this group; 0 for one of its own.
    AtTerminal(RawFd, Placement, Pid),
}

/// Runs the command, with nothing changed but what is said here.
///
/// # Errors
/// What fork(2) or execve(2) says.
pub(crate) fn start(
    wrap: &Wrap,
    streams: ChildStreams,
    inheritance: Inheritance,
    group: ProcessGroup,
    confinement: Confinement,
) -> io::Result<Pid> {
    for name in wrap.withheld {
        // Not by way of `Command`: it would make a new environment, without what is no NAME=VALUE in this one.
        // SAFETY: this process has one thread.
        unsafe { std::env::remove_var(name) };
    }
    let mut command = Command::new(&wrap.program);
    command.args(&wrap.arguments);
    command.envs(confinement.variables.iter().map(|(name, value)| (name, value)));
    if let Some(stdin) = streams.stdin {
        command.stdin(Stdio::from(stdin));
    }
    command.stdout(Stdio::from(streams.stdout));
    command.stderr(Stdio::from(streams.stderr));
    match group {
        ProcessGroup::Ours => {}
        ProcessGroup::Own => _ = command.process_group(0),
        ProcessGroup::AtTerminal(.., group) => _ = command.process_group(group.as_raw()),
    }
    let close_stdin = streams.stdin_closed;
    let our_group = getpgrp();
    let nproxy = match group {
        // This is the monitor.
        ProcessGroup::AtTerminal(..) => parent_id(),
        ProcessGroup::Ours | ProcessGroup::Own => std::process::id(),
    };
    let mut activated = activated(wrap, nproxy)?;
    // SAFETY: this process has one thread, so between fork and exec any call is allowed.
    unsafe {
        command.pre_exec(move || {
            if close_stdin {
                libc::close(0);
            }
            confinement.apply()?;
            match group {
                // Before it can read from the terminal, which would stop it in the background.
                ProcessGroup::Own => pass_terminal(our_group, getpid()),
                ProcessGroup::AtTerminal(fd, Placement::Foreground, _) => take_foreground(fd)?,
                ProcessGroup::Ours | ProcessGroup::AtTerminal(..) => {}
            }
            inheritance.apply().map_err(io::Error::from)?;
            if let Some([line, environment]) = &mut activated {
                environment.push(CString::new(format!("LISTEN_PID={}", getpid()))?);
                execvpe(&line[0], line, environment).map_err(io::Error::from)?;
            }
            Ok(())
        });
    }
    Ok(Pid::from_raw(command.spawn()?.id() as i32))
}

/// The command line and all but one word of the environment of a command that is handed listening sockets by systemd(1):
/// LISTEN_PID, which names nproxy, is to name the command, and its number is not known yet (sd_listen_fds(3)).
fn activated(wrap: &Wrap, nproxy: u32) -> io::Result<Option<[Vec<CString>; 2]>> {
    if std::env::var("LISTEN_PID").ok() != Some(nproxy.to_string()) {
        return Ok(None);
    }
    let line = [&wrap.program].into_iter().chain(&wrap.arguments);
    let line = line.map(|word| CString::new(word.as_encoded_bytes()));
    let others = std::env::vars_os().filter(|(name, _)| name != "LISTEN_PID");
    let others = others.map(|(name, value)| {
        CString::new([name.as_encoded_bytes(), b"=", value.as_encoded_bytes()].concat())
    });
    Ok(Some([line.collect::<Result<_, _>>()?, others.collect::<Result<_, _>>()?]))
}

/// Makes this process's group the foreground group of the terminal. The caller's signal mask is left
/// with SIGTTOU blocked: from the background, tcsetpgrp(3) would stop us otherwise.
///
/// # Errors
/// What tcsetpgrp(3) says.
pub(crate) fn take_foreground(fd: RawFd) -> io::Result<()> {
    let mut ttou = SigSet::empty();
    ttou.add(Signal::SIGTTOU);
    ttou.thread_block().map_err(io::Error::from)?;
    // SAFETY: both calls take numbers only.
    match unsafe { libc::tcsetpgrp(fd, libc::getpgrp()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes `to` the terminal's foreground group if `from` is. Makes system calls only.
pub(crate) fn pass_terminal(from: Pid, to: Pid) {
    let Ok(terminal) = std::fs::File::open("/dev/tty") else { return };
    if tcgetpgrp(&terminal) != Ok(from) {
        return;
    }
    // From the background, tcsetpgrp(3) would stop us: SIGTTOU is blocked for its duration.
    let mut ttou = SigSet::empty();
    ttou.add(Signal::SIGTTOU);
    let mask = ttou.thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let _ = tcsetpgrp(&terminal, to);
    let _ = mask.map(|mask| mask.thread_set_mask());
}

/// The error for a command that did not start, with the status that tells why.
pub(crate) fn refused(program: &OsStr, error: io::Error) -> Error {
    let tried = match program.is_empty() {
        true => "run a command without a name".to_owned(),
        false => format!("run {}", program.to_string_lossy()),
    };
    let named_by_path = program.as_encoded_bytes().contains(&b'/');
    let status = match error.raw_os_error().map(Errno::from_raw) {
        Some(NOT_ENTERED) => return Error::usage(tried, "cannot enter the cgroup made for it"),
        Some(NOT_LIMITED) => {
            return Error::usage(tried, "cannot set its --rlimit (not permitted?)");
        }
        // The file is there: what is missing is the interpreter that its first line names.
        Some(Errno::ENOENT) if named_by_path && Path::new(program).exists() => {
            return Error::usage(tried, "its interpreter was not found")
                .with_status(STATUS_NOT_EXECUTABLE);
        }
        Some(Errno::ENOENT | Errno::ENOTDIR) => STATUS_NOT_FOUND,
        // execvp(3) says so too if it may not search a directory in PATH. Nothing was found there.
        Some(Errno::EACCES) if !named_by_path && !is_in_path(program) => {
            return Error::os(tried, Errno::ENOENT).with_status(STATUS_NOT_FOUND);
        }
        // fork(2) and pipe(2) ran out of something: nothing is known of the command.
        Some(Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE) => {
            return Error::os(tried, error);
        }
        _ => STATUS_NOT_EXECUTABLE,
    };
    Error::os(tried, error).with_status(status)
}

/// Whether a directory in PATH has a file of this name, executable or not.
fn is_in_path(program: &OsStr) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}
