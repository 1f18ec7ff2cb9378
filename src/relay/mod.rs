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

mod course;
mod endpoint;
mod gate;
pub mod pace;
mod splice;
mod switch;
mod tee;
mod text;
mod verdict;

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;

pub use course::{Counters, Course, End, Gate, Place, Stream, TextWork};
pub use endpoint::{Endpoint, Kind, Position};
pub use tee::{Leg, OnFull};

use crate::error::Error;
use crate::memory::policy::Flow;
use crate::ring::{Completion, Engine, Op, Operation, Outcome, Ring, Token};
use gate::Admission;
use pace::Pace;
use splice::{Brokered, Direct, Turns};
use switch::{Handover, Switch};
use tee::Teed;
use text::Buffered;
use verdict::Verdict;

/// A busy transfer that has moved nothing for this long from an empty source is re-armed behind a
/// poll, which holds no kernel worker.
const IDLE_AFTER: Duration = Duration::from_millis(20);

/// The most that one operation is asked to move, in bytes: what the largest unprivileged pipe holds.
const TRANSFER: u32 = 1 << 20;

/// Where bytes flow. See the module's picture.
#[derive(Debug)]
enum State {
    Open,
    Leaving,
    Ended(End),
}

#[derive(Debug)]
enum Path {
    /// One splice: at least one end is a pipe.
    Direct(Direct),
    /// One splice, after a tee for every leg.
    Teed(Teed),
    /// Two splices with a broker pipe between them: neither end is a pipe, or the source's must not be
    /// locked while the sink blocks.
    Brokered(Brokered),
    /// Reads and writes through fixed buffers: one of the ends cannot be spliced.
    Buffered(Box<Buffered>),
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
    admission: Admission,
    switch: Switch,
}

/// Whether a relay may take more from its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// So many bytes at the most.
    UpTo(u32),
    Held,
}

/// What every path works on: the two ends and the books.
#[derive(Debug)]
struct Link {
    id: u8,
    stream: Stream,
    place: Place,
    source: Option<Endpoint>,
    sink: Option<Endpoint>,
    source_name: String,
    sink_name: String,
    /// What the ends are, also after the end.
    kinds: (Kind, Kind),
    gate: Gate,
    counters: Counters,
}

/// The poll that tells when the sink's reader leaves while nothing moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    Due,
    Armed,
    Over,
}

/// What a path wants done after it has seen a completion.
#[derive(Debug)]
enum Step {
    /// Go on.
    Continue,
    /// Splice is refused at this pair of ends and nothing has moved: copy instead.
    Refused,
    /// It is over.
    End(End),
}

impl Path {
    fn buffered(text: Option<TextWork>) -> Path {
        Path::Buffered(Box::new(Buffered::new(text)))
    }

    /// The best way between two ends when there is nothing to do but carry.
    fn choose(
        from: Kind,
        to: Kind,
        sink: &Endpoint,
        pipe_size: Option<u32>,
        ring: &mut Ring,
    ) -> Result<Path, Error> {
        use Kind::{File, Leader, Null, Other, Pipe, Socket, Terminal};
        Ok(match (from, to) {
            (Pipe, File) if sink.position() == Position::Own => Path::Direct(Direct::new()),
            // Written with write(2): see `ring::Op::write_file`.
            (_, File) => Path::buffered(None),
            // The kernel copies at a terminal anyway, and splice would hold a worker while it waits.
            (Terminal | Leader, _) | (_, Terminal | Leader) => Path::buffered(None),
            // On 6.1 a splice into a socket blocks whatever its flags say.
            (_, Socket) if ring.engine() == Engine::Epoll => Path::buffered(None),
            // A splice into a socket that blocks keeps its pipe locked until the peer reads, and whoever
            // writes into that pipe cannot even be killed: it must be a pipe that only we write into.
            (Pipe, Socket) if !sink.is_nonblocking() => {
                Path::Brokered(Brokered::new(Turns::Alternate, pipe_size)?)
            }
            (Pipe, Pipe | Socket | Null | Other) => Path::Direct(Direct::new()),
            (File | Socket | Null | Other, Pipe) => Path::Direct(Direct::new()),
            (File | Socket | Null | Other, Socket) => {
                Path::Brokered(Brokered::new(Turns::Alternate, pipe_size)?)
            }
            (File | Socket | Null | Other, Null) => {
                Path::Brokered(Brokered::new(Turns::Overlap, pipe_size)?)
            }
            // Either may refuse, and a broker would then hold bytes that have to be read back.
            (File | Socket | Null | Other, Other) => Path::buffered(None),
        })
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
        course: Course,
        pipe_size: Option<u32>,
        coalesce: Duration,
        ring: &mut Ring,
    ) -> Result<Relay, Error> {
        let capacity = course.source.grow(pipe_size).unwrap_or(TRANSFER);
        course.sink.grow(pipe_size);
        let (from, to) = (course.source.kind(), course.sink.kind());
        let path = if course.text.is_some() {
            Path::buffered(course.text)
        } else if !course.legs.is_empty() {
            Path::Teed(Teed::new(course.legs, ring))
        } else {
            Path::choose(from, to, &course.sink, pipe_size, ring)?
        };
        // The most that one transfer can move.
        let capacity = match &path {
            Path::Buffered(_) => capacity.min(text::BUFFER as u32),
            _ => capacity,
        };
        let watch = match (from, to) {
            // A pipe's writer learns that its reader has left when it writes. At a pty it would have to be told, so
            // that has to wait until it does write.
            (Kind::Leader, _) => Watch::Over,
            (_, Kind::Pipe | Kind::Socket) => Watch::Due,
            _ => Watch::Over,
        };
        let link = Link {
            id,
            stream: course.stream,
            place: course.place,
            source: Some(course.source),
            sink: Some(course.sink),
            source_name: course.source_name,
            sink_name: course.sink_name,
            kinds: (from, to),
            gate: Gate::Open,
            counters: Counters::default(),
        };
        Ok(Relay {
            link,
            path,
            state: State::Open,
            watch,
            pace: Pace::new(coalesce),
            paced_until: None,
            capacity,
            admission: Admission::new(),
            switch: Switch::new(),
        })
    }

    /// How many kernel workers a relay on this course can hold at the same time: both hops of a broker,
    /// or a tee into each leg.
    pub fn workers(course: &Course) -> u32 {
        2.max(course.legs.len() as u32)
    }

    /// Submits every operation that may run now.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub fn advance(&mut self, ring: &mut Ring, now: Instant) -> io::Result<()> {
        if !matches!(self.state, State::Open) {
            return Ok(());
        }
        if self.watch == Watch::Due
            && let Some(sink) = &self.link.sink
        {
            let token = self.link.token(Operation::SinkWatch);
            ring.submit(token, Op::poll(sink.fd(), PollFlags::empty()))?;
            self.watch = Watch::Armed;
        }
        let reads = match (self.hand_over(ring)?, self.paced_until, self.admission.admits(now)) {
            (Handover::Draining, ..) | (_, _, 0) => Reads::Held,
            (_, Some(until), _) if now < until => Reads::Held,
            (.., most) => Reads::UpTo(most),
        };
        match &mut self.path {
            Path::Direct(path) => path.advance(&self.link, reads, ring, now),
            Path::Teed(path) => path.advance(&self.link, reads, ring),
            Path::Brokered(path) => path.advance(&self.link, reads, ring, now),
            Path::Buffered(path) => path.advance(&self.link, reads, ring),
        }
    }

    /// Takes note of an operation of this relay that has ended.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub fn complete(&mut self, completion: Completion, ring: &mut Ring) -> io::Result<()> {
        if let State::Ended(_) = self.state {
            return Ok(());
        }
        if completion.token.operation == Operation::SinkWatch {
            return self.sink_changed(completion.outcome, ring);
        }
        let token = completion.token;
        let verdict = Verdict::of(completion.outcome);
        if let (Verdict::Moved(moved), Operation::Splice | Operation::Fill | Operation::Read) =
            (verdict, token.operation)
        {
            let now = Instant::now();
            let most = self.capacity.min(self.admission.admits(now).max(1));
            let wait = self.pace.after(moved, most, now);
            let waits = !wait.is_zero() && self.admission.may_wait();
            self.paced_until = waits.then(|| now + wait);
            self.admission.took(moved);
        }
        self.switch.completed();
        let step = match &mut self.path {
            Path::Direct(path) => path.complete(verdict, &mut self.link),
            Path::Teed(path) => path.complete(token, verdict, completion.buffer, &mut self.link),
            Path::Brokered(path) => path.complete(token.operation, verdict, &mut self.link),
            Path::Buffered(path) => {
                path.complete(token.operation, verdict, completion.buffer, &mut self.link)
            }
        };
        match step {
            Step::Continue => self.settle_leaving(verdict, ring),
            Step::End(end) => self.end(end, ring),
            Step::Refused => {
                self.path = Path::buffered(None);
                Ok(())
            }
        }
    }

    fn sink_changed(&mut self, outcome: Outcome, ring: &mut Ring) -> io::Result<()> {
        self.watch = Watch::Over;
        let gone = (PollFlags::POLLERR | PollFlags::POLLHUP).bits() as u32;
        match outcome {
            Outcome::Done(events) if events & gone != 0 => self.end(End::ReaderLeft, ring),
            // A peer that only stopped sending (POLLRDHUP) can still read.
            _ => Ok(()),
        }
    }

    /// While leaving: bytes that came after all open the relay again, silence ends it.
    fn settle_leaving(&mut self, verdict: Verdict, ring: &mut Ring) -> io::Result<()> {
        if !matches!(self.state, State::Leaving) {
            return Ok(());
        }
        let silent = verdict == Verdict::Cancelled && self.is_empty();
        if silent {
            return self.end(End::Abandoned, ring);
        }
        self.state = State::Open;
        Ok(())
    }

    /// The next moment at which [`Relay::on_time`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let idle = match (&self.state, &self.path) {
            (State::Open, Path::Direct(path)) => path.deadline(),
            (State::Open, Path::Brokered(path)) => path.deadline(),
            (State::Open, Path::Teed(_) | Path::Buffered(_)) => None,
            _ => return None,
        };
        idle.into_iter().chain(self.paced_until).chain(self.admission.reopens()).min()
    }

    /// Opens or closes the gate. What is in flight is not called back.
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
            Path::Teed(_) | Path::Buffered(_) => Ok(()),
        }
    }

    /// Whether a read is armed, the source is empty and nothing is held: only the writers can change
    /// that. A reader that sleeps makes no relay silent.
    pub fn is_silent(&self) -> bool {
        let armed = match &self.path {
            Path::Direct(path) => path.is_armed(),
            Path::Teed(path) => path.is_armed(),
            Path::Brokered(path) => path.is_armed(),
            Path::Buffered(path) => path.is_armed(),
        };
        matches!(self.state, State::Open) && armed && self.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.held() == 0 && !self.link.source.as_ref().is_some_and(Endpoint::is_readable)
    }

    /// Bytes taken from the source and not yet in the sink.
    fn held(&self) -> u64 {
        match &self.path {
            Path::Direct(_) | Path::Teed(_) => 0,
            Path::Brokered(path) => path.held(),
            Path::Buffered(path) => path.held(),
        }
    }

    /// Gives up a source that stays silent; bytes that arrive in the same moment are still carried.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub fn leave(&mut self, ring: &mut Ring) -> io::Result<()> {
        if matches!(self.state, State::Open) {
            self.state = State::Leaving;
            self.cancel_reads(ring)?;
        }
        Ok(())
    }

    /// Ends the relay at once: nobody needs its bytes any more.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub fn stop(&mut self, ring: &mut Ring) -> io::Result<()> {
        match self.state {
            State::Ended(_) => Ok(()),
            _ => self.end(End::Stopped, ring),
        }
    }

    /// Closes our ends at once, and takes back what is in flight: until those operations have
    /// completed they hold the fds, so the ring has to be entered once more.
    fn end(&mut self, end: End, ring: &mut Ring) -> io::Result<()> {
        // Whatever the end is: what was taken and has not gone on goes nowhere any more.
        self.link.counters.undelivered += self.held();
        self.link.source = None;
        self.link.sink = None;
        if let Path::Teed(path) = &mut self.path {
            path.release_legs();
        }
        self.state = State::Ended(end);
        self.cancel_reads(ring)?;
        for operation in [Operation::Drain, Operation::Write, Operation::SinkWatch] {
            ring.cancel(self.link.token(operation))?;
        }
        for leg in 0..self.dropped().count() as u16 {
            for operation in [Operation::Tee, Operation::Mark] {
                ring.cancel(Token { leg, ..self.link.token(operation) })?;
            }
        }
        Ok(())
    }

    fn cancel_reads(&self, ring: &mut Ring) -> io::Result<()> {
        for operation in [Operation::Splice, Operation::Fill, Operation::Read, Operation::Input] {
            ring.cancel(self.link.token(operation))?;
        }
        Ok(())
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
    pub fn place(&self) -> Place {
        self.link.place
    }

    /// How messages call its sink.
    pub fn sink_name(&self) -> &str {
        &self.link.sink_name
    }

    /// Lines that have ended under text modes, if it has any.
    pub fn lines(&self) -> Option<u64> {
        match &self.path {
            Path::Buffered(path) => path.lines(),
            _ => None,
        }
    }

    /// Bytes that went past each of its legs.
    pub fn dropped(&self) -> impl Iterator<Item = u64> {
        let teed = match &self.path {
            Path::Teed(path) => Some(path),
            _ => None,
        };
        teed.into_iter().flat_map(Teed::dropped)
    }

    /// Whether a relay can feed legs on its way from a pipe to `sink`. On the epoll engine a socket is
    /// written to, not spliced into, so it cannot.
    pub fn takes_legs(sink: &Endpoint) -> bool {
        matches!(sink.kind(), Kind::Pipe | Kind::Null)
    }

    /// Lets it read, or not. A read in flight is taken back; what that read gets all the same is delivered.
    /// Only a relay through buffers has a gate.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub fn set_gate(&mut self, gate: Gate, ring: &mut Ring) -> io::Result<()> {
        let was = std::mem::replace(&mut self.link.gate, gate);
        match (was, gate) {
            (Gate::Open, Gate::Shut) => ring.cancel(self.link.token(Operation::Read)),
            _ => Ok(()),
        }
    }

    /// Whether a read is in flight.
    pub fn is_reading(&self) -> bool {
        matches!(&self.path, Path::Buffered(path) if path.is_armed())
            && !matches!(self.state, State::Ended(_))
    }

    /// What its source is, or was.
    pub fn source_kind(&self) -> Kind {
        self.link.kinds.0
    }

    /// What its sink is, or was.
    pub fn sink_kind(&self) -> Kind {
        self.link.kinds.1
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

    /// What it has moved so far.
    pub fn counters(&self) -> Counters {
        self.link.counters
    }
}

impl Link {
    fn token(&self, operation: Operation) -> Token {
        Token::relay(operation, self.id)
    }

    fn read_failed(&self, errno: Errno) -> Step {
        let tried = format!("read from {}", self.source_name);
        Step::End(End::Failed(Error::os(tried, errno)))
    }

    fn write_failed(&self, errno: Errno) -> Step {
        let tried = format!("write to {}", self.sink_name);
        Step::End(End::Failed(Error::os(tried, errno)))
    }

    /// Which end a failed splice speaks of: a pipe as source cannot fail, so the other end did. The
    /// kernel may complain of the sink before it looks at the source: if that has nothing to give,
    /// it ended, and nothing is lost.
    fn splice_failed(&self, errno: Errno) -> Step {
        match &self.source {
            Some(source) if source.kind() != Kind::Pipe => self.read_failed(errno),
            Some(source) if !source.has_input() => Step::End(End::Delivered),
            _ => self.write_failed(errno),
        }
    }

    /// After EAGAIN: both ends may be the one that must not wait, so both are polled from now on.
    fn poll_both(&mut self) {
        let ends = [self.source.as_mut(), self.sink.as_mut()];
        ends.into_iter().flatten().for_each(Endpoint::turned_nonblocking);
    }
}
