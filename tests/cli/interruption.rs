//! A signal that is meant for nproxy itself: what it has taken arrives, its reports are made, and it dies of the signal.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::capture::waiting_bytes;
use crate::harness::{Engine, Launch, Running, on_both_engines};
use crate::outcome::Finished;
use crate::proc;

on_both_engines![
    a_filter_that_is_asked_to_end,
    a_copy_of_a_filter_that_is_asked_to_end,
    two_signals_of_one_request,
    a_copys_command_is_let_go,
    after_the_end_of_the_command,
    a_reader_that_takes_nothing_is_not_waited_for,
    ignored_it_stays_ignored,
];

/// A hundred lines, of which a screen holds the last back. They fit into one write.
fn lines() -> String {
    (1..=100).map(|number| format!("{number}\n")).collect()
}

/// A filter that has read these lines, and the writer that stays.
fn filter(engine: Engine, flags: &str, directory: &Path) -> (Running, std::io::PipeWriter) {
    let (source, mut writer) = std::io::pipe().expect("pipe");
    let filter = Launch::nproxy(engine)
        .words(flags)
        .words("--stats-file stats")
        .directory(directory)
        .stdin(source)
        .start();
    writer.write_all(lines().as_bytes()).expect("the lines");
    filter.stdout.as_ref().expect("its output").wait_for("1\n", 1);
    (filter, writer)
}

/// That all of the lines came out, and a report of the run.
fn expect_all(run: &Finished, signal: Signal, directory: &Path) {
    run.expect_signal(signal).expect_output(&lines());
    let stats = std::fs::read_to_string(directory.join("stats")).expect("statistics");
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
    assert_eq!(stats["exit_status"], 128 + signal as i32, "{stats}");
}

fn a_filter_that_is_asked_to_end(engine: Engine) {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        for flags in ["--text=screen", "--text=screen --limit-rate=1M", ""] {
            let directory = tempfile::tempdir().expect("directory");
            let (filter, _writer) = filter(engine, flags, directory.path());
            filter.signal(signal);
            let run = filter.finish();
            expect_all(&run, signal, directory.path());
            run.expect_silent();
        }
    }
}

fn a_copy_of_a_filter_that_is_asked_to_end(engine: Engine) {
    let directory = tempfile::tempdir().expect("directory");
    let flags = "--tee log,text=screen --tee |cat>command";
    let (filter, _writer) = filter(engine, flags, directory.path());
    filter.signal(Signal::SIGTERM);
    let run = filter.finish();
    expect_all(&run, Signal::SIGTERM, directory.path());
    run.expect_silent().expect(run.left.is_empty(), "nothing is left");
    for name in ["log", "command"] {
        let copy = std::fs::read_to_string(directory.path().join(name)).expect("the copy");
        assert_eq!(copy, lines(), "{name}");
    }
}

/// Where a terminal closes, its shell and the kernel both say so.
fn two_signals_of_one_request(engine: Engine) {
    let directory = tempfile::tempdir().expect("directory");
    let (filter, _writer) = filter(engine, "--text=screen --tee |cat>command", directory.path());
    // Both are there when it wakes.
    filter.signal(Signal::SIGSTOP);
    filter.signal(Signal::SIGHUP);
    filter.signal(Signal::SIGTERM);
    filter.signal(Signal::SIGCONT);
    let run = filter.finish();
    // Which of the two comes first is the kernel's choice.
    let signal = Signal::try_from(run.status.signal().unwrap_or_default()).expect("a signal");
    expect_all(&run, signal, directory.path());
}

/// It has all of its input, and something left to do.
fn a_copys_command_is_let_go(engine: Engine) {
    let directory = tempfile::tempdir().expect("directory");
    let command =
        "|exec >/dev/null 2>&1; cat >command; until [ -e go ]; do sleep .05; done; echo done >end";
    let (source, mut writer) = std::io::pipe().expect("pipe");
    let filter = Launch::nproxy(engine)
        .args(["--tee", command])
        .directory(directory.path())
        .stdin(source)
        .start();
    writer.write_all(lines().as_bytes()).expect("the lines");
    filter.stdout.as_ref().expect("its output").wait_for("100\n", 1);
    filter.signal(Signal::SIGINT);
    proc::until("nproxy's end", || (proc::state(filter.pid()) == 'Z').then_some(()));
    let read = |name| std::fs::read_to_string(directory.path().join(name)).unwrap_or_default();
    std::fs::write(directory.path().join("go"), "").expect("go");
    proc::until("the command's own end", || (read("end") == "done\n").then_some(()));
    assert_eq!(read("command"), lines());
    filter.finish().expect_signal(Signal::SIGINT).expect_output(&lines()).expect_silent();
}

/// Others hold the command's pipe, and somebody ends the wait for them.
fn after_the_end_of_the_command(engine: Engine) {
    for pty in ["--pty=never", "--pty=always"] {
        let directory = tempfile::tempdir().expect("directory");
        let script = "trap '' HUP; sleep 600 & seq 1 100; exit 5";
        let wrapped = Launch::nproxy(engine)
            .words("--linger=eof --text=screen --tee log,text=screen --stats-file stats")
            .arg(pty)
            .args(["sh", "-c", script])
            .directory(directory.path())
            .start();
        wrapped.stdout.as_ref().expect("its output").wait_for("1\n", 1);
        let holder = wrapped.process("sleep 600");
        // Reaped, and what belongs to that is done: seen three times, because word may still be on its way.
        let mut seen = 0;
        proc::until("the end of the command", || {
            let mut processes = wrapped.processes();
            processes.extend(proc::children(wrapped.pid()));
            let runs =
                processes.into_iter().any(|pid| proc::command_line(pid).starts_with("sh -c"));
            let reaped =
                proc::children(wrapped.pid()).into_iter().all(|pid| proc::state(pid) != 'Z');
            let over = !runs && reaped && proc::sleeps(wrapped.pid());
            seen = if over { seen + 1 } else { 0 };
            (seen == 3).then_some(())
        });
        wrapped.signal(Signal::SIGTERM);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(holder), Signal::SIGKILL).ok();
        let run = wrapped.finish();
        expect_all(&run, Signal::SIGTERM, directory.path());
        let copy = std::fs::read_to_string(directory.path().join("log")).expect("the copy");
        assert_eq!(copy, lines(), "{pty}");
    }
}

/// It would hold up the end for ever. What it has not taken is lost, as in any program that a signal kills.
fn a_reader_that_takes_nothing_is_not_waited_for(engine: Engine) {
    let (source, mut writer) = std::io::pipe().expect("pipe");
    let (reader, sink) = std::io::pipe().expect("pipe");
    let filter = Launch::nproxy(engine)
        .arg("--text=strip-ansi")
        .arg("--pipe-size=keep")
        .stdin(source)
        .stdout(sink)
        .start();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Until it is gone.
            while writer.write_all(&[b'x'; 4096]).is_ok() {}
        });
        let reader: OwnedFd = reader.into();
        proc::until("a full pipe", || (waiting_bytes(&reader) == 64 << 10).then_some(()));
        filter.signal(Signal::SIGTERM);
        filter.finish().expect_signal(Signal::SIGTERM).expect_silent();
    });
}

/// As with nohup.
fn ignored_it_stays_ignored(engine: Engine) {
    let script = "trap '' TERM; exec nproxy --text=screen";
    let (source, mut writer) = std::io::pipe().expect("pipe");
    let filter = Launch::shell(engine, script).stdin(source).start();
    writer.write_all(lines().as_bytes()).expect("the lines");
    filter.stdout.as_ref().expect("its output").wait_for("1\n", 1);
    filter.signal(Signal::SIGTERM);
    writer.write_all(b"more\n").expect("more");
    drop(writer);
    filter.finish().expect_code(0).expect_output(&(lines() + "more\n"));
}
