//! What a relay is given to do, and what is known of how it did it.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::beyond::Beyond;
use super::endpoint::{Endpoint, Kind};
use crate::error::Error;
use crate::text::Modes;
use crate::text::screen::ScreenSize;

/// Which of the child's streams a relay carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Towards the child.
    Stdin,
    /// From the child, or the one stream of a filter.
    Stdout,
    /// From the child.
    Stderr,
}

impl Stream {
    /// The name used in messages and reports.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdin => "stdin",
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// What a relay has moved so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes taken from the source.
    pub taken: u64,
    /// Bytes delivered to the sink.
    pub bytes: u64,
    /// Transfers that moved at least one byte, on either hop.
    pub operations: u64,
    /// Bytes of `bytes` that never left the kernel.
    pub spliced: u64,
    /// Bytes of `bytes` that passed through a buffer of ours.
    pub copied: u64,
    /// Bytes taken from the source that the sink did not get.
    pub undelivered: u64,
}

/// What a relay does for its stream: text work, a copy or a special sink may need several relays, one
/// behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It does everything.
    Only,
    /// It takes the bytes from where they come from.
    First,
    /// Between two others.
    Middle,
    /// It delivers the bytes where they are to go.
    Last,
    /// It carries what a copy was given.
    Copy,
    /// It carries what is held back until it is known whether it is to be seen: into a file, or out of it.
    Held,
}

impl Role {
    /// Whether it takes part in delivering the stream as it comes: what happens to it befalls the stream.
    pub fn is_of_stream(self) -> bool {
        !matches!(self, Role::Copy | Role::Held)
    }

    /// Whether its source is the stream's own.
    pub fn is_first(self) -> bool {
        matches!(self, Role::Only | Role::First)
    }

    /// Whether its sink is the stream's own.
    pub fn is_last(self) -> bool {
        matches!(self, Role::Only | Role::Last)
    }
}

/// What a relay is to do: its source, its sink, and what happens between them.
#[derive(Debug)]
pub struct Route {
    /// The stream that it belongs to.
    pub stream: Stream,
    /// Its place among the relays of that stream.
    pub role: Role,
    /// Where bytes come from.
    pub source: Endpoint,
    /// Where they go.
    pub sink: Endpoint,
    /// How messages call the source.
    pub source_name: String,
    /// How messages call the sink.
    pub sink_name: String,
    /// Text modes, if there are any.
    pub text: Option<TextWork>,
    /// The most bytes a second.
    pub rate: Option<u64>,
    /// What else gets a copy. With copies, the source is a pipe and the sink can be spliced into.
    pub copies: Vec<Feed>,
    /// The books of the thread that writes what goes into the sink, if there is one.
    pub beyond: Option<Arc<Beyond>>,
    /// What bytes go into once the sink has failed or its reader has left; `None` if the relay then ends.
    pub instead: Option<Endpoint>,
}

impl Route {
    /// Whether all that its relay does is to splice from pipe to pipe, and nobody else works at these pipes. (Into a device that
    /// is appended to, there is no splice.)
    pub(super) fn is_made_in_place(&self) -> bool {
        let plain = self.text.is_none() && self.copies.is_empty() && self.beyond.is_none();
        let pipes =
            self.source.kind() == Kind::Pipe && matches!(self.sink.kind(), Kind::Pipe | Kind::Null);
        plain
            && pipes
            && self.role == Role::Only
            && self.instead.is_none()
            && !(self.sink.kind() == Kind::Null && self.sink.appends())
    }

    /// Says for what size of a terminal the source's bytes are written.
    pub fn set_screen(&mut self, size: ScreenSize) {
        if let Some(work) = &mut self.text {
            work.modes.set_screen(size);
        }
    }
}

/// What a copy that has no room does to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// Holds it up.
    Block,
    /// Loses bytes, which are counted and marked in the copy.
    Drop,
}

/// A copy before the relay starts: the pipe to fill for it.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Which of the copies it is.
    pub copy: usize,
    /// What it is a copy of.
    pub streams: &'static [Stream],
    /// The end that the relay fills. Relays may share one: their bytes then mix as they come.
    pub pipe: Endpoint,
    /// What becomes of bytes for which it has no room.
    pub on_full: OnFull,
    /// What a gap marker begins with.
    pub string_end: StringEnd,
    /// A thread writes the copy, and may keep a pipe locked while it waits.
    pub threaded: bool,
}

/// Whether a gap marker begins with the end of a control string (ST).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringEnd {
    /// It does: escape sequences are removed behind it, and with them what looks like the rest of one.
    Written,
    /// The copy gets plain text.
    Left,
}

/// Text modes for one relay.
#[derive(Clone, Debug)]
pub struct TextWork {
    /// What is done.
    pub modes: Modes,
    /// What elapsed times count from.
    pub started: Instant,
}

impl End {
    /// The name used in events and reports.
    pub fn name(&self) -> &'static str {
        match self {
            End::Delivered => "delivered",
            End::ReaderLeft | End::Closed => "reader_left",
            End::Failed(_) => "failed",
            End::Abandoned => "abandoned",
            End::Stopped => "stopped",
        }
    }
}

/// How a relay came to its end.
#[derive(Debug)]
pub enum End {
    /// The source ended and every byte was delivered.
    Delivered,
    /// The reader of the sink went away while bytes were on their way.
    ReaderLeft,
    /// The reader of the sink went away while nothing was on its way: nothing is lost.
    Closed,
    /// One of the two ends failed.
    Failed(Error),
    /// A source held open by others was left after it had been silent.
    Abandoned,
    /// The session had no more use for it.
    Stopped,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Delivered => write!(f, "all of it was delivered"),
            End::ReaderLeft => write!(f, "its reader left while bytes were on their way"),
            End::Closed => write!(f, "its reader left; nothing was on its way"),
            End::Failed(error) => write!(f, "{error}"),
            End::Abandoned => write!(f, "left open by others, and silent"),
            End::Stopped => write!(f, "it was not needed any more"),
        }
    }
}
