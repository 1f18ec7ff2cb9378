//! How much memory the child uses, what that means, and limits that do not kill.
//!
//! [`Guard`] samples when a sample is due and says what changed; the session applies it. `policy` decides
//! and is pure; `sample`, `limit` and `stall` read what the kernel tells.

mod footprint;
pub mod group;
pub mod heap;
pub mod heap_page;
mod kin;
pub mod limit;
pub mod policy;
pub mod sample;
pub mod stall;

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use group::{Hierarchies, MachineWatch, RoomWatch, Rooms};
use policy::{
    Changes, Effects, GateChange, GateMode, Named, Outcome, Policy, Room, SLOWEST, Sample,
    Settings, Source, Stage, Thresholds,
};
use sample::{Sampler, Scope};

/// Sampling takes about one part in so many of the time, whatever the policy wants, unless samples would then be
/// further apart than [`RAREST`]: so much where memory is close to a threshold or grows, and so much where it is not.
const COST_PART: u32 = 150;
const COST_PART_FAR: u32 = 1500;
const RAREST: Duration = Duration::from_secs(1);

/// The same while output is held back, which must not last longer than was meant.
const RAREST_IN_TRY: Duration = Duration::from_millis(100);

/// The same of looking for new processes alone. Where others fork much, most of what is looked at is theirs.
const KIN_PART: u32 = 300;
const KIN_PART_FAR: u32 = 3000;

/// A close look at processes, and one at the room that is left, come no more often than this, and a close look takes
/// one part in so many of the time at most.
const APART: Duration = Duration::from_millis(50);
const CLOSE_PART: u32 = 100;

/// How long a limit has to be gone before thresholds rise: two processes of about the same size, one of them with a limit,
/// take turns in being the largest.
const RAISED_AFTER: Duration = Duration::from_secs(5);

/// How often the room is looked at while memory is far from every threshold.
const ROOM_SELDOM: Duration = Duration::from_secs(1);

/// What is known of a run's memory at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Account {
    /// The most that was seen, in bytes.
    pub peak: u64,
    /// The highest stage.
    pub highest: Option<Stage>,
    /// How often the stage changed.
    pub changes: u64,
    /// How often the gate closed: the tries.
    pub gate_closed: u64,
    /// Of them, those in which memory fell.
    pub gate_helped: u64,
    /// Of them, those in which the child was found to grow.
    pub gate_harmful: u64,
    /// How long output waited in tries that are over.
    pub gate_held: Duration,
    /// What memory fell by in tries that helped, in bytes.
    pub gate_gained: u64,
    /// Samples taken.
    pub samples: u64,
    /// What they cost, in processor time.
    pub sampling: Duration,
}

impl Account {
    fn count(&mut self, changes: Changes) {
        self.changes += u64::from(changes.stage.is_some());
        match changes.gate {
            Some(GateChange::Closed) => self.gate_closed += 1,
            Some(GateChange::Opened(end)) => {
                self.gate_held += end.held;
                match end.outcome {
                    Outcome::Helped => {
                        self.gate_helped += 1;
                        self.gate_gained += end.gained.max(0).unsigned_abs();
                    }
                    Outcome::Grew => self.gate_harmful += 1,
                    Outcome::NoFall | Outcome::Idle | Outcome::Cut => {}
                }
            }
            None => {}
        }
    }
}

/// What the pipes show that the gate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// What waits in them.
    pub source: Source,
    /// Bytes taken from them since the start.
    pub bytes: u64,
}

/// What thresholds come from.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// What the user named, in order.
    pub named: Named,
    /// The most memory that the child can have, as far as is known at the beginning, in bytes.
    pub ceiling: u64,
}

/// Watches a child's memory.
#[derive(Debug)]
pub struct Guard {
    sampler: Sampler,
    bounds: Bounds,
    /// What the thresholds come from now, and when that was last so low.
    ceiling: u64,
    lower_since: Instant,
    policy: Policy,
    pid: u32,
    groups: RoomWatch,
    /// `None` if it does not matter.
    machine: Option<MachineWatch>,
    room_read: Option<Instant>,
    next_close: Instant,
    next_kin: Instant,
    started: Instant,
    due: Instant,
    /// Mean cost of a sample.
    cost: Duration,
    last: u64,
    /// What limits left when that was last looked at, and what was in use then.
    rooms: Rooms,
    left_on_machine: Option<Room>,
    used_then: u64,
    account: Account,
}

impl Guard {
    /// Watches the child with number `pid`, which is not reaped. The first sample is due now.
    pub fn new(scope: Scope, pid: u32, bounds: Bounds, settings: Settings, now: Instant) -> Guard {
        let named = Thresholds::new(bounds.named, bounds.ceiling);
        // Out of order they are refused before anything starts.
        let thresholds = named.unwrap_or_else(|_| Thresholds::usual(bounds.ceiling));
        Guard {
            sampler: Sampler::new(scope, pid),
            bounds,
            ceiling: bounds.ceiling,
            lower_since: now,
            policy: Policy::new(thresholds, settings),
            pid,
            groups: RoomWatch::new(Hierarchies::mounted()),
            machine: (settings.gate == GateMode::Auto).then(MachineWatch::open),
            room_read: None,
            next_close: now,
            next_kin: now,
            started: now,
            due: now,
            cost: Duration::ZERO,
            last: 0,
            rooms: Rooms::default(),
            left_on_machine: None,
            used_then: 0,
            account: Account::default(),
        }
    }

    /// When the next sample is due.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Takes a sample.
    pub fn sample(&mut self, output: Output, now: Instant) -> Changes {
        let began = processor_time();
        let resident = self.counted(now);
        self.last = resident;
        self.read_room(now);
        let at = self.elapsed(now);
        let Output { source, bytes: output } = output;
        let (room, narrowest) = (self.room(), self.narrowest());
        let sample = Sample { at, resident, source, output, room, narrowest };
        let changes = self.policy.sample(sample);
        let account = &mut self.account;
        account.peak = account.peak.max(resident);
        account.highest = account.highest.max(Some(self.policy.stage()));
        account.samples += 1;
        account.count(changes);
        let took = processor_time().saturating_sub(began);
        self.account.sampling += took;
        // From zero: the first sample meets cold caches.
        self.cost = (self.cost * 3 + took) / 4;
        let part = if self.is_calm() { COST_PART_FAR } else { COST_PART };
        let rarest = if self.is_gate_closed() { RAREST_IN_TRY } else { RAREST };
        self.due = now + self.policy.period().max((self.cost * part).min(rarest));
        changes
    }

    /// Whether memory is far from every threshold and does not grow towards one.
    fn is_calm(&self) -> bool {
        self.policy.period() >= SLOWEST
    }

    /// Looks for what the child's processes have started, unless that would cost too much now.
    fn find_new(&mut self, now: Instant) {
        if now < self.next_kin {
            return;
        }
        let began = processor_time();
        self.sampler.find_new();
        let took = processor_time().saturating_sub(began);
        let part = if self.is_calm() { KIN_PART_FAR } else { KIN_PART };
        self.next_kin = now + (took * part).min(RAREST);
    }

    /// What is in use. Where it matters and may be much more or less than it seems, it is measured closely.
    fn counted(&mut self, now: Instant) -> u64 {
        self.find_new(now);
        let seems = self.sampler.sample();
        let matters = self.policy.is_near(seems + self.sampler.hidden() + self.sampler.in_common());
        if !matters || !self.sampler.is_doubtful() {
            return seems;
        }
        if now < self.next_close {
            return self.sampler.certain().max(self.last.min(seems));
        }
        let began = processor_time();
        let counted = self.sampler.measure_closely();
        let took = processor_time().saturating_sub(began);
        self.next_close = now + APART.max(took * CLOSE_PART);
        counted
    }

    /// Looks at the room that is left, where the child has most of its memory, and on the machine if a try may come. A lower
    /// limit there than the one known at the beginning moves the thresholds, as long as it holds: the child is in a smaller
    /// group than we are.
    fn read_room(&mut self, now: Instant) {
        let near = self.policy.stage() >= Stage::Attention || self.policy.is_near(self.last);
        let apart = if near { APART } else { ROOM_SELDOM };
        if self.room_read.is_some_and(|read| now < read + apart) {
            return;
        }
        self.room_read = Some(now);
        self.left_on_machine = self.machine.as_ref().filter(|_| near).and_then(MachineWatch::read);
        let pid = self.sampler.largest().unwrap_or(self.pid);
        match self.groups.read(pid) {
            Ok(rooms) => self.rooms = rooms,
            // It has just ended, and what was found holds for a moment more.
            Err(_) if self.rooms != Rooms::default() => return,
            Err(_) => {}
        }
        self.used_then = self.last;
        let ceiling = self.rooms.lowest_limit.unwrap_or(u64::MAX).min(self.bounds.ceiling);
        if ceiling <= self.ceiling {
            self.lower_since = now;
        }
        let settled = ceiling < self.ceiling || now >= self.lower_since + RAISED_AFTER;
        if ceiling != self.ceiling
            && settled
            && let Ok(thresholds) = Thresholds::new(self.bounds.named, ceiling)
        {
            self.ceiling = ceiling;
            self.policy.set_thresholds(thresholds);
        }
    }

    /// Time since the watch began.
    pub fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// What is left of the tightest limit: what was when that was last looked at, less what has come to be in use since.
    pub fn room(&self) -> Option<Room> {
        self.rooms.tightest.map(|room| self.as_of_now(room))
    }

    /// The same of the narrowest, the machine's memory among them.
    fn narrowest(&self) -> Option<Room> {
        let all = self.rooms.narrowest.into_iter().chain(self.left_on_machine);
        all.reduce(Room::narrower).map(|room| self.as_of_now(room))
    }

    fn as_of_now(&self, room: Room) -> Room {
        let come = self.last.saturating_sub(self.used_then);
        Room { left: room.left.saturating_sub(come), ..room }
    }

    /// The kernel reported stalls: looks at once, and lets them count.
    pub fn stalled(&mut self, now: Instant) {
        self.policy.stalled(now.saturating_duration_since(self.started));
        self.due = now;
    }

    /// Has at least this stage's effects from now on, whatever memory's own stage is.
    pub fn set_floor(&mut self, stage: Stage) {
        self.policy.set_floor(stage);
    }

    /// What the stage allows.
    pub fn effects(&self) -> Effects {
        self.policy.effects()
    }

    /// Whether it matters at the next sample if bytes wait to be read.
    pub fn asks_pipes(&self) -> bool {
        use policy::Flow;
        matches!(self.policy.effects().flow, Flow::Trickle | Flow::Limited(_))
    }

    /// Whether the gate holds the child back.
    pub fn is_gate_closed(&self) -> bool {
        self.policy.effects().flow == policy::Flow::Trickle
    }

    /// The stage after the last sample.
    pub fn stage(&self) -> Stage {
        self.policy.stage()
    }

    /// The thresholds in force.
    pub fn thresholds(&self) -> &Thresholds {
        self.policy.thresholds()
    }

    /// Bytes in the last sample.
    pub fn resident(&self) -> u64 {
        self.last
    }

    /// Processes in the last sample; none for a cgroup.
    pub fn processes(&self) -> usize {
        self.sampler.processes()
    }

    /// The books so far.
    pub fn account(&self) -> Account {
        self.account
    }
}

/// What this thread has used of the processor: a sample that was interrupted cost no more for that.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
