//! Legs that break or were never there: the main path goes on, the loss is counted, and one line tells of it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use tempfile::tempdir;

use crate::cli::tee::{digest_of, fifo};
use crate::coloured::{Form, Text};
use crate::harness::accept::Accept as _;
use crate::harness::{
    Engine, Launch, digest_of_file, need, on_both_engines, payload_bytes, payload_digest,
    text_bytes,
};
use crate::outcome::Finished;
use crate::payload::Digest;
use crate::proc;

on_both_engines![
    full_disk,
    full_device,
    reader_of_a_fifo_leaves,
    readers_of_sockets_leave,
    one_leg_of_three_breaks,
    reader_of_the_main_output_leaves,
    main_output_that_cannot_be_written,
    leg_of_a_pipe_that_outlives_the_command,
    fifo_without_a_reader,
    reader_of_a_fifo_comes_late,
    late_reader_of_a_fifo_leaves,
    peer_that_talks_and_reads_late,
    what_is_dropped_falls_short_of_strict,
    command_that_has_had_enough,
    targets_that_cannot_be_opened,
];

/// The main path was complete, and of the leg one message told.
#[track_caller]
fn expect_loss(run: &Finished, name: &str, why: &str, bytes: u64) {
    run.expect_message(&[&format!("write to {name}"), why]);
    let (written, lost) = (run.leg(name, "bytes"), run.leg(name, "lost_bytes"));
    run.expect(written + lost == bytes && lost > 0, &format!("{written} + {lost} of {bytes}"));
    run.expect_message(&[&format!("{name}: {lost} bytes were not written there")]);
}

/// A disk that fills up keeps what fits; the command and its output are not concerned.
fn full_disk(engine: Engine) {
    if !need(&["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]) {
        return;
    }
    let bytes = payload_bytes();
    for (flags, status) in
        [("", 0), ("--tee-append", 0), ("--tee-strict", 125), ("--tee-full=drop", 0)]
    {
        let directory = tempdir().expect("directory");
        let script = format!(
            "mkdir disk; mount -t tmpfs -o size=2m none disk && nproxy --stats=json --tee disk/log {flags} peer write {bytes} 64K
             echo $? > status; peer read < disk/log > log"
        );
        let run = Launch::program("unshare")
            .args(["-rm", "bash", "-c", &script])
            .env("NPROXY_ENGINE", engine.name())
            .directory(directory.path())
            .finish();
        run.expect_stdout(payload_digest());
        let read = |name| fs::read_to_string(directory.path().join(name)).expect("result");
        run.expect(read("status") == format!("{status}\n"), &format!("status {}", read("status")));
        if flags == "--tee-full=drop" {
            // A disk that is slow may have lost some before it was full, with markers for them in its place.
            run.expect_message(&["write to disk/log", "No space left on device"]);
            let (written, lost) = (run.leg("disk/log", "bytes"), run.leg("disk/log", "lost_bytes"));
            run.expect(
                written <= 2 << 20 && (bytes..bytes + 4096).contains(&(written + lost)),
                &format!("{written} + {lost} of {bytes}"),
            );
            continue;
        }
        expect_loss(&run, "disk/log", "No space left on device", bytes);
        run.expect(
            read("log") == format!("{}\n", Digest::of_payload(2 << 20, 1)),
            "the disk is full",
        );
        run.expect(run.leg("disk/log", "bytes") == 2 << 20, "what is on the disk is counted");
    }
}

fn full_device(engine: Engine) {
    for (flags, status) in [("", 0), ("--tee-text=strip-ansi", 0), ("--tee-strict", 125)] {
        let run = Launch::nproxy(engine)
            .words("--tee /dev/full --stats=json")
            .words(flags)
            .words("echo x")
            .finish();
        run.expect_code(status).expect_output("x\n");
        expect_loss(&run, "/dev/full", "No space left on device", 2);
        // A command that fails keeps its own status.
        let run = Launch::nproxy(engine)
            .words("--tee /dev/full")
            .words(flags)
            .args(["sh", "-c", "echo x; exit 3"])
            .finish();
        run.expect_code(3).expect_output("x\n");
    }
}

fn reader_of_a_fifo_leaves(engine: Engine) {
    for (flags, status) in [("", 0), ("--tee-text=strip-ansi", 0), ("--tee-strict", 125)] {
        let directory = tempdir().expect("directory");
        let script = format!(
            "mkfifo fifo; head -c 200000 < fifo | wc -c > got &
             nproxy --tee fifo --stats=json {flags} peer text $BYTES 64K; status=$?; wait; cat got >&2; exit $status"
        );
        let bytes = text_bytes();
        let run = Launch::shell(engine, &script)
            .env("BYTES", bytes.to_string())
            .directory(directory.path())
            .finish();
        run.expect_code(status).expect_stdout(Text::digest(bytes, Form::Coloured));
        let text = run.stderr.text();
        run.expect(text.ends_with("\n200000\n"), "the reader has read");
        run.expect(text.matches("write to fifo: Broken pipe").count() == 1, "one line tells of it");
        run.expect(text.matches("bytes were not written there").count() == 1, "and of the loss");
    }
}

fn readers_of_sockets_leave(engine: Engine) {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("socket");
    let unix = UnixListener::bind(&path).expect("bind");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bind");
    let names =
        [format!("unix:{}", path.display()), format!("tcp:{}", tcp.local_addr().expect("address"))];
    let leaves = std::thread::spawn(move || {
        let (mut unix, mut tcp) = (unix.connection(), tcp.connection());
        let mut bite = vec![0; 100_000];
        unix.read_exact(&mut bite).expect("read");
        tcp.read_exact(&mut bite).expect("read");
    });
    let run = Launch::nproxy(engine)
        .args(names.each_ref().map(|name| format!("--tee={name},full=drop,wait=100ms")))
        .words("--stats=json peer write")
        .args([&payload_bytes().to_string(), "64K"])
        .finish();
    leaves.join().expect("reader");
    run.expect_code(0).expect_stdout(payload_digest());
    for name in &names {
        // It may have been connected again before the listener was closed, and have been left once more.
        let left = format!("write to {name}");
        let told = run.stderr.text();
        let mut lines = told.lines();
        let told = lines.any(|line| line.contains(&left) && line.contains("it is tried again"));
        run.expect(told, "it is told that the reader has left");
        let (written, lost) = (run.leg(name, "bytes"), run.leg(name, "lost_bytes"));
        // Markers were written that the streams do not have.
        run.expect(written + lost >= payload_bytes() && lost > 0, &format!("{written} + {lost}"));
    }
}

/// The others get everything.
fn one_leg_of_three_breaks(engine: Engine) {
    let directory = tempdir().expect("directory");
    let arrived = fifo(&directory.path().join("fifo"));
    let run = Launch::nproxy(engine)
        .words("--tee fifo --tee /dev/full --tee file --stats=json peer write")
        .args([&payload_bytes().to_string(), "random"])
        .directory(directory.path())
        .finish();
    run.expect_code(0).expect_stdout(payload_digest());
    expect_loss(&run, "/dev/full", "No space left on device", payload_bytes());
    assert_eq!(digest_of(&arrived), payload_digest());
    assert_eq!(digest_of_file(&directory.path().join("file"), 0), payload_digest());
}

/// `| head`: the command meets a closed pipe, as behind tee(1), and the log has what it wrote until then. A filter may
/// find nothing on its way when the reader leaves.
fn reader_of_the_main_output_leaves(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = "
        nproxy --tee log yes | head -n 3; echo ${PIPESTATUS[@]}
        yes | nproxy --tee flog | head -n 3; echo ${PIPESTATUS[@]}
        nproxy --tee tlog --tee-text=strip-ansi --text=strip-ansi yes | head -n 3; echo ${PIPESTATUS[@]}
        for log in log flog tlog; do uniq $log | head -n 1; done";
    let run = Launch::shell(engine, script)
        .directory(directory.path())
        .limit(Duration::from_secs(20))
        .finish();
    let (three, died) = ("y\n".repeat(3), "141 0\n");
    run.expect_code(0).expect_silent();
    let text = run.stdout.text().replace("\n141 0 0\n", "\n141 141 0\n");
    let expected = format!("{three}{died}{three}141 141 0\n{three}{died}y\ny\ny\n");
    run.expect(text == expected, &format!("expected {expected:?}"));
}

/// The screen is closed or full: the log still has what could be had.
fn main_output_that_cannot_be_written(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = "
        nproxy --tee log sh -c 'echo out; echo err >&2' >&-; echo $?; cat log
        echo x | nproxy --tee log > /dev/full; echo $?; cat log";
    let run = Launch::shell(engine, script).directory(directory.path()).finish();
    let text = run.stdout.text();
    run.expect(text == "125\nout\nerr\n125\nx\n" || text == "125\nerr\nout\n125\nx\n", "logs");
    run.expect(run.stderr.text().matches("nproxy: write to stdout").count() == 2, "told");
}

/// A background process holds the pipe: nproxy leaves it after the silence, and the log ends there too.
fn leg_of_a_pipe_that_outlives_the_command(engine: Engine) {
    let directory = tempdir().expect("directory");
    let started = Instant::now();
    let run = Launch::nproxy(engine)
        .words("--tee log")
        .args(["sh", "-c", "sleep 60 & echo $! > pid; echo hi"])
        .directory(directory.path())
        .start();
    let left = run.process("sleep 60");
    let capture_ends = proc::until("the end of nproxy", || {
        matches!(proc::state(run.pid()), 'Z' | 'X').then(|| started.elapsed())
    });
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(left), Signal::SIGKILL);
    let run = run.finish();
    run.expect_code(0).expect_output("hi\n").expect_one_line(&["leave", "--linger"]);
    run.expect(capture_ends < Duration::from_secs(20), "it was left");
    assert_eq!(fs::read_to_string(directory.path().join("log")).expect("log"), "hi\n");
    // And with eof it is waited for.
    let run = Launch::nproxy(engine)
        .words("--linger=eof --tee log")
        .args(["sh", "-c", "echo hi; (sleep 0.5; echo late) &"])
        .directory(directory.path())
        .finish();
    run.expect_code(0).expect_silent().expect_output("hi\nlate\n");
    assert_eq!(fs::read_to_string(directory.path().join("log")).expect("log"), "hi\nlate\n");
}

/// Opening a FIFO waits for its reader; the user may lose patience first, and then nothing was started.
fn fifo_without_a_reader(engine: Engine) {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let directory = tempdir().expect("directory");
        nix::unistd::mkfifo(&directory.path().join("fifo"), Mode::S_IRWXU).expect("mkfifo");
        let run = Launch::nproxy(engine)
            .words("--tee fifo touch started")
            .directory(directory.path())
            .start();
        // Before that, it sleeps nowhere.
        proc::until("nproxy to wait for a reader", || {
            (proc::command_line(run.pid()).contains("touch") && proc::state(run.pid()) == 'S')
                .then_some(())
        });
        run.signal(signal);
        run.finish().expect_signal(signal).expect_silent();
        assert!(!directory.path().join("started").exists(), "nothing was started");
    }
}

/// Closing a socket with input unread would make the kernel throw away what its peer has not read yet.
fn peer_that_talks_and_reads_late(engine: Engine) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let run = Launch::nproxy(engine)
        .words("--tee-strict --stats=json --tee")
        .arg(format!("tcp:{address}"))
        .args(["peer", "write", "3000000", "64K"])
        .start();
    let mut peer = listener.connection();
    peer.write_all(b"welcome\n").expect("write");
    // The run is over, but for what the peer has not heard yet.
    run.stdout.as_ref().expect("captured").wait_for_bytes(3_000_000);
    assert_eq!(crate::capture::digest(&mut peer), Digest::of_payload(3_000_000, 1));
    drop(peer);
    let run = run.finish();
    run.expect_code(0);
    run.expect(run.leg(format!("tcp:{address}").as_str(), "lost_bytes") == 0, "nothing lost");
}

/// Whoever asks for both wants no delay, and to know.
fn what_is_dropped_falls_short_of_strict(engine: Engine) {
    for (flags, status) in [("--tee-full=drop", 0), ("--tee-full=drop --tee-strict", 125)] {
        let directory = tempdir().expect("directory");
        let path = directory.path().join("fifo");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("mkfifo");
        let _unread = fs::File::options().read(true).write(true).open(&path).expect("open");
        let run = Launch::nproxy(engine)
            .words(flags)
            .words("--tee fifo peer write 9000000 64K")
            .directory(directory.path())
            .finish();
        run.expect_code(status).expect_one_line(&["fifo", "were not written there"]);
    }
    // And one that nobody reads at all holds up nothing, and is named.
    for (strict, code) in [("", 0), ("--tee-strict", 125)] {
        let directory = tempdir().expect("directory");
        nix::unistd::mkfifo(&directory.path().join("fifo"), Mode::S_IRWXU).expect("mkfifo");
        let run = Launch::nproxy(engine)
            .words("--tee-full=drop --tee fifo,wait=100ms")
            .words(strict)
            .args(["peer", "write", &payload_bytes().to_string(), "64K"])
            .directory(directory.path())
            .finish();
        run.expect_code(code).expect_stdout(payload_digest());
        run.expect_message(&[
            "fifo: no reader has opened it; until then what its pipes cannot hold is dropped",
        ]);
        run.expect_message(&["fifo: ", " bytes were not written there"]);
    }
}

/// It ends well, and early. That is a loss only if there is more to come.
fn command_that_has_had_enough(engine: Engine) {
    let wait = "echo one; until [ -s first ]; do sleep .1; done";
    for (rest, code) in [("", 0), ("; echo two", 125)] {
        let directory = tempdir().expect("directory");
        let run = Launch::nproxy(engine)
            .args(["--tee-strict", "--tee", "|head -n 1 >first", "sh", "-c"])
            .arg(format!("{wait}{rest}"))
            .directory(directory.path())
            .finish();
        run.expect_code(code).expect_output(if code == 0 { "one\n" } else { "one\ntwo\n" });
        match code {
            0 => run.expect_silent(),
            _ => run.expect_message(&["|head -n 1 >first: 4 bytes were not written there"]),
        };
        let first = fs::read_to_string(directory.path().join("first")).expect("the copy");
        assert_eq!(first, "one\n");
    }
}

/// A FIFO that may lose bytes is not waited for, and a reader that comes later gets what comes then, and what the pipes
/// still hold.
fn reader_of_a_fifo_comes_late(engine: Engine) {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("fifo");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("mkfifo");
    let script = "echo early; until [ -e go ]; do sleep .05; done; echo late";
    let run = Launch::nproxy(engine)
        .words("--tee-full=drop --tee fifo --stats=json")
        .args(["sh", "-c", script])
        .directory(directory.path())
        .start();
    run.stdout.as_ref().expect("its output").wait_for("early\n", 1);
    // Opening it waits until nproxy has opened it too.
    let mut reader = fs::File::open(&path).expect("open");
    fs::write(directory.path().join("go"), "").expect("go");
    let mut got = String::new();
    reader.read_to_string(&mut got).expect("read");
    assert_eq!(got, "early\nlate\n");
    let run = run.finish();
    run.expect_code(0).expect_output("early\nlate\n");
    run.expect(run.leg("fifo", "lost_bytes") == 0, "nothing is lost");
}

/// One whose late reader leaves again ends, and says so.
fn late_reader_of_a_fifo_leaves(engine: Engine) {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("fifo");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("mkfifo");
    let script = format!(
        "echo early; until [ -e go ]; do sleep .05; done; exec peer write {} 64K",
        payload_bytes()
    );
    let run = Launch::nproxy(engine)
        .words("--tee-full=drop --tee fifo --stats=json")
        .args(["sh", "-c", &script])
        .directory(directory.path())
        .start();
    let mut reader = fs::File::open(&path).expect("open");
    let mut got = [0; 6];
    reader.read_exact(&mut got).expect("read");
    drop(reader);
    fs::write(directory.path().join("go"), "").expect("go");
    let run = run.finish();
    run.expect_code(0).expect(run.stdout.digest.bytes == payload_bytes() + 6, "the main path");
    expect_loss(&run, "fifo", "Broken pipe", payload_bytes() + 6);
}

/// One line, 125, and the command is never started.
fn targets_that_cannot_be_opened(engine: Engine) {
    let directory = tempdir().expect("directory");
    let cases = [
        ("nowhere/log", "No such file"),
        (".", "Is a directory"),
        ("tcp:localhost", "tcp:HOST:PORT"),
        ("tcp:localhost:99999", "tcp:HOST:PORT"),
        ("/dev/fd/99", "Bad file descriptor"),
        ("/dev/fd/x", "not the number of an fd"),
        ("", "--tee"),
        // It is no FIFO that waits for its reader, although open(2) says the same of both.
        ("socket", "No such device or address"),
        ("socket,full=drop", "No such device or address"),
    ];
    let _listener = UnixListener::bind(directory.path().join("socket")).expect("bind");
    for (target, why) in cases {
        let run = Launch::nproxy(engine)
            .args(["--tee", target, "touch", "started"])
            .directory(directory.path())
            .finish();
        run.expect_code(125)
            .expect_output("")
            .expect_one_line(&[target.split(',').next().unwrap_or_default(), why]);
        run.expect(!directory.path().join("started").exists(), "nothing was started");
    }
}
