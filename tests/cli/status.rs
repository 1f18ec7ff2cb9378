//! The exit status is the child's own, or says exactly what nproxy could not do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use tempfile::tempdir;

use crate::harness::terminal::raw_pair;
use crate::harness::{Engine, Launch, need, on_both_engines};

/// The deaths that must come through: by the terminal, by the kernel, by kill(1).
const DEATHS: [Signal; 8] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGABRT,
    Signal::SIGKILL,
    Signal::SIGSEGV,
    Signal::SIGPIPE,
    Signal::SIGTERM,
];

on_both_engines![
    every_exit_status,
    death_by_signal,
    death_by_a_blocked_or_ignored_signal,
    output_before_the_end_is_delivered,
    command_not_found,
    command_behind_a_closed_directory,
    command_not_executable,
    script_without_an_interpreter,
    first_process_of_a_container,
    a_copys_command_where_children_are_ignored,
];

fn every_exit_status(engine: Engine) {
    for status in 0..=255 {
        let run = Launch::nproxy(engine).words("peer exit").arg(status.to_string()).finish();
        run.expect_code(status).expect_silent().expect_output("");
    }
}

fn death_by_signal(engine: Engine) {
    for signal in DEATHS {
        let run = Launch::nproxy(engine).words("peer die").arg(signal.as_str()).finish();
        run.expect_signal(signal).expect_silent();
        run.expect(!run.status.core_dumped(), "nproxy leaves no core file of its own");
        let code = Launch::nproxy(engine)
            .words("--signal-exit=code peer die")
            .arg(signal.as_str())
            .finish();
        code.expect_code(128 + signal as i32).expect_silent();
        let raise = Launch::nproxy(engine)
            .words("--signal-exit=raise peer die")
            .arg(signal.as_str())
            .finish();
        raise.expect_signal(signal).expect_silent();
    }
}

/// A parent that blocks or ignores the signal still sees the death: nproxy undoes both for the last moment.
fn death_by_a_blocked_or_ignored_signal(engine: Engine) {
    for signal in ["TERM", "INT", "PIPE"] {
        let run = Launch::peer("with")
            .arg(format!("ignore={signal}"))
            .arg(format!("block={signal}"))
            .arg("--")
            .args(["nproxy", "--engine", engine.name(), "peer", "die", signal])
            .finish();
        let signal = format!("SIG{signal}").parse::<Signal>().expect("name");
        run.expect_signal(signal).expect_silent();
    }
}

fn output_before_the_end_is_delivered(engine: Engine) {
    let run =
        Launch::nproxy(engine).args(["sh", "-c", "echo out; echo err >&2; kill -KILL $$"]).finish();
    run.expect_signal(Signal::SIGKILL).expect_output("out\n");
    run.expect(run.stderr.text() == "err\n", "stderr is the child's");
}

fn command_not_found(engine: Engine) {
    for (command, named) in [
        ("no-such-command-anywhere", "run no-such-command-anywhere: "),
        ("./no/such/path", "run ./no/such/path: "),
        ("", "run a command without a name: "),
    ] {
        let run = Launch::nproxy(engine).arg("--").arg(command).finish();
        run.expect_code(127).expect_one_line(&[named]).expect_output("");
    }
}

/// A directory that may not be searched hides whether the command is there: not found, not "found but not executable".
fn command_behind_a_closed_directory(engine: Engine) {
    // Root may search everything, unless it gives the right to away.
    let without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"];
    let mut prefix: &[&str] = &[];
    if nix::unistd::geteuid().is_root() {
        if !need(&[&without[..], &["true"]].concat()) {
            return;
        }
        prefix = &without;
    }
    let directory = tempdir().expect("directory");
    let closed = directory.path().join("closed");
    fs::create_dir(&closed).expect("mkdir");
    fs::set_permissions(&closed, PermissionsExt::from_mode(0o000)).expect("chmod");
    let path = format!("{}:/usr/bin:/bin", closed.display());
    let nproxy = crate::harness::nproxy_path().display().to_string();
    let run = |command: &str| {
        let words = [prefix, &[&nproxy, command]].concat();
        let launch = Launch::program(words[0]).args(&words[1..]);
        launch.env("PATH", &path).env("NPROXY_ENGINE", engine.name()).finish()
    };
    run("no-such-command-anywhere").expect_code(127).expect_one_line(&["no-such-command-anywhere"]);
    run("true").expect_code(0).expect_silent();
}

fn command_not_executable(engine: Engine) {
    let directory = tempdir().expect("directory");
    let plain = directory.path().join("plain");
    fs::write(&plain, "#!/bin/sh\n").expect("write");
    let broken = directory.path().join("broken");
    fs::write(&broken, "#!/no/such/interpreter\n").expect("write");
    fs::set_permissions(&broken, PermissionsExt::from_mode(0o755)).expect("chmod");
    let found = |path: &std::path::Path, code| {
        let run = Launch::nproxy(engine).arg(path).finish();
        run.expect_code(code).expect_one_line(&[&path.display().to_string()]).expect_output("");
    };
    found(&plain, 126);
    found(directory.path(), 126);
    // It is there; what is missing is its interpreter.
    found(&broken, 126);
    // Found through PATH, not executable, and nothing better later.
    let path = format!("{}:/usr/bin:/bin", directory.path().display());
    let run = Launch::nproxy(engine).arg("plain").env("PATH", path).finish();
    run.expect_code(126).expect_one_line(&["plain"]);
}

/// A shell runs it, as execvp(3) has it, with a command line that is longer by a word.
fn script_without_an_interpreter(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = directory.path().join("script");
    fs::write(&script, "echo $# ${100000}\n").expect("write");
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("chmod");
    let path = format!("{}:/usr/bin:/bin", directory.path().display());
    let words = (1..=100_000).map(|number| number.to_string());
    let run = Launch::nproxy(engine).arg("script").args(words).env("PATH", path).finish();
    run.expect_code(0).expect_silent().expect_output("100000 100000\n");
}

/// As pid 1 of a container: no signal can kill it, so the status is the number; and orphans are its to reap.
fn first_process_of_a_container(engine: Engine) {
    if !need(&["unshare", "-rpf", "--mount-proc", "true"]) {
        return;
    }
    let inside = |command: &[&str]| {
        let run = Launch::program("unshare")
            .args(["-rpf", "--mount-proc"])
            .arg(crate::harness::nproxy_path());
        run.args(["--engine", engine.name()]).args(command).finish()
    };
    inside(&["peer", "exit", "9"]).expect_code(9).expect_silent();
    inside(&["peer", "die", "TERM"]).expect_code(143).expect_silent();
    inside(&["peer", "die", "KILL"]).expect_code(137).expect_silent();
    // A copy's command is no orphan, whenever it ends.
    inside(&["--tee-strict", "--tee", "|cat >/dev/null", "peer", "exit", "9"])
        .expect_code(9)
        .expect_silent();
    // Orphans that end while the child runs are gone from the process table soon, and none is taken for the child.
    let script = "for i in 1 2 3 4 5; do (sh -c 'exit 3' >/dev/null &); done
        until set -- /proc/[0-9]*; [ $# = 2 ] && ! grep -q '^State:.Z' /proc/[0-9]*/status; do sleep 0.01; done
        echo reaped; exit 5";
    inside(&["bash", "-c", script]).expect_code(5).expect_silent().expect_output("reaped\n");
}

/// Where nproxy was started with SIGCHLD ignored, a copy's command has a status all the same.
fn a_copys_command_where_children_are_ignored(engine: Engine) {
    let copy = ["--tee-strict", "--tee", "|cat >/dev/null"];
    let run = Launch::program("peer").args(["with", "ignore=CHLD", "--", "nproxy", "--engine"]);
    let (source, writer) = std::io::pipe().expect("a pipe");
    std::io::Write::write_all(&mut &writer, b"through\n").expect("write");
    drop(writer);
    let run = run.arg(engine.name()).args(copy).stdin(source).finish();
    run.expect_code(0).expect_silent().expect_output("through\n");
}

/// Bad command lines are nproxy's own failure: 125, one line, nothing run.
#[test]
fn bad_command_lines() {
    for words in [
        "--no-such-flag true",
        "--engine=warp true",
        "--pipe-size=lots true",
        "--pipe-size=-1 true",
        "--linger=soon true",
        "--stdin=perhaps true",
        "--signal-exit=maybe true",
        "--stats=xml true",
        "--engine",
        "--linger=-1s true",
        "--coalesce -5 true",
        "--stats json true",
        "--attention=50 --pressure=40 true",
        "--memory-high=2M --memory-max=1M true",
        "--rlimit=nofile=much true",
    ] {
        let run = Launch::program(crate::harness::nproxy_path()).words(words).finish();
        run.expect_code(125).expect_output("");
        let text = run.stderr.text();
        run.expect(
            text.starts_with("nproxy: ") || text.starts_with("error: "),
            "a message that says what is wrong",
        );
        let named = words.split([' ', '=']).next().unwrap_or(words);
        run.expect(text.contains(named), &format!("the message names {named}"));
    }
    let run = Launch::program(crate::harness::nproxy_path())
        .words("peer exit 3")
        .env("NPROXY_ENGINE", "warp")
        .finish();
    run.expect_code(125).expect(run.stderr.text().contains("warp"), "the message names the value");
}

/// Without a command and with a terminal on stdin there is nothing to relay: usage, and 125.
#[test]
fn no_command_at_a_terminal() {
    let (_leader, follower) = raw_pair();
    let run = Launch::program(crate::harness::nproxy_path()).stdin(follower).finish();
    run.expect_code(125).expect_output("");
    run.expect(run.stderr.text().to_lowercase().contains("usage"), "usage on stderr");
}
