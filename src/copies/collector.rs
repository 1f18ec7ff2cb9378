//! A copy for a collector at the other end of a socket, which may go away and come back.
//!
//! The socket does not block. What the peer says is read and thrown away at once: a peer that answers and is not read
//! stops reading in the end, and a socket that is closed with input unread makes the kernel throw away what the peer has
//! not read yet.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::intake::{Intake, Taken};
use super::pause::Pause;
use super::writer::Work;
use crate::error::Error;
use crate::notice;
use crate::ring::unsent;

/// The most that one transfer takes, in bytes.
const TRANSFER: u64 = 1 << 20;

/// How long one try to connect may take.
const CONNECTING: Duration = Duration::from_secs(5);

/// How long a peer that has said that it closes may take to show whether it still reads.
const CLOSING: Duration = Duration::from_millis(100);

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

    fn connect(&self) -> io::Result<Socket> {
        match self {
            Address::Unix(path) => {
                // A full backlog would make it wait; connecting is all that it waits for.
                let socket = UnixStream::connect(path)?;
                socket.set_nonblocking(true)?;
                Ok(Socket::Unix(socket))
            }
            Address::Tcp(all) => {
                let mut last = io::Error::from(Errno::ECONNREFUSED);
                for address in all {
                    match TcpStream::connect_timeout(address, CONNECTING) {
                        Ok(socket) => {
                            socket.set_nonblocking(true)?;
                            return Ok(Socket::Tcp(socket));
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }
}

#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Socket::Unix(socket) => socket.as_fd(),
            Socket::Tcp(socket) => socket.as_fd(),
        }
    }

    /// No more comes.
    fn finish(&self) {
        // A peer that has gone needs not be told.
        let _ = match self {
            Socket::Unix(socket) => socket.shutdown(Shutdown::Write),
            Socket::Tcp(socket) => socket.shutdown(Shutdown::Write),
        };
    }

    /// Reads and forgets what the peer has said. True once it says no more.
    fn drain(&self) -> Result<bool, Errno> {
        let mut said = [0; 4096];
        loop {
            match nix::unistd::read(self.fd(), &mut said) {
                Ok(0) => return Ok(true),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Such a copy.
#[derive(Debug)]
pub(crate) struct Collector {
    address: Address,
    /// Sent first on each connection.
    greeting: Vec<u8>,
    told: Told,
}

/// What the user was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Away,
}

/// What is known of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// It may say something.
    Speaks,
    /// It says no more: it may be gone, or only have nothing to say.
    Silent,
    /// It says no more, but has taken bytes since.
    Reads,
}

/// Why a connection is no more.
enum Over {
    /// The copy has ended.
    Input,
    /// The peer has gone.
    Peer(Errno),
    /// What is left is left.
    Asked,
}

impl Collector {
    pub(crate) fn new(address: Address, greeting: Vec<u8>) -> Collector {
        Collector { address, greeting, told: Told::Nothing }
    }

    /// Connects, however often it takes. `None` if the thread is asked to leave, or nothing has come and nothing will.
    fn connect(&mut self, intake: &Intake) -> Option<Socket> {
        let mut pause = Pause::new();
        while !intake.stop.is_asked() && !intake.is_over() {
            match self.try_connect() {
                Ok(socket) => {
                    if std::mem::replace(&mut self.told, Told::Nothing) == Told::Away {
                        notice::notice(intake.verbosity, &format!("{}: connected", intake.name));
                    }
                    return Some(socket);
                }
                Err(error) => {
                    self.tell_away(&error, intake);
                    pause.wait(intake);
                }
            }
        }
        None
    }

    fn try_connect(&self) -> io::Result<Socket> {
        let socket = self.address.connect()?;
        if !self.greeting.is_empty() {
            // It fits into any socket's buffer.
            nix::unistd::write(socket.fd(), &self.greeting)?;
        }
        Ok(socket)
    }

    fn tell_away(&mut self, error: &io::Error, intake: &Intake) {
        if std::mem::replace(&mut self.told, Told::Away) == Told::Nothing {
            let why = io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO));
            let tried = Error::os(format!("connect to {}", intake.name), why);
            notice::notice(intake.verbosity, &format!("{tried}; it is tried again"));
        }
    }

    /// Sends until the copy has ended or the peer has gone.
    fn send(socket: &Socket, intake: &Intake) -> Over {
        let mut peer = Peer::Speaks;
        loop {
            if intake.stop.is_asked() {
                return Over::Asked;
            }
            if peer == Peer::Speaks {
                match socket.drain() {
                    Ok(silent) if silent => peer = Peer::Silent,
                    Ok(_) => {}
                    Err(errno) => return Over::Peer(errno),
                }
            }
            if peer == Peer::Silent && intake.has_bytes() {
                match Collector::probe(socket, intake) {
                    Ok(()) => peer = Peer::Reads,
                    Err(errno) => return Over::Peer(errno),
                }
            }
            match intake.splice(socket.fd(), TRANSFER) {
                Ok(Taken::Bytes(bytes)) => intake.beyond.wrote(bytes as u64),
                Ok(Taken::End) => return Over::Input,
                Ok(Taken::Nothing) => {
                    let mut events = PollFlags::empty();
                    let ready = intake.has_bytes();
                    events.set(PollFlags::POLLIN, peer == Peer::Speaks);
                    events.set(PollFlags::POLLOUT, ready);
                    let input = intake.input().filter(|_| !ready);
                    let [_, found] = intake.wait([input, Some((socket.fd(), events))], None);
                    if found.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL) {
                        return Over::Peer(Errno::EPIPE);
                    }
                }
                Err(errno) => return Over::Peer(errno),
            }
        }
    }

    /// Sends one byte and waits until it has arrived, or the peer has refused it. A refused one stays in the pipe.
    fn probe(socket: &Socket, intake: &Intake) -> Result<(), Errno> {
        let (scratch, filled) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        if !intake.show_first(filled)? {
            return Ok(());
        }
        let mut byte = [0];
        nix::unistd::read(&scratch, &mut byte)?;
        match nix::unistd::write(socket.fd(), &byte) {
            // No room: so there is somebody who has not read yet.
            Err(Errno::EAGAIN) => return Ok(()),
            written => written?,
        };
        let until = Instant::now() + CLOSING;
        while unsent(socket.fd().as_raw_fd()) > 0 && Instant::now() < until {
            let soon = Instant::now() + Duration::from_millis(1);
            let [found] = intake.wait([Some((socket.fd(), PollFlags::empty()))], Some(soon));
            if found.intersects(PollFlags::POLLERR) {
                return Err(Errno::EPIPE);
            }
        }
        intake.read(&mut byte)?;
        intake.beyond.wrote(1);
        Ok(())
    }

    /// Says that no more comes, and waits until all of it has arrived: closed too early, what is on its way may be lost.
    fn part(socket: &Socket, intake: &Intake) {
        socket.finish();
        while !intake.stop.is_asked() {
            let silent = socket.drain();
            let on_its_way = unsent(socket.fd().as_raw_fd());
            if !matches!(silent, Ok(false)) || on_its_way == 0 {
                break;
            }
            let soon = Instant::now() + Duration::from_millis(20);
            intake.wait([Some((socket.fd(), PollFlags::POLLIN))], Some(soon));
        }
        intake.beyond.lose(unsent(socket.fd().as_raw_fd()));
    }
}

impl Work for Collector {
    fn run(mut self: Box<Self>, intake: Intake) -> Result<(), Error> {
        while let Some(socket) = self.connect(&intake) {
            match Collector::send(&socket, &intake) {
                Over::Input => {
                    Collector::part(&socket, &intake);
                    return Ok(());
                }
                Over::Asked => {
                    intake.beyond.lose(unsent(socket.fd().as_raw_fd()));
                    return Ok(());
                }
                Over::Peer(errno) => {
                    // What its kernel has not acknowledged is lost at least.
                    intake.beyond.lose(unsent(socket.fd().as_raw_fd()));
                    self.told = Told::Away;
                    let left = Error::os(format!("write to {}", intake.name), errno);
                    notice::notice(intake.verbosity, &format!("{left}; it is tried again"));
                }
            }
        }
        Ok(())
    }
}
