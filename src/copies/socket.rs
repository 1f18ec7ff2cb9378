//! The socket of a collector: where it is, how it is connected without waiting, and what its peer says.
//!
//! What the peer says is read and thrown away at once: a peer that answers and is not read stops reading in the end, and a
//! socket that is closed with input unread makes the kernel throw away what the peer has not read yet.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6,
    SockaddrLike, SockaddrStorage, UnixAddr, connect, getpeername, getsockname, getsockopt,
    shutdown, socket, sockopt,
};

use super::intake::is;
use crate::ring::{unanswered, unsent, widest_window};

/// How long one try to connect may take.
const CONNECTING: Duration = Duration::from_secs(5);

/// So many reads of so many bytes are more than a socket's queue holds: once they are made, all that lay there at the start, and
/// an end behind it, has been seen.
const READS: u32 = 4096;
const READ: usize = 16 << 10;

/// So often is sent again in vain before a connection counts as lost: the waits of 0.2, 0.4, 0.8, 1.6, 3.2 and 6.4 s are over.
const UNANSWERED: u8 = 6;

/// Where a collector is.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Tcp(Vec<SocketAddr>),
    Unix(PathBuf),
}

impl Address {
    /// # Errors
    /// If a name cannot be resolved: no waiting helps.
    pub(crate) fn resolve(host_and_port: &str) -> io::Result<Address> {
        let all: Vec<SocketAddr> = host_and_port.to_socket_addrs()?.collect();
        match all.is_empty() {
            true => Err(io::Error::other("no such host")),
            false => Ok(Address::Tcp(all)),
        }
    }

    /// Begins to connect to the next of the addresses after `tried` of them. `None` if there is none left.
    fn begin(&self, tried: usize) -> Option<Result<Socket, Errno>> {
        match self {
            Address::Unix(path) if tried == 0 => Some(
                UnixAddr::new(path)
                    .and_then(|address| Socket::begin(Family::Unix, AddressFamily::Unix, &address)),
            ),
            Address::Unix(_) => None,
            Address::Tcp(all) => all.get(tried).map(|address| match address {
                SocketAddr::V4(address) => {
                    Socket::begin(Family::Tcp, AddressFamily::Inet, &SockaddrIn::from(*address))
                }
                SocketAddr::V6(address) => {
                    Socket::begin(Family::Tcp, AddressFamily::Inet6, &SockaddrIn6::from(*address))
                }
            }),
        }
    }
}

/// What kind of socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Tcp,
    Unix,
}

/// A socket that does not block.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    family: Family,
    /// The peer was told that no more comes.
    finished: Cell<bool>,
}

impl Socket {
    fn begin(
        family: Family,
        domain: AddressFamily,
        address: &dyn SockaddrLike,
    ) -> Result<Socket, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = match family {
            Family::Tcp => Some(SockProtocol::Tcp),
            Family::Unix => None,
        };
        let fd = socket(domain, SockType::Stream, flags, protocol)?;
        match connect(fd.as_raw_fd(), address) {
            Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => {
                Ok(Socket { fd, family, finished: Cell::new(false) })
            }
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn family(&self) -> Family {
        self.family
    }

    /// Bytes that the peer's kernel (TCP), or the peer itself (Unix), has not taken yet.
    pub(super) fn unsent(&self) -> u64 {
        // TCP's end is a byte to the kernel.
        let end = u64::from(self.family == Family::Tcp && self.finished.get());
        self.unanswered().saturating_sub(end)
    }

    /// The same with the end that was said.
    pub(super) fn unanswered(&self) -> u64 {
        unsent(self.fd.as_raw_fd())
    }

    /// The most that the peer's kernel may have taken and the peer not read, in bytes; 0 if that cannot be told.
    pub(super) fn widest_window(&self) -> u64 {
        match self.family {
            Family::Tcp => widest_window(self.fd.as_raw_fd()),
            Family::Unix => 0,
        }
    }

    /// Whether the peer's machine has not answered for about 13 seconds, and was asked [`UNANSWERED`] times. TCP itself
    /// would try for a quarter of an hour, at intervals of up to two minutes.
    pub(super) fn is_unanswered(&self) -> bool {
        self.family == Family::Tcp && unanswered(self.fd.as_raw_fd()) >= UNANSWERED
    }

    /// Whether nothing but our own end was refused: a peer that had closed long before, and whose kernel does not remember it.
    pub(super) fn is_only_end_refused(&self, errno: Errno) -> bool {
        let all_but_the_end = self.unanswered() == 1 && self.unsent() == 0;
        self.family == Family::Tcp && errno == Errno::ECONNRESET && all_but_the_end
    }

    /// What has befallen it, if anything has.
    pub(super) fn error(&self) -> Option<Errno> {
        match getsockopt(&self.fd, sockopt::SocketError) {
            Ok(0) => None,
            Ok(error) => Some(Errno::from_raw(error)),
            Err(errno) => Some(errno),
        }
    }

    /// Whether it is connected to itself: to a port of this machine at which nobody listens, which the kernel happened to give
    /// to our end.
    fn is_its_own_peer(&self) -> bool {
        let fd = self.fd.as_raw_fd();
        self.family == Family::Tcp
            && getpeername::<SockaddrStorage>(fd)
                .is_ok_and(|peer| getsockname::<SockaddrStorage>(fd) == Ok(peer))
    }

    /// No more comes.
    pub(super) fn finish(&self) {
        // A peer that has gone needs not be told.
        self.finished.set(shutdown(self.fd.as_raw_fd(), Shutdown::Write).is_ok());
    }

    /// Reads and forgets what the peer has said. True once it says no more. One that talks all the time is heard out later:
    /// it does not keep the copy from being sent.
    pub(super) fn drain(&self) -> Result<bool, Errno> {
        let mut said = [0; READ];
        for _ in 0..READS {
            match nix::unistd::read(&self.fd, &mut said) {
                Ok(0) => return Ok(true),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
        Ok(false)
    }

    /// Whether what poll(2) has found means that the peer is gone.
    pub(super) fn is_gone(&self, found: PollFlags) -> bool {
        let gone = match self.family {
            // Both directions are closed, which takes both ends: ours may have been first.
            Family::Tcp => PollFlags::POLLERR | PollFlags::POLLNVAL,
            Family::Unix => PollFlags::POLLERR | PollFlags::POLLNVAL | PollFlags::POLLHUP,
        };
        found.intersects(gone)
    }
}

/// A try to connect: one address after the other, until one answers.
#[derive(Debug, Default)]
pub(super) struct Connecting {
    tried: usize,
    pending: Option<(Socket, Option<Instant>)>,
    last: Option<Errno>,
}

impl Connecting {
    /// Goes on. `None` if the answer has to be waited for.
    ///
    /// # Errors
    /// Why the last address cannot be connected to.
    pub(super) fn advance(&mut self, address: &Address) -> Result<Option<Socket>, Errno> {
        loop {
            if let Some((socket, until)) = self.pending.take() {
                let answered = PollFlags::POLLOUT | PollFlags::POLLERR | PollFlags::POLLHUP;
                match (is(socket.fd(), answered), until) {
                    (true, _) => match getsockopt(&socket.fd(), sockopt::SocketError)? {
                        0 if socket.is_its_own_peer() => self.last = Some(Errno::ECONNREFUSED),
                        0 => return Ok(Some(socket)),
                        error => self.last = Some(Errno::from_raw(error)),
                    },
                    (false, Some(until)) if Instant::now() >= until => {
                        self.last = Some(Errno::ETIMEDOUT);
                    }
                    (false, until) => {
                        self.pending = Some((socket, until));
                        return Ok(None);
                    }
                }
            }
            match address.begin(self.tried) {
                None => return Err(self.last.unwrap_or(Errno::ECONNREFUSED)),
                Some(Err(errno)) => self.last = Some(errno),
                Some(Ok(socket)) => {
                    self.pending = Some((socket, Instant::now().checked_add(CONNECTING)));
                }
            }
            self.tried += 1;
        }
    }

    /// The socket whose answer is waited for, and until when.
    pub(super) fn pending(&self) -> Option<(BorrowedFd<'_>, Option<Instant>)> {
        self.pending.as_ref().map(|(socket, until)| (socket.fd(), *until))
    }
}
