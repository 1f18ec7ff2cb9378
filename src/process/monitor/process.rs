//! What the monitor process does, from its fork to its end.
//!
//! It blocks every signal: the only ones that concern it are SIGCHLD, read from a signalfd, and SIGHUP
//! for a terminal that is gone, which the socket tells as well. It keeps the followers open until the
//! child has ended (without one, the leader would read EIO), and it stays alive until nproxy has read what is
//! left: the end of a session's leader hangs the terminal up and throws unread bytes away.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpgrp, getppid, setpgid, setsid, tcgetpgrp};

use super::protocol::{self, MonitorEvent, Order, Recipient};
use crate::config::Wrap;
use crate::process::exit::Exit;
use crate::process::limits::Confinement;
use crate::process::signals::Inheritance;
use crate::process::spawn::{self, ChildStreams, Placement, ProcessGroup};

/// The monitor, in its own process.
pub(crate) struct MonitorProcess {
    socket: OwnedFd,
    /// The follower that becomes the controlling terminal, until the child has ended.
    terminal: Option<OwnedFd>,
    inheritance: Inheritance,
    /// While it runs.
    child: Option<Pid>,
    /// The child's group. Its number need not be the child's.
    group: Pid,
    /// Whether nproxy leads its group, as the child then does.
    leads_its_group: bool,
    stopped: bool,
    signals: Option<SignalFd>,
    /// nproxy can be told nothing any more, or there is nothing to be told: it sees that when this process ends.
    useless: bool,
}

/// What came from nproxy.
enum Received {
    Order(Order),
    Nothing,
    Gone,
}

impl MonitorProcess {
    pub(crate) fn new(
        socket: OwnedFd,
        terminal: OwnedFd,
        inheritance: Inheritance,
    ) -> MonitorProcess {
        MonitorProcess {
            socket,
            terminal: Some(terminal),
            inheritance,
            child: None,
            group: Pid::from_raw(0),
            leads_its_group: getpgrp() == getppid(),
            stopped: false,
            signals: None,
            useless: false,
        }
    }

    /// Runs to the end of this process.
    pub(crate) fn run(mut self, wrap: &Wrap, streams: ChildStreams, confinement: Confinement) -> ! {
        if let Err(errno) = self.take_terminal() {
            self.report(MonitorEvent::NoTerminal(errno));
        } else if let Some(placement) = self.wait_for_start() {
            match self.start(wrap, streams, confinement, placement) {
                Ok(pid) => {
                    self.child = Some(pid);
                    self.report(MonitorEvent::Started(pid.as_raw()));
                    self.close_others();
                    self.watch();
                }
                Err(errno) => self.report(MonitorEvent::Refused(errno)),
            }
        }
        // SAFETY: ends this process at once; nothing of the copied state is torn down a second time.
        unsafe { libc::_exit(0) }
    }

    /// Becomes the leader of a session at the terminal.
    fn take_terminal(&mut self) -> Result<(), Errno> {
        SigSet::all().thread_set_mask()?;
        // For people who read ps(1): this is not the nproxy that they started.
        let _ = nix::sys::prctl::set_name(c"nproxy-monitor");
        let mut only = SigSet::empty();
        only.add(Signal::SIGCHLD);
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        self.signals = Some(SignalFd::with_flags(&only, flags)?);
        setsid()?;
        let terminal = self.terminal().ok_or(Errno::ENOTTY)?;
        // SAFETY: TIOCSCTTY takes a number: 0, not to steal a terminal of another session.
        Errno::result(unsafe { libc::ioctl(terminal, libc::TIOCSCTTY, 0) })?;
        Ok(())
    }

    fn terminal(&self) -> Option<RawFd> {
        self.terminal.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn wait_for_start(&self) -> Option<Placement> {
        loop {
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::NONE);
            match self.receive() {
                Received::Order(Order::Start(placement)) => return Some(placement),
                Received::Gone => return None,
                _ => {}
            }
        }
    }

    fn start(
        &mut self,
        wrap: &Wrap,
        streams: ChildStreams,
        confinement: Confinement,
        placement: Placement,
    ) -> Result<Pid, Errno> {
        let terminal = self.terminal().ok_or(Errno::ENOTTY)?;
        let leader = if self.leads_its_group { None } else { Some(lead_a_group()?) };
        let group =
            ProcessGroup::AtTerminal(terminal, placement, leader.unwrap_or(Pid::from_raw(0)));
        let started = spawn::start(wrap, streams, self.inheritance, group, confinement);
        if let Some(leader) = leader {
            let _ = waitpid(leader, None);
        }
        let pid =
            started.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
        self.group = leader.unwrap_or(pid);
        Ok(pid)
    }

    /// Closes every fd that is not the monitor's own: a pipe that it held would not end when the child
    /// closes it. The child has had them by now.
    fn close_others(&self) {
        if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
            let _ = nix::unistd::dup2_stdin(&null);
            let _ = nix::unistd::dup2_stdout(&null);
            let _ = nix::unistd::dup2_stderr(&null);
        }
        let signals = self.signals.as_ref().map(|signals| signals.as_fd().as_raw_fd());
        let kept = [Some(self.socket.as_raw_fd()), self.terminal(), signals];
        let mut kept: Vec<RawFd> = kept.into_iter().flatten().collect();
        kept.sort_unstable();
        let mut first = 3;
        for fd in kept {
            close_range(first, fd - 1);
            first = fd + 1;
        }
        close_range(first, RawFd::MAX);
    }

    /// Reports and obeys until nproxy is gone.
    fn watch(&mut self) {
        loop {
            let Some(signals) = &self.signals else { return };
            let mut fds = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            let _ = poll(&mut fds, PollTimeout::NONE);
            while let Ok(Some(_)) = signals.read_signal() {}
            self.report_changes();
            if self.useless {
                return self.hang_up();
            }
            loop {
                match self.receive() {
                    Received::Order(order) => self.obey(order),
                    Received::Nothing => break,
                    Received::Gone => return self.hang_up(),
                }
            }
        }
    }

    /// Passes on every change of the child's state.
    fn report_changes(&mut self) {
        while let Some(pid) = self.child {
            let mut status = 0;
            let flags = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED;
            // SAFETY: `status` is a live out-parameter.
            match unsafe { libc::waitpid(pid.as_raw(), &mut status, flags) } {
                0 => return,
                ..0 => {
                    // Nobody will ever know how it ended.
                    self.child = None;
                    self.useless = true;
                    return;
                }
                _ => {}
            }
            self.stopped = libc::WIFSTOPPED(status);
            if self.stopped {
                self.report(MonitorEvent::Stopped(libc::WSTOPSIG(status)));
            } else if libc::WIFCONTINUED(status) {
                self.report(MonitorEvent::Continued);
            } else {
                self.child = None;
                // What the child leaves behind in its group must not be hung up on when this process
                // ends: only the foreground group is, so let that be our own.
                if let Some(terminal) = self.terminal() {
                    let _ = spawn::take_foreground(terminal);
                }
                self.terminal = None;
                self.report(MonitorEvent::Ended(Exit::of(status)));
            }
        }
    }

    fn obey(&mut self, order: Order) {
        let Some(child) = self.child else { return };
        match order {
            Order::Start(_) => {}
            Order::Signal(signal, Recipient::Child) => send_signal(child.as_raw(), signal),
            Order::Signal(signal, Recipient::Group) => send_signal(-self.group.as_raw(), signal),
            Order::Signal(signal, Recipient::Foreground) => {
                send_signal(-self.foreground().as_raw(), signal);
            }
            Order::AnnounceHangUp(signal) => {
                self.announce_hang_up(signal);
                self.report(MonitorEvent::HangUpAnnounced);
            }
            Order::Continue(Placement::Background) => {
                self.set_foreground(getpgrp());
                send_signal(-self.group.as_raw(), libc::SIGCONT);
            }
            Order::Continue(Placement::Foreground) => {
                // A child that runs may have given the foreground to a job of its own.
                if self.stopped || self.foreground() == self.group {
                    self.set_foreground(self.group);
                }
                send_signal(-self.group.as_raw(), libc::SIGCONT);
            }
        }
    }

    /// The foreground group, unless that is the monitor's own or none: then the child's.
    fn foreground(&self) -> Pid {
        let group = self.terminal.as_ref().and_then(|terminal| tcgetpgrp(terminal).ok());
        group.filter(|group| *group != getpgrp() && group.as_raw() > 0).unwrap_or(self.group)
    }

    fn set_foreground(&self, group: Pid) {
        if let Some(terminal) = self.terminal() {
            // SAFETY: the call takes two numbers; SIGTTOU is blocked, so it cannot stop us.
            unsafe { libc::tcsetpgrp(terminal, group.as_raw()) };
        }
    }

    /// nproxy is gone, and with it the terminal: the child is told as any other would be.
    fn hang_up(&self) {
        if self.child.is_some() {
            self.announce_hang_up(libc::SIGHUP);
        }
    }

    /// Tells the foreground group, and the child's if that is another; also those of them that are stopped.
    fn announce_hang_up(&self, signal: i32) {
        let foreground = self.foreground();
        let childs = Some(self.group).filter(|group| *group != foreground);
        for group in childs.into_iter().chain([foreground]) {
            send_signal(-group.as_raw(), signal);
            send_signal(-group.as_raw(), libc::SIGCONT);
        }
    }

    fn report(&mut self, report: MonitorEvent) {
        let sent = send(self.socket.as_raw_fd(), &report.encode(), MsgFlags::MSG_NOSIGNAL);
        self.useless |= sent.is_err();
    }

    fn receive(&self) -> Received {
        let mut bytes = [0; protocol::LEN];
        match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Received::Gone,
            Ok(_) => Order::decode(&bytes).map_or(Received::Nothing, Received::Order),
            Err(Errno::EAGAIN | Errno::EINTR) => Received::Nothing,
            Err(_) => Received::Gone,
        }
    }
}

/// Makes a process group by a leader that ends at once: whoever joins it is no leader, as it would be none without
/// nproxy. The number stays taken until the caller has reaped that leader.
fn lead_a_group() -> Result<Pid, Errno> {
    // SAFETY: this process has one thread, and the copy makes two system calls.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
            // SAFETY: ends the copy at once.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            waitid(Id::Pid(child), flags).map(|_| child)
        }
    }
}

fn send_signal(target: i32, signal: i32) {
    // SAFETY: kill(2) has no memory effects.
    unsafe { libc::kill(target, signal) };
}

/// close_range(2), of 5.9. An older kernel leaves the fds open: what they cost is a pipe that ends late.
fn close_range(first: RawFd, last: RawFd) {
    if first <= last {
        // SAFETY: the monitor owns none of these numbers; what did is never touched or dropped again.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}
