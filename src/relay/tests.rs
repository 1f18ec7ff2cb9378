//! Each path, whatever result every operation has at every point: what arrives is a beginning of what was sent, and all
//! of it where the relay says so; what was not to fail has not failed; and it never waits for nothing.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use proptest::prelude::*;

use super::*;
use crate::ring::scripted::Fate;
use crate::ring::{Engine, Ring};
use crate::text::strip::{C1, CursorVisibility};
use crate::text::{Escapes, Modes};

/// What a relay runs between.
#[derive(Clone, Copy, Debug)]
enum Outer {
    Pipe,
    Socket,
    File,
}

/// One way through the relay.
#[derive(Clone, Copy, Debug)]
struct Way {
    engine: Engine,
    from: Outer,
    to: Outer,
    copies: usize,
    text: bool,
}

/// Every path that there is, and each pair of ends that leads to it.
fn ways() -> Vec<Way> {
    use Outer::{File, Pipe, Socket};
    let mut ways = Vec::new();
    for engine in [Engine::Uring, Engine::Epoll] {
        let plain = |from, to| Way { engine, from, to, copies: 0, text: false };
        for from in [Pipe, Socket, File] {
            ways.extend([Pipe, Socket, File].map(|to| plain(from, to)));
        }
        for copies in [1, 3] {
            ways.push(Way { copies, ..plain(Pipe, Pipe) });
        }
        for to in [Pipe, Socket, File] {
            ways.push(Way { text: true, ..plain(Pipe, to) });
        }
    }
    ways
}

/// The ends that the test holds.
struct Outside {
    /// `None` once everything has been written, or if the source is a file.
    feed: Option<File>,
    sent: Vec<u8>,
    fed: usize,
    sink: Option<File>,
    got: Vec<u8>,
    copies: Vec<(File, Vec<u8>)>,
}

fn nonblocking(fd: impl Into<OwnedFd>) -> File {
    let fd = fd.into();
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("F_SETFL");
    fd.into()
}

fn endpoint(fd: impl Into<OwnedFd>) -> Endpoint {
    Endpoint::new(fd.into()).expect("an endpoint")
}

impl Outside {
    fn open(way: Way, sent: Vec<u8>, ring: &mut Ring) -> (Relay, Outside) {
        let (source, feed, fed) = match way.from {
            Outer::Pipe => {
                let (reader, writer) = std::io::pipe().expect("pipe");
                (endpoint(reader), Some(nonblocking(writer)), 0)
            }
            Outer::Socket => {
                let (ours, theirs) = UnixStream::pair().expect("socketpair");
                (endpoint(ours), Some(nonblocking(theirs)), 0)
            }
            Outer::File => {
                let mut file = tempfile::tempfile().expect("a file");
                file.write_all(&sent).expect("write");
                std::io::Seek::rewind(&mut file).expect("rewind");
                (endpoint(file), None, sent.len())
            }
        };
        let (sink, theirs) = match way.to {
            Outer::Pipe => {
                let (reader, writer) = std::io::pipe().expect("pipe");
                (endpoint(writer), nonblocking(reader))
            }
            Outer::Socket => {
                let (ours, theirs) = UnixStream::pair().expect("socketpair");
                (endpoint(ours), nonblocking(theirs))
            }
            Outer::File => {
                let file = tempfile::NamedTempFile::new().expect("a file");
                let reader = File::open(file.path()).expect("open");
                (endpoint(file.into_file()), reader)
            }
        };
        let (mut feeds, mut copies) = (Vec::new(), Vec::new());
        for copy in 0..way.copies {
            let (reader, writer) = std::io::pipe().expect("pipe");
            feeds.push(Feed {
                copy,
                streams: &[Stream::Stdout],
                pipe: endpoint(writer),
                on_full: OnFull::Block,
                string_end: StringEnd::Left,
            });
            copies.push((nonblocking(reader), Vec::new()));
        }
        let modes = Modes {
            escapes: Escapes::Strip { cursor: CursorVisibility::Removed, c1: C1::Text },
            ..Modes::default()
        };
        let route = Route {
            stream: Stream::Stdout,
            role: Role::Only,
            source,
            sink,
            source_name: "the source".into(),
            sink_name: "the sink".into(),
            text: way.text.then(|| TextWork { modes, started: Instant::now() }),
            rate: None,
            copies: feeds,
            beyond: None,
            instead: None,
        };
        let relay = Relay::new(0, route, None, Duration::ZERO, ring).expect("a relay");
        let outside = Outside { feed, sent, fed, sink: Some(theirs), got: Vec::new(), copies };
        (relay, outside)
    }

    /// Writes some more into the source, and closes it after the last byte.
    fn feed(&mut self, most: usize) {
        let Some(feed) = &mut self.feed else { return };
        let end = self.sent.len().min(self.fed + most);
        if let Ok(length) = feed.write(&self.sent[self.fed..end]) {
            self.fed += length;
        }
        if self.fed == self.sent.len() {
            self.feed = None;
        }
    }

    fn drain(&mut self, most: usize) {
        if let Some(sink) = &mut self.sink {
            take(sink, &mut self.got, most);
        }
    }

    fn drain_copy(&mut self, copy: usize, most: usize) {
        if let Some((copy, got)) = self.copies.get_mut(copy) {
            take(copy, got, most);
        }
    }
}

fn take(from: &mut File, into: &mut Vec<u8>, most: usize) {
    let mut bytes = vec![0; most];
    if let Ok(length) = from.read(&mut bytes) {
        into.extend_from_slice(&bytes[..length]);
    }
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    Feed(u16),
    Drain(u16),
    DrainCopy(u8, u16),
    /// An operation in flight runs, with at most so many bytes.
    Run(u8, u32),
    /// It is not carried out, and its result is one of `MISHAPS`.
    Meet(u8, u8),
}

/// Results that the kernel gives for no fault of either end: nothing may come of them.
const HARMLESS: [Outcome; 3] =
    [Outcome::Failed(Errno::EINTR), Outcome::Failed(Errno::EAGAIN), Outcome::Cancelled];
/// What a first splice or tee may meet where it is not to be had.
const REFUSALS: [Outcome; 3] =
    [Outcome::Failed(Errno::EINVAL), Outcome::Failed(Errno::EPERM), Outcome::Failed(Errno::ENOSYS)];
/// What ends a stream.
const FATAL: [Outcome; 6] = [
    Outcome::Failed(Errno::EIO),
    Outcome::Failed(Errno::ENOSPC),
    Outcome::Failed(Errno::EPIPE),
    Outcome::Failed(Errno::ECONNRESET),
    Outcome::Failed(Errno::EBADF),
    Outcome::Failed(Errno::ENOMEM),
];

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => any::<u16>().prop_map(Event::Feed),
        3 => any::<u16>().prop_map(Event::Drain),
        2 => (any::<u8>(), any::<u16>()).prop_map(|(copy, most)| Event::DrainCopy(copy, most)),
        8 => (any::<u8>(), prop_oneof![1u32..10, 1u32..5000, Just(u32::MAX)])
            .prop_map(|(index, most)| Event::Run(index, most)),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(index, which)| Event::Meet(index, which)),
    ]
}

/// How bad the results are that operations may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// None: everything arrives.
    None,
    /// Each of them may end the stream.
    Fatal,
}

/// What was done to a relay that it must not have survived unharmed.
#[derive(Default, Debug)]
struct Injected {
    main: bool,
    copies: bool,
    refusal: bool,
}

struct Trial {
    ring: Ring,
    relay: Relay,
    outside: Outside,
    injected: Injected,
}

impl Trial {
    fn new(way: Way, sent: Vec<u8>) -> Trial {
        let mut ring = Ring::scripted(way.engine);
        let (relay, outside) = Outside::open(way, sent, &mut ring);
        Trial { ring, relay, outside, injected: Injected::default() }
    }

    /// A turn of the session's loop around one event.
    fn turn(&mut self, event: Event, harm: Harm) {
        let now = Instant::now();
        self.relay.on_time(&mut self.ring, now).expect("on_time");
        self.relay.advance(&mut self.ring, now).expect("advance");
        let in_flight = self.ring.in_flight();
        let pick = |index: u8| usize::from(index) % in_flight.len().max(1);
        match event {
            Event::Feed(most) => self.outside.feed(most.into()),
            Event::Drain(most) => self.outside.drain(most.into()),
            Event::DrainCopy(copy, most) => {
                let copies = self.outside.copies.len().max(1);
                self.outside.drain_copy(usize::from(copy) % copies, most.into());
            }
            Event::Run(index, most) if !in_flight.is_empty() => {
                self.ring.settle(pick(index), Fate::Runs(most));
            }
            Event::Meet(index, which) if !in_flight.is_empty() => {
                let index = pick(index);
                let outcome = self.mishap(in_flight[index], which, harm);
                self.ring.settle(index, Fate::Meets(outcome));
            }
            Event::Run(..) | Event::Meet(..) => {}
        }
        while let Some(done) = self.ring.next_completion() {
            self.relay.complete(done, &mut self.ring).expect("complete");
        }
    }

    fn mishap(&mut self, operation: Operation, which: u8, harm: Harm) -> Outcome {
        // A relay that was refused once reads and writes instead, which no filter forbids.
        let first = self.relay.counters().operations == 0 && !self.injected.refusal;
        let mut possible = HARMLESS.to_vec();
        match operation {
            Operation::Splice | Operation::Fill if first => possible.extend(REFUSALS),
            // Between two pipes it is never invalid.
            Operation::Tee if first => possible.extend(&REFUSALS[1..]),
            _ => {}
        }
        if harm == Harm::Fatal && !matches!(operation, Operation::Input | Operation::SinkWatch) {
            possible.extend(FATAL);
        }
        let outcome = possible[usize::from(which) % possible.len()];
        self.injected.refusal |= REFUSALS.contains(&outcome);
        if FATAL.contains(&outcome) {
            match operation {
                Operation::Tee => self.injected.copies = true,
                _ => self.injected.main = true,
            }
        }
        outcome
    }

    /// From here on everybody does their part. A relay that has not ended after this waits for ever.
    fn finish(&mut self) -> Result<(), TestCaseError> {
        for round in 0..20_000u32 {
            if self.relay.ended().is_some() {
                break;
            }
            let event = match round % 4 {
                0 => Event::Feed(u16::MAX),
                1 => Event::Drain(u16::MAX),
                2 => Event::DrainCopy((round / 4) as u8, u16::MAX),
                _ => Event::Run((round / 4) as u8, u32::MAX),
            };
            self.turn(event, Harm::None);
        }
        prop_assert!(self.relay.ended().is_some(), "it waits: {:?}", self.ring.in_flight());
        // What has been cancelled comes back too.
        for _ in 0..1000 {
            let count = self.ring.in_flight().len();
            for index in (0..count).rev() {
                self.ring.settle(index, Fate::Runs(u32::MAX));
            }
            while let Some(done) = self.ring.next_completion() {
                self.relay.complete(done, &mut self.ring).expect("complete");
            }
            self.outside.drain(1 << 20);
            (0..self.outside.copies.len()).for_each(|copy| self.outside.drain_copy(copy, 1 << 20));
            if self.ring.in_flight().is_empty() {
                break;
            }
        }
        for _ in 0..64 {
            self.outside.drain(1 << 20);
            (0..self.outside.copies.len()).for_each(|copy| self.outside.drain_copy(copy, 1 << 20));
        }
        prop_assert!(self.ring.in_flight().is_empty(), "left: {:?}", self.ring.in_flight());
        Ok(())
    }

    fn judge(&self, way: Way) -> Result<(), TestCaseError> {
        let Outside { sent, got, copies, .. } = &self.outside;
        let end = self.relay.ended().expect("an end");
        prop_assert!(sent.starts_with(got), "{way:?}: what arrives is what was sent");
        let counters = self.relay.counters();
        prop_assert_eq!(counters.bytes, got.len() as u64, "{:?}: the books", way);
        if !self.injected.main {
            prop_assert!(matches!(end, End::Delivered), "{way:?}: nothing failed, but {end:?}");
        }
        if matches!(end, End::Delivered) {
            prop_assert!(got == sent, "{way:?}: {} of {} bytes", got.len(), sent.len());
        }
        for ((_, copy), (_, dropped)) in copies.iter().zip(self.relay.dropped()) {
            prop_assert!(sent.starts_with(copy), "{way:?}: a copy is what was sent");
            if matches!(end, End::Delivered) && copy != sent {
                prop_assert!(self.injected.copies, "{way:?}: a copy fell short");
                prop_assert_eq!(dropped, (sent.len() - copy.len()) as u64);
            }
            // What the sink has got, a copy that has lost nothing has too.
            prop_assert!(dropped > 0 || copy.len() >= got.len(), "{way:?}: behind the sink");
        }
        Ok(())
    }
}

/// Printable, so that text modes leave it alone.
fn payload(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let byte = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match state >> 25 {
            low @ 0..0x20 => {
                if low < 2 {
                    b'\n'
                } else {
                    b'.'
                }
            }
            0x7f => b' ',
            byte => byte as u8,
        }
    };
    (0..length).map(byte).collect()
}

fn cases() -> u32 {
    let asked = std::env::var("NPROXY_TEST_CASES").ok();
    asked.map_or(12, |cases| cases.parse().expect("NPROXY_TEST_CASES is a number"))
}

fn trial(harm: Harm) {
    let length = prop_oneof![Just(0usize), 1usize..200, 1usize..400_000];
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(cases()));
    let script = (length, prop::collection::vec(event(), 0..120));
    runner
        .run(&script, |(length, events)| {
            for way in ways() {
                let mut trial = Trial::new(way, payload(length));
                for event in &events {
                    trial.turn(*event, harm);
                }
                trial.finish()?;
                trial.judge(way)?;
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn interruptions_and_refusals_cost_no_byte() {
    trial(Harm::None);
}

#[test]
fn failures_end_a_stream_and_corrupt_nothing() {
    trial(Harm::Fatal);
}
