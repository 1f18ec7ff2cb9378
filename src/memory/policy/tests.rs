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

fn at(millis: u64, mib: u64) -> Sample {
    Sample { at: Duration::from_millis(millis), resident: mib * MIB, source: Source::Empty }
}

fn blocked(millis: u64, mib: u64) -> Sample {
    Sample { source: Source::Waiting, ..at(millis, mib) }
}

fn moved(from: Stage, to: Stage) -> Option<Change> {
    Some(Change::Stage { from, to })
}

#[test]
fn each_stage_has_the_effects_of_the_table() {
    use Stage::*;
    let rows = [
        (50, Monitoring, Observation::Full, 1024, TextModes::AsAsked, Flow::Open),
        (100, Attention, Observation::Full, 1024, TextModes::AsAsked, Flow::Open),
        (200, Pressure, Observation::Summary, 128, TextModes::Off, Flow::Bounded),
        (400, Critical, Observation::Off, 0, TextModes::Off, Flow::Trickle),
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
    assert_eq!(policy.sample(at(100, 185)), None, "185 is above 90 % of 200");
    assert_eq!(policy.sample(at(3000, 185)), None);
    assert_eq!(policy.sample(at(3100, 170)), None);
    assert_eq!(policy.sample(at(4000, 170)), None, "not a second yet");
    assert_eq!(policy.sample(at(4050, 181)), None, "up for a moment: the second begins anew");
    assert_eq!(policy.sample(at(4100, 170)), None);
    assert_eq!(policy.sample(at(5100, 170)), moved(Pressure, Attention));
    assert_eq!(policy.sample(at(5200, 10)), None);
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
    let named = policy().thresholds;
    let degrade = Settings { degrade: Degrade::Never, ..settings() };
    let gate = Settings { gate: GateMode::Off, ..settings() };
    for mib in [50, 100, 200, 400, 800] {
        let [plain, degrade, gate] = [settings(), degrade, gate].map(|settings| {
            let mut policy = Policy::new(named, settings);
            policy.sample(at(0, mib));
            policy.effects()
        });
        assert_eq!(degrade, Effects { text: TextModes::AsAsked, ..plain });
        let flow = if plain.flow == Flow::Trickle { Flow::Bounded } else { plain.flow };
        assert_eq!(gate, Effects { flow, ..plain });
    }
}

#[test]
fn a_gate_that_makes_the_child_grow_opens_for_the_episode() {
    let mut policy = policy();
    policy.sample(blocked(0, 400));
    for step in 1..20 {
        assert_eq!(policy.sample(blocked(step * 50, 400 + step)), None);
    }
    assert_eq!(policy.sample(blocked(1000, 421)), Some(Change::GateHarmful));
    assert_eq!(policy.effects().flow, Flow::Drain);
    assert_eq!(policy.sample(blocked(1050, 500)), None, "said once");
    // Out of the stage, and back in: a new episode, a new judgement.
    policy.sample(at(2000, 10));
    policy.sample(at(3000, 10));
    assert_eq!(policy.stage(), Stage::Monitoring);
    policy.sample(blocked(4000, 450));
    assert_eq!(policy.effects().flow, Flow::Trickle);
}

#[test]
fn growth_counts_only_while_bytes_wait() {
    let mut policy = policy();
    policy.sample(at(0, 400));
    for step in 1..80 {
        let sample = match step % 2 {
            0 => at(step * 50, 400 + step),
            _ => blocked(step * 50, 400 + step),
        };
        assert_eq!(policy.sample(sample), None);
    }
}

#[test]
fn growth_below_a_twentieth_leaves_the_gate_closed() {
    let mut policy = policy();
    for step in 0..400 {
        // 15 MiB a second on 400 and more: under 4 %.
        policy.sample(blocked(step * 50, 400 + step * 3 / 4));
        assert_eq!(policy.effects().flow, Flow::Trickle);
    }
}

#[test]
fn a_stall_moves_attention_to_pressure_for_a_while() {
    use Stage::*;
    let mut policy = policy();
    policy.stalled(Duration::ZERO);
    assert_eq!(policy.sample(at(0, 50)), None, "far from every threshold a stall is not ours");
    assert_eq!(policy.sample(at(10, 120)), moved(Monitoring, Pressure));
    assert_eq!(policy.sample(at(2500, 120)), None);
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

/// What a child may do: times between samples, memory, and whether it has bytes out.
fn any_samples() -> impl Strategy<Value = Vec<Sample>> {
    let step = (1u64..400, 0u64..1200, any::<bool>());
    prop::collection::vec(step, 1..200).prop_map(|steps| {
        let mut millis = 0;
        let sample = |(wait, mib, waiting)| {
            millis += wait;
            if waiting { blocked(millis, mib) } else { at(millis, mib) }
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
    /// critical stage and never once it was found harmful, and the period keeps its bounds.
    #[test]
    fn rules_hold_for_any_samples(samples in any_samples()) {
        let mut policy = policy();
        let mut harmful = false;
        for sample in samples {
            let change = policy.sample(sample);
            prop_assert!(policy.stage() >= policy.thresholds.reached(sample.resident));
            match change {
                Some(Change::GateHarmful) => harmful = true,
                Some(Change::Stage { to, .. }) if to < Stage::Critical => harmful = false,
                _ => {}
            }
            let flow = policy.effects().flow;
            prop_assert!(flow != Flow::Trickle || policy.stage() == Stage::Critical);
            prop_assert!(!(harmful && flow == Flow::Trickle));
            prop_assert!((FASTEST..=SLOWEST).contains(&policy.period()));
        }
    }

    /// After any history, the gate is open within three seconds of memory being low for good, or of
    /// memory growing by more than a twentieth a second while bytes wait: one to leave emergency, one that
    /// the past has spoilt, one to judge.
    #[test]
    fn the_gate_opens_within_its_bound(samples in any_samples(), grows in any::<bool>()) {
        let mut policy = policy();
        let mut now = Duration::ZERO;
        let mut resident = 450.0;
        for sample in samples {
            policy.sample(sample);
            now = sample.at;
        }
        let start = now;
        // What comes first is a step in memory from wherever it was; it may end a window, not judge it.
        while now - start < Duration::from_millis(3300) {
            let step = policy.period();
            now += step;
            if grows { resident *= 1.0 + 0.06 * step.as_secs_f64(); } else { resident = 10.0; }
            let source = Source::Waiting;
            policy.sample(Sample { at: now, resident: (resident * MIB as f64) as u64, source });
        }
        prop_assert_ne!(policy.effects().flow, Flow::Trickle);
    }
}
