//! Descriptors that hardly anybody hands to a program as its stdin or stdout: closed ones, sockets that listen, leaders of
//! ptys, terminals that have been hung up, files that grow while they are read.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::{Shutdown, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;

use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send};
use tempfile::tempdir;

use crate::capture::Capture;
use crate::harness::ends::tcp_pair;
use crate::harness::terminal::raw_pair;
use crate::harness::{Engine, Launch, digest_of_file, on_both_engines};
use crate::payload::Digest;

on_both_engines![
    closed_standard_descriptors,
    socket_that_listens,
    leader_of_a_pty_as_stdout,
    terminal_that_is_hung_up_as_stdin,
    one_socket_for_both,
    an_urgent_byte,
    file_that_grows,
    memory_as_a_file,
    descriptors_that_cannot_be_read,
    descriptors_that_cannot_be_written,
];

/// Every way from stdin to stdout.
const WAYS: [&str; 8] = [
    "",
    "--tee log",
    "--text=strip-ansi",
    "--tee log --text=strip-ansi",
    "-- cat",
    "--tee log -- cat",
    "--stdin=relay -- cat",
    "--pty=always --stdin=relay -- cat",
];

/// Whatever of them is closed: the run ends, bytes that have nowhere to go are told where that can be heard, and nothing
/// that nproxy opens takes the place of a standard descriptor.
fn closed_standard_descriptors(engine: Engine) {
    for way in WAYS {
        for closed in 1..8 {
            let directory = tempdir().expect("directory");
            fs::write(directory.path().join("in"), "in\n").expect("write");
            let part = |bit: usize, close: &'static str, open: &'static str| match closed & bit {
                0 => open,
                _ => close,
            };
            let (stdin, stdout) = (part(1, "<&-", "<in"), part(2, ">&-", ">out"));
            let script = format!("nproxy {way} {stdin} {stdout} {}; echo $?", part(4, "2>&-", ""));
            let run = Launch::shell(engine, &script).directory(directory.path()).finish();
            let lost = closed & 3 != 0;
            let status = run.stdout.text();
            // cat itself may be what fails.
            run.expect((status == "0\n") != lost, "its status tells of what is lost");
            run.expect((closed & 4 == 0 && lost) != run.stderr.text().is_empty(), "so do words");
            if closed & 2 == 0 {
                let out = fs::read_to_string(directory.path().join("out")).expect("out");
                run.expect(out == if closed & 1 == 0 { "in\n" } else { "" }, &out);
            }
            let log = directory.path().join("log");
            if closed & 1 == 0 && log.exists() {
                let log = fs::read_to_string(log).expect("log");
                run.expect(log == "in\n", "what went into the copy is whole");
            }
        }
    }
}

/// It never polls readable as long as nobody connects, so polling would wait for ever; read(2) says what it is.
fn socket_that_listens(engine: Engine) {
    for way in WAYS.iter().filter(|way| !way.contains("-- cat") || way.contains("relay")) {
        let directory = tempdir().expect("directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let run = Launch::nproxy(engine)
            .words(way)
            .directory(directory.path())
            .stdin(OwnedFd::from(listener))
            .finish();
        run.expect_code(125).expect_one_line(&["stdin", "not connected"]);
    }
}

/// Lines that no text mode changes, more than any pipe holds.
fn lines() -> String {
    (0..200_000).map(|number| format!("{number}\n")).collect()
}

/// A file with `text` in it, to be read from its beginning.
fn file_of(text: &str) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(text.as_bytes()).expect("write");
    file.rewind().expect("rewind");
    file
}

fn digest_of(text: &str) -> Digest {
    crate::capture::digest(&mut text.as_bytes())
}

/// Opened anew by its name it would be another pty's, and everything would go there.
fn leader_of_a_pty_as_stdout(engine: Engine) {
    let text = lines();
    for way in WAYS {
        let directory = tempdir().expect("directory");
        let (leader, follower) = raw_pair();
        let screen = Capture::of(follower);
        let kept = leader.try_clone().expect("dup");
        let run = Launch::nproxy(engine)
            .words(way)
            .directory(directory.path())
            .stdin(file_of(&text))
            .stdout(leader)
            .finish();
        run.expect_code(0).expect_silent();
        screen.wait_for_bytes(text.len() as u64);
        assert_eq!(screen.so_far().digest, digest_of(&text), "{way}");
        drop(kept);
    }
}

/// Its reader sees the end of its input, and so does the child at a terminal of its own.
fn terminal_that_is_hung_up_as_stdin(engine: Engine) {
    for way in ["--stdin=relay -- cat", "--pty=always --stdin=relay -- cat"] {
        let (leader, follower) = raw_pair();
        let run = Launch::nproxy(engine).words(way).stdin(follower).start();
        let mut keys = File::from(leader);
        keys.write_all(b"hello\n").expect("write");
        run.stdout.as_ref().expect("captured").wait_for("hello\n", 1);
        drop(keys);
        run.finish().expect_code(0).expect_output("hello\n").expect_silent();
    }
}

/// As inetd hands it over: what comes from the peer goes back to it.
fn one_socket_for_both(engine: Engine) {
    let text = lines();
    for way in WAYS {
        let directory = tempdir().expect("directory");
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        let run = Launch::nproxy(engine)
            .words(way)
            .directory(directory.path())
            .stdin(OwnedFd::from(theirs.try_clone().expect("dup")))
            .stdout(OwnedFd::from(theirs))
            .start();
        let mut back = ours.try_clone().expect("dup");
        let reader = std::thread::spawn(move || crate::capture::digest(&mut back));
        (&ours).write_all(text.as_bytes()).expect("write");
        ours.shutdown(Shutdown::Write).expect("shutdown");
        run.finish().expect_code(0).expect_silent();
        assert_eq!(reader.join().expect("the reader"), digest_of(&text), "{way}");
    }
}

/// A splice from a TCP socket stops in front of it, and says what it says at the end, or that it would have to wait. The byte
/// itself is none of the stream's.
fn an_urgent_byte(engine: Engine) {
    let text = lines();
    for way in WAYS.iter().filter(|way| !way.contains("-- cat") || way.contains("relay")) {
        for nonblocking in [false, true] {
            let directory = tempdir().expect("directory");
            let (mut ours, theirs) = tcp_pair();
            theirs.set_nonblocking(nonblocking).expect("a flag");
            let run = Launch::nproxy(engine)
                .words(way)
                .directory(directory.path())
                .stdin(OwnedFd::from(theirs))
                .start();
            ours.write_all(b"first\n").expect("write");
            run.stdout.as_ref().expect("captured").wait_for("first\n", 1);
            send(ours.as_raw_fd(), b"!", MsgFlags::MSG_OOB).expect("send");
            ours.write_all(text.as_bytes()).expect("write");
            ours.shutdown(Shutdown::Write).expect("shutdown");
            let run = run.finish();
            run.expect_code(0).expect_stdout(digest_of(&format!("first\n{text}"))).expect_silent();
        }
    }
}

/// The end is where it is when it is reached.
fn file_that_grows(engine: Engine) {
    let text = lines();
    let (first, second) = text.split_at(text.len() / 2);
    for way in WAYS {
        let directory = tempdir().expect("directory");
        let path = directory.path().join("grows");
        fs::write(&path, first).expect("write");
        let (mut reader, sink) = std::io::pipe().expect("pipe");
        let run = Launch::nproxy(engine)
            .words(way)
            .words(if way.contains("--") { "" } else { "--pipe-size=keep" })
            .directory(directory.path())
            .stdin(File::open(&path).expect("open"))
            .stdout(sink)
            .start();
        let mut begin = [0];
        reader.read_exact(&mut begin).expect("read");
        let mut file = OpenOptions::new().append(true).open(&path).expect("open");
        file.write_all(second.as_bytes()).expect("write");
        let mut got = String::from_utf8(begin.to_vec()).expect("text");
        reader.read_to_string(&mut got).expect("read");
        run.finish().expect_code(0).expect_silent();
        // As far as it had been read to its end before.
        assert!(text.starts_with(&got) && got.len() >= first.len(), "{way}: {}", got.len());
        let log = directory.path().join("log");
        if log.exists() {
            assert_eq!(digest_of_file(&log, 0), digest_of(&got), "{way}");
        }
    }
}

/// memfd_create(2), read, written and appended to.
fn memory_as_a_file(engine: Engine) {
    let text = lines();
    let open = || File::from(memfd_create(c"test", MFdFlags::MFD_CLOEXEC).expect("memfd"));
    for way in WAYS {
        let directory = tempdir().expect("directory");
        let (mut source, mut sink) = (open(), open());
        source.write_all(text.as_bytes()).expect("write");
        source.rewind().expect("rewind");
        let run = Launch::nproxy(engine)
            .words(way)
            .directory(directory.path())
            .stdin(source)
            .stdout(sink.try_clone().expect("dup"))
            .finish();
        run.expect_code(0).expect_silent();
        sink.rewind().expect("rewind");
        assert_eq!(crate::capture::digest(&mut sink), digest_of(&text), "{way}");
    }
}

fn opened(path: &str, flags: OFlag) -> OwnedFd {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.bits());
    options.open(path).expect("open").into()
}

/// One line says so.
fn descriptors_that_cannot_be_read(engine: Engine) {
    for way in WAYS.iter().filter(|way| !way.contains("-- cat") || way.contains("relay")) {
        let directory = tempdir().expect("directory");
        let write_only = File::create(directory.path().join("file")).expect("create");
        let bad = [
            (opened("/dev/null", OFlag::O_PATH), "Bad file descriptor"),
            (opened("/", OFlag::O_DIRECTORY), "Is a directory"),
            (write_only.into(), "Bad file descriptor"),
            (std::io::pipe().expect("pipe").1.into(), "Bad file descriptor"),
            (
                nix::sys::socket::socket(
                    AddressFamily::Inet,
                    SockType::Stream,
                    SockFlag::SOCK_CLOEXEC,
                    None,
                )
                .expect("socket"),
                "not connected",
            ),
        ];
        for (stdin, why) in bad {
            let run =
                Launch::nproxy(engine).words(way).directory(directory.path()).stdin(stdin).finish();
            run.expect_code(125).expect_output("").expect_one_line(&["stdin", why]);
        }
    }
}

/// One line says so, and what the command or the producer has written is not taken for delivered.
fn descriptors_that_cannot_be_written(engine: Engine) {
    let text = lines();
    for way in WAYS {
        let directory = tempdir().expect("directory");
        let bad: [(OwnedFd, &str); 5] = [
            (opened("/dev/null", OFlag::O_PATH), "Bad file descriptor"),
            (opened("/dev/null", OFlag::empty()), "Bad file descriptor"),
            (opened("/", OFlag::O_DIRECTORY), "Bad file descriptor"),
            (std::io::pipe().expect("pipe").0.into(), "Bad file descriptor"),
            (nix::sys::eventfd::EventFd::new().expect("eventfd").into(), "Invalid argument"),
        ];
        for (stdout, why) in bad {
            let run = Launch::nproxy(engine)
                .words(way)
                .directory(directory.path())
                .stdin(file_of(&text))
                .stdout(stdout)
                .finish();
            run.expect(run.status.code() != Some(0), "its status tells of it");
            run.expect_message(&["write to stdout", why]);
        }
    }
}
