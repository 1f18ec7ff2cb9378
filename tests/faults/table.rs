//! Every system call of a run refused, one at a time, by strace's injection: whatever nproxy makes of it, status 0 means
//! that every byte went where it should, anything else is told once, and nothing waits for ever.
//!
//! The short form refuses the calls that carry bytes and wait; the long one, which is ignored by default, every call that
//! a run makes: `cargo test --test suites faults::table -- --ignored`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::tempdir;

use crate::harness::{Engine, Launch, digest_of_file, on_both_engines, strace_works};
use crate::outcome::Finished;
use crate::payload::Digest;

on_both_engines![calls_that_carry_and_wait];

/// What is run, and how it is called in a report.
const SCENARIOS: [(&str, &str); 6] = [
    ("filter", ""),
    ("wrap", "-- peer write 300000 16K"),
    ("pty", "--pty=always -- seq 20000"),
    ("copy", "--tee copy -- peer write 300000 16K"),
    ("text", "--text=strip-ansi -- seq 20000"),
    ("stdin relay", "--stdin=relay -- cat"),
];

/// Calls that are not nproxy's to survive, and why.
const NOT_OURS: [(&str, &str); 13] = [
    ("execve", "strace itself starts nproxy by it"),
    ("brk", "the allocator has no memory: Rust aborts"),
    ("mmap", "the same"),
    ("munmap", "the allocator takes it for memory corruption"),
    ("mprotect", "the same"),
    ("arch_prctl", "the loader's, before the first instruction of nproxy"),
    ("set_tid_address", "the loader's"),
    ("exit_group", "the end itself; the kernel never refuses it"),
    ("exit", "the same, of a thread"),
    ("rt_sigreturn", "the kernel's own, behind a handler"),
    ("close", "the kernel closes whatever it says; refused by strace the descriptor stays open"),
    ("futex", "Rust's locks: it aborts at an error that the kernel never gives there"),
    ("restart_syscall", "the kernel's own, behind a stop"),
];

/// The same, of a child before its exec(2).
const NOT_THE_CHILDS: [(&str, &str); 1] = [(
    "rt_sigprocmask",
    "never refused; with SIGTTOU unblocked the kernel stops a child that takes the foreground",
)];

/// Calls at whose failure Rust's library panics, and what it makes them for.
const PANICS_OF_RUST: [(&str, &str); 2] = [
    ("getrandom", "the seed of a hash table"),
    ("recvfrom", "what the child's exec(2) has met, from the child"),
];

/// Which errors matter for a call: those that nproxy tells apart there, and one that stands for all others.
fn errors(call: &str) -> &'static [&'static str] {
    match call {
        "splice" | "tee" | "read" | "write" | "preadv2" | "pwritev2" | "pread64" | "recvfrom"
        | "sendto" | "ftruncate" => {
            &["EIO", "EINTR", "EAGAIN", "ENOMEM", "EPERM", "ENOSYS", "EINVAL", "EPIPE", "ENOSPC"]
        }
        "poll" | "epoll_ctl" | "epoll_pwait2" | "io_uring_enter" | "wait4" | "waitid" | "clone"
        | "clone3" => &["EIO", "EINTR", "EAGAIN", "ENOMEM", "EPERM", "EINVAL"],
        "openat" | "pipe2" | "socket" | "socketpair" | "eventfd2" | "epoll_create1" | "fcntl"
        | "signalfd4" | "pidfd_open" | "io_uring_setup" | "dup2" => {
            &["EMFILE", "ENFILE", "ENOMEM", "EPERM", "ENOSYS", "EINTR"]
        }
        _ => &["EIO", "EINTR", "ENOSYS"],
    }
}

/// How long a run may take that is not stuck, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(20);

/// Which of nproxy's processes and threads meet it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The loop's.
    Main,
    /// That, the threads of copies, the monitor process, and the child before its exec(2).
    All,
}

struct Scenario<'a> {
    name: &'a str,
    words: &'a str,
    engine: Engine,
    directory: &'a Path,
}

impl Scenario<'_> {
    /// Runs it under strace with these options.
    fn run(&self, reach: Reach, options: &[&str]) -> Finished {
        let _ = fs::remove_file(self.directory.join("copy"));
        let reach: &[&str] = match reach {
            Reach::Main => &[],
            Reach::All => &["-f", "-b", "execve"],
        };
        let launch = Launch::program("strace")
            .args(reach)
            .args(options)
            .args(["nproxy", "--engine", self.engine.name()])
            .words(self.words)
            .env("NPROXY_RUNTIME_DIR", self.directory)
            .directory(self.directory)
            .limit(LIMIT);
        let from_a_pipe = matches!(self.name, "filter" | "stdin relay");
        if !from_a_pipe {
            return launch.finish();
        }
        let (reader, writer) = std::io::pipe().expect("pipe");
        let feeder = Launch::peer("write").words("300000 16K").stdout(writer).limit(LIMIT).start();
        let run = launch.stdin(reader).finish();
        drop(feeder);
        run
    }

    /// The calls that are made, and how many of each by the loader and by Rust's start-up.
    fn calls(&self, reach: Reach) -> BTreeMap<String, usize> {
        let trace = self.directory.join("trace");
        self.run(reach, &["-o", trace.to_str().expect("a path")]);
        let trace = fs::read_to_string(trace).expect("trace");
        let mut calls = BTreeMap::new();
        // The first thing that nproxy asks is whether stdin is a terminal.
        let mut ours = false;
        let not_these = match reach {
            Reach::Main => &NOT_OURS[..],
            Reach::All => &[&NOT_OURS[..], &NOT_THE_CHILDS[..]].concat(),
        };
        for line in trace.lines() {
            let line = line.trim_start_matches(|one: char| one.is_ascii_digit() || one == ' ');
            ours |= line.starts_with("ioctl(0, TCGETS");
            let Some((name, _)) = line.split_once('(') else { continue };
            let named = name.bytes().all(|one| one.is_ascii_alphanumeric() || one == b'_');
            if !named || not_these.iter().any(|(call, _)| *call == name) {
                continue;
            }
            *calls.entry(name.to_owned()).or_insert(0) += usize::from(!ours);
        }
        calls
    }

    fn copy(&self) -> Option<Digest> {
        let copy = self.directory.join("copy");
        copy.exists().then(|| digest_of_file(&copy, 0))
    }
}

/// What is wrong with a run, if anything is.
fn fault(
    run: &Finished,
    (call, error): (&str, &str),
    whole: Digest,
    copy: Option<(Digest, Option<Digest>)>,
) -> Option<String> {
    let said = run.stderr.text();
    if said.contains("panicked") {
        let of_rust = PANICS_OF_RUST.iter().any(|(panics, _)| *panics == call)
            && said.contains("/library/std/");
        return (!of_rust).then(|| format!("panics: {said}"));
    }
    let mut lines: Vec<_> = said.lines().filter(|line| line.contains("nproxy: ")).collect();
    let told = !lines.is_empty();
    lines.sort_unstable();
    if lines.windows(2).any(|two| two[0] == two[1]) {
        return Some(format!("says it twice: {said}"));
    }
    match (run.status.code(), run.stdout.digest == whole) {
        // A reader who left is no failure; a command that had written everything before does not notice.
        (Some(0), false) if error == "EPIPE" && !said.contains("nproxy: ") => {}
        (Some(0), false) => return Some(format!("lost bytes, status 0: {said}")),
        (Some(0), true) => {}
        // That is what a reader who left looks like.
        _ if error == "EPIPE" && run.status.signal() == Some(Signal::SIGPIPE as i32) => {}
        _ if told => {}
        _ => return Some(format!("says nothing: {}: {said}", run.status)),
    }
    match copy {
        Some((whole, copy)) if run.status.code() == Some(0) && copy != Some(whole) && !told => {
            Some("a copy lost bytes, and nothing was said".into())
        }
        _ => None,
    }
}

/// What was tried, and what was wrong.
#[derive(Default)]
struct Found {
    runs: u32,
    faults: Vec<String>,
}

/// What is refused, and where.
struct Refusals<'a> {
    reach: Reach,
    /// All that are made, or these.
    calls: Option<&'a [&'a str]>,
    /// All that matter for a call, or these.
    errors: Option<&'a [&'a str]>,
    /// The first call of a run, the second, and so on; with a `+`, and all that come after it.
    places: &'a [&'a str],
}

impl Refusals<'_> {
    fn meet(&self, engine: Engine, (name, words): (&str, &str), found: &mut Found) {
        let directory = tempdir().expect("directory");
        let scenario = Scenario { name, words, engine, directory: directory.path() };
        let unharmed = scenario.run(self.reach, &["-o", "/dev/null"]);
        unharmed.expect_code(0).expect_silent();
        let (whole, copy) = (unharmed.stdout.digest, scenario.copy());
        for (call, before) in scenario.calls(self.reach) {
            // Whoever else is reached counts for itself.
            let reached = self.reach == Reach::Main || before == 0;
            if !reached || self.calls.is_some_and(|calls| !calls.contains(&call.as_str())) {
                continue;
            }
            for error in self.errors.unwrap_or(errors(&call)) {
                for place in self.places {
                    let (number, rest) = place.split_at(1);
                    // Nobody is interrupted for ever, or told to come back for ever.
                    let rest = if ["EINTR", "EAGAIN"].contains(error) { "" } else { rest };
                    let place = before + number.parse::<usize>().expect("a number");
                    let inject = format!("inject={call}:error={error}:when={place}{rest}");
                    let run = catch_unwind(AssertUnwindSafe(|| {
                        scenario.run(self.reach, &["-o", "/dev/null", "-e", &inject])
                    }));
                    found.runs += 1;
                    let copies = copy.map(|whole| (whole, scenario.copy()));
                    let fault = match run {
                        Ok(run) => fault(&run, (&call, error), whole, copies),
                        Err(_) => Some("hangs".into()),
                    };
                    if let Some(fault) = fault {
                        let reach = if self.reach == Reach::All { " -f" } else { "" };
                        let row = format!("{} {name}{reach}: {inject}: {fault}", engine.name());
                        eprintln!("{row}");
                        found.faults.push(row);
                    }
                }
            }
        }
    }
}

fn calls_that_carry_and_wait(engine: Engine) {
    if !strace_works() {
        return;
    }
    let calls = [
        "splice",
        "tee",
        "read",
        "write",
        "preadv2",
        "pwritev2",
        "poll",
        "epoll_ctl",
        "epoll_pwait2",
        "io_uring_enter",
        "wait4",
        "waitid",
        "recvfrom",
        "sendto",
    ];
    let refusals = Refusals {
        reach: Reach::Main,
        calls: Some(&calls),
        errors: Some(&["EIO", "EINTR"]),
        places: &["2"],
    };
    let mut found = Found::default();
    SCENARIOS.iter().for_each(|scenario| refusals.meet(engine, *scenario, &mut found));
    let Found { runs, faults } = found;
    assert!(runs > 20, "{runs} runs");
    assert!(faults.is_empty(), "of {runs} runs:\n{}", faults.join("\n"));
}

/// All of them; the places are the first, the second, and every one from the seventh on.
fn every_call(engine: Engine) {
    if !strace_works() {
        return;
    }
    let asked = std::env::var("NPROXY_TEST_SCENARIO").ok();
    let mut found = Found::default();
    let in_main =
        Refusals { reach: Reach::Main, calls: None, errors: None, places: &["1", "2", "7+"] };
    let in_all = Refusals {
        reach: Reach::All,
        calls: None,
        errors: Some(&["EIO", "EINTR", "ENOMEM"]),
        places: &["1", "7+"],
    };
    for refusals in [in_main, in_all] {
        for scenario in SCENARIOS {
            if asked.as_ref().is_some_and(|asked| asked != scenario.0) {
                continue;
            }
            refusals.meet(engine, scenario, &mut found);
            eprintln!(
                "{} {}: {} runs, {} faults so far",
                engine.name(),
                scenario.0,
                found.runs,
                found.faults.len()
            );
        }
    }
    let Found { runs, faults } = found;
    assert!(faults.is_empty(), "of {runs} runs:\n{}", faults.join("\n"));
}

#[test]
#[ignore = "takes half an hour"]
fn every_call_on_uring() {
    every_call(Engine::Uring);
}

#[test]
#[ignore = "takes half an hour"]
fn every_call_on_epoll() {
    every_call(Engine::Epoll);
}
