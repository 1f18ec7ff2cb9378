//! Legs that take nothing for a while, or for ever: by default the command waits, with `--tee-full=drop` it does not.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use tempfile::tempdir;

use crate::capture::Capture;
use crate::cli::tee::digest_of;
use crate::harness::accept::Accept as _;
use crate::harness::{Engine, Launch, on_both_engines, payload_bytes, payload_digest};
use crate::payload::{Digest, Hasher, Payload};
use crate::proc;

on_both_engines![
    peer_that_stalls_and_resumes,
    stalled_leg_holds_the_command,
    stalled_leg_is_left_once_the_command_has_ended,
    idle_leg_is_not_left,
    stalled_leg_loses_and_recovers,
    stalled_leg_of_both_streams,
    unread_leg_costs_no_time,
    term_while_a_leg_blocks,
];

/// A TCP peer sleeps until the command is blocked, and then takes everything: nothing is lost on either side.
fn peer_that_stalls_and_resumes(engine: Engine) {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bind");
    let name = format!("tcp:{}", tcp.local_addr().expect("address"));
    let run = Launch::nproxy(engine)
        .args(["--tee", &name, "--stats=json", "peer", "write"])
        .args([&payload_bytes().to_string(), "64K"])
        .start();
    let peer = tcp.connection();
    let child = proc::only_child(run.pid());
    proc::until_blocked_in_write(child);
    crate::cli::readers::expect_no_cpu(&run);
    let arrived = Capture::of(OwnedFd::from(peer));
    let run = run.finish();
    run.expect_code(0).expect_stdout(payload_digest());
    assert_eq!(digest_of(&arrived), payload_digest());
    run.expect(run.leg(&name, "lost_bytes") == 0, "nothing is lost");
}

/// A FIFO that is open and not read: `(reader, path)`. Opened to read and write, so that the open waits for nobody.
fn stalled_fifo(directory: &Path) -> fs::File {
    let path = directory.join("fifo");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("mkfifo");
    fs::OpenOptions::new().read(true).write(true).open(path).expect("open the FIFO")
}

/// Less than the pipes hold lets the command end while its last bytes still wait for the leg.
fn stalled_leg_is_left_once_the_command_has_ended(engine: Engine) {
    for target in ["fifo,wait=300ms", "|exec sleep 600,wait=300ms"] {
        let directory = tempdir().expect("directory");
        let _stalled = stalled_fifo(directory.path());
        let run = Launch::nproxy(engine)
            .args(["--tee", target, "head", "-c", "3000000", "/dev/zero"])
            .directory(directory.path())
            .finish();
        run.expect_code(0).expect(run.stdout.digest.bytes == 3_000_000, "all of stdout");
        run.expect_message(&["bytes were not written there"]);
        run.expect(run.left.is_empty(), "nothing is left");
    }
}

/// What the command has left behind writes now and then: a leg that takes what comes is no stalled one, however seldom that
/// is and whatever it holds of a line.
fn idle_leg_is_not_left(engine: Engine) {
    let script = "(for i in 1 2 3 4 5 6 7 8 9; do sleep .21; echo $i; done; printf open) &";
    for modes in ["", ",text=screen", ",full=drop"] {
        let directory = tempdir().expect("directory");
        let path = directory.path().join("fifo");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("mkfifo");
        let reader = std::thread::spawn(move || fs::read_to_string(path).expect("the FIFO"));
        let run = Launch::nproxy(engine)
            .words("--linger=eof --tee-strict --tee")
            .arg(format!("fifo,wait=0s{modes}"))
            .args(["--tee", "|cat >command,wait=9s", "sh", "-c", script])
            .directory(directory.path())
            .finish();
        let lines = "1\n2\n3\n4\n5\n6\n7\n8\n9\nopen";
        run.expect_code(0).expect_output(lines).expect_silent();
        // A screen ends the line that was open.
        assert_eq!(reader.join().expect("the reader").trim_end(), lines, "{modes}");
        let command = fs::read_to_string(directory.path().join("command")).expect("the copy");
        assert_eq!(command, lines, "{modes}");
    }
}

/// By default a leg that takes nothing stops the command, and costs nothing meanwhile.
fn stalled_leg_holds_the_command(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut stalled = stalled_fifo(directory.path());
    let run = Launch::nproxy(engine)
        .words("--tee fifo peer write")
        .args([&payload_bytes().to_string(), "64K"])
        .directory(directory.path())
        .start();
    let child = proc::only_child(run.pid());
    proc::until_blocked_in_write(child);
    crate::cli::readers::expect_no_cpu(&run);
    // The FIFO stays open to be written by us, so its end shows in the count only; nor may its reader leave early.
    let taker = std::thread::spawn(move || {
        let mut left = payload_bytes() as usize;
        let mut chunk = vec![0; 1 << 20];
        let mut hasher = Hasher::default();
        while left > 0 {
            let length = stalled.read(&mut chunk).expect("read");
            hasher.update(&chunk[..length]);
            left -= length;
        }
        (hasher.digest(), stalled)
    });
    run.finish().expect_code(0).expect_silent().expect_stdout(payload_digest());
    assert_eq!(taker.join().expect("taker").0, payload_digest());
}

/// With `drop` the main path goes on; what the leg gets before and after the gap is whole, and a line stands between.
fn stalled_leg_loses_and_recovers(engine: Engine) {
    let directory = tempdir().expect("directory");
    let mut stalled = stalled_fifo(directory.path());
    let (stdin, mut keyboard) = std::io::pipe().expect("pipe");
    let script = format!("peer write {} 64K; while read x; do echo $x; done", payload_bytes());
    let run = Launch::nproxy(engine)
        .words("--tee fifo --tee-full=drop --stats=json")
        .args(["bash", "-c", &script])
        .directory(directory.path())
        .stdin(stdin)
        .start();
    run.stdout.as_ref().expect("captured").wait_for_bytes(payload_bytes());
    let (seen, marked) = std::sync::mpsc::channel();
    let taker = std::thread::spawn(move || {
        let mut got = Vec::new();
        let mut chunk = vec![0; 1 << 20];
        while !got.ends_with(b"end\n") {
            let length = stalled.read(&mut chunk).expect("read");
            got.extend_from_slice(&chunk[..length]);
            if got.ends_with(b"again\n") {
                let _ = seen.send(());
            }
        }
        got
    });
    // Lines are lost until the FIFO and the pipe before it have been read far enough.
    let mut lines = 0;
    proc::until("the leg to take lines again", || {
        lines += 1;
        writeln!(keyboard, "again").expect("line");
        marked.try_recv().ok()
    });
    writeln!(keyboard, "end").expect("line");
    drop(keyboard);
    let run = run.finish();
    let bytes = payload_bytes() + 6 * lines + 4;
    run.expect_code(0).expect(run.stdout.digest.bytes == bytes, "the main path is complete");
    let got = taker.join().expect("taker");
    let lost = run.leg("fifo", "lost_bytes");
    let marker = format!("\n[nproxy: {lost} bytes dropped here]\n");
    run.expect(lost > 0 && got.len() as u64 + lost == bytes + marker.len() as u64, "the counts");
    run.expect(run.leg("fifo", "bytes") == got.len() as u64, "what it got, the marker included");
    let mut payload = vec![0; payload_bytes() as usize];
    Payload::new(payload_bytes(), 1).fill(&mut payload);
    let gap = got.iter().zip(&payload).take_while(|(got, sent)| got == sent).count();
    // The marker's line feed may be by chance what would have come next.
    let rest = [gap, gap.saturating_sub(1)].map(|at| &got[at..]);
    let rest = rest.into_iter().find_map(|rest| rest.strip_prefix(marker.as_bytes()));
    let rest = rest.unwrap_or_else(|| run.fail("a marker stands for the gap"));
    let rest = String::from_utf8_lossy(rest);
    run.expect(rest.trim_start_matches("again\n") == "end\n", "what came after is whole");
    run.expect_message(&[&format!("fifo: {lost} bytes were not written there")]);
}

/// Both streams share the leg: neither may wait for it, whatever fills it first.
fn stalled_leg_of_both_streams(engine: Engine) {
    let directory = tempdir().expect("directory");
    let _stalled = stalled_fifo(directory.path());
    let half = payload_bytes() / 2;
    let run = Launch::nproxy(engine)
        .words("--tee fifo --tee-full=drop peer write-both")
        .arg(half.to_string())
        .directory(directory.path())
        .finish();
    run.expect_code(0).expect_stdout(Digest::of_payload(half, 1));
    run.expect(run.stderr.digest.bytes > half, "stderr, and the notice behind it");
}

/// The main path with a leg that drops everything takes as long as without one, but for noise.
fn unread_leg_costs_no_time(engine: Engine) {
    let directory = tempdir().expect("directory");
    let _stalled = stalled_fifo(directory.path());
    let once = |flags: &str| -> Duration {
        let run = Launch::nproxy(engine)
            .words(flags)
            .words("-q peer vmsplice-write")
            .arg((payload_bytes() * 8).to_string())
            .directory(directory.path())
            .stdout(Stdio::from(
                fs::OpenOptions::new().write(true).open("/dev/null").expect("open"),
            ))
            .finish();
        run.expect_code(0).expect_silent();
        run.elapsed
    };
    // The leg is given up at the end when it has taken nothing for so long.
    let grace = Duration::from_millis(200);
    // By turns, because a machine is busy for longer than one run takes.
    let (mut without, mut with) = (Duration::MAX, Duration::MAX);
    for _ in 0..5 {
        without = without.min(once(""));
        with = with.min(once("--tee fifo,wait=200ms --tee-full=drop"));
    }
    assert!(
        with < without * 2 + grace + Duration::from_millis(100),
        "{with:?} with a stalled leg, {without:?} without"
    );
}

/// TERM reaches the command although its leg takes nothing, and the leg does not hold up the end.
fn term_while_a_leg_blocks(engine: Engine) {
    let directory = tempdir().expect("directory");
    let _stalled = stalled_fifo(directory.path());
    let run = Launch::nproxy(engine)
        .words("--tee fifo peer write")
        .args([&payload_bytes().to_string(), "64K"])
        .directory(directory.path())
        .start();
    let child = proc::only_child(run.pid());
    proc::until_blocked_in_write(child);
    run.signal(Signal::SIGTERM);
    run.finish()
        .expect_signal(Signal::SIGTERM)
        .expect_one_line(&["fifo", "were not written there"]);
}
