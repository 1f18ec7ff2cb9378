//! The command while it runs: the signals meant for it, its stops, its end.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::poll::PollFlags;

use super::memory::MemoryWatch;
use crate::config::{ForwardTo, Verbosity, Wrap};
use crate::notice;
use crate::observe::events::Event;
use crate::process::child::{self, Child, JobChange};
use crate::process::procfs;
use crate::process::signals::{Arrival, Signals, Whom};
use crate::process::spawn::Placement;
use crate::reports::Reports;
use crate::ring::{Op, Operation, Ring, Token};
use crate::terminal::Terminal;
use crate::units::harmless;

/// The command, its terminal and its memory, and the signals meant for it.
#[derive(Debug)]
pub(crate) struct Command<'c> {
    pub(crate) wrap: &'c Wrap,
    pub(crate) child: Child,
    pub(crate) memory: MemoryWatch<'c>,
    /// The child's terminal, if it has one of its own.
    pub(crate) terminal: Option<Terminal>,
    pub(crate) signals: Signals,
    /// Signals that came and have not become events.
    pub(crate) arrivals: Vec<(Instant, Arrival)>,
    /// Stop signals that have reached our group, or were not meant for it, and when: if the child stops by one, only we
    /// follow.
    pub(crate) group_has_had: Vec<(i32, Instant)>,
    /// When we were continued though the child had not been seen to stop by the key that stopped us all.
    pub(crate) continued_ahead: Option<Instant>,
    /// Among the signals just taken is one by which programs are asked to end.
    asked_to_end: bool,
    /// The child has had a SIGHUP because nobody can put it into the foreground.
    pub(crate) told_of_no_terminal: bool,
    /// The signal by which nproxy has told the child at its own terminal that one of its streams is gone.
    pub(crate) hung_up_by: Option<i32>,
    /// Whether the child's group started in the foreground of its own terminal, or was put there.
    pub(crate) child_is_in_front: bool,
    /// Ends of ptys for single streams, held for the child until it has ended.
    followers: Vec<OwnedFd>,
    signals_polled: bool,
    /// A signal that came after the child's end, and is meant for us.
    pub(crate) interrupt: Option<Arrival>,
    child_polled: bool,
}

/// Whether the command was stopped or continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changes {
    None,
    OfState,
}

impl<'c> Command<'c> {
    pub(crate) fn new(
        wrap: &'c Wrap,
        child: Child,
        memory: MemoryWatch<'c>,
        terminal: Option<Terminal>,
        followers: Vec<OwnedFd>,
        signals: Signals,
    ) -> Command<'c> {
        let placement = terminal.as_ref().map(Terminal::placement);
        Command {
            wrap,
            child,
            memory,
            terminal,
            signals,
            arrivals: Vec::new(),
            group_has_had: Vec::new(),
            continued_ahead: None,
            asked_to_end: false,
            told_of_no_terminal: false,
            hung_up_by: None,
            child_is_in_front: placement == Some(Placement::Foreground),
            followers,
            signals_polled: false,
            interrupt: None,
            child_polled: false,
        }
    }

    /// What messages call it: its program.
    pub(crate) fn name(&self) -> String {
        harmless(&self.wrap.program.to_string_lossy())
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&self) -> bool {
        self.child.exit().is_none()
    }

    /// When we stop as the command has, even if its output still waits.
    pub(crate) fn stop_deadline(&self) -> Option<Instant> {
        Some(self.terminal.as_ref()?.stop?.deadline)
    }

    /// Makes events of what has befallen the command.
    pub(crate) fn record_changes(&mut self, reports: &mut Reports<'_>) -> Changes {
        let changes = if self.child.changes.is_empty() { Changes::None } else { Changes::OfState };
        for (at, arrival) in self.arrivals.drain(..) {
            let from_terminal = arrival.from_terminal;
            reports.event(at, &Event::Signal { signal: arrival.signal, from_terminal });
        }
        for (at, change) in self.child.changes.drain(..) {
            match change {
                JobChange::Stopped(signal) => reports.event(at, &Event::Stop { signal }),
                JobChange::Continued => reports.event(at, &Event::Continue),
                JobChange::HangUpAnnounced => {}
            }
        }
        changes
    }

    /// Takes note that there is something to learn of the child. True if it has ended.
    pub(crate) fn on_child_event(&mut self) -> bool {
        self.child_polled = false;
        let ended = self.reap();
        self.follow_monitor();
        ended
    }

    fn reap(&mut self) -> bool {
        match self.child.reap() {
            Ok(exit) => exit.is_some(),
            Err(error) => {
                notice::error(&error);
                if let Some(terminal) = &mut self.terminal {
                    terminal.hang_up();
                }
                true
            }
        }
    }

    /// The command has ended, and its terminals end with whoever else has them open. What was meant for the child is void
    /// now; what comes from here on is meant for nproxy.
    pub(crate) fn release(&mut self) {
        self.terminal.iter_mut().for_each(Terminal::release);
        self.followers.clear();
        while let Some(arrival) = self.signals.next() {
            let key =
                arrival.from_terminal && matches!(arrival.signal, libc::SIGINT | libc::SIGQUIT);
            if key && self.terminal.is_some() {
                self.child.was_overtaken_by(arrival.signal);
            }
        }
    }

    /// Keeps the two fds polled that tell of the child and of signals.
    pub(crate) fn arm(&mut self, ring: &mut Ring) -> io::Result<()> {
        let ended = self.child.exit().is_some();
        if !ended {
            self.memory.arm(ring)?;
        }
        if !self.signals_polled {
            let op = Op::poll(self.signals.fd(), PollFlags::POLLIN);
            ring.submit(Token::session(Operation::Signal), op)?;
            self.signals_polled = true;
        }
        if let Some((fd, operation)) = self.child.event_source()
            && !self.child_polled
            && !ended
        {
            ring.submit(Token::session(operation), Op::poll(fd, PollFlags::POLLIN))?;
            self.child_polled = true;
        }
        Ok(())
    }

    /// Forwards what has arrived. True if the child turned out to have ended.
    pub(crate) fn on_signals(&mut self, verbosity: Verbosity) -> bool {
        self.signals_polled = false;
        let mut resumed = false;
        self.asked_to_end = false;
        while let Some(arrival) = self.signals.next() {
            self.asked_to_end |= arrival.asks_to_end();
            notice::event(verbosity, &format!("{arrival:?}"));
            if arrival.signal != libc::SIGCHLD && self.child.exit().is_none() {
                self.arrivals.push((Instant::now(), arrival));
            }
            if self.child.exit().is_some() {
                self.be_interrupted(arrival);
                continue;
            }
            if self.terminal.is_some() {
                self.pass_on(arrival);
                continue;
            }
            match arrival.signal {
                libc::SIGCHLD => {
                    self.follow_stop();
                    child::reap_orphans(&self.child);
                }
                libc::SIGCONT => resumed |= self.follow_continue(),
                // It came after the SIGCONT that we have just passed on, perhaps before that was passed on, and was undone by it.
                libc::SIGTSTP if arrival.from_terminal && resumed => {
                    self.child.signal(libc::SIGTSTP);
                }
                // The terminal has told the child itself, as a member of the same group. Of its end it tells only the
                // leader of the session.
                signal
                    if arrival.from_terminal
                        && self.wrap.forward_to == ForwardTo::Child
                        && !(signal == libc::SIGHUP && procfs::leads_session()) => {}
                signal => match arrival.payload {
                    Some(payload) => self.child.queue(signal, payload),
                    None => self.child.signal(signal),
                },
            }
        }
        self.child.exit().is_none() && self.child.event_source().is_none() && self.reap()
    }

    /// Our group has had this signal, or was not meant to have it.
    pub(crate) fn note_had(&mut self, signal: i32) {
        self.group_has_had.retain(|(other, _)| *other != signal);
        self.group_has_had.push((signal, Instant::now()));
    }

    /// Passes a signal on to a child at a terminal of its own.
    fn pass_on(&mut self, arrival: Arrival) {
        match arrival.signal {
            // The monitor's, or an orphan's: the monitor itself is heard of through its socket.
            libc::SIGCHLD => child::reap_orphans(&self.child),
            libc::SIGCONT => self.resume(),
            signal if arrival.from_terminal => self.pass_key_on(signal),
            signal @ (libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT) => {
                self.child.signal_foreground(signal);
            }
            signal => {
                self.note_had(signal);
                self.child.signal(signal);
            }
        }
    }

    /// The child has ended and its last bytes are on their way: a signal is meant for us now. Our terminal is put right
    /// before it has its effect.
    fn be_interrupted(&mut self, arrival: Arrival) {
        match arrival.signal {
            libc::SIGCHLD => child::reap_orphans(&self.child),
            libc::SIGCONT | libc::SIGWINCH | libc::SIGURG => {}
            // It waits, as it would have.
            signal if self.signals.was_blocked(signal) => {}
            libc::SIGHUP | libc::SIGINT | libc::SIGTERM => {
                self.terminal = None;
                self.interrupt.get_or_insert(arrival);
            }
            libc::SIGTSTP => {
                self.terminal = None;
                self.signals.stop(Whom::Ourselves, libc::SIGTSTP);
            }
            signal => {
                self.terminal = None;
                self.die_by(signal);
            }
        }
    }

    /// Gives signals their usual effect back, and this one its effect now.
    pub(crate) fn die_by(&mut self, signal: i32) {
        // Nothing is dropped any more.
        self.memory.leave_group();
        self.signals.raise(signal);
    }

    /// A child that has stopped stops us too, so that the shell sees its job stopped.
    fn follow_stop(&mut self) {
        if let Some(JobChange::Stopped(signal)) = self.last_change() {
            self.stop_with_child(signal);
        }
    }

    /// We were continued: the child too, unless whoever did it spoke to the whole group. It may even have
    /// been stopped again since (fg and at once Ctrl-Z), and its earlier change is then not to be seen. Whether we have
    /// continued it.
    fn follow_continue(&mut self) -> bool {
        match self.last_change() {
            Some(JobChange::Stopped(signal)) => self.stop_with_child(signal),
            Some(JobChange::Continued) => {}
            Some(JobChange::HangUpAnnounced) | None => {
                self.child.give_terminal();
                self.child.signal(libc::SIGCONT);
                return true;
            }
        }
        false
    }

    /// Not if we were asked to end a moment ago: a SIGCONT that came with that is about to be read, or the stop before it has
    /// undone it.
    fn stop_with_child(&self, signal: i32) {
        if self.asked_to_end {
            self.child.signal(libc::SIGCONT);
        } else if !procfs::group_is_orphaned() {
            self.signals.stop(Whom::Ourselves, signal);
        }
    }

    /// The newest of the child's changes that nobody has heard of.
    fn last_change(&mut self) -> Option<JobChange> {
        std::iter::from_fn(|| self.child.next_change()).last()
    }
}
