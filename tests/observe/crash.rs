//! Crash reports: for deaths that nobody asked for, and for no others.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::schema::all_fit;
use crate::harness::{Engine, Launch, on_both_engines};
use crate::proc;

on_both_engines!(
    faults_and_kills_leave_a_report,
    a_death_that_was_asked_for_leaves_none,
    who_ends_nproxy_afterwards_hides_nothing,
    a_directory_that_cannot_be_used_is_told,
);

fn reports(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn faults_and_kills_leave_a_report(engine: Engine) {
    for signal in [Signal::SIGSEGV, Signal::SIGABRT, Signal::SIGKILL] {
        let directory = tempfile::tempdir().unwrap();
        let crashes = directory.path().join("crashes");
        let number = signal as i32;
        let run = Launch::nproxy(engine)
            .arg("--crash-dump")
            .arg(&crashes)
            .env("SECRET_OF_THE_TEST", "environment-word")
            .args(["sh", "-c", "ulimit -c 0; printf 'pay%s' load-word; kill -$0 $$"])
            .arg(number.to_string())
            .finish();
        run.expect_signal(signal).expect_output("payload-word");
        let found = reports(&crashes);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(fs::metadata(&found[0]).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(run.stderr.text().contains(&*found[0].to_string_lossy()));
        let text = fs::read_to_string(&found[0]).unwrap();
        assert!(!text.contains("payload-word") && !text.contains("environment-word"), "{text}");
        let report: Value = serde_json::from_str(&text).unwrap();
        all_fit("crash", [&report]);
        assert_eq!((&report["version"], &report["signal"]), (&1.into(), &number.into()));
        assert_eq!(report["signal_name"], signal.as_str());
        assert_eq!(report["exit_status"], 128 + number);
        assert_eq!(report["session"]["command"][0], "sh");
        assert_eq!(report["session"]["streams"][0]["bytes"], 12);
        assert_eq!(report["history"][0]["bytes"].as_u64().map(|bytes| bytes > 0), Some(true));
        assert!(report["usage"]["peak_resident_bytes"].as_u64().unwrap() > 100_000);
    }
}

/// The command has died of a fault, and nproxy, which waits for what it left, of a signal.
fn who_ends_nproxy_afterwards_hides_nothing(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    let events = directory.path().join("events");
    let script = "ulimit -c 0; sleep 600 & kill -SEGV $$";
    let run = Launch::nproxy(engine)
        .arg("--crash-dump")
        .arg(directory.path().join("crashes"))
        .arg("--events")
        .arg(&events)
        .args(["--linger=eof", "sh", "-c", script])
        .start();
    let left = run.process("sleep 600");
    proc::until("the command to be over", || proc::children(run.pid()).is_empty().then_some(()));
    proc::until("nproxy to wait", || (proc::state(run.pid()) == 'S').then_some(()));
    run.signal(Signal::SIGTERM);
    let ended = run.finish();
    kill(Pid::from_raw(left), Signal::SIGKILL).unwrap();
    ended.expect_signal(Signal::SIGTERM);
    assert_eq!(reports(&directory.path().join("crashes")).len(), 1);
    let text = fs::read_to_string(&events).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["signal"]), (&"exit".into(), &11.into()), "{last}");
}

fn a_death_that_was_asked_for_leaves_none(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let run = Launch::nproxy(engine)
            .arg("--crash-dump")
            .arg(directory.path())
            .args(["sh", "-c", "kill -$0 $$"])
            .arg((signal as i32).to_string())
            .finish();
        run.expect_signal(signal);
    }
    let run = Launch::nproxy(engine)
        .arg("--crash-dump")
        .arg(directory.path())
        .args(["sh", "-c", "exit 139"])
        .finish();
    run.expect_code(139);
    assert!(reports(directory.path()).is_empty());
}

fn a_directory_that_cannot_be_used_is_told(engine: Engine) {
    let parent = tempfile::tempdir().unwrap();
    let missing = parent.path().join("crashes");
    let run =
        Launch::nproxy(engine).arg("-v").arg("--crash-dump").arg(&missing).arg("true").finish();
    run.expect_code(0).expect_message(&["--crash-dump", "crashes is made with the first report"]);
    for (directory, why) in [
        ("/proc/no/where", "No such file"),
        ("/proc/self/none", "No such file"),
        ("/dev/null", "Not a directory"),
    ] {
        let run =
            Launch::nproxy(engine).args(["--crash-dump", directory, "echo", "started"]).finish();
        run.expect_code(125).expect_output("").expect_one_line(&["crash reports", directory, why]);
    }
}
