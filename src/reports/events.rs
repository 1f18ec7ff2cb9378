//! The events file: lines go out through the ring, one write in flight, and no relay ever waits for it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::config::Destination;
use crate::error::Error;
use crate::notice;
use crate::observe::events::{CAPACITY, Event, EventLog};
use crate::process::fds;
use crate::relay::{Endpoint, Kind};
use crate::ring::{Buffer, Completion, Engine, Op, Operation, Outcome, Ring, Token};

/// How long a record of a transfer waits for others to be written with it.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long the end of a run waits for whoever reads the events.
const LAST_WRITE: Duration = Duration::from_millis(500);

/// The events of a run on their way into a file.
#[derive(Debug)]
pub(crate) struct Events {
    log: EventLog,
    name: String,
    started: Instant,
    /// `None` once it has failed.
    sink: Option<Endpoint>,
    /// Made with the first write; with the kernel while one is in flight.
    buffer: Option<Buffer>,
    /// The bytes of the buffer that have not been written yet.
    pending: Range<usize>,
    pending_lines: u64,
    in_flight: bool,
    /// The file is another's too, and only write(2) keeps to the position that they share.
    shared: bool,
}

impl Events {
    /// The file is opened to append to it, unless it is open already. A FIFO needs its reader by then; nothing here ever waits.
    ///
    /// # Errors
    /// One that names the file.
    pub(crate) fn open(place: &Destination, started: Instant) -> Result<Events, Error> {
        let name = place.name();
        let tried = |error: io::Error| Error::os(format!("--events: cannot open {name}"), error);
        let sink = match place {
            Destination::Inherited(number, _) => {
                fds::inherited(*number).and_then(|fd| Ok(Endpoint::sink(fd)?))
            }
            Destination::Path(path) => {
                let mut options = File::options();
                options.append(true).create(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
                options.open(path).and_then(|file| Ok(Endpoint::new(file.into())?))
            }
        };
        let sink = sink.map_err(tried)?;
        Ok(Events {
            log: EventLog::default(),
            name,
            started,
            sink: Some(sink),
            buffer: None,
            pending: 0..0,
            pending_lines: 0,
            in_flight: false,
            shared: matches!(place, Destination::Inherited(..)),
        })
    }

    /// Takes an event that happens now.
    pub(crate) fn push(&mut self, now: Instant, event: &Event<'_>) {
        self.log.push(now.saturating_duration_since(self.started), event);
    }

    /// Submits the next write, if it is time for one.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub(crate) fn advance(&mut self, ring: &mut Ring, now: Instant) -> io::Result<()> {
        let Some(sink) = &self.sink else { return Ok(()) };
        if self.in_flight {
            return Ok(());
        }
        if self.pending.is_empty() {
            let at = now.saturating_duration_since(self.started);
            if !self.log.is_due(at, PATIENCE) {
                return Ok(());
            }
            let buffer = self.buffer.get_or_insert_with(|| ring.buffer(CAPACITY));
            let (len, lines) = self.log.take(buffer.bytes_mut());
            (self.pending, self.pending_lines) = (0..len, lines);
        }
        let Some(buffer) = self.buffer.take() else { return Ok(()) };
        let range = self.pending.clone();
        let op = match (sink.kind(), ring.engine()) {
            // Readiness says nothing of a regular file: there only write(2) is sure to get on.
            (Kind::File, engine) if self.shared || engine == Engine::Epoll => {
                Op::write_file(sink.fd(), buffer, range)
            }
            (Kind::File, _) => Op::write(sink.fd(), buffer, range),
            _ => Op::write(sink.fd(), buffer, range).after(sink.fd(), PollFlags::POLLOUT),
        };
        ring.submit(Token::session(Operation::Event), op)?;
        self.in_flight = true;
        Ok(())
    }

    /// Takes note of a write that has ended.
    pub(crate) fn complete(&mut self, completion: Completion) {
        self.in_flight = false;
        self.buffer = completion.buffer;
        match completion.outcome {
            Outcome::Done(written) => self.pending.start += written as usize,
            Outcome::Cancelled => {}
            Outcome::Failed(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
            Outcome::Failed(errno) => {
                notice::error(&Error::os(format!("write to {}", self.name), errno));
                self.sink = None;
            }
        }
    }

    /// When a write falls due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match (&self.sink, self.in_flight) {
            (Some(_), false) => self.log.oldest().map(|oldest| self.started + oldest + PATIENCE),
            _ => None,
        }
    }

    /// Whether everything has been written that can be.
    fn is_through(&self) -> bool {
        self.sink.is_none()
            || !self.in_flight && self.pending.is_empty() && self.log.oldest().is_none()
    }

    /// How many events have not been written and, when nobody writes any more, never will be.
    fn lost(&self) -> u64 {
        // With the one that was written in part.
        let pending = match &self.buffer {
            Some(buffer) => {
                let pending = &buffer.bytes()[self.pending.clone()];
                pending.iter().filter(|byte| **byte == b'\n').count()
            }
            None => self.pending_lines as usize,
        };
        self.log.dropped() + pending as u64 + self.log.waiting()
    }

    /// Writes the last events, waiting for whoever reads them no longer than [`LAST_WRITE`]. Returns how many were
    /// lost, with the name of the file.
    pub(crate) fn finish(mut self, ring: &mut Ring) -> Option<(String, u64)> {
        let deadline = Instant::now() + LAST_WRITE;
        while !self.is_through() {
            let now = Instant::now();
            // Everything is due now, however young.
            let submitted = self.advance(ring, now + PATIENCE);
            let left = deadline.saturating_duration_since(now);
            if left.is_zero() || submitted.is_err() || ring.wait(Some(left)).is_err() {
                break;
            }
            while let Some(completion) = ring.next_completion() {
                if completion.token.operation == Operation::Event {
                    self.complete(completion);
                }
            }
        }
        let lost = self.lost();
        (lost > 0).then_some((self.name, lost))
    }
}
