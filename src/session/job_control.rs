//! The shell's job control, and the child's.
//!
//! The child at its pty is in a session of its own, so the shell stops and continues nproxy, not the
//! child. The two are kept in step here. A child that stops (Ctrl-Z, or a background read) has its output
//! shown, then nproxy stops by the same signal, so that the shell sees it. Continued, nproxy continues the child's group,
//! in the foreground of its terminal if it has that of its own.

use std::time::{Duration, Instant};

use super::command::Command;
use crate::process::child::JobChange;
use crate::process::procfs;
use crate::process::signals::Whom;
use crate::process::spawn::Placement;
use crate::relay::{End, Kind, Relay, Role, Stream};
use crate::terminal::{Stop, Terminal};

/// How long a child may take to stop by a signal that it was sent.
const SIGNAL_TAKES_EFFECT: Duration = Duration::from_secs(5);

/// How long a stopped child's last output may keep us from stopping too.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

impl Command<'_> {
    /// Keeps in step with what the monitor has reported.
    pub(crate) fn follow_monitor(&mut self) {
        while let Some(change) = self.child.next_change() {
            let stopped = match change {
                JobChange::Stopped(signal) => Some(signal),
                JobChange::Continued | JobChange::HangUpAnnounced => None,
            };
            let Some(terminal) = &mut self.terminal else { return };
            match (change, stopped) {
                (_, Some(signal)) => self.child_stopped(signal),
                (JobChange::HangUpAnnounced, _) => terminal.hang_up(),
                _ => terminal.stop = None,
            }
        }
    }

    fn child_stopped(&mut self, signal: i32) {
        let recent = |at: Instant| Instant::now() < at + SIGNAL_TAKES_EFFECT;
        if self.continued_ahead.take().is_some_and(recent) {
            // Whoever continued us meant this stop too, of which we had not heard by then.
            return self.resume();
        }
        let Some(terminal) = &mut self.terminal else { return };
        let wants_terminal = matches!(signal, libc::SIGTTIN | libc::SIGTTOU);
        let placement = terminal.placement();
        if wants_terminal && placement == Placement::Foreground && !self.child_is_in_front {
            self.resume();
        } else if !procfs::group_is_orphaned() {
            terminal.stop = Some(Stop { signal, deadline: Instant::now() + LAST_OUTPUT });
        } else if wants_terminal && placement == Placement::Background {
            // Nobody can give it what it waits for: the kernel tells such groups so by a SIGHUP.
            if std::mem::replace(&mut self.told_of_no_terminal, true) {
                // It has not ended by that, and would stop and be continued for ever.
                terminal.leave();
                self.child.announce_hang_up(libc::SIGHUP);
            } else {
                self.child.signal_foreground(libc::SIGHUP);
            }
            self.proceed(Placement::Background);
        } else if signal != libc::SIGSTOP {
            // The kernel would not have stopped it at our terminal.
            self.proceed(placement);
        }
    }

    fn proceed(&mut self, placement: Placement) {
        self.child_is_in_front = placement == Placement::Foreground;
        self.child.proceed(placement);
    }

    /// Stops this process once the child's last output is on the screen. Whether that was now.
    pub(crate) fn stop_if_due(&mut self, relays: &[Relay], now: Instant) -> bool {
        let Some(terminal) = &mut self.terminal else { return false };
        let Some(stop) = terminal.stop else { return false };
        let mut outputs = relays.iter().filter(|relay| relay.stream() != Stream::Stdin);
        let quiet = outputs.all(|relay| {
            relay.role() == Role::Copy || relay.ended().is_some() || relay.is_silent()
        });
        if !quiet && now < stop.deadline {
            return false;
        }
        if self.signals.continue_is_pending() {
            // A stop would throw it away. It is for this stop, and about to be read.
            terminal.stop = None;
            return false;
        }
        // A key has reached all of our group by itself. Where the child has sent the signal, it would have.
        let had = self
            .group_has_had
            .iter()
            .any(|(signal, at)| *signal == stop.signal && now < *at + SIGNAL_TAKES_EFFECT);
        let whom =
            if had || stop.signal == libc::SIGSTOP { Whom::Ourselves } else { Whom::OurGroup };
        self.group_has_had.retain(|(signal, _)| *signal != stop.signal);
        self.signals.stop(whom, stop.signal);
        terminal.stop = None;
        if !self.signals.continue_is_pending() {
            // The kernel did not stop us after all.
            self.resume();
        }
        true
    }

    /// We were continued: so is the child, in the foreground if we have it.
    pub(crate) fn resume(&mut self) {
        let Some(terminal) = &mut self.terminal else { return };
        let stops = |(signal, at): &(i32, Instant)| {
            *signal == libc::SIGTSTP && Instant::now() < *at + SIGNAL_TAKES_EFFECT
        };
        if !self.child.stopped && self.group_has_had.iter().any(stops) {
            self.continued_ahead = Some(Instant::now());
        }
        terminal.stop = None;
        let placement = terminal.placement();
        if placement == Placement::Foreground {
            terminal.enter_foreground();
        }
        self.proceed(placement);
    }

    /// Our terminal sent a signal to our group, of which the child is no member.
    pub(crate) fn pass_key_on(&mut self, signal: i32) {
        let Some(terminal) = &mut self.terminal else { return };
        match signal {
            libc::SIGHUP if !terminal.is_leaving() => {
                terminal.leave();
                self.child.announce_hang_up(libc::SIGHUP);
            }
            libc::SIGHUP => {}
            libc::SIGWINCH => terminal.resize(),
            _ => {
                self.continued_ahead = None;
                self.child.expect_key(signal);
                if !self.child_is_in_front || !terminal.signal(signal) {
                    self.child.signal_foreground(signal);
                }
                self.note_had(signal);
            }
        }
    }

    /// Follows what a pty's leader has told, once everything before that is where it belongs.
    pub(crate) fn follow_modes(&mut self, relays: &mut [Relay]) {
        let follows = |relay: &Relay| relay.is_followed() && relay.ended().is_none();
        let Some(first) = relays.iter().position(follows) else { return };
        let Some(terminal) = &mut self.terminal else {
            // Nobody follows any more.
            relays[first].ignore_status();
            return;
        };
        if relays[first].status().is_none() && !terminal.is_due() {
            return;
        }
        let stream = relays[first].stream();
        let mut chain =
            relays.iter().filter(|relay| relay.stream() == stream && relay.role() != Role::Copy);
        if !chain.all(|relay| relay.ended().is_some() || relay.has_passed_on()) {
            return;
        }
        let taken = relays[first].counters().taken;
        let newlines = match relays[first].status() {
            Some(status) => Some(terminal.on_status(status, taken)),
            None => terminal.on_passed(taken, relays[first].is_silent()),
        };
        if let Some(newlines) = newlines {
            relays[first].resume(newlines);
        }
    }

    /// The child's terminal lives no longer than what is behind it: a screen that is gone hangs it up,
    /// and so does a reader that leaves the end of a pipe.
    pub(crate) fn follow_ends(&mut self, relays: &[Relay]) {
        let Some(terminal) = &mut self.terminal else { return };
        if terminal.is_leaving() || self.child.exit().is_some() {
            return;
        }
        let carriers = relays
            .iter()
            .filter(|relay| relay.stream() == terminal.carrier() && relay.role().is_of_stream());
        let signal = carriers.filter_map(Relay::ended).find_map(|end| match end {
            // The child's side is closed: its end is about to be reported.
            End::Delivered => None,
            // As a pipe would have told it.
            End::ReaderLeft | End::Closed => Some(libc::SIGPIPE),
            _ => Some(libc::SIGHUP),
        });
        let lost = terminal.is_lost().then_some(libc::SIGHUP);
        if let Some(signal) = lost.or(signal) {
            terminal.leave();
            self.hung_up_by = Some(signal);
            self.child.announce_hang_up(signal);
        }
    }
}

/// Whether the terminal has been hung up under a relay that still holds it.
pub(crate) fn is_hung_up(terminal: &Terminal, relay: &Relay) -> bool {
    terminal.leader().is_none()
        && (relay.sink_kind() == Kind::Leader || relay.source_kind() == Kind::Leader)
}
