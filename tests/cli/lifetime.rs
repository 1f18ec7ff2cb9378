//! From start to end: when a run is over, who may keep it open, what it holds meanwhile, and that nothing stays behind.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::tempdir;

use crate::capture::Capture;
use crate::harness::{
    Engine, Launch, Running, on_both_engines, payload_bytes, payload_digest, time_limit,
};
use crate::outcome::Finished;
use crate::payload::Digest;
use crate::proc;

on_both_engines![
    holder_is_left_and_named,
    holder_does_not_change_the_status,
    no_line_without_a_holder,
    linger_until_the_end,
    busy_grandchild_is_carried,
    sleeping_reader_after_the_child,
    end_of_one_stream,
    own_copies_are_dropped,
    threads_stay_bounded,
    nothing_stays_behind,
    many_at_once,
];

/// A grandchild that keeps the pipe open is left after 200 ms of silence, and named.
fn holder_is_left_and_named(engine: Engine) {
    let run = Launch::nproxy(engine).args(["sh", "-c", "sleep 60 & echo hi"]).start();
    let sleeper = run.process("sleep 60");
    let run = finish_with_one_left(run, sleeper);
    run.expect_code(0).expect_output("hi\n").expect_one_line(&[&sleeper.to_string(), "sleep"]);
    // Long before the sleeper's end, however busy the machine is.
    run.expect(run.elapsed < Duration::from_secs(30), "it was waited for");
}

/// The status is still the child's.
fn holder_does_not_change_the_status(engine: Engine) {
    let run =
        Launch::nproxy(engine).args(["--linger=50ms", "sh", "-c", "sleep 60 & exit 6"]).start();
    let sleeper = run.process("sleep 60");
    finish_with_one_left(run, sleeper).expect_code(6).expect_one_line(&["sleep"]);
}

/// Nobody holds anything: a silent grandchild with streams of its own is none of our business, nor is -q's line.
fn no_line_without_a_holder(engine: Engine) {
    let run =
        Launch::nproxy(engine).args(["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo hi"]).start();
    let sleeper = run.process("sleep 60");
    let run = finish_with_one_left(run, sleeper);
    run.expect_code(0).expect_output("hi\n").expect_silent();
    let quiet = Launch::nproxy(engine).args(["-q", "sh", "-c", "sleep 60 & echo hi"]).start();
    let sleeper = quiet.process("sleep 60");
    finish_with_one_left(quiet, sleeper).expect_code(0).expect_output("hi\n").expect_silent();
}

fn linger_until_the_end(engine: Engine) {
    let run =
        Launch::nproxy(engine).args(["--linger=eof", "sh", "-c", "peer signals & echo hi"]).start();
    let holder = run.process("peer signals");
    run.stdout.as_ref().expect("captured").wait_for("ready", 1);
    proc::until("the child to be gone", || (run.processes().len() == 2).then_some(()));
    // Much longer than the default would wait.
    let watched = Instant::now();
    while watched.elapsed() < Duration::from_millis(700) {
        assert!("SRD".contains(proc::state(run.pid())), "{}", proc::describe(run.pid()));
        std::thread::sleep(Duration::from_millis(10));
    }
    kill(Pid::from_raw(holder), Signal::SIGUSR2).expect("the holder is alive");
    let run = run.finish();
    run.expect_code(0)
        .expect_silent()
        .expect(run.stdout.text().contains("USR2"), "its last words arrived");
}

/// Only silence counts: a grandchild that goes on writing is carried to its end.
fn busy_grandchild_is_carried(engine: Engine) {
    let script =
        "(i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo $i; sleep 0.03; done) 2>/dev/null & exit 2";
    let run = Launch::nproxy(engine).args(["--linger=2s", "bash", "-c", script]).finish();
    let expected: String = (1..=40).map(|line| format!("{line}\n")).collect();
    run.expect_code(2).expect_silent().expect_output(&expected);
}

/// A sleeping reader is no silence either: the child is long gone, its bytes wait, and all of them arrive.
fn sleeping_reader_after_the_child(engine: Engine) {
    let (reader, writer) = std::io::pipe().expect("pipe");
    let (source, go) = std::io::pipe().expect("pipe");
    let script = "peer write $BYTES 64K 2>/dev/null & read -r go; exit 0";
    let run = Launch::nproxy(engine)
        .args(["--linger=50ms", "bash", "-c", script])
        .env("BYTES", payload_bytes().to_string())
        .stdin(source)
        .stdout(writer)
        .start();
    let grandchild = run.process("peer write");
    proc::until_blocked_in_write(grandchild);
    drop(go);
    proc::until("the child to be gone", || (run.processes().len() == 2).then_some(()));
    // Much longer than --linger.
    let watched = Instant::now();
    while watched.elapsed() < Duration::from_millis(300) {
        assert!("SRD".contains(proc::state(run.pid())), "{}", proc::describe(run.pid()));
        std::thread::sleep(Duration::from_millis(10));
    }
    let arrived = Capture::of(reader);
    run.finish().expect_code(0).expect_silent();
    let arrived =
        arrived.finish(Instant::now() + time_limit()).expect("the end of the stream").digest;
    assert_eq!(arrived, payload_digest());
}

/// The end of one stream is passed on at once, while the child and the other stream live.
fn end_of_one_stream(engine: Engine) {
    let (source, keyboard) = std::io::pipe().expect("pipe");
    let run = Launch::nproxy(engine)
        .args(["bash", "-c", "echo out; exec >&-; read x; echo err >&2"])
        .stdin(source)
        .start();
    let arrived = run.stdout.as_ref().expect("captured").finish(Instant::now() + time_limit() / 2);
    assert_eq!(arrived.expect("the end of stdout while the child lives").text(), "out\n");
    assert!("SRD".contains(proc::state(run.pid())), "{}", proc::describe(run.pid()));
    drop(keyboard);
    let run = run.finish();
    run.expect_code(0).expect(run.stderr.text() == "err\n", "stderr went on");
}

/// nproxy keeps no copy of what it passed on: stdin and other descriptors close when the child closes them.
fn own_copies_are_dropped(engine: Engine) {
    let (source, mut full) = std::io::pipe().expect("pipe");
    let (held, theirs) = std::io::pipe().expect("pipe");
    let script = format!("exec <&-; exec {0}>&-; echo closed; exec sleep 60", 8);
    let run = Launch::program("bash")
        .args(["-c", "exec nproxy bash -c \"$SCRIPT\" 8>&2 2>/dev/null"])
        .env("SCRIPT", script)
        .env("NPROXY_ENGINE", engine.name())
        .stdin(source)
        .stderr(theirs)
        .start();
    run.stdout.as_ref().expect("captured").wait_for("closed", 1);
    let end = Capture::of(held).finish(Instant::now() + time_limit() / 2);
    assert!(
        end.is_some(),
        "nproxy holds a descriptor that was the child's: {:?}",
        proc::descriptors(run.pid())
    );
    let refused = std::io::Write::write_all(&mut full, b"x").map_err(|error| error.kind());
    assert_eq!(refused, Err(std::io::ErrorKind::BrokenPipe), "nproxy holds the child's stdin");
    run.signal(Signal::SIGTERM);
    run.finish().expect_signal(Signal::SIGTERM);
}

/// Never more than 16 threads, kernel workers included, with every stream busy and the readers slow.
fn threads_stay_bounded(engine: Engine) {
    // So much that the run is not over before the first look.
    let bytes = payload_bytes();
    let script = format!(
        "peer write {bytes} random | nproxy --stdin=relay bash -c 'peer write-both {bytes} & cat >/dev/null; wait' \
         2> >(peer read --delay 1 >/dev/null) | peer read --delay 1"
    );
    let run = Launch::shell(engine, &script).start();
    let nproxy = run.process("nproxy");
    let mut most = 0;
    while let threads @ 1.. = proc::threads(nproxy).len() {
        most = most.max(threads);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!((1..=16).contains(&most), "{most} threads");
    let run = run.finish();
    run.expect_code(0)
        .expect_silent()
        .expect_output(&format!("{}\n", Digest::of_payload(bytes, 1)));
}

/// Hundreds of runs (2000 with a large payload) leave no process and no open file behind.
fn nothing_stays_behind(engine: Engine) {
    let runs = if payload_bytes() >= 1 << 30 { 2000 } else { 200 };
    let open_files = || -> u64 {
        let all = fs::read_to_string("/proc/sys/fs/file-nr").expect("file-nr");
        all.split_ascii_whitespace().next().and_then(|count| count.parse().ok()).expect("a number")
    };
    let before = open_files();
    let script = format!(
        "for i in $(seq {runs}); do nproxy echo $i || exit; echo $i | nproxy || exit; done | tail -n 1"
    );
    let run = Launch::shell(engine, &script).finish();
    run.expect_code(0).expect_silent().expect_output(&format!("{runs}\n"));
    run.expect(run.left.is_empty(), &format!("processes were left: {:?}", run.left));
    // Other tests open files too, but not one for each of these runs; rings are taken down a little later.
    let allowed = before + runs;
    proc::until_or(
        "the open files to go",
        || (open_files() < allowed).then_some(()),
        || format!("{} open files, {before} before {runs} runs", open_files()),
    );
}

/// Two dozen at once, beyond what one user may lock or grow pipes to: all of them carry everything.
fn many_at_once(engine: Engine) {
    let directory = tempdir().expect("directory");
    let bytes = u64::max(payload_bytes() / 16, 3 << 19);
    let script = format!(
        "for i in $(seq 24); do (nproxy peer write {bytes} random $i | nproxy > out$i; echo ${{PIPESTATUS[@]}}) & done; wait"
    );
    let run = Launch::shell(engine, &script).directory(directory.path()).finish();
    run.expect_code(0).expect_silent().expect_output(&"0 0\n".repeat(24));
    for seed in 1..=24 {
        let arrived =
            crate::harness::digest_of_file(&directory.path().join(format!("out{seed}")), 0);
        run.expect(
            arrived == Digest::of_payload(bytes, seed),
            &format!("run {seed} carried everything"),
        );
    }
}

/// Ends a run whose grandchild, by intent, outlives it. The harness ends the grandchild afterwards.
#[track_caller]
fn finish_with_one_left(run: Running, holder: i32) -> Finished {
    let run = run.finish();
    run.expect(
        run.left == [holder],
        &format!("exactly the grandchild {holder} is left: {:?}", run.left),
    );
    run
}
