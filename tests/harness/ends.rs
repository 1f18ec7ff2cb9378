//! What a relay may read from and write to, each kind built so that the other end is in the test's hands.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::capture::Capture;
use crate::harness::{Launch, Running, digest_of_file, payload_bytes, payload_digest, time_limit};
use crate::outcome::Finished;
use crate::payload::{CHUNK, Digest, Payload};

/// Somewhere to write to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sink {
    Pipe,
    File,
    AppendFile,
    UnixSocket,
    TcpSocket,
    Null,
}

pub(crate) const SINKS: [Sink; 6] =
    [Sink::Pipe, Sink::File, Sink::AppendFile, Sink::UnixSocket, Sink::TcpSocket, Sink::Null];

/// What already lies in a file when nproxy gets it: the relay starts behind it, not at the file's start.
const BEFORE: &[u8] = b"here before\n";

/// Where the bytes can be looked at afterwards.
pub(crate) enum Arrival {
    Stream(Capture),
    File(PathBuf),
    Nowhere,
}

impl Sink {
    /// The end to give away, and the one to look at.
    pub(crate) fn open(self, directory: &Path) -> (OwnedFd, Arrival) {
        let path = directory.join(format!("{self:?}"));
        match self {
            Sink::Pipe => {
                let (reader, writer) = std::io::pipe().expect("pipe");
                (writer.into(), Arrival::Stream(Capture::of(reader)))
            }
            Sink::File => {
                let mut file = File::create(&path).expect("create");
                file.write_all(BEFORE).expect("write");
                (file.into(), Arrival::File(path))
            }
            Sink::AppendFile => {
                std::fs::write(&path, BEFORE).expect("write");
                let file = OpenOptions::new().append(true).open(&path).expect("open to append");
                (file.into(), Arrival::File(path))
            }
            Sink::UnixSocket => {
                let (ours, theirs) = UnixStream::pair().expect("socketpair");
                (theirs.into(), Arrival::Stream(Capture::of(ours)))
            }
            Sink::TcpSocket => {
                let (ours, theirs) = tcp_pair();
                (theirs.into(), Arrival::Stream(Capture::of(ours)))
            }
            Sink::Null => {
                let null = OpenOptions::new().write(true).open("/dev/null").expect("open");
                (null.into(), Arrival::Nowhere)
            }
        }
    }
}

impl Arrival {
    /// What arrived: `None` where nothing can be seen.
    pub(crate) fn digest(self, run: &Finished) -> Option<Digest> {
        match self {
            Arrival::Stream(capture) => {
                let captured = capture.finish(std::time::Instant::now() + time_limit());
                Some(captured.unwrap_or_else(|| run.fail("the sink was never closed")).digest)
            }
            Arrival::File(path) => {
                let start = std::fs::read(&path).map(|all| all.starts_with(BEFORE));
                run.expect(start.expect("read back"), "what was in the file before is still there");
                let digest = digest_of_file(&path, BEFORE.len() as u64);
                std::fs::remove_file(&path).expect("remove");
                Some(digest)
            }
            Arrival::Nowhere => None,
        }
    }
}

/// Somewhere to read from: the ordinary payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    Pipe,
    File,
    UnixSocket,
    TcpSocket,
}

impl Source {
    /// The end to give away, and the writer behind it, if there is one.
    pub(crate) fn open(self, directory: &Path) -> (OwnedFd, Option<Running>) {
        match self {
            Source::Pipe => {
                let (reader, writer) = std::io::pipe().expect("pipe");
                (reader.into(), Some(payload_writer(writer)))
            }
            Source::File => (payload_file(directory).into(), None),
            Source::UnixSocket => {
                let (ours, theirs) = UnixStream::pair().expect("socketpair");
                (theirs.into(), Some(payload_writer(OwnedFd::from(ours))))
            }
            Source::TcpSocket => {
                let (ours, theirs) = tcp_pair();
                (theirs.into(), Some(payload_writer(OwnedFd::from(ours))))
            }
        }
    }
}

/// A peer that writes the ordinary payload in 64 KiB blocks.
pub(crate) fn payload_writer(to: impl Into<Stdio>) -> Running {
    Launch::peer("write").arg(payload_bytes().to_string()).arg("64K").stdout(to).start()
}

/// A file that holds the ordinary payload behind a first line, open at the payload's start.
fn payload_file(directory: &Path) -> File {
    let path = directory.join("payload");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(path)
        .expect("create");
    let mut payload = Payload::new(payload_bytes(), 1);
    let mut chunk = vec![0; CHUNK];
    file.write_all(BEFORE).expect("write");
    loop {
        match payload.fill(&mut chunk) {
            0 => break,
            length => file.write_all(&chunk[..length]).expect("write"),
        }
    }
    file.seek(SeekFrom::Start(BEFORE.len() as u64)).expect("seek");
    file
}

pub(crate) fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let ours = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    (ours, listener.accept().expect("accept").0)
}

/// Runs `launch` (which asks for JSON statistics) into a sink and checks that the ordinary payload arrived there.
#[track_caller]
pub(crate) fn expect_payload(launch: Launch, sink: Sink, directory: &Path) -> Finished {
    let (end, arrival) = sink.open(directory);
    let run = launch.stdout(end).finish();
    run.expect_code(0);
    if let Some(arrived) = arrival.digest(&run) {
        let expected = payload_digest();
        run.expect(arrived == expected, &format!("{sink:?} got {arrived}, expected {expected}"));
    }
    run.expect(run.stat("stdout", "bytes") == payload_bytes(), "the statistics count every byte");
    run
}
