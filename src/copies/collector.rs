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

use super::carrier::Carrier;
use super::intake::{Intake, Taken};
use super::pause::Pause;
use super::writer::Work;
use crate::error::Error;
use crate::notice;
use crate::ring::unsent;

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
    shown: Shown,
    carrier: Carrier,
}

/// What the user was shown last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
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
        Collector { address, greeting, shown: Shown::Nothing, carrier: Carrier::default() }
    }

    /// Connects, however often it takes. `None` if the thread is asked to leave, or nothing has come and nothing will.
    fn connect(&mut self, intake: &Intake) -> Option<Socket> {
        let mut pause = Pause::new();
        while !intake.stop.is_asked() && !self.carrier.is_over(intake) {
            match self.try_connect() {
                Ok(socket) => {
                    if std::mem::replace(&mut self.shown, Shown::Nothing) == Shown::Away {
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
        if std::mem::replace(&mut self.shown, Shown::Away) == Shown::Nothing {
            let why = io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO));
            let tried = Error::os(format!("connect to {}", intake.name), why);
            notice::notice(intake.verbosity, &format!("{tried}; it is tried again"));
        }
    }

    /// Sends until the copy has ended or the peer has gone.
    fn send(&mut self, socket: &Socket, intake: &Intake) -> Over {
        let carrier = &mut self.carrier;
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
            if peer == Peer::Silent && carrier.has_bytes(intake) {
                match Collector::probe(socket, carrier, intake) {
                    Ok(()) => peer = Peer::Reads,
                    Err(errno) => return Over::Peer(errno),
                }
            }
            match carrier.carry(intake, socket.fd()) {
                Ok(Taken::Bytes(bytes)) => intake.beyond.wrote(bytes as u64),
                Ok(Taken::End) => return Over::Input,
                Ok(Taken::Nothing) => {
                    let mut events = PollFlags::empty();
                    let ready = carrier.has_bytes(intake);
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
    fn probe(socket: &Socket, carrier: &mut Carrier, intake: &Intake) -> Result<(), Errno> {
        let Some(byte) = carrier.first(intake)? else { return Ok(()) };
        match nix::unistd::write(socket.fd(), &[byte]) {
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
        carrier.skip_first(intake)?;
        intake.beyond.wrote(1);
        Ok(())
    }

    /// Says that no more comes, and waits until all of it has arrived: closed too early, what is on its way may be lost.
    fn part(socket: &Socket, intake: &Intake) {
        socket.finish();
        let mut pause = Duration::from_millis(1);
        // One that says no more, as journald does from the start, may still read.
        while !intake.stop.is_asked()
            && socket.drain().is_ok()
            && unsent(socket.fd().as_raw_fd()) > 0
        {
            // Now that both sides say no more, poll(2) would come back at once.
            intake.wait::<0>([], Some(Instant::now() + pause));
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        intake.beyond.lose(unsent(socket.fd().as_raw_fd()));
    }
}

impl Work for Collector {
    fn run(mut self: Box<Self>, intake: Intake) -> Result<(), Error> {
        while let Some(socket) = self.connect(&intake) {
            match self.send(&socket, &intake) {
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
                    self.shown = Shown::Away;
                    let left = Error::os(format!("write to {}", intake.name), errno);
                    notice::notice(intake.verbosity, &format!("{left}; it is tried again"));
                }
            }
        }
        Ok(())
    }
}
