//! The policy by examples: thresholds, stages, and when the gate closes and opens.

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn settings() -> Settings {
    Settings { gate: GateMode::Auto, degrade: Degrade::Auto, fastest: FASTEST }
}

/// Thresholds at 100, 200, 400 and 800 bytes' worth of MiB.
fn policy() -> Policy {
    let named = Named([Some(100 * MIB), Some(200 * MIB), Some(400 * MIB), Some(800 * MIB)]);
    Policy::new(Thresholds::new(named, 16 * GIB).expect("in order"), settings())
}

/// A child without output.
fn at(millis: u64, mib: u64) -> Sample {
    let at = Duration::from_millis(millis);
    let resident = mib * MIB;
    Sample { at, resident, source: Source::Empty, output: 0, room: None, narrowest: None }
}

/// A child that writes 100 MiB a second, or would.
fn writing(millis: u64, mib: u64) -> Sample {
    Sample { source: Source::Full, output: millis * 100 * MIB / 1000, ..at(millis, mib) }
}

const NOTHING: Changes = Changes { stage: None, gate: None };

fn moved(from: Stage, to: Stage) -> Changes {
    Changes { stage: Some(StageChange { from, to }), gate: None }
}

/// Grows from 100 MiB to 400, the critical threshold, and has the gate closed. Ends at 1000 ms.
fn closed() -> Policy {
    let mut policy = policy();
    for step in 0..=10 {
        policy.sample(writing(500 + step * 50, 100 + step * 30));
    }
    assert_eq!(policy.effects().flow, Flow::Trickle);
    policy
}

/// Memory from 1000 ms on, every 50 ms; what the gate did first, and when.
fn held(policy: &mut Policy, memory: impl Fn(u64) -> u64) -> (u64, GateChange) {
    let mut times = (1..1000).map(|step| step * 50);
    let changed = times.find_map(|since| {
        let output = 100 * MIB + since * u64::from(TRICKLE) / 100;
        let change =
            policy.sample(Sample { output, ..writing(1000 + since, memory(since)) }).gate?;
        Some((since, change))
    });
    changed.expect("a change of the gate")
}

#[test]
fn each_stage_has_the_effects_of_the_table() {
    use Stage::*;
    let rows = [
        (50, Monitoring, Observation::Full, 1024, TextModes::AsAsked, Flow::Open),
        (100, Attention, Observation::Full, 1024, TextModes::AsAsked, Flow::Open),
        (200, Pressure, Observation::Summary, 128, TextModes::Off, Flow::Bounded),
        (400, Critical, Observation::Off, 0, TextModes::Off, Flow::Bounded),
        (800, Emergency, Observation::Off, 0, TextModes::Off, Flow::Drain),
    ];
    let mut policy = policy();
    for (step, (mib, stage, observation, history, text, flow)) in rows.into_iter().enumerate() {
        policy.sample(at(step as u64 * 10, mib));
        assert_eq!(policy.stage(), stage);
        assert_eq!(policy.effects(), Effects { observation, history, text, flow });
    }
}

#[test]
fn a_stage_is_entered_at_once_and_left_after_a_second_below_nine_tenths() {
    use Stage::*;
    let mut policy = policy();
    assert_eq!(policy.sample(at(0, 250)), moved(Monitoring, Pressure));
    assert_eq!(policy.sample(at(100, 185)), NOTHING, "185 is above 90 % of 200");
    assert_eq!(policy.sample(at(3000, 185)), NOTHING);
    assert_eq!(policy.sample(at(3100, 170)), NOTHING);
    assert_eq!(policy.sample(at(4000, 170)), NOTHING, "not a second yet");
    assert_eq!(policy.sample(at(4050, 181)), NOTHING, "up for a moment: the second begins anew");
    assert_eq!(policy.sample(at(4100, 170)), NOTHING);
    assert_eq!(policy.sample(at(5100, 170)), moved(Pressure, Attention));
    assert_eq!(policy.sample(at(5200, 10)), NOTHING);
    assert_eq!(policy.sample(at(6200, 10)), moved(Attention, Monitoring));
}

#[test]
fn a_fall_is_to_the_highest_stage_of_that_second() {
    use Stage::*;
    let mut policy = policy();
    policy.sample(at(0, 500));
    policy.sample(at(100, 10));
    policy.sample(at(600, 220));
    assert_eq!(policy.sample(at(1100, 10)), moved(Critical, Pressure));
}

#[test]
fn each_switch_switches_off_exactly_that() {
    let degrade = Settings { degrade: Degrade::Never, ..settings() };
    let gate = Settings { gate: GateMode::Off, ..settings() };
    for most in [50, 100, 200, 400, 800] {
        let [plain, degrade, gate] = [settings(), degrade, gate].map(|settings| {
            let mut policy = Policy::new(policy().thresholds, settings);
            for step in 0..=10 {
                policy.sample(writing(step * 50, step * most / 10));
            }
            policy.effects()
        });
        assert_eq!(plain.flow == Flow::Trickle, most == 400);
        assert_eq!(degrade, Effects { text: TextModes::AsAsked, ..plain });
        let flow = if plain.flow == Flow::Trickle { Flow::Bounded } else { plain.flow };
        assert_eq!(gate, Effects { flow, ..plain });
    }
}

#[test]
fn memory_that_is_there_closes_nothing() {
    let mut policy = policy();
    for step in 0..2000 {
        assert_eq!(policy.sample(writing(step * 50, 450)).gate, None);
    }
    assert_eq!(policy.stage(), Stage::Critical);
}

#[test]
fn growth_without_output_closes_nothing() {
    let mut policy = policy();
    for step in 0..40 {
        assert_eq!(policy.sample(at(step * 50, step * 10)).gate, None);
    }
    // It has read all that it wanted, and writes.
    for step in 0..2000 {
        assert_eq!(policy.sample(writing(2000 + step * 50, 400)).gate, None);
    }
}

#[test]
fn a_try_goes_on_while_memory_falls() {
    let mut policy = closed();
    let (after, change) = held(&mut policy, |since| 400 - 60 * since / 1000);
    let GateChange::Opened(end) = change else { panic!("{change:?}") };
    assert_eq!((end.outcome, end.gained), (Outcome::Helped, 102 * MIB as i64));
    assert_eq!((after, policy.stage()), (1700, Stage::Pressure), "a second below 360");
}

#[test]
fn a_try_that_lowers_nothing_ends_after_two_seconds() {
    let mut policy = closed();
    let (after, change) = held(&mut policy, |_| 401);
    let GateChange::Opened(end) = change else { panic!("{change:?}") };
    assert_eq!(end.outcome, Outcome::NoFall);
    assert!((2000..2400).contains(&after), "{after}");
    assert_eq!(policy.effects().flow, Flow::Bounded);
}

#[test]
fn a_child_that_queues_is_let_go_at_once() {
    let mut policy = closed();
    let (after, change) = held(&mut policy, |since| 400 + since / 10);
    let GateChange::Opened(end) = change else { panic!("{change:?}") };
    assert_eq!(end.outcome, Outcome::Grew);
    assert!(after <= 300, "{after}");
    assert_eq!(policy.effects().flow, Flow::Drain);
}

#[test]
fn a_pipe_that_is_filling_is_no_growth() {
    let mut policy = closed();
    for step in 1..10 {
        let filling =
            Sample { source: Source::Waiting, ..writing(1000 + step * 50, 400 + step * 5) };
        assert_eq!(policy.sample(filling).gate, None);
    }
}

#[test]
fn nothing_to_hold_back_is_no_try() {
    let mut policy = closed();
    let mut times = (1..100).map(|step| step * 50);
    let ended =
        times.find_map(|since| policy.sample(Sample { output: 0, ..at(1000 + since, 400) }).gate);
    let Some(GateChange::Opened(end)) = ended else { panic!("{ended:?}") };
    assert_eq!(end.outcome, Outcome::Idle);
    assert!(end.held <= Duration::from_millis(50));
}

#[test]
fn what_is_left_of_the_group_counts_for_whoever_is_not_small() {
    use Stage::*;
    let full = Some(Room { left: 80 * MIB, limit: 400 * MIB });
    let some = Some(Room { left: 100 * MIB, limit: 400 * MIB });
    let more = Some(Room { left: 120 * MIB, limit: 400 * MIB });
    let mut policy = policy();
    assert_eq!(policy.sample(Sample { room: full, ..at(0, 50) }), NOTHING, "others filled it");
    assert_eq!(policy.sample(Sample { room: more, ..at(100, 210) }), moved(Monitoring, Pressure));
    assert_eq!(policy.sample(Sample { room: full, ..at(200, 210) }), moved(Pressure, Emergency));
    assert_eq!(policy.sample(Sample { room: some, ..at(300, 210) }), NOTHING);
    assert_eq!(
        policy.sample(Sample { room: some, ..at(2000, 210) }),
        NOTHING,
        "too little to leave"
    );
    assert_eq!(policy.sample(Sample { room: more, ..at(2100, 210) }), NOTHING);
    assert_eq!(policy.sample(Sample { room: more, ..at(3100, 210) }), moved(Emergency, Pressure));
}

#[test]
fn a_stall_moves_attention_to_pressure_for_a_while() {
    use Stage::*;
    let mut policy = policy();
    policy.stalled(Duration::ZERO);
    assert_eq!(policy.sample(at(0, 50)), NOTHING, "far from every threshold a stall is not ours");
    assert_eq!(policy.sample(at(10, 120)), moved(Monitoring, Pressure));
    assert_eq!(policy.sample(at(2500, 120)), NOTHING);
    assert_eq!(policy.sample(at(3600, 120)), moved(Pressure, Attention));
}

#[test]
fn the_period_follows_distance_and_growth() {
    let mut policy = policy();
    assert_eq!(policy.period(), FASTEST, "nothing is known yet");
    policy.sample(at(40, 5));
    assert_eq!(policy.period(), Duration::from_millis(20), "it is young");
    policy.sample(at(1000, 5));
    assert_eq!(policy.period(), SLOWEST);
    policy.sample(at(1200, 6));
    assert_eq!(policy.period(), SLOWEST);
    policy.sample(at(1400, 70));
    let growing = policy.period();
    assert!(growing < Duration::from_millis(30), "{growing:?}");
    for step in 0..20 {
        policy.sample(at(1600 + step * 200, 99));
    }
    let near = policy.period();
    assert!(near <= Duration::from_millis(20), "{near:?}");
}

#[test]
fn defaults() {
    let of = |limit| {
        let all = Thresholds::new(Named::default(), limit).expect("nothing named");
        [Stage::Attention, Stage::Pressure, Stage::Critical, Stage::Emergency]
            .map(|stage| all.of(stage) / MIB)
    };
    assert_eq!(of(1500 * MIB), [256, 512, 1024, 1200], "the table's figures");
    assert_eq!(of(2 * GIB), [614, 1024, 1433, 1638], "the shares");
    assert_eq!(of(100 * GIB), [30720, 51200, 71680, 81920]);
    assert_eq!(of(GIB), [256, 512, 716, 819], "critical has to begin before emergency");
    assert_eq!(of(512 * MIB), [153, 256, 358, 409]);
}

#[test]
fn what_is_named_stands_and_the_rest_keeps_the_order() {
    let of = |named| Thresholds::new(Named(named), 1500 * MIB).expect("in order").0;
    let mib = |mib: u64| Some(mib * MIB);
    assert_eq!(of([None, mib(128), None, None]), [64, 128, 1024, 1200].map(|mib| mib * MIB));
    assert_eq!(of([mib(600), None, None, None])[..3], [600, 1200, 2400].map(|mib| mib * MIB));
    assert_eq!(of([mib(300), None, mib(400), None])[1], 350 * MIB);
    let wrong = Thresholds::new(Named([mib(200), mib(100), None, None]), GIB);
    assert_eq!(wrong, Err(OutOfOrder { lower: Stage::Attention, higher: Stage::Pressure }));
    assert!(Thresholds::new(Named([mib(200), None, None, mib(100)]), GIB).is_err());
}

fn any_named() -> impl Strategy<Value = Named> {
    prop::array::uniform4(prop::option::of(1u64..1 << 44)).prop_map(Named)
}

/// What a child may do: times between samples, memory, what waits, how much it wrote, and what others leave.
fn any_samples() -> impl Strategy<Value = Vec<Sample>> {
    let source = prop_oneof![Just(Source::Empty), Just(Source::Waiting), Just(Source::Full)];
    let room = prop::option::of((0..500 * MIB).prop_map(|left| Room { left, limit: 500 * MIB }));
    let step = (1u64..400, 0u64..1200, source, 0..50 * MIB, room);
    prop::collection::vec(step, 1..200).prop_map(|steps| {
        let (mut millis, mut output) = (0, 0);
        let sample = |(wait, mib, source, moved, room)| {
            (millis, output) = (millis + wait, output + moved);
            Sample { source, output, room, narrowest: room, ..at(millis, mib) }
        };
        steps.into_iter().map(sample).collect()
    })
}

proptest! {
    #[test]
    fn thresholds_are_in_order_and_named_ones_exact(named in any_named(), limit in 1u64 << 20..1 << 46) {
        match Thresholds::new(named, limit) {
            Err(_) => {
                let all: Vec<u64> = named.0.into_iter().flatten().collect();
                prop_assert!(!all.is_sorted());
            }
            Ok(Thresholds(at)) => {
                prop_assert!(at.is_sorted(), "{at:?}");
                for (at, named) in at.into_iter().zip(named.0) {
                    prop_assert!(named.is_none_or(|named| named == at));
                }
            }
        }
    }

    /// Whatever memory does: a stage is entered with its first sample, the gate is closed only in the
    /// critical stage and for no longer than a try may take, and the period keeps its bounds.
    #[test]
    fn rules_hold_for_any_samples(samples in any_samples()) {
        let mut policy = policy();
        let (mut closed, mut last) = (Duration::ZERO, Duration::ZERO);
        for sample in samples {
            let was = policy.effects().flow;
            let changes = policy.sample(sample);
            prop_assert!(policy.stage() >= policy.thresholds.reached(sample.resident));
            let flow = policy.effects().flow;
            prop_assert!(flow != Flow::Trickle || policy.stage() == Stage::Critical);
            prop_assert_eq!(changes.gate.is_some(), (was == Flow::Trickle) != (flow == Flow::Trickle));
            closed += if was == Flow::Trickle { sample.at - last } else { Duration::ZERO };
            closed = if flow == Flow::Trickle { closed } else { Duration::ZERO };
            prop_assert!(closed < Duration::from_secs(12) , "{closed:?}");
            prop_assert!((FASTEST..=SLOWEST).contains(&policy.period()));
            last = sample.at;
        }
    }
}
