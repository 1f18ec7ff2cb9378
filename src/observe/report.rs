//! The report at the end of a run, for people and for programs.
//!
//! `doc/stats.schema.json` describes the JSON form; a test holds the two together.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::stats::{Distribution, StreamStats};
use crate::relay::{Counters, Stream};
use crate::units::{size, span};

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
    legs: Vec<LegReport>,
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

/// What went to one leg.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LegReport {
    /// As given on the command line.
    pub name: String,
    /// Delivered.
    pub bytes: u64,
    /// Taken from the streams, but not delivered here.
    pub lost_bytes: u64,
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
    pub copied_bytes: u64,
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
        let (mut operations, mut copied, mut undelivered) = (0, 0, 0);
        for hop in hops {
            operations += hop.operations;
            copied = hop.copied.max(copied);
            undelivered += hop.undelivered;
        }
        let copied = copied.min(bytes);
        StreamReport {
            stream: stream.name().to_owned(),
            bytes,
            operations,
            spliced_bytes: bytes - copied,
            copied_bytes: copied,
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
            gated_seconds: gated.as_secs_f64(),
            transfer_bytes: Quantiles::of(&stats.sizes, 1.0),
            interarrival_seconds: Quantiles::of(&stats.gaps, 1e9),
        });
        self
    }
}

impl Report {
    /// The report of a run.
    pub fn new(run: Run, streams: Vec<StreamReport>, legs: Vec<LegReport>) -> Report {
        Report { version: VERSION, run, streams, legs, memory: None }
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Run { elapsed_seconds, engine, exit_status, .. } = &self.run;
        writeln!(f, "nproxy: {elapsed_seconds:.3} s on {engine}, exit status {exit_status}")?;
        writeln!(
            f,
            "{:<8}{:>16}{:>12}{:>12}{:>16}{:>16}{:>13}",
            "stream", "bytes", "MiB/s", "operations", "spliced", "copied", "undelivered"
        )?;
        for stream in &self.streams {
            writeln!(
                f,
                "{:<8}{:>16}{:>12.1}{:>12}{:>16}{:>16}{:>13}",
                stream.stream,
                stream.bytes,
                stream.bytes_per_second / f64::from(1 << 20),
                stream.operations,
                stream.spliced_bytes,
                stream.copied_bytes,
                stream.undelivered_bytes
            )?;
        }
        self.write_recorded(f)?;
        if let Some(memory) = &self.memory {
            writeln!(
                f,
                "memory: peak {} MiB, {}, gate closed {} times, harmful {}, {} OOM kills",
                memory.peak_bytes >> 20,
                memory.highest_stage,
                memory.gate_closed,
                memory.gate_harmful,
                memory.oom_kills
            )?;
        }
        for leg in &self.legs {
            writeln!(
                f,
                "{:<8}{:>16} bytes to {}, {} lost",
                "leg", leg.bytes, leg.name, leg.lost_bytes
            )?;
        }
        Ok(())
    }
}

impl Report {
    fn write_recorded(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recorded = |stream: &'_ StreamReport| {
            let recorded = stream.recorded.clone()?;
            Some((recorded.transfer_bytes?, recorded))
        };
        if !self.streams.iter().any(|stream| recorded(stream).is_some()) {
            return Ok(());
        }
        writeln!(
            f,
            "{:<8}{:>11}{:>11}{:>11}{:>11}{:>10}{:>10}{:>15}{:>15}",
            "sizes",
            "smallest",
            "median",
            "99 %",
            "largest",
            "apart",
            "99 %",
            "await writer",
            "await reader",
        )?;
        for stream in &self.streams {
            let Some((sizes, recorded)) = recorded(stream) else { continue };
            let apart = |pick: fn(Quantiles) -> f64| {
                recorded.interarrival_seconds.map_or("-".to_owned(), |gaps| span(pick(gaps)))
            };
            writeln!(
                f,
                "{:<8}{:>11}{:>11}{:>11}{:>11}{:>10}{:>10}{:>15}{:>15}",
                stream.stream,
                size(sizes.minimum),
                size(sizes.p50),
                size(sizes.p99),
                size(sizes.maximum),
                apart(|gaps| gaps.p50),
                apart(|gaps| gaps.p99),
                span(recorded.waited_for_writer_seconds),
                span(recorded.waited_for_reader_seconds),
            )?;
        }
        Ok(())
    }
}
