//! `stty -a` before and after are the same, whatever ended the run, and nothing is left behind.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Engine, on_both_engines};
use crate::proc;
use crate::terminal::console::{CTRL_BACKSLASH, CTRL_C, CTRL_D, Console};

on_both_engines![
    after_signals_to_nproxy,
    after_signals_to_the_child,
    after_keys,
    after_the_end_of_the_monitor,
    after_the_end_of_the_monitor_during_a_stop,
    after_a_failing_exec,
    after_an_end_of_its_own,
    left_as_the_child_leaves_them,
];

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("it is alive");
}

#[track_caller]
fn assert_restored(console: &Console) {
    assert_eq!(console.modes(), console.before, "{}", console.text());
}

fn after_signals_to_nproxy(engine: Engine) {
    for end in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
        let console = Console::nproxy(engine, &["cat"]);
        console.wait_until_started();
        signal(console.run.pid(), end);
        let keys = console.keys.try_clone().expect("dup");
        let before = console.before.clone();
        let ended = console.run.finish();
        ended.expect_signal(end).expect(ended.left.is_empty(), "left processes behind");
        assert_eq!(nix::sys::termios::tcgetattr(&keys), Ok(before));
    }
    // One that says that nproxy itself is at fault, while the modes are the child's.
    let mut console = Console::nproxy(engine, &["sh", "-c", "stty raw -echo; cat"]);
    crate::proc::until("raw mode", || (console.modes() != console.before).then_some(()));
    signal(console.run.pid(), Signal::SIGSEGV);
    console.wait_for_end();
    assert_restored(&console);
}

fn after_signals_to_the_child(engine: Engine) {
    for end in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut console = Console::nproxy(engine, &["cat"]);
        let (_, child) = console.wait_until_started();
        signal(child, end);
        console.wait_for_end();
        assert_restored(&console);
    }
}

fn after_keys(engine: Engine) {
    for key in [CTRL_C, CTRL_BACKSLASH, CTRL_D] {
        let mut console = Console::nproxy(engine, &["cat"]);
        console.wait_until_started();
        console.press(key);
        console.wait_for_end();
        assert_restored(&console);
    }
}

fn after_the_end_of_the_monitor(engine: Engine) {
    let mut console = Console::nproxy(engine, &["sh", "-c", "echo begun; exec cat"]);
    let (monitor, _) = console.wait_until_started();
    // What has come through nproxy shows that it has heard of the start.
    console.screen.wait_for("begun\r\n", 1);
    signal(monitor, Signal::SIGKILL);
    console.wait_for_end();
    assert_restored(&console);
    console.screen.wait_for("nproxy: follow the child: its monitor process has died\r\n", 1);
    console.run.finish().expect_code(125);
}

/// Nothing tells of it while nproxy is stopped: it sees that as soon as it goes on.
fn after_the_end_of_the_monitor_during_a_stop(engine: Engine) {
    let mut console = Console::nproxy(engine, &["sh", "-c", "echo begun; exec cat"]);
    let (monitor, _) = console.wait_until_started();
    console.screen.wait_for("begun\r\n", 1);
    let nproxy = console.run.pid();
    signal(nproxy, Signal::SIGSTOP);
    proc::until("the stop", || (proc::state(nproxy) == 'T').then_some(()));
    signal(monitor, Signal::SIGKILL);
    proc::until("the monitor's end", || (proc::state(monitor) == 'Z').then_some(()));
    signal(nproxy, Signal::SIGCONT);
    console.wait_for_end();
    assert_restored(&console);
    console.screen.wait_for("nproxy: follow the child: its monitor process has died\r\n", 1);
    console.run.finish().expect_code(125);
}

fn after_a_failing_exec(engine: Engine) {
    let cases = [
        ("/etc/passwd", 126, "nproxy: run /etc/passwd: Permission denied\r\n"),
        ("no-such-command", 127, "nproxy: run no-such-command: No such file or directory\r\n"),
    ];
    for (command, status, message) in cases {
        let mut console = Console::nproxy(engine, &[command]);
        console.wait_for_end();
        assert_restored(&console);
        console.screen.wait_for(message, 1);
        assert_eq!(console.text(), message);
        console.run.finish().expect_code(status);
    }
}

fn after_an_end_of_its_own(engine: Engine) {
    // The last one takes care of the terminal at its end, as an editor does.
    let editor = "old=$(stty -g); stty raw -echo; stty $old; exit 3";
    for (script, status) in [("exit 0", 0), ("exit 42", 42), (editor, 3)] {
        let mut console = Console::nproxy(engine, &["sh", "-c", script]);
        console.wait_for_end();
        assert_restored(&console);
        console.run.finish().expect_code(status);
    }
}

/// stty(1) changes the terminal that it is run on; wrapped, it still does.
fn left_as_the_child_leaves_them(engine: Engine) {
    use nix::sys::termios::LocalFlags;
    let mut console = Console::nproxy(engine, &["sh", "-c", "read line; stty -echo"]);
    console.wait_until_started();
    console.press("\n");
    console.wait_for_end();
    let (before, after) = (console.before.local_flags, console.modes().local_flags);
    assert_eq!(after, before - LocalFlags::ECHO, "{}", console.text());
    console.run.finish().expect_code(0);
}
