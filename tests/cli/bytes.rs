//! Every byte arrives, once and in order, between every kind of source and sink.

use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use tempfile::tempdir;

use crate::capture::Capture;

use crate::ends::{SINKS, Sink, Source, expect_payload, payload_writer};
use crate::harness::{Engine, Launch, on_both_engines, payload_bytes, payload_digest, time_limit};
use crate::payload::Digest;

on_both_engines![
    command_to_every_sink,
    filter_pipe_to_every_sink,
    filter_file_to_every_sink,
    filter_unix_socket_to_every_sink,
    filter_tcp_socket_to_every_sink,
    writers_of_every_size,
    both_streams_interleaved,
    reader_of_odd_sizes,
    stdin_relayed,
    one_socket_for_stdin_and_stdout,
    command_on_a_connection,
    order_of_both_streams_on_one_file,
    one_log_of_several_writers,
    little_and_nothing,
    terminal_as_sink,
];

fn command_to_every_sink(engine: Engine) {
    let directory = tempdir().expect("directory");
    for sink in SINKS {
        let command = Launch::nproxy(engine)
            .words("--stats=json peer write")
            .arg(payload_bytes().to_string());
        expect_payload(command.arg("64K"), sink, directory.path());
    }
}

fn filter_pipe_to_every_sink(engine: Engine) {
    filter_to_every_sink(engine, Source::Pipe);
}

fn filter_file_to_every_sink(engine: Engine) {
    filter_to_every_sink(engine, Source::File);
}

fn filter_unix_socket_to_every_sink(engine: Engine) {
    filter_to_every_sink(engine, Source::UnixSocket);
}

fn filter_tcp_socket_to_every_sink(engine: Engine) {
    filter_to_every_sink(engine, Source::TcpSocket);
}

/// One byte per write, sizes that end just before, at and after page boundaries, and sizes at random.
fn writers_of_every_size(engine: Engine) {
    for size in ["1", "4095", "4096", "65536", "1M", "random"] {
        let mut bytes = payload_bytes();
        if size == "1" {
            // A system call each: enough of them to fill every pipe.
            bytes = (bytes / 16).clamp(2 << 20, 16 << 20);
        }
        let run =
            Launch::nproxy(engine).words("peer write").arg(bytes.to_string()).arg(size).finish();
        run.expect_code(0).expect_silent().expect_stdout(Digest::of_payload(bytes, 1));
    }
}

fn both_streams_interleaved(engine: Engine) {
    let bytes = payload_bytes() / 4;
    let run = Launch::nproxy(engine).words("peer write-both").arg(bytes.to_string()).finish();
    run.expect_code(0).expect_stdout(Digest::of_payload(bytes, 1));
    run.expect(
        run.stderr.digest == Digest::of_payload(bytes, 2),
        "stderr arrived as it was written",
    );
}

/// A reader that takes odd sizes leaves the pipe partly drained at every step.
fn reader_of_odd_sizes(engine: Engine) {
    let script =
        format!("nproxy peer write {0} random | nproxy | peer read 1021", payload_bytes() / 4);
    let run = Launch::shell(engine, &script).finish();
    run.expect_code(0).expect_silent();
    run.expect_output(&format!("{}\n", Digest::of_payload(payload_bytes() / 4, 1)));
}

/// Our stdin through to the child, its EOF included: without it the child would never end.
fn stdin_relayed(engine: Engine) {
    for source in [Source::Pipe, Source::File, Source::UnixSocket] {
        let directory = tempdir().expect("directory");
        let (end, writer) = source.open(directory.path());
        let run = Launch::nproxy(engine).words("--stdin=relay cat").stdin(end).finish();
        run.expect_code(0).expect_silent().expect_stdout(payload_digest());
        writer.map(|writer| writer.finish().expect_code(0).expect_silent().status);
    }
}

/// Both of our ends on one socket, as a network service is started.
fn one_socket_for_stdin_and_stdout(engine: Engine) {
    let (ours, theirs) = UnixStream::pair().expect("socketpair");
    let service = Launch::nproxy(engine).words("--stdin=relay cat");
    let service = service.stdin(OwnedFd::from(theirs.try_clone().expect("dup")));
    let service = service.stdout(OwnedFd::from(theirs)).start();
    let arrived = Capture::of(ours.try_clone().expect("dup"));
    payload_writer(OwnedFd::from(ours.try_clone().expect("dup"))).finish().expect_code(0);
    ours.shutdown(Shutdown::Write).expect("shutdown");
    let run = service.finish();
    run.expect_code(0).expect_silent();
    let arrived = arrived.finish(Instant::now() + time_limit()).expect("the end").digest;
    run.expect(arrived == payload_digest(), &format!("the socket returned {arrived}"));
}

/// A command with its output on a connection that a shell could not make.
fn command_on_a_connection(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = "peer listen socket sh -c 'peer read > digest' & peer connect socket nproxy peer write $BYTES random
        echo $?; wait; cat digest";
    let run = Launch::shell(engine, script).env("BYTES", payload_bytes().to_string());
    let run = run.directory(directory.path()).finish();
    run.expect_code(0).expect_silent().expect_output(&format!("0\n{}\n", payload_digest()));
}

/// stdout and stderr on one file or one pipe keep the order of the bare run, line by line.
fn order_of_both_streams_on_one_file(engine: Engine) {
    let lines = "sh -c 'for i in $(seq 5000); do echo o$i; echo e$i >&2; done'";
    let directory = tempdir().expect("directory");
    let script = format!(
        "{lines} > bare 2>&1; nproxy {lines} > out 2>&1; cmp bare out
         nproxy {lines} >> appended 2>&1; cmp bare appended
         nproxy {lines} 2>&1 | cmp bare -; wc -l < bare"
    );
    let run = Launch::shell(engine, &script).directory(directory.path()).finish();
    run.expect_code(0).expect_silent().expect_output("10000\n");
}

/// The file's position is shared with others who write before, after and at the same time.
fn one_log_of_several_writers(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = "
        lines() { echo 'i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo '$1'$i; done'; }
        { echo first; nproxy peer write 3M random; echo last; } > log
        { echo first; peer write 3M random; echo last; } | cmp - log
        { nproxy sh -c \"$(lines a)\" & nproxy sh -c \"$(lines b)\" & sh -c \"$(lines c)\" & wait; } > both
        { sh -c \"$(lines a)\"; sh -c \"$(lines b)\"; sh -c \"$(lines c)\"; } | sort > expected
        sort both | cmp expected - && wc -l < both";
    let run = Launch::shell(engine, script).directory(directory.path()).finish();
    run.expect_code(0).expect_silent().expect_output("9000\n");
}

/// What is empty, and what has no newline at its end.
fn little_and_nothing(engine: Engine) {
    Launch::nproxy(engine).words("true").finish().expect_code(0).expect_silent().expect_output("");
    Launch::nproxy(engine)
        .words("printf x")
        .finish()
        .expect_code(0)
        .expect_silent()
        .expect_output("x");
    Launch::nproxy(engine).finish().expect_code(0).expect_silent().expect_output("");
    let script = "printf x | nproxy; nproxy sh -c 'printf a; printf b >&2; printf c' 2>&1";
    Launch::shell(engine, script).finish().expect_code(0).expect_silent().expect_output("xabc");
}

/// A terminal in raw mode as the sink: written by polling, never by splice.
fn terminal_as_sink(engine: Engine) {
    let bytes = 2 << 20;
    let (follower, arrived) = crate::harness::terminal::raw_sink();
    let run = Launch::nproxy(engine)
        .words("peer write")
        .arg(bytes.to_string())
        .arg("random")
        .stdout(follower)
        .finish();
    run.expect_code(0).expect_silent();
    let arrived = arrived.finish(Instant::now() + time_limit());
    let expected = Digest::of_payload(bytes, 1);
    run.expect(
        arrived.is_some_and(|arrived| arrived.digest == expected),
        "the terminal got every byte",
    );
}

fn filter_to_every_sink(engine: Engine, source: Source) {
    let directory = tempdir().expect("directory");
    for sink in SINKS {
        let (end, writer) = source.open(directory.path());
        let filter = Launch::nproxy(engine).arg("--stats=json").stdin(end);
        let run = expect_payload(filter, sink, directory.path());
        if let Some(writer) = writer {
            writer.finish().expect_code(0).expect_silent();
        }
        // /dev/null aside, bytes that count as spliced and copied add up to what passed.
        let moved = run.stat("stdout", "spliced_bytes") + run.stat("stdout", "buffered_bytes");
        run.expect(
            sink == Sink::Null || moved == payload_bytes(),
            "spliced and copied bytes are all bytes",
        );
    }
}
