//! Legs: every kind of target gets what the main output gets, clean or as it is, while the command runs.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::stat::Mode;
use tempfile::tempdir;

use crate::capture::Capture;
use crate::coloured::{Form, Text};
use crate::ends::Source;
use crate::harness::accept::Accept as _;
use crate::harness::{
    Engine, Launch, digest_of_file, on_both_engines, payload_bytes, payload_digest, text_bytes,
    time_limit,
};
use crate::payload::Digest;
use crate::proc;

on_both_engines![
    every_target_at_once,
    legs_of_a_filter,
    inherited_descriptors,
    standard_streams_by_name,
    many_legs,
    clean_log,
    clean_log_behind_slow_readers,
    log_with_timestamps,
    log_is_emptied,
    log_is_not_emptied_in_vain,
    sessions_share_a_log,
    bytes_are_there_at_once,
    streams_of_a_leg,
    both_streams_in_one_order,
    nothing_is_copied,
];

/// Something behind `--tee` that takes bytes in.
pub(crate) fn fifo(path: &Path) -> Capture {
    nix::unistd::mkfifo(path, Mode::S_IRWXU).expect("mkfifo");
    // Opening it to write as well waits for nobody; dropped with the capture's thread, it would hide the end.
    let name = path.to_owned();
    let (reader, writer) = std::io::pipe().expect("pipe");
    std::thread::spawn(move || {
        let mut fifo = File::open(name).expect("open the FIFO");
        let mut writer = File::from(OwnedFd::from(writer));
        let _ = std::io::copy(&mut fifo, &mut writer);
    });
    Capture::of(reader)
}

#[track_caller]
pub(crate) fn digest_of(capture: &Capture) -> Digest {
    let captured = capture.finish(std::time::Instant::now() + time_limit());
    captured.expect("the end of a leg").digest
}

/// A Unix and a TCP listener, the names to give to `--tee`, and what arrives at the first who connects.
fn sockets(directory: &Path) -> ([String; 2], [Capture; 2]) {
    let path = directory.join("socket");
    let unix = UnixListener::bind(&path).expect("bind");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bind");
    let names =
        [format!("unix:{}", path.display()), format!("tcp:{}", tcp.local_addr().expect("address"))];
    let (unix_reader, unix_writer) = std::io::pipe().expect("pipe");
    let (tcp_reader, tcp_writer) = std::io::pipe().expect("pipe");
    std::thread::spawn(move || {
        let mut from = unix.connection();
        let _ = std::io::copy(&mut from, &mut File::from(OwnedFd::from(unix_writer)));
    });
    std::thread::spawn(move || {
        let mut from = tcp.connection();
        let _ = std::io::copy(&mut from, &mut File::from(OwnedFd::from(tcp_writer)));
    });
    (names, [Capture::of(unix_reader), Capture::of(tcp_reader)])
}

/// A file, a FIFO, /dev/null and two sockets: all get every byte, and the statistics know each by its name.
fn every_target_at_once(engine: Engine) {
    let directory = tempdir().expect("directory");
    let (names, captures) = sockets(directory.path());
    let fifo = fifo(&directory.path().join("fifo"));
    let all = [names[0].as_str(), names[1].as_str(), "file", "fifo", "/dev/null"];
    let run = Launch::nproxy(engine)
        .args(all.map(|name| format!("--tee={name}")))
        .words("--stats=json peer write")
        .args([&payload_bytes().to_string(), "random"])
        .directory(directory.path())
        .finish();
    run.expect_code(0).expect_stdout(payload_digest());
    for capture in [&captures[0], &captures[1], &fifo] {
        assert_eq!(digest_of(capture), payload_digest());
    }
    assert_eq!(digest_of_file(&directory.path().join("file"), 0), payload_digest());
    for name in all {
        run.expect(run.leg(name, "bytes") == payload_bytes(), &format!("{name} got every byte"));
        run.expect(run.leg(name, "lost_bytes") == 0, &format!("{name} lost nothing"));
    }
}

/// stdin of every kind, to stdout and two legs.
fn legs_of_a_filter(engine: Engine) {
    for source in [Source::Pipe, Source::File, Source::UnixSocket, Source::TcpSocket] {
        let directory = tempdir().expect("directory");
        let (end, writer) = source.open(directory.path());
        let run = Launch::nproxy(engine)
            .words("--tee a --tee b")
            .directory(directory.path())
            .stdin(end)
            .finish();
        run.expect_code(0).expect_silent().expect_stdout(payload_digest());
        writer.map(|writer| writer.finish().expect_code(0).expect_silent().status);
        for leg in ["a", "b"] {
            let arrived = digest_of_file(&directory.path().join(leg), 0);
            assert_eq!(arrived, payload_digest(), "{source:?} to {leg}");
        }
    }
}

/// `/dev/fd/N` is the open file that nproxy was given: its position, its socket, its pipe.
fn inherited_descriptors(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = "
        exec 5> file; echo before >&5
        nproxy --tee /dev/fd/5 --tee /dev/fd/6 peer write $BYTES 64K 6> >(peer read > digest) | peer read
        echo after >&5; exec 5>&-
        { echo before; peer write $BYTES 64K; echo after; } | cmp - file
        until [ -s digest ]; do :; done; cat digest
        # Neither the command nor anybody who waits for it is held up by them.
        nproxy --tee /dev/fd/5 peer fds 5> log | grep -c log";
    let run = Launch::shell(engine, script)
        .env("BYTES", payload_bytes().to_string())
        .directory(directory.path())
        .finish();
    run.expect_silent().expect_output(&format!("{0}\n{0}\n1\n", payload_digest()));
    // A number that nobody has given to nproxy is none of nproxy's own files either.
    for number in 3..24 {
        let script = format!(
            "for fd in {{3..23}}; do eval \"exec $fd>&-\"; done
             exec nproxy --tee own --tee /dev/fd/{number} touch started"
        );
        let run = Launch::shell(engine, &script).directory(directory.path()).finish();
        run.expect_code(125).expect_one_line(&["/dev/fd/", "Bad file descriptor"]);
    }
    assert!(!directory.path().join("started").exists(), "nothing was started");
}

/// /dev/stdout and /dev/stderr are the open files too: what is in them stays, and what follows comes after.
fn standard_streams_by_name(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = "
        { echo before; nproxy --tee /dev/stdout echo hi; echo after; } > out; cat out
        echo old > err; nproxy --tee /dev/stderr echo hi 2>> err; cat err
        echo old > err; nproxy --tee /proc/self/fd/2 echo hi 2>> err; cat err";
    let run = Launch::shell(engine, script).directory(directory.path()).finish();
    run.expect_code(0).expect_silent();
    run.expect_output("before\nhi\nhi\nafter\nhi\nold\nhi\nhi\nold\nhi\n");
}

/// As many legs as anybody asks for; more than that is refused, not mixed up.
fn many_legs(engine: Engine) {
    let bytes = payload_bytes() / 8;
    let expected = Digest::of_payload(bytes, 1);
    let run = |directory: &Path, legs: u32| {
        let script = format!(
            "ulimit -n 4096
             exec nproxy $(printf -- '--tee %d ' $(seq {legs})) peer write {bytes} 64K"
        );
        Launch::shell(engine, &script).directory(directory).finish()
    };
    for legs in [16, 200] {
        let directory = tempdir().expect("directory");
        // Beyond the sixteenth, they are many and no more.
        for leg in 17..legs {
            let link = directory.path().join(leg.to_string());
            std::os::unix::fs::symlink("/dev/null", link).expect("symlink");
        }
        run(directory.path(), legs).expect_code(0).expect_silent().expect_stdout(expected);
        for leg in (1..=16).chain(legs..=legs) {
            let arrived = digest_of_file(&directory.path().join(leg.to_string()), 0);
            assert_eq!(arrived, expected, "leg {leg} of {legs}");
        }
    }
    let directory = tempdir().expect("directory");
    let refused = run(directory.path(), 201);
    refused.expect_code(125).expect_output("").expect_one_line(&["--tee", "200"]);
    assert!(directory.path().read_dir().expect("list").next().is_none(), "nothing was opened");
}

/// The screen keeps its colours, byte for byte, and the log is clean, byte for byte.
fn clean_log(engine: Engine) {
    let (bytes, directory) = (text_bytes(), tempdir().expect("directory"));
    let run = Launch::nproxy(engine)
        .words("--tee log --tee-text strip-ansi --stats=json peer text")
        .args([&bytes.to_string(), "random"])
        .directory(directory.path())
        .finish();
    run.expect_code(0).expect_stdout(Text::digest(bytes, Form::Coloured));
    let log = digest_of_file(&directory.path().join("log"), 0);
    let plain = Text::digest(bytes, Form::Plain);
    run.expect(log == plain, &format!("the log has {log}, expected {plain}"));
    run.expect(run.leg("log", "bytes") == plain.bytes, "the bytes of the log are counted");
    run.expect(run.leg("log", "lost_bytes") == 0, "what is stripped is not lost");
    run.expect(run.stat("stdout", "buffered_bytes") == 0, "the screen's bytes are not copied");
    // The other way about: a clean screen, and a log of everything.
    let run = Launch::nproxy(engine)
        .words("--tee log --text strip-ansi peer text")
        .args([&bytes.to_string(), "random"])
        .directory(directory.path())
        .finish();
    run.expect_code(0).expect_silent().expect_stdout(plain);
    let log = digest_of_file(&directory.path().join("log"), 0);
    assert_eq!(log, Text::digest(bytes, Form::Coloured));
}

/// A slow reader on either side slows both down and changes neither.
fn clean_log_behind_slow_readers(engine: Engine) {
    let bytes = text_bytes();
    let (coloured, plain) = (Text::digest(bytes, Form::Coloured), Text::digest(bytes, Form::Plain));
    for slow_screen in [true, false] {
        let directory = tempdir().expect("directory");
        let nproxy = "nproxy --tee fifo --tee-text strip-ansi peer text $BYTES 64K";
        let script = if slow_screen {
            format!(
                "mkfifo fifo; peer read < fifo > log & {nproxy} | peer read 99991 --delay $DELAY > screen; wait"
            )
        } else {
            format!(
                "mkfifo fifo; peer read 99991 --delay $DELAY < fifo > log & {nproxy} | peer read > screen; wait"
            )
        };
        // A hundred kilobytes per delay: 2 ms each make some seconds of any payload.
        let delay = if bytes > 256 << 20 { "0" } else { "2" };
        let run = Launch::shell(engine, &script)
            .env("BYTES", bytes.to_string())
            .env("DELAY", delay)
            .directory(directory.path())
            .finish();
        run.expect_code(0).expect_silent();
        let read = |name| fs::read_to_string(directory.path().join(name)).expect("digest");
        assert_eq!(read("screen"), format!("{coloured}\n"), "slow screen: {slow_screen}");
        assert_eq!(read("log"), format!("{plain}\n"), "slow screen: {slow_screen}");
    }
}

fn log_with_timestamps(engine: Engine) {
    let directory = tempdir().expect("directory");
    let run = Launch::nproxy(engine)
        .words("--tee log --tee-text strip-ansi,transform --timestamp=T --line-numbers")
        .args(["printf", r"\033[1mone\033[0m\ntwo\n"])
        .directory(directory.path())
        .finish();
    run.expect_code(0).expect_silent().expect_output("\x1b[1mone\x1b[0m\ntwo\n");
    let log = fs::read_to_string(directory.path().join("log")).expect("log");
    assert_eq!(log, "T     1\tone\nT     2\ttwo\n");
}

/// What was in the log before is gone, however long it was; the mode is 0666 less the umask.
fn log_is_emptied(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = "
        peer write 1M 64K > log; nproxy --tee log echo new; cat log
        umask 026; nproxy --tee fresh true; stat -c %a fresh
        nproxy --tee log --tee-append echo more; cat log";
    let run = Launch::shell(engine, script).directory(directory.path()).finish();
    run.expect_code(0).expect_silent().expect_output("new\nnew\n640\nmore\nnew\nmore\n");
}

/// A command that cannot be started leaves the last run's log alone.
fn log_is_not_emptied_in_vain(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = "
        echo precious > log; touch not-executable
        nproxy --tee log no-such-command; echo $?
        nproxy --tee log ./not-executable; echo $?
        nproxy --tee log --tee nowhere/log true; echo $?
        nproxy --tee log --tee-text=nonsense true; echo $?
        cat log";
    let run = Launch::shell(engine, script).directory(directory.path()).finish();
    run.expect_code(0).expect_output("127\n126\n125\n125\nprecious\n");
    run.expect(run.stderr.text().lines().count() == 4, "one line each");
}

/// Two sessions with `--tee-append` on one log, and a third writer: no line is lost or torn.
fn sessions_share_a_log(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = r#"
        lines() { i=0; while [ $i -lt 4000 ]; do i=$((i+1)); printf '\033[1m%s-%d\033[0m %s\n' $1 $i $FILL; done; }
        export FILL=$(printf '%0200d' 7); export -f lines
        for flags in --tee-text=off --tee-text=strip-ansi; do
            rm -f log
            nproxy --tee log --tee-append $flags bash -c 'lines a' > /dev/null &
            nproxy --tee log --tee-append $flags bash -c 'lines b' > /dev/null &
            bash -c 'lines c' >> log & wait
            { lines a; lines b; lines c; } | sed 's/\x1b\[[0-9]*m//g' | sort > expected
            sed 's/\x1b\[[0-9]*m//g' log | sort | cmp expected - && wc -l < log
        done"#;
    let run = Launch::shell(engine, script).directory(directory.path()).finish();
    run.expect_code(0).expect_silent().expect_output("12000\n12000\n");
}

/// Whoever follows the log sees each piece while the command waits for its next.
fn bytes_are_there_at_once(engine: Engine) {
    for flags in ["", "--tee-append", "--tee-text=strip-ansi", "--tee-text=transform --timestamp="]
    {
        let directory = tempdir().expect("directory");
        let (stdin, keyboard) = std::io::pipe().expect("pipe");
        let mut keyboard = File::from(OwnedFd::from(keyboard));
        let run = Launch::nproxy(engine)
            .words("--tee log")
            .words(flags)
            .args(["sh", "-c", "printf one; read x; echo two; read x; printf '%060000d' 3; read x"])
            .directory(directory.path())
            .stdin(stdin)
            .start();
        let log = directory.path().join("log");
        for expected in ["one".to_owned(), "onetwo\n".to_owned(), format!("onetwo\n{:060000}", 3)] {
            proc::until_or(
                &format!("{} bytes in the log ({flags})", expected.len()),
                || (fs::read_to_string(&log).ok()? == expected).then_some(()),
                || format!("{} bytes", fs::read(&log).map_or(0, |log| log.len())),
            );
            std::io::Write::write_all(&mut keyboard, b"\n").expect("line");
        }
        run.finish().expect_code(0).expect_silent();
    }
}

fn streams_of_a_leg(engine: Engine) {
    let directory = tempdir().expect("directory");
    for (streams, bytes) in [("stdout", 3 << 20), ("stderr", 3 << 20), ("stdout,stderr", 6 << 20)] {
        let run = Launch::nproxy(engine)
            .args(["--tee", "log", "--tee-streams", streams, "peer", "write-both", "3M"])
            .directory(directory.path())
            .finish();
        run.expect_code(0).expect_stdout(Digest::of_payload(3 << 20, 1));
        run.expect(run.stderr.digest == Digest::of_payload(3 << 20, 2), "stderr is whole");
        let log = digest_of_file(&directory.path().join("log"), 0);
        run.expect(log.bytes == bytes, "the log has what was asked for");
        let one = ["stdout", "stderr"].iter().position(|name| *name == streams);
        if let Some(index) = one {
            run.expect(log == Digest::of_payload(3 << 20, index as u64 + 1), "of the right stream");
        }
        let merged = format!(
            "nproxy --tee log --tee-streams {streams} peer write-both 3M 2>&1 | wc -c; wc -c < log"
        );
        let run = Launch::shell(engine, &merged).directory(directory.path()).finish();
        run.expect_output(&format!("{}\n{bytes}\n", 6 << 20));
    }
}

/// With `2>&1` the log has the lines in the order of the screen, which is that of the bare run.
fn both_streams_in_one_order(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = "
        lines() { for i in $(seq 5000); do echo o$i; echo e$i >&2; done; }; export -f lines
        for i in $(seq 5000); do echo o$i; echo e$i; done > expected
        nproxy --tee log bash -c lines 2>&1 | cmp - expected; cmp log expected
        nproxy --tee log bash -c lines > out 2>&1; cmp out expected; cmp log expected; wc -l < log";
    let run = Launch::shell(engine, script).directory(directory.path()).finish();
    run.expect_code(0).expect_silent().expect_output("10000\n");
}

/// tee(2) duplicates pages, no byte is copied for a leg.
fn nothing_is_copied(engine: Engine) {
    let directory = tempdir().expect("directory");
    fifo(&directory.path().join("fifo"));
    let run = Launch::nproxy(engine)
        .words("--tee file --tee fifo --tee /dev/null --stats=json peer write")
        .args([&payload_bytes().to_string(), "64K"])
        .directory(directory.path())
        .finish();
    run.expect_code(0).expect_stdout(payload_digest());
    run.expect(run.stat("stdout", "buffered_bytes") == 0, "no byte was copied");
    run.expect(run.stat("stdout", "spliced_bytes") == payload_bytes(), "every byte was spliced");
}
