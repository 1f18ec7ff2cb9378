//! The report at the end of a run, for people and for programs.
//!
//! `doc/stats.schema.json` describes the JSON form; a test holds the two together.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::node::NodeReport;
use super::stats::{Distribution, StreamStats};
use crate::memory::policy::Stage;
use crate::relay::{Counters, Stream};
use crate::units::{bytes, harmless, size, span};

/// Version of the JSON report's fields. It changes when a field changes its meaning or goes away.
const VERSION: u32 = 1;

/// One run, summed up.
#[derive(Debug, Serialize)]
pub struct Report {
    version: u32,
    /// What went into the report that can be known before the streams.
    #[serde(flatten)]
    run: Run,
    streams: Vec<StreamReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    copies: Vec<CopyReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryReport>,
}

/// What became of the child's memory.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryReport {
    /// The most that was seen in use.
    pub peak_bytes: u64,
    /// The highest stage reached.
    pub highest_stage: &'static str,
    /// How often the stage changed.
    pub stage_changes: u64,
    /// How often the gate closed.
    pub gate_closed: u64,
    /// How often the closed gate made the child grow, and was opened for that.
    pub gate_harmful: u64,
    /// How often memory fell while the gate was closed.
    pub gate_helped: u64,
    /// What it fell by then, all in all.
    pub gate_gained_bytes: u64,
    /// How long output waited for the gate.
    pub gate_held_seconds: f64,
    /// How often memory was looked at, and how long that took.
    pub samples: u64,
    /// In seconds.
    pub sampling_seconds: f64,
    /// How often the kernel slowed the child's group down at its `memory.high`.
    pub high_events: u64,
    /// How often the group was about to go beyond its `memory.max`.
    pub max_events: u64,
    /// Processes of the group that the OOM killer ended.
    pub oom_kills: u64,
    /// Its Node processes; absent without --node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeReport>,
}

/// A run as a whole.
#[derive(Debug, Serialize)]
pub struct Run {
    /// The engine that ran the operations.
    pub engine: &'static str,
    /// How much was recorded: `full`, `summary` or `off`.
    pub observe: &'static str,
    /// From the start to the end.
    pub elapsed_seconds: f64,
    /// As a shell would show it: a death by signal n is 128 + n.
    pub exit_status: u8,
    /// Calls of the kernel to move bytes and to wait.
    pub system_calls: u64,
}

/// What went to one copy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CopyReport {
    /// As given on the command line.
    pub name: String,
    /// Delivered.
    pub bytes: u64,
    /// Taken from the streams, but not delivered here.
    pub lost_bytes: u64,
    /// Sent once more after a lost connection.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resent_bytes: u64,
    /// In the spool, and not sent yet.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub spooled_bytes: u64,
}

fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

/// One stream, summed up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StreamReport {
    /// `stdin`, `stdout` or `stderr`.
    pub stream: String,
    /// Delivered.
    pub bytes: u64,
    /// Transfers that moved at least one byte.
    pub operations: u64,
    /// Bytes of `bytes` that never left the kernel.
    pub spliced_bytes: u64,
    /// Bytes of `bytes` that passed through a buffer.
    pub buffered_bytes: u64,
    /// Taken from the source, but refused by the sink.
    pub undelivered_bytes: u64,
    /// Since the start.
    pub bytes_per_second: f64,
    /// Lines that ended; absent without text modes, which alone look at the bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lines: Option<u64>,
    /// Recorded of the transfers; absent with `--observe=off`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recorded: Option<Recorded>,
}

/// What was recorded of the transfers of one stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recorded {
    /// Over the last second.
    pub recent_bytes_per_second: f64,
    /// Time during which a transfer waited for bytes to come.
    pub waited_for_writer_seconds: f64,
    /// Time during which a transfer waited for room.
    pub waited_for_reader_seconds: f64,
    /// Time during which a transfer waited for a copy.
    #[serde(default)]
    pub waited_for_copies_seconds: f64,
    /// Time during which the gate admitted a trickle only.
    #[serde(default)]
    pub gated_seconds: f64,
    /// Sizes of the transfers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub transfer_bytes: Option<Quantiles>,
    /// Times between one transfer and the next.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub interarrival_seconds: Option<Quantiles>,
}

/// A distribution, summed up. Quantiles are told to one percent, the rest is exact.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are the definitions
pub struct Quantiles {
    pub count: u64,
    pub minimum: f64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub maximum: f64,
}

impl Quantiles {
    /// The figures of a distribution, each divided by `unit`.
    fn of(distribution: &Distribution, unit: f64) -> Option<Quantiles> {
        let figures = distribution.figures()?;
        let scaled = |value: u64| value as f64 / unit;
        Some(Quantiles {
            count: figures.count,
            minimum: scaled(figures.minimum),
            mean: figures.mean / unit,
            p50: scaled(figures.p50),
            p90: scaled(figures.p90),
            p99: scaled(figures.p99),
            maximum: scaled(figures.maximum),
        })
    }
}

impl StreamReport {
    /// Sums up a stream after `elapsed`: what its last relay delivered, and what all its relays (`hops`) did
    /// for that.
    pub fn new(
        stream: Stream,
        delivered: Counters,
        hops: impl Iterator<Item = Counters>,
        elapsed: Duration,
    ) -> StreamReport {
        let bytes = delivered.bytes;
        let (mut operations, mut buffered, mut undelivered) = (0, 0, 0);
        for hop in hops {
            operations += hop.operations;
            buffered = hop.copied.max(buffered);
            undelivered += hop.undelivered;
        }
        let buffered = buffered.min(bytes);
        StreamReport {
            stream: stream.name().to_owned(),
            bytes,
            operations,
            spliced_bytes: bytes - buffered,
            buffered_bytes: buffered,
            undelivered_bytes: undelivered,
            bytes_per_second: bytes as f64 / elapsed.as_secs_f64().max(1e-9),
            lines: None,
            recorded: None,
        }
    }

    /// Adds what was recorded of its transfers.
    pub fn with(mut self, stats: &StreamStats, gated: Duration, elapsed: Duration) -> StreamReport {
        self.recorded = Some(Recorded {
            recent_bytes_per_second: stats.rate.per_second(elapsed),
            waited_for_writer_seconds: stats.waits.writer.as_secs_f64(),
            waited_for_reader_seconds: stats.waits.reader.as_secs_f64(),
            waited_for_copies_seconds: stats.waits.copies.as_secs_f64(),
            gated_seconds: gated.as_secs_f64(),
            transfer_bytes: Quantiles::of(&stats.sizes, 1.0),
            interarrival_seconds: Quantiles::of(&stats.gaps, 1e9),
        });
        self
    }
}

impl Report {
    /// The report of a run.
    pub fn new(run: Run, streams: Vec<StreamReport>, copies: Vec<CopyReport>) -> Report {
        Report { version: VERSION, run, streams, copies, memory: None }
    }

    /// Adds what became of the child's memory.
    pub fn add_memory(&mut self, memory: MemoryReport) {
        self.memory = Some(memory);
    }

    /// The report as one line of JSON.
    pub fn json(&self) -> String {
        // Numbers and strings only: there is nothing that could fail to serialize.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A shorter wait, in seconds, is nothing to a person.
const WORTH_TELLING: f64 = 0.001;

/// For people: what happened, and nothing of what did not.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Run { elapsed_seconds, engine, exit_status, .. } = &self.run;
        let elapsed = span(*elapsed_seconds);
        writeln!(f, "nproxy: exit status {exit_status} after {elapsed}, on {engine}")?;
        let moved = || self.streams.iter().filter(|stream| stream.bytes > 0);
        if moved().next().is_some() {
            writeln!(
                f,
                "{:<7}{:>18}{:>14}{:>11}{:>10}{:>10}{:>10}",
                "stream", "bytes", "rate", "transfers", "median", "largest", "in kernel"
            )?;
        }
        for stream in moved() {
            stream.write_row(f)?;
        }
        for stream in &self.streams {
            stream.write_troubles(f)?;
        }
        for copy in &self.copies {
            write!(f, "copy to {}: {} bytes", harmless(&copy.name), grouped(copy.bytes))?;
            let more = [
                (copy.resent_bytes, "sent again"),
                (copy.spooled_bytes, "in the spool"),
                (copy.lost_bytes, "lost"),
            ];
            for (bytes, what) in more.iter().filter(|(bytes, _)| *bytes > 0) {
                write!(f, ", {} {what}", grouped(*bytes))?;
            }
            writeln!(f)?;
        }
        self.memory.iter().try_for_each(|memory| memory.write(f))
    }
}

impl StreamReport {
    /// One line of the table.
    fn write_row(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = self.recorded.as_ref().and_then(|recorded| recorded.transfer_bytes);
        let figure = |pick: fn(Quantiles) -> f64| sizes.map_or("-".to_owned(), |s| size(pick(s)));
        writeln!(
            f,
            "{:<7}{:>18}{:>14}{:>11}{:>10}{:>10}{:>10}",
            self.stream,
            grouped(self.bytes),
            format!("{}/s", size(self.bytes_per_second)),
            grouped(self.operations),
            figure(|sizes| sizes.p50),
            figure(|sizes| sizes.maximum),
            format!("{} %", self.spliced_bytes * 100 / self.bytes.max(1)),
        )
    }

    /// What it waited for, and what it could not deliver.
    fn write_troubles(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(recorded) = &self.recorded {
            let waits = [
                (recorded.waited_for_writer_seconds, "its writer"),
                (recorded.waited_for_reader_seconds, "its reader"),
                (recorded.waited_for_copies_seconds, "a copy"),
            ];
            let waits = waits.iter().filter(|(seconds, _)| *seconds >= WORTH_TELLING);
            let waits: Vec<String> =
                waits.map(|(seconds, whom)| format!("{} for {whom}", span(*seconds))).collect();
            if !waits.is_empty() && self.bytes > 0 {
                writeln!(f, "{} waited {}", self.stream, waits.join(", "))?;
            }
            if recorded.gated_seconds > 0.0 {
                let held = span(recorded.gated_seconds);
                writeln!(f, "{} was slowed down for {held} to save memory", self.stream)?;
            }
        }
        match self.undelivered_bytes {
            0 => Ok(()),
            bytes => {
                writeln!(f, "{}: {} bytes could not be delivered", self.stream, grouped(bytes))
            }
        }
    }
}

impl MemoryReport {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A command that ended before there was anything to see.
        if self.peak_bytes == 0 {
            return Ok(());
        }
        write!(f, "memory: peak {}", bytes(self.peak_bytes))?;
        if self.highest_stage != Stage::Monitoring.name() {
            write!(f, ", stage {}", self.highest_stage)?;
        }
        let counts = [
            (self.gate_closed, "output slowed down", ""),
            (self.gate_closed.saturating_sub(self.gate_helped), "in vain", ""),
            (self.high_events, "slowed down by the kernel", ""),
            (self.oom_kills, "out of memory", ": processes were killed"),
        ];
        for (count, what, more) in counts.iter().filter(|(count, ..)| *count > 0) {
            match count {
                1 => write!(f, ", {what} once{more}")?,
                _ => write!(f, ", {what} {} times{more}", grouped(*count))?,
            }
        }
        writeln!(f)?;
        let node = self.node.iter().filter(|node| node.processes > 0);
        node.into_iter().try_for_each(|node| node.write(f))
    }
}

/// A count with its digits in groups of three.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(bytes: u64, counters: Counters) -> Report {
        let second = Duration::from_secs(2);
        let counters = Counters { bytes, operations: 7, ..counters };
        let mut stats = StreamStats::default();
        (0..counters.operations).for_each(|at| {
            stats.transfer(Duration::from_millis(at), bytes / counters.operations);
        });
        stats.waits.copies = Duration::from_millis(1500);
        let streams = [(Stream::Stdout, counters), (Stream::Stderr, Counters::default())];
        let streams = streams.map(|(stream, counters)| {
            let report = StreamReport::new(stream, counters, [counters].into_iter(), second);
            match stream {
                Stream::Stdout => report.with(&stats, Duration::ZERO, second),
                _ => report,
            }
        });
        let run = Run {
            engine: "uring",
            observe: "full",
            elapsed_seconds: 2.0,
            exit_status: 3,
            system_calls: 9,
        };
        Report::new(run, streams.into(), Vec::new())
    }

    const MEMORY: MemoryReport = MemoryReport {
        peak_bytes: 3 << 20,
        highest_stage: "monitoring",
        stage_changes: 0,
        gate_closed: 0,
        gate_harmful: 0,
        gate_helped: 0,
        gate_gained_bytes: 0,
        gate_held_seconds: 0.0,
        samples: 5,
        sampling_seconds: 0.0,
        high_events: 0,
        max_events: 0,
        oom_kills: 0,
        node: None,
    };

    #[test]
    fn what_did_not_happen_is_not_told() {
        let mut report = report(7 << 20, Counters::default());
        report.add_memory(MEMORY);
        let text = report.to_string();
        let expected = "\
nproxy: exit status 3 after 2.00 s, on uring
stream              bytes          rate  transfers    median   largest in kernel
stdout          7,340,032   3.5 MiB/s          7     1 MiB     1 MiB     100 %
stdout waited 1.50 s for a copy
memory: peak 3 MiB
";
        let squeezed =
            |text: &str| text.split(' ').filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed(&text), squeezed(expected));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn what_went_wrong_is_told() {
        let counters = Counters { undelivered: 12_345, ..Counters::default() };
        let mut report = report(1000, counters);
        report.copies = vec![CopyReport {
            name: "a\x1b[2J".into(),
            bytes: 400,
            lost_bytes: 600,
            resent_bytes: 50,
            spooled_bytes: 0,
        }];
        report.add_memory(MemoryReport {
            highest_stage: "critical",
            gate_closed: 2,
            gate_helped: 1,
            oom_kills: 1,
            ..MEMORY
        });
        let text = report.to_string();
        for part in [
            "stdout: 12,345 bytes could not be delivered\n",
            "copy to a\\u{1b}[2J: 400 bytes, 50 sent again, 600 lost\n",
            "stage critical, output slowed down 2 times, in vain once, out of memory once: processes were killed\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn digits_are_grouped() {
        let shown = [0, 999, 1000, 123_456, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "123,456", "1,234,567"]);
    }
}
