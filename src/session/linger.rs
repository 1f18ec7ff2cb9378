//! The relays of a run, and how streams end when nobody ends them: pipes that others hold open, copies that take
//! no more. What the user is told of them is in `reports/ends.rs`.

use std::io;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use nix::sys::stat::fstat;

use crate::config::Verbosity;
use crate::copies::writer::{Ending, only_copies_are_left};
use crate::notice;
use crate::process::procfs::{self, Held, Holder};
use crate::process::silence::Output;
use crate::relay::{End, Endpoint, Kind, Relay, Role, Stream};
use crate::reports::{Screen, ends};
use crate::ring::{Operation, Ring};
use crate::terminal::Terminal;

/// How long a copy can hold up the end of a run without taking any bytes, if it may lose them or the run was asked to
/// end by a signal.
const STALLED_COPY: Duration = Duration::from_millis(200);

/// Whether a relay takes bytes from the child's end of a stream, and that stream is still open.
fn outlives(relay: &Relay) -> bool {
    relay.ended().is_none() && relay.role().is_first()
}

/// Whether a relay carries what the command writes, or what passes through a filter.
fn is_output(relay: &Relay) -> bool {
    relay.stream() != Stream::Stdin && relay.role().is_of_stream()
}

/// Who else holds the source of a relay.
fn holder_of_source(relay: &Relay, terminal: Option<&Terminal>) -> Option<Holder> {
    let held = match (relay.source_kind(), terminal) {
        (Kind::Leader, Some(terminal)) => Held::Terminal(terminal.device()),
        _ => Held::Pipe(fstat(relay.source()?.fd()).ok()?.st_ino),
    };
    procfs::holder_of(held)
}

/// The relays of a run: those of the streams first, then one for each copy.
#[derive(Debug)]
pub(crate) struct Relays {
    relays: Vec<Relay>,
    /// What the loop remembers of each.
    notes: Vec<Note>,
}

#[derive(Debug)]
struct Note {
    /// When it last completed anything, or the command ended.
    silent_since: Instant,
    /// When it last completed anything, whatever silence has been found since.
    moved: Instant,
    /// Who else holds the source of a relay that is being left.
    holder: Option<Holder>,
    /// Its end has been reported.
    reported: bool,
    /// Of a copy: how long the end of the run waits for it while it takes nothing.
    wait: Option<Duration>,
    /// Of a copy: bytes were waiting for it when it was looked at, and it has completed nothing since.
    stalls: bool,
    /// It delivers to where our own messages go.
    at_stderr: bool,
}

impl Note {
    fn new(relay: &Relay, wait: Option<Duration>, now: Instant) -> Note {
        let at_stderr = relay.sink().is_some_and(Endpoint::is_stderr);
        Note {
            silent_since: now,
            moved: now,
            holder: None,
            reported: false,
            wait,
            stalls: false,
            at_stderr,
        }
    }
}

impl Deref for Relays {
    type Target = [Relay];

    fn deref(&self) -> &[Relay] {
        &self.relays
    }
}

impl DerefMut for Relays {
    fn deref_mut(&mut self) -> &mut [Relay] {
        &mut self.relays
    }
}

impl Relays {
    /// `waits` is how long the end of the run waits for each copy.
    pub(crate) fn new(relays: Vec<Relay>, waits: &[Option<Duration>], started: Instant) -> Relays {
        let streams = relays.len() - waits.len();
        let waits = std::iter::repeat_n(&None, streams).chain(waits);
        let notes = relays.iter().zip(waits).map(|(relay, wait)| Note::new(relay, *wait, started));
        Relays { notes: notes.collect(), relays }
    }

    /// Adds a relay, which begins now.
    pub(crate) fn push(&mut self, relay: Relay, now: Instant) {
        self.notes.push(Note::new(&relay, None, now));
        self.relays.push(relay);
    }

    /// The relay with this number, of which an operation completes now.
    pub(crate) fn completing(&mut self, number: u8, now: Instant) -> &mut Relay {
        let index = usize::from(number);
        self.notes[index].silent_since = now;
        self.notes[index].moved = now;
        self.notes[index].stalls = false;
        &mut self.relays[index]
    }

    /// Messages of ours begin on a line of their own: takes note of how the one was left that this relay has just
    /// written to where they go.
    pub(crate) fn follow_line(&self, number: u8, operation: Operation) {
        let index = usize::from(number);
        if operation == Operation::Write
            && self.notes[index].at_stderr
            && let Some(last) = self.relays[index].last_byte()
        {
            notice::stream_sent(last);
        }
    }

    /// The command has ended: silence counts from now.
    pub(crate) fn restart_silence(&mut self, now: Instant) {
        self.notes.iter_mut().for_each(|note| (note.silent_since, note.moved) = (now, now));
    }

    /// There is a reason for the silence so far: it counts from now.
    pub(crate) fn excuse_silence(&mut self, now: Instant) {
        self.notes.iter_mut().for_each(|note| note.silent_since = now);
    }

    /// Whether the command writes to a terminal, where a live line of ours would be in its way.
    pub(crate) fn screen(&self) -> Screen {
        let shared = self.relays.iter().any(|relay| {
            is_output(relay) && relay.sink().is_some_and(|sink| sink.kind() == Kind::Terminal)
        });
        if shared { Screen::Shared } else { Screen::Own }
    }

    /// What is left to read of a filter's input, if that is a file, in bytes.
    pub(crate) fn size_of_input(&self) -> Option<u64> {
        self.relays.iter().find(|relay| relay.role().is_first())?.source()?.size_left()
    }

    /// After the command's end: leaves every pipe that others hold open and say nothing on for `limit`.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub(crate) fn leave_what_is_silent(
        &mut self,
        limit: Duration,
        terminal: Option<&Terminal>,
        ring: &mut Ring,
        now: Instant,
    ) -> io::Result<()> {
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
            left.map(|(index, relay)| (index, holder_of_source(relay, terminal))).collect();
        // One that is on its way out says nothing more, and its end of the pipe goes with it.
        if holders.iter().any(|(_, holder)| holder.as_ref().is_some_and(|holder| holder.exiting)) {
            return Ok(());
        }
        for (index, holder) in holders {
            self.notes[index].holder = holder;
            self.relays[index].leave(ring)?;
        }
        Ok(())
    }

    /// Leaves copies that take no more: those that may lose bytes once the command has ended, and all of them once
    /// the run was asked to end. A stream that a copy has held up then goes on without it.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub(crate) fn leave_stalled_copies(
        &mut self,
        ending: Ending,
        ring: &mut Ring,
        now: Instant,
    ) -> io::Result<()> {
        let over = only_copies_are_left(self);
        let stalling = self.stalling_copies(ending).filter(|(_, at)| *at <= now);
        let due: Vec<usize> = stalling.map(|(copy, _)| copy).collect();
        for copy in due {
            let (relay, note) = (&mut self.relays[copy], &mut self.notes[copy]);
            let more = relay.has_more();
            // While streams are open what waits now may have come only now: it has its time from here on.
            // A thread that has ended takes no more.
            let left = over && ending != Ending::AskedFor || relay.beyond().is_some();
            if left || more && note.stalls {
                relay.stop(ring)?;
            } else {
                (note.moved, note.stalls) = (now, more);
            }
        }
        Ok(())
    }

    /// The relays of copies that may be left, and when.
    ///
    /// Where a thread writes the copy, it decides: it may take little at a time, and the relay then none for long. A
    /// terminal that is paused (Ctrl-S) takes nothing either, and somebody has asked for an end.
    fn stalling_copies(&self, ending: Ending) -> impl Iterator<Item = (usize, Instant)> {
        let over = only_copies_are_left(self);
        let relays = self.relays.iter().zip(&self.notes).enumerate();
        let open = relays.filter(|(_, (relay, _))| relay.ended().is_none());
        open.filter_map(move |(number, (relay, note))| {
            let is_copy = relay.role() == Role::Copy;
            let wait = match (relay.beyond(), ending) {
                (Some(beyond), _) => beyond.is_finished().then_some(Duration::ZERO)?,
                (None, Ending::AskedFor) if is_copy || relay.sink_kind() == Kind::Terminal => {
                    STALLED_COPY
                }
                (None, Ending::AskedFor) => return None,
                (None, Ending::CommandEnded) => note.wait?,
                (None, Ending::NotYet) => note.wait.filter(|_| over)?,
            };
            Some((number, note.moved + wait))
        })
    }

    /// A stream has ended: copies that take nothing are waited for from now.
    pub(crate) fn restart_patience(&mut self, now: Instant) {
        let copies = self.relays.iter().zip(&mut self.notes);
        let copies = copies.filter(|(relay, _)| relay.role() == Role::Copy);
        copies.for_each(|(relay, note)| (note.moved, note.stalls) = (now, relay.has_more()));
    }

    /// When something here falls due, if nothing completes before.
    pub(crate) fn deadline(&self, ending: Ending, now: Instant) -> Option<Instant> {
        let relays = self.relays.iter().filter_map(|relay| relay.deadline(now));
        relays.chain(self.stalling_copies(ending).map(|(_, at)| at)).min()
    }

    /// Since when no stream from the command has moved a byte. One that is busy keeps the others: whoever
    /// writes there may still have something to say on them.
    pub(crate) fn silent_since(&self) -> Option<Instant> {
        let open = self.relays.iter().zip(&self.notes).filter(|(relay, _)| outlives(relay));
        open.map(|(_, note)| note.silent_since).max()
    }

    /// Whether nothing more comes to a filter.
    pub(crate) fn input_is_over(&self) -> bool {
        let mut first =
            self.relays.iter().filter(|relay| is_output(relay) && relay.role().is_first());
        first.all(|relay| {
            relay.ended().is_some() || relay.source().is_none_or(Endpoint::is_readable)
        })
    }

    /// What has come from the command, or through a filter, so far.
    pub(crate) fn output(&self) -> Output {
        let first =
            || self.relays.iter().filter(|relay| is_output(relay) && relay.role().is_first());
        match first().any(|relay| relay.source().is_some_and(Endpoint::has_input)) {
            true => Output::Waiting,
            false => Output::Quiet(first().map(|relay| relay.counters().taken).sum()),
        }
    }

    /// The relays that have ended since this was last asked.
    pub(crate) fn new_ends(&mut self) -> Vec<usize> {
        let both = self.relays.iter().zip(&mut self.notes).enumerate();
        let ended = both.filter(|(_, (relay, note))| relay.ended().is_some() && !note.reported);
        let marked = ended.map(|(index, (_, note))| {
            note.reported = true;
            index
        });
        marked.collect()
    }

    /// Names the streams that were left because another process holds them and says nothing.
    pub(crate) fn report_abandoned(&self, verbosity: Verbosity) {
        let mut left: Vec<(&Option<Holder>, Vec<&str>)> = Vec::new();
        for (relay, note) in self.relays.iter().zip(&self.notes) {
            if !matches!(relay.ended(), Some(End::Abandoned)) || relay.role() == Role::Held {
                continue;
            }
            let name = relay.stream().name();
            match left.iter_mut().find(|(holder, _)| *holder == &note.holder) {
                Some((_, names)) => names.push(name),
                None => left.push((&note.holder, vec![name])),
            }
        }
        for (holder, names) in left {
            ends::show_abandoned(holder.as_ref(), &names, verbosity);
        }
    }
}
