//! What the loop does between two transfers: decisions of pace and policy, and one trip through the ring.

use std::hint::black_box;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use nix::poll::PollFlags;
use nproxy::memory::policy::{
    Degrade, GateMode, Named, Policy, Sample, Settings, Source, Thresholds,
};
use nproxy::relay::pace::Pace;
use nproxy::ring::{Engine, Fd, Op, Operation, Ring, Token, Workers};

fn pace(criterion: &mut Criterion) {
    criterion.bench_function("pace/after a transfer", |bench| {
        let mut pace = Pace::new(Duration::from_micros(200));
        let mut now = Instant::now();
        bench.iter(|| {
            now += Duration::from_micros(20);
            black_box(pace.after(black_box(64 << 10), 1 << 20, now))
        });
    });
}

fn policy(criterion: &mut Criterion) {
    let settings = Settings {
        gate: GateMode::Auto,
        degrade: Degrade::Auto,
        fastest: Duration::from_millis(10),
    };
    criterion.bench_function("policy/sample", |bench| {
        let thresholds = Thresholds::new(Named([None; 4]), 8 << 30).expect("thresholds in order");
        let mut policy = Policy::new(thresholds, settings);
        let mut at = Duration::ZERO;
        bench.iter(|| {
            at += Duration::from_millis(10);
            let resident = (at.as_millis() as u64 * (1 << 20)) % (8 << 30);
            let source = Source::Empty;
            let sample = Sample { at, resident, source, output: 0, room: None, narrowest: None };
            black_box(policy.sample(black_box(sample)));
            black_box((policy.effects(), policy.period()))
        });
    });
}

fn ring(criterion: &mut Criterion) {
    for engine in [Engine::Uring, Engine::Epoll] {
        let Ok(mut ring) = Ring::open(engine, Workers { most: 1, needed: true }) else { continue };
        let end = |fd: OwnedFd| -> Fd { Rc::new(fd) };
        let (reader, mut writer) = io::pipe().expect("a pipe");
        writer.write_all(b"x").expect("write");
        let source = end(reader.into());
        criterion.bench_function(
            &format!("ring/{}: poll of a ready pipe", engine.name()),
            |bench| {
                bench.iter(|| {
                    let token = Token::session(Operation::Signal);
                    ring.submit(token, Op::poll(&source, PollFlags::POLLIN)).expect("submit");
                    ring.wait(None).expect("wait");
                    black_box(ring.next_completion().expect("a completion"))
                });
            },
        );
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = pace, policy, ring
}
criterion_main!(benches);
