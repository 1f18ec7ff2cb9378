//! Both drivers against real pipes: transfers, waits, cancelling, and dropping with work in flight.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::*;

fn engines() -> [Ring; 2] {
    [Engine::Uring, Engine::Epoll]
        .map(|engine| Ring::open(engine, Workers { most: 4, needed: true }).expect("open a ring"))
}

fn pipe() -> (Fd, Fd) {
    let (reader, writer) = std::io::pipe().expect("make a pipe");
    (Rc::new(OwnedFd::from(reader)), Rc::new(OwnedFd::from(writer)))
}

fn file(fd: &Fd) -> std::fs::File {
    fd.try_clone().expect("duplicate the fd").into()
}

const SPLICE: Token = Token { operation: Operation::Splice, relay: 1, copy: 0 };
const POLL: Token = Token { operation: Operation::Signal, relay: 0, copy: 0 };

/// Waits until something completes; a minute without is a failure.
fn next(ring: &mut Ring) -> Completion {
    for _ in 0..60 {
        if let Some(completion) = ring.next_completion() {
            return completion;
        }
        ring.wait(Some(Duration::from_secs(1))).expect("wait on the ring");
    }
    panic!("nothing completed");
}

#[test]
fn splice_moves_what_is_there_and_reports_the_end() {
    for mut ring in engines() {
        let ((from, source), (sink, to)) = (pipe(), pipe());
        file(&source).write_all(b"hello").unwrap();
        ring.submit(SPLICE, Op::splice(&from, &to, 1 << 20)).unwrap();
        let done = next(&mut ring);
        assert_eq!((done.token, done.outcome), (SPLICE, Outcome::Done(5)));
        let mut bytes = [0; 5];
        file(&sink).read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        drop(source);
        ring.submit(SPLICE, Op::splice(&from, &to, 1 << 20)).unwrap();
        assert_eq!(next(&mut ring).outcome, Outcome::Done(0), "{:?}", ring.engine());
    }
}

/// Waits until a deadline is over, as the loop does, and returns how often it had to.
fn wait_until(ring: &mut Ring, deadline: std::time::Instant) -> usize {
    for waits in 0.. {
        let left = deadline.saturating_duration_since(ring.now());
        if left.is_zero() {
            return waits;
        }
        ring.wait(Some(left)).expect("wait on the ring");
    }
    unreachable!()
}

/// A limit ends a wait, whether the timer stands for it or not: the first, a later one, one that comes before it, and one
/// from which a completion takes the loop away.
#[test]
fn limits_end_waits() {
    for mut ring in engines() {
        let (from, source) = pipe();
        ring.submit(POLL, Op::poll(&from, PollFlags::POLLIN)).unwrap();
        ring.read_clock();
        let begun = ring.now();
        let millis = |count| begun + Duration::from_millis(count);
        let far = Duration::from_secs(3600);
        assert!(wait_until(&mut ring, millis(30)) <= 2);
        assert!(wait_until(&mut ring, millis(35)) <= 2, "below what a timer is set for");
        assert!(wait_until(&mut ring, millis(70)) <= 2);
        file(&source).write_all(b"x").unwrap();
        ring.wait(Some(far)).unwrap();
        let pending = match &ring.driver {
            Driver::Uring(uring) => uring.timer.pending(),
            Driver::Epoll(epoll) => epoll.timer.pending(),
            Driver::Scripted(_) => unreachable!(),
        };
        assert_eq!(pending, 1, "{:?}", ring.engine());
        assert_eq!(ring.next_completion().map(|done| done.token), Some(POLL));
        // The timer is an hour away.
        ring.read_clock();
        let (now, soon) = (ring.now(), Duration::from_millis(40));
        assert!(wait_until(&mut ring, now + soon) <= 2, "{:?}", ring.engine());
        // And set to less than is left: what comes too early does no harm.
        ring.submit(POLL, Op::poll(&from, PollFlags::POLLIN)).unwrap();
        ring.wait(Some(soon)).unwrap();
        assert!(ring.next_completion().is_some());
        let now = ring.now();
        assert!(wait_until(&mut ring, now + 3 * soon) <= 4, "{:?}", ring.engine());
    }
}

/// Two files are written by threads: each gets its bytes in order, and what it was written from comes back.
#[test]
fn files_are_written_apart() {
    const WRITES: usize = 200;
    for mut ring in engines() {
        ring.write_files_apart();
        let files = [(); 2].map(|()| tempfile::tempfile().expect("a file"));
        let fds = files.each_ref().map(|file| Rc::new(file.try_clone().expect("a fd").into()));
        let token = |relay| Token { operation: Operation::Write, relay, copy: 0 };
        for relay in 0..2 {
            let buffer = ring.buffer(4096);
            ring.submit(token(relay), Op::write_file(&fds[usize::from(relay)], buffer, 0..1))
                .unwrap();
        }
        assert!(!ring.is_idle());
        let mut written = [0; 2];
        while written != [WRITES; 2] {
            let Completion { token, outcome, buffer, .. } = next(&mut ring);
            let mut buffer = buffer.expect("the buffer comes back");
            let (count, fd) =
                (&mut written[usize::from(token.relay)], &fds[usize::from(token.relay)]);
            assert_eq!(outcome, Outcome::Done(if *count == 0 { 1 } else { 3 }));
            *count += 1;
            if *count < WRITES {
                buffer.bytes_mut().fill(*count as u8);
                ring.submit(token, Op::write_file(fd, buffer, 7..10)).unwrap();
            }
        }
        assert!(ring.is_idle(), "{:?}", ring.engine());
        drop(ring);
        let expected =
            (0..WRITES).flat_map(|count| vec![count as u8; if count == 0 { 1 } else { 3 }]);
        let expected: Vec<_> = expected.collect();
        for mut file in files {
            let mut bytes = Vec::new();
            std::io::Seek::rewind(&mut file).unwrap();
            file.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, expected);
        }
    }
}

/// Two descriptors of one file: what is submitted first stands first.
#[test]
fn writes_to_one_file_keep_their_order() {
    const ROUNDS: usize = 300;
    for mut ring in engines() {
        ring.write_files_apart();
        let mut file = tempfile::tempfile().expect("a file");
        let fds = [(); 2].map(|()| Rc::new(OwnedFd::from(file.try_clone().expect("a fd"))));
        let mut buffers = [(); 2].map(|()| Some(ring.buffer(4096)));
        for _ in 0..ROUNDS {
            for (relay, fd) in (0..).zip(&fds) {
                let mut buffer = buffers[usize::from(relay)].take().expect("a buffer");
                buffer.bytes_mut().fill(b'a' + relay);
                let token = Token { operation: Operation::Write, relay, copy: 0 };
                ring.submit(token, Op::write_file(fd, buffer, 0..1)).unwrap();
            }
            for _ in 0..2 {
                let Completion { token, outcome, buffer, .. } = next(&mut ring);
                assert_eq!(outcome, Outcome::Done(1));
                buffers[usize::from(token.relay)] = buffer;
            }
        }
        let mut text = String::new();
        std::io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ab".repeat(ROUNDS), "{:?}", ring.engine());
    }
}

/// Made by the loop itself a transfer completes as one in the ring does: at once, when there is something, when there is
/// room, at the end, without a reader, and when it is taken back.
#[test]
fn transfers_in_place() {
    for mut ring in engines() {
        let ((from, source), (sink, to)) = (pipe(), pipe());
        let splice = |ring: &mut Ring| {
            let op = Op::splice(&from, &to, 1 << 20).in_place();
            assert!(!ring.takes_worker(&op));
            ring.submit(SPLICE, op).unwrap();
        };
        file(&source).write_all(b"hello").unwrap();
        splice(&mut ring);
        assert_eq!(next(&mut ring).outcome, Outcome::Done(5));
        splice(&mut ring);
        ring.wait(Some(Duration::from_millis(5))).unwrap();
        assert!(ring.next_completion().is_none());
        file(&source).write_all(b"again").unwrap();
        assert_eq!(next(&mut ring).outcome, Outcome::Done(5));
        splice(&mut ring);
        ring.wait(Some(Duration::from_millis(5))).unwrap();
        ring.cancel(SPLICE).unwrap();
        assert_eq!(next(&mut ring).outcome, Outcome::Cancelled, "{:?}", ring.engine());
        file(&sink).read_exact(&mut [0; 10]).unwrap();
        // As much as a pipe holds.
        file(&to).write_all(&vec![b'x'; 64 << 10]).unwrap();
        file(&source).write_all(b"waits").unwrap();
        splice(&mut ring);
        ring.wait(Some(Duration::from_millis(5))).unwrap();
        assert!(ring.next_completion().is_none(), "{:?}", ring.engine());
        file(&sink).read_exact(&mut vec![0; 64 << 10]).unwrap();
        assert_eq!(next(&mut ring).outcome, Outcome::Done(5));
        drop(source);
        splice(&mut ring);
        assert_eq!(next(&mut ring).outcome, Outcome::Done(0), "{:?}", ring.engine());
        let (from, source) = pipe();
        file(&source).write_all(b"x").unwrap();
        drop(sink);
        ring.submit(SPLICE, Op::splice(&from, &to, 1 << 20).in_place()).unwrap();
        assert_eq!(next(&mut ring).outcome, Outcome::Failed(Errno::EPIPE));
        assert!(ring.is_idle());
    }
}

#[test]
fn a_wait_holds_the_operation_back() {
    for mut ring in engines() {
        let ((from, source), (_sink, to)) = (pipe(), pipe());
        let op = Op::splice(&from, &to, 1 << 20).after(&from, PollFlags::POLLIN);
        ring.submit(SPLICE, op).unwrap();
        ring.wait(Some(Duration::from_millis(5))).unwrap();
        assert!(ring.next_completion().is_none());
        file(&source).write_all(b"x").unwrap();
        assert_eq!(next(&mut ring).outcome, Outcome::Done(1));
    }
}

#[test]
fn cancel_takes_back_polls_chains_and_blocked_transfers() {
    for mut ring in engines() {
        let ((from, _source), (_sink, to)) = (pipe(), pipe());
        let blocked = Op::splice(&from, &to, 1 << 20);
        let chain = Op::splice(&from, &to, 1 << 20).after(&from, PollFlags::POLLIN);
        for op in [blocked, chain, Op::poll(&from, PollFlags::POLLIN)] {
            ring.submit(SPLICE, op).unwrap();
            ring.wait(Some(Duration::from_millis(5))).unwrap();
            ring.cancel(SPLICE).unwrap();
            assert_eq!(next(&mut ring).outcome, Outcome::Cancelled, "{:?}", ring.engine());
        }
    }
}

#[test]
fn a_sink_without_reader_is_seen_by_poll_and_by_splice() {
    for mut ring in engines() {
        let ((from, source), (sink, to)) = (pipe(), pipe());
        ring.submit(POLL, Op::poll(&to, PollFlags::empty())).unwrap();
        ring.wait(Some(Duration::ZERO)).unwrap();
        assert!(ring.next_completion().is_none());
        drop(sink);
        let done = next(&mut ring);
        let Outcome::Done(events) = done.outcome else { panic!("{done:?}") };
        assert_ne!(events & PollFlags::POLLERR.bits() as u32, 0);
        file(&source).write_all(b"x").unwrap();
        ring.submit(SPLICE, Op::splice(&from, &to, 1 << 20)).unwrap();
        assert_eq!(next(&mut ring).outcome, Outcome::Failed(Errno::EPIPE));
    }
}

#[test]
fn buffers_come_back_with_their_bytes() {
    for mut ring in engines() {
        let ((from, source), (sink, to)) = (pipe(), pipe());
        let buffer = ring.buffer(8192);
        ring.submit(Token::relay(Operation::Read, 1), Op::read(&from, buffer, 2)).unwrap();
        ring.wait(Some(Duration::ZERO)).unwrap();
        file(&source).write_all(b"abc").unwrap();
        let done = next(&mut ring);
        assert_eq!(done.outcome, Outcome::Done(3));
        let buffer = done.buffer.expect("the buffer comes back");
        assert_eq!(&buffer.bytes()[2..5], b"abc");
        ring.submit(Token::relay(Operation::Write, 1), Op::write(&to, buffer, 3..5)).unwrap();
        assert_eq!(next(&mut ring).outcome, Outcome::Done(2));
        let mut bytes = [0; 2];
        file(&sink).read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"bc");
    }
}

#[test]
fn dropping_the_ring_ends_what_is_in_flight() {
    for mut ring in engines() {
        let ((from, _source), (_sink, to)) = (pipe(), pipe());
        ring.submit(SPLICE, Op::splice(&from, &to, 1 << 20)).unwrap();
        let buffer = ring.buffer(4096);
        ring.submit(Token::relay(Operation::Read, 2), Op::read(&from, buffer, 0)).unwrap();
        ring.wait(Some(Duration::ZERO)).unwrap();
        drop(ring);
        assert_eq!((Rc::strong_count(&from), Rc::strong_count(&to)), (1, 1));
    }
}
