//! The last bound of a test: one that waits on something no other bound covers ends too, and is named.
//!
//! First its programs are killed, by which most such waits end and the test fails by itself. One that goes on even then takes
//! the whole run with it: whatever calls the suites would otherwise wait until its own limit, and learn nothing.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::sync::{Mutex, Once};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::proc;

/// How long a test may take that starts no further program.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// How long it may take to fail, once its programs are killed.
const FAILING: Duration = Duration::from_secs(2 * 60);

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(5);

static TESTS: Mutex<Option<HashMap<ThreadId, Test>>> = Mutex::new(None);

/// A test that runs.
struct Test {
    name: String,
    /// When it last started a program.
    since: Instant,
    /// What marks its programs.
    marks: HashSet<String>,
    killed: bool,
}

thread_local! {
    static WATCHED: Watched = const { Watched };
}

/// Takes the test off the list once its thread ends.
struct Watched;

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(tests) = &mut *TESTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            tests.remove(&thread::current().id());
        }
    }
}

/// The test that this thread is has just started a program with `mark` (NAME=VALUE) in its environment.
pub(crate) fn watch(mark: &str) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        thread::spawn(|| {
            loop {
                thread::sleep(LOOK);
                look();
            }
        });
    });
    WATCHED.with(|_| {});
    let mut tests = TESTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let test =
        tests.get_or_insert_default().entry(thread::current().id()).or_insert_with(|| Test {
            name: thread::current().name().unwrap_or("a thread of a test").to_owned(),
            since: Instant::now(),
            marks: HashSet::new(),
            killed: false,
        });
    (test.since, test.killed) = (Instant::now(), false);
    test.marks.insert(mark.to_owned());
}

fn look() {
    let mut tests = TESTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for test in tests.get_or_insert_default().values_mut() {
        let age = test.since.elapsed();
        if age < LONGEST {
            continue;
        }
        if !std::mem::replace(&mut test.killed, true) {
            let programs = proc::with_environment(&test.marks);
            let each: Vec<_> = programs.iter().map(|pid| proc::describe(*pid)).collect();
            say(&format!("{} takes {age:?}; killed: {each:#?}", test.name));
            for pid in programs {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        } else if age > LONGEST + FAILING {
            say(&format!("{} does not end, though its programs are killed", test.name));
            std::process::exit(101);
        }
    }
}

/// Past libtest's capture, which threads inherit.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(format!("\nwatchdog: {text}\n").as_bytes());
}
