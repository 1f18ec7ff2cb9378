//! Much of everything at the same time: stops, window sizes, clients of the status socket that say nothing, a copy on a
//! full device and one that nobody reads fast enough. NPROXY_TEST_SOAK says for how many seconds (default 6).

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::tempdir;

use crate::harness::{Engine, Launch, digest_of_file, on_both_engines, time_limit};
use crate::payload::Digest;
use crate::proc;

on_both_engines![soak];

/// Payload of one run.
const BYTES: u64 = 64 << 20;
/// The most that nproxy may have in memory: its buffers, and what it is made of.
const MOST_RESIDENT: u64 = 24 << 20;

/// What has happened so far.
#[derive(Default, Debug)]
struct Figures {
    runs: u64,
    bytes: u64,
    stops: u64,
    clients: u64,
    most_resident: u64,
}

fn seconds() -> u64 {
    let asked = std::env::var("NPROXY_TEST_SOAK").ok();
    asked.map_or(6, |seconds| seconds.parse().expect("NPROXY_TEST_SOAK is a number"))
}

fn soak(engine: Engine) {
    let until = Instant::now() + Duration::from_secs(seconds());
    let whole = Digest::of_payload(BYTES, 1);
    let mut figures = Figures::default();
    while Instant::now() < until {
        for flags in ["", "--text=strip-ansi --text-streams=stderr", "--stdin=relay"] {
            one(engine, flags, whole, &mut figures);
        }
    }
    eprintln!("{}: {figures:?}", engine.name());
}

fn one(engine: Engine, flags: &str, whole: Digest, figures: &mut Figures) {
    let directory = tempdir().expect("directory");
    let fifo = directory.path().join("slow");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    // Open at both ends, and read by nobody.
    let held = std::fs::File::options().read(true).write(true).open(&fifo).expect("open");
    let bytes = BYTES.to_string();
    let run = Launch::nproxy(engine)
        .words(flags)
        .words("--tee slow --tee-full=drop --tee copy --tee /dev/full")
        .words("-- peer write")
        .arg(&bytes)
        .arg("random")
        .directory(directory.path())
        .env("NPROXY_RUNTIME_DIR", directory.path())
        .limit(time_limit() * 4)
        .start();
    let pid = Pid::from_raw(run.pid());
    let socket = directory.path().join("nproxy").join(format!("{pid}.sock"));
    let mut clients = Vec::new();
    let stdout = run.stdout.as_ref().expect("captured");
    while stdout.so_far().digest.bytes < BYTES && proc::state(run.pid()) != 'Z' {
        for signal in [Signal::SIGSTOP, Signal::SIGCONT, Signal::SIGWINCH] {
            let _ = kill(pid, signal);
        }
        figures.stops += 1;
        if clients.len() < 50
            && let Ok(client) = UnixStream::connect(&socket)
        {
            clients.push(client);
            figures.clients += 1;
        }
        if proc::state(run.pid()) != 'Z' {
            figures.most_resident = figures.most_resident.max(proc::resident(run.pid()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let run = run.finish();
    drop((held, clients));
    run.expect_code(0).expect_stdout(whole);
    run.expect_message(&["write to /dev/full", "No space left"]);
    run.expect(figures.most_resident < MOST_RESIDENT, &format!("resident: {figures:?}"));
    // The others may lose bytes; what they have is a beginning of it, or has marks in it.
    let copy = digest_of_file(&directory.path().join("copy"), 0);
    let lost = run.stderr.text().contains("copy:");
    run.expect(copy == whole || lost, "a copy that fell short is told of");
    figures.runs += 1;
    figures.bytes += BYTES;
}
