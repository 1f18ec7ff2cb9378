//! Readers that leave and readers that sleep: the child feels both as it would without nproxy, and nothing is spent
//! on waiting.

use std::io::{PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::capture::{Capture, waiting_bytes};
use crate::harness::terminal::raw_pair;
use crate::harness::{
    Engine, Launch, Running, on_both_engines, payload_bytes, payload_digest, time_limit,
};
use crate::payload::Digest;
use crate::proc::{self, Ran};

/// Resident memory that nproxy may use. Unoptimised code is larger on its own.
const RESIDENT_LIMIT: u64 = if cfg!(debug_assertions) { 12 << 20 } else { 5 << 20 };

/// CPU time that counts as none over [`WATCHED`]: the odd wake-up, but no polling.
const NO_CPU: Duration = Duration::from_millis(10);
const WATCHED: Duration = Duration::from_secs(1);

on_both_engines![
    heads,
    reader_leaves_an_idle_filter,
    reader_leaves_a_filter_that_never_moved,
    reader_leaves_a_silent_command,
    other_stream_goes_on,
    sleeping_reader_of_a_command,
    sleeping_reader_of_a_filter,
    sleeping_reader_of_one_stream,
    stuck_terminal_leaves_signals_alive,
    idle_streams_hold_no_worker,
    memory_after_much_and_after_little,
];

/// The pipelines end at once, in silence, with the statuses that they have without nproxy; but a filter before the reader
/// ends with 0 if nothing was on its way when that left, however soon the next byte would have come.
fn heads(engine: Engine) {
    let cases = [
        ("yes | head -n 1", "nproxy yes | head -n 1"),
        ("yes | cat | head -n 1", "yes | nproxy | head -n 1"),
        ("sh -c 'yes >&2' 2>&1 | head -n 1", "nproxy sh -c 'yes >&2' 2>&1 | head -n 1"),
        ("sh -c 'yes; exit 5' | head -n 1", "nproxy sh -c 'yes; exit 5' | head -n 1"),
        (
            "sh -c 'trap \"\" PIPE; yes 2>/dev/null; exit 5' | head -n 1",
            "nproxy sh -c 'trap \"\" PIPE; yes 2>/dev/null; exit 5' | head -n 1",
        ),
        ("yes | cat | head -n 1", "nproxy yes | nproxy | head -n 1"),
        ("yes | cat | head -n 1", "yes | nproxy --stdin=relay cat | head -n 1"),
    ];
    for (bare, pipeline) in cases {
        let run = |pipeline: &str| {
            Launch::shell(engine, &format!("{pipeline}; echo ${{PIPESTATUS[@]}}"))
                .limit(Duration::from_secs(20))
                .finish()
        };
        let (bare, relayed) = (run(bare), run(pipeline));
        let (expected, got) = (bare.stdout.text(), relayed.stdout.text());
        let idle =
            pipeline.contains("| nproxy |").then(|| expected.replace("141 141 0", "141 0 0"));
        relayed.expect_silent();
        relayed.expect(got == expected || Some(got) == idle, &format!("expected {expected:?}"));
        relayed.expect(relayed.elapsed < Duration::from_secs(5), "ends at once");
    }
}

/// The reader leaves while nothing flows: a filter learns it without a next byte, and ends with 0, for nothing was lost.
fn reader_leaves_an_idle_filter(engine: Engine) {
    let (source, mut keyboard) = std::io::pipe().expect("pipe");
    let (reader, writer) = std::io::pipe().expect("pipe");
    let filter = Launch::nproxy(engine).stdin(source).stdout(writer).start();
    keyboard.write_all(b"a\n").expect("line");
    read_exactly(reader, b"a\n");
    let left = Instant::now();
    let run = filter.finish();
    run.expect_code(0).expect_silent();
    run.expect(left.elapsed() < Duration::from_secs(5), "ends at once");
    drop(keyboard);
}

/// The same before the first byte.
fn reader_leaves_a_filter_that_never_moved(engine: Engine) {
    let (source, keyboard) = std::io::pipe().expect("pipe");
    let (reader, writer) = std::io::pipe().expect("pipe");
    let filter = Launch::nproxy(engine).stdin(source).stdout(writer).start();
    drop(reader);
    filter.finish().expect_code(0).expect_silent();
    drop(keyboard);
}

/// A wrapped command that is silent when its reader leaves meets a closed pipe at its next write, not later.
fn reader_leaves_a_silent_command(engine: Engine) {
    let (source, mut keyboard) = std::io::pipe().expect("pipe");
    let (reader, writer) = std::io::pipe().expect("pipe");
    let command = "echo a; read x; trap '' PIPE; echo b || echo told >&2; exit 4";
    let run =
        Launch::nproxy(engine).args(["bash", "-c", command]).stdin(source).stdout(writer).start();
    let child = proc::only_child(run.pid());
    read_exactly(reader, b"a\n");
    let pipe = proc::descriptors(child)
        .into_iter()
        .find(|(fd, _)| *fd == 1)
        .expect("stdout of the child")
        .1;
    proc::until_or(
        "nproxy to let go of the child's stdout",
        || proc::descriptors(run.pid()).iter().all(|(_, target)| *target != pipe).then_some(()),
        || format!("{:?}", proc::descriptors(run.pid())),
    );
    keyboard.write_all(b"\n").expect("line");
    let run = run.finish();
    run.expect_code(4).expect(run.stderr.text().ends_with("told\n"), "the write failed");
    run.expect(!run.stderr.text().contains("nproxy"), "no message of nproxy's");
}

/// One reader leaves, the other stream goes on to its end.
fn other_stream_goes_on(engine: Engine) {
    let (reader, writer) = std::io::pipe().expect("pipe");
    let script =
        "trap '' PIPE; peer write 4M 64K 2>/dev/null; echo $? >&2; exec peer write $BYTES 64K >&2";
    let run = Launch::nproxy(engine)
        .args(["bash", "-c", script])
        .env("BYTES", payload_bytes().to_string());
    let run = run.stdout(writer).start();
    drop(reader);
    let run = run.finish();
    run.expect_code(0).expect(run.stderr.head.starts_with(b"9\n"), "the write to stdout failed");
    run.expect(run.stderr.digest.bytes == payload_bytes() + 2, "all of stderr arrived");
    // Hash of the payload behind the line: the line is known, so the whole is.
    let mut expected = crate::payload::Hasher::default();
    expected.update(b"9\n");
    let mut payload = crate::payload::Payload::new(payload_bytes(), 1);
    let mut chunk = vec![0; crate::payload::CHUNK];
    loop {
        match payload.fill(&mut chunk) {
            0 => break,
            length => expected.update(&chunk[..length]),
        }
    }
    run.expect(run.stderr.digest == expected.digest(), "stderr arrived as it was written");
}

/// The child waits in its own write, nproxy takes neither CPU nor memory, and later every byte arrives.
fn sleeping_reader_of_a_command(engine: Engine) {
    let (reader, writer) = std::io::pipe().expect("pipe");
    let run = Launch::nproxy(engine)
        .words("peer write")
        .arg(payload_bytes().to_string())
        .arg("64K")
        .stdout(writer)
        .start();
    let child = proc::only_child(run.pid());
    proc::until_blocked_in_write(child);
    expect_at_rest(&run, child);
    let arrived = Capture::of(reader);
    run.finish().expect_code(0).expect_silent();
    expect_digest(&arrived, payload_digest());
}

fn sleeping_reader_of_a_filter(engine: Engine) {
    let (source, pipe) = std::io::pipe().expect("pipe");
    let (reader, writer) = std::io::pipe().expect("pipe");
    let peer = crate::ends::payload_writer(pipe);
    let filter = Launch::nproxy(engine).stdin(source).stdout(writer).start();
    proc::until_blocked_in_write(peer.pid());
    expect_at_rest(&filter, peer.pid());
    let arrived = Capture::of(reader);
    filter.finish().expect_code(0).expect_silent();
    peer.finish().expect_code(0);
    expect_digest(&arrived, payload_digest());
}

/// The reader of stdout sleeps; stderr must not wait for it.
fn sleeping_reader_of_one_stream(engine: Engine) {
    let (reader, writer) = std::io::pipe().expect("pipe");
    let script = "peer write 4M 64K & peer write 4M 64K 2 >&2; echo done >&2; wait";
    let run = Launch::nproxy(engine).args(["bash", "-c", script]).stdout(writer).start();
    run.stderr.as_ref().expect("captured").wait_for_bytes((4 << 20) + 5);
    let arrived = Capture::of(reader);
    run.finish().expect_code(0);
    expect_digest(&arrived, Digest::of_payload(4 << 20, 1));
}

/// A reader of stdout splices it into a socket that takes nothing, and keeps the pipe locked meanwhile. Whoever writes
/// there waits for the lock, the loop too, but only once: then a worker does, and stderr goes on.
#[test]
fn reader_that_keeps_the_pipe_locked() {
    let engine = Engine::Uring;
    if !engine.available() {
        return;
    }
    let (reader, writer) = std::io::pipe().expect("pipe");
    let reader = OwnedFd::from(reader);
    let (stdin, mut keyboard) = std::io::pipe().expect("pipe");
    // What waits for the lock may have locked the child's pipe meanwhile: the words are written by processes of their own.
    let script = "while read word; do echo $word & echo told $word >&2; done; wait";
    let run =
        Launch::nproxy(engine).args(["bash", "-c", script]).stdin(stdin).stdout(writer).start();
    let stderr = run.stderr.as_ref().expect("captured");
    writeln!(keyboard, "zero").expect("line");
    let until_there = |bytes| {
        proc::until("the line in the pipe", || (waiting_bytes(&reader) == bytes).then_some(()));
    };
    until_there(5);
    let held = LockedPipe::hold(&reader);
    writeln!(keyboard, "one").expect("line");
    proc::until("the loop to wait for the lock", || (proc::state(run.pid()) == 'D').then_some(()));
    // Longer than what counts as being held up.
    std::thread::sleep(Duration::from_millis(100));
    held.release();
    stderr.wait_for("told one\n", 1);
    // One byte went into the socket.
    until_there(4 + 4);
    let held = LockedPipe::hold(&reader);
    for word in ["two", "three"] {
        writeln!(keyboard, "{word}").expect("line");
        stderr.wait_for(&format!("told {word}\n"), 1);
    }
    held.release();
    drop(keyboard);
    let arrived = Capture::of(reader);
    run.finish().expect_code(0);
    for word in ["two\n", "three\n"] {
        arrived.wait_for(word, 1);
    }
}

/// A pipe that a thread of ours keeps locked: it splices from there into a socket that is full.
struct LockedPipe {
    thread: std::thread::JoinHandle<()>,
    peer: UnixStream,
}

impl LockedPipe {
    /// There is something in the pipe.
    fn hold(pipe: &OwnedFd) -> LockedPipe {
        let (full, peer) = UnixStream::pair().expect("sockets");
        full.set_nonblocking(true).expect("nonblocking");
        while (&full).write(&[0; 4096]).is_ok() {}
        full.set_nonblocking(false).expect("blocking");
        let pipe = pipe.try_clone().expect("duplicate");
        let (told, number) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            told.send(nix::unistd::gettid()).expect("number");
            let flags = nix::fcntl::SpliceFFlags::empty();
            nix::fcntl::splice(&pipe, None, &full, None, 1, flags).expect("splice");
        });
        let call = format!("/proc/self/task/{}/syscall", number.recv().expect("number"));
        let splice = format!("{} ", nix::libc::SYS_splice);
        proc::until("the splice to block", || {
            std::fs::read_to_string(&call).is_ok_and(|call| call.starts_with(&splice)).then_some(())
        });
        LockedPipe { thread, peer }
    }

    /// Lets it go on.
    fn release(mut self) {
        let mut taken = vec![0; 1 << 20];
        while !self.thread.is_finished() {
            self.peer.set_nonblocking(true).expect("nonblocking");
            let _ = self.peer.read(&mut taken);
            std::thread::yield_now();
        }
        self.thread.join().expect("thread");
    }
}

/// A terminal that does not take any more (Ctrl-S) must not hold the loop: signals still get through.
fn stuck_terminal_leaves_signals_alive(engine: Engine) {
    let (leader, follower) = raw_pair();
    let run =
        Launch::nproxy(engine).words("--pty=never peer write 8M 64K").stdout(follower).start();
    let child = proc::only_child(run.pid());
    proc::until_blocked_in_write(child);
    proc::until("something that reaches the terminal", || {
        (waiting_bytes(&leader) > 0).then_some(())
    });
    run.signal(Signal::SIGTERM);
    proc::until("the child's death by TERM", || {
        matches!(proc::state(child), 'Z' | 'X').then_some(())
    });
    let arrived = Capture::of(leader);
    run.finish().expect_signal(Signal::SIGTERM).expect_silent();
    assert!(
        arrived
            .finish(Instant::now() + time_limit())
            .is_some_and(|arrived| arrived.digest.bytes > 0)
    );
}

/// Nothing to do is nothing done: no CPU, and no kernel worker waiting in a splice.
fn idle_streams_hold_no_worker(engine: Engine) {
    let (source, keyboard) = std::io::pipe().expect("pipe");
    let wrapped = Launch::nproxy(engine).words("--stdin=relay cat").stdin(source).start();
    proc::only_child(wrapped.pid());
    let (source, filter_keyboard) = std::io::pipe().expect("pipe");
    let filter = Launch::nproxy(engine).stdin(source).start();
    for run in [&wrapped, &filter] {
        proc::until("nproxy to sleep", || (proc::state(run.pid()) == 'S').then_some(()));
        expect_no_cpu(run);
        assert_eq!(proc::busy_workers(run.pid()), Vec::<String>::new());
    }
    drop((keyboard, filter_keyboard));
    wrapped.finish().expect_code(0).expect_silent();
    filter.finish().expect_code(0).expect_silent();
}

/// Memory does not depend on how much has passed: 10 GB (a part of it, with a small payload) end where 10 KB do.
fn memory_after_much_and_after_little(engine: Engine) {
    let much = payload_bytes() * 5 / 2;
    let vmspliced = much * 16;
    for role in ["write", "vmsplice-write"] {
        let after = |bytes: u64| {
            let (source, keyboard) = std::io::pipe().expect("pipe");
            // The child stays when it has written, so that nproxy can be looked at.
            let script =
                format!("peer {role} {bytes} {}; read x", if role == "write" { "64K" } else { "" });
            let run = Launch::nproxy(engine).args(["bash", "-c", &script]).stdin(source).start();
            run.stdout.as_ref().expect("captured").wait_for_bytes(bytes);
            let resident = proc::resident(run.pid());
            drop(keyboard);
            run.finish();
            resident
        };
        let little = after(10 << 10);
        let much = after(if role == "write" { much } else { vmspliced });
        assert!(much < RESIDENT_LIMIT, "{role}: {much} bytes resident after {engine:?}");
        // Pages of code that only a long run touches are no growth.
        assert!(
            much < little + (512 << 10),
            "{role}: {much} bytes resident after much, {little} after little"
        );
    }
}

/// Reads exactly that from a pipe, and leaves.
#[track_caller]
fn read_exactly(mut reader: PipeReader, expected: &[u8]) {
    let mut line = vec![0; expected.len()];
    reader.read_exact(&mut line).expect("read");
    assert_eq!(line, expected);
}

#[track_caller]
fn expect_digest(arrived: &Capture, expected: Digest) {
    let arrived =
        arrived.finish(Instant::now() + time_limit()).expect("the end of the stream").digest;
    assert_eq!(arrived, expected);
}

/// nproxy with a blocked writer and a sleeping reader: asleep, small, and without threads beyond the bound.
#[track_caller]
fn expect_at_rest(run: &Running, writer: i32) {
    let before = proc::written(writer);
    expect_no_cpu(run);
    assert_eq!(proc::written(writer), before, "the writer got on while nobody read");
    assert!(
        before.is_some_and(|bytes| bytes < payload_bytes()),
        "the payload fits nowhere but in the writer"
    );
    let resident = proc::resident(run.pid());
    assert!(resident < RESIDENT_LIMIT, "{resident} bytes resident");
    assert!(proc::threads(run.pid()).len() <= 16, "{:?}", proc::threads(run.pid()));
}

/// Watches for a second, and for another if that one was not quiet: a busy machine makes the last of the work before it
/// late and its looks at memory dear, but a loop that polls is seen every time. It is the measure itself, and no wait for
/// something to happen.
#[track_caller]
pub(crate) fn expect_no_cpu(run: &Running) {
    let watch = || {
        let before = Ran::of(run.pid());
        std::thread::sleep(WATCHED);
        before.busy_since()
    };
    let mut used = watch();
    for _ in 0..3 {
        if used <= NO_CPU {
            return;
        }
        used = watch();
    }
    assert!(
        used <= NO_CPU,
        "{used:?} of CPU in {WATCHED:?} with nothing to do: {}",
        proc::describe(run.pid())
    );
}

/// The measure itself can fail: a loop that polls is seen.
#[test]
#[should_panic(expected = "with nothing to do")]
fn the_cpu_measure_catches_a_spin() {
    let busy = Launch::shell(Engine::Epoll, "while :; do :; done").start();
    expect_no_cpu(&busy);
}
