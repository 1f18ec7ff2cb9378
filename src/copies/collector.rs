//! A copy for a collector at the other end of a socket, which may go away and come back.
//!
//! What cannot be sent waits in the pipe, or is dropped before it, as the user has chosen.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::carrier::Carrier;
use super::intake::{Intake, Taken, Unread, is};
use super::pause::Pause;
use super::presence::Presence;
use super::socket::{Address, Connecting, Family, Socket};
use super::writer::Work;
use crate::error::Error;

/// How long a Unix peer that says no more may take to show whether it still reads. One that closes refuses at once what comes
/// later; one that does not read holds up nothing. TCP is waited for: its kernel acknowledges or resets, however far away.
const READING: Duration = Duration::from_millis(100);

/// The first and the longest pause between two looks whether what was sent has arrived.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Such a copy.
#[derive(Debug)]
pub(crate) struct Collector {
    address: Address,
    /// Sent first on each connection.
    greeting: Vec<u8>,
    presence: Presence,
    carrier: Carrier,
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
    Input(Peer),
    /// The peer has gone.
    Peer(Errno),
    /// The peer has gone, as one byte has shown, which stays for the next connection.
    Refused,
    /// What is left is left.
    Asked,
}

impl Collector {
    pub(crate) fn new(address: Address, greeting: Vec<u8>) -> Collector {
        Collector { address, greeting, presence: Presence::default(), carrier: Carrier::default() }
    }

    /// Connects, however often it takes. `None` if the thread is asked to leave, or nothing has come and nothing will.
    fn connect(&mut self, intake: &Intake, pause: &mut Pause) -> Option<Socket> {
        let mut connecting = Connecting::default();
        loop {
            // Before it is asked: an end that comes in between would not be seen.
            let end = intake.end();
            if intake.stop.is_asked() || self.carrier.is_over(intake) {
                return None;
            }
            match connecting.advance(&self.address) {
                Ok(None) => {
                    if let Some((fd, until)) = connecting.pending() {
                        intake.wait([Some((fd, PollFlags::POLLOUT)), end], until);
                    }
                    continue;
                }
                Ok(Some(socket)) => match self.greet(&socket) {
                    Ok(()) => {
                        self.presence.is_back(intake);
                        return Some(socket);
                    }
                    Err(errno) => self.presence.is_absent(errno, intake),
                },
                Err(errno) => self.presence.is_absent(errno, intake),
            }
            connecting = Connecting::default();
            pause.wait_unless(intake, || self.carrier.is_over(intake));
        }
    }

    fn greet(&self, socket: &Socket) -> Result<(), Errno> {
        if !self.greeting.is_empty() {
            // It fits into any socket's buffer.
            nix::unistd::write(socket.fd(), &self.greeting)?;
        }
        Ok(())
    }

    /// Sends until the copy has ended or the peer has gone.
    fn send(&mut self, socket: &Socket, intake: &Intake) -> Over {
        let carrier = &mut self.carrier;
        let (mut peer, mut unread) = (Peer::Speaks, Unread::default());
        loop {
            if intake.stop.is_asked() {
                return Over::Asked;
            }
            // In this order: what has come after the peer had closed is never sent to it.
            let taken = carrier.take(intake);
            if peer == Peer::Speaks {
                match socket.drain() {
                    Ok(silent) if silent => peer = Peer::Silent,
                    Ok(_) => {}
                    Err(errno) => return Over::Peer(errno),
                }
            }
            if peer == Peer::Silent && matches!(taken, Ok(Taken::Bytes(_))) {
                match Collector::probe(socket, carrier, intake) {
                    Ok(true) => peer = Peer::Reads,
                    Ok(false) => return Over::Refused,
                    Err(errno) => return Over::Peer(errno),
                }
            }
            let sent = match taken {
                Ok(Taken::Bytes(_)) => carrier.carry(intake, socket.fd()),
                nothing => nothing,
            };
            match sent {
                Ok(Taken::Bytes(bytes)) => intake.beyond.wrote(bytes as u64),
                Ok(Taken::End) => return Over::Input(peer),
                Ok(Taken::Nothing) => {
                    let mut events = PollFlags::empty();
                    let ready = carrier.has_bytes(intake);
                    if ready {
                        unread.note(socket.unsent(), intake);
                    }
                    let look = ready.then(|| intake.look_again());
                    events.set(PollFlags::POLLIN, peer == Peer::Speaks);
                    events.set(PollFlags::POLLOUT, ready);
                    let input = intake.input().filter(|_| !ready);
                    let [_, found] = intake.wait([input, Some((socket.fd(), events))], look);
                    if socket.is_gone(found) {
                        return Over::Peer(Errno::EPIPE);
                    }
                }
                Err(errno) => return Over::Peer(errno),
            }
        }
    }

    /// Sends one byte and waits until it has arrived, or the peer has refused it, which is false. A refused one stays in the
    /// pipe, and the rest with it: sent on a guess, they would be lost where the answer is late.
    fn probe(socket: &Socket, carrier: &mut Carrier, intake: &Intake) -> Result<bool, Errno> {
        let Some(byte) = carrier.first(intake)? else { return Ok(true) };
        match nix::unistd::write(socket.fd(), &[byte]) {
            // No room: so there is somebody who has not read yet.
            Err(Errno::EAGAIN) => return Ok(true),
            written => written?,
        };
        let until = match socket.family() {
            Family::Tcp => None,
            Family::Unix => Some(Instant::now() + READING),
        };
        let is_refused = || is(socket.fd(), PollFlags::POLLERR);
        let mut looks = Looks::default();
        while !is_refused()
            && until.is_none_or(|until| Instant::now() < until)
            && !intake.stop.is_asked()
        {
            match socket.unsent() {
                0 => break,
                left => looks.wait(left, intake),
            }
        }
        // However late this is.
        if is_refused() {
            return Ok(false);
        }
        carrier.skip_first(intake)?;
        intake.beyond.wrote(1);
        Ok(true)
    }

    /// Says that no more comes, and waits until all of it has arrived: closed too early, what is on its way may be lost.
    ///
    /// # Errors
    /// Why it has not arrived.
    fn part(socket: &Socket, intake: &Intake) -> Result<(), Errno> {
        socket.finish();
        let mut looks = Looks::default();
        loop {
            // In this order: a Unix socket has nothing unsent any more once its peer has thrown it away unread, and tells so
            // before.
            let left = socket.unanswered();
            // One that says no more, as journald does from the start, may still read.
            socket.drain()?;
            // After an end of its own, reading does not tell of it.
            if let Some(errno) = socket.error() {
                return Err(errno);
            }
            if left == 0 || intake.stop.is_asked() {
                return Ok(());
            }
            looks.wait(left, intake);
        }
    }
}

/// Looks whether a peer that says no more has taken what was sent: poll(2), which comes back at once then, is no help.
#[derive(Default)]
struct Looks {
    pause: Option<Duration>,
    unread: Unread,
}

impl Looks {
    /// So many bytes are left. Waits until it is time for the next look.
    fn wait(&mut self, left: u64, intake: &Intake) {
        self.unread.note(left, intake);
        let pause = self.pause.map_or(FIRST_PAUSE, |before| LONGEST_PAUSE.min(before * 2));
        self.pause = Some(pause);
        intake.wait::<0>([], Some(Instant::now() + pause));
    }
}

impl Work for Collector {
    fn run(mut self: Box<Self>, intake: Intake) -> Result<(), Error> {
        let (mut pause, mut reset) = (Pause::new(), false);
        while let Some(socket) = self.connect(&intake, &mut pause) {
            let before = intake.beyond.bytes();
            let over = self.send(&socket, &intake);
            // One that nothing was sent over may be reset as its collector pleases.
            let sent = intake.beyond.bytes() > before;
            match over {
                Over::Input(peer) => {
                    let parted = Collector::part(&socket, &intake);
                    intake.beyond.lose(socket.unsent());
                    if let Err(errno) = parted
                        && sent
                        && (peer == Peer::Speaks || !socket.is_only_end_refused(errno))
                    {
                        return Err(Error::os(format!("write to {}", intake.name), errno));
                    }
                    break;
                }
                Over::Asked => {
                    intake.beyond.lose(socket.unsent());
                    break;
                }
                Over::Peer(_) | Over::Refused => {
                    // Of what its kernel has not acknowledged.
                    let (errno, kept) = match over {
                        Over::Peer(errno) => (errno, 0),
                        _ => (Errno::EPIPE, 1),
                    };
                    let errno = socket.error().unwrap_or(errno);
                    // A peer that had said that it says no more resets by EPIPE, and so does one that was closed before
                    // something came: but that is not acknowledged.
                    let unread = errno == Errno::EPIPE
                        && socket.unsent() == 0
                        && socket.family() == Family::Tcp;
                    reset |= sent && (unread || errno == Errno::ECONNRESET);
                    self.presence.has_gone(errno, &intake);
                    // The rest of that is lost at least.
                    intake.beyond.lose(socket.unsent().saturating_sub(kept));
                    drop(socket);
                    // One that takes something and leaves has a short pause too, or it would be connected, and lose what it
                    // has not read, thousands of times a second.
                    if sent {
                        pause = Pause::new();
                    }
                    pause.wait_unless(&intake, || self.carrier.is_over(&intake));
                }
            }
        }
        match reset {
            false => Ok(()),
            // A socket that is closed with bytes unread resets its connection. How many they were nobody knows.
            true => {
                let why = "a connection was reset, and what its peer had not read is lost";
                Err(Error::usage(intake.name, why))
            }
        }
    }
}
