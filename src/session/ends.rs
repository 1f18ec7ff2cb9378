//! How streams end when nobody ends them, and what the user is told of each end.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::charge::Charge;
use super::job::{Held, Holder};
use super::{Session, job, notice};
use crate::config::{Linger, TeeFailure};
use crate::error::Error;
use crate::relay::{End, Endpoint, Kind, OnFull, Place, Relay};

/// How long a leg can hold up the end of a run without taking any bytes, if it may lose them or the run was asked to
/// end by a signal.
const STALLED_LEG: Duration = Duration::from_millis(200);

/// Whether a relay takes bytes from the child's end of a stream, and that stream is still open.
fn outlives(relay: &Relay) -> bool {
    relay.ended().is_none() && relay.place().is_first()
}

/// Who else holds the source of a relay.
fn holder_of_source(relay: &Relay, charge: &Charge<'_>) -> Option<Holder> {
    let held = match (relay.source_kind(), &charge.terminal) {
        (Kind::Leader, Some(terminal)) => Held::Terminal(terminal.device()),
        _ => Held::Pipe(fstat(relay.source()?.fd()).ok()?.st_ino),
    };
    job::holder_of(held)
}

impl Session<'_> {
    /// After the child's end: leaves every pipe that others hold open and say nothing on.
    pub(super) fn leave_what_is_silent(
        &mut self,
        charge: &Charge<'_>,
        now: Instant,
    ) -> io::Result<()> {
        let Linger::Silence(limit) = charge.wrap.linger else { return Ok(()) };
        if self.silent_since().is_none_or(|since| now < since + limit) {
            return Ok(());
        }
        let mut all_silent = true;
        for (relay, note) in
            self.relays.iter().zip(&mut self.notes).filter(|(relay, _)| outlives(relay))
        {
            note.silent_since = now;
            all_silent &= relay.is_silent();
        }
        if !all_silent {
            return Ok(());
        }
        let left = self.relays.iter().enumerate().filter(|(_, relay)| outlives(relay));
        let holders: Vec<(usize, Option<Holder>)> =
            left.map(|(index, relay)| (index, holder_of_source(relay, charge))).collect();
        // One that is on its way out says nothing more, and its end of the pipe goes with it.
        if holders.iter().any(|(_, holder)| holder.as_ref().is_some_and(|holder| holder.exiting)) {
            return Ok(());
        }
        for (index, holder) in holders {
            self.notes[index].holder = holder;
            self.relays[index].leave(&mut self.ring)?;
        }
        Ok(())
    }

    /// Leaves legs that take no more: those that may lose bytes after the end of all streams, and all of them once the
    /// run was asked to end. A stream that a leg has held up then goes on without it.
    pub(super) fn leave_stalled_legs(&mut self, now: Instant) -> io::Result<()> {
        let due: Vec<usize> =
            self.stalling_legs().filter(|(_, at)| *at <= now).map(|(leg, _)| leg).collect();
        for leg in due {
            let relay = &mut self.relays[leg];
            if relay.source().is_some_and(Endpoint::has_input) || !self.asked_to_end {
                relay.stop(&mut self.ring)?;
            } else {
                self.notes[leg].silent_since = now;
            }
        }
        Ok(())
    }

    /// The relays of legs that may be left, and when.
    fn stalling_legs(&self) -> impl Iterator<Item = (usize, Instant)> {
        let open = || self.relays.iter().filter(|relay| relay.ended().is_none());
        let is_leg = |relay: &Relay| relay.place() == Place::Leg;
        let only_legs = self.config.tee.on_full == OnFull::Drop && open().all(is_leg);
        let legs = self.relays.iter().zip(&self.notes).enumerate();
        legs.filter(move |(_, (relay, _))| {
            (only_legs || self.asked_to_end) && is_leg(relay) && relay.ended().is_none()
        })
        .map(|(leg, (_, note))| (leg, note.silent_since + STALLED_LEG))
    }

    /// How long the loop may sleep.
    pub(super) fn time_limit(&self, charge: Option<&Charge<'_>>, now: Instant) -> Option<Duration> {
        let relays = self.relays.iter().filter_map(Relay::deadline);
        let linger = charge.filter(|charge| charge.child.exit().is_some()).and_then(|charge| {
            match charge.wrap.linger {
                Linger::EndOfFile => None,
                Linger::Silence(limit) => Some(limit),
            }
        });
        let silence = linger.and_then(|limit| Some(self.silent_since()? + limit));
        let stalled = self.stalling_legs().map(|(_, at)| at);
        let stop = charge.and_then(|charge| Some(charge.terminal.as_ref()?.stop?.deadline));
        let told = self.observation.deadline();
        let running = charge.filter(|charge| charge.child.exit().is_none());
        let memory = running.and_then(|charge| charge.watch.deadline());
        let next = relays.chain(silence).chain(stalled).chain(stop).chain(told).chain(memory);
        let next = next.min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Since when no stream from the child has moved a byte. One that is busy keeps the others: whoever
    /// writes there may still have something to say on them.
    fn silent_since(&self) -> Option<Instant> {
        let open = self.relays.iter().zip(&self.notes).filter(|(relay, _)| outlives(relay));
        open.map(|(_, note)| note.silent_since).max()
    }

    /// Tells, once, what the user should know of how a relay ended.
    pub(super) fn tell_ends(&mut self) {
        let streams = self.relays.iter().filter(|relay| relay.place() != Place::Leg).count();
        for (index, (relay, note)) in self.relays.iter().zip(&mut self.notes).enumerate() {
            let Some(end) = relay.ended() else { continue };
            if note.told {
                continue;
            }
            note.told = true;
            if relay.place() == Place::Leg {
                self.peers.finish(index - streams);
            }
            let name = relay.stream().name();
            self.observation.ended(relay, end);
            match (end, relay.place()) {
                (End::Failed(error), Place::Leg) => {
                    self.lost |= self.config.tee.failure == TeeFailure::Fail;
                    notice::error(error);
                }
                (End::ReaderLeft, Place::Leg) => {
                    self.lost |= self.config.tee.failure == TeeFailure::Fail;
                    let tried = format!("write to {}", relay.sink_name());
                    notice::error(&Error::os(tried, Errno::EPIPE));
                }
                (End::Failed(error), _) => {
                    self.lost = true;
                    notice::error(error);
                }
                // Told of at the end of the run, together with other streams that the same process holds.
                (End::Abandoned, _) => {}
                (End::Delivered | End::ReaderLeft | End::Stopped, _) => {
                    notice::event(self.config.verbosity, &format!("{name}: {end:?}"));
                }
            }
        }
    }

    /// Tells of streams that were left because another process holds them and says nothing.
    pub(super) fn tell_left(&self) {
        let mut left: Vec<(&Option<Holder>, Vec<&str>)> = Vec::new();
        for (relay, note) in self.relays.iter().zip(&self.notes) {
            if !matches!(relay.ended(), Some(End::Abandoned)) {
                continue;
            }
            let name = relay.stream().name();
            match left.iter_mut().find(|(holder, _)| *holder == &note.holder) {
                Some((_, names)) => names.push(name),
                None => left.push((&note.holder, vec![name])),
            }
        }
        for (holder, names) in left {
            let holder = match holder {
                Some(holder) => format!("pid {} ({})", holder.pid, holder.command),
                None => "another process".to_owned(),
            };
            let names = names.join(" and ");
            let text =
                format!("leave {names}: {holder} holds on to it (--linger=eof waits for the end)");
            notice::notice(self.config.verbosity, &text);
        }
    }
}
