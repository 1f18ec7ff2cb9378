//! The text filters beside their peers, in memory: bytes of input per second.
//!
//! nproxy's filters run as the relay runs them, 64 KiB at a time into one buffer that is used again. The
//! peers get the whole corpus at once and return memory of their own, which is how they are made to be used.

mod corpora;

use std::hint::black_box;
use std::io::Write;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jiff::tz::TimeZone;
use nproxy::text::screen::ScreenSize;
use nproxy::text::strip::{C1, CursorVisibility};
use nproxy::text::transform::{Label, LineNumbers, Prefix, StampMode, Zone};
use nproxy::text::{Arrival, Escapes, Filter, Modes};

/// Bytes of each corpus: more than the second-level cache, so that memory counts as it does in a relay.
const SIZE: usize = 1 << 20;

/// Bytes read at a time, and room for what they become.
const CHUNK: usize = 64 << 10;

/// Runs `corpus` through a new filter; each chunk arrives 50 µs after the one before.
fn run(modes: &Modes, corpus: &[u8], output: &mut [u8]) {
    let mut filter = Filter::new(modes);
    filter.set_pid(12345);
    let mut elapsed = Duration::ZERO;
    for chunk in corpus.chunks(CHUNK) {
        elapsed += Duration::from_micros(50);
        let arrival = Arrival { wall: Duration::from_secs(1_700_000_000) + elapsed, elapsed };
        let mut rest = chunk;
        while !rest.is_empty() {
            let done = filter.filter(rest, output, arrival);
            black_box(&output[..done.produced]);
            rest = &rest[done.consumed..];
        }
    }
}

fn strip(criterion: &mut Criterion) {
    let corpora = [
        ("dense", corpora::dense(SIZE)),
        ("build-log", corpora::build_log(SIZE)),
        ("plain", corpora::plain(SIZE)),
        ("utf8", corpora::utf8(SIZE)),
    ];
    let mut output = vec![0; CHUNK];
    for (name, corpus) in &corpora {
        let mut group = criterion.benchmark_group(format!("strip/{name}"));
        group.throughput(Throughput::Bytes(corpus.len() as u64));
        let cases = [
            ("nproxy", CursorVisibility::Removed, C1::Text),
            ("nproxy, cursor kept", CursorVisibility::Kept, C1::Text),
            ("nproxy, 8-bit controls", CursorVisibility::Removed, C1::Control),
        ];
        for (id, cursor, c1) in cases {
            let modes = Modes { escapes: Escapes::Strip { cursor, c1 }, ..Modes::default() };
            group.bench_function(id, |bench| {
                bench.iter(|| run(&modes, black_box(corpus), &mut output))
            });
        }
        group.bench_function("memcpy", |bench| {
            bench.iter(|| run(&Modes::default(), black_box(corpus), &mut output));
        });
        group.bench_function("fast-strip-ansi", |bench| {
            bench.iter(|| fast_strip_ansi::strip_ansi_bytes(black_box(corpus)));
        });
        group.bench_function("anstream", |bench| {
            bench.iter(|| anstream::adapter::strip_bytes(black_box(corpus)).into_vec());
        });
        group.bench_function("strip-ansi-escapes", |bench| {
            bench.iter(|| strip_ansi_escapes::strip(black_box(corpus)));
        });
    }
}

fn screen(criterion: &mut Criterion) {
    let corpora = [
        ("redrawn", corpora::redrawn(SIZE)),
        ("build-log", corpora::build_log(SIZE)),
        ("plain", corpora::plain(SIZE)),
        ("utf8", corpora::utf8(SIZE)),
    ];
    let escapes = Escapes::Screen { size: ScreenSize::default(), c1: C1::Text };
    let modes = Modes { escapes, ..Modes::default() };
    let mut output = vec![0; CHUNK];
    for (name, corpus) in &corpora {
        let mut group = criterion.benchmark_group(format!("screen/{name}"));
        group.throughput(Throughput::Bytes(corpus.len() as u64));
        group.bench_function("nproxy", |bench| {
            bench.iter(|| run(&modes, black_box(corpus), &mut output))
        });
    }
}

fn transform(criterion: &mut Criterion) {
    let corpus = corpora::lines(SIZE);
    // Room for a chunk with its prefixes, as one call of the relay would have.
    let mut output = vec![0; CHUNK];
    let mut group = criterion.benchmark_group("transform");
    group.throughput(Throughput::Bytes(corpus.len() as u64));
    let label = || Label::parse("{command}[{pid}] ").expect("a label");
    let zone = || TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone").into();
    let local = Prefix::new(StampMode::Wall, None, zone(), LineNumbers::Off).expect("a format");
    let prefix = |mode, numbers| {
        Some(Prefix::new(mode, None, Zone::default(), numbers).expect("a default format"))
    };
    let cases = [
        ("wall", Escapes::Pass, prefix(StampMode::Wall, LineNumbers::Off)),
        ("elapsed", Escapes::Pass, prefix(StampMode::Elapsed, LineNumbers::Off)),
        ("delta", Escapes::Pass, prefix(StampMode::Delta, LineNumbers::Off)),
        ("wall, numbers", Escapes::Pass, prefix(StampMode::Wall, LineNumbers::On)),
        ("local zone and label", Escapes::Pass, Some(local.with_label(label()))),
        (
            "strip and wall",
            Escapes::Strip { cursor: CursorVisibility::Removed, c1: C1::Text },
            prefix(StampMode::Wall, LineNumbers::Off),
        ),
    ];
    for (id, escapes, transform) in cases {
        let modes = Modes { escapes, transform };
        group.bench_function(id, |bench| {
            bench.iter(|| run(&modes, black_box(&corpus), &mut output))
        });
    }
    group.bench_function("naive: format and write each line", |bench| {
        bench.iter(|| {
            let mut text = Vec::with_capacity(2 * corpus.len());
            for line in black_box(&corpus[..]).split_inclusive(|&byte| byte == b'\n') {
                write!(text, "[{:.3}] ", 1.25).expect("memory");
                text.extend_from_slice(line);
            }
            text
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = strip, screen, transform
}
criterion_main!(benches);
