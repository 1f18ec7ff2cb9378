//! The last transfers of a run: when, which stream, how large, how. Never what was in them.
//!
//! A ring of fixed size; what no longer fits pushes out the oldest. It costs the same after ten gigabytes
//! as after ten kilobytes.

use std::time::Duration;

use crate::relay::Stream;

/// One transfer, in 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    micros: u64,
    /// Bytes moved.
    pub size: u32,
    /// The stream that they belong to.
    pub stream: Stream,
    /// How they moved.
    pub method: Method,
}

/// How bytes moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Spliced: they never left the kernel.
    Spliced,
    /// Spliced into a broker pipe, on the way to the sink.
    Brokered,
    /// Through a buffer of ours.
    Buffered,
}

impl Method {
    /// The name used in reports.
    pub fn name(self) -> &'static str {
        match self {
            Method::Spliced => "spliced",
            Method::Brokered => "brokered",
            Method::Buffered => "buffered",
        }
    }
}

/// How much is recorded of each transfer, most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything but its content; 1024 transfers are remembered one by one.
    Full,
    /// What can be summed up; 128 transfers are remembered one by one.
    Summary,
    /// Totals only.
    Off,
}

impl Level {
    /// The name used on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Level::Full => "full",
            Level::Summary => "summary",
            Level::Off => "off",
        }
    }

    fn records(self) -> usize {
        match self {
            Level::Full => 1024,
            Level::Summary => 128,
            Level::Off => 0,
        }
    }
}

impl Record {
    /// A transfer that completed `at` after the start of the run.
    pub fn new(at: Duration, stream: Stream, size: u32, method: Method) -> Record {
        Record { micros: u64::try_from(at.as_micros()).unwrap_or(u64::MAX), size, stream, method }
    }

    /// When it completed, counted from the start of the run, to the microsecond.
    pub fn at(&self) -> Duration {
        Duration::from_micros(self.micros)
    }
}

/// The last transfers, oldest first.
#[derive(Debug)]
pub struct History {
    records: Vec<Record>,
    level: Level,
    /// Where the next record goes once the ring is full: the oldest one's place.
    next: usize,
}

impl History {
    /// An empty history. It takes memory with the first record.
    pub fn new(level: Level) -> History {
        History { records: Vec::new(), level, next: 0 }
    }

    /// Remembers a transfer in place of the oldest.
    pub fn push(&mut self, record: Record) {
        let depth = self.level.records();
        if depth == 0 {
            return;
        }
        if self.records.len() < depth {
            self.records.reserve_exact(depth - self.records.len());
            self.records.push(record);
        } else {
            self.records[self.next] = record;
            self.next = (self.next + 1) % depth;
        }
    }

    /// Remembers more or fewer from now on. The newest stay; what they no longer need is given back.
    pub fn set_level(&mut self, level: Level) {
        if level == self.level {
            return;
        }
        let skip = self.records.len().saturating_sub(level.records());
        let kept: Vec<Record> = self.iter().skip(skip).copied().collect();
        *self = History { records: kept, level, next: 0 };
    }

    /// What is remembered, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        let (newer, older) = self.records.split_at(self.next);
        older.iter().chain(newer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(level: Level, count: u32) -> History {
        let mut history = History::new(level);
        for size in 0..count {
            let at = Duration::from_micros(size.into());
            history.push(Record::new(at, Stream::Stdout, size, Method::Spliced));
        }
        history
    }

    fn sizes(history: &History) -> Vec<u32> {
        history.iter().map(|record| record.size).collect()
    }

    #[test]
    fn the_newest_stay_in_order() {
        assert_eq!(sizes(&filled(Level::Full, 3)), [0, 1, 2]);
        for count in [1024, 1025, 1500, 2048, 5000] {
            let expected: Vec<u32> = (count - 1024..count).collect();
            assert_eq!(sizes(&filled(Level::Full, count)), expected, "{count}");
        }
        assert!(sizes(&filled(Level::Off, 10)).is_empty());
    }

    #[test]
    fn a_smaller_ring_keeps_the_newest_and_a_larger_one_goes_on() {
        let mut history = filled(Level::Full, 1500);
        history.set_level(Level::Summary);
        assert_eq!(sizes(&history), (1372..1500).collect::<Vec<u32>>());
        history.push(Record::new(Duration::ZERO, Stream::Stderr, 7, Method::Buffered));
        assert_eq!(sizes(&history).last(), Some(&7));
        assert_eq!(sizes(&history).len(), 128);
        history.set_level(Level::Full);
        history.push(Record::new(Duration::ZERO, Stream::Stderr, 8, Method::Buffered));
        assert_eq!(sizes(&history)[..2], [1373, 1374]);
        assert_eq!(sizes(&history)[126..], [1499, 7, 8]);
        history.set_level(Level::Off);
        assert_eq!(sizes(&history).len(), 0);
    }

    #[test]
    fn a_record_is_small() {
        assert_eq!(size_of::<Record>(), 16);
    }
}
