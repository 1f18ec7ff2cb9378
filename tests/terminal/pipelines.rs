//! nproxy before, in and behind a pipe at a terminal; terminals for commands that would have none; and parents
//! without a terminal.

use std::fs;

use tempfile::tempdir;

use crate::harness::terminal::Terminal;
use crate::harness::{Engine, Launch, on_both_engines, skip};
use crate::proc;
use crate::terminal::console::{CTRL_C, CTRL_D, Console};

on_both_engines![
    behind_a_pipe_the_terminal_stays_cooked,
    behind_a_pipe_a_pager_gets_its_keys,
    stdin_from_elsewhere,
    always_colours_without_carriage_returns,
    a_long_line_from_a_pipe,
    relayed_stdin_ends,
    stderr_has_a_terminal_of_its_own,
    never_means_pipes,
    the_reader_leaves,
    parents_without_a_terminal,
    a_session_without_a_controlling_terminal,
    tee_is_plain_and_the_screen_in_colour,
    tee_to_the_terminal_itself,
    modes_change_while_a_screen_holds_its_lines,
    the_monitor_holds_nothing,
    without_ptmx,
];

/// What a text mode holds back until the end is not waited for.
fn modes_change_while_a_screen_holds_its_lines(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = Terminal::open_with(engine, directory.path(), "auto", "--noediting");
    let script = "echo hi; stty -echo <&1; stty echo <&1; seq 30000 | tail -n 1";
    terminal.run(&format!(
        "nproxy --pty=always --text=screen --tee raw sh -c '{script}' >out 2>&1; echo status=$?"
    ));
    terminal.screen.wait_for("status=0", 1);
    let shown = fs::read_to_string(directory.path().join("out")).expect("out");
    assert_eq!(shown, "hi\n30000\n");
    terminal.close();
}

/// `cat | nproxy sort`: cat gets the lines, with their echo, and Ctrl-C ends both.
fn behind_a_pipe_the_terminal_stays_cooked(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = Terminal::open_with(engine, directory.path(), "auto", "--noediting");
    let before = terminal.modes();
    terminal.enter("cat | nproxy sort");
    let nproxy = terminal.shell.process("nproxy sort");
    proc::until("a monitor", || proc::children(nproxy).first().copied());
    terminal.enter("zebra");
    terminal.enter("ape");
    assert_eq!(terminal.modes(), before);
    terminal.press(CTRL_D);
    terminal.wait_for_prompt();
    terminal.screen.wait_for("cat | nproxy sort\r\nzebra\r\nape\r\nape\r", 1);
    terminal.enter("cat | nproxy sleep 68");
    let nproxy = terminal.shell.process("nproxy sleep 68");
    let monitor = proc::until("a monitor", || proc::children(nproxy).first().copied());
    proc::only_child(monitor);
    terminal.press(CTRL_C);
    terminal.wait_for_prompt();
    terminal.run("echo status=$?");
    terminal.screen.wait_for("status=130", 1);
    terminal.close();
}

/// `seq 300 | nproxy less`: once less touches its terminal, it has the keys.
fn behind_a_pipe_a_pager_gets_its_keys(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = Terminal::open_with(engine, directory.path(), "auto", "--noediting");
    let before = terminal.modes();
    terminal.resize(12, 60);
    // less complains of a dumb terminal, and reads no key before that is out of the way.
    terminal.enter("seq -f row-%g-end 300 | TERM=xterm LESS= nproxy less");
    terminal.screen.wait_for("row-11-end", 1);
    proc::until("raw mode", || (terminal.modes() != before).then_some(()));
    terminal.press("G");
    terminal.screen.wait_for("row-300-end", 1);
    terminal.press("q");
    terminal.wait_for_prompt();
    assert_eq!(terminal.modes(), before);
    terminal.run("echo status=$?");
    terminal.screen.wait_for("status=0", 1);
    terminal.close();
}

fn stdin_from_elsewhere(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = Terminal::open_with(engine, directory.path(), "auto", "--noediting");
    terminal.run("nproxy cat < /dev/null; echo null=$?");
    terminal.screen.wait_for("null=0", 1);
    terminal.run("nproxy --stdin=null cat; echo none=$?");
    terminal.screen.wait_for("none=0", 1);
    terminal.run("echo pip''ed | nproxy --stdin=relay sh -c 'test -p /dev/stdin && cat'");
    terminal.screen.wait_for("\npiped", 1);
    // /dev/tty is our terminal by another name.
    terminal.run("nproxy tty < /dev/tty; nproxy sh -c 'test -t 0 && echo i''s one' < /dev/tty");
    terminal.screen.wait_for("is one", 1);
    terminal.close();
}

fn always_colours_without_carriage_returns(engine: Engine) {
    Launch::shell(engine, "nproxy --pty=always ls --color=auto -d / | cat -v")
        .env("TERM", "xterm")
        .finish()
        .expect_code(0)
        .expect_output("^[[0m^[[01;34m/^[[0m\n");
    Launch::nproxy(engine)
        .words("--pty=always sh -c")
        .arg("stty size; echo one; echo two")
        .stdin(std::process::Stdio::null())
        .finish()
        .expect_code(0);
    Launch::nproxy(engine)
        .words("--pty=always sh -c")
        .arg("stty size <&1; printf 'one\\ntwo\\n'; exit 6")
        .finish()
        .expect_code(6)
        .expect_output("24 80\none\ntwo\n");
}

/// stdin stays a pipe: a terminal would cut the line.
fn a_long_line_from_a_pipe(engine: Engine) {
    Launch::shell(
        engine,
        "head -c 102400 /dev/zero | tr '\\0' a | nproxy --pty=always cat | tr -d a | wc -c; \
         head -c 102400 /dev/zero | tr '\\0' a | nproxy --pty=always cat | wc -c",
    )
    .finish()
    .expect_code(0)
    .expect_output("0\n102400\n");
}

/// Asked for, stdin goes through the terminal: without echo, and its end is Ctrl-D, twice after half a line.
fn relayed_stdin_ends(engine: Engine) {
    let script = "seq 20000 > rows; nproxy --pty=always --stdin=relay cat < rows | cmp - rows; \
                  printf 'one\\nhalf' | nproxy --pty=always --stdin=relay cat; echo :; \
                  nproxy --pty=always --stdin=relay sh -c 'test -t 0 && cat' < /dev/null; echo $?";
    let directory = tempdir().expect("directory");
    Launch::shell(engine, script)
        .directory(directory.path())
        .finish()
        .expect_code(0)
        .expect_output("one\nhalf:\n0\n");
}

fn stderr_has_a_terminal_of_its_own(engine: Engine) {
    let script = "exec 3>&1; test -t 1 && test -t 2 && test \"$(tty <&3)\" != \"$(tty <&2)\" && \
                  echo out; echo err >&2";
    let ended = Launch::nproxy(engine).words("--pty=always sh -c").arg(script).finish();
    ended.expect_code(0).expect_output("out\n");
    assert_eq!(ended.stderr.text(), "err\n");
    // One file, one terminal: their order is the bare one.
    let script = "nproxy --pty=always sh -c \
                  'exec 3>&1; test \"$(tty <&3)\" = \"$(tty <&2)\"; echo $?; echo a; echo b >&2; echo c' 2>&1";
    Launch::shell(engine, script).finish().expect_output("0\na\nb\nc\n");
}

fn never_means_pipes(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut terminal = Terminal::open_with(engine, directory.path(), "auto", "--noediting");
    let script = "test -p /dev/stdout && echo it''is";
    terminal.run(&format!("nproxy --pty=never sh -c \"{script}\""));
    terminal.screen.wait_for("\nitis", 1);
    terminal.run("NPROXY_PTY=never nproxy sh -c 'test -t 1; echo env=$?'");
    terminal.screen.wait_for("env=1", 1);
    terminal.run("nproxy sh -c 'test -t 1; echo env=$?'");
    terminal.screen.wait_for("env=0", 1);
    terminal.close();
}

/// A command at a terminal hears of it as one at a pipe does.
fn the_reader_leaves(engine: Engine) {
    Launch::shell(engine, "nproxy --pty=always yes | head -n 1; echo ${PIPESTATUS[0]}")
        .finish()
        .expect_code(0)
        .expect_output("y\n141\n");
    // As with a pipe, the command is not told before it writes.
    let script = "nproxy --pty=always sh -c \
        'until [ -e gone ]; do sleep 0.01; done; for i in 1 2 3 4 5 6 7 8 9; do sleep 0.01; done; exit 3' \
        | { exec <&-; touch gone; }; echo ${PIPESTATUS[0]}";
    let directory = tempfile::tempdir().expect("directory");
    Launch::shell(engine, script).directory(directory.path()).finish().expect_output("3\n");
}

fn parents_without_a_terminal(engine: Engine) {
    for pty in ["--pty=auto", "--pty=always"] {
        let ended = Launch::program("setsid")
            .args(["-w", "nproxy", "--engine", engine.name(), pty, "sh", "-c"])
            .arg("echo out; echo err >&2; exit 5")
            .in_our_group()
            .finish();
        ended.expect_code(5).expect_output("out\n").expect(ended.left.is_empty(), "left behind");
        assert_eq!(ended.stderr.text(), "err\n");
    }
}

/// `setsid nproxy bash`: fds 0 to 2 are a terminal that controls nothing. It is used like any other, and the
/// inner shell gets job control, which the bare one would not have.
fn a_session_without_a_controlling_terminal(engine: Engine) {
    let words = ["sh", "-c", "read line; echo $line | tr a-z A-Z"];
    let directory = tempdir().expect("directory");
    let mut terminal = Terminal::open_with(engine, directory.path(), "auto", "--noediting");
    let before = terminal.modes();
    terminal.enter(&format!("setsid -w nproxy {} -c '{}'", words[0], words[2]));
    terminal.enter("typed");
    terminal.wait_for_prompt();
    terminal.screen.wait_for("TYPED", 1);
    assert_eq!(terminal.modes(), before);
    terminal.run("echo status=$?");
    terminal.screen.wait_for("status=0", 1);
    terminal.close();
}

/// A clean log has the newlines that the command wrote; a raw one has what the screen gets.
fn tee_is_plain_and_the_screen_in_colour(engine: Engine) {
    let directory = tempdir().expect("directory");
    let log = directory.path().join("log");
    let tee = format!("--tee={}", log.display());
    let script = "test -t 1 && printf '\\033[31mred\\033[0m\\n10 %%\\r20 %%\\r\\n'; \
                  test -t 2 && echo both >&2";
    let on_screen = "\x1b[31mred\x1b[0m\r\n10 %\r20 %\r\r\nboth\r\n";
    let logged = |modes: &[&str]| {
        let mut words = vec![tee.as_str()];
        words.extend(modes);
        words.extend(["sh", "-c", script]);
        let mut console = Console::nproxy(engine, &words);
        console.wait_for_end();
        console.screen.wait_for(on_screen, 1);
        console.run.finish().expect_code(0);
        fs::read_to_string(&log).expect("log")
    };
    assert_eq!(logged(&["--tee-text=strip-ansi"]), "red\n10 %\r20 %\r\nboth\n");
    assert_eq!(
        logged(&["--tee-text=transform", "--timestamp=> "]),
        "> \x1b[31mred\x1b[0m\n> 10 %\r20 %\r\n> both\n"
    );
    // As it was written.
    assert_eq!(logged(&[]), "\x1b[31mred\x1b[0m\n10 %\r20 %\r\nboth\n");
    // Without a screen nothing was added.
    Launch::nproxy(engine)
        .words("--pty=always --tee-text=strip-ansi")
        .arg(&tee)
        .words("sh -c")
        .arg("printf 'one\\r\\ntwo\\n'")
        .finish()
        .expect_code(0)
        .expect_output("one\r\ntwo\n");
    assert_eq!(fs::read_to_string(&log).expect("log"), "one\r\ntwo\n");
}

/// A copy on a terminal, here the one that is shown as well.
fn tee_to_the_terminal_itself(engine: Engine) {
    let script = "printf '\\033[31mred\\033[0m\\n'";
    let words = ["--tee=/dev/tty", "--tee-text=strip-ansi", "sh", "-c", script];
    let mut console = Console::nproxy(engine, &words);
    console.wait_for_end();
    console.screen.wait_for("\x1b[31mred\x1b[0m\r\n", 1);
    console.screen.wait_for("red\r\n", 1);
    console.run.finish().expect_code(0);
}

/// Of pipes, it would keep the ends from ending.
fn the_monitor_holds_nothing(engine: Engine) {
    let console = Console::nproxy(engine, &["sleep", "67"]);
    let (monitor, child) = console.wait_until_started();
    let held = || {
        let all = proc::descriptors(monitor).into_iter().skip(3);
        all.filter(|(_, target)| !target.starts_with("socket:")).count()
    };
    // The follower, a signalfd, its socket.
    proc::until("it to close the rest", || (held() <= 3).then_some(()));
    let numbers = |pid| proc::descriptors(pid).into_iter().map(|(fd, _)| fd).collect::<Vec<_>>();
    let bare_console = Console::bare(&["sleep", "69"]);
    let bare = proc::until("the bare program", || {
        let pid = bare_console.run.pid();
        (proc::command_line(pid) == "sleep 69").then_some(pid)
    });
    // The loader of either may still hold a library.
    proc::until_or(
        "the same descriptors as the bare program's",
        || (numbers(child) == numbers(bare)).then_some(()),
        || format!("{:?} and {:?}", numbers(child), numbers(bare)),
    );
}

/// A chroot without /dev: there is no pty to be had, and only who has asked for one is refused.
fn without_ptmx(engine: Engine) {
    if !nix::unistd::geteuid().is_root() {
        skip("only root may mount");
        return;
    }
    let directory = tempdir().expect("directory");
    let mut terminal = Terminal::open_with(engine, directory.path(), "auto", "--noediting");
    let script = "mount -t tmpfs none /dev\n\
                  nproxy test -t 1; echo quiet=$?; nproxy -v test -t 1; echo auto=$?\n\
                  nproxy --pty=always true; echo always=$?\n";
    fs::write(directory.path().join("script"), script).expect("script");
    terminal.run("unshare -m sh script");
    let text = terminal.screen.so_far().text();
    let (quiet, rest) = text.split_once("quiet=1\r\n").expect("pipes");
    let (auto, always) = rest.split_once("auto=1\r\n").expect("pipes");
    let why = "nproxy: open a pty: No such file or directory";
    assert!(!quiet.contains("nproxy:"), "{text}");
    assert!(auto.contains(&format!("{why}; going on with pipes\r\n")), "{text}");
    assert!(always.starts_with(&format!("{why}\r\nalways=125\r\n")), "{text}");
    terminal.close();
}
