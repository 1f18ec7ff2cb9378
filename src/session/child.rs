//! The child: its start with nothing changed but its streams, and what became of it.
//!
//! It is either a process of our own, or one that the monitor started at the pty and reports on.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpgrp, getpid, tcgetpgrp, tcsetpgrp};

use super::confine::{Confinement, NOT_ENTERED, NOT_LIMITED};
use super::job;
use super::monitor::{Ground, Monitor, News, Order, Report, Target};
use super::signals::Inheritance;
use crate::config::{ForwardTo, Wrap};
use crate::error::{Error, STATUS_FAILED, STATUS_NOT_EXECUTABLE, STATUS_NOT_FOUND};
use crate::ring::{Fd, Operation};

/// What the child gets as fd 0, 1 and 2.
#[derive(Debug)]
pub(super) struct ChildStreams {
    /// `None`: ours, as it is.
    pub(super) stdin: Option<OwnedFd>,
    /// Our stdin was closed, so the child's is too.
    pub(super) stdin_closed: bool,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// How the child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Status(u8),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// Reads what waitpid(2) says of a process that has ended.
    pub(super) fn of(status: i32) -> Exit {
        match libc::WIFSIGNALED(status) {
            true => Exit::Signal(libc::WTERMSIG(status)),
            false => Exit::Status(libc::WEXITSTATUS(status) as u8),
        }
    }

    /// The status as a shell shows it: a signal counts as 128 + its number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Status(status) => status,
            Exit::Signal(signal) => 128u8.wrapping_add(signal as u8),
        }
    }
}

/// A change in what the child is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Stopped(i32),
    Continued,
    /// It has been told that its terminal is about to be hung up.
    Told,
}

/// Which process group a child starts in, and what that has to do with a terminal.
#[derive(Clone, Copy, Debug)]
pub(super) enum Standing {
    /// Ours.
    OurGroup,
    /// A group of its own.
    OwnGroup,
    /// A group of its own in the session of this terminal.
    Terminal(RawFd, Ground),
}

/// A running child, not reaped: its pid cannot be anyone else's.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    origin: Origin,
    forward_to: ForwardTo,
    pub(super) stopped: bool,
    /// Stops and continues that have not been told of.
    pub(super) changes: Vec<(Instant, Change)>,
    /// A key's signal that it was sent and has no handler for.
    fatal: Option<i32>,
    exit: Option<Exit>,
}

/// Whose process the child is, and how its end is learnt of.
#[derive(Debug)]
enum Origin {
    /// Ours. The pidfd becomes readable once the child has ended. Absent before Linux 5.3 and where
    /// seccomp forbids it; SIGCHLD tells the same then.
    Own(Option<Fd>),
    /// The monitor's.
    Monitored(Reported),
}

/// A child that the monitor reports on.
#[derive(Debug)]
struct Reported {
    monitor: Monitor,
    /// What nobody has asked for yet.
    changes: VecDeque<Change>,
    /// The child itself, so that a key's signal need not take the longer way.
    pidfd: Option<OwnedFd>,
}

impl Child {
    /// Starts the command as a process of our own.
    ///
    /// # Errors
    /// With status 127 if it was not found, 126 if it cannot be executed, 125 if there was no process.
    pub(super) fn spawn(
        wrap: &Wrap,
        streams: ChildStreams,
        inheritance: Inheritance,
        confinement: Confinement,
    ) -> Result<Child, Error> {
        let standing = match wrap.forward_to {
            ForwardTo::Child => Standing::OurGroup,
            ForwardTo::Group => Standing::OwnGroup,
        };
        let started = start(wrap, streams, inheritance, standing, confinement);
        let pid = started.map_err(|error| refused(&wrap.program, error))?;
        let pidfd = pidfd_open(pid).ok().map(Rc::new);
        Ok(Child::new(pid, Origin::Own(pidfd), wrap))
    }

    /// Its number, which nobody else has until it is reaped.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw() as u32
    }

    /// Has the monitor start the command, in the foreground of its terminal or not.
    ///
    /// # Errors
    /// As [`Child::spawn`].
    pub(super) fn spawn_at(monitor: Monitor, wrap: &Wrap, ground: Ground) -> Result<Child, Error> {
        match monitor.start(ground)? {
            Ok(pid) => {
                let reported =
                    Reported { monitor, changes: VecDeque::new(), pidfd: pidfd_open(pid).ok() };
                Ok(Child::new(pid, Origin::Monitored(reported), wrap))
            }
            Err(errno) => Err(refused(&wrap.program, errno.into())),
        }
    }

    fn new(pid: Pid, origin: Origin, wrap: &Wrap) -> Child {
        Child {
            pid,
            origin,
            forward_to: wrap.forward_to,
            stopped: false,
            changes: Vec::new(),
            fatal: None,
            exit: None,
        }
    }

    /// The fd that becomes readable when there is something to learn of the child, and what that is.
    pub(super) fn news(&self) -> Option<(&Fd, Operation)> {
        match &self.origin {
            Origin::Own(pidfd) => Some((pidfd.as_ref()?, Operation::ChildExit)),
            Origin::Monitored(reported) => Some((reported.monitor.fd(), Operation::MonitorReport)),
        }
    }

    /// The process that we have to wait for: the child, or the monitor that waits for it.
    fn own_process(&self) -> Pid {
        match &self.origin {
            Origin::Own(_) => self.pid,
            Origin::Monitored(reported) => reported.monitor.pid(),
        }
    }

    /// How the child ended, if it has. Reaps it.
    ///
    /// # Errors
    /// If nobody can know any more.
    pub(super) fn reap(&mut self) -> Result<Option<Exit>, Error> {
        if self.exit.is_some() {
            return Ok(self.exit);
        }
        match self.origin {
            Origin::Monitored(..) => self.read_reports(),
            Origin::Own(_) => Ok(self.wait_for_exit()),
        }
    }

    fn wait_for_exit(&mut self) -> Option<Exit> {
        let mut status = 0;
        // `nix` would lose the status of a child killed by a real-time signal, for which it has no name.
        // SAFETY: `status` is a live out-parameter.
        let reaped = unsafe { libc::waitpid(self.pid.as_raw(), &mut status, libc::WNOHANG) };
        if reaped == self.pid.as_raw() {
            self.exit = Some(Exit::of(status));
            if self.forward_to == ForwardTo::Group {
                pass_terminal(self.pid, getpgrp());
            }
        }
        self.exit
    }

    fn read_reports(&mut self) -> Result<Option<Exit>, Error> {
        let Origin::Monitored(reported) = &mut self.origin else { return Ok(self.exit) };
        let Reported { monitor, changes, .. } = reported;
        while let Some(news) = monitor.next_news() {
            match news {
                News::Report(Report::Stopped(signal)) => {
                    changes.push_back(Change::Stopped(signal));
                }
                News::Report(Report::Continued) => changes.push_back(Change::Continued),
                News::Report(Report::Told) => changes.push_back(Change::Told),
                News::Report(Report::Ended(exit)) => {
                    self.exit = Some(exit);
                    if let Some(signal) = self.fatal {
                        self.was_overtaken_by(signal);
                    }
                    return Ok(self.exit);
                }
                News::Report(Report::Started(_) | Report::Refused(_) | Report::Unseated(_)) => {}
                News::Gone => {
                    // The kernel has hung its terminal up: the child has had its SIGHUP.
                    self.exit = Some(Exit::Status(STATUS_FAILED));
                    return Err(Error::usage("follow the child", "its monitor process has died"));
                }
            }
        }
        Ok(None)
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        self.exit
    }

    /// The next stop or continue of the child, if there was one.
    pub(super) fn next_change(&mut self) -> Option<Change> {
        if self.exit.is_some() {
            return None;
        }
        let change = match &mut self.origin {
            Origin::Own(_) => self.wait_for_change(),
            Origin::Monitored(reported) => reported.changes.pop_front(),
        };
        match change {
            Some(Change::Stopped(_)) => self.stopped = true,
            Some(Change::Continued) => self.stopped = false,
            Some(Change::Told) | None => return change,
        }
        if let Some(change) = change {
            self.changes.push((Instant::now(), change));
        }
        change
    }

    fn wait_for_change(&self) -> Option<Change> {
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WCONTINUED | WaitPidFlag::WNOHANG;
        match waitid(Id::Pid(self.pid), flags) {
            Ok(WaitStatus::Stopped(_, signal)) => Some(Change::Stopped(signal as i32)),
            Ok(WaitStatus::Continued(_)) => Some(Change::Continued),
            _ => None,
        }
    }

    /// Sends the child (or the group that it leads) a signal, unless it has been reaped: the number
    /// could be another process's by then.
    pub(super) fn signal(&self, signal: i32) {
        if self.exit.is_some() {
            return;
        }
        match (&self.origin, self.forward_to) {
            (Origin::Own(_), ForwardTo::Child) => send(self.pid.as_raw(), signal),
            (Origin::Own(_), ForwardTo::Group) => send(-self.pid.as_raw(), signal),
            (Origin::Monitored(Reported { monitor, .. }), ForwardTo::Child) => {
                monitor.order(Order::Signal(signal, Target::Child));
            }
            (Origin::Monitored(Reported { monitor, .. }), ForwardTo::Group) => {
                monitor.order(Order::Signal(signal, Target::Group));
            }
        }
    }

    /// Sends the child's group a signal, as a key at our terminal does. The other processes of a pipeline
    /// get theirs at this moment, and the child should not have the time to see their end first: it gets its
    /// own from here where the kernel lets us (PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9), or from the monitor.
    pub(super) fn signal_group(&mut self, signal: i32) {
        const PROCESS_GROUP: libc::c_uint = 1 << 2;
        let Origin::Monitored(reported) = &self.origin else { return };
        if self.exit.is_some() {
            return;
        }
        if matches!(signal, libc::SIGINT | libc::SIGQUIT) && job::dies_of(self.pid(), signal) {
            self.fatal = Some(signal);
        }
        let sent = reported.pidfd.as_ref().is_some_and(|pidfd| {
            let no_info = std::ptr::null::<libc::siginfo_t>();
            let (call, fd) = (libc::SYS_pidfd_send_signal, pidfd.as_raw_fd());
            // SAFETY: the call takes numbers, and a null for the kernel to fill in the sender.
            unsafe { libc::syscall(call, fd, signal, no_info, PROCESS_GROUP) == 0 }
        });
        if !sent {
            reported.monitor.order(Order::Signal(signal, Target::Group));
        }
    }

    /// A key's signal would have ended the child, which ended by itself in that moment: it saw what the same key
    /// did to the other processes of its pipeline. Beside them it would have died of the signal.
    pub(super) fn was_overtaken_by(&mut self, signal: i32) {
        if let Some(Exit::Status(_)) = self.exit {
            self.exit = Some(Exit::Signal(signal));
        }
    }

    /// Sends a signal to the foreground group of the child's own terminal, as a key does there.
    pub(super) fn signal_foreground(&self, signal: i32) {
        if let Origin::Monitored(Reported { monitor, .. }) = &self.origin
            && self.exit.is_none()
        {
            monitor.order(Order::Signal(signal, Target::Foreground));
        }
    }

    /// Sends a signal to those who use the child's terminal, before that is hung up. Followed by a
    /// [`Change::Told`].
    pub(super) fn take_leave(&self, signal: i32) {
        if let Origin::Monitored(Reported { monitor, .. }) = &self.origin
            && self.exit.is_none()
        {
            monitor.order(Order::Farewell(signal));
        }
    }

    /// Continues the child's group in the foreground or background of its own terminal.
    pub(super) fn proceed(&mut self, ground: Ground) {
        if let Origin::Monitored(Reported { monitor, .. }) = &self.origin
            && self.exit.is_none()
        {
            monitor.order(Order::Continue(ground));
            self.stopped = false;
        }
    }

    /// With a group of its own the child would be in the terminal's background: if nproxy has the
    /// foreground, it hands it on.
    pub(super) fn give_terminal(&self) {
        if self.forward_to == ForwardTo::Group && matches!(self.origin, Origin::Own(_)) {
            pass_terminal(getpgrp(), self.pid);
        }
    }
}

/// Makes `to` the terminal's foreground group if `from` is. Makes system calls only.
fn pass_terminal(from: Pid, to: Pid) {
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

/// Runs the command, with nothing changed but what is said here.
///
/// # Errors
/// What fork(2) or execve(2) says.
pub(super) fn start(
    wrap: &Wrap,
    streams: ChildStreams,
    inheritance: Inheritance,
    standing: Standing,
    confinement: Confinement,
) -> io::Result<Pid> {
    let mut command = Command::new(&wrap.program);
    command.args(&wrap.arguments);
    if let Some(stdin) = streams.stdin {
        command.stdin(Stdio::from(stdin));
    }
    command.stdout(Stdio::from(streams.stdout));
    command.stderr(Stdio::from(streams.stderr));
    if !matches!(standing, Standing::OurGroup) {
        command.process_group(0);
    }
    let close_stdin = streams.stdin_closed;
    let group = getpgrp();
    // SAFETY: between fork and exec this makes system calls only and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            if close_stdin {
                libc::close(0);
            }
            confinement.apply()?;
            match standing {
                // Before it can read from the terminal, which would stop it in the background.
                Standing::OwnGroup => pass_terminal(group, getpid()),
                Standing::Terminal(fd, Ground::Foreground) => take_foreground(fd)?,
                Standing::OurGroup | Standing::Terminal(..) => {}
            }
            inheritance.apply().map_err(io::Error::from)
        });
    }
    Ok(Pid::from_raw(command.spawn()?.id() as i32))
}

/// Makes this process's group the foreground group of the terminal. The caller's signal mask is left
/// with SIGTTOU blocked: from the background, tcsetpgrp(3) would stop us otherwise.
///
/// # Errors
/// What tcsetpgrp(3) says.
pub(super) fn take_foreground(fd: RawFd) -> io::Result<()> {
    let mut ttou = SigSet::empty();
    ttou.add(Signal::SIGTTOU);
    ttou.thread_block().map_err(io::Error::from)?;
    // SAFETY: both calls take numbers only.
    match unsafe { libc::tcsetpgrp(fd, libc::getpgrp()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn send(target: i32, signal: i32) {
    // SAFETY: kill(2) has no memory effects.
    unsafe { libc::kill(target, signal) };
}

/// As pid 1, collects processes whose parents are gone; never the child itself.
pub(super) fn reap_orphans(child: &Child) {
    if getpid().as_raw() != 1 {
        return;
    }
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Ok(status) = waitid(Id::All, look) {
        match status.pid() {
            Some(pid) if pid != child.own_process() => {
                let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
            }
            _ => return,
        }
    }
}

fn pidfd_open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes two numbers; the child is not reaped, so the pid is still its.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: the kernel just made this fd for us, with close-on-exec set.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The error for a command that did not start, with the status that tells why.
fn refused(program: &OsStr, error: io::Error) -> Error {
    let tried = format!("run {}", program.to_string_lossy());
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
