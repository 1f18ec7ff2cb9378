//! The loop: submits what may run, waits on the ring, and hands each completion to whom it concerns.
//! `Session::dispatch` is the index of the program.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Session;
use super::command::{Changes, Command};
use super::job_control::is_hung_up;
use crate::config::{Linger, TeeFailure, Unit};
use crate::copies::writer::Ending;
use crate::error::Error;
use crate::notice;
use crate::observe::events::Event;
use crate::process::child;
use crate::process::exit::Exit;
use crate::process::interruption::Request;
use crate::process::procfs;
use crate::process::signals::Arrival;
use crate::process::silence::{Due, Output};
use crate::relay::{End, Kind, Relay, Role, Stream};
use crate::reports::{Before, ends, figures};
use crate::ring::{Completion, Operation, Token};
use crate::terminal::Terminal;
use crate::units::{bytes, elapsed};

/// What took longer than this in the midst of a turn was a stop.
const STOPPED: Duration = Duration::from_millis(100);

/// The same of a wait that has a limit. A busy machine wakes nobody in time.
const OVERSLEPT: Duration = Duration::from_secs(1);

/// How soon streams that others hold open are looked at again, however little silence is enough.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Session<'_> {
    /// Runs until the command has ended and every stream from it.
    pub(crate) fn relay_all(&mut self) -> Result<(), Error> {
        self.ring.read_clock();
        loop {
            match self.turn() {
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
    fn turn(&mut self) -> io::Result<bool> {
        let now = self.ring.now();
        if self.interruption.deadline().is_some_and(|until| until <= now) {
            return self.give_up(now).map(|()| false);
        }
        self.prepare_command(now)?;
        let now = self.ring.now();
        self.watch_silence(now)?;
        self.watch_prompt(now);
        self.interruption.arm(&mut self.ring)?;
        self.relays.leave_stalled_copies(self.ending, &mut self.ring, now)?;
        self.writers.turn(&self.relays, self.ending, &mut self.ring, now)?;
        self.reports.advance(&self.relays, &mut self.ring, now)?;
        for relay in self.relays.iter_mut() {
            relay.on_time(&mut self.ring, now)?;
            relay.advance(&mut self.ring, now)?;
        }
        if let Some(command) = &mut self.command
            && command.stop_if_due(&self.relays, now)
        {
            self.ring.read_clock();
            self.was_stopped();
        }
        let before = self.ring.now();
        let limit = self.time_limit(before)?;
        self.ring.wait(limit)?;
        if limit.is_some_and(|limit| self.ring.now() > before + limit + OVERSLEPT) {
            self.was_stopped();
        }
        while let Some(completion) = self.ring.next_completion() {
            self.dispatch(completion)?;
        }
        let now = self.ring.now();
        self.report_ends(now);
        self.advance_held(now)?;
        if let Some(command) = &mut self.command {
            if command.record_changes(&mut self.reports) == Changes::OfState {
                self.silence.restart(now);
            }
            command.follow_ends(&self.relays);
        }
        Ok(self.is_under_way())
    }

    /// Whether the command runs or a stream is open.
    fn is_under_way(&self) -> bool {
        let running = self.command.as_ref().is_some_and(Command::is_running);
        let open = self.relays.iter().any(|relay| relay.ended().is_none());
        running || self.is_ending() || open || !self.writers.all_ended()
    }

    /// Looks after the command: its signals, its memory, its terminal, and what it has left open.
    fn prepare_command(&mut self, now: Instant) -> io::Result<()> {
        let is_ending = self.is_ending();
        let Some(command) = &mut self.command else { return Ok(()) };
        command.arm(&mut self.ring)?;
        if command.is_running() {
            if let Some(snapshot) = command.memory.turn(&mut self.relays, now) {
                self.reports.memory_sampled(snapshot, now);
                // A large tree of processes takes its time.
                self.ring.read_clock();
            }
        } else if is_ending {
            // Who holds a pipe then has been asked to end, and is given the time for it; those that it has started
            // meanwhile have it after that.
            self.relays.excuse_silence(now);
        } else if let Linger::Silence(limit) = command.wrap.linger {
            let terminal = command.terminal.as_ref();
            self.relays.leave_what_is_silent(limit, terminal, &mut self.ring, now)?;
        }
        command.follow_modes(&mut self.relays);
        let Some(terminal) = &mut command.terminal else { return Ok(()) };
        terminal.turn(&mut self.ring, now)?;
        for relay in self.relays.iter_mut() {
            if is_hung_up(terminal, relay) {
                relay.stop(&mut self.ring)?;
            }
        }
        Ok(())
    }

    /// Says that nothing comes, and ends a command that has been silent for too long.
    fn watch_silence(&mut self, now: Instant) -> io::Result<()> {
        if self.silence.is_idle() {
            return Ok(());
        }
        let output = match &self.command {
            Some(command) if command.child.stopped => Output::Stopped,
            Some(command) if !command.is_running() && !self.silence.is_over() => return Ok(()),
            // What is on its way yet is its reader's affair.
            None if self.relays.input_is_over() => Output::Waiting,
            _ => self.relays.output(),
        };
        match self.silence.update(output, now) {
            None => {}
            Some(Due::Heartbeat(silent)) => self.show_heartbeat(silent, now),
            Some(Due::Terminate) => self.end_silent_command(now)?,
            Some(Due::Kill) if self.command.is_none() => {
                // Its reader takes nothing. Copies have their own time.
                let streams = self.relays.iter_mut().filter(|relay| relay.role() != Role::Copy);
                for relay in streams {
                    relay.stop(&mut self.ring)?;
                }
            }
            Some(Due::Kill) => {
                self.asked.iter().for_each(|process| process.signal(Signal::SIGKILL))
            }
        }
        Ok(())
    }

    /// Shows what is held back if the command asks for something at its terminal.
    fn watch_prompt(&mut self, now: Instant) {
        if let Some(terminal) = self.hiding_terminal()
            && let Some(leader) = terminal.leader()
        {
            let (leader, device) = (leader.fd().clone(), terminal.device());
            let printed = figures::read(&self.relays, Unit::Bytes);
            if self.prompt.sees_prompt(&*leader, device, printed, now) {
                self.held.end_hiding();
            }
        }
    }

    /// The terminal of a command that runs, while its output is hidden.
    fn hiding_terminal(&self) -> Option<&Terminal> {
        let command = self.command.as_ref().filter(|command| command.is_running())?;
        command.terminal.as_ref().filter(|_| self.held.is_hiding())
    }

    /// Whether something still runs that was asked to end, and has time to do so.
    fn is_ending(&self) -> bool {
        self.silence.is_waiting(self.ring.now()) && self.asked.iter().any(|process| process.runs())
    }

    fn show_heartbeat(&self, silent: Duration, now: Instant) {
        let name = self.command.as_ref().map_or("stdin".into(), |command| command.name());
        let (silent, ran) = (elapsed(silent), elapsed(now.saturating_duration_since(self.started)));
        let memory = self.command.as_ref().and_then(|command| command.memory.in_use());
        let memory = memory.map_or(String::new(), |in_use| format!(", {} in use", bytes(in_use)));
        let text = format!("{name}: no output for {silent}, running for {ran}{memory}");
        notice::notice(self.verbosity, &text);
    }

    /// Asks the command and all that it has started to end. A filter takes nothing more.
    fn end_silent_command(&mut self, now: Instant) -> io::Result<()> {
        let limit = humantime::format_duration(self.silence.limit());
        match &self.command {
            Some(command) => {
                let name = command.name();
                notice::error(&format!("end {name}: no output for {limit} (--idle-timeout)"));
                self.asked = procfs::tree(command.child.pid() as i32);
                self.asked.iter().for_each(|process| process.signal(Signal::SIGTERM));
            }
            None => {
                notice::error(&format!("end: no input for {limit} (--idle-timeout)"));
                self.finish(Ending::CommandEnded, now)?;
            }
        }
        Ok(())
    }

    /// What each completion means: the index of the program.
    fn dispatch(&mut self, completion: Completion) -> io::Result<()> {
        match (completion.token.operation, &mut self.command) {
            (Operation::Signal, _) => self.take_signals()?,
            (Operation::ChildExit | Operation::MonitorEvent, Some(command)) => {
                if command.on_child_event() {
                    self.command_ended()?;
                }
            }
            (Operation::MemoryStall, Some(command)) => command.memory.on_stall(self.ring.now()),
            (Operation::MemoryEvent, Some(command)) => command.memory.on_event(),
            (operation @ (Operation::Key | Operation::KeyRoom), Some(command)) => {
                command.terminal.iter_mut().for_each(|terminal| terminal.polled(operation));
            }
            (
                Operation::ChildExit
                | Operation::MonitorEvent
                | Operation::MemoryStall
                | Operation::MemoryEvent
                | Operation::Key
                | Operation::KeyRoom,
                None,
            )
            // The ring's own.
            | (Operation::FileWritten, _) => {}
            (Operation::CopyWritten, _) => {
                self.lost |= self.writers.collect() && self.tee.failure == TeeFailure::Fail;
            }
            (Operation::Event, _) => self.reports.events_written(completion),
            (Operation::Control, _) => self.reports.answer(&self.relays, &self.ring),
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
                let now = self.ring.now();
                let Token { relay: number, operation, .. } = completion.token;
                let relay = self.relays.completing(number, now);
                let before = Before::new(&completion, relay);
                relay.complete(completion, &mut self.ring, now)?;
                self.reports.completed(before, relay, now);
                self.relays.follow_line(number, operation);
            }
        }
        Ok(())
    }

    /// Takes what has arrived: for the command, as long as there is one.
    fn take_signals(&mut self) -> io::Result<()> {
        let (ended, (interrupt, continued)) = match &mut self.command {
            Some(command) => {
                (command.on_signals(self.verbosity), (command.interrupt.take(), false))
            }
            None => (false, self.interruption.next()),
        };
        let before = self.ring.now();
        self.ring.read_clock();
        let now = self.ring.now();
        if continued || now > before + STOPPED {
            self.was_stopped();
        }
        if ended {
            self.command_ended()?;
        }
        match interrupt {
            Some(arrival) => self.interrupt(arrival),
            None => Ok(()),
        }
    }

    /// This process did not run for a while, and nobody could take anything or be heard.
    fn was_stopped(&mut self) {
        let now = self.ring.now();
        self.silence.restart(now);
        if self.ending != Ending::NotYet {
            self.relays.restart_silence(now);
        }
        self.relays.restart_patience(now);
        self.writers.restart_patience(now);
    }

    /// A signal is meant for us: nothing more is taken, and what was taken goes on for a while.
    fn interrupt(&mut self, arrival: Arrival) -> io::Result<()> {
        let now = self.ring.now();
        let Arrival { signal, from_terminal, .. } = arrival;
        self.reports.event(now, &Event::Signal { signal, from_terminal });
        match (self.interruption.begin(signal, now), &mut self.command) {
            (Request::First, _) => {}
            (Request::Same, _) => return Ok(()),
            (Request::Again, Some(command)) => command.die_by(signal),
            (Request::Again, None) => self.interruption.die_by(signal),
        }
        self.finish(Ending::AskedFor, now)
    }

    /// Nothing more is taken, and what was taken goes on.
    fn finish(&mut self, ending: Ending, now: Instant) -> io::Result<()> {
        self.ending = ending;
        for relay in self.relays.iter_mut().filter(|relay| relay.role().is_first()) {
            relay.finish(&mut self.ring)?;
        }
        self.relays.restart_patience(now);
        self.writers.restart_patience(now);
        Ok(())
    }

    /// What is left goes nowhere, which is told as ever.
    fn give_up(&mut self, now: Instant) -> io::Result<()> {
        for relay in self.relays.iter_mut() {
            relay.stop(&mut self.ring)?;
        }
        self.writers.give_up();
        self.report_ends(now);
        Ok(())
    }

    /// The command is gone: nobody reads its stdin, and its other streams have a time limit from now.
    fn command_ended(&mut self) -> io::Result<()> {
        self.ring.read_clock();
        let now = self.ring.now();
        let Some(command) = &mut self.command else { return Ok(()) };
        command.release();
        child::reap_orphans(&command.child);
        if let Some(exit) = command.child.exit() {
            use libc::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
            self.ending = match exit {
                Exit::Signal(SIGHUP | SIGINT | SIGQUIT | SIGTERM) => Ending::AskedFor,
                _ => Ending::CommandEnded,
            };
            command.memory.command_ended(exit, &mut self.relays, now);
            self.reports.command_ended(now);
        }
        self.relays.restart_silence(now);
        self.relays.restart_patience(now);
        self.writers.restart_patience(now);
        for relay in self.relays.iter_mut().filter(|relay| relay.stream() == Stream::Stdin) {
            relay.stop(&mut self.ring)?;
        }
        Ok(())
    }

    /// Reports, once, how each relay ended.
    fn report_ends(&mut self, now: Instant) {
        let strict = self.tee.failure == TeeFailure::Fail;
        for index in self.relays.new_ends() {
            let relay = &self.relays[index];
            let Some(end) = relay.ended() else { continue };
            if self.held.is_filled_by(index) && relay.counters().undelivered == 0 {
                continue;
            }
            self.reports.ended(relay, end);
            self.lost |= match (end, relay.role()) {
                // Where a thread writes the copy it is the loss that counts. What a reader leaves in a FIFO nobody knows.
                (End::ReaderLeft | End::Closed, Role::Copy) => strict && relay.beyond().is_none(),
                (End::Failed(_), Role::Copy) => strict,
                (End::Failed(_), _) => true,
                _ => false,
            };
            ends::show(relay, end, self.verbosity);
            if relay.role() != Role::Copy {
                self.relays.restart_patience(now);
                self.writers.restart_patience(now);
            }
        }
    }

    /// Moves held output on, if it is to be shown.
    pub(crate) fn advance_held(&mut self, now: Instant) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        for route in self.held.turn(&mut self.relays, self.verbosity, &mut self.ring)? {
            let (number, size) = (self.relays.len() as u8, self.pipe_size);
            let relay = Relay::new(number, route, size, self.coalesce, &mut self.ring);
            let relay = relay.map_err(io::Error::other)?;
            if relay.sink_kind() == Kind::Terminal {
                self.reports.share_screen();
            }
            self.relays.push(relay, now);
        }
        Ok(())
    }

    /// How long the loop may sleep.
    ///
    /// # Errors
    /// If nothing would ever wake it.
    fn time_limit(&self, now: Instant) -> io::Result<Option<Duration>> {
        // The last stream was left in this turn.
        if !self.is_under_way() {
            return Ok(Some(Duration::ZERO));
        }
        let relays = self.relays.deadline(self.ending, now);
        let writers = self.writers.deadline(&self.relays, self.ending);
        let command = self.command.as_ref().and_then(|command| match command.is_running() {
            true => command.memory.deadline(),
            false => match command.wrap.linger {
                Linger::EndOfFile => None,
                Linger::Silence(_) if self.is_ending() => None,
                Linger::Silence(limit) => {
                    self.relays.silent_since().map(|since| since + limit.max(LOOK_AGAIN))
                }
            },
        });
        let stop = self.command.as_ref().and_then(Command::stop_deadline);
        let terminal = self.command.as_ref().and_then(|command| command.terminal.as_ref());
        let keys = terminal.and_then(Terminal::deadline);
        let reports = self.reports.deadline();
        // Without a leader, after a hang-up, nobody asks.
        let shown = self.hiding_terminal().filter(|terminal| terminal.leader().is_some());
        let prompt = shown.map(|_| self.prompt.deadline());
        let watched =
            self.silence.is_over() || self.command.as_ref().is_none_or(Command::is_running);
        let silence = self.silence.deadline(now).filter(|_| watched);
        let waits = relays.into_iter().chain(writers).chain(silence).chain(command).chain(stop);
        let all = waits.chain(keys).chain(prompt).chain(reports);
        let all = all.chain(self.interruption.deadline());
        match all.min() {
            Some(next) => Ok(Some(next.saturating_duration_since(now))),
            None if self.ring.is_idle() => Err(io::Error::other("nothing is left to wait for")),
            None => Ok(None),
        }
    }
}
