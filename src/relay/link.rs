//! The two ends of a relay and its counters: what every path works on.

use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::beyond::Beyond;
use super::endpoint::{Endpoint, Kind};
use super::route::{Counters, End, Role, Stream};
use crate::error::Error;
use crate::ring::{Operation, Token};
use crate::text::newline::Newlines;

/// A busy transfer that has moved nothing for this long from an empty source is re-armed behind a
/// poll, which holds no kernel worker.
pub(super) const IDLE_AFTER: Duration = Duration::from_millis(20);

/// The most that one operation is asked to move, in bytes: what the largest unprivileged pipe holds.
pub(super) const TRANSFER: u32 = 1 << 20;

/// So often in a row both ends of a splice may have become ready just after it found one that was not.
const STUCK: u8 = 8;

/// Whether a relay may take more from its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    /// So many bytes at the most.
    UpTo(u32),
    /// Nothing now.
    Held,
    /// Nothing before what is held has gone on, so that waits for no rest of a line.
    Flush,
}

/// Whether what goes into a sink is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// It is.
    Sink,
    /// The sink takes no more, and something else gets its bytes for the sake of the copies.
    Nowhere,
}

/// What every path works on: the two ends and the books.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: u8,
    pub(super) stream: Stream,
    pub(super) role: Role,
    pub(super) source: Option<Endpoint>,
    pub(super) sink: Option<Endpoint>,
    pub(super) source_name: String,
    pub(super) sink_name: String,
    /// What the ends are, also after the end.
    pub(super) kinds: (Kind, Kind),
    /// If the source is the leader of a pty in packet mode: how the lines end that come from it.
    pub(super) packets: Option<Newlines>,
    /// What such a source has said of its pty and nobody has acted on (TIOCPKT in ioctl_tty(2)). Nothing is read before
    /// that is done.
    pub(super) status: u8,
    pub(super) counters: Counters,
    /// How often in a row a splice from a socket has said that it would have to wait, and neither end would have to.
    pub(super) stuck: u8,
    /// Whether what goes into the sink is delivered.
    pub(super) delivery: Delivery,
    /// The books of the thread behind it.
    pub(super) beyond: Option<Arc<Beyond>>,
    /// The next transfer waits a little, so that more bytes travel at once.
    pub(super) paced: bool,
}

/// What a path wants done after it has seen a completion.
#[derive(Debug)]
pub(super) enum Step {
    /// Go on.
    Continue,
    /// Splice is refused at this pair of ends, or goes no further, and nothing is held: copy instead.
    Refused,
    /// It is over.
    End(End),
}

impl Link {
    pub(super) fn token(&self, operation: Operation) -> Token {
        Token::relay(operation, self.id)
    }

    /// Whether no other relay and no thread of ours works at its ends, but for tee(2).
    pub(super) fn is_alone(&self) -> bool {
        matches!(self.role, Role::Only | Role::Copy) && self.beyond.is_none()
    }

    /// What is said of a source that cannot be read.
    pub(super) fn read_error(&self, errno: Errno) -> Error {
        Error::os(format!("read from {}", self.source_name), errno)
    }

    pub(super) fn read_failed(&self, errno: Errno) -> Step {
        Step::End(End::Failed(self.read_error(errno)))
    }

    pub(super) fn write_failed(&self, errno: Errno) -> Step {
        let tried = format!("write to {}", self.sink_name);
        Step::End(End::Failed(Error::os(tried, errno)))
    }

    /// Which end a failed splice speaks of: a pipe as source cannot fail, so the other end did, unless it is the wrong end
    /// of one.
    ///
    /// The kernel refuses an fd that is not open for writing (EBADF) before it looks at the source. If that has ended
    /// without a further byte, nothing is lost.
    pub(super) fn splice_failed(&self, errno: Errno) -> Step {
        let Some(source) = &self.source else { return self.write_failed(errno) };
        let writes = self.sink.as_ref().is_some_and(Endpoint::can_be_written);
        match (errno, source.kind()) {
            (Errno::EBADF, _) if !source.can_be_read() => self.read_failed(errno),
            (Errno::EBADF, Kind::Pipe) if source.has_ended() => Step::End(End::Delivered),
            (Errno::EBADF, _) if !writes => self.write_failed(errno),
            (_, Kind::Pipe) => self.write_failed(errno),
            _ => self.read_failed(errno),
        }
    }

    /// A poll has found a source hung up, and nothing left in it. The wrong end of a pipe says the same of its reader.
    pub(super) fn hung_up(&self) -> Step {
        match &self.source {
            Some(source) if !source.can_be_read() => self.read_failed(Errno::EBADF),
            _ => Step::End(End::Delivered),
        }
    }

    /// A connection was broken off under a splice: the source's, if that is a socket, or else the reader's.
    pub(super) fn reset(&self) -> Step {
        match self.kinds.0 {
            Kind::Socket => self.read_failed(Errno::ECONNRESET),
            _ => Step::End(End::ReaderLeft),
        }
    }

    /// A splice has found no more bytes, and everything before has been delivered. From a file that is not yet the
    /// end: where the filesystem does not know the size (FUSE with direct_io, /proc), only read(2) finds it. Nor is it from
    /// a socket: a splice stops in front of TCP's urgent byte, which read(2) steps over.
    pub(super) fn spliced_to_the_end(&self) -> Step {
        match self.kinds.0 {
            Kind::File | Kind::Socket => Step::Refused,
            _ => Step::End(End::Delivered),
        }
    }

    /// A splice would wait although its ends were polled. A socket that must not wait says so in front of an urgent byte, and
    /// would say so for ever.
    pub(super) fn would_block(&mut self) -> Step {
        self.poll_both();
        let is_ready =
            |end: &Option<Endpoint>, ready: fn(&Endpoint) -> bool| end.as_ref().is_some_and(ready);
        let stuck = self.kinds.0 == Kind::Socket
            && is_ready(&self.source, Endpoint::has_input)
            && is_ready(&self.sink, Endpoint::has_room);
        self.stuck = if stuck { self.stuck + 1 } else { 0 };
        match self.stuck < STUCK {
            true => Step::Continue,
            false => Step::Refused,
        }
    }

    /// After EAGAIN: both ends may be the one that must not wait, so both are polled from now on.
    pub(super) fn poll_both(&mut self) {
        let ends = [self.source.as_mut(), self.sink.as_mut()];
        ends.into_iter().flatten().for_each(Endpoint::turned_nonblocking);
    }

    /// Counts a transfer that went into the sink without leaving the kernel.
    pub(super) fn delivered(&mut self, moved: u32) {
        self.counters.operations += 1;
        match self.delivery {
            Delivery::Nowhere => self.counters.undelivered += u64::from(moved),
            Delivery::Sink => {
                self.counters.bytes += u64::from(moved);
                self.counters.spliced += u64::from(moved);
            }
        }
    }

    /// Counts a transfer that went into the sink from a buffer.
    pub(super) fn delivered_from_buffer(&mut self, moved: u32) {
        self.counters.operations += 1;
        match self.delivery {
            Delivery::Nowhere => self.counters.undelivered += u64::from(moved),
            Delivery::Sink => {
                self.counters.bytes += u64::from(moved);
                self.counters.copied += u64::from(moved);
            }
        }
    }
}
