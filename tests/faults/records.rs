//! Sockets that keep records apart: one record is read, and one is written, whole.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt,
};
use tempfile::tempdir;

use crate::harness::{Engine, Launch, digest_of_file, on_both_engines};
use crate::payload::{Hasher, Payload};

on_both_engines![records_as_stdin, records_as_stdout, records_to_records, record_that_is_too_long];

fn pair(kind: SockType) -> (OwnedFd, OwnedFd) {
    let pair = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC);
    let (ours, theirs) = pair.expect("socketpair");
    for socket in [&ours, &theirs] {
        setsockopt(socket, sockopt::SndBuf, &(1 << 20)).expect("SO_SNDBUF");
    }
    (ours, theirs)
}

/// Sends `count` records of 50 kB, then closes. Returns the hash of it all.
fn feed(socket: OwnedFd, count: usize) -> std::thread::JoinHandle<crate::payload::Digest> {
    std::thread::spawn(move || {
        let mut payload = Payload::new(count as u64 * 50_000, 7);
        let mut hasher = Hasher::default();
        let mut record = vec![0; 50_000];
        for _ in 0..count {
            payload.fill(&mut record);
            hasher.update(&record);
            send(socket.as_raw_fd(), &record, MsgFlags::empty()).expect("send");
        }
        hasher.digest()
    })
}

/// A splice would cut a record where the pipe is full, and throw the rest of it away.
fn records_as_stdin(engine: Engine) {
    for flags in
        ["", "--tee log", "-q --text=strip-ansi --text-streams=stderr", "--stdin=relay -- cat"]
    {
        let directory = tempdir().expect("directory");
        let (ours, theirs) = pair(SockType::SeqPacket);
        let run =
            Launch::nproxy(engine).words(flags).directory(directory.path()).stdin(theirs).start();
        let sent = feed(ours, 200).join().expect("the writer");
        run.finish().expect_code(0).expect_silent().expect_stdout(sent);
        if flags.contains("log") {
            assert_eq!(digest_of_file(&directory.path().join("log"), 0), sent);
        }
    }
}

/// What comes as a stream is divided into records that the socket takes.
fn records_as_stdout(engine: Engine) {
    for (kind, buffer) in [(SockType::SeqPacket, 1 << 20), (SockType::SeqPacket, 32 << 10)] {
        let (ours, theirs) = pair(kind);
        setsockopt(&theirs, sockopt::SndBuf, &buffer).expect("SO_SNDBUF");
        let run = Launch::nproxy(engine).words("peer write 4M random").stdout(theirs).start();
        let mut hasher = Hasher::default();
        let mut record = vec![0; 1 << 20];
        loop {
            match recv(ours.as_raw_fd(), &mut record, MsgFlags::empty()).expect("recv") {
                0 => break,
                length => hasher.update(&record[..length]),
            }
        }
        run.finish().expect_code(0).expect_silent();
        assert_eq!(hasher.digest(), crate::payload::Digest::of_payload(4 << 20, 1));
    }
}

/// One read, one write: each arrives as it was sent.
fn records_to_records(engine: Engine) {
    let ((input, theirs_in), (output, theirs_out)) =
        (pair(SockType::SeqPacket), pair(SockType::SeqPacket));
    let run = Launch::nproxy(engine).stdin(theirs_in).stdout(theirs_out).start();
    let lengths = [1, 2, 50_000, 4096, 65_536, 3, 200_000, 77];
    let writer = std::thread::spawn(move || {
        for length in lengths {
            let record = vec![length as u8; length];
            send(input.as_raw_fd(), &record, MsgFlags::empty()).expect("send");
        }
    });
    let mut record = vec![0; 1 << 20];
    for length in lengths {
        let got = recv(output.as_raw_fd(), &mut record, MsgFlags::empty()).expect("recv");
        assert_eq!(got, length);
        assert!(record[..got].iter().all(|byte| *byte == length as u8));
    }
    writer.join().expect("the writer");
    assert_eq!(recv(output.as_raw_fd(), &mut record, MsgFlags::empty()), Ok(0));
    run.finish().expect_code(0).expect_silent();
}

/// The kernel cuts it without a word; nproxy does not.
fn record_that_is_too_long(engine: Engine) {
    let (ours, theirs) = pair(SockType::SeqPacket);
    if nix::sys::socket::setsockopt(&ours, sockopt::SndBufForce, &(4 << 20)).is_err() {
        crate::harness::skip("SO_SNDBUFFORCE is not allowed here");
        return;
    }
    let run = Launch::nproxy(engine).stdin(theirs).start();
    send(ours.as_raw_fd(), &vec![b'x'; 300_000], MsgFlags::empty()).expect("send");
    run.finish().expect_code(125).expect_one_line(&["read from stdin", "Message too long"]);
}
