//! What happens while no output comes, and a limit on how fast it goes: `--idle-timeout`, `--heartbeat`, `--limit-rate`.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::ends;
use crate::harness::{Engine, Launch, on_both_engines, payload_digest};
use crate::proc;

on_both_engines![
    silent_command_is_ended,
    all_that_it_started_is_ended,
    deaf_command_is_killed,
    silent_command_at_a_terminal,
    busy_command_is_left_alone,
    slow_reader_is_no_silence,
    stopped_command_is_not_silent,
    stopped_filter_is_not_silent,
    slow_reader_behind_the_end_is_no_silence,
    no_patience_is_no_haste,
    silent_filter_ends,
    silent_filter_lets_go_what_it_holds,
    silent_filter_ends_without_its_reader,
    heartbeat,
    heartbeat_has_its_own_line,
    nobody_is_blamed_who_was_asked_to_end,
    rate_of_a_filter,
    rate_of_each_stream,
    very_low_rates,
];

/// SIGTERM, one line that says why, and 124.
fn silent_command_is_ended(engine: Engine) {
    let run = Launch::nproxy(engine)
        .args(["--idle-timeout=2s", "sh", "-c", "echo before; sleep 600; echo after"])
        .finish();
    run.expect_code(124).expect_output("before\n");
    run.expect_one_line(&["end sh: no output for 2s (--idle-timeout)"]);
    run.expect(run.left.is_empty(), "nothing is left");
}

/// Also what has closed its streams and left the command's session.
fn all_that_it_started_is_ended(engine: Engine) {
    let script = "setsid sh -c 'sleep 601 >/dev/null 2>&1; :' & sleep 602";
    let run =
        Launch::nproxy(engine).args(["--idle-timeout=1s", "sh", "-c", script]).start().finish();
    run.expect_code(124).expect(run.left.is_empty(), "nothing is left");
}

/// Ten seconds after SIGTERM it is SIGKILL.
fn deaf_command_is_killed(engine: Engine) {
    let script = "trap '' TERM; (trap '' TERM; sleep 600) & while :; do sleep 600; done";
    let run = Launch::nproxy(engine).args(["--idle-timeout=2s", "sh", "-c", script]).finish();
    run.expect_code(124).expect(run.left.is_empty(), "nothing is left");
    run.expect(run.elapsed >= Duration::from_secs(10), "it had its ten seconds");
}

fn silent_command_at_a_terminal(engine: Engine) {
    let run = Launch::nproxy(engine)
        .args(["--pty=always", "--idle-timeout=2s", "sh", "-c", "echo before; sleep 600; :"])
        .finish();
    run.expect_code(124).expect_output("before\n");
    run.expect(run.left.is_empty(), "nothing is left");
}

/// Bytes that come in time keep it running, on either stream, and its status is its own.
fn busy_command_is_left_alone(engine: Engine) {
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep .25; echo $i >&$((i % 2 + 1)); done; exit 3";
    let run = Launch::nproxy(engine).args(["--idle-timeout=2s", "sh", "-c", script]).finish();
    run.expect_code(3).expect_output("2\n4\n6\n8\n");
}

/// Bytes that wait for a reader have come.
fn slow_reader_is_no_silence(engine: Engine) {
    let script = "set -o pipefail; nproxy --idle-timeout=500ms head -c 3000000 /dev/zero | { sleep 2; wc -c; }";
    Launch::shell(engine, script)
        .finish()
        .expect_code(0)
        .expect_output("3000000\n")
        .expect_silent();
}

/// The time of a stop does not count, whether nproxy is continued and continues the command, or both are, as by `fg`.
fn stopped_command_is_not_silent(engine: Engine) {
    std::thread::scope(|scope| {
        scope.spawn(|| stopped_for_five_seconds(engine, "--pty=never", false));
        scope.spawn(|| stopped_for_five_seconds(engine, "--pty=always", false));
        stopped_for_five_seconds(engine, "--pty=never", true);
    });
}

fn stopped_for_five_seconds(engine: Engine, pty: &str, together: bool) {
    let run = Launch::nproxy(engine)
        .args([pty, "--idle-timeout=4s", "sh", "-c", "echo ready; sleep 2; echo done"])
        .start();
    run.stdout.as_ref().expect("its output").wait_for("ready\n", 1);
    let child = Pid::from_raw(run.process("sh -c"));
    kill(child, Signal::SIGSTOP).expect("stop it");
    proc::until("nproxy to be stopped too", || (proc::state(run.pid()) == 'T').then_some(()));
    std::thread::sleep(Duration::from_secs(5));
    if together {
        kill(child, Signal::SIGCONT).expect("continue it");
    }
    run.signal(Signal::SIGCONT);
    run.finish().expect_code(0).expect_output("ready\ndone\n");
}

/// The time of its own stop does not count for a filter either.
fn stopped_filter_is_not_silent(engine: Engine) {
    let (source, writer) = std::io::pipe().expect("a pipe");
    std::io::Write::write_all(&mut &writer, b"begun\n").expect("write");
    let run = Launch::nproxy(engine).args(["--idle-timeout=5s"]).stdin(source).start();
    run.stdout.as_ref().expect("its output").wait_for("begun\n", 1);
    // Less than the limit, and together with what it has run more.
    run.signal(Signal::SIGSTOP);
    proc::until("it to be stopped", || (proc::state(run.pid()) == 'T').then_some(()));
    std::thread::sleep(Duration::from_secs(4));
    run.signal(Signal::SIGCONT);
    std::thread::sleep(Duration::from_secs(2));
    std::io::Write::write_all(&mut &writer, b"done\n").expect("write");
    drop(writer);
    run.finish().expect_code(0).expect_output("begun\ndone\n").expect_silent();
}

/// What came to an end in order is on its way, and its reader's affair.
fn slow_reader_behind_the_end_is_no_silence(engine: Engine) {
    let script = "set -o pipefail; head -c 100000 /dev/zero | \
        nproxy --pipe-size=keep --text=strip-ansi --idle-timeout=1500ms | { sleep 4; wc -c; }";
    let run = Launch::shell(engine, script).finish();
    run.expect_code(0).expect_output("100000\n").expect_silent();
}

/// Who waits for nobody's silence does not look for it all the time.
fn no_patience_is_no_haste(engine: Engine) {
    let (reader, sink) = std::io::pipe().expect("a pipe");
    let flags = ["--linger=0s", "--monitor=off", "head", "-c", "1500000", "/dev/zero"];
    let run = Launch::nproxy(engine).args(flags).stdout(sink).start();
    proc::until("the command to be over", || proc::children(run.pid()).is_empty().then_some(()));
    let before = proc::cpu_time(run.pid());
    std::thread::sleep(Duration::from_secs(1));
    let spent = proc::cpu_time(run.pid()).saturating_sub(before);
    assert!(spent < Duration::from_millis(400), "{spent:?} in a second of waiting");
    let read = std::thread::spawn(move || std::io::copy(&mut &reader, &mut std::io::sink()));
    run.finish().expect_code(0);
    assert_eq!(read.join().expect("joined").expect("read"), 1_500_000);
}

fn silent_filter_ends(engine: Engine) {
    let (source, writer) = std::io::pipe().expect("a pipe");
    std::io::Write::write_all(&mut &writer, b"begun").expect("write");
    let run = Launch::nproxy(engine).args(["--idle-timeout=300ms"]).stdin(source).finish();
    run.expect_code(124).expect_output("begun").expect_one_line(&["--idle-timeout"]);
    drop(writer);
}

/// What was taken goes on: the lines that are still on the screen.
fn silent_filter_lets_go_what_it_holds(engine: Engine) {
    let (source, writer) = std::io::pipe().expect("a pipe");
    std::io::Write::write_all(&mut &writer, b"one\ntwo\n").expect("write");
    let run = Launch::nproxy(engine).args(["--text=screen", "--idle-timeout=300ms"]);
    let run = run.stdin(source).finish();
    run.expect_code(124).expect_output("one\ntwo\n").expect_one_line(&["--idle-timeout"]);
    drop(writer);
}

/// Who never reads is not waited for.
fn silent_filter_ends_without_its_reader(engine: Engine) {
    let (source, writer) = std::io::pipe().expect("a pipe");
    let (reader, sink) = std::io::pipe().expect("a pipe");
    let flags = ["--text=strip-ansi", "--idle-timeout=300ms", "--pipe-size=keep"];
    let run = Launch::nproxy(engine).args(flags).stdin(source).stdout(sink).start();
    // All of it is taken, and a little more than the pipe behind it holds.
    std::io::Write::write_all(&mut &writer, &[b'x'; 65 << 10]).expect("write");
    run.finish().expect_code(124);
    drop((reader, writer));
}

/// A line each time, and none once something has come.
fn heartbeat(engine: Engine) {
    let script = "sleep 2.2; seq 5; sleep .3";
    let run = Launch::nproxy(engine).args(["--heartbeat=1s", "sh", "-c", script]).finish();
    run.expect_code(0).expect_output("1\n2\n3\n4\n5\n");
    let said = run.stderr.text();
    let beats: Vec<_> = said.lines().collect();
    let seconds = run.elapsed.as_secs() as usize;
    run.expect((1..=seconds).contains(&beats.len()), "one line a second");
    run.expect(beats[0].starts_with("nproxy: sh: no output for 0:01, running for 0:0"), "the line");
}

/// Where a stream goes to the same place, and has left its line unfinished, the message begins on the next one.
fn heartbeat_has_its_own_line(engine: Engine) {
    for (flags, rest) in [("", "> log 2>&1"), ("--text=strip-ansi", "2>&1 | cat > log")] {
        let directory = tempfile::tempdir().expect("directory");
        let script = format!(
            "nproxy {flags} --heartbeat=300ms sh -c \
             'printf half; until grep -q output log; do sleep .1; done; echo rest' {rest}"
        );
        Launch::shell(engine, &script).directory(directory.path()).finish().expect_code(0);
        let log = std::fs::read_to_string(directory.path().join("log")).expect("the log");
        let lines: Vec<&str> = log.lines().collect();
        assert!(lines[0] == "half" && lines.last() == Some(&"rest"), "{log}");
        assert!(lines[1].starts_with("nproxy: sh: no output for "), "{log}");
        assert!(lines[1..lines.len() - 1].iter().all(|line| line.starts_with("nproxy: ")), "{log}");
    }
}

/// What holds a pipe on behind the end of a command that was ended gets its time, and no message that outlives it.
fn nobody_is_blamed_who_was_asked_to_end(engine: Engine) {
    // It sleeps a second longer than the command, and longer than a silent pipe is waited for.
    let slow = "(trap 'sleep 1; exit' TERM; echo ready; while :; do sleep .1; done) 2>/dev/null & sleep 600";
    let deaf = "(trap '' TERM; echo ready; while :; do sleep .1; done) 2>/dev/null & sleep 600";
    for script in [slow, deaf] {
        let run = Launch::nproxy(engine).args(["--idle-timeout=2s", "bash", "-c", script]).finish();
        run.expect_code(124).expect_output("ready\n");
        run.expect_one_line(&["end bash: no output for 2s"]);
        run.expect(run.left.is_empty(), "nothing is left");
    }
}

/// Below a byte in the time between two transfers, and at a pty, which puts a byte of its own in front of each read.
fn very_low_rates(engine: Engine) {
    let run = Launch::nproxy(engine).args(["--limit-rate=5", "echo", "hi"]).finish();
    run.expect_code(0).expect_output("hi\n");
    run.expect(run.elapsed >= Duration::from_millis(400), "three bytes, five a second");
    let run = Launch::nproxy(engine)
        .args(["--pty=always", "--limit-rate=100", "sh", "-c", "printf %060d 7"])
        .finish();
    run.expect_code(0).expect_output(&format!("{:060}", 7));
    run.expect(run.elapsed >= Duration::from_millis(400), "sixty bytes, a hundred a second");
}

/// Every byte arrives, and no sooner than it may.
fn rate_of_a_filter(engine: Engine) {
    for extra in [&[][..], &["--tee=/dev/null"]] {
        let (source, pipe) = std::io::pipe().expect("pipe");
        let writer = ends::payload_writer(pipe);
        let run = Launch::nproxy(engine)
            .arg(format!("--limit-rate={}", payload_digest().bytes))
            .args(extra)
            .stdin(source)
            .finish();
        run.expect_code(0).expect_stdout(payload_digest());
        run.expect(run.elapsed > Duration::from_millis(880), "a second's worth");
        writer.finish().expect_code(0);
    }
}

/// The limit is each stream's own: together they take no longer than one.
fn rate_of_each_stream(engine: Engine) {
    let script = "head -c 4000000 /dev/zero & head -c 1000000 /dev/zero >&2; wait";
    let run = Launch::nproxy(engine)
        .args(["--limit-rate=2000000", "--stats-file=/dev/null", "sh", "-c", script])
        .finish();
    run.expect_code(0).expect(run.elapsed > Duration::from_millis(1880), "two seconds' worth");
    run.expect(run.stdout.digest.bytes == 4_000_000, "all of stdout");
    run.expect(run.stderr.digest.bytes == 1_000_000, "all of stderr");
}
