//! The same lines typed to a shell, with the bare command and with the wrapped one: what the terminal shows is the same,
//! byte for byte, and so are its modes.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::{TempDir, tempdir};

use super::console::{CTRL_C, CTRL_D, CTRL_Z, Console};
use crate::harness::terminal::{Terminal, open_leader};
use crate::harness::{Engine, Launch, need, on_both_engines, peer_path, skip};
use crate::proc;

on_both_engines![
    what_others_print_keeps_its_carriage_returns,
    two_at_once_leave_the_modes,
    typed_ahead_for_the_next_reader,
    typed_ahead_one_line_at_a_time,
    typed_ahead_end_of_input,
    a_parent_that_reads,
    in_the_foreground,
    each_stream_is_what_it_was,
    job_control_without_stdin,
    a_question_before_a_pager,
    signals_reach_the_foreground_group,
    the_terminal_by_its_name,
    setsid_need_not_fork,
    a_size_set_by_the_command,
    sane_modes,
    keys_of_a_poll_loop,
    a_session_leader_without_a_pty,
    another_terminal,
    stop_signal_to_a_session_leader,
    without_proc,
    a_terminal_that_may_not_be_opened,
    lines_of_several_writers,
];

/// A shell in which `$N` is nothing, or nproxy.
struct Shell {
    terminal: Terminal,
    directory: TempDir,
}

impl Shell {
    fn open(engine: Engine, wrapper: &str) -> Shell {
        let directory = tempdir().expect("directory");
        fs::write(directory.path().join("env"), format!("N='{wrapper}'; export N\n")).expect("env");
        let mut terminal = Terminal::open_with(engine, directory.path(), "auto", "--noediting");
        terminal.run(". ./env");
        Shell { terminal, directory }
    }

    fn wait_for_file(&self, name: &str) {
        wait_for_file(&self.directory.path().join(name));
    }

    fn touch(&self, name: &str) {
        fs::write(self.directory.path().join(name), "").expect("touch");
    }
}

fn wait_for_file(path: &Path) {
    proc::until(&format!("{}", path.display()), || path.exists().then_some(()));
}

/// Does the same in both shells. What they show is the same but for the numbers of jobs, and holds `expected`; the modes
/// that they leave are the same.
#[track_caller]
fn compare(engine: Engine, expected: &str, steps: impl Fn(&mut Shell)) {
    let [bare, wrapped] = ["", "nproxy --"].map(|wrapper| {
        let mut shell = Shell::open(engine, wrapper);
        steps(&mut shell);
        let (text, modes) = (shell.terminal.screen.so_far().text(), shell.terminal.modes());
        shell.terminal.close();
        let lines = text.split_inclusive('\n');
        let shown = lines.map(|line| match line.strip_prefix("[1] ") {
            Some(_) => "[1] NUMBER\r\n",
            None => line,
        });
        (shown.collect::<String>(), modes)
    });
    assert!(bare.0.contains(expected), "{bare:?}");
    assert_eq!(wrapped.0, bare.0);
    assert_eq!(wrapped.1, bare.1, "{}", wrapped.0);
}

const UNTIL_GO: &str = "until [ -e go ]; do sleep 0.01; done";

fn what_others_print_keeps_its_carriage_returns(engine: Engine) {
    compare(engine, "AA\r\nBB\r\n", |shell| {
        shell.terminal.run(&format!(
            "( {UNTIL_GO}; echo AA; echo BB; touch said ) & $N sh -c 'touch go; until [ -e said ]; do sleep 0.01; done'; wait"
        ));
    });
}

fn two_at_once_leave_the_modes(engine: Engine) {
    for (first, second) in [("0.2", "0.5"), ("0.5", "0.2")] {
        compare(engine, "raw", |shell| {
            let raw = "stty raw -echo; stty -raw echo; echo raw";
            shell.terminal.run(&format!(
                "bash -c '$N sh -c \"sleep {first}; {raw}\" <&0 & $N sleep {second}; wait'"
            ));
        });
    }
}

fn typed_ahead_for_the_next_reader(engine: Engine) {
    compare(engine, "got aa\r\n", |shell| {
        shell
            .terminal
            .enter(&format!("sh -c '$N sh -c \"touch at; {UNTIL_GO}\"; read x; echo got $x'"));
        shell.wait_for_file("at");
        shell.terminal.enter("aa");
        shell.terminal.screen.wait_for("aa\r\n", 1);
        shell.touch("go");
        shell.terminal.wait_for_prompt();
    });
}

/// Readers that follow each other get a line each, however much one of them could take.
fn typed_ahead_one_line_at_a_time(engine: Engine) {
    compare(engine, "two\r\n.\r\nthree\r\n.\r\n", |shell| {
        let read = "dd bs=4096 count=1 2>/dev/null; echo .";
        shell.terminal.enter(&format!("$N sh -c 'touch at; {UNTIL_GO}; {read}; {read}; {read}'"));
        shell.wait_for_file("at");
        shell.terminal.press("one\ntwo\nthree\n");
        shell.terminal.screen.wait_for("three\r\n", 1);
        shell.touch("go");
        shell.terminal.wait_for_prompt();
    });
}

fn typed_ahead_end_of_input(engine: Engine) {
    compare(engine, "x\r\nended\r\n", |shell| {
        shell.terminal.enter(&format!("$N sh -c 'touch at; {UNTIL_GO}; cat; echo ended'"));
        shell.wait_for_file("at");
        shell.terminal.press("x\n");
        shell.terminal.press(CTRL_D);
        shell.terminal.screen.wait_for("x\r\n", 1);
        shell.touch("go");
        shell.terminal.wait_for_prompt();
    });
}

fn a_parent_that_reads(engine: Engine) {
    compare(engine, "parent aa\r\n", |shell| {
        shell.terminal.enter(&format!(
            "sh -c '$N sh -c \"touch at; {UNTIL_GO}\" & read x; echo parent $x; touch go; wait'"
        ));
        shell.wait_for_file("at");
        shell.terminal.enter("aa");
        shell.terminal.wait_for_prompt();
    });
}

/// What progress bars ask for before they show anything.
fn in_the_foreground(engine: Engine) {
    compare(engine, "+.\r\n", |shell| {
        let ask = "ps -o stat= -p $$ | tr -dc + >&2; echo . >&2";
        fs::write(shell.directory.path().join("ask"), ask).expect("script");
        for line in [
            "$N sh ask",
            "$N sh ask < /dev/null",
            "echo | while read r; do $N sh ask; done",
            "$N sh ask | cat",
            "$N sh ask > /dev/null",
            "$N sh ask & wait",
        ] {
            shell.terminal.run(line);
        }
    });
}

/// A terminal, or none.
fn each_stream_is_what_it_was(engine: Engine) {
    let ask = "for fd in 0 1 2; do test -t $fd && echo $fd is one >/dev/tty; done; true";
    compare(engine, "2 is one", |shell| {
        fs::write(shell.directory.path().join("ask"), ask).expect("script");
        for line in [
            "$N sh ask",
            "$N sh ask | cat",
            "$N sh ask > log",
            "echo | $N sh ask",
            "echo | $N sh ask | cat",
            "$N sh ask 2> log",
            "$N sh ask 2>&1 | cat",
            "$N sh ask 2> log | cat",
            "$N sh ask < /dev/null > log 2>&1",
        ] {
            shell.terminal.run(line);
        }
    });
}

fn job_control_without_stdin(engine: Engine) {
    // A shell around that is slow to give the terminal to the last of a pipeline would have its jobs stopped.
    let in_front = "read -r _ _ _ _ group _ _ front _ </proc/$$/stat; [ $group = $front ]";
    let jobs = "set -m; stty -echo </dev/tty; stty echo </dev/tty; echo done";
    let script = format!("until {in_front}; do :; done\n{jobs}\n");
    compare(engine, "done\r\n", |shell| {
        fs::write(shell.directory.path().join("jobs"), &script).expect("script");
        shell.terminal.run("echo | $N bash jobs");
    });
}

/// The pager makes the terminal raw at once; the question behind it still gets its answer.
fn a_question_before_a_pager(engine: Engine) {
    for wrapper in ["", "nproxy --"] {
        let mut shell = Shell::open(engine, wrapper);
        shell.terminal.resize(12, 60);
        let before = shell.terminal.modes();
        let question = "bash -c 'read -rp \"name: \" n </dev/tty; seq -f row-%g-of-$n 60'";
        shell.terminal.enter(&format!("{question} | TERM=xterm LESS= $N less"));
        shell.terminal.screen.wait_for("name: ", 2);
        proc::until("raw mode", || (shell.terminal.modes() != before).then_some(()));
        shell.terminal.press("me\r");
        shell.terminal.screen.wait_for("row-11-of-me", 1);
        shell.terminal.press("G");
        shell.terminal.screen.wait_for("row-60-of-me", 1);
        shell.terminal.press("q");
        shell.terminal.wait_for_prompt();
        assert_eq!(shell.terminal.modes(), before);
        shell.terminal.close();
    }
}

fn signals_reach_the_foreground_group(engine: Engine) {
    compare(engine, "left=0\r\n", |shell| {
        // Nobody else sleeps for so long; what a signal has reached needs a moment to end.
        static SLEEPS: AtomicU32 = AtomicU32::new(0);
        let number = SLEEPS.fetch_add(1, Ordering::Relaxed);
        let sleep = format!("sleep 50.{}{number:03}", std::process::id());
        let count = format!(
            "left() {{ ps -eo args | grep -c '^{sleep}$'; }}
             for i in $(seq 100); do [ $(left) != 0 ] || break; sleep 0.1; done; left"
        );
        fs::write(shell.directory.path().join("count"), count).expect("script");
        fs::write(shell.directory.path().join("wait"), format!("{sleep}; :")).expect("script");
        shell.terminal.run("timeout 0.5 $N sh wait; echo status=$? left=$(sh count)");
    });
    use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
        let console =
            Console::nproxy(engine, &["sh", "-c", "ulimit -c 0; echo ready; sleep 51; :"]);
        console.screen.wait_for("ready\r\n", 1);
        let (_, shell) = console.wait_until_started();
        proc::only_child(shell);
        console.run.signal(signal);
        let ended = console.run.finish();
        ended.expect_signal(signal).expect(ended.left.is_empty(), "left behind");
    }
}

fn the_terminal_by_its_name(engine: Engine) {
    compare(engine, "got secret\r\n", |shell| {
        let script = "touch at; stty -echo <$T; read x <$T; stty echo <$T; echo got $x";
        shell.terminal.enter(&format!("T=$(tty) $N sh -c '{script}'"));
        shell.wait_for_file("at");
        let modes = || shell.terminal.modes().local_flags;
        proc::until("no echo", || {
            (!modes().contains(nix::sys::termios::LocalFlags::ECHO)).then_some(())
        });
        shell.terminal.enter("secret");
        shell.terminal.wait_for_prompt();
    });
}

fn setsid_need_not_fork(engine: Engine) {
    compare(engine, "hi\r\n3\r\n", |shell| {
        shell.terminal.run("sh -c '$N setsid sh -c \"sleep 0.3; echo hi; exit 3\"; echo $?'");
        shell.terminal.run("$N setsid -w sh -c 'exit 4'; echo $?");
    });
}

fn a_size_set_by_the_command(engine: Engine) {
    compare(engine, "133\r\n", |shell| {
        shell.terminal.resize(25, 80);
        shell.terminal.run("$N stty cols 133; stty size | cut -d' ' -f2");
    });
}

/// A program that sets everything anew does not lose its echo, or get it twice.
fn sane_modes(engine: Engine) {
    compare(engine, "got typed\r\n", |shell| {
        shell.terminal.enter("$N sh -c 'stty sane; echo ready; read x; echo got $x'");
        shell.terminal.screen.wait_for("ready\r\n", 1);
        shell.terminal.enter("typed");
        shell.terminal.wait_for_prompt();
    });
}

/// poll, select and epoll instead of a read that waits.
fn keys_of_a_poll_loop(engine: Engine) {
    if !need(&["python3", "--version"]) {
        return;
    }
    let waits = [
        "select.select([0], [], [])",
        "p = select.poll(); p.register(0, select.POLLIN); p.poll()",
        "p = select.epoll(); p.register(0, select.EPOLLIN); p.poll()",
    ];
    for wait in waits {
        compare(engine, "got b'typed\\n'", |shell| {
            shell.terminal.enter(&format!("$N python3 -c \"import os, select; print('ready'); {wait}; print('got', os.read(0, 99))\""));
            shell.terminal.screen.wait_for("ready\r\n", 1);
            shell.terminal.enter("typed");
            shell.terminal.wait_for_prompt();
        });
    }
}

/// `exec nproxy -- sleep 777 > file` in a window that is closed.
fn a_session_leader_without_a_pty(engine: Engine) {
    let (leader, path) = open_leader();
    let running = Launch::program(peer_path())
        .arg("with")
        .arg(format!("tty={path}"))
        .args(["--", "nproxy", "--engine", engine.name(), "--pty=never", "sleep", "777"])
        .in_our_group()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .start();
    let child = running.process("sleep 777");
    drop(leader);
    proc::until("the child's end", || (proc::state(child) == 'X').then_some(()));
    running.finish().expect_signal(nix::sys::signal::Signal::SIGHUP);
}

/// Output to another terminal: that is neither read from nor changed.
fn another_terminal(engine: Engine) {
    let (leader, path) = open_leader();
    let before = nix::sys::termios::tcgetattr(&leader).expect("modes");
    let other = crate::capture::Capture::of(leader.try_clone().expect("dup"));
    let mut shell = Shell::open(engine, "nproxy --");
    shell
        .terminal
        .enter(&format!("$N sh -c 'test -t 1 && read x </dev/tty; echo got $x' > {path}"));
    shell.terminal.enter("typed");
    shell.terminal.wait_for_prompt();
    other.wait_for("got typed\r\n", 1);
    assert_eq!(nix::sys::termios::tcgetattr(&leader), Ok(before));
    shell.terminal.close();
}

/// The kernel does not stop a group that nobody would continue.
fn stop_signal_to_a_session_leader(engine: Engine) {
    for signal in ["TTOU", "TTIN", "TSTP"] {
        let script = format!("kill -{signal} $$; echo survived");
        let console = Console::nproxy(engine, &["sh", "-c", &script]);
        console.screen.wait_for("survived\r\n", 1);
        console.run.finish().expect_code(0);
    }
}

fn without_proc(engine: Engine) {
    if !nix::unistd::geteuid().is_root() {
        skip("only root may mount");
        return;
    }
    let mut shell = Shell::open(engine, "nproxy --");
    shell.terminal.enter("unshare -m sh -c 'mount -t tmpfs none /proc; $N cat'");
    shell.terminal.enter("line");
    shell.terminal.screen.wait_for("line\r\nline\r\n", 1);
    shell.terminal.press(CTRL_Z);
    shell.terminal.screen.wait_for("Stopped", 1);
    shell.terminal.wait_for_prompt();
    shell.terminal.enter("fg");
    shell.terminal.screen.wait_for("$N cat'\r\n", 3);
    shell.terminal.enter("again");
    shell.terminal.screen.wait_for("again\r\nagain\r\n", 1);
    shell.terminal.press(CTRL_C);
    shell.terminal.wait_for_prompt();
    shell.terminal.close();
}

/// As after su(1) in a session of its own: the inherited descriptor is all there is.
fn a_terminal_that_may_not_be_opened(engine: Engine) {
    let nobody = "setsid -w setpriv --reuid 65534 --regid 65534 --clear-groups";
    if !nix::unistd::geteuid().is_root() {
        skip("only root may become somebody else");
        return;
    }
    let mut shell = Shell::open(engine, "nproxy --");
    shell.terminal.run(&format!("{nobody} true && {nobody} $N sh -c 'test -t 1 && echo i''s one'; {nobody} $N true; echo st''atus=$?"));
    let text = shell.terminal.screen.so_far().text();
    if text.contains("status=126") || text.contains("status=127") {
        skip("nobody may not run this nproxy");
    } else {
        assert!(text.contains("is one\r\n"), "{text}");
    }
    shell.terminal.close();
}

/// Eight of them at one terminal: lines stay whole, also where the terminal is full again and again. Without a kernel worker
/// they do as long as the terminal takes them at once.
fn lines_of_several_writers(engine: Engine) {
    let count = if engine == Engine::Uring { 500 } else { 12 };
    let mut shell = Shell::open(engine, "nproxy --");
    shell.terminal.run(&format!("sh -c 'for i in 1 2 3 4 5 6 7 8; do $N seq -f \"row-%.0f-$i-row-row-row-row-row-row-end\" {count} & done; wait'; echo fin''ished"));
    shell.terminal.screen.wait_for("finished", 1);
    let text = shell.terminal.screen.so_far().text();
    let rows = text.lines().filter(|line| line.contains("row-row")).skip(1);
    let torn: Vec<_> = rows
        .filter(|row| {
            !(row.starts_with("row-")
                && row.trim_end().ends_with("-end")
                && row.matches("end").count() == 1)
        })
        .collect();
    assert!(torn.is_empty(), "{} torn: {:?}", torn.len(), &torn[..torn.len().min(5)]);
    shell.terminal.close();
}
