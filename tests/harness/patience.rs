//! How long a test waits: not for a time, but for as long as what it has started gets anywhere. On a machine that is busy
//! with something else everything takes longer, and nothing is wrong.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::harness::watchdog;
use crate::proc;

/// How often the programs are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Beyond its limit a wait goes on for as long as the programs' last progress is no longer ago than this.
const STALLED: Duration = Duration::from_secs(15);

/// A program that is always busy, such as a loop in a shell, gets anywhere for ever: after so many limits it has had its
/// time.
pub(crate) const LIMITS: u32 = 8;

/// The share of the time in which programs run, or wait for a processor, that counts as progress. nproxy's own looks at
/// memory take less.
const SHARE: u32 = 50;

thread_local! {
    /// What marks the programs that this thread, which is one test, has started.
    static RUNS: RefCell<HashSet<String>> = RefCell::default();
}

/// Takes note that programs with `variable` (NAME=VALUE) in their environment are this test's.
pub(crate) fn follow(variable: &str) {
    RUNS.with_borrow_mut(|runs| runs.insert(variable.to_owned()));
    watchdog::watch(variable);
}

/// Whether this thread has started programs whose progress can be followed.
pub(crate) fn follows_any() -> bool {
    RUNS.with_borrow(|runs| !runs.is_empty())
}

/// This test's programs that are alive, and what each waits for.
pub(crate) fn running() -> Vec<String> {
    RUNS.with_borrow(proc::with_environment).into_iter().map(proc::describe).collect()
}

/// One wait.
pub(crate) struct Patience {
    began: Instant,
    limit: Duration,
    look_every: Duration,
    stalled: Duration,
    looked: Instant,
    progress: Instant,
    /// Time that each process had run or waited for a processor.
    seen: HashMap<i32, Duration>,
}

impl Patience {
    /// A wait that takes less than `limit`, unless the machine is busy.
    pub(crate) fn new(limit: Duration) -> Patience {
        Patience::with(limit, LOOK, STALLED)
    }

    fn with(limit: Duration, look_every: Duration, stalled: Duration) -> Patience {
        let now = Instant::now();
        Patience {
            began: now,
            limit,
            look_every,
            stalled,
            looked: now,
            progress: now,
            seen: HashMap::new(),
        }
    }

    /// The same up to a point in time.
    pub(crate) fn until(deadline: Instant) -> Patience {
        Patience::new(deadline.saturating_duration_since(Instant::now()))
    }

    /// When it is over, unless the machine is busy.
    pub(crate) fn end(&self) -> Instant {
        self.began + self.limit
    }

    /// Whether to wait on.
    pub(crate) fn lasts(&mut self) -> bool {
        let now = Instant::now();
        if now - self.looked >= self.look_every {
            self.look(now);
        }
        let waited = now - self.began;
        waited < self.limit || (now - self.progress < self.stalled && waited < self.limit * LIMITS)
    }

    fn look(&mut self, now: Instant) {
        let processes = RUNS.with_borrow(proc::with_environment);
        let mut busy = Duration::ZERO;
        for pid in processes {
            let time = proc::time_wanted(pid);
            busy += time.saturating_sub(self.seen.insert(pid, time).unwrap_or_default());
        }
        if busy * SHARE >= now - self.looked {
            self.progress = now;
        }
        self.looked = now;
    }
}

/// How many limits long a wait beside this program is.
fn limits_beside(program: &[&str]) -> f64 {
    let limit = Duration::from_secs(1);
    let _run = crate::harness::Launch::program(program[0]).args(&program[1..]).start();
    let mut patience = Patience::with(limit, Duration::from_millis(50), Duration::from_secs(1));
    while patience.lasts() {
        std::thread::sleep(Duration::from_millis(5));
    }
    patience.began.elapsed().as_secs_f64() / limit.as_secs_f64()
}

#[test]
fn a_program_that_sleeps_has_one_limit() {
    assert!((1.0..f64::from(LIMITS)).contains(&limits_beside(&["sleep", "60"])));
}

#[test]
fn a_program_that_gets_somewhere_has_more_but_not_for_ever() {
    let limits = limits_beside(&["sh", "-c", "while :; do :; done"]);
    assert!(limits >= f64::from(LIMITS), "{limits}");
}
