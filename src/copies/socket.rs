//! Whom copies are connected to: how to part from them so that nothing is lost.
//!
//! The kernel answers a socket that is closed with input unread by a reset, and throws away what its peer has not read
//! yet. A peer may say something (a greeting, an acknowledgement), and nproxy reads nothing from it. So a copy that has
//! delivered everything only says that no more comes, and at the end of the run what the peer has said is read and
//! forgotten, until the peer has closed too or a second has passed.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long a peer that has said something may take to close, all of them together.
const PATIENCE: Duration = Duration::from_secs(1);

/// Copies of the sockets, which do not block.
#[derive(Debug, Default)]
pub(crate) struct Peers(Vec<Peer>);

#[derive(Debug)]
struct Peer {
    /// Which of the copies it is.
    copy: usize,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Peers {
    /// Remembers the peer of the copy with this index.
    pub(crate) fn add_unix(&mut self, copy: usize, socket: UnixStream) {
        self.0.push(Peer { copy, socket: Socket::Unix(socket) });
    }

    /// The same over TCP.
    pub(crate) fn add_tcp(&mut self, copy: usize, socket: TcpStream) {
        self.0.push(Peer { copy, socket: Socket::Tcp(socket) });
    }

    /// Tells the peer of this copy, if it has one, that no more comes.
    pub(crate) fn finish(&self, copy: usize) {
        for peer in self.0.iter().filter(|peer| peer.copy == copy) {
            // A peer that has gone needs not be told.
            let _ = match &peer.socket {
                Socket::Unix(socket) => socket.shutdown(Shutdown::Write),
                Socket::Tcp(socket) => socket.shutdown(Shutdown::Write),
            };
        }
    }

    /// Reads what peers have said, and waits for those that have said anything until they have closed.
    pub(crate) fn finish_all(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        for peer in std::mem::take(&mut self.0) {
            match peer.socket {
                Socket::Unix(socket) => {
                    finish_all(&socket, socket.as_fd().try_clone_to_owned(), deadline)
                }
                Socket::Tcp(socket) => {
                    finish_all(&socket, socket.as_fd().try_clone_to_owned(), deadline)
                }
            }
        }
    }
}

fn finish_all(mut socket: impl Read, fd: std::io::Result<OwnedFd>, deadline: Instant) {
    let Ok(fd) = fd else { return };
    let mut said = [0; 4096];
    let mut spoke = false;
    loop {
        match socket.read(&mut said) {
            Ok(0) => return,
            Ok(_) => spoke = true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && spoke => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return;
                }
                let limit = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
                let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut fds, limit);
            }
            Err(_) => return,
        }
        if Instant::now() >= deadline {
            return;
        }
    }
}
