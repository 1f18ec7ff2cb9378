//! Events as lines of JSON, gathered in a buffer of fixed size until they can be written.
//!
//! Nothing waits for the writer: when the buffer is full, events are dropped and counted, and the count
//! becomes an event as soon as there is room. A line is written whole or not at all.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use super::status::Subject;

/// Version of the fields of the events.
const VERSION: u32 = 1;

/// What the buffer holds, in bytes.
pub const CAPACITY: usize = 64 << 10;

/// So much is kept free for events that are not about a single transfer.
const RESERVE: usize = 8 << 10;

/// An ordinary line is shorter, in bytes.
const LINE: usize = 256;

/// With this much, in bytes, it is worth writing.
const WORTH_WRITING: usize = 16 << 10;

/// Something that happened. The name of the variant is the value of the field `event`.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// The run began.
    Start {
        /// Version of the fields.
        version: u32,
        /// Seconds since 1970, which the other events count on from.
        unix_seconds: f64,
        /// nproxy's own process.
        pid: u32,
        /// The command's process; absent for a filter.
        #[serde(skip_serializing_if = "Option::is_none")]
        child: Option<u32>,
        /// The command and its arguments.
        command: &'a [String],
        /// What runs the operations.
        engine: &'a str,
    },
    /// Bytes moved.
    Chunk {
        /// `stdin`, `stdout` or `stderr`.
        stream: &'a str,
        /// How many.
        bytes: u32,
        /// `spliced`, `brokered` or `buffered`.
        method: &'a str,
    },
    /// A signal came for the command.
    Signal {
        /// Its number.
        signal: i32,
        /// A key sent it to the whole foreground group.
        from_terminal: bool,
    },
    /// The command was stopped.
    Stop {
        /// By this signal.
        signal: i32,
    },
    /// The command was continued.
    Continue,
    /// The command's memory reached another stage.
    Stage {
        /// Until now.
        from: &'a str,
        /// From now on.
        to: &'a str,
        /// In use.
        resident_bytes: u64,
    },
    /// The V8 heaps of Node processes reached another stage.
    Heap {
        /// The process whose heap is fullest.
        pid: u32,
        /// Until now.
        from: &'a str,
        /// From now on.
        to: &'a str,
        /// What its last full collection found alive.
        live_bytes: u64,
        /// What V8 allows.
        limit_bytes: u64,
    },
    /// The gate changed what it admits.
    Gate {
        /// `open`, `bounded`, `closed`, `draining` or `limited`.
        gate: &'a str,
        /// What a try that has just ended came to.
        #[serde(flatten)]
        tried: Option<GateTry>,
    },
    /// A copy takes no more.
    Copy {
        /// As given on the command line.
        copy: &'a str,
        /// Why.
        trouble: &'a str,
    },
    /// A stream ended.
    End {
        /// `stdin`, `stdout` or `stderr`.
        stream: &'a str,
        /// Delivered, all in all.
        bytes: u64,
        /// `delivered`, `reader_left`, `failed`, `abandoned` or `stopped`.
        how: &'a str,
    },
    /// The run is over.
    Exit {
        /// As a shell would show it.
        exit_status: u8,
        /// The signal that the command died of.
        #[serde(skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
    },
    /// Events for which there was no room.
    Dropped {
        /// How many.
        events: u64,
    },
}

/// A time in which output was held back to lower the command's memory.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct GateTry {
    /// `helped`, `no-fall`, `grew`, `idle` or `cut`.
    pub outcome: &'static str,
    /// How long output waited.
    pub held_seconds: f64,
    /// What memory fell by; negative if it grew.
    pub gained_bytes: i64,
}

impl<'a> Event<'a> {
    /// The first event of a run.
    pub fn start(unix: Duration, subject: &'a Subject, engine: &'a str) -> Event<'a> {
        Event::Start {
            version: VERSION,
            unix_seconds: unix.as_secs_f64(),
            pid: subject.pid,
            child: subject.child,
            command: &subject.command,
            engine,
        }
    }

    /// Whether it can wait for others to be written with it.
    fn is_chunk(&self) -> bool {
        matches!(self, Event::Chunk { .. })
    }
}

/// Events on their way to the writer.
#[derive(Debug)]
pub struct EventLog {
    lines: Vec<u8>,
    /// How many lines that is.
    count: u64,
    /// Something is in it that should be seen soon.
    urgent: bool,
    /// When the oldest of the lines came.
    oldest: Option<Duration>,
    /// Dropped and not told of yet.
    untold: u64,
    /// Dropped altogether.
    dropped: u64,
}

impl Default for EventLog {
    fn default() -> EventLog {
        let lines = Vec::with_capacity(CAPACITY);
        EventLog { lines, count: 0, urgent: false, oldest: None, untold: 0, dropped: 0 }
    }
}

impl EventLog {
    /// Takes an event that happened `at` after the start of the run.
    pub fn push(&mut self, at: Duration, event: &Event<'_>) {
        let reserve = if event.is_chunk() { RESERVE } else { 0 };
        if self.untold > 0 {
            let events = self.untold;
            // Only with room for what it comes before, or it would take that room itself.
            if self.append(at, &Event::Dropped { events }, reserve + LINE) {
                self.untold = 0;
            }
        }
        if self.untold == 0 && self.append(at, event, reserve) {
            self.urgent |= !event.is_chunk();
            self.oldest.get_or_insert(at);
        } else {
            self.untold += 1;
            self.dropped += 1;
        }
    }

    fn append(&mut self, at: Duration, event: &Event<'_>, reserve: usize) -> bool {
        let start = self.lines.len();
        // Serialize into memory; what came out too long is taken back.
        let written = serde_json::to_writer(&mut self.lines, event).is_ok();
        self.lines.pop();
        let _ = writeln!(self.lines, ",\"seconds\":{}.{:06}}}", at.as_secs(), at.subsec_micros());
        let fits = written && self.lines.len() + reserve <= CAPACITY;
        if !fits {
            self.lines.truncate(start);
            self.lines.shrink_to(CAPACITY);
        }
        self.count += u64::from(fits);
        fits
    }

    /// Whether there is enough to be written now, `at` after the start; chunks wait up to `patience`.
    pub fn is_due(&self, at: Duration, patience: Duration) -> bool {
        self.urgent
            || self.lines.len() >= WORTH_WRITING
            || self.oldest.is_some_and(|oldest| at >= oldest + patience)
    }

    /// When the oldest line came.
    pub fn oldest(&self) -> Option<Duration> {
        self.oldest
    }

    /// Hands the lines over: copies them to the start of `buffer`, which holds [`CAPACITY`] bytes, and
    /// returns how many bytes and lines they are.
    pub fn take(&mut self, buffer: &mut [u8]) -> (usize, u64) {
        let len = self.lines.len();
        buffer[..len].copy_from_slice(&self.lines);
        self.lines.clear();
        self.urgent = false;
        self.oldest = None;
        (len, std::mem::take(&mut self.count))
    }

    /// How many events have been dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many lines wait to be taken.
    pub fn waiting(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const CHUNK: Event<'static> =
        Event::Chunk { stream: "stdout", bytes: 65536, method: "spliced" };

    fn lines(log: &mut EventLog) -> Vec<Value> {
        let mut buffer = vec![0; CAPACITY];
        let (len, count) = log.take(&mut buffer);
        let text = std::str::from_utf8(&buffer[..len]).unwrap();
        assert_eq!(text.lines().count() as u64, count);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_says_what_and_when() {
        let mut log = EventLog::default();
        let command = vec!["printf".to_owned(), "a \"b\"\n".to_owned()];
        let subject = Subject { pid: 6, child: Some(7), command };
        log.push(Duration::ZERO, &Event::start(Duration::from_secs(5), &subject, "epoll"));
        log.push(Duration::from_micros(1_500_020), &CHUNK);
        log.push(Duration::from_secs(2), &Event::Continue);
        let lines = lines(&mut log);
        assert_eq!(lines[0]["event"], "start");
        assert_eq!((&lines[0]["pid"], &lines[0]["child"]), (&6.into(), &7.into()));
        assert_eq!(lines[0]["command"][1], "a \"b\"\n");
        assert_eq!(lines[1]["bytes"], 65536);
        assert_eq!(lines[1]["seconds"], 1.50002);
        assert_eq!(lines[2], serde_json::json!({"event": "continue", "seconds": 2.0}));
    }

    #[test]
    fn chunks_wait_for_company_and_the_rest_does_not() {
        let patience = Duration::from_millis(100);
        let mut log = EventLog::default();
        assert!(!log.is_due(Duration::from_secs(9), patience));
        log.push(Duration::from_secs(1), &CHUNK);
        assert!(!log.is_due(Duration::from_millis(1099), patience));
        assert!(log.is_due(Duration::from_millis(1100), patience));
        log.push(Duration::from_secs(1), &Event::Stop { signal: 19 });
        assert!(log.is_due(Duration::from_secs(1), patience));
        lines(&mut log);
        assert!(!log.is_due(Duration::from_secs(9), patience));
        (0..300).for_each(|_| log.push(Duration::from_secs(2), &CHUNK));
        assert!(log.is_due(Duration::from_secs(2), patience));
    }

    #[test]
    fn what_has_no_room_is_counted_and_told() {
        let mut log = EventLog::default();
        (0..2000).for_each(|_| log.push(Duration::ZERO, &CHUNK));
        // There is room left for what is rarer.
        log.push(Duration::ZERO, &Event::Exit { exit_status: 0, signal: None });
        let first = lines(&mut log);
        let chunks = first.iter().filter(|line| line["event"] == "chunk").count() as u64;
        let told: u64 = first.iter().filter_map(|line| line["events"].as_u64()).sum();
        assert_eq!(first.last().unwrap()["event"], "exit");
        assert_eq!((chunks + told, log.dropped()), (2000, told));
        assert!(told > 0);
        log.push(Duration::ZERO, &Event::Continue);
        assert_eq!(lines(&mut log).len(), 1);
    }

    #[test]
    fn a_line_that_is_too_long_is_dropped_whole() {
        let mut log = EventLog::default();
        let subject = Subject { pid: 6, child: None, command: vec!["x".repeat(CAPACITY)] };
        log.push(Duration::ZERO, &Event::start(Duration::ZERO, &subject, "uring"));
        log.push(Duration::ZERO, &Event::Continue);
        let lines = lines(&mut log);
        assert_eq!(lines[0]["events"], 1);
        assert_eq!(lines[1]["event"], "continue");
        assert!(log.lines.capacity() <= CAPACITY);
    }
}
