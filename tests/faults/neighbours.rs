//! Other users and other processes: what they leave behind, hold on to, or put into names.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::{TempDir, tempdir};

use crate::harness::terminal::Terminal;
use crate::harness::{Engine, Launch, Running, need, on_both_engines};
use crate::proc;

on_both_engines![
    sessions_that_answer_slowly,
    long_command_line,
    names_with_escape_sequences,
    orphans_of_a_subreaper,
    sockets_left_by_the_dead,
    signal_that_was_handled_is_forgotten,
];

fn private() -> TempDir {
    let directory = tempdir().expect("directory");
    let inner = directory.path().join("nproxy");
    fs::create_dir(&inner).expect("directory");
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o700)).expect("mode");
    directory
}

fn session(engine: Engine, runtime: &Path) -> Running {
    let run = Launch::nproxy(engine)
        .words("-- cat")
        .stdin(std::process::Stdio::piped())
        .env("NPROXY_RUNTIME_DIR", runtime)
        .start();
    let socket = runtime.join("nproxy").join(format!("{}.sock", run.pid()));
    proc::until("the socket", || socket.exists().then_some(()));
    run
}

/// A byte every now and then does not start the time limit anew, and whoever else is asked answers all the same.
fn sessions_that_answer_slowly(engine: Engine) {
    let runtime = private();
    let run = session(engine, runtime.path());
    // Named after processes that there are: what belongs to a dead one would be removed.
    let slow: Vec<_> = [1, std::process::id()]
        .iter()
        .map(|pid| {
            let path = runtime.path().join("nproxy").join(format!("{pid}.sock"));
            UnixListener::bind(path).expect("bind")
        })
        .collect();
    for listener in slow {
        std::thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("accept");
            while client.write_all(b"{").is_ok() {
                std::thread::sleep(Duration::from_millis(200));
            }
        });
    }
    let started = Instant::now();
    let status = Launch::program("nproxy")
        .words("--status --status-format=json")
        .env("NPROXY_RUNTIME_DIR", runtime.path())
        .finish();
    let elapsed = started.elapsed();
    status
        .expect_code(0)
        .expect(status.stdout.text().contains(&format!("\"pid\":{}", run.pid())), "ours");
    status.expect(status.stderr.text().lines().count() == 2, "one line for each of the others");
    // One second for all of them, and what a busy machine adds.
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
}

/// What a session tells of itself fits into a socket, however long its command line.
fn long_command_line(engine: Engine) {
    let runtime = tempdir().expect("directory");
    let script = "read line; exit 0";
    let run = Launch::nproxy(engine)
        .args(["--", "sh", "-c", script, "sh"])
        .args((0..6).map(|_| "y".repeat(100_000)))
        .stdin(std::process::Stdio::piped())
        .env("NPROXY_RUNTIME_DIR", runtime.path())
        .env("NPROXY_EVENTS", runtime.path().join("events"))
        .start();
    let socket = runtime.path().join("nproxy").join(format!("{}.sock", run.pid()));
    proc::until("the socket", || socket.exists().then_some(()));
    let status = Launch::program("nproxy")
        .words("--status --status-format=json")
        .env("NPROXY_RUNTIME_DIR", runtime.path())
        .finish();
    status.expect_code(0).expect_silent();
    let told = status.stdout.text();
    status.expect(told.contains("\"sh\",\"-c\"") && told.contains("y…\""), "its beginning is told");
    let events = fs::read_to_string(runtime.path().join("events")).expect("events");
    assert!(events.contains("\"start\""), "{events}");
}

/// Whatever stands in a program's name, its arguments or a file's name: it is shown, not obeyed.
fn names_with_escape_sequences(engine: Engine) {
    let directory = tempdir().expect("directory");
    let evil = "a\x1b]0;owned\x07\u{9b}31m\rb";
    for words in [
        &["--", evil][..],
        &["--tee", &format!("none/{evil}"), "--", "true"],
        &["-v", "--banner", "--stats", "--tee", evil, "--", "sh", "-c", "sleep 60 & echo x", evil],
        &["--stats-file", &format!("none/{evil}"), "--", "true"],
        &[&format!("--{evil}"), "--", "true"],
        &["--engine", evil],
    ] {
        let run = Launch::nproxy(engine).args(words).directory(directory.path()).finish();
        let shown = run.stderr.text();
        run.expect(!shown.is_empty(), "something is said");
        run.expect(
            !shown.chars().any(|one| one.is_control() && one != '\n'),
            "no control character reaches the terminal",
        );
    }
    let holder = format!("(exec -a '{evil}' sleep 60) & echo x");
    let run = Launch::nproxy(engine).args(["--", "bash", "-c", &holder]).finish();
    let shown = run.stderr.text();
    run.expect(shown.contains("holds on to it"), "the holder is named");
    run.expect(!shown.chars().any(|one| one.is_control() && one != '\n'), "and shown");
}

/// Set by prctl(2) before exec(2), as container managers do: who is left behind is collected, also while nproxy waits
/// for the last of them.
fn orphans_of_a_subreaper(engine: Engine) {
    // Each level outlives the one above it; all of them end before the last one lets go of stdout.
    let script = "for i in 1 2 3 4 5; do (sh -c 'sleep 0.0$0 & exit 0' $i &) ; done; (cat <&3 & exit 0) & exit 0";
    let (source, writer) = std::io::pipe().expect("pipe");
    let run = Launch::peer("with")
        .args(["subreaper", "--", "bash", "-c", "exec 3<&0 </dev/null; exec nproxy \"$@\"", "bash"])
        .args(["--engine", engine.name(), "--linger=eof", "--", "bash", "-c", script])
        .stdin(source)
        .start();
    let pid = run.pid();
    // Only cat is left of them all, and no zombie.
    proc::until_or(
        "one child of nproxy's, alive",
        || {
            let children = proc::children(pid);
            (children.len() == 1 && proc::command_line(children[0]).starts_with("cat"))
                .then_some(())
        },
        || proc::children(pid).iter().map(|pid| proc::describe(*pid)).collect(),
    );
    drop(writer);
    run.finish().expect_code(0);
}

/// Of a process that is gone both kinds of name are removed: the one of its socket, and the one from before that.
fn sockets_left_by_the_dead(engine: Engine) {
    let runtime = private();
    let own = runtime.path().join("nproxy");
    // No process has a number beyond PID_MAX_LIMIT.
    for name in ["4194999.sock", ".4194998"] {
        drop(UnixListener::bind(own.join(name)).expect("bind"));
    }
    // A run that is over in ten milliseconds looks at nothing there.
    let until_it_listens = format!("until [ -e {}/$PPID.sock ]; do :; done", own.display());
    Launch::nproxy(engine)
        .args(["sh", "-c", &until_it_listens])
        .env("NPROXY_RUNTIME_DIR", runtime.path())
        .finish()
        .expect_code(0);
    let left: Vec<_> = fs::read_dir(&own).expect("directory").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// An empty variable is none, and a runtime directory of somebody else is left alone.
#[test]
fn runtime_directories_that_are_none_of_ours() {
    let (directory, other) = (tempdir().expect("directory"), tempdir().expect("directory"));
    let listens_in = |there: &str| format!("until [ -e {there}/$PPID.sock ]; do :; done");
    Launch::program("nproxy")
        .args(["sh", "-c", &listens_in(&format!("{}/nproxy", other.path().display()))])
        .env("NPROXY_RUNTIME_DIR", "")
        .env("XDG_RUNTIME_DIR", other.path())
        .directory(directory.path())
        .finish()
        .expect_code(0)
        .expect_silent();
    assert!(!directory.path().join("nproxy").exists(), "nothing in the working directory");
    if !need(&["chown", "65534", directory.path().to_str().expect("a path")]) {
        return;
    }
    Launch::program("nproxy")
        .args(["sh", "-c", &listens_in("/tmp/nproxy-$(id -u)")])
        .env("XDG_RUNTIME_DIR", directory.path())
        .finish()
        .expect_code(0)
        .expect_silent();
    assert!(!directory.path().join("nproxy").exists(), "nothing in another user's directory");
}

/// A signal from somebody, which the child has handled, does not make a later key somebody's: the script around nproxy
/// gets its own. With a terminal of the child's own, and with ours; however often it was handled; and the other way round.
fn signal_that_was_handled_is_forgotten(engine: Engine) {
    for pty in ["auto", "never"] {
        for (signal, name, key) in
            [(Signal::SIGINT, "INT", "\x03"), (Signal::SIGQUIT, "QUIT", "\x1c")]
        {
            let directory = tempdir().expect("directory");
            let child = format!(
                "trap 'n=$((n+1)); [ $n -lt 3 ] || trap - {name}; echo handled $n' {name}; \
                 echo up; while :; do sleep 0.05; done"
            );
            let script = format!(
                "ulimit -c 0\nnproxy sh -c '{}'\necho goes on: $?\n",
                child.replace('\'', "'\\''")
            );
            fs::write(directory.path().join("script"), script).expect("write");
            let mut terminal = Terminal::open_with(engine, directory.path(), pty, "--noediting");
            terminal.enter("bash script");
            terminal.screen.wait_for("up", 1);
            let nproxy = terminal.shell.process("nproxy");
            for handled in 1..=3 {
                kill(Pid::from_raw(nproxy), signal).expect("kill");
                terminal.screen.wait_for(&format!("handled {handled}"), 1);
            }
            terminal.press(key);
            terminal.wait_for_prompt();
            let shown = terminal.screen.so_far().text();
            // Bash ends a script with a command that died of INT; after QUIT it goes on, and says how it died.
            let goes_on = shown.contains("goes on: 131");
            assert_eq!(goes_on, signal == Signal::SIGQUIT, "{pty} {name}: {shown}");
            terminal.close();
        }
    }
}
