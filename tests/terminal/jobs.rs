//! Under an interactive shell: the command's group is stopped and continued with nproxy's job.

use std::path::Path;

use tempfile::tempdir;

use crate::harness::terminal::Terminal;
use crate::harness::{Engine, on_both_engines};
use crate::proc::{self, Ran};
use crate::terminal::console::{CTRL_BACKSLASH, CTRL_C, CTRL_D, CTRL_Z};

on_both_engines![
    stop_and_foreground,
    stop_and_background,
    started_in_the_background,
    background_without_the_terminal,
    inner_shell_has_jobs_of_its_own,
    killed_by_keys,
    stopped_without_notice,
    time_limit,
    keys_reach_the_script_around,
    a_script_around_stops_and_goes_on,
    somebody_elses_signal_stays_the_commands,
    nobody_can_give_it_the_terminal,
];

fn open(engine: Engine, directory: &Path) -> Terminal {
    Terminal::open_with(engine, directory, "auto", "--noediting")
}

/// The child of the monitor of a running nproxy.
#[track_caller]
fn grandchild(nproxy: i32) -> i32 {
    let monitor = proc::until("a monitor", || proc::children(nproxy).first().copied());
    proc::only_child(monitor)
}

#[track_caller]
fn wait_for_states(pids: &[i32], stopped: bool) {
    proc::until_or(
        "both to stop or go on",
        || pids.iter().all(|pid| (proc::state(*pid) == 'T') == stopped).then_some(()),
        || pids.iter().copied().map(proc::describe).collect::<Vec<_>>().join("; "),
    );
}

fn stop_and_foreground(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = open(engine, directory.path());
    let before = terminal.modes();
    terminal.enter("nproxy tr a-z A-Z");
    let nproxy = terminal.shell.process("nproxy tr");
    let both = [nproxy, grandchild(nproxy)];
    for round in 1..=2 {
        terminal.press(CTRL_Z);
        terminal.wait_for_prompt();
        wait_for_states(&both, true);
        assert_eq!(terminal.modes(), before);
        terminal.run("jobs");
        terminal.screen.wait_for("Stopped", 2 * round);
        terminal.enter("fg");
        wait_for_states(&both, false);
    }
    terminal.enter("typed after fg");
    terminal.press(CTRL_D);
    terminal.wait_for_prompt();
    terminal.screen.wait_for("TYPED AFTER FG", 1);
    terminal.run("echo status=$?");
    terminal.screen.wait_for("status=0", 1);
    assert_eq!(terminal.modes(), before);
    terminal.close();
}

fn stop_and_background(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = open(engine, directory.path());
    terminal.enter("nproxy bash -c 'until [ -e go ]; do sleep 0.01; done; echo wo''ken'");
    let nproxy = terminal.shell.process("nproxy bash");
    let both = [nproxy, grandchild(nproxy)];
    terminal.press(CTRL_Z);
    terminal.wait_for_prompt();
    wait_for_states(&both, true);
    terminal.run("bg");
    wait_for_states(&both, false);
    terminal.enter("touch go; wait; echo status=$?");
    terminal.screen.wait_for("status=0", 1);
    terminal.screen.wait_for("woken", 1);
    terminal.wait_for_prompt();
    terminal.close();
}

/// A reader in the background stops, as the bare one does; in the foreground it gets its lines, with their echo,
/// although the shell's line editor had set modes of its own when nproxy started.
fn started_in_the_background(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = Terminal::open_with(engine, directory.path(), "auto", "--norc");
    terminal.run("nproxy tr a-z A-Z &");
    let nproxy = terminal.shell.process("nproxy tr");
    let both = [nproxy, grandchild(nproxy)];
    wait_for_states(&both, true);
    for round in 1..=2 {
        terminal.enter("fg");
        wait_for_states(&both, false);
        terminal.enter("echo and line");
        terminal.screen.wait_for("echo and line", round);
        terminal.screen.wait_for("ECHO AND LINE", round);
        terminal.press(CTRL_Z);
        terminal.wait_for_prompt();
        wait_for_states(&both, true);
        terminal.run("bg");
        // It reads again, in the background.
        wait_for_states(&both, true);
    }
    let before = Ran::of(nproxy);
    terminal.run("sleep 0.3");
    let spent = before.busy_since();
    assert!(spent.as_millis() < 20, "{spent:?} of CPU while stopped");
    terminal.enter("fg");
    wait_for_states(&both, false);
    terminal.press(CTRL_D);
    terminal.wait_for_prompt();
    terminal.run("echo status=$?");
    terminal.screen.wait_for("status=0", 1);
    terminal.close();
}

/// What does not read runs on in the background, and Ctrl-C ends it once it is in the foreground.
fn background_without_the_terminal(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = open(engine, directory.path());
    terminal.run("nproxy sleep 65 &");
    let nproxy = terminal.shell.process("nproxy sleep");
    let both = [nproxy, grandchild(nproxy)];
    let before = Ran::of(nproxy);
    terminal.run("sleep 0.3");
    wait_for_states(&both, false);
    let spent = before.busy_since();
    assert!(spent.as_millis() < 20, "{spent:?} of CPU in the background");
    terminal.enter("fg");
    terminal.screen.wait_for("nproxy sleep 65\r\n", 1);
    // The shell hands the terminal over after it has said so.
    proc::until("the foreground", || (terminal.foreground() == nproxy).then_some(()));
    terminal.press(CTRL_C);
    terminal.wait_for_prompt();
    terminal.screen.wait_for("^C", 1);
    terminal.run("echo status=$?");
    terminal.screen.wait_for("status=130", 1);
    terminal.close();
}

fn inner_shell_has_jobs_of_its_own(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = open(engine, directory.path());
    terminal.run("nproxy bash --norc --noprofile --noediting");
    terminal.enter("sleep 66");
    let sleeper = terminal.shell.process("sleep 66");
    terminal.press(CTRL_Z);
    terminal.wait_for_prompt();
    assert_eq!(proc::state(sleeper), 'T');
    terminal.screen.wait_for("Stopped", 1);
    terminal.enter("fg");
    proc::until("it to go on", || (proc::state(sleeper) != 'T').then_some(()));
    terminal.press(CTRL_C);
    terminal.wait_for_prompt();
    terminal.run("echo inner=$?");
    terminal.screen.wait_for("inner=130", 1);
    terminal.run("exit 3");
    terminal.run("echo status=$?");
    terminal.screen.wait_for("status=3", 1);
    terminal.close();
}

fn killed_by_keys(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = open(engine, directory.path());
    for (key, status) in [(CTRL_C, 130), (CTRL_BACKSLASH, 131)] {
        terminal.enter(&format!("ulimit -c 0; nproxy sleep {status}"));
        let nproxy = terminal.shell.process(&format!("nproxy sleep {status}"));
        grandchild(nproxy);
        terminal.press(key);
        terminal.wait_for_prompt();
        terminal.run("echo status=$?");
        terminal.screen.wait_for(&format!("status={status}"), 1);
    }
    terminal.close();
}

/// SIGSTOP leaves nproxy no time to give the terminal back. The shell sets its own modes; after fg all is well.
fn stopped_without_notice(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = open(engine, directory.path());
    terminal.enter("nproxy tr a-z A-Z");
    let nproxy = terminal.shell.process("nproxy tr");
    grandchild(nproxy);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(nproxy), nix::sys::signal::SIGSTOP)
        .expect("alive");
    terminal.wait_for_prompt();
    terminal.run("stty sane; stty echo");
    terminal.enter("fg");
    proc::until("it to go on", || (proc::state(nproxy) != 'T').then_some(()));
    terminal.enter("after fg");
    terminal.screen.wait_for("AFTER FG", 1);
    terminal.press(CTRL_D);
    terminal.wait_for_prompt();
    terminal.run("echo status=$?");
    terminal.screen.wait_for("status=0", 1);
    terminal.close();
}

/// timeout(1) sends TERM and CONT to a command that it may have put into the background.
fn time_limit(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = open(engine, directory.path());
    let before = terminal.modes();
    terminal.run("timeout 0.3 nproxy cat; echo status=$?");
    terminal.screen.wait_for("status=124", 1);
    terminal.run("sh -c 'timeout 0.3 nproxy cat; echo sta''tus=$?'");
    terminal.screen.wait_for("status=124", 2);
    assert_eq!(terminal.modes(), before);
    terminal.close();
}

/// A script that runs nproxy again and again, until it is interrupted.
fn script_around(directory: &Path, trap: &str) {
    let script =
        format!("{trap}\nfor i in 1 2 3; do nproxy tail -f /dev/null; echo went on; done\n");
    std::fs::write(directory.join("script"), script).expect("write");
}

/// A key interrupts the script as well.
fn keys_reach_the_script_around(engine: Engine) {
    let traps =
        [("", "status=130"), ("trap 'exit 9' INT", "status=9"), ("trap '' QUIT", "status=130")];
    for (trap, status) in traps {
        for shell in ["bash", "sh"] {
            let directory = tempdir().expect("directory");
            script_around(directory.path(), trap);
            let mut terminal = open(engine, directory.path());
            let before = terminal.modes();
            terminal.enter(&format!("{shell} script"));
            let nproxy = terminal.shell.process("nproxy tail");
            grandchild(nproxy);
            terminal.press(CTRL_C);
            terminal.wait_for_prompt();
            terminal.run("echo status=$?");
            terminal.screen.wait_for(status, 1);
            assert!(!terminal.screen.so_far().text().contains("went on"));
            assert_eq!(terminal.modes(), before);
            terminal.close();
        }
    }
}

fn a_script_around_stops_and_goes_on(engine: Engine) {
    let directory = tempdir().expect("directory");
    script_around(directory.path(), "");
    let mut terminal = open(engine, directory.path());
    let before = terminal.modes();
    terminal.enter("sh script");
    let nproxy = terminal.shell.process("nproxy tail");
    let all = [terminal.shell.process("sh script"), nproxy, grandchild(nproxy)];
    for round in 1..=2 {
        terminal.press(CTRL_Z);
        terminal.wait_for_prompt();
        wait_for_states(&all, true);
        terminal.run("jobs");
        terminal.screen.wait_for("Stopped", 2 * round);
        terminal.enter("fg");
        wait_for_states(&all, false);
    }
    terminal.press(CTRL_C);
    terminal.wait_for_prompt();
    assert_eq!(terminal.modes(), before);
    terminal.close();
}

/// The same death without a key: the script goes on, as it would with the bare command.
fn somebody_elses_signal_stays_the_commands(engine: Engine) {
    let directory = tempdir().expect("directory");
    script_around(directory.path(), "");
    let mut terminal = open(engine, directory.path());
    terminal.enter("sh script");
    for round in 1..=2 {
        let nproxy = terminal.shell.process("nproxy tail");
        grandchild(nproxy);
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(nproxy),
            nix::sys::signal::Signal::SIGINT,
        )
        .expect("kill");
        terminal.screen.wait_for("went on", round);
    }
    terminal.shell.process("nproxy tail");
    terminal.press(CTRL_C);
    terminal.wait_for_prompt();
    terminal.close();
}

/// In the background of a terminal, and no shell is left that could put it in front: a reader gets an error there, also
/// one that does not mind to be told of a hang-up, and nproxy does not continue it for ever.
fn nobody_can_give_it_the_terminal(engine: Engine) {
    for wrapper in ["", "nproxy "] {
        let directory = tempdir().expect("directory");
        let mut terminal = open(engine, directory.path());
        let script = "trap '' HUP; until [ -e go ]; do sleep 0.01; done; read x; echo read=$? > said; mv said ended";
        std::fs::write(directory.path().join("reader"), script).expect("script");
        terminal.run(&format!("bash -mc '{wrapper}bash reader & exit'"));
        let outer = terminal.shell.process(&format!("{wrapper}bash reader"));
        // Its parent was the shell that has gone.
        proc::until("an orphan", || {
            (proc::parent(outer) != Some(terminal.shell.pid())).then_some(())
        });
        std::fs::write(directory.path().join("go"), "").expect("go");
        let ended =
            proc::until("its end", || std::fs::read_to_string(directory.path().join("ended")).ok());
        assert_eq!(ended, "read=1\n");
        proc::until("nothing to be left", || matches!(proc::state(outer), 'X' | 'Z').then_some(()));
        terminal.close();
    }
}
