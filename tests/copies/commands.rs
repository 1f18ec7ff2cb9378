//! Commands as copies.

use std::fs;

use nix::sys::signal::Signal;
use tempfile::tempdir;

use crate::harness::{
    Engine, Launch, digest_of_file, on_both_engines, payload_bytes, payload_digest,
};
use crate::payload::Digest;
use crate::proc;

on_both_engines![
    a_command_gets_every_byte,
    its_failure_is_told,
    it_is_started_again,
    the_next_one_reads_on,
    it_reads_on_after_the_end_too,
    what_nobody_reads_is_lost,
    one_that_does_not_read_is_left_at_the_end,
    one_that_reads_slowly_is_waited_for,
    what_it_leaves_unread_it_has_missed,
    what_it_leaves_behind_may_read_on,
    keys_do_not_reach_it,
];

fn a_command_gets_every_byte(engine: Engine) {
    let directory = tempdir().expect("directory");
    let run = Launch::nproxy(engine)
        .args([
            "--stats=json",
            "--tee=|cat > got",
            "peer",
            "write",
            &payload_bytes().to_string(),
            "64K",
        ])
        .directory(directory.path())
        .finish();
    run.expect_code(0).expect_stdout(payload_digest());
    run.expect(run.leg("|cat > got", "bytes") == payload_bytes(), "all is counted");
    assert_eq!(digest_of_file(&directory.path().join("got"), 0), payload_digest());
}

fn its_failure_is_told(engine: Engine) {
    for (flags, status) in [("", 0), ("--tee-strict", 125)] {
        let run = Launch::nproxy(engine)
            .words(flags)
            .args(["--tee=|cat >/dev/null; exit 3", "echo", "x"])
            .finish();
        run.expect_code(status).expect_output("x\n").expect_one_line(&["|cat", "exit status 3"]);
    }
    // One that leaves early holds nothing up.
    let run = Launch::nproxy(engine)
        .args(["--tee=|exit 4", "peer", "write", &payload_bytes().to_string(), "64K"])
        .finish();
    run.expect_code(0).expect_stdout(payload_digest());
    run.expect_message(&["|exit 4", "exit status 4"]);
    run.expect_message(&["|exit 4", "bytes were not written there"]);
}

fn it_is_started_again(engine: Engine) {
    let directory = tempdir().expect("directory");
    let run = Launch::nproxy(engine)
        .args(["--tee=|read -r line || exit 0; echo \"$line\" >> lines; exit 1,restart=on-failure"])
        .args(["sh", "-c", "for n in 1 2 3; do echo $n; while ! grep -qx $n lines 2>/dev/null; do sleep 0.02; done; done"])
        .directory(directory.path())
        .finish();
    run.expect_code(0).expect_output("1\n2\n3\n");
    assert_eq!(fs::read_to_string(directory.path().join("lines")).expect("lines"), "1\n2\n3\n");
}

/// What it has left in its pipe the next one gets.
fn the_next_one_reads_on(engine: Engine) {
    let directory = tempdir().expect("directory");
    let run = Launch::nproxy(engine)
        .args([
            "--tee=|read -r line && echo \"$line\" >> lines; [ \"$line\" = 5 ],restart=on-failure",
        ])
        .args(["sh", "-c", "seq 1 5; until grep -qx 5 lines 2>/dev/null; do sleep 0.02; done"])
        .directory(directory.path())
        .finish();
    run.expect_output("1\n2\n3\n4\n5\n");
    let lines = fs::read_to_string(directory.path().join("lines")).expect("lines");
    assert_eq!(lines, "1\n2\n3\n4\n5\n");
}

/// Also when all has been written: what it had not read when it failed is no less of the copy.
fn it_reads_on_after_the_end_too(engine: Engine) {
    let directory = tempdir().expect("directory");
    let run = Launch::nproxy(engine)
        .args(["--stats=json"])
        .args([
            "--tee=|read -r line && echo \"$line\" >> lines; [ \"$line\" = 5 ],restart=on-failure",
        ])
        .args(["seq", "1", "5"])
        .directory(directory.path())
        .finish();
    run.expect_code(0).expect_output("1\n2\n3\n4\n5\n");
    let lines = fs::read_to_string(directory.path().join("lines")).expect("lines");
    assert_eq!(lines, "1\n2\n3\n4\n5\n");
}

/// Whatever the command does with its stdin and its status.
fn what_nobody_reads_is_lost(engine: Engine) {
    for command in ["exit 3", "exec <&-; exit 3", "exec <&-; trap '' TERM; sleep 1; exit 3"] {
        for keys in ["", ",restart=on-failure"] {
            let copy = format!("|{command},wait=300ms{keys}");
            let run = Launch::nproxy(engine)
                .args(["--stats=json", &format!("--tee={copy}"), "peer", "write", "40000", "1K"])
                .finish();
            run.expect_code(0);
            let figures = |name: &str| run.leg(format!("|{command}"), name);
            let (bytes, lost) = (figures("bytes"), figures("lost_bytes"));
            run.expect((bytes, lost) == (0, 40000), &format!("{copy}: {bytes} bytes, {lost} lost"));
        }
    }
}

/// And what it did not take is told.
fn one_that_does_not_read_is_left_at_the_end(engine: Engine) {
    let run = Launch::nproxy(engine)
        .args(["--tee=|exec sleep 1000,full=drop,wait=300ms"])
        .args(["peer", "write", &payload_bytes().to_string(), "64K"])
        .finish();
    run.expect_code(0).expect_stdout(payload_digest());
    run.expect_message(&["|exec sleep 1000", "bytes were not written there"]);
}

/// What a key does to the command is not done to the copy: it ends when its input does.
fn keys_do_not_reach_it(engine: Engine) {
    let directory = tempdir().expect("directory");
    let run = Launch::nproxy(engine)
        .args([
            "--tee=|cat > got",
            "sh",
            "-c",
            "trap 'trap \"\" INT; echo bye; exit 7' INT; echo hello; while :; do sleep 0.05; done",
        ])
        .directory(directory.path())
        .start();
    let got = directory.path().join("got");
    proc::until("the first line", || (fs::read(&got).ok()? == b"hello\n").then_some(()));
    // As a terminal does, to the whole group.
    nix::sys::signal::killpg(nix::unistd::Pid::from_raw(run.pid()), Signal::SIGINT).expect("kill");
    run.finish().expect_code(7);
    assert_eq!(fs::read(got).expect("got"), b"hello\nbye\n");
}

/// One that takes little at a time gets the time that it needs, whether all of it lies in its pipe or the pipe is full.
fn one_that_reads_slowly_is_waited_for(engine: Engine) {
    let directory = tempdir().expect("directory");
    let start = |command: &str, output: &[&str]| {
        let run = Launch::nproxy(engine).arg("--tee-strict");
        let run = run.arg(format!("--tee=|{command},wait=3s")).args(output);
        run.directory(directory.path()).start()
    };
    let lines = "while read -r line; do sleep 0.5; echo $line; done > lines";
    // In less than a page, which is all that there is room for, there is none.
    let pieces = "{ for n in 1 2 3 4 5 6 7 8 9; do dd bs=400 count=1 2>/dev/null; sleep 0.5; done; cat; } > pieces";
    let first = start(lines, &["seq", "1", "10"]);
    let second = start(pieces, &["peer", "write", "300000", "64K"]);
    first.finish().expect_code(0).expect_silent();
    second.finish().expect_code(0).expect_silent();
    let lines = fs::read_to_string(directory.path().join("lines")).expect("lines");
    assert_eq!(lines, "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n");
    let pieces = digest_of_file(&directory.path().join("pieces"), 0);
    assert_eq!(pieces, Digest::of_payload(300_000, 1));
}

/// Whichever ends first, the command or what it reads.
fn what_it_leaves_unread_it_has_missed(engine: Engine) {
    let stays = "; until [ -s first ]; do sleep 0.02; done";
    // The pause lets its input end first, mostly: no outcome hangs on it.
    for (rest, pause) in [("", "; sleep 0.3"), ("", ""), (stays, "")] {
        for (lines, status) in [(1, 0), (5, 125)] {
            let directory = tempdir().expect("directory");
            let run = Launch::nproxy(engine)
                .arg("--tee-strict")
                .arg(format!("--tee=|read -r line; echo $line > first{pause}"))
                .args(["sh", "-c", &format!("seq 1 {lines}{rest}")])
                .directory(directory.path())
                .finish();
            run.expect_code(status);
            assert_eq!(fs::read(directory.path().join("first")).expect("first"), b"1\n");
            if status == 0 {
                run.expect_silent();
            } else {
                run.expect_message(&["|read -r line", "exit status 0, 8 bytes unread"]);
                run.expect_message(&["|read -r line", "8 bytes were not written there"]);
            }
        }
    }
}

/// What somebody can still read is not lost.
fn what_it_leaves_behind_may_read_on(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = "
        nproxy --tee-strict --tee '|exec 3<&0; { until [ -e go ]; do sleep 0.02; done; cat > got; } <&3 & exit 0' seq 1 5
        echo $?; touch go; until [ -s got ]; do sleep 0.02; done; cat got";
    let run = Launch::shell(engine, script).directory(directory.path()).finish();
    run.expect_code(0).expect_output("1\n2\n3\n4\n5\n0\n1\n2\n3\n4\n5\n").expect_silent();
}
