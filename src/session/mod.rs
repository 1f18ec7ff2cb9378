//! One run, from its plan to its exit status.
//!
//! [`run`] reads as the list of a run's steps; `event_loop` is what happens between the start of the command and
//! its end.

mod command;
mod event_loop;
mod job_control;
mod linger;
mod memory;
mod memory_effects;
mod nodes;
mod plan;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::config::{Config, EngineChoice, Job, SignalExit, Tee, TeeFailure, Verbosity, Wrap};
use crate::copies::held::Held;
use crate::copies::open::Copies;
use crate::copies::writer::{Ending, Writers};
use crate::error::{Error, STATUS_FAILED, STATUS_TIMED_OUT};
use crate::memory::limit;
use crate::notice;
use crate::process::child::Child;
use crate::process::exit::Exit;
use crate::process::fds;
use crate::process::interruption::Interruption;
use crate::process::monitor::Monitor;
use crate::process::procfs::Process;
use crate::process::prompt::PromptWatch;
use crate::process::signals::{self, Signals};
use crate::process::silence::SilenceWatch;
use crate::process::spawn::Placement;
use crate::process::startup::{self, Inherited};
use crate::relay::{End, Relay, Route};
use crate::reports::{MemoryEnd, Reports, figures};
use crate::ring::{Engine, Ring, Workers};
use crate::terminal::Terminal;
use command::Command;
use linger::Relays;
use memory::MemoryWatch;

/// Runs the job to its end.
///
/// # Errors
/// When nothing could be run, or the ring failed. What befalls a single stream is reported on stderr and
/// shows in the exit.
pub(crate) fn run(config: &Config) -> Result<Exit, Error> {
    signals::outlive_file_size_limit();
    startup::withhold(config.withheld);
    match &config.job {
        Job::Filter => filter(config),
        Job::Wrap(wrap) => wrapped(config, wrap),
    }
}

fn filter(config: &Config) -> Result<Exit, Error> {
    let started = Instant::now();
    let copies = Copies::open(&config.output.tee, config.verbosity, started)?;
    let routes = plan::for_filter(&config.output, &copies.feeds, started)?;
    plan::refuse_copy_onto_source(&routes, &copies.files)?;
    let mut session = Session::open(config, started, routes, copies)?;
    // Before threads begin: they are to have these signals blocked.
    session.interruption = Interruption::of_filter()?;
    session.begin()?;
    fds::release_standard_fds();
    session.relay_all()?;
    session.interruption.release(Instant::now());
    let last = session.relays.iter().find(|relay| relay.role().is_last());
    let exit = match last.and_then(Relay::ended) {
        _ if let Some(signal) = session.interruption.signal() => Exit::Signal(signal),
        // As cat does: the reader that left shows in the signal, unless that is ignored.
        Some(End::ReaderLeft) if !startup::sigpipe_was_ignored() => Exit::Signal(libc::SIGPIPE),
        Some(End::ReaderLeft) => {
            notice::error(&Error::os("write to stdout", Errno::EPIPE));
            Exit::Status(STATUS_FAILED)
        }
        _ if session.silence.is_over() => Exit::Status(STATUS_TIMED_OUT),
        _ if session.falls_short() => Exit::Status(STATUS_FAILED),
        _ => Exit::Status(0),
    };
    session.conclude(exit);
    Ok(exit)
}

fn wrapped(config: &Config, wrap: &Wrap) -> Result<Exit, Error> {
    let mut session = start(config, wrap)?;
    session.relay_all()?;
    if session.verdict() != Exit::Status(0) {
        session.show_held()?;
    }
    session.give_terminal_back();
    if let Some(command) = &session.command {
        session.interruption.take_last(&command.signals, Instant::now());
    }
    session.relays.report_abandoned(config.verbosity);
    let exit = session.verdict();
    session.conclude(exit);
    Ok(match (exit, wrap.signal_exit) {
        (Exit::Signal(_), SignalExit::Code) => Exit::Status(exit.code()),
        (exit, _) => exit,
    })
}

/// Plans the routes, opens what they need, and starts the command on them.
fn start<'c>(config: &'c Config, wrap: &'c Wrap) -> Result<Session<'c>, Error> {
    let inherited = Inherited::list();
    let started = Instant::now();
    let mut copies = Copies::open(&config.output.tee, config.verbosity, started)?;
    let terminal = Terminal::open(wrap, config.verbosity)?;
    let mut plan =
        plan::for_child(wrap, config.verbosity, &config.output, terminal, &copies.feeds, started)?;
    plan::refuse_copy_onto_source(&plan.routes, &copies.files)?;
    let screen = plan.terminal.as_ref().map(Terminal::screen_size).unwrap_or_default();
    plan.routes.iter_mut().chain(&mut copies.routes).for_each(|route| route.set_screen(screen));
    let mut memory = MemoryWatch::new(&config.memory, wrap, config.verbosity)?;
    let confinement = memory.confinement()?;
    let signals = Signals::take()?;
    let terminal = plan.terminal;
    let follower = terminal.as_ref().map(Terminal::follower).transpose()?;
    let inheritance = signals.inheritance();
    let session = || Session::open(config, started, plan.routes, copies);
    let (mut session, child) = match follower {
        // The monitor process is a copy of this one, and must not be one that shares a ring.
        Some(follower) => {
            let monitor = Monitor::fork(wrap, plan.child, follower, inheritance, confinement)?;
            let session = session()?;
            let placement = terminal.as_ref().map_or(Placement::Foreground, Terminal::placement);
            (session, Child::spawn_at(monitor, wrap, placement)?)
        }
        None => {
            let session = session()?;
            (session, Child::spawn(wrap, plan.child, inheritance, confinement)?)
        }
    };
    memory.begin(child.pid(), session.ring.engine().name(), Instant::now());
    inherited.close();
    fds::release_standard_fds();
    let command = Command::new(wrap, child, memory, terminal, plan.followers, signals);
    session.command = Some(command);
    session.held = plan.held;
    session.held.begin(&session.relays);
    match session.begin() {
        Ok(()) => Ok(session),
        Err(error) => {
            // Nobody would carry its output.
            session.command.iter().for_each(|command| command.child.signal(libc::SIGTERM));
            Err(error)
        }
    }
}

/// The ring, the relays, the command, and what is known of them.
#[derive(Debug)]
struct Session<'c> {
    tee: &'c Tee,
    verbosity: Verbosity,
    started: Instant,
    ring: Ring,
    coalesce: Duration,
    /// What pipes are grown to, in bytes; `None` leaves them as they are.
    pipe_size: Option<u32>,
    relays: Relays,
    /// `None` for a filter.
    command: Option<Command<'c>>,
    /// Output that is not shown yet, and whether the command asks for something meanwhile.
    held: Held,
    prompt: PromptWatch,
    /// The threads that write copies.
    writers: Writers,
    reports: Reports<'c>,
    silence: SilenceWatch,
    /// What a silent command has been asked to end with.
    asked: Vec<Process>,
    /// Some bytes could not be delivered, and not because their reader left.
    lost: bool,
    ending: Ending,
    /// A signal that is meant for us.
    interruption: Interruption,
}

impl<'c> Session<'c> {
    /// Opens the ring and makes the relays: those of the streams first, then one for each copy.
    fn open(
        config: &'c Config,
        started: Instant,
        streams: Vec<Route>,
        copies: Copies,
    ) -> Result<Session<'c>, Error> {
        let Config { job, transfer, output, memory, observe, verbosity, .. } = config;
        let reports = Reports::open(observe, *verbosity, job.words(), started)?;
        let routes = || streams.iter().chain(&copies.routes);
        let workers = Workers {
            most: routes().map(|route| Relay::workers(route).most).sum::<u32>() + 1,
            needed: routes().any(|route| Relay::workers(route).needed) || observe.events.is_some(),
        };
        let mut ring = open_ring(transfer.engine, *verbosity, workers)?;
        let pipe_size = transfer.pipe_size.within(|| limit::at_first_sight(memory.limits));
        let mut relays = Vec::with_capacity(routes().count());
        for (id, route) in streams.into_iter().chain(copies.routes).enumerate() {
            relays.push(Relay::new(id as u8, route, pipe_size, transfer.coalesce, &mut ring)?);
        }
        Ok(Session {
            tee: &output.tee,
            verbosity: *verbosity,
            started,
            ring,
            coalesce: transfer.coalesce,
            pipe_size,
            relays: Relays::new(relays, &copies.waits, started),
            command: None,
            held: Held::default(),
            prompt: PromptWatch::new(started),
            writers: copies.writers,
            reports,
            silence: SilenceWatch::new(config.silence, started),
            asked: Vec::new(),
            lost: false,
            ending: Ending::NotYet,
            interruption: Interruption::default(),
        })
    }

    /// How the run ends, once the command and its streams have.
    fn verdict(&self) -> Exit {
        let ended = self.command.as_ref().and_then(|command| command.child.exit());
        match ended.unwrap_or(Exit::Status(STATUS_FAILED)) {
            _ if let Some(signal) = self.interruption.signal() => Exit::Signal(signal),
            _ if self.silence.is_over() => Exit::Status(STATUS_TIMED_OUT),
            // What was lost for another reason than a reader that left shows, even if the command died of it.
            Exit::Status(0) | Exit::Signal(libc::SIGPIPE) if self.falls_short() => {
                Exit::Status(STATUS_FAILED)
            }
            // At a pty of its own nothing fails for the command: it was told by a signal, which is nobody else's.
            Exit::Signal(signal) if self.falls_short() && self.has_hung_up_by(signal) => {
                Exit::Status(STATUS_FAILED)
            }
            exit => exit,
        }
    }

    /// Shows what was held back.
    fn show_held(&mut self) -> Result<(), Error> {
        self.held.end_hiding();
        let added = self.advance_held(Instant::now());
        added.map_err(|error| Error::os("show held output", error))?;
        self.relay_all()
    }

    /// The run has begun.
    ///
    /// # Errors
    /// If a thread cannot be started.
    fn begin(&mut self) -> Result<(), Error> {
        self.writers.start()?;
        if self.relays.len() > 1 {
            self.ring.write_files_apart();
        }
        let child = self.command.as_ref().map(|command| command.child.pid());
        let pid = child.unwrap_or_else(std::process::id);
        self.relays.iter_mut().for_each(|relay| relay.set_pid(pid));
        let (screen, total) = (self.relays.screen(), self.relays.size_of_input());
        self.reports.begin(child, self.ring.engine().name(), screen, total);
        Ok(())
    }

    /// Leaves our terminal as the command would have left it. From here on it is ours, and what is still to be said
    /// can be seen there.
    fn give_terminal_back(&mut self) {
        if let Some(command) = &mut self.command {
            let by_itself = matches!(command.child.exit(), Some(Exit::Status(_)));
            command.terminal.iter_mut().for_each(|terminal| terminal.conclude(by_itself));
            command.terminal = None;
        }
    }

    /// Whether it was nproxy that has told the command by this signal that one of its streams is gone.
    fn has_hung_up_by(&self, signal: i32) -> bool {
        self.command.as_ref().is_some_and(|command| command.hung_up_by == Some(signal))
    }

    /// Whether bytes were lost that the exit status has to tell of.
    fn falls_short(&self) -> bool {
        let strict = self.tee.failure == TeeFailure::Fail;
        self.lost || strict && figures::copy_losses(&self.relays).any(|(_, lost)| lost > 0)
    }

    /// The run is over: makes every report that was asked for.
    fn conclude(&mut self, exit: Exit) {
        let memory = match &self.command {
            Some(command) => command.memory.end(exit),
            None => MemoryEnd::default(),
        };
        // A signal may have ended us after the command.
        let own = self.command.as_ref().and_then(|command| command.child.exit());
        let own = own.filter(|_| !self.silence.is_over()).unwrap_or(exit);
        self.reports.conclude(exit, own, memory, &self.relays, &mut self.ring);
    }
}

/// Opens the engine that was asked for; `auto` goes on without io_uring where it is refused.
fn open_ring(choice: EngineChoice, verbosity: Verbosity, workers: Workers) -> Result<Ring, Error> {
    let open = |engine: Engine| {
        let tried = format!("open the {} ring", engine.name());
        Ring::open(engine, workers).map_err(|error| Error::os(tried, error))
    };
    match choice {
        EngineChoice::Named(engine) => open(engine),
        EngineChoice::Auto => open(Engine::Uring).or_else(|refused| {
            notice::decision(verbosity, &format!("{refused}; going on with epoll"));
            open(Engine::Epoll)
        }),
    }
}
