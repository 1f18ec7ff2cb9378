//! The child: its start with nothing changed but its streams, and what became of it.
//!
//! It is either a process of our own, or one that the monitor started at the pty and reports on.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::os::fd::{FromRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getpgrp};

use super::exit::Exit;
use super::limits::Confinement;
use super::monitor::protocol::{MonitorEvent, Order, Recipient};
use super::monitor::{Message, Monitor};
use super::orphans;
use super::procfs;
use super::signals::Inheritance;
use super::spawn::{ChildStreams, Placement, ProcessGroup, pass_terminal, refused, start};
use crate::config::{ForwardTo, Wrap};
use crate::error::{Error, STATUS_FAILED};
use crate::ring::{Fd, Operation};

/// A change in what the child is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobChange {
    Stopped(i32),
    Continued,
    /// It has been told that its terminal is about to be hung up.
    HangUpAnnounced,
}

/// A running child, not reaped: its pid cannot be anyone else's.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    origin: Origin,
    forward_to: ForwardTo,
    pub(crate) stopped: bool,
    /// Stops and continues that have not been told of.
    pub(crate) changes: Vec<(Instant, JobChange)>,
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
    changes: VecDeque<JobChange>,
}

impl Child {
    /// Starts the command as a process of our own.
    ///
    /// # Errors
    /// With status 127 if it was not found, 126 if it cannot be executed, 125 if there was no process.
    pub(crate) fn spawn(
        wrap: &Wrap,
        streams: ChildStreams,
        inheritance: Inheritance,
        confinement: Confinement,
    ) -> Result<Child, Error> {
        let group = match wrap.forward_to {
            ForwardTo::Child => ProcessGroup::Ours,
            ForwardTo::Group => ProcessGroup::Own,
        };
        let started = start(wrap, streams, inheritance, group, confinement);
        let pid = started.map_err(|error| refused(&wrap.program, error))?;
        let pidfd = pidfd_open(pid).ok().map(Rc::new);
        Ok(Child::new(pid, Origin::Own(pidfd), wrap))
    }

    /// Its number, which nobody else has until it is reaped.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw() as u32
    }

    /// Has the monitor start the command, in the foreground of its terminal or not.
    ///
    /// # Errors
    /// As [`Child::spawn`].
    pub(crate) fn spawn_at(
        monitor: Monitor,
        wrap: &Wrap,
        placement: Placement,
    ) -> Result<Child, Error> {
        match monitor.start(placement)? {
            Ok(pid) => {
                let reported = Reported { monitor, changes: VecDeque::new() };
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
    pub(crate) fn event_source(&self) -> Option<(&Fd, Operation)> {
        match &self.origin {
            Origin::Own(pidfd) => Some((pidfd.as_ref()?, Operation::ChildExit)),
            Origin::Monitored(reported) => Some((reported.monitor.fd(), Operation::MonitorEvent)),
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
    pub(crate) fn reap(&mut self) -> Result<Option<Exit>, Error> {
        if self.exit.is_some() {
            return Ok(self.exit);
        }
        match self.origin {
            Origin::Monitored(..) => self.read_reports(),
            Origin::Own(_) => self.wait_for_exit(),
        }
    }

    fn wait_for_exit(&mut self) -> Result<Option<Exit>, Error> {
        let mut status = 0;
        // `nix` would lose the status of a child killed by a real-time signal, for which it has no name.
        // SAFETY: `status` is a live out-parameter.
        let reaped = unsafe { libc::waitpid(self.pid.as_raw(), &mut status, libc::WNOHANG) };
        if reaped < 0 {
            let error = Error::os("wait for the child", Errno::last());
            // To ask again would bring the same answer, for ever.
            self.exit = Some(Exit::Status(STATUS_FAILED));
            return Err(error);
        }
        if reaped == self.pid.as_raw() {
            self.exit = Some(Exit::of(status));
            if self.forward_to == ForwardTo::Group {
                pass_terminal(self.pid, getpgrp());
            }
        }
        Ok(self.exit)
    }

    fn read_reports(&mut self) -> Result<Option<Exit>, Error> {
        let Origin::Monitored(reported) = &mut self.origin else { return Ok(self.exit) };
        let Reported { monitor, changes } = reported;
        while let Some(event_source) = monitor.next_message() {
            match event_source {
                Message::Event(MonitorEvent::Stopped(signal)) => {
                    changes.push_back(JobChange::Stopped(signal));
                }
                Message::Event(MonitorEvent::Continued) => changes.push_back(JobChange::Continued),
                Message::Event(MonitorEvent::HangUpAnnounced) => {
                    changes.push_back(JobChange::HangUpAnnounced)
                }
                Message::Event(MonitorEvent::Ended(exit)) => {
                    self.exit = Some(exit);
                    if let Some(signal) = self.fatal {
                        self.was_overtaken_by(signal);
                    }
                    return Ok(self.exit);
                }
                Message::Event(
                    MonitorEvent::Started(_)
                    | MonitorEvent::Refused(_)
                    | MonitorEvent::NoTerminal(_),
                ) => {}
                Message::Gone => {
                    // The kernel has hung its terminal up: the child has had its SIGHUP.
                    self.exit = Some(Exit::Status(STATUS_FAILED));
                    return Err(Error::usage("follow the child", "its monitor process has died"));
                }
            }
        }
        Ok(None)
    }

    pub(crate) fn exit(&self) -> Option<Exit> {
        self.exit
    }

    /// The next stop or continue of the child, if there was one.
    pub(crate) fn next_change(&mut self) -> Option<JobChange> {
        if self.exit.is_some() {
            return None;
        }
        let change = match &mut self.origin {
            Origin::Own(_) => self.wait_for_change(),
            Origin::Monitored(reported) => reported.changes.pop_front(),
        };
        match change {
            Some(JobChange::Stopped(_)) => self.stopped = true,
            Some(JobChange::Continued) => self.stopped = false,
            Some(JobChange::HangUpAnnounced) | None => return change,
        }
        if let Some(change) = change {
            self.changes.push((Instant::now(), change));
        }
        change
    }

    fn wait_for_change(&self) -> Option<JobChange> {
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WCONTINUED | WaitPidFlag::WNOHANG;
        match waitid(Id::Pid(self.pid), flags) {
            Ok(WaitStatus::Stopped(_, signal)) => Some(JobChange::Stopped(signal as i32)),
            Ok(WaitStatus::Continued(_)) => Some(JobChange::Continued),
            _ => None,
        }
    }

    /// Sends the child what came for it with a payload, if it is to be sent to it alone.
    pub(crate) fn queue(&self, signal: i32, payload: u64) {
        if self.exit.is_some() {
            return;
        }
        let value = libc::sigval { sival_ptr: payload as *mut libc::c_void };
        match (&self.origin, self.forward_to) {
            (Origin::Own(_), ForwardTo::Child) => {
                // SAFETY: sigqueue(3) passes the value on as a number.
                unsafe { libc::sigqueue(self.pid.as_raw(), signal, value) };
            }
            _ => self.signal(signal),
        }
    }

    /// Sends the child (or the group that it leads) a signal, unless it has been reaped: the number
    /// could be another process's by then.
    pub(crate) fn signal(&self, signal: i32) {
        if self.exit.is_some() {
            return;
        }
        match (&self.origin, self.forward_to) {
            (Origin::Own(_), ForwardTo::Child) => send(self.pid.as_raw(), signal),
            (Origin::Own(_), ForwardTo::Group) => send(-self.pid.as_raw(), signal),
            (Origin::Monitored(Reported { monitor, .. }), ForwardTo::Child) => {
                monitor.order(Order::Signal(signal, Recipient::Child));
            }
            (Origin::Monitored(Reported { monitor, .. }), ForwardTo::Group) => {
                monitor.order(Order::Signal(signal, Recipient::Group));
            }
        }
    }

    /// A key is about to send the child a signal. The other processes of a pipeline get theirs at this moment, and the
    /// child may see their end first.
    pub(crate) fn expect_key(&mut self, signal: i32) {
        if matches!(signal, libc::SIGINT | libc::SIGQUIT) && procfs::dies_of(self.pid(), signal) {
            self.fatal = Some(signal);
        }
    }

    /// A key's signal would have ended the child, which ended by itself in that moment: it saw what the same key
    /// did to the other processes of its pipeline. Beside them it would have died of the signal.
    pub(crate) fn was_overtaken_by(&mut self, signal: i32) {
        if let Some(Exit::Status(_)) = self.exit {
            self.exit = Some(Exit::Signal(signal));
        }
    }

    /// Sends a signal to the foreground group of the child's own terminal, as a key does there.
    pub(crate) fn signal_foreground(&self, signal: i32) {
        if let Origin::Monitored(Reported { monitor, .. }) = &self.origin
            && self.exit.is_none()
        {
            monitor.order(Order::Signal(signal, Recipient::Foreground));
        }
    }

    /// Sends a signal to those who use the child's terminal, before that is hung up. Followed by a
    /// [`JobChange::HangUpAnnounced`].
    pub(crate) fn announce_hang_up(&self, signal: i32) {
        if let Origin::Monitored(Reported { monitor, .. }) = &self.origin
            && self.exit.is_none()
        {
            monitor.order(Order::AnnounceHangUp(signal));
        }
    }

    /// Continues the child's group in the foreground or background of its own terminal.
    pub(crate) fn proceed(&mut self, placement: Placement) {
        if let Origin::Monitored(Reported { monitor, .. }) = &self.origin
            && self.exit.is_none()
        {
            monitor.order(Order::Continue(placement));
            self.stopped = false;
        }
    }

    /// With a group of its own the child would be in the terminal's background: if nproxy has the
    /// foreground, it hands it on.
    pub(crate) fn give_terminal(&self) {
        if self.forward_to == ForwardTo::Group && matches!(self.origin, Origin::Own(_)) {
            pass_terminal(getpgrp(), self.pid);
        }
    }
}

fn send(target: i32, signal: i32) {
    // SAFETY: kill(2) has no memory effects.
    unsafe { libc::kill(target, signal) };
}

/// Collects processes whose parents are gone; never the child itself.
pub(crate) fn reap_orphans(child: &Child) {
    orphans::reap_all_but(child.own_process());
}

/// An fd that becomes readable when a child of ours ends that nobody has reaped.
///
/// # Errors
/// What pidfd_open(2) says.
pub(crate) fn pidfd_open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes two numbers; the child is not reaped, so the pid is still its.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: the kernel just made this fd for us, with close-on-exec set.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
