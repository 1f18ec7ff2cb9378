//! Each path, whatever result every operation has at every point, whoever leaves and whatever is switched meanwhile: what
//! arrives is a beginning of what was sent, and all of it where the relay says so; what was not to fail has not failed; it
//! ends once; and it never waits for nothing.

mod lines;
mod model;

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
    /// A file that nobody else has open: it is spliced into.
    OwnFile,
}

/// One way through the relay.
#[derive(Clone, Copy, Debug)]
struct Way {
    engine: Engine,
    from: Outer,
    to: Outer,
    copies: usize,
    on_full: OnFull,
    /// The copies are completed when the sink takes no more.
    instead: bool,
    text: bool,
}

impl Way {
    fn plain(engine: Engine) -> Way {
        let (from, to) = (Outer::Pipe, Outer::Pipe);
        Way { engine, from, to, copies: 0, on_full: OnFull::Block, instead: false, text: false }
    }
}

/// Every path that there is, and each pair of ends that leads to it.
fn ways() -> Vec<Way> {
    use Outer::{File, OwnFile, Pipe, Socket};
    let mut ways = Vec::new();
    for engine in [Engine::Uring, Engine::Epoll] {
        let plain = |from, to| Way { from, to, ..Way::plain(engine) };
        for from in [Pipe, Socket, File] {
            ways.extend([Pipe, Socket, File].map(|to| plain(from, to)));
        }
        ways.push(plain(Pipe, OwnFile));
        for (copies, on_full, instead) in [
            (1, OnFull::Block, false),
            (3, OnFull::Block, false),
            (2, OnFull::Drop, false),
            (2, OnFull::Block, true),
        ] {
            ways.push(Way { copies, on_full, instead, ..plain(Pipe, Pipe) });
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
    /// `None` once nobody reads it.
    copies: Vec<(Option<File>, Vec<u8>)>,
}

fn nonblocking(fd: impl Into<OwnedFd>) -> File {
    let fd = fd.into();
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("F_SETFL");
    fd.into()
}

fn endpoint(fd: impl Into<OwnedFd>) -> Endpoint {
    Endpoint::new(fd.into()).expect("an endpoint")
}

/// Without copies and without text.
fn plain_route(source: Endpoint, sink: Endpoint) -> Route {
    Route {
        stream: Stream::Stdout,
        role: Role::Only,
        source,
        sink,
        source_name: "the source".into(),
        sink_name: "the sink".into(),
        text: None,
        rate: None,
        copies: Vec::new(),
        beyond: None,
        instead: None,
    }
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
            Outer::File | Outer::OwnFile => {
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
            Outer::OwnFile => {
                let file = tempfile::NamedTempFile::new().expect("a file");
                let reader = File::open(file.path()).expect("open");
                (endpoint(file.into_file()).with_own_position(), reader)
            }
        };
        let (mut feeds, mut copies) = (Vec::new(), Vec::new());
        for copy in 0..way.copies {
            let (reader, writer) = std::io::pipe().expect("pipe");
            feeds.push(Feed {
                copy,
                streams: &[Stream::Stdout],
                pipe: endpoint(writer),
                on_full: way.on_full,
                string_end: StringEnd::Left,
                threaded: false,
            });
            copies.push((Some(nonblocking(reader)), Vec::new()));
        }
        let modes = Modes {
            escapes: Escapes::Strip { cursor: CursorVisibility::Removed, c1: C1::Text },
            ..Modes::default()
        };
        let route = Route {
            text: way.text.then(|| TextWork { modes, started: Instant::now() }),
            copies: feeds,
            instead: way.instead.then(|| {
                endpoint(File::options().write(true).open("/dev/null").expect("/dev/null"))
            }),
            ..plain_route(source, sink)
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
        if let Some((Some(copy), got)) = self.copies.get_mut(copy) {
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
    /// It is not carried out, and has another result.
    Meet(u8, u8),
    /// Text modes are switched off, or on.
    Text(bool),
    /// The source is to be left, if it stays silent.
    Leave,
    /// Nobody reads what goes into the sink, or into a copy, any more.
    CloseSink,
    CloseCopy(u8),
    /// O_NONBLOCK is set on what others have open too.
    TurnNonblocking,
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
        1 => any::<bool>().prop_map(Event::Text),
    ]
}

/// What rarely happens more than once.
fn incident() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Leave),
        Just(Event::CloseSink),
        any::<u8>().prop_map(Event::CloseCopy),
        Just(Event::TurnNonblocking),
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
    /// The sink's reader is gone.
    sink_closed: bool,
    /// The source was to be left.
    left: bool,
}

struct Trial {
    way: Way,
    ring: Ring,
    relay: Relay,
    outside: Outside,
    injected: Injected,
    /// Bytes that had been written into the source when the relay ended.
    fed_at_end: Option<usize>,
}

impl Trial {
    fn new(way: Way, sent: Vec<u8>) -> Trial {
        let mut ring = Ring::scripted(way.engine);
        let (relay, outside) = Outside::open(way, sent, &mut ring);
        let injected = Injected::default();
        Trial { way, ring, relay, outside, injected, fed_at_end: None }
    }

    /// A turn of the session's loop around one event.
    fn turn(&mut self, event: Event, harm: Harm) {
        self.turn_at(Instant::now(), event, harm);
    }

    fn turn_at(&mut self, now: Instant, event: Event, harm: Harm) {
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
            Event::Text(on) => {
                self.relay.set_text(if on { TextSwitch::On } else { TextSwitch::Off });
            }
            // As the session does.
            Event::Leave if !self.relay.is_silent() => {}
            Event::Leave => {
                self.injected.left = true;
                self.relay.leave(&mut self.ring).expect("leave");
            }
            Event::CloseSink => {
                self.outside.drain(1 << 20);
                self.injected.sink_closed |= self.outside.sink.take().is_some();
            }
            Event::CloseCopy(copy) => {
                let copies = self.outside.copies.len();
                if copies > 0 {
                    let copy = usize::from(copy) % copies;
                    self.outside.drain_copy(copy, 1 << 20);
                    self.outside.copies[copy].0 = None;
                    self.injected.copies = true;
                }
            }
            Event::TurnNonblocking => {
                for end in [self.relay.source(), self.relay.sink()].into_iter().flatten() {
                    fcntl(&**end.fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("F_SETFL");
                }
            }
        }
        let ended = self.relay.ended().map(End::name);
        while let Some(done) = self.ring.next_completion() {
            self.relay.complete(done, &mut self.ring, Instant::now()).expect("complete");
        }
        assert!(ended.is_none() || ended == self.relay.ended().map(End::name), "it ends once");
        if self.relay.ended().is_some() {
            self.fed_at_end.get_or_insert(self.outside.fed);
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
            // Where only time can bring it on, time passes.
            let now = Instant::now();
            let waits = self.ring.in_flight().is_empty();
            let over = self.relay.deadline(now).filter(|over| waits && *over > now);
            self.turn_at(over.unwrap_or(now), event, Harm::None);
        }
        let (way, waits) = (self.way, self.ring.in_flight());
        prop_assert!(self.relay.ended().is_some(), "{way:?}: it waits: {waits:?}");
        // What has been cancelled comes back too, and the last gaps are marked.
        for _ in 0..1000 {
            self.relay.advance(&mut self.ring, Instant::now()).expect("advance");
            let count = self.ring.in_flight().len();
            for index in (0..count).rev() {
                self.ring.settle(index, Fate::Runs(u32::MAX));
            }
            while let Some(done) = self.ring.next_completion() {
                self.relay.complete(done, &mut self.ring, Instant::now()).expect("complete");
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
    let incidents = prop::collection::vec((0usize..120, incident()), 0..3);
    let script = (length, prop::collection::vec(event(), 0..120), incidents);
    runner
        .run(&script, |(length, mut events, incidents)| {
            for (at, incident) in incidents.into_iter().filter(|_| harm == Harm::Fatal) {
                events.insert(at.min(events.len()), incident);
            }
            for way in ways() {
                let mut trial = Trial::new(way, payload(length));
                for event in &events {
                    trial.turn(*event, harm);
                }
                trial.finish()?;
                trial.judge()?;
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

/// Also where tee is refused, what a copy has lost at last is marked when its reader reads again.
#[test]
fn the_last_gap_is_marked_where_tee_is_refused() {
    for engine in [Engine::Uring, Engine::Epoll] {
        let way = Way { copies: 1, on_full: OnFull::Drop, ..Way::plain(engine) };
        let mut trial = Trial::new(way, payload(400_000));
        trial.turn(Event::Feed(1000), Harm::None);
        let tee = |trial: &Trial| {
            let in_flight = trial.ring.in_flight();
            in_flight.iter().position(|operation| *operation == Operation::Tee)
        };
        let mut turns = 0..100;
        let at = loop {
            match tee(&trial) {
                Some(at) => break at,
                None => {
                    let index = turns.next().expect("a tee");
                    trial.turn(Event::Run(index, u32::MAX), Harm::None);
                }
            }
        };
        trial.ring.settle(at, Fate::Meets(Outcome::Failed(Errno::EPERM)));
        // Nobody reads the copy before everything has gone into the sink.
        for index in 0..200 {
            trial.turn(Event::Feed(u16::MAX), Harm::None);
            trial.turn(Event::Run(index, u32::MAX), Harm::None);
            trial.turn(Event::Drain(u16::MAX), Harm::None);
        }
        trial.finish().expect("an end");
        assert_eq!(trial.outside.got, trial.outside.sent, "{way:?}");
        assert!(trial.relay.dropped().all(|(_, dropped)| dropped > 0), "{way:?}");
        trial.judge().expect("every gap is marked");
    }
}

/// Left in the moment in which it learns that splice is refused, a relay goes on with the other path, and can be left there.
#[test]
fn a_relay_that_is_left_may_be_refused_splice() {
    for engine in [Engine::Uring, Engine::Epoll] {
        for errno in [Errno::EINVAL, Errno::EPERM, Errno::ENOSYS] {
            let mut trial = Trial::new(Way::plain(engine), payload(1000));
            trial.turn(Event::Drain(1), Harm::None);
            trial.turn(Event::Leave, Harm::None);
            let in_flight = trial.ring.in_flight();
            let splice = in_flight.iter().position(|operation| *operation == Operation::Splice);
            let splice = splice.expect("a splice");
            trial.ring.settle(splice, Fate::Meets(Outcome::Failed(errno)));
            trial.finish().expect("an end");
            trial.judge().expect("nothing is missing");
        }
    }
}
