//! The figures of a run at one moment: the plain value that every report is made from.

use std::time::{Duration, Instant};

use super::recorder::Recorder;
use super::stages::Stages;
use crate::config::{Level, Unit};
use crate::observe::report::{CopyReport, Run, StreamReport};
use crate::observe::status::{LiveStream, MemoryStatus, SessionStatus, Subject};
use crate::process::exit::Exit;
use crate::relay::{Beyond, Counters, End, Relay, Role, Stream};

/// What can be said of a run at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// Whose streams are relayed.
    pub(crate) subject: Subject,
    /// The engine that runs the operations.
    pub(crate) engine: &'static str,
    /// Since the start.
    pub(crate) elapsed: Duration,
    /// Calls of the kernel to move bytes and to wait.
    pub(crate) system_calls: u64,
    /// Each stream.
    pub(crate) streams: Vec<LiveStream>,
    /// Each copy.
    pub(crate) copies: Vec<CopyReport>,
    /// Of the command; absent where nothing is watched, or has been yet.
    pub(crate) memory: Option<MemoryStatus>,
}

/// The most bytes of a copy's name in an answer, which has to fit into a socket: a command may be a whole script.
const LONGEST_NAME: usize = 512;

fn shortened(copy: &CopyReport) -> CopyReport {
    let mut copy = copy.clone();
    if copy.name.len() > LONGEST_NAME {
        copy.name.truncate(copy.name.floor_char_boundary(LONGEST_NAME));
        copy.name.push('…');
    }
    copy
}

impl Figures {
    /// As a session tells them of itself.
    pub(crate) fn status(&self) -> SessionStatus {
        SessionStatus {
            subject: self.subject.clone(),
            engine: self.engine.to_owned(),
            uptime_seconds: self.elapsed.as_secs_f64(),
            memory: self.memory.clone(),
            streams: self.streams.clone(),
            copies: self.copies.iter().map(shortened).collect(),
        }
    }

    /// The run as a whole, for the report at its end.
    pub(crate) fn run(&self, exit: Exit, observe: Level) -> Run {
        Run {
            engine: self.engine,
            observe: observe.name(),
            elapsed_seconds: self.elapsed.as_secs_f64(),
            exit_status: exit.code(),
            system_calls: self.system_calls,
        }
    }
}

/// What has been read of the streams from the command, or of a filter's input.
pub(crate) fn read(relays: &[Relay], unit: Unit) -> u64 {
    let outputs = relays.iter().filter(|relay| relay.stream() != Stream::Stdin);
    match unit {
        Unit::Bytes => {
            let first = outputs.filter(|relay| relay.role().is_first());
            first.map(|relay| relay.counters().taken).sum()
        }
        Unit::Lines => {
            outputs.filter(|relay| relay.role().is_last()).filter_map(Relay::lines).sum()
        }
    }
}

/// The figures of every stream at this moment, and what it waits for.
pub(crate) fn streams(
    relays: &[Relay],
    recorder: &Recorder,
    stages: &Stages,
    elapsed: Duration,
    now: Instant,
) -> Vec<LiveStream> {
    let lasts = relays.iter().filter(|relay| relay.role().is_last());
    let live = lasts.map(|last| {
        let ended = last.ended().map(|end| end.name().to_owned());
        let waits_for = match ended {
            Some(_) => None,
            None => waits_for(relays, last).map(str::to_owned),
        };
        let gated = match last.stream() {
            Stream::Stdin => Duration::ZERO,
            _ => stages.gated(now),
        };
        LiveStream { report: stream(relays, last, recorder, gated, elapsed), waits_for, ended }
    });
    live.collect()
}

fn stream(
    relays: &[Relay],
    last: &Relay,
    recorder: &Recorder,
    gated: Duration,
    elapsed: Duration,
) -> StreamReport {
    let same = |relay: &&Relay| relay.stream() == last.stream() && relay.role().is_of_stream();
    let hops = relays.iter().filter(same).map(Relay::counters);
    let mut report = StreamReport::new(last.stream(), last.counters(), hops, elapsed);
    report.lines = last.lines();
    match recorder.asked() {
        Level::Off => report,
        _ => report.with(recorder.stream(last.stream()), gated, elapsed),
    }
}

fn waits_for(relays: &[Relay], last: &Relay) -> Option<&'static str> {
    let mut same = relays.iter().filter(|relay| relay.stream() == last.stream());
    if same.clone().any(Relay::awaits_copy) {
        return Some("copy");
    }
    let first = same.find(|relay| relay.role().is_first())?;
    match (first.source(), last.sink()) {
        (_, Some(sink)) if !sink.has_room() => Some("reader"),
        (Some(source), _) if !source.has_input() => Some("writer"),
        _ => None,
    }
}

/// The figures of every copy at this moment.
pub(crate) fn copies(relays: &[Relay]) -> Vec<CopyReport> {
    let reports = copy_losses(relays).map(|(copy, lost_bytes)| CopyReport {
        name: copy.sink_name().to_owned(),
        bytes: copy.beyond().map_or(copy.counters().bytes, Beyond::bytes),
        lost_bytes,
        resent_bytes: copy.beyond().map_or(0, Beyond::resent),
        spooled_bytes: copy.beyond().map_or(0, Beyond::kept),
    });
    reports.collect()
}

/// What each copy did not get, in bytes: what went past it, and what it had got but could not deliver.
pub(crate) fn copy_losses(relays: &[Relay]) -> impl Iterator<Item = (&Relay, u64)> {
    let copies = relays.iter().filter(|relay| relay.role() == Role::Copy);
    copies.enumerate().map(move |(index, copy)| {
        let (mut offered, mut dropped) = (0, 0);
        for relay in relays {
            for (_, past) in relay.dropped().filter(|(copy, _)| *copy == index) {
                offered += relay.counters().taken;
                dropped += past;
            }
        }
        let lost = match copy.ended() {
            Some(End::Delivered) | None => {
                dropped + copy.beyond().map_or(0, |beyond| beyond.lost(copy.counters().bytes))
            }
            _ => lost_at_a_broken_end(offered, dropped, copy.counters(), copy.beyond()),
        };
        (copy, lost)
    })
}

/// What a copy did not get that has ended early: what went past it, what lies in its pipe, and what it could not deliver. A
/// marker was taken without having been offered.
fn lost_at_a_broken_end(
    offered: u64,
    dropped: u64,
    counters: Counters,
    beyond: Option<&Beyond>,
) -> u64 {
    let handed_on = beyond.map_or(0, |beyond| beyond.lost(counters.bytes));
    // The thread behind it may have more than the relay knows of: what the last transfer moved was not waited for.
    let taken = counters.taken.max(beyond.map_or(0, Beyond::taken));
    dropped.max(offered.saturating_sub(taken)) + counters.undelivered + handed_on
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_has_written_is_not_lost_though_its_relay_has_not_heard_of_it() {
        let books = Beyond::default();
        books.wrote(300);
        books.finish();
        let heard_of = |bytes| Counters { taken: bytes, bytes, ..Counters::default() };
        // Of 1000 bytes 400 went past, and 600 into its pipe.
        for bytes in [0, 200, 300, 500, 600] {
            assert_eq!(lost_at_a_broken_end(1000, 400, heard_of(bytes), Some(&books)), 700);
        }
        assert_eq!(lost_at_a_broken_end(1000, 400, heard_of(600), None), 400);
        assert_eq!(lost_at_a_broken_end(1000, 400, heard_of(500), None), 500);
    }
}
