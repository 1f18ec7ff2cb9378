//! The zero-copy path: pages move from pipe to pipe, or between a pipe and something else.
//!
//! Between two pipes, and into /dev/null, the loop makes the splice itself, on either engine: it need not wait there.
//! Elsewhere a kernel worker may have to. Then an idle source is polled and the splice soft-linked behind the poll, so
//! that no worker waits for it; a busy one gets its splice directly, which is where the next byte finds it fastest.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::poll::PollFlags;

use crate::error::Error;
use crate::relay::endpoint::{Endpoint, Kind};
use crate::relay::link::{IDLE_AFTER, Link, Reads, Step, TRANSFER};
use crate::relay::result::TransferResult;
use crate::relay::route::{End, Role};
use crate::ring::{Op, Operation, Ring};

/// One splice, again and again, between the same two ends.
#[derive(Debug)]
struct Hop {
    operation: Operation,
    arming: Arming,
    /// When the operation in flight was submitted, and who waits with it.
    in_flight: Option<(Instant, Waiter)>,
    /// The most that the last one was to move, in bytes.
    asked: u32,
}

/// Who waits while a splice has to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiter {
    /// Nobody: what it lacks is polled.
    Nobody,
    /// A kernel worker.
    Worker,
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
        Hop { operation, arming: Arming::Polled, in_flight: None, asked: 0 }
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
        if self.operation == Operation::Splice && is_made_in_place(from, to, link) {
            op = op.in_place();
        }
        let waiter = if ring.takes_worker(&op) { Waiter::Worker } else { Waiter::Nobody };
        if self.arming == Arming::Polled || from.is_nonblocking() || may_block(from) {
            op = op.after(from.fd(), PollFlags::POLLIN);
        }
        if to.is_nonblocking() {
            op = op.after(to.fd(), PollFlags::POLLOUT);
        }
        ring.submit(link.token(self.operation), op)?;
        (self.in_flight, self.asked) = (Some((now, waiter)), len);
        Ok(())
    }

    fn complete(&mut self, result: TransferResult, link: &Link) {
        let waiter = self.in_flight.take().map(|(_, waiter)| waiter);
        self.arming = match (result, waiter) {
            // It has most probably emptied the source, and a try at once would find nothing. What was teed into a
            // copy's pipe is all that is there.
            (TransferResult::Moved(moved), Some(Waiter::Nobody))
                if link.role == Role::Copy || !link.paced && moved < self.asked / 2 =>
            {
                Arming::Polled
            }
            (TransferResult::Moved(_), _) => Arming::Direct,
            _ => Arming::Polled,
        };
    }

    /// When to look whether the operation in flight waits for an idle source.
    fn deadline(&self) -> Option<Instant> {
        match (self.arming, self.in_flight) {
            (Arming::Direct, Some((since, Waiter::Worker))) => Some(since + IDLE_AFTER),
            _ => None,
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

/// Whether the loop can make the splice itself: nobody waits at either pipe while he keeps it locked, as far as that is in
/// our hands. (A splice of ours into a device, or a copy's thread that waits for a disk, does.)
fn is_made_in_place(from: &Endpoint, to: &Endpoint, link: &Link) -> bool {
    from.kind() == Kind::Pipe && matches!(to.kind(), Kind::Pipe | Kind::Null) && link.is_alone()
}

/// Whether a splice that finds nothing there would wait for this source with the pipe that it fills locked, even one that
/// must not wait: a TCP socket looks at O_NONBLOCK alone, and a device at nothing.
fn may_block(from: &Endpoint) -> bool {
    !matches!(from.kind(), Kind::Pipe | Kind::File)
}

/// Source and sink joined by one splice.
#[derive(Debug)]
pub(in crate::relay) struct Direct {
    hop: Hop,
    /// Nothing has moved yet: the kernel may refuse this kind of transfer.
    first: bool,
}

impl Direct {
    pub(in crate::relay) fn new() -> Direct {
        Direct { hop: Hop::new(Operation::Splice), first: true }
    }

    pub(in crate::relay) fn advance(
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

    pub(in crate::relay) fn complete(&mut self, result: TransferResult, link: &mut Link) -> Step {
        self.hop.complete(result, link);
        match if self.first { result.of_splice() } else { result } {
            TransferResult::Moved(moved) => {
                self.first = false;
                link.stuck = 0;
                link.counters.taken += u64::from(moved);
                link.delivered(moved);
                Step::Continue
            }
            TransferResult::EndOfFile => link.spliced_to_the_end(),
            TransferResult::WouldBlock => link.would_block(),
            TransferResult::Again | TransferResult::Cancelled => Step::Continue,
            TransferResult::Refused if self.first => Step::Refused,
            TransferResult::Refused => link.splice_failed(nix::errno::Errno::EINVAL),
            TransferResult::ReaderLeft => Step::End(End::ReaderLeft),
            TransferResult::Reset => link.reset(),
            TransferResult::Failed(errno) => link.splice_failed(errno),
        }
    }

    pub(in crate::relay) fn deadline(&self) -> Option<Instant> {
        self.hop.deadline()
    }

    pub(in crate::relay) fn on_time(
        &mut self,
        link: &Link,
        ring: &mut Ring,
        now: Instant,
    ) -> io::Result<()> {
        match &link.source {
            Some(source) => self.hop.on_time(source, link, ring, now),
            None => Ok(()),
        }
    }

    pub(in crate::relay) fn is_armed(&self) -> bool {
        self.hop.in_flight.is_some()
    }
}

/// Where splice(2) is forbidden, the first one tells.
fn forbidden_at_first(result: TransferResult, link: &Link) -> TransferResult {
    if link.counters.operations == 0 { result.of_splice() } else { result }
}

/// How filling and draining a broker pipe go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) enum Turns {
    /// Both may be in flight.
    Overlap,
    /// One after the other: a drain that blocks keeps the broker locked, and a fill would wait for that
    /// lock while it holds the source's.
    Alternate,
}

/// Source and sink joined by two splices and the broker pipe between them.
#[derive(Debug)]
pub(in crate::relay) struct Brokered {
    turns: Turns,
    fill: Hop,
    drain: Hop,
    broker_in: Endpoint,
    broker_out: Endpoint,
    /// Bytes in the broker.
    held: u64,
    source_ended: bool,
    /// No more is taken from the source.
    finishing: bool,
}

impl Brokered {
    /// # Errors
    /// When the broker pipe cannot be made.
    pub(in crate::relay) fn new(turns: Turns, pipe_size: Option<u32>) -> Result<Brokered, Error> {
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
            finishing: false,
        })
    }

    pub(in crate::relay) fn advance(
        &mut self,
        link: &Link,
        reads: Reads,
        ring: &mut Ring,
        now: Instant,
    ) -> io::Result<()> {
        if let Some(source) = &link.source
            && let Reads::UpTo(most) = reads
            && !self.source_ended
            && !self.finishing
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

    pub(in crate::relay) fn complete(
        &mut self,
        operation: Operation,
        result: TransferResult,
        link: &mut Link,
    ) -> Step {
        match operation {
            Operation::Fill => self.filled(result, link),
            _ => self.drained(result, link),
        }
    }

    fn filled(&mut self, result: TransferResult, link: &mut Link) -> Step {
        self.fill.complete(result, link);
        self.source_ended |= self.finishing;
        match forbidden_at_first(result, link) {
            TransferResult::Moved(moved) => {
                self.held += u64::from(moved);
                link.stuck = 0;
                link.counters.taken += u64::from(moved);
                link.counters.operations += 1;
                Step::Continue
            }
            TransferResult::EndOfFile => {
                self.source_ended = true;
                self.end_if_drained(link)
            }
            TransferResult::Cancelled
            | TransferResult::Again
            | TransferResult::WouldBlock
            | TransferResult::Refused
                if self.finishing =>
            {
                self.end_if_drained(link)
            }
            // Buffers take over where nothing is held.
            TransferResult::WouldBlock if self.held == 0 => link.would_block(),
            TransferResult::WouldBlock => {
                link.poll_both();
                Step::Continue
            }
            TransferResult::Again | TransferResult::Cancelled => Step::Continue,
            TransferResult::Refused if link.counters.operations == 0 => Step::Refused,
            TransferResult::Refused => link.read_failed(nix::errno::Errno::EINVAL),
            TransferResult::ReaderLeft => link.read_failed(nix::errno::Errno::EPIPE),
            TransferResult::Reset => link.read_failed(nix::errno::Errno::ECONNRESET),
            TransferResult::Failed(errno) => link.read_failed(errno),
        }
    }

    fn drained(&mut self, result: TransferResult, link: &mut Link) -> Step {
        self.drain.complete(result, link);
        match result {
            TransferResult::Moved(moved) => {
                self.held -= u64::from(moved);
                link.delivered(moved);
                self.end_if_drained(link)
            }
            TransferResult::WouldBlock => {
                link.poll_both();
                Step::Continue
            }
            TransferResult::Again | TransferResult::Cancelled => Step::Continue,
            TransferResult::ReaderLeft | TransferResult::Reset => Step::End(End::ReaderLeft),
            // The broker is held open by us, so it cannot end; a sink that refuses has failed.
            TransferResult::EndOfFile | TransferResult::Refused => {
                link.write_failed(nix::errno::Errno::EINVAL)
            }
            TransferResult::Failed(errno) => link.write_failed(errno),
        }
    }

    /// Takes no more. False if nothing was taken.
    pub(in crate::relay) fn finish(&mut self) -> bool {
        self.finishing = true;
        self.source_ended = self.fill.in_flight.is_none();
        self.held > 0 || !self.source_ended
    }

    fn end_if_drained(&self, link: &Link) -> Step {
        match self.source_ended && self.held == 0 {
            true if self.finishing => Step::End(End::Stopped),
            true => link.spliced_to_the_end(),
            false => Step::Continue,
        }
    }

    pub(in crate::relay) fn deadline(&self) -> Option<Instant> {
        self.fill.deadline()
    }

    pub(in crate::relay) fn on_time(
        &mut self,
        link: &Link,
        ring: &mut Ring,
        now: Instant,
    ) -> io::Result<()> {
        match &link.source {
            Some(source) => self.fill.on_time(source, link, ring, now),
            None => Ok(()),
        }
    }

    pub(in crate::relay) fn is_armed(&self) -> bool {
        self.fill.in_flight.is_some()
    }

    pub(in crate::relay) fn held(&self) -> u64 {
        self.held
    }
}
