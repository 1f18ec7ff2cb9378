//! Signals from elsewhere reach the child exactly once, and stopping, continuing and dying look as without nproxy.
//!
//! That something was *not* forwarded is proved by a later signal that was: nproxy takes pending signals in the order
//! of their numbers, so a sentinel with a higher number arrives after everything that was sent before it.

use std::fs;
use std::io::Write;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::tempdir;

use crate::harness::{Engine, Launch, Running, need, on_both_engines};
use crate::proc;

/// `nproxy peer signals`, ready to receive; the child's pid with it.
#[track_caller]
fn witness(launch: Launch) -> (Running, i32) {
    let run = launch.words("peer signals").start();
    run.stdout.as_ref().expect("captured").wait_for("ready ", 1);
    let text = run.stdout.as_ref().expect("captured").so_far().text();
    let pid = text["ready ".len()..].trim().parse().expect("the witness's pid");
    (run, pid)
}

/// Ends the witness and gives the names of the signals that it got, in their order, USR2 last.
#[track_caller]
fn end_of_witness(run: Running) -> Vec<String> {
    run.signal(Signal::SIGUSR2);
    let run = run.finish();
    run.expect_code(0).expect_silent();
    let text = run.stdout.text();
    text.lines().skip(1).map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
}

#[track_caller]
fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal)
        .unwrap_or_else(|error| panic!("{signal} to {}: {error}", proc::describe(pid)));
}

#[track_caller]
fn wait_for_state(pid: i32, states: &str) {
    let what = format!("state {states}");
    proc::until_or(
        &what,
        || states.contains(proc::state(pid)).then_some(()),
        || proc::describe(pid),
    );
}

const RUNNING: &str = "RSD";

on_both_engines![
    forwarded_once,
    rarer_signals_forwarded_once,
    death_of_the_child,
    child_that_handles_its_signal,
    ignored_signals_stay_ignored,
    child_stopped_from_elsewhere,
    stopped_and_continued,
    orphaned_group_does_not_stop,
    end_and_signal_at_once,
    forged_child_signal,
    signal_after_the_child,
    group,
    filter,
    a_timer_from_before_exec,
];

fn forwarded_once(engine: Engine) {
    use Signal::*;
    let sent = [SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGWINCH, SIGCONT, SIGTSTP, SIGALRM];
    let (run, _) = witness(Launch::nproxy(engine));
    for signal in sent {
        run.signal(signal);
        // Signals that merge while pending would hide a second one.
        run.stdout
            .as_ref()
            .expect("captured")
            .wait_for(&format!("\n{} ", &signal.as_str()[3..]), 1);
    }
    let got = end_of_witness(run);
    let expected: Vec<_> =
        sent.iter().chain([&SIGUSR2]).map(|signal| signal.as_str()[3..].to_owned()).collect();
    assert_eq!(got, expected);
}

/// The rest that can be forwarded, real-time signals included.
fn rarer_signals_forwarded_once(engine: Engine) {
    let (run, _) = witness(Launch::nproxy(engine));
    for name in ["VTALRM", "PROF", "IO", "PWR", "URG", "XCPU", "XFSZ", "RTMIN+3"] {
        Launch::program("bash")
            .args(["-c", &format!("kill -{name} {}", run.pid())])
            .finish()
            .expect_code(0);
        let line = if name == "RTMIN+3" { "\n37 ".to_owned() } else { format!("\n{name} ") };
        run.stdout.as_ref().expect("captured").wait_for(&line, 1);
    }
    assert_eq!(end_of_witness(run).len(), 9);
}

/// The child dies of what it does not handle, and nproxy after it; the other processes stay out of it.
fn death_of_the_child(engine: Engine) {
    for signal in
        [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGALRM]
    {
        let run = Launch::nproxy(engine).words("sleep 60").start();
        proc::only_child(run.pid());
        run.signal(signal);
        let run = run.finish();
        run.expect_signal(signal).expect_silent().expect(run.left.is_empty(), "the child is gone");
    }
}

/// A child that cleans up and ends on its own terms has its last words and its status.
fn child_that_handles_its_signal(engine: Engine) {
    let script = "trap 'echo cleaning; exit 3' TERM; echo ready; while :; do sleep 0.01; done";
    let run = Launch::nproxy(engine).args(["bash", "-c", script]).start();
    run.stdout.as_ref().expect("captured").wait_for("ready\n", 1);
    run.signal(Signal::SIGTERM);
    run.finish().expect_code(3).expect_silent().expect_output("ready\ncleaning\n");
}

/// INT and QUIT ignored from the start, as for a background job of a script: nproxy ignores them too.
fn ignored_signals_stay_ignored(engine: Engine) {
    for command in ["cat", ""] {
        let (source, _keyboard) = std::io::pipe().expect("pipe");
        let run = Launch::peer("with")
            .words("ignore=INT ignore=QUIT -- nproxy --engine")
            .arg(engine.name())
            .words(command)
            .stdin(source)
            .start();
        if command.is_empty() {
            proc::until("nproxy", || {
                proc::command_line(run.pid()).starts_with("nproxy").then_some(())
            });
            wait_for_state(run.pid(), "S");
        } else {
            proc::until("cat", || {
                proc::children(run.pid()).into_iter().find(|pid| proc::command_line(*pid) == "cat")
            });
        }
        run.signal(Signal::SIGINT);
        run.signal(Signal::SIGQUIT);
        run.signal(Signal::SIGUSR1);
        // Not of INT, which came first.
        run.finish().expect_signal(Signal::SIGUSR1).expect_silent();
    }
}

/// Who stops the child stops nproxy with it, and who continues nproxy continues the child.
fn child_stopped_from_elsewhere(engine: Engine) {
    let (run, child) = witness(Launch::nproxy(engine));
    for round in 1..=3 {
        send(child, Signal::SIGSTOP);
        wait_for_state(child, "T");
        wait_for_state(run.pid(), "T");
        run.signal(Signal::SIGCONT);
        run.stdout.as_ref().expect("captured").wait_for("\nCONT ", round);
        wait_for_state(run.pid(), RUNNING);
    }
    let got = end_of_witness(run);
    assert_eq!(got, ["CONT", "CONT", "CONT", "USR2"]);
}

/// TSTP to nproxy stops child and nproxy, CONT resumes both, and bytes flow again.
fn stopped_and_continued(engine: Engine) {
    let (source, mut keyboard) = std::io::pipe().expect("pipe");
    let run = Launch::nproxy(engine).words("cat").stdin(source).start();
    let child = proc::only_child(run.pid());
    for round in 1..=3 {
        writeln!(keyboard, "line").expect("line");
        run.stdout.as_ref().expect("captured").wait_for("line\n", round);
        run.signal(Signal::SIGTSTP);
        wait_for_state(child, "T");
        wait_for_state(run.pid(), "T");
        run.signal(Signal::SIGCONT);
        wait_for_state(child, RUNNING);
        wait_for_state(run.pid(), RUNNING);
    }
    drop(keyboard);
    run.finish().expect_code(0).expect_silent().expect_output("line\nline\nline\n");
}

/// In an orphaned group nobody could continue nproxy, so it must not stop with its child.
fn orphaned_group_does_not_stop(engine: Engine) {
    let launch = Launch::peer("with").words("setsid -- nproxy --engine").arg(engine.name());
    let (run, child) = witness(launch.in_our_group());
    send(child, Signal::SIGSTOP);
    wait_for_state(child, "T");
    // The proof that nproxy runs on: it forwards a signal, which waits in the stopped child. WINCH has a higher
    // number than CHLD, so nproxy has seen the stop by then.
    run.signal(Signal::SIGWINCH);
    let winch = 1 << (Signal::SIGWINCH as i32 - 1);
    proc::until_or(
        "WINCH pending in the stopped child",
        || (proc::signal_set(child, "ShdPnd") & winch != 0).then_some(()),
        || proc::describe(run.pid()),
    );
    assert!(RUNNING.contains(proc::state(run.pid())), "{}", proc::describe(run.pid()));
    send(child, Signal::SIGCONT);
    run.stdout.as_ref().expect("captured").wait_for("\nWINCH ", 1);
    let mut got = end_of_witness(run);
    got.retain(|name| name != "CONT");
    assert_eq!(got, ["WINCH", "USR2"]);
}

/// The child's end and a TERM at the same moment, in every order: the child's status or the death, never a hang,
/// never anything else.
fn end_and_signal_at_once(engine: Engine) {
    for round in 0..60 {
        let run = Launch::nproxy(engine).words("peer exit 3").start();
        // From before the spawn to after the end.
        std::thread::sleep(std::time::Duration::from_micros(round * 100));
        run.signal(Signal::SIGTERM);
        let run = run.finish();
        let died = std::os::unix::process::ExitStatusExt::signal(&run.status)
            == Some(Signal::SIGTERM as i32);
        run.expect(died || run.status.code() == Some(3), "the child's status or its death")
            .expect_silent();
        run.expect(run.left.is_empty(), "nothing is left");
    }
}

/// A SIGCHLD that somebody sent says nothing about the child.
fn forged_child_signal(engine: Engine) {
    let (run, _) = witness(Launch::nproxy(engine));
    run.signal(Signal::SIGCHLD);
    run.signal(Signal::SIGWINCH);
    run.stdout.as_ref().expect("captured").wait_for("\nWINCH ", 1);
    let mut got = end_of_witness(run);
    got.retain(|name| name != "CHLD");
    assert_eq!(got, ["WINCH", "USR2"]);
}

/// With the child gone and a holder waited for, TERM is nproxy's own: it ends, and signals nobody.
fn signal_after_the_child(engine: Engine) {
    let run = Launch::nproxy(engine)
        .args(["--linger=eof", "bash", "-c", "peer signals & exit 3"])
        .start();
    run.stdout.as_ref().expect("captured").wait_for("ready", 1);
    proc::until("the child to be gone", || (run.processes().len() == 2).then_some(()));
    // One that comes while nproxy is just learning of the child's end was the child's, and is void.
    proc::until("nproxy to end by it", || {
        run.signal(Signal::SIGTERM);
        matches!(proc::state(run.pid()), 'Z' | 'X').then_some(())
    });
    let run = run.finish();
    run.expect(!run.stdout.text().contains("TERM"), "the grandchild got nothing");
    run.expect(run.left.len() == 1, "the grandchild lives");
}

/// --group reaches grandchildren, once each; the default reaches the child alone.
fn group(engine: Engine) {
    let script =
        "trap 'echo got' USR1; peer signals > a & peer signals > b & until wait; do :; done";
    for (flags, copies) in [("-q", 0), ("--group", 1)] {
        let directory = tempdir().expect("directory");
        let files = ["a", "b"].map(|name| directory.path().join(name));
        let read = |which: usize| fs::read_to_string(&files[which]).unwrap_or_default();
        let run = Launch::nproxy(engine)
            .words(flags)
            .args(["bash", "-c", script])
            .directory(directory.path())
            .start();
        for which in 0..files.len() {
            proc::until("the witness", || read(which).contains("ready").then_some(()));
        }
        run.signal(Signal::SIGUSR1);
        run.stdout.as_ref().expect("captured").wait_for("got\n", 1);
        for which in 0..files.len() {
            let pid = read(which)["ready ".len()..]
                .lines()
                .next()
                .and_then(|line| line.parse().ok())
                .expect("pid");
            send(pid, Signal::SIGUSR2);
            proc::until("its end", || read(which).contains("USR2").then_some(()));
            assert_eq!(
                read(which).matches("USR1").count(),
                copies,
                "with {flags}: {}",
                read(which)
            );
        }
        run.finish().expect_code(0).expect_silent().expect_output("got\n");
    }
}

/// A filter has no child: signals are its own, as they are cat's.
fn filter(engine: Engine) {
    for signal in
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1]
    {
        let (run, keyboard) = started_filter(engine);
        run.signal(signal);
        run.finish().expect_signal(signal).expect_silent();
        drop(keyboard);
    }
    let (run, mut keyboard) = started_filter(engine);
    run.signal(Signal::SIGWINCH);
    run.signal(Signal::SIGTSTP);
    wait_for_state(run.pid(), "T");
    run.signal(Signal::SIGCONT);
    wait_for_state(run.pid(), RUNNING);
    writeln!(keyboard, "more").expect("line");
    drop(keyboard);
    run.finish().expect_code(0).expect_silent().expect_output("line\nmore\n");
}

/// A filter through which a first line has passed.
fn started_filter(engine: Engine) -> (Running, std::io::PipeWriter) {
    let (source, mut keyboard) = std::io::pipe().expect("pipe");
    let run = Launch::nproxy(engine).stdin(source).start();
    writeln!(keyboard, "line").expect("line");
    run.stdout.as_ref().expect("captured").wait_for("line\n", 1);
    (run, keyboard)
}

/// An alarm(2) survives exec(2) but not fork(2): the child never had it, and it is not the terminal's doing.
fn a_timer_from_before_exec(engine: Engine) {
    if !need(&["perl", "-e", "1"]) {
        return;
    }
    Launch::shell(engine, "exec perl -e 'alarm 1; exec @ARGV' nproxy sleep 60")
        .finish()
        .expect_signal(Signal::SIGALRM)
        .expect_silent();
}
