//! Who has our terminal: the shell, or the child through us.
//!
//! The child at its pty is in a session of its own, so the shell stops and continues nproxy, not the
//! child. The two are kept in step here. A child that stops (Ctrl-Z, or a background read) has its output
//! shown, then nproxy gives the terminal back and stops by the same signal, so that the shell sees
//! it. Continued, nproxy takes the terminal if it has the foreground and continues the child's group.

use std::time::{Duration, Instant};

use super::command::Command;
use crate::process::child::JobChange;
use crate::process::exit::Exit;
use crate::process::procfs;
use crate::process::signals::Whom;
use crate::process::spawn::Placement;
use crate::relay::{End, Kind, Relay, Role, Stream};
use crate::terminal::{Keys, Stop, Terminal};

/// How long a child may take to die of a key, or of a signal that was passed on to it.
const KEY_TAKES_EFFECT: Duration = Duration::from_secs(5);

/// How long a stopped child's last output may keep us from stopping too.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

impl Command<'_> {
    /// Takes the terminal for a child that has just been started with the keys.
    pub(crate) fn take_terminal(&mut self) {
        if let Some(terminal) = &mut self.terminal
            && terminal.keys() == Keys::WhenOurs
            && terminal.is_ours()
        {
            terminal.take();
        }
    }

    /// Keeps in step with what the monitor has reported.
    pub(crate) fn follow_monitor(&mut self) {
        while let Some(change) = self.child.next_change() {
            match change {
                JobChange::Stopped(signal) => self.child_stopped(signal),
                JobChange::Continued => {
                    if let Some(terminal) = &mut self.terminal {
                        terminal.stop = None;
                    }
                }
                JobChange::HangUpAnnounced => {
                    if let Some(terminal) = &mut self.terminal {
                        terminal.hang_up();
                    }
                }
            }
        }
    }

    fn child_stopped(&mut self, signal: i32) {
        let Some(terminal) = &mut self.terminal else { return };
        let wants_terminal = matches!(signal, libc::SIGTTIN | libc::SIGTTOU);
        if wants_terminal && terminal.is_ours() && !terminal.is_taken() {
            terminal.take();
            self.child.proceed(Placement::Foreground);
        } else if !procfs::group_is_orphaned() {
            terminal.stop = Some(Stop { signal, deadline: Instant::now() + LAST_OUTPUT });
        } else if wants_terminal {
            // Nobody can give it what it waits for: the kernel tells such groups so by a SIGHUP.
            self.child.signal_foreground(libc::SIGHUP);
            self.child.proceed(Placement::Background);
        } else if signal != libc::SIGSTOP {
            // The kernel would not have stopped it at our terminal.
            let taken = terminal.is_taken();
            self.child.proceed(if taken { Placement::Foreground } else { terminal.placement() });
        }
    }

    /// Stops this process once the child's last output is on the screen and no key is being read.
    pub(crate) fn stop_if_due(&mut self, relays: &[Relay], now: Instant) {
        let Some(terminal) = &mut self.terminal else { return };
        let Some(stop) = terminal.stop else { return };
        let quiet = relays.iter().all(|relay| match relay.stream() {
            Stream::Stdin => !(writes_keys(relay) && relay.is_reading()),
            _ => relay.role() == Role::Copy || relay.ended().is_some() || relay.is_silent(),
        });
        if !quiet && now < stop.deadline {
            return;
        }
        terminal.give_back();
        let whom = match stop.signal {
            libc::SIGSTOP => Whom::Ourselves,
            signal if was_asked_for(&self.asked_for, signal, now) => Whom::Ourselves,
            _ => Whom::OurGroup,
        };
        self.asked_for.retain(|(signal, _)| *signal != stop.signal);
        self.signals.stop(whom, stop.signal);
        terminal.stop = None;
        if !self.signals.continue_is_pending() {
            // The kernel did not stop us after all.
            self.resume();
        }
    }

    /// The child has died of what a key does (Ctrl-C, Ctrl-\\): at the terminal itself the key would have reached our
    /// group too, the script or make(1) that has started us. `key_came` says when the last key was read.
    pub(crate) fn follow_key(&mut self, key_came: Option<Instant>, now: Instant) {
        let Some(Exit::Signal(signal @ (libc::SIGINT | libc::SIGQUIT))) = self.child.exit() else {
            return;
        };
        let taken = self.terminal.as_ref().is_some_and(Terminal::is_taken);
        let recent = key_came.is_some_and(|at| now < at + KEY_TAKES_EFFECT);
        // One that was handled is no reason for what a later key does.
        let mut asked_for = self.asked_for.clone();
        asked_for.retain(|(_, at)| key_came.is_none_or(|key_came| key_came < *at));
        if taken && recent && !was_asked_for(&asked_for, signal, now) {
            self.ended_by_key = Some(signal);
        }
    }

    /// We were continued: so is the child, in the foreground if we have it.
    pub(crate) fn resume(&mut self) {
        let Some(terminal) = &mut self.terminal else { return };
        terminal.stop = None;
        let placement = terminal.placement();
        if terminal.is_ours() {
            if terminal.is_taken() || placement == Placement::Foreground {
                terminal.take();
            }
        } else {
            terminal.give_back();
        }
        let taken = terminal.is_taken();
        self.child.proceed(if taken { Placement::Foreground } else { placement });
    }

    /// A key at our terminal sent a signal to our group, of which the child is no member.
    pub(crate) fn pass_key_on(&mut self, signal: i32) {
        match (signal, &mut self.terminal) {
            (libc::SIGHUP, Some(terminal)) if !terminal.is_leaving() => {
                terminal.leave();
                self.child.announce_hang_up(libc::SIGHUP);
            }
            (libc::SIGHUP, Some(_)) => {}
            (libc::SIGWINCH, Some(terminal)) => {
                terminal.resize();
                if !terminal.is_taken() {
                    // In the background of its own terminal it has not been told.
                    self.child.signal(libc::SIGWINCH);
                }
            }
            (_, Some(terminal)) if terminal.keys() == Keys::OnDemand && !terminal.is_taken() => {
                self.child.signal_group(signal);
            }
            _ => self.child.signal_foreground(signal),
        }
    }

    /// The child's terminal lives no longer than what is behind it: a screen that is gone hangs it up,
    /// and so does a reader that leaves the end of a pipe.
    pub(crate) fn follow_ends(&mut self, relays: &[Relay]) {
        let Some(terminal) = &mut self.terminal else { return };
        if relays.iter().any(|relay| relay.stream() == Stream::Stderr && relay.ended().is_some()) {
            terminal.close_side();
        }
        if terminal.is_leaving() || self.child.exit().is_some() {
            return;
        }
        let mut ends = relays.iter().filter_map(|relay| Some((relay, relay.ended()?)));
        let signal = ends.find_map(|(relay, end)| match end {
            _ if relay.stream() == Stream::Stdin => {
                let lost = writes_keys(relay) && terminal.keys() != Keys::Elsewhere;
                lost.then_some(libc::SIGHUP)
            }
            _ if relay.stream() != Stream::Stdout || relay.role() == Role::Copy => None,
            // The child's side is closed: its end is about to be reported.
            End::Delivered => None,
            // As a pipe would have told it.
            End::ReaderLeft | End::Closed => Some(libc::SIGPIPE),
            _ => Some(libc::SIGHUP),
        });
        if let Some(signal) = signal {
            terminal.leave();
            self.hung_up_by = Some(signal);
            self.child.announce_hang_up(signal);
        }
    }
}

/// Whether somebody has sent this signal, so lately that what the child does now may come of it.
fn was_asked_for(asked_for: &[(i32, Instant)], signal: i32, now: Instant) -> bool {
    asked_for.iter().any(|(asked, at)| *asked == signal && now < *at + KEY_TAKES_EFFECT)
}

/// Whether a relay feeds the child's terminal.
pub(crate) fn writes_keys(relay: &Relay) -> bool {
    relay.sink_kind() == Kind::Leader
}

/// Whether the terminal has been hung up under a relay that still holds it.
pub(crate) fn is_hung_up(terminal: &Terminal, relay: &Relay) -> bool {
    terminal.leader().is_none() && (writes_keys(relay) || relay.source_kind() == Kind::Leader)
}
