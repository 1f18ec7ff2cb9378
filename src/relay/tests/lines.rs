//! The beginning of a line that waits for its rest, and what it must not hold up.

use std::os::fd::AsRawFd;

use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, SetArg, cfmakeraw, tcgetattr, tcsetattr};

use super::*;
use crate::text::newline::Newlines;

/// Where others may write too, the beginning of a line waits for the rest, and no longer than is bounded.
#[test]
fn an_unfinished_line_waits_for_its_rest_and_not_for_ever() {
    for engine in [Engine::Uring, Engine::Epoll] {
        for (to, text) in [(Outer::File, false), (Outer::File, true), (Outer::Pipe, true)] {
            let way = Way { to, text, ..Way::plain(engine) };
            let mut trial = Trial::new(way, b"one\ntwo\nthree".to_vec());
            // The clock stands still, but for what the relay reads of it: a wait that has begun does not end.
            let begun = Instant::now();
            for (fed, expected) in [(6, "one\n"), (4, "one\ntwo\n")] {
                trial.turn_at(begun, Event::Feed(fed), Harm::None);
                for index in 0..20 {
                    trial.turn_at(begun, Event::Run(index, u32::MAX), Harm::None);
                }
                trial.outside.drain(100);
                assert_eq!(String::from_utf8_lossy(&trial.outside.got), expected, "{way:?}");
            }
            let over = trial.relay.deadline(begun).expect("an end of the wait");
            assert!(over <= Instant::now() + Duration::from_millis(200), "{way:?}");
            for index in 0..20 {
                trial.turn_at(over, Event::Run(index, u32::MAX), Harm::None);
            }
            trial.outside.drain(100);
            assert_eq!(String::from_utf8_lossy(&trial.outside.got), "one\ntwo\nth", "{way:?}");
        }
    }
}

/// Text modes that are switched off wait for no rest of a line: nothing is read before the splice has taken over.
#[test]
fn a_line_that_is_waited_for_goes_on_when_text_is_switched_off() {
    for engine in [Engine::Uring, Engine::Epoll] {
        for to in [Outer::Pipe, Outer::Socket] {
            let way = Way { to, text: true, ..Way::plain(engine) };
            let mut trial = Trial::new(way, payload(98_255));
            // The poll, interrupted once, and two short reads: the first ends the filter's work, the second ends in a line.
            for event in [
                Event::Feed(512),
                Event::Meet(0, 0),
                Event::Text(false),
                Event::Run(0, 1),
                Event::Run(0, 119),
            ] {
                trial.turn(event, Harm::None);
            }
            trial.finish().expect("an end");
            assert_eq!(trial.outside.got, trial.outside.sent, "{way:?}");
            trial.judge().expect("nothing is missing");
        }
    }
}

/// What a pty's leader tells is acted on once everything before it has gone on: the beginning of a line then waits for
/// nothing, because nothing is read. A shell's prompt and its changes of modes come like that.
#[test]
#[allow(unsafe_code)]
fn a_line_that_is_waited_for_goes_on_when_modes_have_changed() {
    for engine in [Engine::Uring, Engine::Epoll] {
        let ours = openpty(None, None).expect("a pty");
        let mut raw = tcgetattr(&ours.slave).expect("modes");
        cfmakeraw(&mut raw);
        tcsetattr(&ours.slave, SetArg::TCSANOW, &raw).expect("raw");
        let childs = openpty(None, None).expect("a pty");
        raw.local_flags.insert(LocalFlags::EXTPROC);
        tcsetattr(&childs.slave, SetArg::TCSANOW, &raw).expect("EXTPROC");
        // SAFETY: TIOCPKT reads the number that it is given.
        let packets = unsafe { libc::ioctl(childs.master.as_raw_fd(), libc::TIOCPKT, &1) };
        assert_eq!(packets, 0, "TIOCPKT");
        let tell = || tcsetattr(&childs.slave, SetArg::TCSANOW, &raw).expect("a status");
        let leader = Endpoint::leader(childs.master, Some(Newlines::AsTheyAre));
        let mut ring = Ring::scripted(engine);
        let route = plain_route(leader, endpoint(ours.slave));
        let mut relay = Relay::new(0, route, None, Duration::ZERO, &mut ring).expect("a relay");
        let mut child = File::from(childs.slave.try_clone().expect("an fd"));
        let sent = "one line of many\n".repeat(100) + "two";
        child.write_all(sent.as_bytes()).expect("a write");
        let turn = Instant::now();
        while relay.counters().taken < sent.len() as u64 {
            run_all(&mut relay, &mut ring, turn);
        }
        for _ in 0..20 {
            // There is always something more to be read.
            tell();
            run_all(&mut relay, &mut ring, turn);
            if relay.status().is_some() && relay.has_passed_on() {
                break;
            }
        }
        assert!(relay.status().is_some() && relay.has_passed_on(), "{engine:?}: it waits");
        let mut shown = vec![0; sent.len()];
        File::from(ours.master).read_exact(&mut shown).expect("a read");
        assert_eq!(String::from_utf8_lossy(&shown), sent, "{engine:?}");
    }
}

/// At a terminal, what is drawn without a newline waits for none, however much it is: the clock stands still here.
#[test]
fn what_is_drawn_goes_at_once() {
    for engine in [Engine::Uring, Engine::Epoll] {
        let ours = openpty(None, None).expect("a pty");
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let mut ring = Ring::scripted(engine);
        let route = plain_route(endpoint(reader), endpoint(ours.slave));
        let mut relay = Relay::new(0, route, None, Duration::ZERO, &mut ring).expect("a relay");
        let sent = "x".repeat(1500);
        writer.write_all(sent.as_bytes()).expect("a write");
        let turn = Instant::now();
        (0..20).for_each(|_| run_all(&mut relay, &mut ring, turn));
        assert_eq!(relay.counters().bytes, 1500, "{engine:?}");
        let mut shown = vec![0; sent.len()];
        File::from(ours.master).read_exact(&mut shown).expect("a read");
        assert_eq!(String::from_utf8_lossy(&shown), sent, "{engine:?}");
    }
}

/// A turn of the session's loop in which everything in flight is tried once.
fn run_all(relay: &mut Relay, ring: &mut Ring, now: Instant) {
    relay.on_time(ring, now).expect("on_time");
    relay.advance(ring, now).expect("advance");
    for index in (0..ring.in_flight().len()).rev() {
        ring.settle(index, Fate::Runs(u32::MAX));
    }
    while let Some(done) = ring.next_completion() {
        relay.complete(done, ring, Instant::now()).expect("complete");
    }
}
