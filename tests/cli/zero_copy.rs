//! The bytes are never touched: shown from outside, by the pages themselves and by the system calls.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use tempfile::tempdir;

use crate::capture::{Capture, waiting_bytes};
use crate::harness::{
    Engine, Launch, Running, on_both_engines, payload_bytes, payload_digest, strace_works,
};
use crate::proc;

const PAGES: usize = 8;
const PAGE: usize = 4096;

on_both_engines![
    pages_move_through_a_wrapped_command,
    pages_move_through_a_filter,
    pages_move_through_a_relayed_stdin,
    statistics_say_that_nothing_was_copied,
    no_system_call_carries_payload,
];

/// The writer changes its pages after they have passed the relay; whoever reads the change got the pages
/// themselves, whoever reads the old bytes got a copy.
fn pages_move_through_a_wrapped_command(engine: Engine) {
    let (reader, writer) = std::io::pipe().expect("pipe");
    let (stdin, line) = std::io::pipe().expect("pipe");
    let run = Launch::nproxy(engine)
        .words("peer vmsplice-page")
        .arg(PAGES.to_string())
        .stdin(stdin)
        .stdout(writer)
        .start();
    change_and_compare(run, None, reader.into(), line);
}

fn pages_move_through_a_filter(engine: Engine) {
    let (source, pages) = std::io::pipe().expect("pipe");
    let (reader, writer) = std::io::pipe().expect("pipe");
    let (stdin, line) = std::io::pipe().expect("pipe");
    let filter = Launch::nproxy(engine).stdin(source).stdout(writer).start();
    let peer =
        Launch::peer("vmsplice-page").arg(PAGES.to_string()).stdin(stdin).stdout(pages).start();
    change_and_compare(peer, Some(filter), reader.into(), line);
}

fn pages_move_through_a_relayed_stdin(engine: Engine) {
    let (source, pages) = std::io::pipe().expect("pipe");
    let (reader, writer) = std::io::pipe().expect("pipe");
    let (stdin, line) = std::io::pipe().expect("pipe");
    let relays = Launch::nproxy(engine)
        .words("--stdin=relay peer splice-loop")
        .stdin(source)
        .stdout(writer)
        .start();
    let peer =
        Launch::peer("vmsplice-page").arg(PAGES.to_string()).stdin(stdin).stdout(pages).start();
    change_and_compare(peer, Some(relays), reader.into(), line);
}

fn statistics_say_that_nothing_was_copied(engine: Engine) {
    let bytes = payload_bytes();
    let wrapped = Launch::nproxy(engine)
        .words("--stats=json peer write")
        .arg(bytes.to_string())
        .arg("64K")
        .finish();
    let script = "peer write $BYTES 64K | nproxy --stats=json | cat";
    let filter = Launch::shell(engine, script).env("BYTES", bytes.to_string()).finish();
    for run in [wrapped, filter] {
        run.expect_code(0).expect_stdout(payload_digest());
        run.expect(run.stats()["engine"] == engine.name(), "the engine that was asked for");
        run.expect(run.stat("stdout", "spliced_bytes") == bytes, "every byte was spliced");
        run.expect(run.stat("stdout", "buffered_bytes") == 0, "no byte was copied");
        let operations = run.stat("stdout", "operations");
        run.expect(
            operations > 0 && operations < bytes / 4096,
            "operations are counted, and larger than pages",
        );
    }
}

/// No read or write carries payload, only splice(2): seen by strace over a whole run.
fn no_system_call_carries_payload(engine: Engine) {
    if !strace_works() {
        return;
    }
    let directory = tempdir().expect("directory");
    let trace = directory.path().join("trace");
    let bytes = payload_bytes();
    // A filter has no child, so that with -f every traced call is nproxy's.
    let (source, pipe) = std::io::pipe().expect("pipe");
    let writer = Launch::peer("write").arg(bytes.to_string()).arg("64K").stdout(pipe).start();
    let run = strace(engine, &trace, true).stdin(source).finish();
    run.expect_code(0).expect_silent().expect_stdout(payload_digest());
    writer.finish().expect_code(0);
    judge(engine, &trace, bytes);
    // Without -f the child is not followed.
    let wrapped = strace(engine, &trace, false)
        .words("peer write")
        .arg(bytes.to_string())
        .arg("64K")
        .finish();
    wrapped.expect_code(0).expect_silent().expect_stdout(payload_digest());
    judge(engine, &trace, bytes);
}

/// Lets the writer change its pages once all of them lie in `reader`'s pipe, and reads them there.
#[track_caller]
fn change_and_compare(
    peer: Running,
    relay: Option<Running>,
    reader: OwnedFd,
    mut line: std::io::PipeWriter,
) {
    proc::until_or(
        "every page in the output pipe",
        || (waiting_bytes(&reader) == PAGES * PAGE).then_some(()),
        || format!("{} bytes", waiting_bytes(&reader)),
    );
    writeln!(line, "change").expect("line to the writer");
    peer.stderr.as_ref().expect("captured").wait_for("changed\n", 1);
    let arrived = Capture::of(reader);
    arrived.wait_for_bytes((PAGES * PAGE) as u64);
    let bytes = arrived.so_far().head;
    assert!(
        bytes.iter().all(|byte| *byte == b'B'),
        "the bytes were copied on their way: {} of {} are the old ones",
        bytes.iter().filter(|byte| **byte == b'A').count(),
        bytes.len()
    );
    drop(line);
    peer.finish().expect_code(0);
    if let Some(relay) = relay {
        relay.finish().expect_code(0).expect_silent();
    }
}

const CARRIERS: &str = "read,write,readv,writev,pread64,pwrite64,preadv,pwritev,preadv2,pwritev2,splice,tee,vmsplice,\
                        sendfile,copy_file_range,sendto,recvfrom,sendmsg,recvmsg";

fn strace(engine: Engine, trace: &Path, follow: bool) -> Launch {
    let launch = Launch::program("strace").args(follow.then_some("-f")).args([
        "-y",
        "-e",
        &format!("trace={CARRIERS}"),
        "-o",
    ]);
    launch.arg(trace).arg(crate::harness::nproxy_path()).args(["--engine", engine.name()])
}

/// Adds up what the traced calls returned.
#[track_caller]
fn judge(engine: Engine, trace: &Path, bytes: u64) {
    let text = std::fs::read_to_string(trace).expect("trace");
    let (mut copied, mut spliced) = (0, 0);
    for line in text.lines() {
        // The memory watch reads the more, the longer the run takes and the more processes there are.
        if line.contains("</proc/") || line.contains("</sys/") {
            continue;
        }
        let Some(returned) = line
            .rsplit_once(" = ")
            .and_then(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok())
        else {
            continue;
        };
        // `PID call(...)` with -f, `call(...)` without.
        let call = line.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ' ');
        if call.starts_with("splice(") { spliced += returned } else { copied += returned }
    }
    assert!(text.contains("read("), "the trace shows nproxy's start: {text}");
    assert!(
        copied < 64 << 10,
        "{copied} bytes were read and written, as if payload were among them"
    );
    // What the ring's workers splice instead, where a call took its time, is no system call.
    if engine == Engine::Epoll {
        assert!(spliced >= bytes, "{spliced} bytes by splice(2), expected {bytes}");
    }
}

/// The proof itself can fail: a relay that copies delivers the old bytes.
#[test]
#[should_panic(expected = "the bytes were copied on their way: 32768 of 32768")]
fn the_page_proof_catches_a_copy() {
    let (source, pages) = std::io::pipe().expect("pipe");
    let (reader, writer) = std::io::pipe().expect("pipe");
    let (stdin, line) = std::io::pipe().expect("pipe");
    let cat = Launch::program("cat").stdin(source).stdout(writer).start();
    let peer =
        Launch::peer("vmsplice-page").arg(PAGES.to_string()).stdin(stdin).stdout(pages).start();
    change_and_compare(peer, Some(cat), reader.into(), line);
}
