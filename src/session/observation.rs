//! What the loop records of the transfers, and the figures that every report is made from.
//!
//! Only sizes, times and counts are ever looked at. Recording one transfer is a few additions: no
//! allocation after the first, and no system call but for a transfer that has waited, where one poll(2)
//! tells for whom.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{AccessFlags, access};

use super::charge::Charge;
use super::child::{Change, Exit};
use super::control::Control;
use super::events::Events;
use super::progress::Progress;
use super::stages::Stages;
use super::watch::Watch;
use super::{Session, notice};
use crate::config::{Config, Job, Level, StatsFormat, TeeFailure};
use crate::error::Error;
use crate::observe::events::Event;
use crate::observe::history::{History, Record, Way};
use crate::observe::report::{LegReport, MemoryReport, Report, Run, StreamReport};
use crate::observe::stats::StreamStats;
use crate::observe::status::LiveStream;
use crate::relay::{Counters, End, Place, Relay, Stream};
use crate::ring::{Completion, Operation};

/// A transfer that took less has not waited for anybody: it moved a megabyte.
const WAITED: Duration = Duration::from_micros(100);

/// What is recorded of a run.
#[derive(Debug)]
pub(super) struct Observation {
    /// What is recorded now, and what was asked for.
    level: Level,
    asked: Level,
    started: Instant,
    history: History,
    streams: [StreamStats; 3],
    stats_file: Option<File>,
    pub(super) events: Option<Events>,
    pub(super) control: Option<Control>,
    pub(super) progress: Option<Progress>,
    /// The command and its arguments; empty for a filter.
    pub(super) command: Vec<String>,
    /// The command's process.
    pub(super) child: Option<u32>,
    pub(super) stages: Stages,
}

/// An operation as it came back from the ring, before its relay took it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    operation: Operation,
    submitted: Instant,
    counters: Counters,
}

impl Before {
    pub(super) fn new(completion: &Completion, relay: &Relay) -> Before {
        Before {
            operation: completion.token.operation,
            submitted: completion.submitted,
            counters: relay.counters(),
        }
    }
}

impl Observation {
    /// Opens the files that will be written to.
    ///
    /// # Errors
    /// One that names the file.
    pub(super) fn open(config: &Config, started: Instant) -> Result<Observation, Error> {
        let observe = &config.observe;
        let stats_file = match observe.stats.as_ref().and_then(|stats| stats.file.as_ref()) {
            None => None,
            Some(path) => {
                // Emptied when there is something to put in its place. A FIFO needs its reader by now: the signals
                // that would end a wait for one are ours already.
                let mut options = File::options();
                options.write(true).create(true).truncate(false);
                let file = options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
                let tried = || format!("open {}", path.to_string_lossy());
                Some(file.map_err(|error| Error::os(tried(), error))?)
            }
        };
        if let Some(directory) = &observe.crash_dump {
            check_crash_directory(Path::new(directory)).map_err(|errno| {
                let tried = format!("write crash reports in {}", directory.to_string_lossy());
                Error::os(tried, errno)
            })?;
        }
        Ok(Observation {
            level: observe.level,
            asked: observe.level,
            started,
            history: History::new(observe.level.depth()),
            streams: Default::default(),
            stats_file,
            events: match &observe.events {
                Some(path) => Some(Events::open(path, started)?),
                None => None,
            },
            control: None,
            progress: None,
            command: match &config.job {
                Job::Filter => Vec::new(),
                Job::Wrap(wrap) => {
                    let words = std::iter::once(&wrap.program).chain(&wrap.arguments);
                    words.map(|word| word.to_string_lossy().into_owned()).collect()
                }
            },
            child: None,
            stages: Stages::default(),
        })
    }

    /// The last transfers, oldest first.
    pub(super) fn history(&self) -> impl Iterator<Item = &Record> {
        self.history.iter()
    }

    /// Records no more than `allowed`, and no more than was asked for.
    pub(super) fn limit(&mut self, allowed: Level) {
        self.level = self.asked.max(allowed);
        self.history.set_depth(self.level.depth());
    }

    /// Makes an event of the end of a relay, if that is the end of a stream or of a leg.
    pub(super) fn ended(&mut self, relay: &Relay, end: &End) {
        let Some(events) = &mut self.events else { return };
        let trouble = match end {
            End::Failed(error) => error.to_string(),
            _ => end.name().to_owned(),
        };
        let (stream, bytes) = (relay.stream().name(), relay.counters().bytes);
        match (relay.place(), end) {
            (Place::Leg, End::Delivered) => {}
            (Place::Leg, _) => {
                let event = Event::Leg { leg: relay.sink_name(), trouble: &trouble };
                events.push(Instant::now(), &event);
            }
            (place, _) if place.is_last() => {
                events.push(Instant::now(), &Event::End { stream, bytes, how: end.name() });
            }
            _ => {}
        }
    }

    /// When something here has to be done though nothing completes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let events = self.events.as_ref().and_then(Events::deadline);
        let control = self.control.as_ref().and_then(Control::deadline);
        let progress = self.progress.as_ref().map(Progress::deadline);
        events.into_iter().chain(control).chain(progress).min()
    }

    /// Records what an operation did that its relay has just taken note of.
    pub(super) fn completed(&mut self, before: Before, relay: &Relay, now: Instant) {
        if self.level == Level::Off || relay.place() == Place::Leg {
            return;
        }
        let at = now.saturating_duration_since(self.started);
        let stats = &mut self.streams[relay.stream() as usize];
        let after = relay.counters();
        if after.operations > before.counters.operations {
            let (size, way) = match before.operation {
                Operation::Fill => (after.taken - before.counters.taken, Way::Brokered),
                Operation::Write => (after.bytes - before.counters.bytes, Way::Copied),
                _ => (after.bytes - before.counters.bytes, Way::Spliced),
            };
            stats.transfer(at, size);
            self.history.push(Record::new(at, relay.stream(), size as u32, way));
            // Of the hops of a stream, one delivers: what is told of adds up to what has arrived.
            let delivers = relay.place().is_last() && way != Way::Brokered;
            if let (Level::Full, Some(events), true) = (self.level, &mut self.events, delivers) {
                let stream = relay.stream().name();
                events.push(now, &Event::Chunk { stream, bytes: size as u32, way: way.name() });
            }
        }
        if relay.place().is_last() {
            stats.rate.add(at, after.bytes - before.counters.bytes);
        }
        let waited = now.saturating_duration_since(before.submitted);
        if waited >= WAITED {
            let moved = after.taken - before.counters.taken;
            match awaited(relay, before.operation, moved) {
                Some(Side::Writer) if relay.place().is_first() => stats.waits.writer += waited,
                Some(Side::Reader) if relay.place().is_last() => stats.waits.reader += waited,
                _ => {}
            }
        }
    }
}

/// Whether reports can be written there, as far as that can be known before there is one: the directory itself is made
/// with the first.
fn check_crash_directory(directory: &Path) -> Result<(), Errno> {
    let existing = match (stat(directory), directory.parent()) {
        (Err(Errno::ENOENT), Some(parent)) if parent == Path::new("") => Path::new("."),
        (Err(Errno::ENOENT), Some(parent)) => parent,
        _ => directory,
    };
    let kind = SFlag::from_bits_truncate(stat(existing)?.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFDIR {
        return Err(Errno::ENOTDIR);
    }
    access(existing, AccessFlags::W_OK | AccessFlags::X_OK)
}

/// The two that a relay may have to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Writer,
    Reader,
}

/// For whom an operation has waited that completed just now.
fn awaited(relay: &Relay, operation: Operation, moved: u64) -> Option<Side> {
    match operation {
        Operation::Read | Operation::Input => Some(Side::Writer),
        Operation::Write | Operation::Drain | Operation::Tee | Operation::Mark => {
            Some(Side::Reader)
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

impl Session<'_> {
    /// The run has begun; `child` is the command's process.
    pub(super) fn begin(&mut self, child: Option<u32>) {
        self.observation.child = child;
        if self.observation.events.is_some() {
            let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let unix = unix.unwrap_or_default().saturating_sub(self.started.elapsed());
            let command = std::mem::take(&mut self.observation.command);
            let engine = self.ring.engine().name();
            if let Some(events) = &mut self.observation.events {
                events.push(self.started, &Event::start(unix, child, &command, engine));
            }
            self.observation.command = command;
        }
        self.open_control();
        self.open_progress();
    }

    /// Does what is due now, and keeps what has to be in flight in flight.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub(super) fn observe(&mut self, now: Instant) -> io::Result<()> {
        if let Some(events) = &mut self.observation.events {
            events.advance(&mut self.ring, now)?;
        }
        if let Some(control) = &mut self.observation.control {
            control.advance(&mut self.ring, now)?;
        }
        self.show_progress(now);
        Ok(())
    }

    /// Makes events of what has befallen the child.
    pub(super) fn tell_changes(&mut self, charge: &mut Charge<'_>) {
        let (arrivals, changes) = (charge.arrivals.drain(..), charge.child.changes.drain(..));
        let Some(events) = &mut self.observation.events else { return };
        for (at, arrival) in arrivals {
            let from_terminal = arrival.from_terminal;
            events.push(at, &Event::Signal { signal: arrival.signal, from_terminal });
        }
        for (at, change) in changes {
            match change {
                Change::Stopped(signal) => events.push(at, &Event::Stop { signal }),
                Change::Continued => events.push(at, &Event::Continue),
                Change::Told => {}
            }
        }
    }

    /// The run is over: tells everybody who wanted to know.
    pub(super) fn conclude(&mut self, exit: Exit, watch: Option<&Watch<'_>>) {
        self.finish_progress();
        self.tell_event(&Event::Exit {
            exit_status: exit.code(),
            signal: match exit {
                Exit::Signal(signal) => Some(signal),
                Exit::Status(_) => None,
            },
        });
        self.finish_events();
        self.report_crash(exit, watch);
        self.report(exit, watch.and_then(Watch::report));
    }

    /// The figures of every stream at this moment, and what it waits for.
    pub(super) fn live_streams(&self, now: Instant) -> Vec<LiveStream> {
        let lasts = self.relays.iter().filter(|relay| relay.place().is_last());
        let live = self.stream_reports(now).into_iter().zip(lasts).map(|(report, last)| {
            let ended = last.ended().map(|end| end.name().to_owned());
            let waits_for = match ended {
                Some(_) => None,
                None => self.waits_for(last).map(str::to_owned),
            };
            LiveStream { report, waits_for, ended }
        });
        live.collect()
    }

    fn waits_for(&self, last: &Relay) -> Option<&'static str> {
        let mut same = self.relays.iter().filter(|relay| relay.stream() == last.stream());
        let first = same.find(|relay| relay.place().is_first())?;
        match (first.source(), last.sink()) {
            (_, Some(sink)) if !sink.has_room() => Some("reader"),
            (Some(source), _) if !source.has_input() => Some("writer"),
            _ => None,
        }
    }

    /// The figures of every stream at this moment.
    fn stream_reports(&self, now: Instant) -> Vec<StreamReport> {
        let elapsed = now.saturating_duration_since(self.started);
        let last = self.relays.iter().filter(|relay| relay.place().is_last());
        let reports = last.map(|last| {
            let same =
                |relay: &&Relay| relay.stream() == last.stream() && relay.place() != Place::Leg;
            let hops = self.relays.iter().filter(same).map(Relay::counters);
            let mut report = StreamReport::new(last.stream(), last.counters(), hops, elapsed);
            report.lines = last.lines();
            let gated = match last.stream() {
                Stream::Stdin => Duration::ZERO,
                _ => self.observation.stages.gated(now),
            };
            match self.observation.asked {
                Level::Off => report,
                _ => {
                    let stats = &self.observation.streams[last.stream() as usize];
                    report.with(stats, gated, elapsed)
                }
            }
        });
        reports.collect()
    }

    /// The figures of every leg at this moment.
    pub(super) fn leg_reports(&self) -> Vec<LegReport> {
        let reports = self.leg_losses().map(|(leg, lost_bytes)| LegReport {
            name: leg.sink_name().to_owned(),
            bytes: leg.counters().bytes,
            lost_bytes,
        });
        reports.collect()
    }

    /// Whether a leg is not what was asked for, under `--tee-strict`.
    pub(super) fn legs_fall_short(&self) -> bool {
        let strict = self.config.tee.failure == TeeFailure::Fail;
        strict && self.leg_losses().any(|(_, lost)| lost > 0)
    }

    /// What each leg did not get: what went past it, and what it had got but could not deliver.
    fn leg_losses(&self) -> impl Iterator<Item = (&Relay, u64)> {
        let feeders = || self.relays.iter().filter(|relay| relay.dropped().next().is_some());
        let legs = self.relays.iter().filter(|relay| relay.place() == Place::Leg);
        legs.enumerate().map(move |(index, leg)| {
            let offered: u64 = feeders().map(|relay| relay.counters().taken).sum();
            let dropped: u64 = feeders().filter_map(|relay| relay.dropped().nth(index)).sum();
            let counters = leg.counters();
            match leg.ended() {
                Some(End::Delivered) | None => (leg, dropped),
                // What lies in its pipe is lost too. A marker was taken without having been offered.
                _ => (
                    leg,
                    dropped.max(offered.saturating_sub(counters.taken)) + counters.undelivered,
                ),
            }
        })
    }

    /// Tells what the run came to, where that was asked for.
    fn report(&mut self, exit: Exit, memory: Option<MemoryReport>) {
        for (leg, lost) in self.leg_losses().filter(|(_, lost)| *lost > 0) {
            let text = format!("{}: {lost} bytes were not written there", leg.sink_name());
            notice::notice(self.config.verbosity, &text);
        }
        let Some(stats) = &self.config.observe.stats else { return };
        let now = Instant::now();
        let run = Run {
            engine: self.ring.engine().name(),
            observe: self.observation.asked.name(),
            elapsed_seconds: now.saturating_duration_since(self.started).as_secs_f64(),
            exit_status: exit.code(),
            system_calls: self.ring.system_calls(),
        };
        let mut report = Report::new(run, self.stream_reports(now), self.leg_reports());
        if let Some(memory) = memory {
            report.add_memory(memory);
        }
        let text = match stats.format {
            StatsFormat::Json => report.json(),
            StatsFormat::Text => report.to_string(),
        };
        match self.observation.stats_file.take() {
            None => notice::raw(&text),
            Some(mut file) => {
                let line = format!("{}\n", text.trim_end());
                // A device or pipe has no length to set.
                let _ = file.set_len(0);
                if let Err(error) = file.write_all(line.as_bytes()) {
                    let path = stats.file.as_ref().map(|path| path.to_string_lossy());
                    let tried = format!("write to {}", path.unwrap_or_default());
                    notice::error(&Error::os(tried, error));
                }
            }
        }
    }
}
