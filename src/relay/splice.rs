//! The zero-copy path: pages move from pipe to pipe, or between a pipe and something else.
//!
//! An idle source is polled and the splice soft-linked behind the poll, so no kernel worker waits for
//! it; a busy one gets its splice directly, which is where the next byte finds it fastest.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::poll::PollFlags;

use super::{End, Endpoint, IDLE_AFTER, Link, Reads, Step, TRANSFER, Verdict};
use crate::error::Error;
use crate::ring::{Op, Operation, Ring};

/// One splice, again and again, between the same two ends.
#[derive(Debug)]
struct Hop {
    operation: Operation,
    arming: Arming,
    /// When the operation in flight was submitted.
    in_flight: Option<Instant>,
}

/// How the next splice waits for input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arming {
    /// Behind a poll: the source has been silent.
    Polled,
    /// In a worker: bytes keep coming.
    Direct,
}

impl Hop {
    fn new(operation: Operation) -> Hop {
        Hop { operation, arming: Arming::Polled, in_flight: None }
    }

    fn submit(
        &mut self,
        from: &Endpoint,
        to: &Endpoint,
        len: u32,
        link: &Link,
        ring: &mut Ring,
        now: Instant,
    ) -> io::Result<()> {
        let mut op = Op::splice(from.fd(), to.fd(), len);
        if self.arming == Arming::Polled || from.is_nonblocking() {
            op = op.after(from.fd(), PollFlags::POLLIN);
        }
        if to.is_nonblocking() {
            op = op.after(to.fd(), PollFlags::POLLOUT);
        }
        ring.submit(link.token(self.operation), op)?;
        self.in_flight = Some(now);
        Ok(())
    }

    fn complete(&mut self, verdict: Verdict) {
        self.in_flight = None;
        self.arming = match verdict {
            Verdict::Moved(_) => Arming::Direct,
            _ => Arming::Polled,
        };
    }

    /// When to look whether the operation in flight waits for an idle source.
    fn deadline(&self) -> Option<Instant> {
        match self.arming {
            Arming::Direct => self.in_flight.map(|since| since + IDLE_AFTER),
            Arming::Polled => None,
        }
    }

    /// Takes an operation back that holds a worker for an idle source. One that waits for its sink
    /// stays: it completes as soon as there is room.
    fn on_time(
        &mut self,
        from: &Endpoint,
        link: &Link,
        ring: &mut Ring,
        now: Instant,
    ) -> io::Result<()> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        self.arming = Arming::Polled;
        if from.has_input() {
            return Ok(());
        }
        ring.cancel(link.token(self.operation))
    }
}

/// Source and sink joined by one splice.
#[derive(Debug)]
pub(super) struct Direct {
    hop: Hop,
}

impl Direct {
    pub(super) fn new() -> Direct {
        Direct { hop: Hop::new(Operation::Splice) }
    }

    pub(super) fn advance(
        &mut self,
        link: &Link,
        reads: Reads,
        ring: &mut Ring,
        now: Instant,
    ) -> io::Result<()> {
        match (&link.source, &link.sink) {
            (Some(source), Some(sink))
                if let Reads::UpTo(most) = reads
                    && self.hop.in_flight.is_none() =>
            {
                self.hop.submit(source, sink, most, link, ring, now)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn complete(&mut self, verdict: Verdict, link: &mut Link) -> Step {
        self.hop.complete(verdict);
        match verdict {
            Verdict::Moved(moved) => {
                link.counters.taken += u64::from(moved);
                delivered(link, moved);
                Step::Continue
            }
            Verdict::EndOfFile => Step::End(End::Delivered),
            Verdict::WouldBlock => {
                link.poll_both();
                Step::Continue
            }
            Verdict::Again | Verdict::Cancelled => Step::Continue,
            Verdict::Refused if link.counters.operations == 0 => Step::Refused,
            Verdict::Refused => link.splice_failed(nix::errno::Errno::EINVAL),
            Verdict::ReaderLeft => Step::End(End::ReaderLeft),
            Verdict::Failed(errno) => link.splice_failed(errno),
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.hop.deadline()
    }

    pub(super) fn on_time(&mut self, link: &Link, ring: &mut Ring, now: Instant) -> io::Result<()> {
        match &link.source {
            Some(source) => self.hop.on_time(source, link, ring, now),
            None => Ok(()),
        }
    }

    pub(super) fn is_armed(&self) -> bool {
        self.hop.in_flight.is_some()
    }
}

/// How filling and draining a broker pipe go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turns {
    /// Both may be in flight.
    Overlap,
    /// One after the other: a drain that blocks keeps the broker locked, and a fill would wait for that
    /// lock while it holds the source's.
    Alternate,
}

/// Source and sink joined by two splices and the broker pipe between them.
#[derive(Debug)]
pub(super) struct Brokered {
    turns: Turns,
    fill: Hop,
    drain: Hop,
    broker_in: Endpoint,
    broker_out: Endpoint,
    /// Bytes in the broker.
    held: u64,
    source_ended: bool,
}

impl Brokered {
    /// # Errors
    /// When the broker pipe cannot be made.
    pub(super) fn new(turns: Turns, pipe_size: Option<u32>) -> Result<Brokered, Error> {
        let failed = |error| Error::os("make a broker pipe", error);
        let (reader, writer) = io::pipe().map_err(failed)?;
        let end = |fd: OwnedFd| Endpoint::new(fd).map_err(|errno| failed(errno.into()));
        let (broker_out, broker_in) = (end(reader.into())?, end(writer.into())?);
        broker_in.grow(pipe_size);
        Ok(Brokered {
            turns,
            fill: Hop::new(Operation::Fill),
            drain: Hop::new(Operation::Drain),
            broker_in,
            broker_out,
            held: 0,
            source_ended: false,
        })
    }

    pub(super) fn advance(
        &mut self,
        link: &Link,
        reads: Reads,
        ring: &mut Ring,
        now: Instant,
    ) -> io::Result<()> {
        if let Some(source) = &link.source
            && let Reads::UpTo(most) = reads
            && !self.source_ended
            && (self.turns == Turns::Overlap || self.held == 0)
            && self.fill.in_flight.is_none()
        {
            self.fill.submit(source, &self.broker_in, most, link, ring, now)?;
        }
        if let Some(sink) = &link.sink
            && self.held > 0
            && self.drain.in_flight.is_none()
        {
            // The broker holds these bytes already, so only the sink can make this wait.
            self.drain.arming = Arming::Direct;
            let len = self.held.min(TRANSFER.into()) as u32;
            self.drain.submit(&self.broker_out, sink, len, link, ring, now)?;
        }
        Ok(())
    }

    pub(super) fn complete(
        &mut self,
        operation: Operation,
        verdict: Verdict,
        link: &mut Link,
    ) -> Step {
        match operation {
            Operation::Fill => self.filled(verdict, link),
            _ => self.drained(verdict, link),
        }
    }

    fn filled(&mut self, verdict: Verdict, link: &mut Link) -> Step {
        self.fill.complete(verdict);
        match verdict {
            Verdict::Moved(moved) => {
                self.held += u64::from(moved);
                link.counters.taken += u64::from(moved);
                link.counters.operations += 1;
                Step::Continue
            }
            Verdict::EndOfFile => {
                self.source_ended = true;
                self.end_if_drained()
            }
            Verdict::WouldBlock => {
                link.poll_both();
                Step::Continue
            }
            Verdict::Again | Verdict::Cancelled => Step::Continue,
            Verdict::Refused if link.counters.operations == 0 => Step::Refused,
            Verdict::Refused => link.read_failed(nix::errno::Errno::EINVAL),
            Verdict::ReaderLeft => link.read_failed(nix::errno::Errno::ECONNRESET),
            Verdict::Failed(errno) => link.read_failed(errno),
        }
    }

    fn drained(&mut self, verdict: Verdict, link: &mut Link) -> Step {
        self.drain.complete(verdict);
        match verdict {
            Verdict::Moved(moved) => {
                self.held -= u64::from(moved);
                delivered(link, moved);
                self.end_if_drained()
            }
            Verdict::WouldBlock => {
                link.poll_both();
                Step::Continue
            }
            Verdict::Again | Verdict::Cancelled => Step::Continue,
            Verdict::ReaderLeft => Step::End(End::ReaderLeft),
            // The broker is held open by us, so it cannot end; a sink that refuses has failed.
            Verdict::EndOfFile | Verdict::Refused => link.write_failed(nix::errno::Errno::EINVAL),
            Verdict::Failed(errno) => link.write_failed(errno),
        }
    }

    fn end_if_drained(&self) -> Step {
        if self.source_ended && self.held == 0 { Step::End(End::Delivered) } else { Step::Continue }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.fill.deadline()
    }

    pub(super) fn on_time(&mut self, link: &Link, ring: &mut Ring, now: Instant) -> io::Result<()> {
        match &link.source {
            Some(source) => self.fill.on_time(source, link, ring, now),
            None => Ok(()),
        }
    }

    pub(super) fn is_armed(&self) -> bool {
        self.fill.in_flight.is_some()
    }

    pub(super) fn held(&self) -> u64 {
        self.held
    }
}

pub(super) fn delivered(link: &mut Link, moved: u32) {
    link.counters.operations += 1;
    link.counters.bytes += u64::from(moved);
    link.counters.spliced += u64::from(moved);
}
