//! What is recorded of the transfers.
//!
//! Only sizes, times and counts are ever looked at. Recording one transfer is a few additions: no
//! allocation after the first, and no system call but for a transfer that has waited, where one poll(2)
//! tells for whom.

use std::time::{Duration, Instant};

use crate::config::Level;
use crate::observe::history::{History, Method, Record};
use crate::observe::stats::StreamStats;
use crate::relay::{Counters, Kind, Relay, Stream};
use crate::ring::{Completion, Operation};

/// A transfer that took less has not waited for anybody: it moved a megabyte.
const WAITED: Duration = Duration::from_micros(100);

/// What is recorded of the transfers of a run.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// What is recorded now, and what was asked for.
    level: Level,
    asked: Level,
    started: Instant,
    history: History,
    streams: [StreamStats; 3],
    /// Until when waits for copies have been counted: a stream waits for all of its copies at once.
    copies_until: [Option<Instant>; 3],
}

/// A transfer that delivered bytes, for those who want to know of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) stream: Stream,
    /// Bytes.
    pub(crate) size: u32,
    pub(crate) method: Method,
}

/// An operation as it came back from the ring, before its relay took it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    operation: Operation,
    submitted: Instant,
    counters: Counters,
}

impl Before {
    pub(crate) fn new(completion: &Completion, relay: &Relay) -> Before {
        Before {
            operation: completion.token.operation,
            submitted: completion.submitted,
            counters: relay.counters(),
        }
    }
}

impl Recorder {
    pub(crate) fn new(level: Level, started: Instant) -> Recorder {
        Recorder {
            level,
            asked: level,
            started,
            history: History::new(level),
            streams: Default::default(),
            copies_until: [None; 3],
        }
    }

    /// What was asked to be recorded.
    pub(crate) fn asked(&self) -> Level {
        self.asked
    }

    /// What was recorded of one stream's transfers.
    pub(crate) fn stream(&self, stream: Stream) -> &StreamStats {
        &self.streams[stream as usize]
    }

    /// The last transfers, oldest first.
    pub(crate) fn history(&self) -> impl Iterator<Item = &Record> {
        self.history.iter()
    }

    /// Records no more than `allowed`, and no more than was asked for.
    pub(crate) fn limit(&mut self, allowed: Level) {
        self.level = self.asked.max(allowed);
        self.history.set_level(self.level);
    }

    /// Records what an operation did that its relay has just taken note of. Returns what it delivered, if
    /// each transfer is recorded.
    pub(crate) fn completed(
        &mut self,
        before: Before,
        relay: &Relay,
        now: Instant,
    ) -> Option<Delivery> {
        if self.asked == Level::Off || !relay.role().is_of_stream() {
            return None;
        }
        let mut delivery = None;
        let at = now.saturating_duration_since(self.started);
        let stats = &mut self.streams[relay.stream() as usize];
        let after = relay.counters();
        // The rate is asked for just when memory allows no more than that.
        if relay.role().is_last() {
            stats.rate.add(at, after.bytes - before.counters.bytes);
        }
        if self.level == Level::Off {
            return None;
        }
        if after.operations > before.counters.operations {
            let (size, method) = match before.operation {
                Operation::Fill => (after.taken - before.counters.taken, Method::Brokered),
                Operation::Write => (after.bytes - before.counters.bytes, Method::Buffered),
                _ => (after.bytes - before.counters.bytes, Method::Spliced),
            };
            // What is thrown away, because its reader has left, is no transfer.
            if size > 0 {
                stats.transfer(at, size);
                self.history.push(Record::new(at, relay.stream(), size as u32, method));
            }
            // Of the hops of a stream, one delivers: what is told of adds up to what has arrived.
            let delivers = size > 0 && relay.role().is_last() && method != Method::Brokered;
            if self.level == Level::Full && delivers {
                delivery = Some(Delivery { stream: relay.stream(), size: size as u32, method });
            }
        }
        let waited = now.saturating_duration_since(before.submitted);
        if waited >= WAITED {
            let moved = after.taken - before.counters.taken;
            match awaited(relay, before.operation, moved) {
                Some(Side::Writer) if relay.role().is_first() => stats.waits.writer += waited,
                Some(Side::Reader) if relay.role().is_last() => stats.waits.reader += waited,
                Some(Side::Copy) => {
                    let until = &mut self.copies_until[relay.stream() as usize];
                    let since = until
                        .replace(now)
                        .map_or(before.submitted, |until| until.max(before.submitted));
                    stats.waits.copies += now.saturating_duration_since(since);
                }
                _ => {}
            }
        }
        delivery
    }
}

/// Whom a relay may have to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Writer,
    Reader,
    Copy,
}

/// For whom an operation has waited that completed just now.
fn awaited(relay: &Relay, operation: Operation, moved: u64) -> Option<Side> {
    match operation {
        Operation::Read | Operation::Input => Some(Side::Writer),
        Operation::Write | Operation::Drain => Some(Side::Reader),
        // What is teed is there already.
        Operation::Tee | Operation::Mark => Some(Side::Copy),
        // Nobody waits for /dev/null.
        Operation::Splice | Operation::Fill
            if relay.sink().is_some_and(|sink| sink.kind() == Kind::Null) =>
        {
            Some(Side::Writer)
        }
        // What waited for bytes took the first that came; what waited for room found the source full.
        Operation::Splice | Operation::Fill if moved >= u64::from(relay.capacity() / 2) => {
            Some(Side::Reader)
        }
        Operation::Splice | Operation::Fill => match relay.source() {
            Some(source) if source.has_input() => Some(Side::Reader),
            _ => Some(Side::Writer),
        },
        _ => None,
    }
}
