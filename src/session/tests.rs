//! The relays of a run and how they are left, on real pipes and without a command.

use std::io::{PipeReader, PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::linger::Relays;
use super::plan::refuse_copy_onto_source;
use crate::copies::writer::Ending;
use crate::relay::{End, Endpoint, Relay, Role, Route, Stream};
use crate::ring::{Engine, Ring, Workers};

/// What the tests hold of a relay: the other ends of its two pipes.
struct Ends {
    writer: PipeWriter,
    _reader: PipeReader,
}

fn endpoint(fd: impl Into<OwnedFd>) -> Endpoint {
    Endpoint::new(fd.into()).expect("an open fd")
}

fn route(stream: Stream, role: Role) -> (Route, Ends) {
    let ((from, writer), (reader, to)) =
        (std::io::pipe().expect("a pipe"), std::io::pipe().expect("a pipe"));
    let route = Route {
        stream,
        role,
        source: endpoint(from),
        sink: endpoint(to),
        source_name: "source".into(),
        sink_name: "sink".into(),
        text: None,
        rate: None,
        copies: Vec::new(),
        beyond: None,
        instead: None,
    };
    (route, Ends { writer, _reader: reader })
}

fn relays(roles: &[(Stream, Role)]) -> (Relays, Vec<Ends>, Ring) {
    relays_with_wait(roles, None)
}

/// The same; copies are waited for so long.
fn relays_with_wait(roles: &[(Stream, Role)], wait: Option<Duration>) -> (Relays, Vec<Ends>, Ring) {
    let mut ring = Ring::open(Engine::Epoll, Workers { most: 8, needed: true }).expect("a ring");
    let (mut made, mut ends) = (Vec::new(), Vec::new());
    for (id, (stream, role)) in roles.iter().enumerate() {
        let (route, outer) = route(*stream, *role);
        made.push(Relay::new(id as u8, route, None, Duration::ZERO, &mut ring).expect("a relay"));
        ends.push(outer);
    }
    let copies = roles.iter().filter(|(_, role)| *role == Role::Copy);
    let waits = vec![wait; copies.count()];
    (Relays::new(made, &waits, Instant::now()), ends, ring)
}

/// Turns the loop until nothing completes any more at this moment.
fn settle(relays: &mut Relays, ring: &mut Ring) {
    for _ in 0..20 {
        let now = Instant::now();
        for relay in relays.iter_mut() {
            relay.on_time(ring, now).expect("the ring");
            relay.advance(ring, now).expect("the ring");
        }
        ring.wait(Some(Duration::ZERO)).expect("the ring");
        while let Some(completion) = ring.next_completion() {
            let number = completion.token.relay;
            relays.completing(number, now).complete(completion, ring, now).expect("the ring");
        }
    }
}

#[test]
fn each_end_is_reported_once() {
    let roles =
        [(Stream::Stdout, Role::Only), (Stream::Stderr, Role::Only), (Stream::Stdout, Role::Copy)];
    let (mut relays, mut ends, mut ring) = relays(&roles);
    settle(&mut relays, &mut ring);
    assert!(relays.new_ends().is_empty());
    drop(ends.remove(1).writer);
    settle(&mut relays, &mut ring);
    assert_eq!(relays.new_ends(), [1]);
    drop(ends);
    settle(&mut relays, &mut ring);
    assert_eq!((relays.new_ends(), relays.new_ends()), (vec![0, 2], vec![]));
}

#[test]
fn a_silent_stream_is_left_once_all_are_silent() {
    let (mut relays, mut ends, mut ring) =
        relays(&[(Stream::Stdout, Role::Only), (Stream::Stderr, Role::Only)]);
    settle(&mut relays, &mut ring);
    let limit = Duration::from_millis(200);
    let leave = |relays: &mut Relays, ring: &mut Ring, at| {
        relays.leave_what_is_silent(limit, None, ring, at).expect("the ring");
        settle(relays, ring);
    };
    let begin = relays.silent_since().expect("two open streams");
    leave(&mut relays, &mut ring, begin + limit / 2);
    assert!(relays.iter().all(|relay| relay.ended().is_none()), "too early");
    // Unread bytes are no silence: their reader may only be slow.
    ends[0].writer.write_all(&[b'x'; 4096]).expect("write");
    relays.restart_silence(begin);
    leave(&mut relays, &mut ring, begin + limit * 2);
    assert!(relays.iter().all(|relay| relay.ended().is_none()), "bytes were on their way");
    relays.restart_silence(begin);
    leave(&mut relays, &mut ring, begin + limit * 4);
    let left = |relay: &Relay| matches!(relay.ended(), Some(End::Abandoned));
    assert!(relays.iter().all(left), "{relays:?}");
    assert_eq!(relays[0].counters().bytes, 4096);
    assert_eq!(relays.silent_since(), None);
    drop(ends);
}

#[test]
fn a_copy_that_takes_nothing_is_left_only_when_it_may_be() {
    let roles = [(Stream::Stdout, Role::Copy)];
    let (mut relays, mut ends, mut ring) = relays(&roles);
    settle(&mut relays, &mut ring);
    let later = Instant::now() + Duration::from_secs(5);
    assert_eq!(relays.deadline(Ending::NotYet, Instant::now()), None, "a file may hold the run up");
    relays.leave_stalled_copies(Ending::NotYet, &mut ring, later).expect("the ring");
    assert!(relays[0].ended().is_none());
    drop(ends.pop());
    let wait = Some(Duration::from_secs(1));
    let (mut relays, mut ends, mut ring) = relays_with_wait(&roles, wait);
    settle(&mut relays, &mut ring);
    assert!(relays.deadline(Ending::NotYet, Instant::now()).is_some_and(|at| at < later));
    relays.leave_stalled_copies(Ending::NotYet, &mut ring, later).expect("the ring");
    assert!(matches!(relays[0].ended(), Some(End::Stopped)));
    drop(ends.pop());
}

#[test]
fn a_file_is_not_copied_onto_itself() {
    let directory = tempfile::tempdir().expect("directory");
    let file = |name: &str| {
        let path = directory.path().join(name);
        endpoint(
            std::fs::File::options().read(true).append(true).create(true).open(path).expect(name),
        )
    };
    let (mut stdin, _ends) = route(Stream::Stdin, Role::Only);
    stdin.source = file("a");
    let streams = [stdin];
    assert!(refuse_copy_onto_source(&streams, &[("b".into(), file("b"))]).is_ok());
    let refused = refuse_copy_onto_source(&streams, &[("a".into(), file("a"))]);
    assert_eq!(refused.expect_err("one file").to_string(), "copy to a: it is what stdin reads");
}
