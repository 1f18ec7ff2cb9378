//! Where what is known of a run goes: recorded transfers, events, the live line, the status socket, the report at
//! the end, the crash report, the process title.
//!
//! Everything here is told what happened and is handed plain [`Figures`]; nothing here sees the session.

pub(crate) mod crash;
pub(crate) mod ends;
mod events;
pub(crate) mod figures;
pub(crate) mod memory_notices;
mod progress;
mod recorder;
mod runtime_directory;
pub(crate) mod stages;
mod stats;
pub(crate) mod status_client;
mod status_server;
#[cfg(test)]
mod tests;
pub(crate) mod title;

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::config::{ControlMode, Level, Observe, ProgressMode, Unit, Verbosity};
use crate::error::Error;
use crate::memory::heap::Record;
use crate::memory::policy::{self, StageChange};
use crate::notice;
use crate::observe::events::{Event, GateTry};
use crate::observe::report::MemoryReport;
use crate::observe::status::Subject;
use crate::process::exit::Exit;
use crate::relay::{End, Relay, Role};
use crate::ring::{Completion, Ring};
use events::Events;
use figures::Figures;
use progress::Progress;
pub(crate) use progress::Screen;
pub(crate) use recorder::Before;
use recorder::Recorder;
use stages::{GateChange, MemorySnapshot, Stages};
use status_server::StatusServer;

/// Every report of one run.
#[derive(Debug)]
pub(crate) struct Reports<'c> {
    observe: &'c Observe,
    verbosity: Verbosity,
    started: Instant,
    subject: Subject,
    recorder: Recorder,
    stages: Stages,
    events: Option<Events>,
    status_server: StatusServer,
    progress: Option<Progress>,
    stats_file: Option<File>,
}

/// What is known of the command's memory once it has ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryEnd {
    /// `None` if nothing was watched.
    pub(crate) report: Option<MemoryReport>,
    /// Processes that the OOM killer ended: in the command's control group, or on this machine meanwhile.
    pub(crate) oom_kills: u64,
    /// How the heaps of Node processes have changed lately, the oldest first.
    pub(crate) heap_records: Vec<Record>,
}

impl<'c> Reports<'c> {
    /// Opens the files that will be written to. `command` is what is run, empty for a filter.
    ///
    /// # Errors
    /// One that names the file.
    pub(crate) fn open(
        observe: &'c Observe,
        verbosity: Verbosity,
        command: Vec<String>,
        started: Instant,
    ) -> Result<Reports<'c>, Error> {
        let stats_file = observe.stats.as_ref().and_then(|stats| stats.file.as_ref());
        let stats_file = stats_file.map(stats::open_file).transpose()?;
        if let Some(directory) = &observe.crash_dump {
            crash::check_directory(Path::new(directory)).map_err(|error| {
                let tried = format!(
                    "--crash-dump: cannot write crash reports in {}",
                    directory.to_string_lossy()
                );
                Error::os(tried, error)
            })?;
            if !Path::new(directory).exists() {
                let text = format!(
                    "--crash-dump: {} is made with the first report",
                    directory.to_string_lossy()
                );
                notice::decision(verbosity, &text);
            }
        }
        let events = observe.events.as_ref().map(|path| Events::open(path, started)).transpose()?;
        Ok(Reports {
            observe,
            verbosity,
            started,
            subject: Subject::new(std::process::id(), command),
            recorder: Recorder::new(observe.level, started),
            stages: Stages::default(),
            events,
            status_server: StatusServer::Absent,
            progress: None,
            stats_file,
        })
    }

    /// The run has begun; `child` is the command's process. The rest is for the live line: whether the command
    /// writes to a terminal too, and how many bytes there are to come.
    pub(crate) fn begin(
        &mut self,
        child: Option<u32>,
        engine: &str,
        screen: Screen,
        total: Option<u64>,
    ) {
        self.subject.child = child;
        if let Some(events) = &mut self.events {
            let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let unix = unix.unwrap_or_default().saturating_sub(self.started.elapsed());
            events.push(self.started, &Event::start(unix, &self.subject, engine));
        }
        if self.observe.control != ControlMode::Off {
            self.status_server = StatusServer::new(self.started);
        }
        let line = &self.observe.progress;
        let total = self.observe.size.or(total.filter(|_| line.unit == Unit::Bytes));
        self.progress = Progress::open(line, screen, total, self.started);
        let wanted = line.mode == ProgressMode::Auto && line.asked_now;
        let at_terminal = screen == Screen::Shared && io::stderr().is_terminal();
        if wanted && at_terminal && self.progress.is_none() {
            let text = "--progress shows nothing: the streams go to this terminal too (--progress=always shows it all the same)";
            notice::notice(self.verbosity, &text);
        }
    }

    fn go_on_without_status(&self, error: &Error) {
        notice::decision(self.verbosity, &format!("{error}; going on without"));
    }

    /// Does what is due now, and keeps what has to be in flight in flight.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub(crate) fn advance(
        &mut self,
        relays: &[Relay],
        ring: &mut Ring,
        now: Instant,
    ) -> io::Result<()> {
        if let Some(events) = &mut self.events {
            events.advance(ring, now)?;
        }
        if let Err(error) = self.status_server.advance(ring, now)? {
            self.go_on_without_status(&error);
        }
        if let Some(progress) = &mut self.progress
            && progress.is_due(now)
        {
            let count = figures::read(relays, self.observe.progress.unit);
            progress.update(now, count, self.stages.words());
        }
        Ok(())
    }

    /// From here on the command's output goes to the screen, too.
    pub(crate) fn share_screen(&mut self) {
        if self.observe.progress.mode == ProgressMode::Auto
            && let Some(progress) = self.progress.take()
        {
            progress.leave_screen();
        }
    }

    /// When something here has to be done though nothing completes.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let events = self.events.as_ref().and_then(Events::deadline);
        let server = self.status_server.deadline();
        let progress = self.progress.as_ref().map(Progress::deadline);
        events.into_iter().chain(server).chain(progress).min()
    }

    /// Takes an event that happened at `at`, if anybody wants to know.
    pub(crate) fn event(&mut self, at: Instant, event: &Event<'_>) {
        if let Some(events) = &mut self.events {
            events.push(at, event);
        }
    }

    /// Records what an operation did that its relay has just taken note of.
    pub(crate) fn completed(&mut self, before: Before, relay: &Relay, now: Instant) {
        if let Some(delivery) = self.recorder.completed(before, relay, now) {
            let stream = delivery.stream.name();
            let method = delivery.method.name();
            self.event(now, &Event::Chunk { stream, bytes: delivery.size, method });
        }
    }

    /// A write of events has ended.
    pub(crate) fn events_written(&mut self, completion: Completion) {
        if let Some(events) = &mut self.events {
            events.complete(completion);
        }
    }

    /// Somebody has connected to the status socket.
    pub(crate) fn answer(&mut self, relays: &[Relay], ring: &Ring) {
        let mut server = std::mem::replace(&mut self.status_server, StatusServer::Absent);
        server.answer(|| self.figures(relays, ring, Instant::now()).status().json());
        self.status_server = server;
    }

    /// A relay has ended: an event, if that is the end of a stream or of a copy.
    pub(crate) fn ended(&mut self, relay: &Relay, end: &End) {
        let trouble = match end {
            End::Failed(error) => error.to_string(),
            _ => end.name().to_owned(),
        };
        let (stream, bytes) = (relay.stream().name(), relay.counters().bytes);
        match (relay.role(), end) {
            (Role::Copy, End::Delivered) => {}
            (Role::Copy, _) => {
                let event = Event::Copy { copy: relay.sink_name(), trouble: &trouble };
                self.event(Instant::now(), &event);
            }
            (role, _) if role.is_last() => {
                self.event(Instant::now(), &Event::End { stream, bytes, how: end.name() });
            }
            _ => {}
        }
    }

    /// The command's memory has been sampled: only what its stage allows is recorded from here on.
    pub(crate) fn memory_sampled(&mut self, snapshot: MemorySnapshot, now: Instant) {
        let at = now.saturating_duration_since(self.started);
        let effects = snapshot.effects;
        if let Some(change) = &snapshot.heap_change {
            self.event(
                now,
                &Event::Heap {
                    pid: change.heap.pid,
                    from: change.from.name(),
                    to: change.to.name(),
                    live_bytes: change.heap.live,
                    limit_bytes: change.heap.limit,
                },
            );
        }
        let changes = snapshot.changes;
        if let Some(StageChange { from, to }) = changes.stage {
            let (from, to) = (from.name(), to.name());
            self.event(now, &Event::Stage { from, to, resident_bytes: snapshot.resident });
        }
        if let Some(GateChange(gate)) = self.stages.sampled(snapshot, at, now) {
            let tried = match changes.gate {
                Some(policy::GateChange::Opened(end)) => Some(GateTry {
                    outcome: end.outcome.name(),
                    held_seconds: end.held.as_secs_f64(),
                    gained_bytes: end.gained,
                }),
                Some(policy::GateChange::Closed) | None => None,
            };
            self.event(now, &Event::Gate { gate, tried });
        }
        self.recorder.limit(stages::allowed_level(effects));
    }

    /// The command is gone: its memory weighs on nothing any more.
    pub(crate) fn command_ended(&mut self, now: Instant) {
        if let Some(GateChange(gate)) = self.stages.command_ended(now) {
            self.event(now, &Event::Gate { gate, tried: None });
        }
        self.recorder.limit(Level::Full);
    }

    /// The figures of this run at this moment.
    pub(crate) fn figures(&self, relays: &[Relay], ring: &Ring, now: Instant) -> Figures {
        let elapsed: Duration = now.saturating_duration_since(self.started);
        Figures {
            subject: self.subject.clone(),
            engine: ring.engine().name(),
            elapsed,
            system_calls: ring.system_calls(),
            streams: figures::streams(relays, &self.recorder, &self.stages, elapsed, now),
            copies: figures::copies(relays),
            memory: self.stages.status(),
        }
    }

    /// The run is over: tells everybody who wanted to know. `exit` is how nproxy ends, `own` how the command has.
    pub(crate) fn conclude(
        &mut self,
        exit: Exit,
        own: Exit,
        memory: MemoryEnd,
        relays: &[Relay],
        ring: &mut Ring,
    ) {
        if let Some(progress) = self.progress.take() {
            progress.finish(figures::read(relays, self.observe.progress.unit));
        }
        let signal = match own {
            Exit::Signal(signal) => Some(signal),
            Exit::Status(_) => None,
        };
        self.event(
            Instant::now(),
            &Event::Exit {
                exit_status: if signal.is_some() { own.code() } else { exit.code() },
                signal,
            },
        );
        if let Some((name, lost)) = self.events.take().and_then(|events| events.finish(ring)) {
            notice::notice(self.verbosity, &format!("{name}: {lost} events were dropped"));
        }
        let figures = self.figures(relays, ring, Instant::now());
        self.report_crash(own, &memory, &figures);
        for copy in figures.copies.iter().filter(|copy| copy.lost_bytes > 0) {
            let text = format!("{}: {} bytes were not written there", copy.name, copy.lost_bytes);
            notice::notice(self.verbosity, &text);
        }
        if let Some(stats) = &self.observe.stats {
            let (file, asked) = (self.stats_file.take(), self.recorder.asked());
            stats::write(stats, file, &figures, exit, asked, memory.report);
        }
    }

    fn report_crash(&self, exit: Exit, memory: &MemoryEnd, figures: &Figures) {
        let Some(directory) = &self.observe.crash_dump else { return };
        let evidence = crash::Evidence {
            exit,
            figures,
            recorder: &self.recorder,
            stages: &self.stages,
            memory: memory.report.as_ref(),
            oom_kills: memory.oom_kills,
            heap_records: &memory.heap_records,
        };
        match crash::report(directory, evidence) {
            Ok(None) => {}
            Ok(Some(path)) => {
                let text = format!("crash report: {}", path.display());
                notice::notice(self.verbosity, &text);
            }
            Err(error) => {
                let tried = format!("write a crash report in {}", directory.to_string_lossy());
                notice::error(&Error::os(tried, error));
            }
        }
    }
}
