//! A signal that is meant for nproxy itself: any that a filter gets, and what comes when the command has ended already.
//!
//! Nothing more is taken then, and what was taken goes on for a while: bytes, the lines of a screen, reports. A second
//! signal has its usual effect at once, but for one that is part of the same request: where a terminal closes, the shell and
//! the kernel both say so.

use std::io;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::signals::{Arrival, Signals};
use crate::error::Error;
use crate::ring::{Op, Operation, Ring, Token};

/// Signals that come closer together than this are one request.
const SAME: Duration = Duration::from_millis(200);
/// How long what was taken may take to go on.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct Interruption {
    /// Those of a filter; a command's come from elsewhere.
    signals: Option<Signals>,
    polled: bool,
    begun: Option<(i32, Instant)>,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    First,
    /// The same again.
    Same,
    /// An end at once.
    Again,
}

impl Interruption {
    /// For a filter, which then hears of what asks it to end.
    ///
    /// # Errors
    /// What signalfd(2) says.
    pub(crate) fn of_filter() -> Result<Interruption, Error> {
        Ok(Interruption { signals: Some(Signals::take_interrupts()?), ..Interruption::default() })
    }

    /// Keeps the signals polled.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub(crate) fn arm(&mut self, ring: &mut Ring) -> io::Result<()> {
        match &self.signals {
            Some(signals) if !self.polled => {
                self.polled = true;
                let op = Op::poll(signals.fd(), PollFlags::POLLIN);
                ring.submit(Token::session(Operation::Signal), op)
            }
            _ => Ok(()),
        }
    }

    /// What a filter has been sent, and whether it was continued, so stopped before.
    pub(crate) fn next(&mut self) -> (Option<Arrival>, bool) {
        self.polled = false;
        let mut arrived = std::iter::from_fn(|| self.signals.as_ref()?.next());
        let mut continued = false;
        let arrival = arrived.find(|arrival| {
            continued |= arrival.signal == libc::SIGCONT;
            arrival.signal != libc::SIGCONT
        });
        (arrival, continued)
    }

    /// This signal ends the run.
    pub(crate) fn begin(&mut self, signal: i32, now: Instant) -> Request {
        match self.begun {
            None => {
                self.begun = Some((signal, now));
                Request::First
            }
            Some((_, at)) if now < at + SAME => Request::Same,
            Some(_) => Request::Again,
        }
    }

    /// Gives a filter's signals their usual effect back: what is left to do is to report. One that has come meanwhile ends
    /// the run all the same.
    pub(crate) fn release(&mut self, now: Instant) {
        if let Some(signals) = self.signals.take() {
            self.take_last(&signals, now);
        }
    }

    /// The same, of the signals that were a command's.
    pub(crate) fn take_last(&mut self, signals: &Signals, now: Instant) {
        let ends = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM];
        while let Some(arrival) = signals.next() {
            if ends.contains(&arrival.signal) && !signals.was_blocked(arrival.signal) {
                self.begin(arrival.signal, now);
            }
        }
        signals.release();
    }

    /// Gives signals their usual effect back, and this one its effect now.
    pub(crate) fn die_by(&self, signal: i32) {
        self.signals.iter().for_each(|signals| signals.raise(signal));
    }

    /// The signal that ends the run.
    pub(crate) fn signal(&self) -> Option<i32> {
        self.begun.map(|(signal, _)| signal)
    }

    /// Up to when what was taken may go on.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.begun.map(|(_, at)| at + PATIENCE)
    }
}
