//! What is typed, what is shown of it, how large the terminal is; and the terminal that goes away.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use tempfile::tempdir;

use crate::harness::terminal::{Terminal, open_leader};
use crate::harness::{Engine, Launch, Running, on_both_engines, peer_path};
use crate::proc;
use crate::terminal::console::{CTRL_C, CTRL_D, CTRL_Q, CTRL_S, Console};

on_both_engines![
    passwords_are_not_shown,
    pasted_text_is_what_the_bare_terminal_keeps,
    sizes_are_passed_on_once,
    pause_stops_output_only,
    idle_costs_nothing,
    terminal_lost,
    a_hang_up_of_hidden_output_leaves_nothing_to_watch,
    notices_come_again_once_modes_are_as_before,
    typed_ahead_for_the_shell,
    streams_that_are_the_terminal,
    interrupted_after_the_end_of_the_command,
    heartbeat_beside_a_reader,
];

fn passwords_are_not_shown(engine: Engine) {
    let script = "stty -echo; printf 'password: '; read word; stty echo; echo; echo got $word";
    let mut console = Console::nproxy(engine, &["sh", "-c", script]);
    console.screen.wait_for("password: ", 1);
    console.press("secret\n");
    console.screen.wait_for("got secret\r\n", 1);
    assert_eq!(console.text(), "password: \r\ngot secret\r\n");
    console.run.finish().expect_code(0);
}

/// 64 KiB in lines, and one line that is longer than a terminal's line can be.
fn pasted_text_is_what_the_bare_terminal_keeps(engine: Engine) {
    let directory = tempdir().expect("directory");
    let lines: String = (0..2048).map(|row| format!("{row:030}\n")).collect();
    let long = "x".repeat(6000) + "\n";
    for (name, text) in [("lines", lines), ("long", long)] {
        let kept = |console: &mut Console, file: &str| {
            proc::until("the reader", || {
                let path = directory.path().join(file);
                path.exists().then_some(())
            });
            console.press(&text);
            console.press(CTRL_D);
            console.wait_for_end();
            fs::read(directory.path().join(file)).expect("what was kept")
        };
        let path = |file: &str| format!("cat > {}", directory.path().join(file).display());
        let bare = format!("{name}.bare");
        let ours = format!("{name}.nproxy");
        let mut console = Console::bare(&["sh", "-c", &path(&bare)]);
        let expected = kept(&mut console, &bare);
        let mut console = Console::nproxy(engine, &["sh", "-c", &path(&ours)]);
        console.wait_until_started();
        let got = kept(&mut console, &ours);
        assert_eq!(got.len(), expected.len(), "{name}");
        assert!(got == expected, "{name}");
    }
}

/// One signal for each new size, and none where there is no new one.
fn sizes_are_passed_on_once(engine: Engine) {
    let mut console =
        Console::nproxy(engine, &["sh", "-c", "stty size; while :; do read x; stty size; done"]);
    console.wait_until_started();
    console.screen.wait_for("25 81\r\n", 1);
    for row in 30..=33 {
        console.resize(row, 90);
        proc::until("the new size", || {
            console.press("\n");
            std::thread::sleep(Duration::from_millis(10));
            console.text().contains(&format!("{row} 90\r\n")).then_some(())
        });
    }
    let console = Console::nproxy(engine, &["peer", "signals"]);
    console.wait_until_started();
    console.screen.wait_for("ready", 1);
    for row in 30..=33 {
        console.resize(row, 90);
        console.screen.wait_for("WINCH kernel", usize::from(row) - 29);
    }
    console.resize(33, 90);
    for end in [nix::sys::signal::SIGUSR1, nix::sys::signal::SIGUSR2] {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(console.run.pid()), end).expect("alive");
    }
    let screen = console.screen;
    console.run.finish().expect_code(0);
    let text = screen.so_far().text();
    assert_eq!(text.matches("WINCH").count(), 4, "{text}");
    assert_eq!(text.matches("USR1").count(), 1, "{text}");
}

/// Waits until nothing has been written for a while; how much it was until then.
#[track_caller]
fn wait_for_pause(console: &Console) -> u64 {
    let mut last = (0, std::time::Instant::now());
    proc::until("the output to pause", || {
        let now = console.screen.so_far().digest.bytes;
        if now != last.0 {
            last = (now, std::time::Instant::now());
        }
        (last.1.elapsed() > Duration::from_millis(300)).then_some(now)
    })
}

/// Ctrl-S holds back what the child writes there. Its stderr, signals and its end are none of that.
fn pause_stops_output_only(engine: Engine) {
    let directory = tempdir().expect("directory");
    let log = directory.path().join("log");
    let script = format!(
        "exec 2> {}; trap 'echo caught >&2' USR1; (while :; do echo tick; sleep 0.01; done) & \
         while :; do sleep 0.05; done",
        log.display()
    );
    let mut console = Console::nproxy(engine, &["bash", "-c", &script]);
    console.wait_until_started();
    console.screen.wait_for("tick", 3);
    console.press(CTRL_S);
    wait_for_pause(&console);
    let signal = |signal| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(console.run.pid()), signal)
            .expect("alive");
    };
    signal(nix::sys::signal::SIGUSR1);
    proc::until("the signal", || fs::read_to_string(&log).ok()?.contains("caught").then_some(()));
    let paused = wait_for_pause(&console);
    console.press(CTRL_Q);
    console.screen.wait_for_bytes(paused + 12);
    console.press(CTRL_S);
    let signal = nix::sys::signal::SIGTERM;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(console.run.pid()), signal).expect("alive");
    console.wait_for_end();
    assert_eq!(console.modes(), console.before);
}

fn idle_costs_nothing(engine: Engine) {
    // What watching memory costs is tested where that is.
    let mut console = Console::nproxy(engine, &["--monitor=off", "cat"]);
    let (monitor, _) = console.wait_until_started();
    let spent = || proc::cpu_time(console.run.pid()) + proc::cpu_time(monitor);
    let mut last = spent();
    proc::until("it to settle", || {
        std::thread::sleep(Duration::from_millis(100));
        std::mem::replace(&mut last, spent()).eq(&spent()).then_some(())
    });
    let before = [console.run.pid(), monitor].map(proc::Ran::of);
    std::thread::sleep(Duration::from_secs(2));
    let idle: Duration = before.map(proc::Ran::busy_since).into_iter().sum();
    assert!(idle < Duration::from_millis(1), "{idle:?} of CPU in two idle seconds");
    console.press(CTRL_D);
    console.run.finish().expect_code(0);
}

/// The window is closed: the child gets its SIGHUP, nproxy ends, nothing stays.
fn terminal_lost(engine: Engine) {
    // Whoever ignores SIGHUP reads the end of file.
    let cases = [
        ("default=HUP", "cat"),
        ("default=HUP", "trap 'exit 0' HUP; while :; do sleep 0.02; done"),
        ("ignore=HUP", "exec cat"),
    ];
    for (setting, script) in cases {
        let words = [setting, "--", "nproxy", "--engine", engine.name(), "bash", "-c", script];
        let ended = started_and_hung_up(|launch| launch.args(words)).finish();
        // A sleep of the loop may outlive its shell by a moment.
        proc::until("nothing to be left", || {
            ended.left.iter().all(|pid| matches!(proc::state(*pid), 'X' | 'Z')).then_some(())
        });
    }
}

/// `peer with tty=…` and the words that are added, on a terminal that goes once the command runs.
fn started_and_hung_up(add: impl FnOnce(Launch) -> Launch) -> Running {
    let (leader, path) = open_leader();
    let launch = Launch::program(peer_path()).arg("with").arg(format!("tty={path}"));
    let launch = add(launch).in_our_group().stdout(Stdio::null()).stderr(Stdio::null());
    let running = launch.start();
    let monitor = proc::until("a monitor", || proc::children(running.pid()).first().copied());
    proc::only_child(monitor);
    drop(leader);
    running
}

/// Nobody can be asked at a terminal that is gone, so nproxy does not look again and again.
fn a_hang_up_of_hidden_output_leaves_nothing_to_watch(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = "trap '' HUP; until [ -e gone ]; do sleep 0.02; done; sleep 1";
    let running = started_and_hung_up(|launch| {
        launch
            .args(["--", "nproxy", "--engine", engine.name(), "--only-on-failure"])
            .args(["--stats=json", "--stats-file=stats", "bash", "-c", script])
            .directory(directory.path())
    });
    fs::write(directory.path().join("gone"), "").expect("gone");
    running.finish();
    let stats = fs::read_to_string(directory.path().join("stats")).expect("statistics");
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
    let calls = stats["system_calls"].as_u64().expect("a number");
    assert!(calls < 10_000, "{calls} system calls");
}

/// A line of ours waits while a program draws, or asks for a password, and no longer.
fn notices_come_again_once_modes_are_as_before(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = Terminal::open_with(engine, directory.path(), "auto", "--noediting");
    terminal.enter("nproxy --heartbeat=300ms sh -c 'stty -echo; stty echo; until [ -e go ]; do sleep 0.05; done'");
    terminal.screen.wait_for("no output for", 1);
    fs::write(directory.path().join("go"), "").expect("go");
    terminal.wait_for_prompt();
    terminal.close();
}

/// What the command has not read is the shell's, as it would be without nproxy.
fn typed_ahead_for_the_shell(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = Terminal::open_with(engine, directory.path(), "auto", "--noediting");
    let before = terminal.modes();
    terminal.enter("nproxy sh -c 'read one; until [ -e go ]; do sleep 0.01; done'");
    terminal.enter("for the command");
    terminal.enter("echo ahead=$((6 * 7))");
    terminal.enter("echo again=$((7 * 7))");
    terminal.screen.wait_for("again=", 1);
    fs::write(directory.path().join("go"), "").expect("go");
    terminal.screen.wait_for("ahead=42", 1);
    terminal.screen.wait_for("again=49", 1);
    for _ in 0..3 {
        terminal.wait_for_prompt();
    }
    assert_eq!(terminal.modes(), before);
    terminal.close();
}

/// All three are the child's terminal, the same one, and nothing else is open.
fn streams_that_are_the_terminal(engine: Engine) {
    let script = "test \"$(readlink /proc/self/fd/0)\" = \"$(readlink /proc/$$/fd/2)\" && \
                  test -t 1 && tty > /dev/null && echo $TERM $(ps -o stat= -p $$)";
    let console = Console::nproxy(engine, &["sh", "-c", script]);
    console.screen.wait_for("+\r\n", 1);
    // In the foreground of its session, but not its leader; asleep, unless ps is faster than it falls asleep.
    let text = console.text();
    assert!(["dumb S+\r\n", "dumb R+\r\n"].contains(&text.as_str()), "{text:?}");
    console.run.finish().expect_code(0);
}

/// The command has ended, and what it has started still writes: Ctrl-C is for nproxy then.
fn interrupted_after_the_end_of_the_command(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = Terminal::open_with(engine, directory.path(), "auto", "--noediting");
    let before = terminal.modes();
    let writer = "trap \"\" INT HUP PIPE; until [ -e go ]; do echo tick; sleep 0.01; done";
    terminal.enter(&format!(
        "nproxy --linger=eof bash -c '( {writer} ) & echo $$ > said; mv said pid; exit 3'"
    ));
    let pid = directory.path().join("pid");
    let pid: i32 =
        proc::until("the command's number", || fs::read_to_string(&pid).ok()?.trim().parse().ok());
    proc::until("the command's end", || matches!(proc::state(pid), 'X').then_some(()));
    let ticks = terminal.screen.so_far().text().matches("tick").count();
    terminal.screen.wait_for("tick", ticks + 5);
    terminal.press(CTRL_C);
    terminal.wait_for_prompt();
    fs::write(directory.path().join("go"), "").expect("go");
    terminal.run("echo status=$?");
    terminal.screen.wait_for("status=130", 1);
    assert_eq!(terminal.modes(), before);
    terminal.close();
}

/// Lines that say how long nothing has come disturb neither what is typed nor who reads it.
fn heartbeat_beside_a_reader(engine: Engine) {
    let script = "read x; echo got $x";
    let mut console = Console::nproxy(engine, &["--heartbeat=1s", "sh", "-c", script]);
    console.screen.wait_for("nproxy: sh: no output for 0:01", 1);
    console.press("ty");
    console.screen.wait_for("nproxy: sh: no output for", 2);
    assert_eq!(console.modes(), console.before);
    console.press("ped\n");
    console.screen.wait_for("got typed\r\n", 1);
    console.wait_for_end();
    assert_eq!(console.modes(), console.before);
    let text = console.text();
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count(), "{text:?}");
    console.run.finish().expect_code(0);
}
