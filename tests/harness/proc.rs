//! What the kernel says about other processes, through /proc, and waiting until it says something else.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::harness::patience::Patience;
use crate::harness::time_limit;

/// Waits, in small steps, until `condition` gives something; fails with `what` if it does not, and the programs of this
/// test get nowhere.
#[track_caller]
pub(crate) fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    until_or(what, condition, String::new)
}

/// The same, and `otherwise` says what was there instead.
#[track_caller]
pub(crate) fn until_or<T>(
    what: &str,
    mut condition: impl FnMut() -> Option<T>,
    otherwise: impl Fn() -> String,
) -> T {
    let mut patience = Patience::new(time_limit() / 2);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        if !patience.lasts() {
            let (there, running) = (otherwise(), super::patience::running());
            panic!("waited in vain for {what}; there is: {there}; what runs: {running:#?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn numbers_in(directory: &str) -> Vec<i32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Live processes (no zombies, which have no environment any more) that were started with one of `variables`
/// (NAME=VALUE).
pub(crate) fn with_environment(variables: &HashSet<String>) -> Vec<i32> {
    let is_one = |entry: &[u8]| str::from_utf8(entry).is_ok_and(|entry| variables.contains(entry));
    let mut pids = numbers_in("/proc");
    pids.retain(|pid| {
        fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|all| all.split(|byte| *byte == 0).any(is_one))
    });
    pids
}

/// The words of a command line, joined by blanks; the program's directory is left out.
pub(crate) fn command_line(pid: i32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = raw.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let line = words.join(" ").trim_end().to_owned();
    match line.split_once(' ') {
        Some((program, rest)) => {
            format!("{} {rest}", program.rsplit('/').next().unwrap_or(program))
        }
        None => line.rsplit('/').next().unwrap_or(&line).to_owned(),
    }
}

/// The fields of /proc/WHICH/stat from the third (state) on: the second may hold anything, blanks included.
fn stat(which: &str) -> Option<Vec<String>> {
    let line = fs::read_to_string(format!("/proc/{which}/stat")).ok()?;
    let rest = line.rsplit_once(") ")?.1;
    Some(rest.split_ascii_whitespace().map(str::to_owned).collect())
}

/// The state letter, `X` for a process that is gone.
pub(crate) fn state(pid: i32) -> char {
    stat(&pid.to_string()).and_then(|fields| fields[0].chars().next()).unwrap_or('X')
}

/// Whether no thread of a process runs, or would if a processor were free.
pub(crate) fn sleeps(pid: i32) -> bool {
    let awake =
        |task: i32| stat(&format!("{pid}/task/{task}")).is_some_and(|fields| fields[0] == "R");
    !numbers_in(&format!("/proc/{pid}/task")).into_iter().any(awake)
}

pub(crate) fn parent(pid: i32) -> Option<i32> {
    stat(&pid.to_string())?[1].parse().ok()
}

/// Children of a process, zombies included.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let mut pids = numbers_in("/proc");
    pids.retain(|other| parent(*other) == Some(pid));
    pids
}

#[track_caller]
pub(crate) fn only_child(pid: i32) -> i32 {
    // One that ends at once is a throw-away leader of the child's group: it may still be seen.
    let alive =
        || children(pid).into_iter().filter(|child| state(*child) != 'Z').collect::<Vec<_>>();
    let only = || match alive()[..] {
        // Between fork and exec the child still is nproxy by name.
        [child] => (command_line(child) != command_line(pid)).then_some(child),
        _ => None,
    };
    let seen = || children(pid).into_iter().map(describe).collect::<Vec<_>>().join("; ");
    until_or(&format!("one child of {}", describe(pid)), only, seen)
}

/// A number from /proc/PID/status, such as VmRSS (KiB) or Threads.
pub(crate) fn status(pid: i32, field: &str) -> Option<u64> {
    status_word(pid, field)?.parse().ok()
}

/// A signal set from /proc/PID/status, such as ShdPnd.
pub(crate) fn signal_set(pid: i32, field: &str) -> u64 {
    status_word(pid, field).and_then(|word| u64::from_str_radix(&word, 16).ok()).unwrap_or(0)
}

fn status_word(pid: i32, field: &str) -> Option<String> {
    let all = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line =
        all.lines().find(|line| line.starts_with(field) && line[field.len()..].starts_with(':'))?;
    line.split_ascii_whitespace().nth(1).map(str::to_owned)
}

/// Resident memory in bytes. Fails for a process that is gone: no memory at all would pass every limit.
#[track_caller]
pub(crate) fn resident(pid: i32) -> u64 {
    status(pid, "VmRSS").unwrap_or_else(|| panic!("no memory figure: {}", describe(pid))) << 10
}

/// Names of a process's threads, kernel workers of its rings included.
pub(crate) fn threads(pid: i32) -> Vec<String> {
    let tasks = numbers_in(&format!("/proc/{pid}/task")).into_iter();
    tasks
        .filter_map(|task| fs::read_to_string(format!("/proc/{pid}/task/{task}/comm")).ok())
        .collect()
}

/// Kernel workers that are in the middle of an operation, with the place where they wait; a parked one holds nothing.
pub(crate) fn busy_workers(pid: i32) -> Vec<String> {
    let tasks = numbers_in(&format!("/proc/{pid}/task")).into_iter().filter(|task| *task != pid);
    let place = |task: i32| fs::read_to_string(format!("/proc/{pid}/task/{task}/wchan")).ok();
    tasks.filter_map(place).filter(|place| place != "io_wq_worker").collect()
}

/// CPU time of all threads of a process.
#[track_caller]
pub(crate) fn cpu_time(pid: i32) -> Duration {
    let times = schedule(pid);
    assert!(!times.is_empty(), "no CPU figure: {}", describe(pid));
    times.into_iter().map(|[ran, _]| ran).sum()
}

/// How often the threads of a process have gone to sleep.
fn wakes(pid: i32) -> u32 {
    let of = |task: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/task/{task}/status")).ok()?;
        let count =
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        count.trim().parse::<u32>().ok()
    };
    numbers_in(&format!("/proc/{pid}/task")).into_iter().filter_map(of).sum()
}

/// So many wake-ups in a moment are those of looks at memory and at what a slow reader has taken, and one may cost so much
/// where the host has taken the processor away meanwhile. Whoever wakes often is not idle.
const FEW_WAKES: u32 = 20;
const WAKING: Duration = Duration::from_millis(10);

/// How much a process had run at some time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran {
    pid: i32,
    time: Duration,
    wakes: u32,
}

impl Ran {
    /// Up to now.
    #[track_caller]
    pub(crate) fn of(pid: i32) -> Ran {
        Ran { pid, time: cpu_time(pid), wakes: wakes(pid) }
    }

    /// CPU time since then, without what a few wake-ups may cost.
    #[track_caller]
    pub(crate) fn busy_since(self) -> Duration {
        let now = Ran::of(self.pid);
        let wakes = now.wakes.saturating_sub(self.wakes);
        let waking = if wakes <= FEW_WAKES { WAKING * wakes } else { Duration::ZERO };
        now.time.saturating_sub(self.time).saturating_sub(waking)
    }
}

/// The time in which all threads of a process ran, or would have if a processor had been free. Nothing if it is gone.
pub(crate) fn time_wanted(pid: i32) -> Duration {
    schedule(pid).into_iter().flatten().sum()
}

/// How long each thread of a process has run, and waited for a processor.
fn schedule(pid: i32) -> Vec<[Duration; 2]> {
    let tasks = numbers_in(&format!("/proc/{pid}/task")).into_iter();
    let times = |task: i32| {
        let line = fs::read_to_string(format!("/proc/{pid}/task/{task}/schedstat")).ok()?;
        let mut numbers = line.split_ascii_whitespace().map_while(|word| word.parse().ok());
        Some([numbers.next()?, numbers.next()?].map(Duration::from_nanos))
    };
    tasks.filter_map(times).collect()
}

/// Bytes that the process's finished writes have given away.
pub(crate) fn written(pid: i32) -> Option<u64> {
    let all = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    all.lines().find_map(|line| line.strip_prefix("wchar: "))?.parse().ok()
}

/// Open descriptors and their targets.
pub(crate) fn descriptors(pid: i32) -> Vec<(i32, PathBuf)> {
    let mut all: Vec<_> = numbers_in(&format!("/proc/{pid}/fd"))
        .into_iter()
        .filter_map(|fd| Some((fd, fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?)))
        .collect();
    all.sort();
    all
}

/// One line about a process, for failures.
pub(crate) fn describe(pid: i32) -> String {
    let waits = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    format!("{pid} state {} in {waits}: {}", state(pid), command_line(pid))
}

/// Waits until a process neither runs nor writes any more: asleep, and nothing given away for a while.
#[track_caller]
pub(crate) fn until_blocked_in_write(pid: i32) {
    let mut last = (None, Instant::now());
    until_or(
        "the writer to block",
        || {
            let now = written(pid);
            if now != last.0 {
                last = (now, Instant::now());
            }
            (state(pid) == 'S' && now.is_some() && last.1.elapsed() > Duration::from_millis(300))
                .then_some(())
        },
        || describe(pid),
    );
}
