//! What is known of a relay from outside: what it joins, what it has moved, what it waits for, and how it ended.

use super::path::Path;
use super::{Beyond, Counters, End, Endpoint, Kind, Relay, Role, State, Stream};

impl Relay {
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
            _ => None,
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
