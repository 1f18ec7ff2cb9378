//! The status socket: what running sessions say of themselves, who may hear it, and what is left of dead ones.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::schema::all_fit;
use crate::harness::{
    Engine, Launch, Running, need, on_both_engines, payload_bytes, payload_digest, skip,
};
use crate::proc;

on_both_engines!(
    ten_sessions_are_listed_until_they_end,
    figures_of_a_session_are_right,
    nothing_is_left_of_a_session_that_ends,
    silent_and_flooding_clients_disturb_nothing,
    a_stopped_session_does_not_hold_the_others_up,
    no_control_leaves_no_socket,
    a_directory_of_somebody_else_is_not_used,
    another_user_is_refused,
);

/// A runtime directory of the test's own.
fn runtime() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn session(engine: Engine, runtime: &TempDir, words: &[&str]) -> Running {
    Launch::nproxy(engine)
        .args(["--linger=0ms", "--"])
        .args(words)
        .env("NPROXY_RUNTIME_DIR", runtime.path())
        .start()
}

fn status(runtime: &TempDir, flags: &str) -> String {
    let run = Launch::program(crate::harness::nproxy_path())
        .arg("--status")
        .words(flags)
        .env("NPROXY_RUNTIME_DIR", runtime.path())
        .finish();
    run.expect_code(0);
    run.stdout.text()
}

fn sessions(runtime: &TempDir) -> Vec<Value> {
    let mut all: Value = serde_json::from_str(&status(runtime, "--status-format=json")).unwrap();
    all_fit("status", [&all]);
    all["sessions"].as_array_mut().expect("sessions").drain(..).collect()
}

fn socket(runtime: &TempDir, pid: i32) -> PathBuf {
    runtime.path().join(format!("nproxy/{pid}.sock"))
}

/// Starts a session and waits until it listens.
fn listening(engine: Engine, runtime: &TempDir, words: &[&str]) -> Running {
    let run = session(engine, runtime, words);
    let path = socket(runtime, run.pid());
    proc::until("the socket", || path.exists().then_some(()));
    run
}

fn ten_sessions_are_listed_until_they_end(engine: Engine) {
    let runtime = runtime();
    let mut runs: Vec<Running> = (0..10)
        .map(|index| listening(engine, &runtime, &["sleep", &format!("10{index}")]))
        .collect();
    let mut pids: Vec<i32> = runs.iter().map(Running::pid).collect();
    pids.sort_unstable();

    let seen = sessions(&runtime);
    let listed: Vec<i64> = seen.iter().map(|session| session["pid"].as_i64().unwrap()).collect();
    assert_eq!(listed, pids.iter().map(|pid| i64::from(*pid)).collect::<Vec<_>>());
    for session in &seen {
        assert_eq!(session["command"][0], "sleep");
        assert_eq!(session["engine"], engine.name());
    }
    let table = status(&runtime, "--status-format=text");
    assert_eq!(table.lines().count(), 11, "{table}");
    assert!(table.contains("sleep 107"));
    let page = status(&runtime, "--status-format=prometheus");
    assert_eq!(page.matches("\nnproxy_session_info{").count(), 10, "{page}");
    check_metrics(&page);

    let killed = runs.remove(3);
    let pid = killed.pid();
    killed.signal(Signal::SIGKILL);
    killed.finish().expect_signal(Signal::SIGKILL);
    assert!(socket(&runtime, pid).exists(), "nobody has cleaned yet");
    assert_eq!(sessions(&runtime).len(), 9);
    assert!(!socket(&runtime, pid).exists(), "the dead socket is gone");

    let one = status(&runtime, &format!("{} --status-format=json", runs[0].pid()));
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(one["sessions"].as_array().unwrap().len(), 1);
    let none = Launch::program(crate::harness::nproxy_path())
        .args(["--status", &pid.to_string()])
        .env("NPROXY_RUNTIME_DIR", runtime.path())
        .finish();
    none.expect_code(125).expect_one_line(&["--status", "no such session"]);
    for run in runs {
        run.signal(Signal::SIGTERM);
        run.finish().expect_signal(Signal::SIGTERM);
    }
    assert!(sessions(&runtime).is_empty());
    assert_eq!(fs::read_dir(runtime.path().join("nproxy")).unwrap().count(), 0);
}

/// The text format of Prometheus: types before samples, names and labels of the right form, numbers as values.
fn check_metrics(page: &str) {
    let mut family = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            family = name;
            assert!(name.starts_with("nproxy_"), "{line}");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(rest.split_once(' ').is_some_and(|(_, help)| !help.is_empty()), "{line}");
        } else {
            let (name, rest) = line.split_once('{').expect(line);
            assert_eq!(name, family, "samples stand below their type");
            let (labels, value) = rest.rsplit_once("} ").expect(line);
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(labels.starts_with("pid=\"") && labels.ends_with('"'), "{line}");
        }
    }
    // The checks above are the requirement; Prometheus's own tool, a package of a hundred megabytes, has its
    // say where it is installed.
    let tool = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .spawn();
    if let Ok(mut tool) = tool {
        tool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
        assert!(tool.wait().unwrap().success());
    }
}

fn figures_of_a_session_are_right(engine: Engine) {
    let runtime = runtime();
    let bytes = payload_bytes();
    let run = listening(
        engine,
        &runtime,
        &["sh", "-c", &format!("peer write {bytes} 64K; exec sleep 100")],
    );
    run.stdout.as_ref().expect("captured").wait_for_bytes(bytes);
    let stdout = proc::until("all to be counted", || {
        let session = sessions(&runtime).pop()?;
        let streams = session["streams"].as_array()?.clone();
        streams.into_iter().find(|s| s["stream"] == "stdout" && s["bytes"] == bytes)
    });
    assert_eq!(stdout["recorded"]["transfer_bytes"]["count"], stdout["operations"]);
    assert_eq!(stdout["waits_for"], "writer");
    let memory = proc::until("a look at the memory", || {
        let memory = sessions(&runtime).pop()?["memory"].clone();
        memory.is_object().then_some(memory)
    });
    assert_eq!((&memory["stage"], &memory["gate"]), (&"monitoring".into(), &"open".into()));
    // Only what its end would give back counts, and a sleeping program has little of its own.
    assert!(memory["resident_bytes"].as_u64().unwrap() > 50_000, "{memory}");
    run.signal(Signal::SIGTERM);
    run.finish().expect_signal(Signal::SIGTERM).expect_stdout(payload_digest());
}

fn nothing_is_left_of_a_session_that_ends(engine: Engine) {
    let runtime = runtime();
    let directory = runtime.path().join("nproxy");
    // A run that is over in ten milliseconds has no socket.
    let until_it_listens = format!("until [ -e {}/$PPID.sock ]; do :; done", directory.display());
    let run = || {
        session(engine, &runtime, &["sh", "-c", &until_it_listens]).finish().expect_code(0);
    };
    run();
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    // A dead socket is cleaned by the next session too.
    let dead = directory.join("999999999.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    run();
    assert!(!dead.exists());
}

fn silent_and_flooding_clients_disturb_nothing(engine: Engine) {
    let runtime = runtime();
    let bytes = payload_bytes() * 4;
    let run = session(engine, &runtime, &["peer", "write", &bytes.to_string(), "64K"]);
    let path = socket(&runtime, run.pid());
    let mut silent = Vec::new();
    let flood = [0x55; 4096];
    let mut answers = 0;
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        match UnixStream::connect(&path) {
            // Says nothing, reads nothing, stays; one of eight talks without end.
            Ok(client) if silent.len() < 64 => silent.push(client),
            Ok(mut client) => {
                let _ = client.set_nonblocking(true);
                while client.write(&flood).is_ok_and(|written| written > 0) {}
                answers += 1;
            }
            Err(_) if proc::state(run.pid()) == 'X' || proc::state(run.pid()) == 'Z' => break,
            Err(_) => {}
        }
    }
    let finished = run.finish();
    finished.expect_code(0).expect_silent();
    assert_eq!(finished.stdout.digest.bytes, bytes);
    assert!(silent.len() + answers > 0, "somebody got through");
}

fn a_stopped_session_does_not_hold_the_others_up(engine: Engine) {
    let runtime = runtime();
    let stopped = listening(engine, &runtime, &["sleep", "100"]);
    let other = listening(engine, &runtime, &["sleep", "101"]);
    stopped.signal(Signal::SIGSTOP);
    proc::until("it to stop", || (proc::state(stopped.pid()) == 'T').then_some(()));
    let asked = Launch::program(crate::harness::nproxy_path())
        .words("--status --status-format=json")
        .env("NPROXY_RUNTIME_DIR", runtime.path())
        .finish();
    asked.expect_code(0).expect_one_line(&[&stopped.pid().to_string(), "does not answer"]);
    let all: Value = serde_json::from_str(&asked.stdout.text()).unwrap();
    assert_eq!(all["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(all["sessions"][0]["pid"], other.pid());
}

fn no_control_leaves_no_socket(engine: Engine) {
    let runtime = runtime();
    let run = Launch::nproxy(engine)
        .words("--no-control sh -c")
        .arg("ls $NPROXY_RUNTIME_DIR")
        .env("NPROXY_RUNTIME_DIR", runtime.path())
        .finish();
    run.expect_code(0).expect_output("").expect_silent();
    assert_eq!(fs::read_dir(runtime.path()).unwrap().count(), 0);
}

fn a_directory_of_somebody_else_is_not_used(engine: Engine) {
    let open = runtime();
    fs::create_dir(open.path().join("nproxy")).unwrap();
    fs::set_permissions(open.path().join("nproxy"), fs::Permissions::from_mode(0o755)).unwrap();
    let linked = runtime();
    let elsewhere = runtime();
    symlink(elsewhere.path(), linked.path().join("nproxy")).unwrap();
    for runtime in [&open, &linked] {
        let run = Launch::nproxy(engine)
            .words("-v --signal-exit=code sh")
            .args(["-c", "echo hello; exec sleep 60"])
            .env("NPROXY_RUNTIME_DIR", runtime.path())
            .start();
        run.stdout.as_ref().unwrap().wait_for("hello\n", 1);
        run.stderr.as_ref().unwrap().wait_for("listen in", 1);
        run.signal(Signal::SIGTERM);
        run.finish().expect_code(143).expect_output("hello\n");
        assert_eq!(fs::read_dir(runtime.path().join("nproxy")).unwrap().count(), 0);
    }
}

fn another_user_is_refused(engine: Engine) {
    // Past the directory's mode, as root would get for somebody else by mistake: the socket asks by itself.
    let root = nix::unistd::geteuid().is_root() || skip("only root can ask as somebody else");
    if !root || !need(&["setpriv", "perl", "-e", "1"]) {
        return;
    }
    let runtime = runtime();
    let run = listening(engine, &runtime, &["sleep", "100"]);
    let path = socket(&runtime, run.pid());
    let connect = |user: &str| {
        let script = "use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0); \
            connect(S, sockaddr_un($ARGV[0])) or die; print sysread(S, $b, 1 << 20) > 0 ? 'told' : 'not';";
        let words = ["--reuid", user, "--clear-groups", "--regid", user, "perl", "-e", script];
        let run = Launch::program("setpriv").args(words).arg(&path).finish();
        (run.status.success(), run.stdout.text())
    };
    assert_eq!(connect("65534").1, "", "the directory is closed");
    for directory in [runtime.path().to_owned(), runtime.path().join("nproxy")] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(connect("65534"), (true, "not".into()), "the socket asks who is there");
    assert_eq!(connect("0"), (true, "told".into()));
}
