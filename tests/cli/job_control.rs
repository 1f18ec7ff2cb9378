//! At a real terminal, under an interactive bash: keys reach the child once, jobs stop and come back.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::{TempDir, tempdir};

use crate::harness::terminal::Terminal;
use crate::harness::{Engine, on_both_engines};
use crate::proc;

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_Z: &str = "\x1a";
const CTRL_BACKSLASH: &str = "\x1c";

/// A terminal whose shell runs `nproxy peer signals > log` in the foreground.
struct Witness {
    terminal: Terminal,
    log: PathBuf,
    nproxy: i32,
    _directory: TempDir,
}

impl Witness {
    #[track_caller]
    fn start(engine: Engine) -> Witness {
        let directory = tempdir().expect("directory");
        let log = directory.path().join("log");
        let mut terminal = Terminal::open(engine, directory.path());
        terminal.enter("nproxy peer signals > log");
        let nproxy = terminal.shell.process("nproxy peer signals");
        let witness = Witness { terminal, log, nproxy, _directory: directory };
        witness.wait_for("ready", 1);
        witness
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    #[track_caller]
    fn wait_for(&self, text: &str, times: usize) {
        let what = format!("{times} × {text} in the log");
        proc::until_or(
            &what,
            || (self.log().matches(text).count() >= times).then_some(()),
            || self.log(),
        );
    }

    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.nproxy), signal).expect("nproxy is alive");
    }

    /// Ends the witness through nproxy; the signals it got, in their order, with their senders.
    #[track_caller]
    fn end(mut self) -> Vec<String> {
        self.send(Signal::SIGUSR2);
        self.terminal.wait_for_prompt();
        let log = self.log();
        self.terminal.close();
        log.lines()
            .skip(1)
            .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
            .collect()
    }
}

on_both_engines![
    keys_reach_the_child_once,
    refused_stop,
    term_from_elsewhere_once,
    new_window_size_once,
    interrupted,
    stop_and_foreground,
    stop_and_background,
    pipeline_stops_and_continues,
    background_job_of_a_script,
];

/// The terminal sends INT to the whole foreground group. nproxy must not send it once more.
fn keys_reach_the_child_once(engine: Engine) {
    let mut witness = Witness::start(engine);
    let keys = [
        (CTRL_C, "INT"),
        (CTRL_BACKSLASH, "QUIT"),
        (CTRL_C, "INT"),
        (CTRL_Z, "TSTP"),
        (CTRL_C, "INT"),
    ];
    let mut counts = std::collections::HashMap::new();
    for (round, (key, name)) in keys.iter().enumerate() {
        let count = counts.entry(name).or_insert(0);
        *count += 1;
        witness.terminal.press(key);
        witness.wait_for(&format!("{name} kernel"), *count);
        // Through nproxy, and after what it would have forwarded.
        witness.send(Signal::SIGWINCH);
        witness.wait_for("WINCH process", round + 1);
    }
    let got: Vec<_> = witness.end().into_iter().filter(|line| !line.starts_with("WINCH")).collect();
    assert_eq!(
        got,
        ["INT kernel", "QUIT kernel", "INT kernel", "TSTP kernel", "INT kernel", "USR2 process"]
    );
}

/// A child that takes Ctrl-Z for itself goes on, and so does nproxy.
fn refused_stop(engine: Engine) {
    let mut witness = Witness::start(engine);
    witness.terminal.press(CTRL_Z);
    witness.wait_for("TSTP kernel", 1);
    witness.send(Signal::SIGWINCH);
    witness.wait_for("WINCH process", 1);
    assert_eq!(witness.end(), ["TSTP kernel", "WINCH process", "USR2 process"]);
}

fn term_from_elsewhere_once(engine: Engine) {
    let witness = Witness::start(engine);
    for round in 1..=3 {
        witness.send(Signal::SIGTERM);
        witness.wait_for("TERM", round);
    }
    assert_eq!(witness.end(), ["TERM process", "TERM process", "TERM process", "USR2 process"]);
}

fn new_window_size_once(engine: Engine) {
    let witness = Witness::start(engine);
    for round in 1..=3 {
        witness.terminal.resize(30 + round, 100);
        witness.wait_for("WINCH kernel", round.into());
        witness.send(Signal::SIGPWR);
        witness.wait_for("PWR process", round.into());
    }
    let got = witness.end();
    assert_eq!(got.iter().filter(|line| line.starts_with("WINCH")).count(), 3, "{got:?}");
}

/// The status that the shell sees is the one of the bare command: 130 for a death by Ctrl-C, the child's own for a
/// child that cleans up.
fn interrupted(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = Terminal::open(engine, directory.path());
    terminal.enter("nproxy sleep 61");
    let nproxy = terminal.shell.process("nproxy sleep 61");
    proc::only_child(nproxy);
    terminal.press(CTRL_C);
    terminal.wait_for_prompt();
    terminal.run("echo status=$?");
    terminal.screen.wait_for("status=130", 1);

    terminal.enter("nproxy bash -c 'trap \"sleep 0.2; echo cleaned; exit 5\" INT; echo rea''dy; while :; do sleep 0.02; done'");
    terminal.screen.wait_for("ready", 1);
    terminal.press(CTRL_C);
    terminal.wait_for_prompt();
    terminal.screen.wait_for("cleaned\r\n", 1);
    terminal.run("echo status=$?");
    terminal.screen.wait_for("status=5", 1);

    terminal.enter("yes | nproxy > /dev/null");
    terminal.shell.process("yes");
    terminal.shell.process("nproxy");
    terminal.press(CTRL_C);
    terminal.wait_for_prompt();
    terminal.close();
}

/// Ctrl-Z stops both, the shell gets its prompt, fg brings both back, and typed lines flow again.
fn stop_and_foreground(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = Terminal::open(engine, directory.path());
    terminal.enter("nproxy tr a-z A-Z");
    let nproxy = terminal.shell.process("nproxy tr");
    let child = proc::only_child(nproxy);
    for _ in 0..2 {
        terminal.press(CTRL_Z);
        terminal.wait_for_prompt();
        assert_eq!((proc::state(nproxy), proc::state(child)), ('T', 'T'));
        terminal.run("jobs");
        terminal.enter("fg");
        proc::until("both to go on", || {
            (proc::state(nproxy) != 'T' && proc::state(child) != 'T').then_some(())
        });
    }
    terminal.enter("typed after fg");
    terminal.press(CTRL_D);
    terminal.wait_for_prompt();
    terminal.screen.wait_for("TYPED AFTER FG", 1);
    terminal.run("echo status=$?");
    terminal.screen.wait_for("status=0", 1);
    assert!(
        terminal.screen.so_far().text().matches("Stopped").count() >= 4,
        "{}",
        terminal.screen.so_far()
    );
    terminal.close();
}

/// Continued in the background, a command goes on and its output comes.
fn stop_and_background(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = Terminal::open(engine, directory.path());
    terminal.enter("nproxy bash -c 'until [ -e go ]; do sleep 0.01; done; echo wo''ken'");
    let nproxy = terminal.shell.process("nproxy bash");
    let child = proc::only_child(nproxy);
    terminal.press(CTRL_Z);
    terminal.wait_for_prompt();
    assert_eq!((proc::state(nproxy), proc::state(child)), ('T', 'T'));
    terminal.run("bg");
    proc::until("both to go on", || {
        (proc::state(nproxy) != 'T' && proc::state(child) != 'T').then_some(())
    });
    terminal.enter("touch go; wait; echo status=$?");
    terminal.screen.wait_for("status=0", 1);
    terminal.screen.wait_for("woken", 1);
    terminal.wait_for_prompt();
    terminal.close();
}

/// A filter in the middle of a pipeline stops and continues with it.
fn pipeline_stops_and_continues(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = Terminal::open(engine, directory.path());
    terminal.enter("tr a-z A-Z | nproxy -q | cat");
    let nproxy = terminal.shell.process("nproxy -q");
    // Between fork and exec, the shell's own processes ignore the key.
    for command in ["tr a-z", "nproxy -q", "cat"] {
        let pid = terminal.shell.process(command);
        proc::until("the pipeline to wait for input", || (proc::state(pid) == 'S').then_some(()));
    }
    terminal.press(CTRL_Z);
    terminal.wait_for_prompt();
    assert_eq!(proc::state(nproxy), 'T');
    terminal.enter("fg");
    proc::until("nproxy to go on", || (proc::state(nproxy) != 'T').then_some(()));
    terminal.enter("through the pipeline");
    terminal.press(CTRL_D);
    terminal.wait_for_prompt();
    terminal.screen.wait_for("THROUGH THE PIPELINE", 1);
    terminal.close();
}

/// A background job of a script ignores INT and QUIT; the key reaches its group all the same, and must do nothing.
fn background_job_of_a_script(engine: Engine) {
    let script =
        "nproxy bash -c 'until [ -e go ]; do sleep 0.01; done; echo survived; exit 4' > out & wait";
    for key in [CTRL_C, CTRL_BACKSLASH] {
        let directory = tempdir().expect("directory");
        fs::write(directory.path().join("script"), script).expect("write");
        let mut terminal = Terminal::open(engine, directory.path());
        terminal.enter("sh script");
        let nproxy = terminal.shell.process("nproxy bash");
        let child = proc::only_child(nproxy);
        terminal.press(key);
        // sh dies of it, which tells that the group has got it.
        terminal.wait_for_prompt();
        terminal.run("touch go");
        let out = directory.path().join("out");
        proc::until_or(
            "the job's output",
            || (fs::read_to_string(&out).ok()? == "survived\n").then_some(()),
            || format!("{}; {}", proc::describe(nproxy), proc::describe(child)),
        );
        proc::until("its end", || matches!(proc::state(nproxy), 'X' | 'Z').then_some(()));
        terminal.close();
    }
}
