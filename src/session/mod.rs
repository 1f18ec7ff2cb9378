//! One run, from spawn to exit status: the loop that wires everything together.
//!
//! The loop does nothing but submit what may run, wait on the ring, and hand each completion to whom it
//! concerns: `Session::dispatch` is the index of the program.

mod charge;
mod child;
mod confine;
mod control;
mod crash;
mod ends;
mod events;
mod foreground;
mod inquiry;
mod job;
mod legs;
mod monitor;
pub(crate) mod notice;
mod observation;
mod peers;
mod progress;
mod signals;
mod stages;
mod startup;
mod streams;
mod terminal;
mod title;
mod watch;

use std::io;
use std::time::Instant;

use nix::errno::Errno;

use crate::config::{Config, EngineChoice, Job, SignalExit, Wrap};
use crate::error::{Error, STATUS_FAILED};
use crate::relay::{Course, End, Relay, Stream};
use crate::ring::{Completion, Engine, Operation, Ring};
use charge::Charge;
use child::{Child, ChildStreams};
use confine::Confinement;
use job::Holder;
use legs::Legs;
use monitor::{Ground, Monitor};
use observation::{Before, Observation};
use peers::Peers;
use signals::Signals;
use startup::Inherited;
use terminal::{Opened, Terminal};
use watch::Watch;

pub use child::Exit;
pub use inquiry::inquire;

/// Runs the job to its end.
///
/// # Errors
/// When nothing could be run, or the ring failed. What befalls a single stream is told on stderr and
/// shows in the exit.
pub fn run(config: &Config) -> Result<Exit, Error> {
    match &config.job {
        Job::Filter => filter(config),
        Job::Wrap(wrap) => wrapped(config, wrap),
    }
}

/// Says on stderr, in one line, why nothing was done.
pub fn refuse(why: &dyn std::fmt::Display) {
    notice::error(why);
}

/// Ends this process the way `exit` says.
pub fn leave(exit: Exit) -> ! {
    if let Exit::Signal(signal) = exit {
        signals::die_by(signal);
    }
    std::process::exit(exit.code().into())
}

fn filter(config: &Config) -> Result<Exit, Error> {
    let started = Instant::now();
    let legs = Legs::open(&config.tee, started)?;
    let courses = streams::for_filter(config, &legs.feeds, started)?;
    let mut session = Session::open(config, started, courses, legs.courses, legs.peers)?;
    drop(legs.feeds);
    Legs::empty_files(legs.to_empty)?;
    session.begin(None);
    streams::release_standard_fds();
    session.relay_all(None)?;
    session.peers.hear_out();
    let last = session.relays.iter().find(|relay| relay.place().is_last());
    let exit = match last.and_then(Relay::ended) {
        // As cat does: the reader that left is told of by the signal, unless that is ignored.
        Some(End::ReaderLeft) if !startup::sigpipe_was_ignored() => Exit::Signal(libc::SIGPIPE),
        Some(End::ReaderLeft) => {
            notice::error(&Error::os("write to stdout", Errno::EPIPE));
            Exit::Status(STATUS_FAILED)
        }
        _ if session.lost || session.legs_fall_short() => Exit::Status(STATUS_FAILED),
        _ => Exit::Status(0),
    };
    session.conclude(exit, None);
    Ok(exit)
}

fn wrapped(config: &Config, wrap: &Wrap) -> Result<Exit, Error> {
    let inherited = Inherited::list();
    let started = Instant::now();
    let mut legs = Legs::open(&config.tee, started)?;
    let streams = streams::for_child(config, wrap, &legs.feeds, started)?;
    legs.fed_with(streams.newlines);
    let mut watch = Watch::new(config, wrap)?;
    let confinement = watch.confinement()?;
    let signals = Signals::take()?;
    let (terminal, seat) = streams.terminal.map(Opened::divide).unzip();
    // A monitor is a copy of this process, and must not be one that shares a ring.
    let ready = match seat {
        Some(seat) => {
            let inheritance = signals.inheritance();
            let monitor = Monitor::fork(wrap, streams.child, seat, inheritance, confinement)?;
            Ready::Monitored(monitor)
        }
        None => Ready::Own(streams.child, confinement),
    };
    let mut session = Session::open(config, started, streams.courses, legs.courses, legs.peers)?;
    let child = match ready {
        Ready::Own(streams, confinement) => {
            Child::spawn(wrap, streams, signals.inheritance(), confinement)?
        }
        Ready::Monitored(monitor) => {
            let ground = terminal.as_ref().map_or(Ground::Foreground, Terminal::ground);
            Child::spawn_at(monitor, wrap, ground)?
        }
    };
    watch.begin(child.pid(), session.ring.engine().name(), Instant::now());
    drop(legs.feeds);
    Legs::empty_files(legs.to_empty)?;
    inherited.close();
    streams::release_standard_fds();
    let mut charge = Charge::new(wrap, child, watch, terminal, signals);
    charge.take_terminal();
    session.begin(Some(charge.child.pid()));
    session.relay_all(Some(&mut charge))?;
    if let (Some(Exit::Status(_)), Some(terminal)) = (charge.child.exit(), &mut charge.terminal) {
        terminal.adopt_modes();
    }
    charge.terminal.iter().for_each(Terminal::pass_on_unread);
    session.peers.hear_out();
    // The screen is ours again: what is still to be said can be seen there.
    charge.terminal = None;
    session.tell_left();
    let exit = match charge.child.exit().unwrap_or(Exit::Status(STATUS_FAILED)) {
        Exit::Status(0) if session.lost || session.legs_fall_short() => Exit::Status(STATUS_FAILED),
        exit => exit,
    };
    session.conclude(exit, Some(&charge.watch));
    if let Some(signal) = charge.ended_by_key {
        signals::tell_group(signal);
    }
    Ok(match (exit, wrap.signal_exit) {
        (Exit::Signal(_), SignalExit::Code) => Exit::Status(exit.code()),
        (exit, _) => exit,
    })
}

/// What a child is about to be started from.
#[derive(Debug)]
enum Ready {
    /// This process.
    Own(ChildStreams, Confinement),
    /// The monitor, which has its streams already.
    Monitored(Monitor),
}

/// The ring, the relays, and what is known of them.
#[derive(Debug)]
struct Session<'c> {
    config: &'c Config,
    started: Instant,
    ring: Ring,
    relays: Vec<Relay>,
    /// For each relay, what the loop remembers of it.
    notes: Vec<Note>,
    /// Some bytes could not be delivered, and not because their reader left.
    lost: bool,
    /// The command has ended by a signal that asks for an end.
    asked_to_end: bool,
    /// Whom legs are connected to.
    peers: Peers,
    observation: Observation,
}

#[derive(Debug)]
struct Note {
    /// When it last completed anything, or the child ended.
    silent_since: Instant,
    /// Who else holds the source of a relay that is being left.
    holder: Option<Holder>,
    /// Its end has been told.
    told: bool,
}

impl<'c> Session<'c> {
    /// Opens the ring and makes the relays: those of the streams first, then one for each leg.
    fn open(
        config: &'c Config,
        started: Instant,
        streams: Vec<Course>,
        legs: Vec<Course>,
        peers: Peers,
    ) -> Result<Session<'c>, Error> {
        let observation = Observation::open(config, started)?;
        let courses = || streams.iter().chain(&legs);
        let workers = courses().map(Relay::workers).sum::<u32>() + 1;
        let mut ring = open_ring(config, workers)?;
        let mut relays = Vec::with_capacity(courses().count());
        for (id, course) in streams.into_iter().chain(legs).enumerate() {
            relays.push(Relay::new(
                id as u8,
                course,
                config.pipe_size,
                config.coalesce,
                &mut ring,
            )?);
        }
        let note = || Note { silent_since: started, holder: None, told: false };
        let notes = relays.iter().map(|_| note()).collect();
        Ok(Session {
            config,
            started,
            ring,
            relays,
            notes,
            lost: false,
            asked_to_end: false,
            peers,
            observation,
        })
    }

    /// The loop: until the child has ended and every stream from it.
    fn relay_all(&mut self, mut charge: Option<&mut Charge<'c>>) -> Result<(), Error> {
        loop {
            match self.turn(charge.as_deref_mut()) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => {
                    let tried = format!("run the {} ring", self.ring.engine().name());
                    return Err(Error::os(tried, error));
                }
            }
        }
    }

    /// One turn of the loop. False when there is nothing left to do.
    fn turn(&mut self, mut charge: Option<&mut Charge<'c>>) -> io::Result<bool> {
        let now = Instant::now();
        if let Some(charge) = charge.as_deref_mut() {
            charge.arm(&mut self.ring)?;
            if charge.child.exit().is_some() {
                self.leave_what_is_silent(charge, now)?;
            } else {
                charge.watch.turn(&mut self.relays, now);
                self.follow_memory(&charge.watch, now);
            }
        }
        self.leave_stalled_legs(now)?;
        self.observe(now)?;
        if let Some(charge) = charge.as_deref() {
            self.set_gates(charge)?;
        }
        for relay in &mut self.relays {
            relay.on_time(&mut self.ring, now)?;
            relay.advance(&mut self.ring, now)?;
        }
        if let Some(charge) = charge.as_deref_mut() {
            charge.stop_if_due(&self.relays, now);
        }
        self.ring.wait(self.time_limit(charge.as_deref(), now))?;
        while let Some(completion) = self.ring.next_completion() {
            self.dispatch(completion, charge.as_deref_mut())?;
        }
        self.tell_ends();
        if let Some(charge) = charge.as_deref_mut() {
            self.tell_changes(charge);
            charge.follow_ends(&self.relays);
        }
        let running = charge.is_some_and(|charge| charge.child.exit().is_none());
        Ok(running || self.relays.iter().any(|relay| relay.ended().is_none()))
    }

    /// What each completion means: the index of the program.
    fn dispatch(
        &mut self,
        completion: Completion,
        charge: Option<&mut Charge<'c>>,
    ) -> io::Result<()> {
        match (completion.token.operation, charge) {
            (Operation::Signal, Some(charge)) => {
                if charge.on_signals(self.config) {
                    self.child_ended(charge)?;
                }
            }
            (Operation::ChildExit | Operation::MonitorReport, Some(charge)) => {
                if charge.on_news() {
                    self.child_ended(charge)?;
                }
            }
            (Operation::MemoryStall, Some(charge)) => charge.watch.on_stall(Instant::now()),
            (Operation::MemoryEvent, Some(charge)) => charge.watch.on_event(),
            (
                Operation::Signal
                | Operation::ChildExit
                | Operation::MonitorReport
                | Operation::MemoryStall
                | Operation::MemoryEvent,
                None,
            ) => {}
            (Operation::Event, _) => {
                if let Some(events) = &mut self.observation.events {
                    events.complete(completion);
                }
            }
            (Operation::Control, _) => self.answer_clients(),
            (
                Operation::SinkWatch
                | Operation::Splice
                | Operation::Fill
                | Operation::Drain
                | Operation::Read
                | Operation::Write
                | Operation::Input
                | Operation::Tee
                | Operation::Mark,
                _,
            ) => {
                let index = usize::from(completion.token.relay);
                let now = Instant::now();
                self.notes[index].silent_since = now;
                let relay = &mut self.relays[index];
                let before = Before::new(&completion, relay);
                relay.complete(completion, &mut self.ring)?;
                self.observation.completed(before, relay, now);
            }
        }
        Ok(())
    }

    /// Lets keys be read only while they are the child's, and nothing at a terminal that is hung up.
    fn set_gates(&mut self, charge: &Charge<'c>) -> io::Result<()> {
        let Some(terminal) = &charge.terminal else { return Ok(()) };
        for relay in &mut self.relays {
            if foreground::is_hung_up(terminal, relay) {
                relay.stop(&mut self.ring)?;
            } else if foreground::carries_keys(relay) {
                relay.set_gate(terminal.gate(), &mut self.ring)?;
            }
        }
        Ok(())
    }

    /// The child is gone: nobody reads its stdin, and its other streams have a time limit from now.
    fn child_ended(&mut self, charge: &mut Charge<'c>) -> io::Result<()> {
        let now = Instant::now();
        let keys = self.relays.iter().zip(&self.notes);
        let mut keys = keys.filter(|(relay, _)| foreground::carries_keys(relay));
        let key = keys.find(|(relay, _)| relay.counters().taken > 0);
        charge.follow_key(key.map(|(_, note)| note.silent_since), now);
        charge.release_signals();
        if let Some(exit) = charge.child.exit() {
            use libc::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
            self.asked_to_end = matches!(exit, Exit::Signal(SIGHUP | SIGINT | SIGQUIT | SIGTERM));
            charge.watch.child_ended(exit, &mut self.relays, now);
            self.memory_is_over(now);
        }
        for (relay, note) in self.relays.iter_mut().zip(&mut self.notes) {
            note.silent_since = now;
            if relay.stream() == Stream::Stdin {
                relay.stop(&mut self.ring)?;
            }
        }
        Ok(())
    }
}

/// Opens the engine that was asked for; `auto` goes on without io_uring where it is refused.
fn open_ring(config: &Config, workers: u32) -> Result<Ring, Error> {
    let open = |engine: Engine| {
        let tried = format!("open the {} ring", engine.name());
        Ring::open(engine, workers).map_err(|error| Error::os(tried, error))
    };
    match config.engine {
        EngineChoice::Named(engine) => open(engine),
        EngineChoice::Auto => open(Engine::Uring).or_else(|refused| {
            notice::decision(config.verbosity, &format!("{refused}; going on with epoll"));
            open(Engine::Epoll)
        }),
    }
}
