//! The monitor: a small process that leads the session of the child's terminal.
//!
//! The child's group needs a parent in the same session but in another group, or the kernel takes it
//! for orphaned and drops its SIGTSTP (setpgid(2), POSIX "orphaned process group"). nproxy cannot be that
//! parent, because it stays in the shell's session. The monitor is forked before the ring exists, holds no payload and
//! decides nothing: it starts the child, reports what becomes of it, and carries out orders. One message
//! is one packet on a socketpair; whoever closes its end first tells the other that it is gone.

#![allow(unsafe_code)]

mod process;
pub(crate) mod protocol;

use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv, send, shutdown, socketpair,
};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::config::Wrap;
use crate::error::Error;
use crate::process::limits::Confinement;
use crate::process::signals::Inheritance;
use crate::process::spawn::{ChildStreams, Placement};
use crate::ring::Fd;
use process::MonitorProcess;
use protocol::{MonitorEvent, Order};

/// The monitor as nproxy sees it. Dropped, it ends: the child's group is hung up on if it still runs.
#[derive(Debug)]
pub(crate) struct Monitor {
    pid: Pid,
    socket: Fd,
}

/// What can be read of the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Event(MonitorEvent),
    /// It has ended, or been killed.
    Gone,
}

impl Monitor {
    /// Forks the monitor, which waits for [`Monitor::start`].
    ///
    /// This process must have one thread and no ring: the copy would share it.
    ///
    /// # Errors
    /// What socketpair(2) or fork(2) says.
    pub(crate) fn fork(
        wrap: &Wrap,
        streams: ChildStreams,
        terminal: OwnedFd,
        inheritance: Inheritance,
        confinement: Confinement,
    ) -> Result<Monitor, Error> {
        let failed = |errno: Errno| Error::os("start the monitor process", errno);
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )
        .map_err(failed)?;
        // SAFETY: there is one thread, so the copy may do what the original may.
        match unsafe { fork() }.map_err(failed)? {
            ForkResult::Parent { child } => Ok(Monitor { pid: child, socket: Rc::new(ours) }),
            ForkResult::Child => {
                drop(ours);
                MonitorProcess::new(theirs, terminal, inheritance).run(wrap, streams, confinement)
            }
        }
    }

    /// Starts the child. The inner result is what became of its exec.
    ///
    /// # Errors
    /// If there was no terminal for it, or no monitor.
    pub(crate) fn start(&self, placement: Placement) -> Result<Result<Pid, Errno>, Error> {
        let sent = self.send(Order::Start(placement));
        sent.map_err(|errno| Error::os("have the monitor process start the child", errno))?;
        let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&*self.socket), PollFlags::POLLIN)];
        loop {
            let _ = poll(&mut fds, PollTimeout::NONE);
            match self.next_message() {
                Some(Message::Event(MonitorEvent::Started(pid))) => {
                    return Ok(Ok(Pid::from_raw(pid)));
                }
                Some(Message::Event(MonitorEvent::Refused(errno))) => return Ok(Err(errno)),
                Some(Message::Event(MonitorEvent::NoTerminal(errno))) => {
                    return Err(Error::os("give the child a terminal", errno));
                }
                Some(Message::Gone) => {
                    let why = "the monitor process has died";
                    return Err(Error::usage("start the child", why));
                }
                _ => {}
            }
        }
    }

    /// The fd that becomes readable when it has said something.
    pub(crate) fn fd(&self) -> &Fd {
        &self.socket
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Has it do something. A monitor that is gone shows in [`Monitor::next_message`].
    pub(crate) fn order(&self, order: Order) {
        let _ = self.send(order);
    }

    /// Never full: a few bytes at a time, read at once.
    fn send(&self, order: Order) -> Result<(), Errno> {
        send(self.socket.as_raw_fd(), &order.encode(), MsgFlags::MSG_NOSIGNAL).map(drop)
    }

    /// The next thing to be known of it, if there is one.
    pub(crate) fn next_message(&self) -> Option<Message> {
        let mut bytes = [0; protocol::LEN];
        match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Some(Message::Gone),
            Ok(_) => MonitorEvent::decode(&bytes).map(Message::Event),
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            Err(_) => Some(Message::Gone),
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if shutdown(self.socket.as_raw_fd(), Shutdown::Both).is_err() {
            // It would not hear of it, and be waited for in vain.
            // SAFETY: as below.
            unsafe { libc::kill(self.pid.as_raw(), libc::SIGKILL) };
        }
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        if waitid(Id::Pid(self.pid), flags) == Err(Errno::ECHILD) {
            // The kernel has reaped it: its number may be another process's.
            return;
        }
        // If somebody has stopped it, it still has to see that.
        // SAFETY: kill(2) has no memory effects; the monitor is our child and not reaped.
        unsafe { libc::kill(self.pid.as_raw(), libc::SIGCONT) };
        let _ = waitpid(self.pid, None);
    }
}
