//! The child in nproxy's charge: the signals meant for it, its stops, its end.

use std::io;
use std::time::Instant;

use nix::poll::PollFlags;

use super::child::{self, Change, Child};
use super::signals::{Arrival, Signals, Whom};
use super::terminal::{Keys, Terminal};
use super::watch::Watch;
use super::{job, notice};
use crate::config::{Config, ForwardTo, Wrap};
use crate::ring::{Op, Operation, Ring, Token};

/// The child in our charge, and the signals meant for it.
#[derive(Debug)]
pub(super) struct Charge<'c> {
    pub(super) wrap: &'c Wrap,
    pub(super) child: Child,
    pub(super) watch: Watch<'c>,
    /// The child's terminal, if it has one of its own.
    pub(super) terminal: Option<Terminal>,
    pub(super) signals: Signals,
    /// Signals that came and have not been told of.
    pub(super) arrivals: Vec<(Instant, Arrival)>,
    /// Signals that somebody wanted the child at its own terminal to have: no key has sent them.
    pub(super) asked_for: Vec<i32>,
    /// The key whose signal the child at its own terminal has died of.
    pub(super) ended_by_key: Option<i32>,
    signals_polled: bool,
    news_polled: bool,
}

impl<'c> Charge<'c> {
    pub(super) fn new(
        wrap: &'c Wrap,
        child: Child,
        watch: Watch<'c>,
        terminal: Option<Terminal>,
        signals: Signals,
    ) -> Charge<'c> {
        Charge {
            wrap,
            child,
            watch,
            terminal,
            signals,
            arrivals: Vec::new(),
            asked_for: Vec::new(),
            ended_by_key: None,
            signals_polled: false,
            news_polled: false,
        }
    }

    /// Takes note that there is something to learn of the child. True if it has ended.
    pub(super) fn on_news(&mut self) -> bool {
        self.news_polled = false;
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

    /// What was meant for the child is void now; what comes from here on is meant for nproxy. While our terminal is
    /// raw, signals still come through the loop, which puts the terminal right before it dies of one.
    pub(super) fn release_signals(&mut self) {
        while let Some(arrival) = self.signals.next() {
            let key =
                arrival.from_terminal && matches!(arrival.signal, libc::SIGINT | libc::SIGQUIT);
            if key
                && self.terminal.as_ref().is_some_and(|terminal| terminal.keys() == Keys::OnDemand)
            {
                self.child.was_overtaken_by(arrival.signal);
            }
        }
        if !self.terminal.as_ref().is_some_and(Terminal::is_taken) {
            self.signals.release();
        }
    }

    /// Keeps the two fds polled that tell of the child and of signals.
    pub(super) fn arm(&mut self, ring: &mut Ring) -> io::Result<()> {
        let ended = self.child.exit().is_some();
        let released = ended && !self.terminal.as_ref().is_some_and(Terminal::is_taken);
        if !ended {
            self.watch.arm(ring)?;
        }
        if !self.signals_polled && !released {
            let op = Op::poll(self.signals.fd(), PollFlags::POLLIN);
            ring.submit(Token::session(Operation::Signal), op)?;
            self.signals_polled = true;
        }
        if let Some((fd, operation)) = self.child.news()
            && !self.news_polled
            && !ended
        {
            ring.submit(Token::session(operation), Op::poll(fd, PollFlags::POLLIN))?;
            self.news_polled = true;
        }
        Ok(())
    }

    /// Forwards what has arrived. True if the child turned out to have ended.
    pub(super) fn on_signals(&mut self, config: &Config) -> bool {
        self.signals_polled = false;
        while let Some(arrival) = self.signals.next() {
            notice::event(config.verbosity, &format!("{arrival:?}"));
            if arrival.signal != libc::SIGCHLD {
                self.arrivals.push((Instant::now(), arrival));
            }
            if self.child.exit().is_some() {
                self.end_by(arrival.signal);
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
                libc::SIGCONT => self.follow_continue(),
                // The terminal has told the child itself, as a member of the same group.
                _ if arrival.from_terminal && self.wrap.forward_to == ForwardTo::Child => {}
                signal => self.child.signal(signal),
            }
        }
        self.child.exit().is_none() && self.child.news().is_none() && self.reap()
    }

    /// Passes a signal on to a child at a terminal of its own.
    fn pass_on(&mut self, arrival: Arrival) {
        match arrival.signal {
            // The monitor's, or an orphan's: the monitor itself is heard of through its socket.
            libc::SIGCHLD => child::reap_orphans(&self.child),
            libc::SIGCONT => self.resume(),
            signal if arrival.from_terminal => self.pass_key_on(signal),
            signal => {
                self.asked_for.push(signal);
                self.child.signal(signal);
            }
        }
    }

    /// The child has ended and its last bytes are on their way: a signal is meant for us now.
    fn end_by(&mut self, signal: i32) {
        if matches!(signal, libc::SIGCHLD | libc::SIGCONT | libc::SIGWINCH | libc::SIGURG) {
            return;
        }
        if let Some(terminal) = &mut self.terminal {
            terminal.give_back();
        }
        self.signals.raise(signal);
    }

    /// A child that has stopped stops us too, so that the shell sees its job stopped.
    fn follow_stop(&mut self) {
        if let Some(Change::Stopped(signal)) = self.last_change() {
            self.stop_with_child(signal);
        }
    }

    /// We were continued: the child too, unless whoever did it spoke to the whole group. It may even have
    /// been stopped again since (fg and at once Ctrl-Z), and its earlier news is then gone.
    fn follow_continue(&mut self) {
        match self.last_change() {
            Some(Change::Stopped(signal)) => self.stop_with_child(signal),
            Some(Change::Continued) => {}
            Some(Change::Told) | None => {
                self.child.give_terminal();
                self.child.signal(libc::SIGCONT);
            }
        }
    }

    fn stop_with_child(&self, signal: i32) {
        if !job::group_is_orphaned() {
            self.signals.stop(Whom::Ourselves, signal);
        }
    }

    /// The newest of the child's changes that nobody has heard of.
    fn last_change(&mut self) -> Option<Change> {
        std::iter::from_fn(|| self.child.next_change()).last()
    }
}
