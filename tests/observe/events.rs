//! Events: what is told of a run, and that the run never waits for whoever reads it.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::Value;

use super::schema::all_fit;
use crate::harness::{Engine, Launch, on_both_engines, payload_bytes, payload_digest};
use crate::proc;

on_both_engines!(
    a_run_is_told_from_start_to_exit,
    every_chunk_is_told_or_counted,
    signals_stops_and_continues_are_told,
    a_copy_that_fails_is_told,
    a_reader_that_sleeps_holds_nothing_up,
    sessions_can_share_a_file,
    they_share_the_commands_own_file,
);

fn events(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    // The last line may be on its way.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let events: Vec<Value> =
        whole.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    all_fit("events", &events);
    events
}

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

/// /dev/stderr is the descriptor, not the file anew: neither writes over the other.
fn they_share_the_commands_own_file(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    let script = "echo old >log; nproxy --events /dev/stderr sh -c 'for i in 1 2 3; do echo line $i >&2; done' 2>>log";
    Launch::shell(engine, script).directory(directory.path()).finish().expect_code(0);
    let log = fs::read_to_string(directory.path().join("log")).unwrap();
    let (told, lines): (Vec<&str>, Vec<&str>) = log.lines().partition(|line| line.starts_with('{'));
    assert_eq!(lines, ["old", "line 1", "line 2", "line 3"]);
    let told: Vec<Value> =
        told.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!((named(&told, "start").len(), named(&told, "exit").len()), (1, 1));
}

fn a_run_is_told_from_start_to_exit(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events");
    let run = Launch::nproxy(engine)
        .arg("--events")
        .arg(&path)
        .args(["sh", "-c", "echo hello; exit 3"])
        .finish();
    run.expect_code(3).expect_output("hello\n").expect_silent();
    let events = events(&path);
    assert_eq!(events[0]["event"], "start");
    assert_eq!(events[0]["command"], serde_json::json!(["sh", "-c", "echo hello; exit 3"]));
    assert_eq!(events[0]["engine"], engine.name());
    assert_eq!(named(&events, "chunk")[0]["bytes"], 6);
    let ends = named(&events, "end");
    assert_eq!(ends.len(), 2);
    assert!(ends.iter().all(|end| end["how"] == "delivered"), "{events:?}");
    let exit = events.last().unwrap();
    assert_eq!((&exit["event"], &exit["exit_status"]), (&"exit".into(), &3.into()));
    let times: Vec<f64> = events.iter().map(|event| event["seconds"].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

fn every_chunk_is_told_or_counted(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events");
    let run = Launch::nproxy(engine)
        .arg("--stats=json")
        .arg("--events")
        .arg(&path)
        .words("-q peer write")
        .arg(payload_bytes().to_string())
        .arg("4K")
        .finish();
    run.expect_code(0).expect_stdout(payload_digest());
    let events = events(&path);
    let told = named(&events, "chunk").len() as u64;
    let dropped: u64 =
        named(&events, "dropped").iter().filter_map(|event| event["events"].as_u64()).sum();
    assert_eq!(told + dropped, run.stat("stdout", "operations"), "{told} told, {dropped} dropped");
    let bytes: u64 = named(&events, "chunk").iter().filter_map(|e| e["bytes"].as_u64()).sum();
    assert!(bytes == payload_bytes() || dropped > 0, "{bytes}");
}

fn signals_stops_and_continues_are_told(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events");
    let run = Launch::nproxy(engine)
        .arg("--events")
        .arg(&path)
        .args(["sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done"])
        .start();
    proc::until("the start", || (named(&events(&path), "start").len() == 1).then_some(()));
    let child = proc::only_child(run.pid());
    let stdout = run.stdout.as_ref().expect("captured");
    proc::until("the trap", || stdout.so_far().text().contains("ready").then_some(()));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), Signal::SIGSTOP).unwrap();
    proc::until("the child to stop", || (proc::state(child) == 'T').then_some(()));
    // nproxy stops with it, unless its group is an orphaned one; either way it has seen the stop by then.
    proc::until("nproxy to follow", || {
        (proc::state(run.pid()) == 'T' || !named(&events(&path), "stop").is_empty()).then_some(())
    });
    run.signal(Signal::SIGCONT);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), Signal::SIGCONT).unwrap();
    proc::until("the stop to be told", || {
        (!named(&events(&path), "stop").is_empty()).then_some(())
    });
    run.signal(Signal::SIGTERM);
    run.finish().expect_code(9);
    let events = events(&path);
    assert_eq!(named(&events, "stop")[0]["signal"], Signal::SIGSTOP as i32);
    let signals = named(&events, "signal");
    assert!(signals.iter().any(|event| event["signal"] == Signal::SIGTERM as i32), "{events:?}");
}

fn a_copy_that_fails_is_told(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events");
    let run = Launch::nproxy(engine)
        .arg("--events")
        .arg(&path)
        .words("--tee /dev/full sh -c")
        .arg("echo hello")
        .finish();
    run.expect_code(0).expect_output("hello\n");
    let events = events(&path);
    let copies = named(&events, "copy");
    assert_eq!(copies[0]["copy"], "/dev/full", "{events:?}");
    assert!(copies[0]["trouble"].as_str().unwrap().contains("No space left"), "{events:?}");
}

fn a_reader_that_sleeps_holds_nothing_up(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fifo");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    // Nobody is there: that is told before anything runs.
    let run = Launch::nproxy(engine).arg("--events").arg(&path).args(["echo", "hello"]).finish();
    run.expect_code(125).expect_output("").expect_one_line(&["--events: cannot open"]);
    // Somebody is there, and never reads.
    let reader = fs::File::options().read(true).write(true).open(&path).unwrap();
    let run = Launch::nproxy(engine)
        .arg("--events")
        .arg(&path)
        .words("peer write")
        .arg(payload_bytes().to_string())
        .arg("4K")
        .finish();
    run.expect_code(0).expect_stdout(payload_digest());
    drop(reader);
}

fn sessions_can_share_a_file(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events");
    let start =
        |word: &str| Launch::nproxy(engine).arg("--events").arg(&path).args(["echo", word]).start();
    let runs: Vec<_> = ["a", "b", "c"].map(start).into();
    for run in runs {
        run.finish().expect_code(0);
    }
    let events = events(&path);
    assert_eq!(named(&events, "start").len(), 3);
    assert_eq!(named(&events, "exit").len(), 3);
}
