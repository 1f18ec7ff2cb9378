//! Every system call of a run refused, one at a time, by strace's injection: whatever nproxy makes of it, status 0 means
//! that every byte went where it should, anything else is told, and nothing waits for ever.
//!
//! The short form refuses the calls that carry bytes and wait; the long one, which is ignored by default, every call that
//! a run makes: `cargo test --test suites faults::table -- --ignored`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

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

/// Calls that are not nproxy's to survive: what the loader does before its first instruction, memory that the
/// allocator cannot get, and the end itself.
const NOT_OURS: [&str; 10] = [
    "execve",
    "brk",
    "mmap",
    "munmap",
    "mprotect",
    "arch_prctl",
    "set_tid_address",
    "exit_group",
    "rt_sigreturn",
    "restart_syscall",
];

/// How long a run may take that is not stuck, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(60);

struct Scenario<'a> {
    name: &'a str,
    words: &'a str,
    engine: Engine,
    directory: &'a Path,
}

impl Scenario<'_> {
    /// Runs it under strace with these options.
    fn run(&self, options: &[&str]) -> Finished {
        let _ = fs::remove_file(self.directory.join("copy"));
        let launch = Launch::program("strace")
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

    /// The calls that nproxy's own process makes.
    fn calls(&self) -> BTreeSet<String> {
        let trace = self.directory.join("trace");
        self.run(&["-o", trace.to_str().expect("a path")]);
        let trace = fs::read_to_string(trace).expect("trace");
        let names = trace.lines().filter_map(|line| Some(line.split_once('(')?.0.to_owned()));
        names.filter(|name| !NOT_OURS.contains(&name.as_str())).collect()
    }

    fn copy(&self) -> Option<Digest> {
        let copy = self.directory.join("copy");
        copy.exists().then(|| digest_of_file(&copy, 0))
    }
}

/// What is wrong with a run, if anything is.
fn fault(run: &Finished, whole: Digest, copy: Option<(Digest, Option<Digest>)>) -> Option<String> {
    let said = run.stderr.text();
    if said.contains("panicked") {
        return Some(format!("panics: {said}"));
    }
    let told = said.lines().any(|line| line.contains("nproxy: "));
    match (run.status.code(), run.stdout.digest == whole) {
        (Some(0), false) => return Some("lost bytes, status 0".into()),
        (Some(0), true) => {}
        // The loader's own failures are the loader's to tell.
        _ if told || said.contains("error while loading") => {}
        _ => return Some(format!("says nothing: {}", run.status)),
    }
    match copy {
        Some((whole, copy)) if run.status.code() == Some(0) && copy != Some(whole) && !told => {
            Some("a copy lost bytes, and nothing was said".into())
        }
        _ => None,
    }
}

/// Refuses each of the calls in each of the places, and returns what was wrong.
fn refuse(
    engine: Engine,
    scenarios: &[(&str, &str)],
    calls: Option<&[&str]>,
    errors: &[&str],
    places: &[&str],
) -> (u32, Vec<String>) {
    let (mut runs, mut faults) = (0, Vec::new());
    for (name, words) in scenarios {
        let directory = tempdir().expect("directory");
        let scenario = Scenario { name, words, engine, directory: directory.path() };
        let unharmed = scenario.run(&["-o", "/dev/null"]);
        unharmed.expect_code(0).expect_silent();
        let (whole, copy) = (unharmed.stdout.digest, scenario.copy());
        let made = scenario.calls();
        let refused =
            made.iter().filter(|call| calls.is_none_or(|calls| calls.contains(&call.as_str())));
        for call in refused {
            for (error, place) in
                errors.iter().flat_map(|error| places.iter().map(move |place| (error, place)))
            {
                let inject = format!("inject={call}:error={error}:when={place}");
                let run = scenario.run(&["-o", "/dev/null", "-e", &inject]);
                runs += 1;
                let copies = copy.map(|whole| (whole, scenario.copy()));
                if let Some(fault) = fault(&run, whole, copies) {
                    faults.push(format!("{} {name}: {inject}: {fault}", engine.name()));
                }
            }
        }
    }
    (runs, faults)
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
        "close",
        "recvfrom",
        "sendto",
    ];
    let (runs, faults) = refuse(engine, &SCENARIOS, Some(&calls), &["EIO"], &["2"]);
    assert!(runs > 20, "{runs} runs");
    assert!(faults.is_empty(), "of {runs} runs:\n{}", faults.join("\n"));
}

/// All of them; the places are the first, the second, and every one from the seventh on.
fn every_call(engine: Engine) {
    if !strace_works() {
        return;
    }
    let errors = ["EIO", "ENOMEM", "EPERM", "EINTR"];
    let mut all = Vec::new();
    let mut total = 0;
    for scenario in SCENARIOS {
        let (runs, faults) = refuse(engine, &[scenario], None, &errors, &["1", "2", "7+"]);
        eprintln!("{} {}: {runs} runs, {} faults", engine.name(), scenario.0, faults.len());
        total += runs;
        all.extend(faults);
    }
    assert!(all.is_empty(), "of {total} runs:\n{}", all.join("\n"));
}

#[test]
#[ignore = "takes ten minutes"]
fn every_call_on_uring() {
    every_call(Engine::Uring);
}

#[test]
#[ignore = "takes ten minutes"]
fn every_call_on_epoll() {
    every_call(Engine::Epoll);
}
