//! The memory of a process tree that it would give back by dying, or that of a cgroup.
//!
//! A known process costs one pread(2) a sample: its `statm` stays open, and reading it fails once the
//! process is gone, whoever has its number by then. What `statm` cannot tell is looked up seldom, see `footprint`.
//! Looking for new processes is apart from that, because on a machine where others fork much it is what costs: it
//! is done only when the last pid in `/proc/loadavg` says that something has forked, and among the new numbers only. Once
//! known, a process counts for as long as it lives, whoever its parent becomes. Nothing here fails: what cannot be
//! read does not count.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, getpgrp, getsid, sysconf};

use super::footprint::{Footprint, Sharing, Statm};
use super::group::{Group, is_of_the_kernel};
use super::kin::{Kin, Kind, Stat};

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The child alone.
    Process,
    /// The child, everything that it started, and what those started.
    Tree,
    /// The cgroup in this directory.
    Cgroup(Group),
}

/// Processes whose `statm` is kept open, or a quarter of the fds that we may have if that is less; beyond that number,
/// it is opened for each sample.
const KEPT_OPEN: usize = 256;

/// What may be unknown of the memory before a close measurement is worth it, and how large a process has to be to be looked at
/// or to share memory with others: one part in so many of all.
const DOUBT_PART: u64 = 8;
const LARGE_PART: u64 = 16;

/// More new numbers than this, and listing `/proc` is cheaper than trying each.
const TRIED_SINGLY: u32 = 16;

/// Reads how much memory is in use.
#[derive(Debug)]
pub struct Sampler {
    scope: Scope,
    page: u64,
    members: Vec<Member>,
    kin: Kin,
    /// Processes that were looked at and are not the child's: not looked at again until numbers begin anew.
    strangers: HashSet<u32>,
    /// `/proc/loadavg`, or nothing if it cannot be read, or is not the kernel's own for our numbers.
    forks: Option<File>,
    /// Where the numbers stood when new processes were last looked for.
    last_pid: u32,
    /// Numbers that were given out then without a verdict. A number is given out a moment before its process can be
    /// found, so these are looked for once more.
    unsettled: Vec<u32>,
    kept_open: usize,
    /// Processes have come or gone since the last close measurement.
    changed: bool,
}

/// A process that counts.
#[derive(Debug)]
struct Member {
    pid: u32,
    statm: Option<File>,
    /// At the last sample.
    now: Statm,
    footprint: Footprint,
    /// In clock ticks since boot: tells a process from a later one with its number.
    start: u64,
}

impl Sampler {
    /// A sampler for the child with number `root`, which has not been reaped.
    pub fn new(scope: Scope, root: u32) -> Sampler {
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096) as u64;
        let forks = File::open("/proc/loadavg").ok().filter(is_of_the_kernel);
        let stat = Stat::read(root);
        let session = getsid(None).map_or(0, |pid| pid.as_raw() as u32);
        let mut sampler = Sampler {
            scope,
            page,
            members: Vec::new(),
            kin: Kin {
                pids: HashSet::new(),
                groups: HashSet::new(),
                session: stat.map_or(session, |stat| stat.session),
                // A pty's session: our own monitor leads it, and all in it are the child's doing.
                own_session: stat.is_some_and(|stat| stat.session != session),
                start: stat.map_or(0, |stat| stat.start),
            },
            strangers: HashSet::new(),
            forks,
            // Whatever the child has started by now has a larger number, or is found at the next turn of
            // the numbers.
            last_pid: root,
            unsettled: Vec::new(),
            kept_open: kept_open(),
            changed: false,
        };
        if let Some(stat) = stat {
            sampler.adopt(root, stat);
        }
        sampler
    }

    /// Takes a sample: bytes that the known processes use now, as far as is known without a close measurement.
    pub fn sample(&mut self) -> u64 {
        if let Scope::Cgroup(group) = &self.scope {
            return group.usage().unwrap_or(0);
        }
        if self.members.iter().any(|member| member.statm.is_none()) {
            self.spare_one_fd();
        }
        let (page, kin) = (self.page, &mut self.kin);
        let before = self.members.len();
        self.members.retain_mut(|member| match member.read(page) {
            Presence::Here => true,
            Presence::Gone => {
                kin.pids.remove(&member.pid);
                false
            }
        });
        self.changed |= self.members.len() != before;
        self.counted()
    }

    fn counted(&self) -> u64 {
        self.members.iter().map(|member| member.footprint.bytes(member.now)).sum()
    }

    /// What is in use at least: a process that has just come counts if it is small, or alone. A fork has all that its
    /// parent has.
    pub fn certain(&self) -> u64 {
        let (least, sharing) = (self.least_of_the_large(), self.sharing());
        let counts = |member: &&Member| {
            sharing == Sharing::Alone || member.footprint.is_known() || member.size() < least
        };
        self.members.iter().filter(counts).map(|member| member.footprint.bytes(member.now)).sum()
    }

    /// What there may be besides: memory that is shared, and may be a file's or not.
    pub fn hidden(&self) -> u64 {
        self.members.iter().map(|member| member.footprint.hidden(member.now)).sum()
    }

    /// What relatives had in common when they were measured, and may each have to themselves by now: pages are copied when
    /// they are written to, and `statm` does not tell.
    pub fn in_common(&self) -> u64 {
        match self.sharing() {
            Sharing::Alone => 0,
            Sharing::Possible => {
                self.large().map(|member| member.footprint.in_common(member.now)).sum()
            }
        }
    }

    /// Whether a close measurement could tell much more than the last sample: shared pages that may be memory, or several
    /// large processes that may have theirs in common, or may not any more.
    pub fn is_doubtful(&self) -> bool {
        let all = self.counted();
        let share = self.sharing() == Sharing::Possible
            && (self.changed || self.large().any(|member| !member.footprint.is_known()));
        share || self.hidden() + self.in_common() > all / DOUBT_PART
    }

    /// Measures the large ones closely, and counts again.
    pub fn measure_closely(&mut self) -> u64 {
        let sharing = self.sharing();
        let least = self.least_of_the_large();
        for member in &mut self.members {
            member.footprint = match member.size() >= least {
                true => Footprint::measure(member.pid, member.now, sharing),
                false => Footprint::assumed(member.now),
            };
        }
        self.changed = false;
        self.counted()
    }

    /// The process that has most of the memory.
    pub fn largest(&self) -> Option<u32> {
        self.members.iter().max_by_key(|member| member.size()).map(|member| member.pid)
    }

    fn sharing(&self) -> Sharing {
        if self.large().nth(1).is_some() { Sharing::Possible } else { Sharing::Alone }
    }

    fn large(&self) -> impl Iterator<Item = &Member> {
        let least = self.least_of_the_large();
        self.members.iter().filter(move |member| member.size() >= least)
    }

    fn least_of_the_large(&self) -> u64 {
        let all: u64 = self.members.iter().map(Member::size).sum();
        (all / LARGE_PART).max(1)
    }

    /// How many processes counted in the last sample; none for a cgroup.
    pub fn processes(&self) -> usize {
        self.members.len()
    }

    fn adopt(&mut self, pid: u32, stat: Stat) {
        if !self.kin.pids.insert(pid) {
            return;
        }
        if stat.group != getpgrp().as_raw() as u32 {
            self.kin.groups.insert(stat.group);
        }
        let keep = self.members.len() < self.kept_open;
        let statm = keep.then(|| open_statm(pid).ok()).flatten();
        let (now, footprint) = (Statm::default(), Footprint::default());
        self.members.push(Member { pid, statm, now, footprint, start: stat.start });
        self.changed = true;
    }

    /// Where no fd is left to open anything with, one that is kept open is given up: its process is then looked at as
    /// those beyond [`KEPT_OPEN`] are.
    fn spare_one_fd(&mut self) {
        // With a usual limit and few processes that cannot be.
        if self.kept_open == KEPT_OPEN && self.members.len() < KEPT_OPEN / 2 {
            return;
        }
        let none_left =
            |error: io::Error| matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
        while File::open("/proc/self/statm").err().is_some_and(none_left) {
            let mut kept = self.members.iter_mut().rev().filter_map(|member| member.statm.take());
            if kept.next().is_none() {
                return;
            }
        }
    }

    /// Takes in what the child's processes have started since the last time. Nothing to do unless a tree is watched.
    pub fn find_new(&mut self) {
        if self.scope != Scope::Tree {
            return;
        }
        let Some(last) = self.forks.as_ref().and_then(last_pid) else {
            self.strangers.clear();
            self.examine(listed());
            return;
        };
        let seen = std::mem::replace(&mut self.last_pid, last);
        let mut again = std::mem::take(&mut self.unsettled);
        match last.checked_sub(seen) {
            Some(new) if new <= TRIED_SINGLY => {
                again.extend(seen + 1..=last);
                self.unsettled = self.examine(again);
                self.unsettled.retain(|pid| *pid > seen);
            }
            Some(_) => {
                let all = listed();
                self.examine(all.clone());
                self.strangers =
                    all.into_iter().filter(|pid| !self.kin.pids.contains(pid)).collect();
                // What cannot be found by now.
                let missing = (last - TRIED_SINGLY..=last).filter(|pid| !self.is_known(*pid));
                self.unsettled = missing.collect();
            }
            None => {
                // The numbers began anew.
                self.strangers.clear();
                self.examine(listed());
            }
        }
    }

    fn is_known(&self, pid: u32) -> bool {
        self.kin.pids.contains(&pid) || self.strangers.contains(&pid)
    }

    /// Takes in whoever of these belongs to the tree. A process can come before its parent here, when
    /// numbers began anew. Returns those without a verdict: they cannot be found, or their parent has none.
    fn examine(&mut self, pids: Vec<u32>) -> Vec<u32> {
        if pids.is_empty() {
            return pids;
        }
        self.spare_one_fd();
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for pid in pids.into_iter().filter(|pid| !self.is_known(*pid)) {
            match Stat::read(pid) {
                Some(stat) => found.push((pid, stat)),
                None => missing.push(pid),
            }
        }
        let mut parents = HashMap::new();
        loop {
            let before = found.len();
            found.retain(|(pid, stat)| {
                let ours =
                    self.kin.pids.contains(&stat.parent) || self.kin.is_orphan(stat, &mut parents);
                // Threads take numbers too, and can be read by them.
                if ours && stat.kind == Kind::Process {
                    self.adopt(*pid, *stat);
                }
                !ours
            });
            if found.len() == before {
                break;
            }
        }
        // In the order of their numbers: parents come first.
        for (pid, stat) in found {
            if missing.contains(&stat.parent) {
                missing.push(pid);
            }
        }
        missing
    }
}

/// Whether a process is still there.
enum Presence {
    Here,
    Gone,
}

impl Member {
    /// Whatever it is of the two: what it has resident that is no file's, or may be none.
    fn size(&self) -> u64 {
        self.now.anonymous + self.footprint.hidden(self.now)
    }

    /// Reads what it has now. What cannot be read for any other reason than that it is gone stays as it was.
    fn read(&mut self, page: u64) -> Presence {
        let opened = match &self.statm {
            Some(_) => None,
            None => match open_statm(self.pid) {
                Ok(file) if Stat::read(self.pid).is_none_or(|stat| stat.start == self.start) => {
                    Some(file)
                }
                Ok(_) => return Presence::Gone,
                Err(error) => return Presence::after(&error),
            },
        };
        let Some(statm) = self.statm.as_ref().or(opened.as_ref()) else { return Presence::Gone };
        match Statm::read(statm, page) {
            Ok(now) => {
                self.now = now;
                Presence::Here
            }
            Err(error) => Presence::after(&error),
        }
    }
}

impl Presence {
    fn after(error: &io::Error) -> Presence {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => Presence::Gone,
            _ => Presence::Here,
        }
    }
}

fn open_statm(pid: u32) -> io::Result<File> {
    File::open(format!("/proc/{pid}/statm"))
}

fn kept_open() -> usize {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((0, 0));
    usize::try_from(soft / 4).map_or(KEPT_OPEN, |quarter| quarter.min(KEPT_OPEN))
}

/// The last number given to a process or thread in our pid namespace (proc_loadavg(5)). gVisor says 0 always.
fn last_pid(loadavg: &File) -> Option<u32> {
    let mut text = [0; 128];
    let len = loadavg.read_at(&mut text, 0).ok()?;
    let last = std::str::from_utf8(&text[..len]).ok()?.trim_end().rsplit(' ').next()?;
    last.parse().ok().filter(|pid| *pid > 0)
}

/// Every process that `/proc` shows us.
fn listed() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// A shell that runs what is written to it, line by line, in a session of its own: whoever takes in its
    /// orphans is outside, wherever the tests run.
    fn shell() -> Child {
        let piped = || Stdio::piped();
        let mut shell = Command::new("setsid");
        shell.arg("sh").stdin(piped()).stdout(piped()).spawn().expect("start sh")
    }

    /// Lets the shell do something and waits until it has.
    fn tell(shell: &mut Child, out: &mut impl BufRead, line: &str) -> String {
        let input = shell.stdin.as_mut().expect("piped");
        writeln!(input, "{line}").expect("write");
        let mut answer = String::new();
        out.read_line(&mut answer).expect("read");
        answer
    }

    #[test]
    fn grandchildren_and_orphans_count_until_they_end() {
        let mut child = shell();
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        tell(&mut child, &mut out, "echo started");
        let mut sampler = Sampler::new(Scope::Tree, child.id());
        sampler.find_new();
        assert!(sampler.sample() > 0);
        assert_eq!(sampler.processes(), 1);
        // The middle shell ends before anyone looks: what it started is an orphan by then.
        let middle = "sh -c 'sleep 60 >/dev/null & echo $!'; sleep 60 >/dev/null & echo";
        let orphan: u32 = tell(&mut child, &mut out, middle).trim().parse().expect("a pid");
        tell(&mut child, &mut out, "");
        sampler.find_new();
        sampler.sample();
        assert_eq!(sampler.processes(), 3, "the shell, its job, and the orphan");
        assert!(sampler.kin.pids.contains(&orphan));
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(orphan as i32),
            nix::sys::signal::SIGKILL,
        )
        .expect("kill");
        tell(&mut child, &mut out, "kill $!; wait; echo done");
        let _ = child.kill();
        let _ = child.wait();
        // A killed process goes when it next runs, and whoever took the orphan in may leave it a zombie.
        let deadline = Instant::now() + Duration::from_secs(20);
        while sampler.sample() > 0 || sampler.processes() > 1 {
            assert!(Instant::now() < deadline, "still there: {:?}", sampler.members);
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_last_pid_is_at_least_ours() {
        let loadavg = File::open("/proc/loadavg").expect("open");
        assert!(last_pid(&loadavg).is_some_and(|pid| pid > 0));
    }
}
