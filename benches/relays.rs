//! Relays in one process, between two pipes: nproxy's on both engines beside a splice(2) loop, read and write, and what
//! two asynchronous runtimes offer. A writer's and a reader's thread are part of every figure.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};
use nproxy::relay::{Endpoint, Relay, Role, Route, Stream};
use nproxy::ring::{Engine, Ring, Workers};

/// Bytes of one run: many pipes full.
const VOLUME: usize = 64 << 20;
/// The writer's and the reader's block.
const BLOCK: usize = 64 << 10;
/// What pipes are grown to, and the most that a splice is asked for.
const PIPE: u32 = 1 << 20;

/// Runs `relay` between a writer and a reader, and checks that everything came through.
fn run(relay: impl FnOnce(OwnedFd, OwnedFd)) {
    let (source, to_relay) = io::pipe().expect("a pipe");
    let (from_relay, sink) = io::pipe().expect("a pipe");
    let moved = thread::scope(|scope| {
        scope.spawn(move || write(to_relay));
        let reader = scope.spawn(move || read(from_relay));
        relay(source.into(), sink.into());
        reader.join().expect("the reader")
    });
    assert_eq!(moved, VOLUME);
}

fn write(mut pipe: impl Write) {
    let block = [b'w'; BLOCK];
    for _ in 0..VOLUME / BLOCK {
        pipe.write_all(&block).expect("write");
    }
}

fn read(mut pipe: impl Read) -> usize {
    let mut block = [0; BLOCK];
    let mut total = 0;
    loop {
        match pipe.read(&mut block).expect("read") {
            0 => return total,
            moved => total += moved,
        }
    }
}

fn nproxy(engine: Engine, source: OwnedFd, sink: OwnedFd) {
    let mut ring = Ring::open(engine, Workers { most: 3, needed: true }).expect("a ring");
    let end = |fd| Endpoint::new(fd).expect("a pipe");
    let route = Route {
        stream: Stream::Stdout,
        role: Role::Only,
        source: end(source),
        sink: end(sink),
        source_name: "source".into(),
        sink_name: "sink".into(),
        text: None,
        rate: None,
        copies: Vec::new(),
        beyond: None,
        instead: None,
    };
    let limit = Duration::from_micros(200);
    let mut relay = Relay::new(0, route, Some(PIPE), limit, &mut ring).expect("a relay");
    while relay.ended().is_none() {
        let now = Instant::now();
        relay.on_time(&mut ring, now).expect("the ring");
        relay.advance(&mut ring, now).expect("the ring");
        let timeout = relay.deadline(now).map(|at| at.saturating_duration_since(now));
        ring.wait(timeout).expect("the ring");
        while let Some(completion) = ring.next_completion() {
            relay.complete(completion, &mut ring, Instant::now()).expect("the ring");
        }
    }
}

fn grow(pipes: [&OwnedFd; 2]) {
    for pipe in pipes {
        fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE as i32)).expect("a larger pipe");
    }
}

fn splice_loop(source: OwnedFd, sink: OwnedFd) {
    grow([&source, &sink]);
    let step =
        || splice(source.as_fd(), None, sink.as_fd(), None, PIPE as usize, SpliceFFlags::empty());
    while step().expect("splice") > 0 {}
}

fn read_and_write(source: OwnedFd, sink: OwnedFd) {
    let (mut source, mut sink) = (File::from(source), File::from(sink));
    let mut block = vec![0; BLOCK];
    loop {
        match source.read(&mut block).expect("read") {
            0 => return,
            moved => sink.write_all(&block[..moved]).expect("write"),
        }
    }
}

fn tokio_copy(source: OwnedFd, sink: OwnedFd) {
    use tokio::net::unix::pipe;
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_io().build().expect("a runtime");
    let copied = runtime.block_on(async {
        let source = pipe::Receiver::from_owned_fd(source)?;
        let mut sink = pipe::Sender::from_owned_fd(sink)?;
        let mut source = tokio::io::BufReader::with_capacity(BLOCK, source);
        tokio::io::copy_buf(&mut source, &mut sink).await
    });
    assert_eq!(copied.expect("copy"), VOLUME as u64);
}

fn tokio_uring_copy(source: OwnedFd, sink: OwnedFd) {
    tokio_uring::start(async {
        let file = |fd| tokio_uring::fs::File::from_std(File::from(fd));
        let (source, sink) = (file(source), file(sink));
        let mut buffer = Vec::with_capacity(BLOCK);
        loop {
            let (read, filled) = source.read_at(buffer, 0).await;
            if read.expect("read") == 0 {
                return;
            }
            let (written, emptied) = sink.write_all_at(filled, 0).await;
            written.expect("write");
            buffer = emptied;
            buffer.clear();
        }
    });
}

fn relays(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("relay");
    group.throughput(Throughput::Bytes(VOLUME as u64));
    if Ring::open(Engine::Uring, Workers { most: 3, needed: true }).is_ok() {
        group.bench_function("nproxy, io_uring", |bench| {
            bench.iter(|| run(|source, sink| nproxy(Engine::Uring, source, sink)));
        });
        group.bench_function("tokio-uring", |bench| bench.iter(|| run(tokio_uring_copy)));
    }
    group.bench_function("nproxy, epoll", |bench| {
        bench.iter(|| run(|source, sink| nproxy(Engine::Epoll, source, sink)));
    });
    group.bench_function("splice(2) loop", |bench| bench.iter(|| run(splice_loop)));
    group.bench_function("read and write", |bench| bench.iter(|| run(read_and_write)));
    group.bench_function("tokio copy", |bench| bench.iter(|| run(tokio_copy)));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(4));
    targets = relays
}
criterion_main!(benches);
