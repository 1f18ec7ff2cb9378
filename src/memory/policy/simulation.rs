//! The policy against simulated children: what the gate costs them, and what it brings, beside a gate that is off.
//!
//! A world of one child, its pipe and a reader, a millisecond at a time. What `doc/design.md` says of the gate's
//! bounds is what is asserted here.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;

/// The pipe while the gate is open and while it is closed, in bytes.
const PIPE: u64 = MIB;
const SMALL_PIPE: u64 = 64 * KIB;

/// No run may take longer, in milliseconds.
const LONGEST: u64 = 1_000_000;

/// What a child's memory does. Sizes in bytes, rates in bytes per millisecond.
#[derive(Clone, Debug)]
enum Habit {
    /// It is there, whatever happens.
    Steady,
    /// So many hundredths of a byte stay for each byte written.
    Gathers { percent: u64 },
    /// The same, and goes after so many milliseconds, whether or not the child may write.
    Expires { percent: u64, after: u64 },
    /// The same of a child that writes by the clock, and makes up for the time in which it could not.
    OnSchedule { percent: u64, after: u64 },
    /// Grows by itself while bytes are written, up to so much: another thread's work.
    Works { rate: u64, to: u64 },
    /// Grows with each byte written and collapses at so much: a collector that runs as the child does.
    Collects { percent: u64, at: u64 },
    /// The same, and another thread collects every so many milliseconds.
    CollectsAside { percent: u64, every: u64 },
    /// Output is made at the child's rate whether or not it can be written.
    Queues,
    /// Goes down by so many hundredths of a byte for each byte written.
    Frees { percent: u64 },
    /// Grows at this rate and writes nothing until it has so much, which it keeps.
    Reads { rate: u64, to: u64 },
}

/// A part of a child's life: until so many bytes are written.
#[derive(Clone, Debug)]
struct Phase {
    habit: Habit,
    /// Bytes per millisecond, if nobody holds it back.
    speed: u64,
    bytes: u64,
}

impl Phase {
    /// Bytes per millisecond that memory grows by at most.
    fn growth(&self) -> u64 {
        match self.habit {
            Habit::Steady | Habit::Frees { .. } => 0,
            Habit::Gathers { percent }
            | Habit::Expires { percent, .. }
            | Habit::OnSchedule { percent, .. }
            | Habit::Collects { percent, .. }
            | Habit::CollectsAside { percent, .. } => self.speed * percent / 100,
            Habit::Works { rate, .. } | Habit::Reads { rate, .. } => rate,
            Habit::Queues => self.speed,
        }
    }
}

#[derive(Clone, Debug)]
struct Child {
    base: u64,
    phases: VecDeque<Phase>,
    /// Since the phase began.
    written: u64,
    age: u64,
    extra: i64,
    queue: u64,
    /// What goes later: since when, and how much; and all of that.
    kept: VecDeque<(u64, u64)>,
    kept_bytes: u64,
}

impl Child {
    fn new(base: u64, phases: impl IntoIterator<Item = Phase>) -> Child {
        let phases = phases.into_iter().collect();
        let kept = VecDeque::new();
        Child { base, phases, written: 0, age: 0, extra: 0, queue: 0, kept, kept_bytes: 0 }
    }

    fn memory(&self) -> u64 {
        self.base.saturating_add_signed(self.extra) + self.queue + self.kept_bytes
    }

    /// A millisecond in which so much can be written; how much was. `None` once it has ended.
    fn step(&mut self, room: u64) -> Option<u64> {
        let phase = self.phases.front()?.clone();
        self.age += 1;
        let left = phase.bytes - self.written;
        let mut wrote = left.min(phase.speed).min(room);
        match phase.habit {
            Habit::Steady => {}
            Habit::Gathers { percent } => self.extra += (wrote * percent / 100) as i64,
            Habit::Expires { percent, after } => self.keep(wrote * percent / 100, after),
            Habit::OnSchedule { percent, after } => {
                let due = (self.age * phase.speed).min(phase.bytes);
                wrote = (due - self.written).min(room);
                self.keep(wrote * percent / 100, after);
            }
            Habit::Works { rate, to } => {
                self.extra += if self.memory() < to { rate as i64 } else { 0 };
            }
            Habit::Collects { percent, at } => {
                self.extra += (wrote * percent / 100) as i64;
                self.extra = if self.memory() >= at { 0 } else { self.extra };
            }
            Habit::CollectsAside { percent, every } => {
                self.extra += (wrote * percent / 100) as i64;
                self.extra = if self.age.is_multiple_of(every) { 0 } else { self.extra };
            }
            Habit::Queues => {
                let made = (self.age * phase.speed).min(phase.bytes);
                wrote =
                    (self.queue + made - ((self.age - 1) * phase.speed).min(phase.bytes)).min(room);
                self.queue = made - self.written - wrote;
            }
            Habit::Frees { percent } => self.extra -= (wrote * percent / 100) as i64,
            Habit::Reads { rate, to } => {
                if self.memory() < to {
                    self.extra += rate as i64;
                    wrote = 0;
                }
            }
        }
        self.written += wrote;
        if self.written == phase.bytes {
            self.phases.pop_front();
            (self.written, self.age, self.queue) = (0, 0, 0);
            // What would be left by chance of the clock is not what is compared.
            self.kept.clear();
            self.kept_bytes = 0;
            if matches!(phase.habit, Habit::CollectsAside { .. }) {
                self.extra = 0;
            }
        }
        Some(wrote)
    }

    /// So many bytes are kept for so many milliseconds.
    fn keep(&mut self, bytes: u64, after: u64) {
        self.kept.push_back((self.age, bytes));
        self.kept_bytes += bytes;
        while let Some((_, bytes)) = self.kept.pop_front_if(|(at, _)| *at + after <= self.age) {
            self.kept_bytes -= bytes;
        }
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    millis: u64,
    peak: u64,
    closed: u64,
    tries: u32,
    /// Time held in those that helped, in milliseconds.
    helped: u64,
    /// How much longer it took because it had to catch up after them, in milliseconds.
    limited: u64,
}

/// What stands around the child.
#[derive(Clone, Copy, Debug)]
struct World {
    /// Bytes per millisecond that the reader takes.
    reader: u64,
    critical: u64,
    emergency: u64,
}

fn run(world: World, child: &Child, gate: GateMode) -> Run {
    run_within(None, world, child, gate)
}

/// The same in a group with a limit, where there is one.
fn run_within(limit: Option<u64>, world: World, child: &Child, gate: GateMode) -> Run {
    let named = Named([None, None, Some(world.critical), Some(world.emergency)]);
    let thresholds = Thresholds::new(named, world.emergency * 5 / 4).expect("in order");
    let settings = Settings { gate, degrade: Degrade::Auto, fastest: FASTEST };
    let mut policy = Policy::new(thresholds, settings);
    let mut child = child.clone();
    let (mut unread, mut output, mut admitted) = (0, 0, 0);
    let (mut now, mut due) = (0, 10);
    let mut run = Run::default();
    let mut limited = 0.0;
    while now < LONGEST {
        let flow = policy.effects().flow;
        let closed = flow == Flow::Trickle;
        let pipe = if closed { SMALL_PIPE.max(unread) } else { PIPE };
        let Some(wrote) = child.step(pipe - unread) else { break };
        unread += wrote;
        run.peak = run.peak.max(child.memory());
        if now % 100 == 0 {
            admitted = u64::from(TRICKLE);
        }
        let allowed = match flow {
            Flow::Trickle => admitted,
            Flow::Limited(rate) => rate / 1000,
            Flow::Open | Flow::Bounded | Flow::Drain => u64::MAX,
        };
        let taken = unread.min(world.reader).min(allowed);
        admitted = if closed { admitted - taken } else { u64::from(TRICKLE) };
        (unread, output) = (unread - taken, output + taken);
        if matches!(flow, Flow::Limited(_)) {
            let would = (unread + taken).min(world.reader).max(1);
            limited += 1.0 - taken as f64 / would as f64;
        }
        run.closed += u64::from(closed);
        now += 1;
        if now >= due {
            let source = match unread {
                0 => Source::Empty,
                unread if unread * 2 >= pipe => Source::Full,
                _ => Source::Waiting,
            };
            let at = Duration::from_millis(now);
            let room =
                limit.map(|limit| Room { left: limit.saturating_sub(child.memory()), limit });
            let (resident, narrowest) = (child.memory(), room);
            let sample = Sample { at, resident, source, output, room, narrowest };
            match policy.sample(sample).gate {
                Some(GateChange::Closed) => run.tries += 1,
                Some(GateChange::Opened(end)) if end.outcome == Outcome::Helped => {
                    run.helped += end.held.as_millis() as u64;
                }
                Some(GateChange::Opened(_)) | None => {}
            }
            due = now + policy.period().as_millis() as u64;
        }
    }
    (run.millis, run.limited) = (now, limited as u64);
    run
}

/// Runs with the gate and without.
fn both(world: World, child: &Child) -> (Run, Run) {
    let off = run(world, child, GateMode::Off);
    assert_eq!((off.closed, off.tries), (0, 0));
    (run(world, child, GateMode::Auto), off)
}

/// The same runs, and what the one with the gate may grow to.
fn bounded(world: World, child: &Child) -> (Run, Run, u64) {
    let (auto, off) = both(world, child);
    // How much of a collector's last period a phase fills is chance of the clock, and another if it was held back for a
    // while: beside it stands a bare run that fills it.
    let mut filled = child.clone();
    for phase in &mut filled.phases {
        if let Habit::CollectsAside { every, .. } = phase.habit {
            phase.bytes += phase.speed * every;
        }
    }
    let peak = off.peak.max(run(world, &filled, GateMode::Off).peak);
    let fastest = child.phases.iter().map(Phase::growth).max().unwrap_or(0);
    let most = peak.max(world.emergency) + (world.emergency - world.critical) / 4 + fastest * 70;
    (auto, off, most)
}

/// What tries may cost that bring nothing: three seconds or a tenth. 200 ms are the simulation's own coarseness.
fn longest_in_vain(off: Run) -> u64 {
    off.millis + (off.millis / 10).max(3000) + 200
}

fn world() -> impl Strategy<Value = World> {
    (1u64..400, 100u64..2000, 102u64..400).prop_map(|(reader, critical, percent)| World {
        reader: reader * 500,
        critical: critical * MIB,
        emergency: critical * MIB * percent / 100,
    })
}

/// Any habit, sized by the critical threshold: something happens near it.
fn habit(critical: u64) -> impl Strategy<Value = Habit> {
    let around = move || (50u64..150).prop_map(move |percent| critical / 100 * percent);
    let percent = || 1u64..1000;
    prop_oneof![
        Just(Habit::Steady),
        percent().prop_map(|percent| Habit::Gathers { percent }),
        (1u64..200, around()).prop_map(|(rate, to)| Habit::Works { rate: rate * KIB, to }),
        (percent(), around()).prop_map(|(percent, at)| Habit::Collects { percent, at }),
        (percent(), 1u64..20_000).prop_map(|(percent, after)| Habit::Expires { percent, after }),
        (percent(), 100u64..20_000)
            .prop_map(|(percent, every)| Habit::CollectsAside { percent, every }),
        Just(Habit::Queues),
        (1u64..100).prop_map(|percent| Habit::Frees { percent }),
        (1u64..200, around()).prop_map(|(rate, to)| Habit::Reads { rate: rate * KIB, to }),
    ]
}

fn phase(critical: u64) -> impl Strategy<Value = Phase> {
    (habit(critical), 1u64..200, 1u64..30_000).prop_map(|(habit, speed, millis)| {
        let speed = speed * KIB;
        Phase { habit, speed, bytes: speed * millis }
    })
}

/// A world, and a child that lives in it, in up to four phases.
fn anybody() -> impl Strategy<Value = (World, Child)> {
    world().prop_flat_map(|world| {
        let phases = prop::collection::vec(phase(world.critical), 1..4);
        let child = (0u64..120, phases)
            .prop_map(move |(percent, phases)| Child::new(world.critical / 100 * percent, phases));
        (Just(world), child)
    })
}

/// One whose memory goes by itself some time after it was written: what the gate is for.
fn linked() -> impl Strategy<Value = (World, Child)> {
    // Critical at a quarter of what it would have, emergency beyond. Time to see it grow, and so much that the
    // fall begins within a try.
    (1u64..50, 50u64..1000, 800u64..2600).prop_map(|(speed, percent, after)| {
        let (speed, millis) = (speed * 20 * KIB, 30_000);
        let habit = Habit::Expires { percent, after };
        let most = speed * percent / 100 * after;
        let world = World { reader: 1 << 30, critical: most / 4, emergency: most * 2 };
        (world, Child::new(MIB, [Phase { habit, speed, bytes: speed * millis }]))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever it is pays no more than that, beside the time in which memory did fall; and where memory never gets half
    /// above the critical threshold by itself, that time is within it too.
    #[test]
    fn a_child_that_gains_nothing_pays_three_seconds_or_a_tenth((world, child) in anybody()) {
        let (auto, off) = both(world, &child);
        let stays = off.peak < world.critical + world.critical / 2;
        // What a try has brought down is not let come back at once, however fast it would.
        let fell = if stays { 0 } else { auto.helped + auto.limited };
        prop_assert!(auto.millis <= longest_in_vain(off) + fell, "{auto:?} beside {off:?}");
    }

    /// Nobody comes closer to the limit than it would have, but for what lies before the emergency stage.
    #[test]
    fn nobody_grows_beyond_emergency_for_the_gate((world, child) in anybody()) {
        let (auto, off, most) = bounded(world, &child);
        prop_assert!(auto.peak <= most, "{auto:?} beside {off:?}");
    }

    /// What the gate is for, and its price.
    #[test]
    fn linked_memory_is_halved((world, child) in linked()) {
        let (auto, off) = both(world, &child);
        prop_assert!(auto.peak * 2 <= off.peak, "{auto:?} beside {off:?}");
        // With a quarter of the memory nobody gets through faster than with a quarter of the output.
        prop_assert!(auto.millis <= off.millis * 7, "{auto:?} beside {off:?}");
    }

    /// One that writes by the clock is behind after a try. It is not let catch up so fast that memory grows beyond what it
    /// would have been.
    #[test]
    fn a_child_that_is_behind_catches_up_slowly(
        (speed, percent, after, seconds) in (1u64..50, 50u64..1000, 100u64..2000, 3u64..60),
        share in 75u64..130,
    ) {
        let speed = speed * 20 * KIB;
        let habit = Habit::OnSchedule { percent, after };
        let most = MIB + speed * percent / 100 * after;
        // Seven tenths and eight tenths of a limit.
        let critical = most * 100 / share;
        let world = World { reader: 1 << 30, critical, emergency: critical * 8 / 7 };
        let child = Child::new(MIB, [Phase { habit, speed, bytes: speed * seconds * 1000 }]);
        let (auto, off) = both(world, &child);
        // What the pipe takes at once, nobody can hold back.
        let pipe = PIPE * percent / 100;
        let limit = off.peak.max(world.emergency) * 6 / 5 + speed * percent + pipe;
        prop_assert!(auto.peak <= limit, "{auto:?} beside {off:?}, {limit}");
        prop_assert!(auto.millis <= longest_in_vain(off) + auto.helped, "{auto:?} beside {off:?}");
    }

    /// And after a try in vain, which nothing limits, it finds room for what it owes: one that lives without the gate, with
    /// a tenth of its limit to spare, lives with it.
    #[test]
    fn a_child_that_lives_without_the_gate_lives_with_it(
        (speed, percent, after, seconds) in (1u64..50, 50u64..1000, 100u64..60_000, 3u64..60),
        (share, part) in (40u64..91, 10u64..71),
    ) {
        let speed = speed * 20 * KIB;
        let habit = Habit::OnSchedule { percent, after };
        let child = Child::new(MIB, [Phase { habit, speed, bytes: speed * seconds * 1000 }]);
        let far = World { reader: 1 << 30, critical: 1 << 50, emergency: 1 << 51 };
        let off = run(far, &child, GateMode::Off);
        let limit = off.peak * 100 / share;
        let world = World { critical: limit / 100 * part, emergency: limit / 10 * 8, ..far };
        let auto = run_within(Some(limit), world, &child, GateMode::Auto);
        // What the pipe takes at once, and what comes between two samples.
        let coarse = PIPE * percent / 100 + speed * percent / 100 * 70;
        prop_assert!(auto.peak <= limit + coarse, "{auto:?} beside {off:?}, {limit}");
        prop_assert!(auto.millis <= longest_in_vain(off) + auto.helped, "{auto:?} beside {off:?}");
    }

    /// A collector that runs whether or not the child may write lowers memory in tries too. However close emergency is,
    /// that is found out before it costs more than tries in vain.
    #[test]
    fn what_goes_by_itself_is_soon_let_alone(
        critical in 50u64..500,
        percent_of in (5u64..100, 101u64..148, 102u64..400),
        every in 200u64..20_000,
        seconds in 3u64..300,
    ) {
        let (least, most, emergency) = percent_of;
        let (critical, speed) = (critical * MIB, 10 * KIB);
        let base = critical * least / 100;
        let percent = (critical * most / 100 - base) * 100 / (speed * every);
        let emergency = critical * emergency / 100;
        let world = World { reader: 1 << 30, critical, emergency };
        let habit = Habit::CollectsAside { percent, every };
        let child = Child::new(base, [Phase { habit, speed, bytes: speed * seconds * 1000 }]);
        let (auto, off) = both(world, &child);
        prop_assert!(auto.millis <= longest_in_vain(off), "{auto:?} beside {off:?}");
    }

    /// The same of one that runs as the child writes: held back, it falls never.
    #[test]
    fn a_sawtooth_of_output_is_soon_let_alone(
        critical in 50u64..500,
        percent_of in (5u64..100, 101u64..400, 102u64..400),
        percent in 1u64..1000,
        seconds in 3u64..300,
    ) {
        let (least, most, emergency) = percent_of;
        let (critical, speed) = (critical * MIB, 10 * KIB);
        let emergency = critical * emergency / 100;
        let world = World { reader: 1 << 30, critical, emergency };
        let habit = Habit::Collects { percent, at: critical * most / 100 };
        let bytes = speed * seconds * 1000;
        let child = Child::new(critical * least / 100, [Phase { habit, speed, bytes }]);
        let (auto, off) = both(world, &child);
        prop_assert!(auto.millis <= longest_in_vain(off) + auto.helped, "{auto:?} beside {off:?}");
    }

    /// Linked to output with any delay, also far longer than a try: what a try does not reach costs what tries in
    /// vain may, and the price of what does fall is bounded too.
    #[test]
    fn memory_that_goes_after_any_time_costs_no_more(
        (speed, percent, after, seconds) in (1u64..50, 50u64..1000, 50u64..60_000, 3u64..120),
        (share, emergency) in (2u64..9, 102u64..400),
    ) {
        let speed = speed * 20 * KIB;
        let habit = Habit::Expires { percent, after };
        let bytes = speed * seconds * 1000;
        let critical = MIB + speed * percent / 100 * after.min(seconds * 1000) / share;
        let world = World { reader: 1 << 30, critical, emergency: critical * emergency / 100 };
        let (auto, off) = both(world, &Child::new(MIB, [Phase { habit, speed, bytes }]));
        prop_assert!(auto.millis <= longest_in_vain(off) + auto.helped, "{auto:?} beside {off:?}");
        let most = off.millis * 2 * share;
        prop_assert!(auto.millis <= most + 3200, "{auto:?} beside {off:?}");
    }
}

/// Held back for two seconds it has a second whole period, which without the gate it has not.
#[test]
fn a_collector_held_back_fills_another_period() {
    let world = World { reader: 107_500, critical: 1_870_659_584, emergency: 4_433_463_214 };
    let frees = Phase { habit: Habit::Frees { percent: 17 }, speed: 149_504, bytes: 4_247_558_144 };
    let habit = Habit::CollectsAside { percent: 450, every: 19_061 };
    let collects = Phase { habit, speed: 140_288, bytes: 3_854_973_952 };
    let (auto, off, most) = bounded(world, &Child::new(0, [frees, collects]));
    assert!(off.peak < auto.peak && auto.peak <= most, "{auto:?} beside {off:?}");
}
