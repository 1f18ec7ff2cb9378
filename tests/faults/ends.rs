//! Which end failed, and whether it was an end: a source that breaks off is no reader that leaves, a size that is wrong
//! is no end of file, and what close(2) says counts.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use nix::libc::linger;
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use tempfile::tempdir;

use crate::ends::tcp_pair;
use crate::harness::{Engine, Launch, need, on_both_engines, strace_works};
use crate::payload::Digest;
use crate::proc;

on_both_engines![
    source_that_is_reset,
    stdin_that_fails_ends_for_a_child_at_a_terminal,
    reader_of_an_idle_filter_leaves,
    reader_leaves_bytes_behind,
    device_that_is_full,
    error_at_close,
    file_with_a_wrong_size,
    file_that_would_feed_itself,
    device_that_never_polls_writable,
];

/// Every way from stdin to an end.
const WAYS: [&str; 7] = [
    "",
    "--tee log",
    "--tee log --tee-strict",
    "--text=strip-ansi",
    "--tee log --text=strip-ansi",
    "--stdin=relay -- cat",
    "--stdin=relay --tee log -- cat",
];

/// Closes it so that the peer sees a reset.
fn reset(socket: TcpStream) {
    let at_once = linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&socket, sockopt::Linger, &at_once).expect("SO_LINGER");
    drop(socket);
}

/// What has come is delivered, the reset is told as the source's error, and the status says so.
fn source_that_is_reset(engine: Engine) {
    let directory = tempdir().expect("directory");
    for way in WAYS {
        let (mut ours, theirs) = tcp_pair();
        let run = Launch::nproxy(engine)
            .words(way)
            .directory(directory.path())
            .stdin(OwnedFd::from(theirs))
            .start();
        ours.write_all(b"hello\n").expect("write");
        run.stdout.as_ref().expect("captured").wait_for("hello\n", 1);
        reset(ours);
        let run = run.finish();
        run.expect_code(125).expect_output("hello\n");
        run.expect_one_line(&["read from stdin", "reset"]);
        if way.contains("--tee log") {
            assert_eq!(fs::read(directory.path().join("log")).expect("log"), b"hello\n");
        }
    }
}

/// A directory, a closed stdin, a reset: the child reads an end of file, whatever became of stdin.
fn stdin_that_fails_ends_for_a_child_at_a_terminal(engine: Engine) {
    for redirect in ["< .", "0> write-only", "<&-"] {
        let directory = tempdir().expect("directory");
        let script = format!("nproxy --pty=always --stdin=relay -- cat {redirect}; echo $?");
        let run = Launch::shell(engine, &script).directory(directory.path()).finish();
        run.expect_output("125\n").expect_one_line(&["stdin"]);
    }
    let (ours, theirs) = tcp_pair();
    let run = Launch::nproxy(engine)
        .words("--pty=always --stdin=relay -- cat")
        .stdin(OwnedFd::from(theirs))
        .start();
    reset(ours);
    run.finish().expect_code(125).expect_one_line(&["read from stdin", "reset"]);
}

/// Nothing was on its way, so nothing is lost: as behind cat, tee and pv, which would not even notice.
fn reader_of_an_idle_filter_leaves(engine: Engine) {
    let directory = tempdir().expect("directory");
    for way in &WAYS[..5] {
        let (source, mut writer) = std::io::pipe().expect("pipe");
        let (mut reader, sink) = std::io::pipe().expect("pipe");
        let run = Launch::nproxy(engine)
            .words(way)
            .directory(directory.path())
            .stdin(source)
            .stdout(sink)
            .start();
        writer.write_all(b"match\n").expect("write");
        let mut line = [0; 6];
        reader.read_exact(&mut line).expect("read");
        drop(reader);
        run.finish().expect_code(0).expect_silent();
        drop(writer);
    }
}

/// With bytes on their way a filter ends as cat does, and a command dies at its next write.
fn reader_leaves_bytes_behind(engine: Engine) {
    let directory = tempdir().expect("directory");
    for way in &WAYS[..5] {
        let (source, writer) = std::io::pipe().expect("pipe");
        let (reader, sink) = std::io::pipe().expect("pipe");
        let writer = Launch::peer("write").words("8M 64K").stdout(writer).start();
        let run = Launch::nproxy(engine)
            .words(way)
            .directory(directory.path())
            .stdin(source)
            .stdout(sink)
            .start();
        // Nobody reads, so everything fills up to the writer.
        proc::until_blocked_in_write(writer.pid());
        drop(reader);
        run.finish().expect_signal(Signal::SIGPIPE).expect_silent();
        writer.finish().expect_signal(Signal::SIGPIPE);
    }
    let (reader, sink) = std::io::pipe().expect("pipe");
    let run = Launch::nproxy(engine).words("peer write 8M 64K").stdout(sink).start();
    proc::until_blocked_in_write(proc::only_child(run.pid()));
    drop(reader);
    run.finish().expect_signal(Signal::SIGPIPE).expect_silent();
}

/// What is lost for another reason than a reader shows in the status, even if the command died of it.
fn device_that_is_full(engine: Engine) {
    let directory = tempdir().expect("directory");
    for flags in
        ["", "--tee log", "--text=strip-ansi", "--pty=always", "--pty=always --text=strip-ansi"]
    {
        let script = format!("nproxy {flags} yes >/dev/full; echo $?");
        let run = Launch::shell(engine, &script).directory(directory.path()).finish();
        run.expect_output("125\n").expect_one_line(&["write to stdout", "No space left"]);
    }
    // A child that meets the error and ends with a status of its own keeps it.
    let script = "nproxy sh -c 'trap \"\" PIPE; yes 2>/dev/null; exit 7' >/dev/full; echo $?";
    let run = Launch::shell(engine, script).finish();
    run.expect_output("7\n").expect_one_line(&["write to stdout"]);
}

/// A directory with `peer fuse`'s files in it, and a script that runs beside them.
fn beside_fuse(engine: Engine, size: &str, script: &str) -> Option<crate::outcome::Finished> {
    if !need(&["test", "-w", "/dev/fuse"]) || !need(&["unshare", "-m", "true"]) {
        return None;
    }
    let directory = tempdir().expect("directory");
    fs::create_dir(directory.path().join("mnt")).expect("directory");
    let run = Launch::program("unshare")
        .words("-m peer fuse mnt 580000")
        .args([size, "bash", "-c", script])
        .env("NPROXY_ENGINE", engine.name())
        .directory(directory.path())
        .finish();
    Some(run)
}

/// Quotas, NFS and FUSE may tell of lost bytes only when the file is closed.
fn error_at_close(engine: Engine) {
    for (command, status) in [
        ("echo hello | nproxy > mnt/sink", 125),
        ("echo hello | nproxy --text=strip-ansi > mnt/sink", 125),
        ("nproxy echo hello > mnt/sink", 125),
        ("nproxy --pty=always echo hello > mnt/sink", 125),
        ("nproxy --tee mnt/sink echo hello > out", 0),
        ("nproxy --tee mnt/sink --tee-text=strip-ansi echo hello > out", 0),
        ("nproxy --tee mnt/sink --tee-append --tee-strict echo hello > out", 125),
        ("nproxy --tee mnt/sink --tee-strict echo hello > out", 125),
        ("echo hello | nproxy --tee mnt/sink --tee-strict > out", 125),
    ] {
        let script = format!("{command}; echo $?");
        let Some(run) = beside_fuse(engine, "0", &script) else { return };
        run.expect_output(&format!("{status}\n")).expect_one_line(&["close", "uota exceeded"]);
    }
}

/// The end is where read(2) finds it, not where st_size says.
fn file_with_a_wrong_size(engine: Engine) {
    let whole = Digest::of_payload(580_000, 1);
    for size in ["0", "4096", "65536"] {
        for command in [
            "nproxy < mnt/source | peer read",
            "nproxy --tee log < mnt/source | peer read; peer read < log",
            "nproxy --tee log --tee-text=strip-ansi < mnt/source | peer read",
            "nproxy < mnt/source > out; peer read < out",
            "nproxy --stdin=relay cat < mnt/source | peer read",
            "nproxy --stdin=relay --pty=never cat < mnt/source | nproxy | peer read",
        ] {
            let script = format!("set -o pipefail; {command} || echo failed");
            let Some(run) = beside_fuse(engine, size, &script) else { return };
            let lines = command.matches("peer read").count();
            run.expect_silent().expect_output(&format!("{whole}\n").repeat(lines));
        }
    }
}

/// cat refuses it, because it would go on until the disk is full; a copy would empty what is being read.
fn file_that_would_feed_itself(engine: Engine) {
    let directory = tempdir().expect("directory");
    let file = directory.path().join("f");
    for command in [
        "nproxy < f >> f",
        "nproxy --tee f < f > /dev/null",
        "nproxy --tee f --tee-append < f > /dev/null",
        "nproxy --stdin=relay --tee f cat < f",
    ] {
        fs::write(&file, "here before\n").expect("write");
        let script = format!("{command}; echo $?");
        let run = Launch::shell(engine, &script).directory(directory.path()).finish();
        run.expect_output("125\n").expect_one_line(&[]);
        assert_eq!(fs::read(&file).expect("read"), b"here before\n", "{command}");
    }
    // Written before the place where it is read, and read only once: nothing comes back.
    fs::write(&file, "here before\n").expect("write");
    let run = Launch::shell(engine, "nproxy < f 1<> f").directory(directory.path()).finish();
    run.expect_code(0).expect_silent();
    assert_eq!(fs::read(&file).expect("read"), b"here before\n");
}

fn device_that_never_polls_writable(engine: Engine) {
    if !need(&["sh", "-c", "echo '<7>nproxy: a test writes to the kernel log' > /dev/kmsg"]) {
        return;
    }
    for command in ["echo '<7>nproxy: a test' | nproxy", "nproxy echo '<7>nproxy: a test'"] {
        let script = format!("{command} > /dev/kmsg; echo $?");
        Launch::shell(engine, &script).finish().expect_output("0\n").expect_silent();
    }
    let script = "nproxy --tee /dev/kmsg echo '<7>nproxy: a test'; echo $?";
    Launch::shell(engine, script).finish().expect_output("<7>nproxy: a test\n0\n").expect_silent();
}

/// A splice that fails while the source is empty is a failure all the same.
#[test]
fn splice_that_fails_between_two_writes() {
    if !strace_works() {
        return;
    }
    for nth in 1..6 {
        let fault = format!("inject=splice:error=EIO:when={nth}");
        let (source, writer) = std::io::pipe().expect("pipe");
        let run = Launch::program("strace")
            .args(["-o", "/dev/null", "-e", &fault, "nproxy", "--engine=epoll"])
            .stdin(source)
            .start();
        let writer =
            Launch::peer("write").words("300000 64K").stdout(OwnedFd::from(writer)).start();
        let run = run.finish();
        drop(writer);
        match run.status.code() {
            Some(0) => {
                run.expect_silent().expect_stdout(Digest::of_payload(300_000, 1));
            }
            _ => {
                run.expect_code(125).expect_one_line(&["Input/output error"]);
            }
        }
    }
}
