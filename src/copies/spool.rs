//! A copy for a collector that goes by way of the disk, so that the collector may go away and lose nothing.
//!
//! ```text
//!   the copy's pipe ── splice ──▶ segments in a directory ── sendfile ──▶ the collector's socket
//! ```
//!
//! Every byte takes this way, whether the collector is there or not: so there is one order, what was sent is still at hand
//! when a connection is lost, and a run that is killed leaves nothing to be put together. The collector's kernel acknowledges
//! what the collector has not read, so the last bytes that were sent are kept, and sent again on the next connection. A
//! collector that closes its end after ours has read everything.

mod backlog;
mod cursor;
mod store;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::intake::Intake;
use super::pause::Pause;
use super::presence::Presence;
use super::segments::current::Step;
use super::socket::{Address, Connecting, Family, Socket};
use super::writer::Work;
use crate::error::Error;
use crate::notice;
use store::{Sent, Store};

/// The most that one transfer takes, in bytes.
const TRANSFER: u64 = 1 << 20;

/// How soon a disk without room is tried again.
const FULL: Duration = Duration::from_millis(500);

/// How soon it is asked again what the peer has taken.
const TAKING: Duration = Duration::from_millis(20);

/// How soon it is asked again whether the peer's machine answers.
const ANSWER: Duration = Duration::from_secs(1);

/// How long the rest of the copy may take to come, once the thread was asked to leave.
const LEAVING: Duration = Duration::from_secs(1);

/// Such a copy.
#[derive(Debug)]
pub(crate) struct Spool {
    address: Address,
    store: Store,
    /// The most bytes that may wait to be sent.
    max: u64,
    input: Input,
    line: Line,
    pause: Pause,
    presence: Presence,
    told_full: bool,
    /// How far things were when that was last called progress.
    progress: Progress,
}

/// The pipe's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Open,
    /// The disk has no room until then, at least.
    Held(Instant),
    Ended,
}

/// The connection.
#[derive(Debug)]
enum Line {
    /// There is none, until then.
    Down(Option<Instant>),
    Connecting(Connecting),
    Up(Peer),
    /// All is sent, and was said to be. Whether the peer reads it all is not known yet.
    Parting(Peer),
}

/// Who is at the other end.
#[derive(Debug)]
struct Peer {
    socket: Socket,
    /// It says no more.
    silent: bool,
    /// Where it began.
    began: u64,
}

/// What counts as progress: bytes that get further than any before, or further on a connection than on those before it.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    reached: u64,
    on_connection: u64,
}

/// Whether something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Moved,
    Idle,
    /// The collector has everything.
    Done,
}

impl Spool {
    /// A spool in a directory that exists, which may hold up to `max` bytes that wait to be sent.
    ///
    /// # Errors
    /// If another run uses it, or what the system says.
    pub(crate) fn open(directory: &Path, max: u64, address: Address) -> io::Result<Spool> {
        Ok(Spool {
            address,
            store: Store::open(directory)?,
            max,
            input: Input::Open,
            line: Line::Down(None),
            pause: Pause::new(),
            presence: Presence::default(),
            told_full: false,
            progress: Progress::default(),
        })
    }

    /// The file that is written now.
    pub(crate) fn file(&self) -> &std::fs::File {
        self.store.file()
    }

    /// Says what an earlier run has left.
    fn tell_of_rest(&self, intake: &Intake) {
        let rest = self.store.backlog.unsent() + self.store.backlog.unconfirmed();
        if rest > 0 {
            let text = format!("{}: {rest} bytes of an earlier run are sent first", intake.name);
            notice::notice(intake.verbosity, &text);
        }
    }

    /// Takes what has come.
    fn take(&mut self, intake: &Intake) -> Result<Turn, Error> {
        match self.input {
            Input::Ended => return Ok(Turn::Idle),
            Input::Held(until) if Instant::now() < until => return Ok(Turn::Idle),
            Input::Held(_) | Input::Open => self.input = Input::Open,
        }
        let room = self.room();
        if room == 0 {
            self.tell_full("it is full", intake);
            return Ok(Turn::Idle);
        }
        match self.store.take(intake, room)? {
            Step::Wrote(bytes) => intake.beyond.store(bytes),
            Step::Finished(..) => {}
            Step::Nothing => return Ok(Turn::Idle),
            Step::End => self.input = Input::Ended,
            Step::Full(errno) => {
                self.tell_full(errno.desc(), intake);
                self.input = Input::Held(Instant::now() + FULL);
                return Ok(Turn::Idle);
            }
        }
        Ok(Turn::Moved)
    }

    fn room(&self) -> u64 {
        self.max.saturating_sub(self.store.backlog.unsent()).min(TRANSFER)
    }

    fn tell_full(&mut self, why: &str, intake: &Intake) {
        if !std::mem::replace(&mut self.told_full, true) {
            let directory = self.store.directory().display();
            let text = format!("{}: spool {directory}: {why}", intake.name);
            notice::notice(intake.verbosity, &text);
        }
    }

    /// Does what the connection allows.
    fn turn(&mut self, intake: &Intake) -> Result<Turn, Error> {
        let all_ended =
            self.input == Input::Ended && self.store.backlog.end() == self.store.backlog.safe();
        match std::mem::replace(&mut self.line, Line::Down(None)) {
            _ if all_ended => Ok(Turn::Done),
            Line::Down(Some(until)) if Instant::now() < until => {
                self.line = Line::Down(Some(until));
                Ok(Turn::Idle)
            }
            Line::Down(_) => {
                self.line = Line::Connecting(Connecting::default());
                Ok(Turn::Moved)
            }
            Line::Connecting(connecting) => Ok(self.connect(connecting, intake)),
            Line::Up(peer) => self.send(peer, intake),
            Line::Parting(peer) => Ok(self.part(peer, intake)),
        }
    }

    fn connect(&mut self, mut connecting: Connecting, intake: &Intake) -> Turn {
        match connecting.advance(&self.address) {
            Ok(None) => {
                self.line = Line::Connecting(connecting);
                Turn::Idle
            }
            Ok(Some(socket)) => {
                self.presence.is_back(intake);
                self.store.connected(socket.widest_window());
                let began = self.store.backlog.position();
                self.line = Line::Up(Peer { socket, silent: false, began });
                Turn::Moved
            }
            Err(errno) => {
                self.presence.is_absent(errno, intake);
                self.line = Line::Down(Some(Instant::now() + self.pause.next()));
                Turn::Idle
            }
        }
    }

    fn send(&mut self, mut peer: Peer, intake: &Intake) -> Result<Turn, Error> {
        match peer.listen() {
            Ok(()) => {}
            Err(errno) => return Ok(self.lose(&peer, errno, intake)),
        }
        let turn = match self.store.send(peer.socket.fd(), TRANSFER)? {
            Sent::Bytes { all, again } => {
                intake.beyond.deliver(all - again);
                intake.beyond.resend(again);
                Turn::Moved
            }
            Sent::Missing(lost) => {
                intake.beyond.lose_stored(lost);
                let directory = self.store.directory().display();
                let text =
                    format!("spool {directory}: a segment is gone, and {lost} bytes with it");
                notice::error(&format!("{}: {text}", intake.name));
                Turn::Moved
            }
            Sent::NoRoom => Turn::Idle,
            Sent::Lost(errno) => return Ok(self.lose(&peer, errno, intake)),
            Sent::All if self.input == Input::Ended => {
                peer.socket.finish();
                self.line = Line::Parting(peer);
                return Ok(Turn::Moved);
            }
            Sent::All => Turn::Idle,
        };
        self.note_progress(&peer, intake);
        self.store.tidy()?;
        self.line = Line::Up(peer);
        Ok(turn)
    }

    /// Waits for the peer to show that it has read all: by its own end, or, where it had said before that it says no more,
    /// by its kernel's acknowledgement, because it has no other way. At a Unix socket that is its own.
    fn part(&mut self, mut peer: Peer, intake: &Intake) -> Turn {
        if let Err(errno) = peer.listen() {
            return self.lose(&peer, errno, intake);
        }
        let taken = peer.socket.unsent() == 0;
        if let Some(errno) = peer.socket.error() {
            return self.lose(&peer, errno, intake);
        }
        let read = peer.socket.family() == Family::Unix || peer.silent;
        self.note_progress(&peer, intake);
        self.line = Line::Parting(peer);
        match taken && read {
            true => Turn::Done,
            false => Turn::Idle,
        }
    }

    /// The connection is lost. If it has brought nothing, the next one waits for longer.
    fn lose(&mut self, peer: &Peer, errno: Errno, intake: &Intake) -> Turn {
        self.presence.has_gone(errno, intake);
        if self.store.backlog.position().saturating_sub(peer.socket.unsent()) > peer.began {
            self.pause = Pause::new();
        }
        self.line = Line::Down(Some(Instant::now() + self.pause.next()));
        Turn::Idle
    }

    fn note_progress(&mut self, peer: &Peer, intake: &Intake) {
        let backlog = &self.store.backlog;
        let taken = backlog.position().saturating_sub(peer.socket.unsent());
        let on_connection = taken.saturating_sub(peer.began);
        let progress = &mut self.progress;
        if backlog.reached() > progress.reached {
            *progress = Progress { reached: backlog.reached(), on_connection };
        } else if on_connection > progress.on_connection {
            progress.on_connection = on_connection;
        } else {
            return;
        }
        intake.beyond.advance();
    }

    /// Waits until there is something to do.
    fn wait(&mut self, intake: &Intake) {
        let ready = self.input == Input::Open && self.room() > 0;
        let held = match self.input {
            Input::Held(until) => Some(until),
            Input::Open | Input::Ended => None,
        };
        let more = self.store.backlog.next().is_some();
        let (socket, until) = match &self.line {
            Line::Down(until) => (None, *until),
            Line::Connecting(connecting) => match connecting.pending() {
                Some((fd, until)) => (Some((fd, PollFlags::POLLOUT)), until),
                None => (None, None),
            },
            Line::Up(peer) => {
                let awaits = peer.socket.family() == Family::Tcp && peer.socket.unsent() > 0;
                let until = awaits.then(|| Instant::now() + ANSWER);
                (Some((peer.socket.fd(), peer.events(more))), until)
            }
            // It would be ready for ever.
            Line::Parting(peer) if peer.silent => (None, Some(Instant::now() + TAKING)),
            Line::Parting(peer) => {
                let soon = Instant::now() + TAKING;
                let acked = peer.socket.family() == Family::Tcp && peer.socket.unsent() == 0;
                (Some((peer.socket.fd(), peer.events(false))), (!acked).then_some(soon))
            }
        };
        let until = until.into_iter().chain(held).min();
        let [_, found] = intake.wait([intake.input().filter(|_| ready), socket], until);
        let lost = match &self.line {
            Line::Up(peer) if peer.socket.is_gone(found) => {
                Some(peer.socket.error().unwrap_or(Errno::EPIPE))
            }
            // What was sent is still here, so a new connection costs nothing but what it sends again.
            Line::Up(peer) | Line::Parting(peer) if peer.socket.is_unanswered() => {
                Some(Errno::ETIMEDOUT)
            }
            _ => None,
        };
        if let Some(errno) = lost
            && let Line::Up(peer) | Line::Parting(peer) =
                std::mem::replace(&mut self.line, Line::Down(None))
        {
            self.lose(&peer, errno, intake);
        }
    }

    /// The rest stays for the next run.
    fn leave(&mut self, intake: &Intake) -> Result<(), Error> {
        let until = Instant::now() + LEAVING;
        while self.input != Input::Ended && Instant::now() < until {
            match self.take(intake)? {
                Turn::Moved => {}
                _ if self.input == Input::Open && self.room() > 0 => intake.wait_for_bytes(until),
                _ => break,
            }
        }
        self.store.write_down()?;
        let backlog = &self.store.backlog;
        let (unsent, unconfirmed) = (backlog.unsent(), backlog.unconfirmed());
        intake.beyond.keep(unsent);
        if unsent + unconfirmed > 0 {
            let directory = self.store.directory().display();
            let text = match unconfirmed {
                0 => format!("{unsent} bytes stay in {directory}; the next run sends them first"),
                _ => format!(
                    "{unsent} bytes stay in {directory}, and {unconfirmed} that were sent and may not have been read; the next run \
                     sends them first"
                ),
            };
            notice::notice(intake.verbosity, &format!("{}: {text}", intake.name));
        }
        Ok(())
    }
}

impl Peer {
    /// Hears what it says, which is nothing to us, or that it has gone.
    fn listen(&mut self) -> Result<(), Errno> {
        if !self.silent {
            self.silent = self.socket.drain()?;
        }
        Ok(())
    }

    fn events(&self, more: bool) -> PollFlags {
        let mut events = PollFlags::empty();
        events.set(PollFlags::POLLIN, !self.silent);
        events.set(PollFlags::POLLOUT, more);
        events
    }
}

impl Work for Spool {
    fn run(mut self: Box<Self>, intake: Intake) -> Result<(), Error> {
        self.tell_of_rest(&intake);
        loop {
            let taken = self.take(&intake)?;
            let turn = self.turn(&intake)?;
            intake.beyond.keep(self.store.backlog.unsent());
            if turn == Turn::Done {
                return self.store.clear();
            }
            if intake.stop.is_asked() {
                return self.leave(&intake);
            }
            if (taken, turn) == (Turn::Idle, Turn::Idle) {
                self.wait(&intake);
            }
        }
    }
}
