//! The gate as an experiment: closed where that may help, judged by what memory then does.
//!
//! Holding a child back can lower its memory only if memory comes with output and goes by itself: what is kept for a
//! second, what another thread frees. A child that merely has memory, or that gathers it until its end, stops growing
//! too while it cannot write, and has gained nothing when it goes on. So a *try* begins only where memory grows while
//! output flows, and goes on only while memory *falls*. One that brings nothing costs [`TRY`], one that does at most
//! [`TRY_MOST`]; all that bring nothing together cost [`FREE`] or a share of one in [`COST_PART`] of the time, and each
//! makes the next one rarer.
//!
//! Memory may also fall for a reason of its own, a garbage collector's for example, and then the gate would claim
//! what is not its doing. Two things tell: levels that memory has left by itself with the gate open are no reason to
//! close it, and after a try that seemed to help, the next is now and then left out to see what happens
//! (a *control*), where there is room for that. Tries that no control has confirmed are paid for like those in vain:
//! otherwise a collector that works close below the emergency stage, where no control fits in, would be held back for
//! ever.

use std::time::Duration;

use super::catching_up::CatchingUp;
use super::flow_meter::FlowMeter;
use super::{Room, Sample, Source};

/// How long a child may be held back without a fall of memory by [`FALL_PART`]. Time counts while bytes wait unread.
pub(super) const TRY: Duration = Duration::from_millis(2200);

/// The same once memory has begun to fall.
const AFTER_FALL: Duration = Duration::from_secs(1);

/// The longest that one try lasts, however well it goes.
const TRY_MOST: Duration = Duration::from_secs(3);

/// A child that writes by the clock owes after a try what it would have written meanwhile, and if the try was in vain the
/// memory of that comes at once, beside all that it was about to fill anyhow. How much that is nobody knows; it is as likely to
/// end between one and two times what is in use as between two and four times. So a try lasts no longer than until what is owed
/// would push one child in so many over the limit, of those that stay within it without, and would be one part in so many of the
/// limit. Where that is less than [`SHORTEST`], nothing is tried.
const PUSHED_OVER: f64 = 20.0;
const OWED_OF_LIMIT: f64 = 12.0;
const SHORTEST: Duration = Duration::from_millis(300);

/// What tries that brought nothing may cost altogether, and the share of the time that they may cost if that is more:
/// one part in so many.
const FREE: Duration = TRY_MOST;
const COST_PART: u32 = 10;

/// The time between the first try that brought nothing and the next one; doubled each time.
const FIRST_WAIT: Duration = Duration::from_secs(20);

/// Held back for nothing: no bytes came for so long, so there is nothing to learn and nothing to gain.
const IDLE: Duration = Duration::from_secs(1);

/// Output has to have flowed for so long before the first try: many programs say all that they have in less.
const FIRST_FLOW: Duration = Duration::from_millis(300);

/// How long after it is opened nothing is known yet of how memory grows.
const JUST_OPENED: Duration = Duration::from_millis(300);

/// A fall or a new height is one that changes memory by one part in so many.
const FALL_PART: u64 = 16;

/// Growth of a held child that ends a try at once: one part in so many of its memory, or of the room that is left.
const HARM_PART: u64 = 20;
const HARM_OF_ROOM: u64 = 4;

/// How long a control lasts. Memory may grow by half in it; it begins only with room for one part in so many.
const CONTROL: Duration = Duration::from_secs(5);
const CONTROL_ROOM_PART: u64 = 8;

/// A control ends so many seconds before growth as it is would reach the emergency stage.
const CONTROL_NOTICE: f64 = 0.15;

/// What a try came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Memory fell: to half of the critical threshold, out of the critical stage, or for the longest time.
    Helped,
    /// It did not fall any more, or never did.
    NoFall,
    /// It grew although the child could not write: a child that queues its output, or one whose work goes on.
    Grew,
    /// Nothing came that could have been held back.
    Idle,
    /// The emergency stage began, or the child had left the critical stage before anything could be judged.
    Cut,
}

impl Outcome {
    /// The name used in reports.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Helped => "helped",
            Outcome::NoFall => "no-fall",
            Outcome::Grew => "grew",
            Outcome::Idle => "idle",
            Outcome::Cut => "cut",
        }
    }
}

/// A try that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Try {
    /// What it came to.
    pub outcome: Outcome,
    /// How long bytes waited unread.
    pub held: Duration,
    /// Bytes that memory fell by, from the beginning to the end; negative if it grew.
    pub gained: i64,
}

/// What happened to the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateChange {
    /// A try began.
    Closed,
    /// A try ended.
    Opened(Try),
}

/// What the policy knows that the gate has to respect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) position: Position,
    /// Where the critical and the emergency stage begin, in bytes.
    pub(super) critical: u64,
    pub(super) emergency: u64,
}

/// Where memory is, as the gate sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// The gate is open here.
    Below,
    /// It may be tried.
    Critical,
    /// It is open here.
    Above,
}

/// The state of the experiment: a few numbers, whatever has passed.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate {
    state: State,
    flow: FlowMeter,
    /// The time in which output has flowed, up to [`FIRST_FLOW`].
    flowed: Duration,
    /// Since the gate was last opened: the most that memory was, and when that began.
    top: u64,
    opened: Duration,
    /// The highest level that memory has left by itself, or stayed at, with the gate open.
    natural: u64,
    /// Time that tries have taken, and that those took which brought nothing.
    closed: Duration,
    lost: Duration,
    /// Time of tries that helped since the last control, so as long as none has confirmed it.
    unconfirmed: Duration,
    failures: u32,
    not_before: Duration,
    /// Tries that helped since the last control, and how many of them it takes for the next.
    helped: u32,
    control_after: u32,
    /// The last try was ended by growth: what the child has queued has to be taken from it.
    queued: bool,
    /// After a try that helped: how fast output may be until the child is no longer behind.
    catching_up: Option<CatchingUp>,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Open,
    Control {
        since: Duration,
        level: u64,
    },
    Closed(Attempt),
}

/// A try under way.
#[derive(Clone, Debug)]
struct Attempt {
    since: Duration,
    /// Memory when the gate closed.
    start: u64,
    /// Memory when the child was first really held back: until then it has filled its pipe.
    base: Option<u64>,
    /// Time in which bytes waited, in all and since memory last fell.
    held: Duration,
    unchanged: Duration,
    /// How long it may last.
    longest: Duration,
    /// Memory after the last fall.
    level: u64,
    /// What memory grew by for each byte of output, before; and the output when `base` was taken.
    ratio: f64,
    output: u64,
    /// Bytes of output a second, before.
    rate: f64,
    fell: bool,
    idle: Duration,
}

impl Gate {
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed(_))
    }

    /// Whether the child was found to queue what it could not write.
    pub(super) fn queued(&self) -> bool {
        self.queued
    }

    /// How fast output may be, in bytes a second, if a child has to catch up.
    pub(super) fn limit(&self) -> Option<u64> {
        let catching_up = self.catching_up.as_ref().filter(|_| !self.is_closed())?;
        Some(catching_up.rate().max(1.0) as u64)
    }

    /// Whether samples have to come often.
    pub(super) fn is_watching(&self) -> bool {
        !matches!(self.state, State::Open)
    }

    /// Whether the gate was opened a moment ago: how fast memory grows now is not known yet.
    pub(super) fn has_just_opened(&self, at: Duration) -> bool {
        !self.closed.is_zero() && !self.is_closed() && at < self.opened + JUST_OPENED
    }

    /// Takes the time between two samples in.
    pub(super) fn sample(&mut self, last: Sample, now: Sample, terms: Terms) -> Option<GateChange> {
        self.flow.follow(last, now);
        if self.flow.is_flowing() && self.flowed < FIRST_FLOW {
            self.flowed += now.at.saturating_sub(last.at);
        }
        if terms.position != Position::Critical {
            self.queued &= terms.position == Position::Above;
        }
        if let Some(catching_up) = &mut self.catching_up
            && !matches!(self.state, State::Closed(_))
            && !catching_up.follow(last, now, terms.position != Position::Below)
        {
            self.catching_up = None;
        }
        match &mut self.state {
            State::Closed(attempt) => {
                let outcome = attempt.follow(last, now, terms)?;
                Some(GateChange::Opened(self.open(outcome, now)))
            }
            State::Control { since, level } => {
                let (since, level) = (*since, *level);
                self.follow_open(now);
                self.control(since, level, now, terms)
            }
            State::Open => {
                self.follow_open(now);
                self.consider(now, terms)
            }
        }
    }

    /// What memory does with the gate open. Just after a try it may still fall for that.
    fn follow_open(&mut self, now: Sample) {
        let controls = matches!(self.state, State::Control { .. });
        let just_opened = !self.closed.is_zero() && now.at < self.opened + TRY;
        if just_opened && !controls {
            self.top = now.resident;
        }
        self.top = self.top.max(now.resident);
        if now.resident < self.top - self.top / FALL_PART {
            self.natural = self.natural.max(self.top);
            self.top = now.resident;
        }
    }

    fn consider(&mut self, now: Sample, terms: Terms) -> Option<GateChange> {
        let may = terms.position == Position::Critical
            && now.resident >= terms.critical
            && now.at >= self.not_before
            && self.flowed >= FIRST_FLOW
            && self.flow.is_known()
            && self.flow.is_flowing()
            && self.flow.grows(now.resident)
            && now.resident > self.natural + self.natural / FALL_PART
            && self.longest(now) >= SHORTEST;
        if !may {
            return None;
        }
        if self.has_room(now, terms) && self.is_control_due(now.at) {
            self.helped = 0;
            self.top = now.resident;
            self.state = State::Control { since: now.at, level: now.resident };
            return None;
        }
        self.affords(self.doubtful(), now.at).then(|| self.close(now))
    }

    /// Whether it is time to see what happens without a try: after so many that seemed to help, or when they would have
    /// cost too much if they did not.
    fn is_control_due(&self, at: Duration) -> bool {
        self.helped >= self.control_after.max(1)
            || self.helped > 0 && !self.affords(self.doubtful(), at)
    }

    /// Time that tries have taken in vain, or may have: the more controls have confirmed them, the less those count
    /// that no control has looked at yet.
    fn doubtful(&self) -> Duration {
        self.lost + self.unconfirmed / self.control_after.max(1)
    }

    /// Whether one more try that brings nothing is within what such tries may cost, having cost so much.
    fn affords(&self, lost: Duration, at: Duration) -> bool {
        let open = at.saturating_sub(self.closed);
        lost + TRY_MOST <= FREE.max(open / COST_PART)
    }

    fn control(
        &mut self,
        since: Duration,
        level: u64,
        now: Sample,
        terms: Terms,
    ) -> Option<GateChange> {
        let grew = terms.position != Position::Below && now.resident >= level + level / 2;
        if grew {
            self.control_after = self.control_after.max(1).saturating_mul(2);
            self.unconfirmed = Duration::ZERO;
        }
        let may_try = terms.position == Position::Critical && self.longest(now) >= SHORTEST;
        if grew || terms.position == Position::Above {
            self.state = State::Open;
            return may_try.then(|| self.close(now));
        }
        // It might have fallen in time, or not. That confirms nothing, but to stop it is worth what there is to spend.
        let late = terms.room(now) as f64 <= self.flow.growth() * CONTROL_NOTICE;
        if may_try && late && self.affords(self.doubtful(), now.at) {
            self.state = State::Open;
            return Some(self.close(now));
        }
        let over = now.at.saturating_sub(since) >= CONTROL;
        let fell = terms.position == Position::Below || self.natural >= level;
        if fell || over {
            self.natural = self.natural.max(self.top);
            self.control_after = 1;
            self.lost += std::mem::take(&mut self.unconfirmed);
            self.state = State::Open;
        }
        None
    }

    /// How long a try may last.
    fn longest(&self, now: Sample) -> Duration {
        let Some(narrowest) = now.narrowest else { return TRY_MOST };
        let seconds = narrowest.may_owe() / self.flow.fastest().max(1.0);
        Duration::from_secs_f64(seconds.min(TRY_MOST.as_secs_f64()))
    }

    /// Whether memory may grow on for a while as it does, and by what a control takes.
    fn has_room(&self, now: Sample, terms: Terms) -> bool {
        let room = terms.room(now);
        room > now.resident / CONTROL_ROOM_PART && room as f64 > self.flow.growth() * CONTROL_NOTICE
    }

    fn close(&mut self, now: Sample) -> GateChange {
        self.queued = false;
        self.state = State::Closed(Attempt {
            since: now.at,
            start: now.resident,
            base: None,
            held: Duration::ZERO,
            unchanged: Duration::ZERO,
            longest: self.longest(now),
            level: now.resident,
            ratio: self.flow.ratio(),
            output: now.output,
            rate: self.flow.rate(),
            fell: false,
            idle: Duration::ZERO,
        });
        GateChange::Closed
    }

    fn open(&mut self, outcome: Outcome, now: Sample) -> Try {
        let State::Closed(attempt) = std::mem::take(&mut self.state) else {
            return Try { outcome, held: Duration::ZERO, gained: 0 };
        };
        self.opened = now.at;
        self.top = now.resident;
        self.flow.begin_anew();
        self.closed += now.at.saturating_sub(attempt.since);
        self.queued = outcome == Outcome::Grew;
        match outcome {
            Outcome::Helped => {
                let rate = self
                    .catching_up
                    .take()
                    .map_or(attempt.rate, |before| before.first().min(attempt.rate));
                self.catching_up = Some(CatchingUp::new(rate));
                self.helped += 1;
                self.unconfirmed += attempt.held;
            }
            Outcome::Idle | Outcome::Cut => self.lost += attempt.held,
            Outcome::NoFall | Outcome::Grew => {
                self.lost += attempt.held;
                let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(16));
                self.failures += 1;
                self.not_before = now.at + wait;
            }
        }
        let gained = attempt.start as i64 - now.resident as i64;
        Try { outcome, held: attempt.held, gained }
    }
}

impl Attempt {
    /// Takes the time between two samples in; tells what the try came to once it is over.
    fn follow(&mut self, last: Sample, now: Sample, terms: Terms) -> Option<Outcome> {
        let step = now.at.saturating_sub(last.at);
        if last.source == Source::Empty && now.source == Source::Empty {
            self.idle += step;
        } else {
            self.idle = Duration::ZERO;
            self.held += step;
            self.unchanged += step;
        }
        if self.base.is_none() && last.source == Source::Full && now.source == Source::Full {
            (self.base, self.level) = (Some(last.resident), last.resident);
            self.output = last.output;
            self.unchanged = step;
        }
        if now.resident < self.level - self.level / FALL_PART {
            (self.level, self.fell) = (now.resident, true);
            self.unchanged = Duration::ZERO;
        }
        match terms.position {
            Position::Below if self.fell => return Some(Outcome::Helped),
            Position::Below | Position::Above => return Some(Outcome::Cut),
            Position::Critical => {}
        }
        // Enough has gone. To wait for more would cost time, to open sooner would close it again at once.
        if self.fell && now.resident < terms.critical / 2 {
            return Some(Outcome::Helped);
        }
        if self.base.is_some_and(|base| now.resident > base + self.tolerated(base, now, terms)) {
            return Some(Outcome::Grew);
        }
        if self.held >= self.longest {
            return Some(if self.fell { Outcome::Helped } else { Outcome::NoFall });
        }
        // A pipe that never fills in all that time is no reason to wait longer.
        if self.unchanged >= if self.fell { AFTER_FALL } else { TRY } {
            return Some(Outcome::NoFall);
        }
        (self.idle >= IDLE).then_some(Outcome::Idle)
    }

    /// Growth of a child that is held back which is not yet a reason to let it go: a little, and what the bytes that
    /// the closed gate admits bring along.
    fn tolerated(&self, base: u64, now: Sample, terms: Terms) -> u64 {
        let admitted = now.output.saturating_sub(self.output) as f64 * self.ratio;
        let admitted = (admitted as u64).min(base / HARM_PART * 3);
        (base / HARM_PART + admitted).min(terms.room(now) / HARM_OF_ROOM)
    }
}

impl Room {
    /// The one of two that allows less to be owed after a try.
    pub fn narrower(self, other: Room) -> Room {
        if other.may_owe() < self.may_owe() { other } else { self }
    }

    /// The most memory that may come at once after a try in vain, in bytes.
    pub(super) fn may_owe(self) -> f64 {
        let limit = self.limit as f64;
        let used = self.limit.saturating_sub(self.left).max(1) as f64;
        (limit * (limit / used).ln() / PUSHED_OVER).min(limit / OWED_OF_LIMIT)
    }
}

impl Terms {
    /// Bytes until the emergency stage begins, for one reason or the other.
    fn room(&self, now: Sample) -> u64 {
        let own = self.emergency.saturating_sub(now.resident);
        own.min(now.room.map_or(u64::MAX, Room::before_emergency))
    }
}
