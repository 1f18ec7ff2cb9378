//! The start of the command: nothing changed for it but its streams, its process group and its limits.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, c_char};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::parent_id;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{Pid, getpgrp, getpid, setpgid, tcgetpgrp, tcsetpgrp};

use super::limits::{Confinement, NOT_ENTERED, NOT_LIMITED};
use super::signals::Inheritance;
use super::vfork;
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

impl ChildStreams {
    /// Puts them where they belong, in the child.
    fn take_effect(&self) -> Result<(), Errno> {
        let streams = [self.stdin.as_ref(), Some(&self.stdout), Some(&self.stderr)];
        for (number, fd) in streams.into_iter().enumerate() {
            let Some(fd) = fd else { continue };
            // None of them is one of the three: those are never free (`startup`).
            // SAFETY: dup2(2) takes numbers; in the child, nothing else uses the three.
            Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number as i32) })?;
        }
        if self.stdin_closed {
            // SAFETY: as above.
            unsafe { libc::close(0) };
        }
        Ok(())
    }
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
/// What clone(2) or execve(2) says.
pub(crate) fn start(
    wrap: &Wrap,
    streams: ChildStreams,
    inheritance: Inheritance,
    group: ProcessGroup,
    confinement: Confinement,
) -> io::Result<Pid> {
    let nproxy = match group {
        // This is the monitor.
        ProcessGroup::AtTerminal(..) => parent_id(),
        ProcessGroup::Ours | ProcessGroup::Own => std::process::id(),
    };
    let is_activated = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == nproxy.to_string());
    let line = [&wrap.program].into_iter().chain(&wrap.arguments);
    let line = line.map(|word| CString::new(word.as_encoded_bytes()));
    let line = line.collect::<Result<Vec<_>, _>>()?;
    let mut changed: Vec<_> =
        confinement.variables.iter().map(|(name, _)| name.as_os_str()).collect();
    changed.extend(is_activated.then_some(OsStr::new("LISTEN_PID")));
    let mut environment = inherited_environment(&changed);
    for (name, value) in &confinement.variables {
        environment.push(variable(name, value)?);
    }
    let our_group = getpgrp();
    let mut prepare = || {
        streams.take_effect()?;
        match group {
            ProcessGroup::Ours => {}
            ProcessGroup::Own => setpgid(Pid::from_raw(0), Pid::from_raw(0))?,
            ProcessGroup::AtTerminal(.., group) => setpgid(Pid::from_raw(0), group)?,
        }
        confinement.apply()?;
        match group {
            // Before it can read from the terminal, which would stop it in the background.
            ProcessGroup::Own => pass_terminal(our_group, getpid()),
            ProcessGroup::AtTerminal(fd, Placement::Foreground, _) => take_foreground(fd)?,
            ProcessGroup::Ours | ProcessGroup::AtTerminal(..) => {}
        }
        inheritance.apply()?;
        // It names nproxy and is to name the command (sd_listen_fds(3)).
        is_activated.then(|| variable("LISTEN_PID", getpid().to_string())).transpose()
    };
    // SAFETY: this process has one thread.
    Ok(unsafe { vfork::spawn(&line, &environment, &mut prepare) }?)
}

/// The environment of this process as it is, words that are no NAME=VALUE included, without these variables.
fn inherited_environment(without: &[&OsStr]) -> Vec<CString> {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    let mut words = Vec::new();
    // SAFETY: this process has one thread, so nobody changes the array while it is read; it ends with a null pointer.
    unsafe {
        let mut next = environ;
        while !next.is_null() && !(*next).is_null() {
            let word = CStr::from_ptr(*next);
            let name = word.to_bytes().split(|byte| *byte == b'=').next().unwrap_or_default();
            if !without.iter().any(|other| other.as_bytes() == name) {
                words.push(word.to_owned());
            }
            next = next.add(1);
        }
    }
    words
}

fn variable(name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Result<CString, Errno> {
    let words = [name.as_ref().as_bytes(), b"=", value.as_ref().as_bytes()];
    CString::new(words.concat()).map_err(|_| Errno::EINVAL)
}

/// Makes this process's group the foreground group of the terminal. The caller's signal mask is left
/// with SIGTTOU blocked: from the background, tcsetpgrp(3) would stop us otherwise.
///
/// # Errors
/// What tcsetpgrp(3) says.
pub(crate) fn take_foreground(fd: RawFd) -> Result<(), Errno> {
    let mut ttou = SigSet::empty();
    ttou.add(Signal::SIGTTOU);
    ttou.thread_block()?;
    // SAFETY: both calls take numbers only.
    Errno::result(unsafe { libc::tcsetpgrp(fd, libc::getpgrp()) }).map(drop)
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
