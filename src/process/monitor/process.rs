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
use nix::unistd::{Pid, getpgrp, setsid, tcgetpgrp};

use super::protocol::{self, MonitorEvent, Order, Recipient};
use crate::config::Wrap;
use crate::process::exit::Exit;
use crate::process::limits::Confinement;
use crate::process::signals::Inheritance;
use crate::process::spawn::{self, ChildStreams, Placement, ProcessGroup};

/// The terminal that the monitor's session gets.
#[derive(Debug)]
pub(crate) struct SessionTerminal {
    /// The follower that becomes the controlling terminal.
    pub(crate) terminal: OwnedFd,
    /// Another follower to be kept open until the child has ended.
    pub(crate) stderr: Option<OwnedFd>,
}

/// The monitor, in its own process.
pub(crate) struct MonitorProcess {
    socket: OwnedFd,
    /// Until the child has ended.
    terminal_end: Option<SessionTerminal>,
    inheritance: Inheritance,
    /// Its pid, which is also its group's number, while it runs.
    child: Option<Pid>,
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
        terminal_end: SessionTerminal,
        inheritance: Inheritance,
    ) -> MonitorProcess {
        MonitorProcess {
            socket,
            terminal_end: Some(terminal_end),
            inheritance,
            child: None,
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
        self.terminal_end.as_ref().map(|terminal_end| terminal_end.terminal.as_raw_fd())
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
        &self,
        wrap: &Wrap,
        streams: ChildStreams,
        confinement: Confinement,
        placement: Placement,
    ) -> Result<Pid, Errno> {
        let terminal = self.terminal().ok_or(Errno::ENOTTY)?;
        let group = ProcessGroup::AtTerminal(terminal, placement);
        spawn::start(wrap, streams, self.inheritance, group, confinement)
            .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }

    /// Closes every fd that is not the monitor's own: a pipe that it held would not end when the child
    /// closes it. The child has had them by now.
    fn close_others(&self) {
        if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
            let _ = nix::unistd::dup2_stdin(&null);
            let _ = nix::unistd::dup2_stdout(&null);
            let _ = nix::unistd::dup2_stderr(&null);
        }
        let stderr =
            self.terminal_end.as_ref().and_then(|terminal_end| terminal_end.stderr.as_ref());
        let signals = self.signals.as_ref().map(|signals| signals.as_fd().as_raw_fd());
        let kept = [Some(self.socket.as_raw_fd()), self.terminal(), signals];
        let mut kept: Vec<RawFd> = kept.into_iter().flatten().collect();
        kept.extend(stderr.map(AsRawFd::as_raw_fd));
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
                self.terminal_end = None;
                self.report(MonitorEvent::Ended(Exit::of(status)));
            }
        }
    }

    fn obey(&mut self, order: Order) {
        let Some(child) = self.child else { return };
        match order {
            Order::Start(_) => {}
            Order::Signal(signal, Recipient::Child) => send_signal(child.as_raw(), signal),
            Order::Signal(signal, Recipient::Group) => send_signal(-child.as_raw(), signal),
            Order::Signal(signal, Recipient::Foreground) => {
                send_signal(-self.foreground_or(child).as_raw(), signal);
            }
            Order::AnnounceHangUp(signal) => {
                self.announce_hang_up(child, signal);
                self.report(MonitorEvent::HangUpAnnounced);
            }
            Order::Continue(Placement::Background) => {
                self.set_foreground(getpgrp());
                send_signal(-child.as_raw(), libc::SIGCONT);
            }
            Order::Continue(Placement::Foreground) => {
                // A child that runs may have given the foreground to a job of its own.
                if self.stopped || self.foreground_or(child) == child {
                    self.set_foreground(child);
                }
                send_signal(-child.as_raw(), libc::SIGCONT);
            }
        }
    }

    /// The foreground group, unless that is the monitor's own or none.
    fn foreground_or(&self, child: Pid) -> Pid {
        let group = self
            .terminal_end
            .as_ref()
            .and_then(|terminal_end| tcgetpgrp(&terminal_end.terminal).ok());
        group.filter(|group| *group != getpgrp() && group.as_raw() > 0).unwrap_or(child)
    }

    fn set_foreground(&self, group: Pid) {
        if let Some(terminal) = self.terminal() {
            // SAFETY: the call takes two numbers; SIGTTOU is blocked, so it cannot stop us.
            unsafe { libc::tcsetpgrp(terminal, group.as_raw()) };
        }
    }

    /// nproxy is gone, and with it the terminal: the child is told as any other would be.
    fn hang_up(&self) {
        if let Some(child) = self.child {
            self.announce_hang_up(child, libc::SIGHUP);
        }
    }

    /// Tells the foreground group, and the child's if that is another; also those of them that are stopped.
    fn announce_hang_up(&self, child: Pid, signal: i32) {
        let foreground = self.foreground_or(child);
        for group in
            [Some(foreground), (foreground != child).then_some(child)].into_iter().flatten()
        {
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
