//! A relay carries the bytes of one stream from its source to its sink.
//!
//! Invariants: at most one transfer is in flight from each fd and into each fd; the next is submitted
//! only when the last has completed, so a reader that does not read stops the writer through the
//! kernel's own pipes; what is kept of a chunk is its size.
//!
//! ```text
//!            EOF and all delivered ─────────────────────┐
//!   open ──▶ sink failed, or its reader left ──────────▶ ended
//!     ▲└───▶ leaving: the read is taken back ─ silent ──▶
//!     └───────────────┘ bytes came after all
//! ```

mod beyond;
mod ending;
mod endpoint;
mod flow;
mod link;
pub mod pace;
mod path;
mod rate;
mod result;
mod route;
#[cfg(test)]
mod tests;

use std::io;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

pub use beyond::Beyond;
pub use endpoint::{Endpoint, Kind, Position};
pub use flow::{Flow, TextSwitch, Trickle};
pub use route::{Counters, End, Feed, OnFull, Role, Route, Stream, StringEnd, TextWork};

use crate::error::Error;
use crate::ring::{Completion, Op, Operation, Outcome, Ring, Token, Workers};
use crate::text::newline::Newlines;
use flow::Admission;
use link::{Delivery, Link, Reads, Step, TRANSFER};
use pace::Pace;
use path::switch::{Handover, Switch};
use path::{BUFFER, Path, Teed, copy};
use result::TransferResult;

/// Where bytes flow. See the module's picture.
#[derive(Debug)]
enum State {
    Open,
    Leaving,
    Ended(End),
}

/// One stream on its way from source to sink.
#[derive(Debug)]
pub struct Relay {
    link: Link,
    path: Path,
    state: State,
    watch: Watch,
    pace: Pace,
    /// While a wait for more bytes lasts: when it ends.
    paced_until: Option<Instant>,
    /// The most that a transfer can move, in bytes: a full source, or a buffer.
    capacity: u32,
    /// What the source pipe held at the beginning; the gate makes it smaller for a while.
    pipe: Option<u32>,
    admission: Admission,
    switch: Switch,
    /// What bytes go into once the sink takes no more.
    instead: Option<Endpoint>,
    /// How the sink came to take no more.
    sink_end: Option<End>,
}

/// The poll that tells when the sink's reader leaves while nothing moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    Due,
    Armed,
    Over,
}

impl Watch {
    fn of(from: Kind, to: Kind) -> Watch {
        match (from, to) {
            // A pipe's writer learns that its reader has left when it writes. At a pty it would have to be told, so
            // that has to wait until it does write.
            (Kind::Leader, _) => Watch::Over,
            (_, Kind::Pipe | Kind::Socket) => Watch::Due,
            _ => Watch::Over,
        }
    }
}

impl Relay {
    /// Joins two ends. `pipe_size` is what pipes are grown to, `None` to leave them as they are;
    /// `coalesce` is the longest wait for more bytes.
    ///
    /// # Errors
    /// When a broker pipe is needed and cannot be made.
    pub fn new(
        id: u8,
        route: Route,
        pipe_size: Option<u32>,
        coalesce: Duration,
        ring: &mut Ring,
    ) -> Result<Relay, Error> {
        let pipe = route.source.grow(pipe_size);
        let capacity = pipe.unwrap_or(TRANSFER);
        route.sink.grow(pipe_size);
        let (from, to) = (route.source.kind(), route.sink.kind());
        let packets = route.source.packets();
        let path = if route.text.is_some() {
            Path::buffered(route.text)
        } else if !route.copies.is_empty() {
            Path::Teed(Teed::new(route.copies, ring))
        } else {
            Path::choose(from, to, &route.sink, pipe_size, ring)?
        };
        let capacity = match &path {
            Path::Buffered(_) => capacity.min(BUFFER as u32),
            _ => capacity,
        };
        // What goes elsewhere once its reader has left goes on in any case.
        let watch = if route.instead.is_some() { Watch::Over } else { Watch::of(from, to) };
        let link = Link {
            id,
            stream: route.stream,
            role: route.role,
            source: Some(route.source),
            sink: Some(route.sink),
            source_name: route.source_name,
            sink_name: route.sink_name,
            kinds: (from, to),
            packets,
            status: 0,
            stuck: 0,
            counters: Counters::default(),
            beyond: route.beyond,
            delivery: Delivery::Sink,
            paced: false,
        };
        Ok(Relay {
            link,
            path,
            state: State::Open,
            watch,
            pace: Pace::new(coalesce),
            paced_until: None,
            capacity,
            pipe,
            admission: Admission::new(route.rate),
            switch: Switch::new(),
            instead: route.instead,
            sink_end: None,
        })
    }

    /// How many kernel workers a relay on this route can hold at the same time: both hops of a broker,
    /// or a tee into each copy. It needs none where the loop makes every splice.
    pub fn workers(route: &Route) -> Workers {
        let most = 2.max(route.copies.len() as u32);
        Workers { most, needed: !route.is_made_in_place() }
    }

    /// Submits every operation that may run now.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub fn advance(&mut self, ring: &mut Ring, now: Instant) -> io::Result<()> {
        match self.state {
            State::Open => {}
            State::Ended(_) => return copy::mark_last(self.path.copies_mut(), &self.link, ring),
            State::Leaving => return Ok(()),
        }
        if self.watch == Watch::Due
            && let Some(sink) = &self.link.sink
        {
            let token = self.link.token(Operation::SinkWatch);
            ring.submit(token, Op::poll(sink.fd(), PollFlags::empty()))?;
            self.watch = Watch::Armed;
        }
        let reads = match (
            self.switch.step(&mut self.path, &self.link, ring)?,
            self.paced_until,
            self.admission.admits(now),
        ) {
            (Handover::Draining, ..) => Reads::Flush,
            _ if self.link.status != 0 => Reads::Flush,
            (_, _, 0) => Reads::Held,
            (_, Some(until), _) if now < until => Reads::Held,
            (.., most) => Reads::UpTo(most),
        };
        match &mut self.path {
            Path::Direct(path) => path.advance(&self.link, reads, ring, now),
            Path::Teed(path) => path.advance(&self.link, reads, ring),
            Path::Shared(path) => path.advance(&self.link, reads, ring),
            Path::Brokered(path) => path.advance(&self.link, reads, ring, now),
            Path::Buffered(path) => {
                path.advance(&self.link, reads, ring)?;
                if !path.is_spent() {
                    return Ok(());
                }
                match path.end_if_drained(&self.link) {
                    Step::End(end) => self.end(end, ring),
                    Step::Continue | Step::Refused => path.advance(&self.link, reads, ring),
                }
            }
        }
    }

    /// Takes note of an operation of this relay that has ended.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub fn complete(
        &mut self,
        completion: Completion,
        ring: &mut Ring,
        now: Instant,
    ) -> io::Result<()> {
        if let State::Ended(_) = self.state {
            let Completion { token, outcome, buffer, .. } = completion;
            let copies = self.path.copies_mut();
            if let (Operation::Mark, Some(copy)) =
                (token.operation, copies.get_mut(usize::from(token.copy)))
            {
                copy::marked_last(copy, TransferResult::of(outcome), buffer);
            }
            return Ok(());
        }
        if completion.token.operation == Operation::SinkWatch {
            return self.sink_changed(completion.outcome, ring);
        }
        let token = completion.token;
        let result = TransferResult::of(completion.outcome);
        if let (
            TransferResult::Moved(moved),
            Operation::Splice | Operation::Fill | Operation::Read,
        ) = (result, token.operation)
        {
            // The byte that a pty in packet mode puts in front is none of the stream's.
            let moved = moved - u32::from(self.link.packets.is_some());
            let most = self.capacity.min(self.admission.admits(now).max(1));
            let wait = self.pace.after(moved, most, now);
            let waits = !wait.is_zero() && self.admission.may_wait();
            self.paced_until = waits.then(|| now + wait);
            self.link.paced = waits;
            self.admission.took(moved);
        }
        if token.operation == Operation::Tee {
            // The copy's relay waits for what is in its pipe now.
            ring.ask_next();
        }
        self.switch.completed();
        let step = match &mut self.path {
            Path::Direct(path) => path.complete(result, &mut self.link),
            Path::Teed(path) => path.complete(token, result, completion.buffer, &mut self.link),
            Path::Shared(path) => path.complete(token, result, completion.buffer, &mut self.link),
            Path::Brokered(path) => path.complete(token.operation, result, &mut self.link),
            Path::Buffered(path) => {
                path.complete(token.operation, result, completion.buffer, &mut self.link)
            }
        };
        match step {
            Step::Continue => self.settle_leaving(result, ring),
            Step::End(end) => self.end(end, ring),
            Step::Refused => {
                self.do_without_splice(ring);
                self.settle_leaving(result, ring)
            }
        }
    }

    fn do_without_splice(&mut self, ring: &mut Ring) {
        if !self.switch.refused(&mut self.path) {
            let refused = std::mem::replace(&mut self.path, Path::buffered(None));
            self.path = refused.without_splice(ring);
        }
        self.capacity = self.capacity.min(BUFFER as u32);
    }

    /// The next moment at which [`Relay::on_time`] has something to do.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let idle = match (&self.state, &self.path) {
            (State::Open, Path::Direct(path)) => path.deadline(),
            (State::Open, Path::Brokered(path)) => path.deadline(),
            (State::Open, Path::Buffered(path)) => path.deadline(),
            (State::Open, Path::Teed(_) | Path::Shared(_)) => None,
            _ => return None,
        };
        idle.into_iter().chain(self.paced_until).chain(self.admission.reopens(now)).min()
    }

    /// Says which process the stream comes from, before its first byte: text modes may show it.
    pub fn set_pid(&mut self, pid: u32) {
        if let Path::Buffered(path) = &mut self.path {
            path.set_pid(pid);
        }
    }

    /// Sets how much may be taken from the source. What is in flight is not called back.
    pub fn set_flow(&mut self, flow: Flow, now: Instant) {
        self.admission.set(flow, now);
    }

    /// Ends a wait for more bytes, and lets a worker go that waits for an idle source.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub fn on_time(&mut self, ring: &mut Ring, now: Instant) -> io::Result<()> {
        self.paced_until = self.paced_until.filter(|until| now < *until);
        match &mut self.path {
            Path::Direct(path) => path.on_time(&self.link, ring, now),
            Path::Brokered(path) => path.on_time(&self.link, ring, now),
            Path::Buffered(path) => path.on_time(&self.link, ring, now),
            Path::Teed(_) | Path::Shared(_) => Ok(()),
        }
    }

    /// Whether a read is armed, the source is empty and nothing is held: only the writers can change
    /// that. A reader that sleeps makes no relay silent.
    pub fn is_silent(&self) -> bool {
        let armed = match &self.path {
            Path::Direct(path) => path.is_armed(),
            Path::Teed(path) => path.is_armed(),
            Path::Shared(path) => path.is_armed(),
            Path::Brokered(path) => path.is_armed(),
            Path::Buffered(path) => path.is_armed(),
        };
        matches!(self.state, State::Open) && armed && self.is_empty()
    }

    /// Whether no byte is on its way.
    fn holds_nothing(&self) -> bool {
        let text = matches!(&self.path, Path::Buffered(path) if path.holds_text());
        !text && self.held() == 0 && !self.link.source.as_ref().is_some_and(Endpoint::has_input)
    }

    fn is_empty(&self) -> bool {
        self.held() == 0 && !self.link.source.as_ref().is_some_and(Endpoint::is_readable)
    }

    /// Bytes taken from the source and not yet in the sink.
    fn held(&self) -> u64 {
        match &self.path {
            Path::Direct(_) | Path::Teed(_) => 0,
            Path::Shared(path) => path.held(),
            Path::Brokered(path) => path.held(),
            Path::Buffered(path) => path.held(),
        }
    }

    /// Whether a relay can feed copies on its way from a pipe to `sink`. On the epoll engine a socket is
    /// written to, not spliced into, so it cannot.
    pub fn takes_copies(sink: &Endpoint) -> bool {
        matches!(sink.kind(), Kind::Pipe | Kind::Null)
    }

    /// Whether its source is the leader of a pty that tells of what becomes of it.
    pub fn is_followed(&self) -> bool {
        self.link.packets.is_some()
    }

    /// What its source has said of the pty that it leads, if that waits to be acted on (TIOCPKT in ioctl_tty(2)).
    /// Until [`Relay::resume`] nothing more is read.
    pub fn status(&self) -> Option<u8> {
        (self.link.status != 0).then_some(self.link.status)
    }

    /// Goes on reading from a pty, with lines that end like this from here on.
    pub fn resume(&mut self, newlines: Newlines) {
        self.link.status = 0;
        self.link.packets = self.link.packets.map(|_| newlines);
    }

    /// Goes on reading from a pty, with lines that end as before.
    pub fn ignore_status(&mut self) {
        self.link.status = 0;
    }

    /// Whether all that was taken from its source has been delivered, and all that waits in a pipe. What text modes hold back
    /// may be held for ever.
    pub fn has_passed_on(&self) -> bool {
        match self.link.kinds.0 {
            Kind::Leader => self.held() == 0,
            _ => !self.has_more(),
        }
    }

    /// Whether something waits to be delivered, here or in the source. What text modes hold back does not.
    pub fn has_more(&self) -> bool {
        self.held() > 0 || self.link.source.as_ref().is_some_and(Endpoint::has_input)
    }

    /// Switches text modes off or on. It takes effect where nothing is torn. A relay without text modes
    /// has nothing to switch.
    pub fn set_text(&mut self, wanted: TextSwitch) {
        self.switch.want(wanted, &mut self.path);
    }

    /// How it ended, once it has.
    pub fn ended(&self) -> Option<&End> {
        match &self.state {
            State::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// The stream that it carries.
    pub fn stream(&self) -> Stream {
        self.link.stream
    }

    /// Its place among the relays of that stream.
    pub fn role(&self) -> Role {
        self.link.role
    }

    /// How messages call its sink.
    pub fn sink_name(&self) -> &str {
        &self.link.sink_name
    }

    /// Lines that have ended under text modes, if it has any.
    pub fn lines(&self) -> Option<u64> {
        match &self.path {
            Path::Buffered(path) => path.lines(),
            _ => self.switch.lines(),
        }
    }

    /// Whether it has text modes that can be switched off, which counting lines is none of.
    pub fn has_text_modes(&self) -> bool {
        match &self.path {
            Path::Buffered(path) => path.has_text_modes(),
            _ => self.switch.lines().is_some(),
        }
    }

    /// The books of the thread that writes what this relay hands over, if there is one.
    pub fn beyond(&self) -> Option<&Beyond> {
        self.link.beyond.as_deref()
    }

    /// The copies that it feeds, and the bytes that went past each of them.
    pub fn dropped(&self) -> impl Iterator<Item = (usize, u64)> {
        let dropped = match &self.path {
            Path::Teed(path) => path.dropped(),
            Path::Shared(path) => path.dropped(),
            Path::Direct(_) | Path::Brokered(_) | Path::Buffered(_) => Vec::new(),
        };
        dropped.into_iter()
    }

    /// Whether bytes wait for one of its copies.
    pub fn awaits_copy(&self) -> bool {
        match &self.path {
            Path::Teed(path) => path.awaits_copy(),
            Path::Shared(path) => path.awaits_copy(),
            Path::Direct(_) | Path::Brokered(_) | Path::Buffered(_) => false,
        }
    }

    /// What its source is, or was.
    pub fn source_kind(&self) -> Kind {
        self.link.kinds.0
    }

    /// What its sink is, or was.
    pub fn sink_kind(&self) -> Kind {
        self.link.kinds.1
    }

    /// The size of the pipe that it reads from when the relay began, in bytes; `None` if that is no pipe.
    pub fn pipe_size(&self) -> Option<u32> {
        self.pipe
    }

    /// What its source holds when it is full, in bytes.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The fd that it writes to, until it ends.
    pub fn sink(&self) -> Option<&Endpoint> {
        self.link.sink.as_ref()
    }

    /// The fd that it reads from, until it ends.
    pub fn source(&self) -> Option<&Endpoint> {
        self.link.source.as_ref()
    }

    /// The last byte that it has delivered, if that has passed through a buffer.
    pub fn last_byte(&self) -> Option<u8> {
        match &self.path {
            Path::Buffered(path) => path.last(),
            _ => None,
        }
    }

    /// What it has moved so far.
    pub fn counters(&self) -> Counters {
        self.link.counters
    }
}
