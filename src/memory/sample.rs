//! Resident memory of a process tree, or of a cgroup.
//!
//! A known process costs one pread(2) a sample: its `statm` stays open, and reading it fails once the
//! process is gone, whoever has its number by then. New processes are looked for only when the last pid in
//! `/proc/loadavg` says that something has forked, and among the new numbers only. Once known, a process
//! counts for as long as it lives, whoever its parent becomes. Nothing here fails: what cannot be read
//! does not count.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::unistd::{SysconfVar, getpgrp, getpid, getppid, getsid, sysconf};

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

/// A memory cgroup's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    /// Of the unified hierarchy.
    V2(PathBuf),
    /// Of the memory controller's own.
    V1(PathBuf),
}

/// Processes whose `statm` is kept open; beyond that number, it is opened for each sample.
const KEPT_OPEN: usize = 256;

/// More new numbers than this, and listing `/proc` is cheaper than trying each.
const TRIED_SINGLY: u32 = 16;

/// Takes in orphans where nobody nearer does.
const INIT: u32 = 1;

/// Reads how much memory is in use.
#[derive(Debug)]
pub struct Sampler {
    scope: Scope,
    page: u64,
    members: Vec<Member>,
    kin: Kin,
    /// Processes that were looked at and are not the child's: not looked at again until numbers begin anew.
    strangers: HashSet<u32>,
    /// `/proc/loadavg`, or nothing if it cannot be read.
    forks: Option<File>,
    /// Where the numbers stood at the last sample, and at the one before. A number is given out a moment
    /// before its process can be found, so each is looked for in two samples.
    last_pid: u32,
    settled_pid: u32,
}

/// A process that counts.
#[derive(Debug)]
struct Member {
    pid: u32,
    statm: Option<File>,
    /// In clock ticks since boot: tells a process from a later one with its number.
    start: u64,
}

/// What tells which processes are the child's.
#[derive(Debug)]
struct Kin {
    pids: HashSet<u32>,
    /// Process groups that members were found in, unless it is our own.
    groups: HashSet<u32>,
    session: u32,
    /// It is not ours: all in it are the child's doing.
    own_session: bool,
    start: u64,
}

/// The fields of `/proc/PID/stat` that matter here; see proc_pid_stat(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    group: u32,
    session: u32,
    start: u64,
    resident_pages: u64,
}

impl Sampler {
    /// A sampler for the child with number `root`, which has not been reaped.
    pub fn new(scope: Scope, root: u32) -> Sampler {
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096) as u64;
        let forks = File::open("/proc/loadavg").ok();
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
            settled_pid: root,
        };
        if let Some(stat) = stat {
            sampler.adopt(root, stat);
        }
        sampler
    }

    /// Bytes resident now.
    pub fn resident(&mut self) -> u64 {
        if let Scope::Cgroup(group) = &self.scope {
            return group.usage().unwrap_or(0);
        }
        if self.scope == Scope::Tree {
            self.look_for_new();
        }
        let (page, kin) = (self.page, &mut self.kin);
        let mut pages = 0;
        self.members.retain(|member| match member.resident_pages() {
            Some(resident) => {
                pages += resident;
                true
            }
            None => {
                kin.pids.remove(&member.pid);
                false
            }
        });
        pages * page
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
        let keep = self.members.len() < KEPT_OPEN;
        let statm = keep.then(|| File::open(format!("/proc/{pid}/statm")).ok()).flatten();
        self.members.push(Member { pid, statm, start: stat.start });
    }

    fn look_for_new(&mut self) {
        let Some(last) = self.forks.as_ref().and_then(last_pid) else {
            self.strangers.clear();
            return self.look_at(listed());
        };
        let before = std::mem::replace(&mut self.last_pid, last);
        let seen = std::mem::replace(&mut self.settled_pid, before);
        if last == seen {
            return;
        }
        match last.checked_sub(seen) {
            Some(new) if new <= TRIED_SINGLY => self.look_at((seen + 1..=last).collect()),
            Some(_) => {
                let all = listed();
                self.look_at(all.clone());
                self.strangers =
                    all.into_iter().filter(|pid| !self.kin.pids.contains(pid)).collect();
            }
            None => {
                // The numbers began anew.
                self.strangers.clear();
                self.look_at(listed());
            }
        }
    }

    /// Takes in whoever of these belongs to the tree. A process can come before its parent here, when
    /// numbers began anew.
    fn look_at(&mut self, pids: Vec<u32>) {
        let known = |pid: &u32| self.kin.pids.contains(pid) || self.strangers.contains(pid);
        let unknown = pids.into_iter().filter(|pid| !known(pid));
        let mut found: Vec<(u32, Stat)> =
            unknown.filter_map(|pid| Some((pid, Stat::read(pid)?))).collect();
        let mut parents = HashMap::new();
        loop {
            let before = found.len();
            found.retain(|(pid, stat)| {
                let ours =
                    self.kin.pids.contains(&stat.parent) || self.kin.is_orphan(stat, &mut parents);
                // Threads take numbers too, and can be read by them.
                if ours && is_process(*pid) {
                    self.adopt(*pid, *stat);
                }
                !ours
            });
            if found.len() == before {
                return;
            }
        }
    }
}

impl Kin {
    /// Whether a process with this stat is the child's although its parent ended before we saw it: it is
    /// in the child's session and younger, its new parent is one that takes in orphans, and it is in a
    /// process group of the tree if the session is not the child's own.
    ///
    /// Who takes in orphans cannot be read anywhere. It is surely ourselves, and whoever is outside of the
    /// session. Process 1 inside of it is (a container's), unless it started us: then what it has besides
    /// may be our neighbours.
    fn is_orphan(&self, stat: &Stat, parents: &mut HashMap<u32, bool>) -> bool {
        if stat.session != self.session || stat.start < self.start {
            return false;
        }
        let grouped = self.own_session
            || self.groups.contains(&stat.group)
            || stat.group == getpgrp().as_raw() as u32;
        grouped
            && (stat.parent == getpid().as_raw() as u32
                || stat.parent == INIT && getppid().as_raw() as u32 != INIT
                || *parents.entry(stat.parent).or_insert_with(|| {
                    Stat::read(stat.parent).is_none_or(|parent| parent.session != self.session)
                }))
    }
}

impl Member {
    /// `None` once the process is gone.
    fn resident_pages(&self) -> Option<u64> {
        let Some(statm) = &self.statm else {
            let stat = Stat::read(self.pid)?;
            return (stat.start == self.start).then_some(stat.resident_pages);
        };
        let mut text = [0; 128];
        // ESRCH: the process that this file was opened for has been reaped.
        let len = statm.read_at(&mut text, 0).ok()?;
        let fields = std::str::from_utf8(&text[..len]).ok()?;
        fields.split(' ').nth(1)?.parse().ok()
    }
}

impl Stat {
    fn read(pid: u32) -> Option<Stat> {
        let file = File::open(format!("/proc/{pid}/stat")).ok()?;
        // Fifty numbers, most of them small, and a name of sixteen bytes.
        let mut text = [0; 1024];
        let len = file.read_at(&mut text, 0).ok()?;
        Stat::parse(&text[..len])
    }

    fn parse(text: &[u8]) -> Option<Stat> {
        // The name in parentheses may hold anything, so read from its end. Field 3, the state, is first.
        let name_end = text.iter().rposition(|byte| *byte == b')')?;
        let fields = std::str::from_utf8(&text[name_end + 1..]).ok()?;
        let mut fields = fields.trim_start().split(' ');
        let mut field = |skip| fields.nth(skip)?.parse::<u64>().ok();
        Some(Stat {
            parent: field(1)? as u32,
            group: field(0)? as u32,
            session: field(0)? as u32,
            start: field(15)?,
            resident_pages: field(1)?,
        })
    }
}

impl Group {
    /// What the group uses and reclaim would not get back by dropping unused page cache, in bytes.
    ///
    /// # Errors
    /// What the group's files say.
    pub fn usage(&self) -> io::Result<u64> {
        let (directory, usage, inactive) = match self {
            Group::V2(path) => (path, "memory.current", "inactive_file "),
            Group::V1(path) => (path, "memory.usage_in_bytes", "total_inactive_file "),
        };
        let usage = fs::read_to_string(directory.join(usage))?;
        let usage: u64 = usage.trim().parse().map_err(io::Error::other)?;
        let stat = fs::read_to_string(directory.join("memory.stat"))?;
        let cache = stat.lines().find_map(|line| line.strip_prefix(inactive)?.parse().ok());
        Ok(usage.saturating_sub(cache.unwrap_or(0)))
    }
}

/// The last number given to a process or thread in our pid namespace (proc_loadavg(5)).
fn last_pid(loadavg: &File) -> Option<u32> {
    let mut text = [0; 128];
    let len = loadavg.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..len]).ok()?.trim_end().rsplit(' ').next()?.parse().ok()
}

/// Every process that `/proc` shows us.
fn listed() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn is_process(pid: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let leader = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    leader.is_some_and(|leader| leader.trim().parse() == Ok(pid))
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
    fn stat_is_read_whatever_the_name() {
        let text =
            b"7 (a) b\xff (c) S 3 5 6 34816 7 4194304 1 2 3 4 5 6 7 8 20 0 1 0 12345 4096 77 1 2";
        let stat = Stat { parent: 3, group: 5, session: 6, start: 12345, resident_pages: 77 };
        assert_eq!(Stat::parse(text), Some(stat));
        assert_eq!(Stat::parse(b"7 (a"), None);
    }

    #[test]
    fn grandchildren_and_orphans_count_until_they_end() {
        let mut child = shell();
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        tell(&mut child, &mut out, "echo started");
        let mut sampler = Sampler::new(Scope::Tree, child.id());
        assert!(sampler.resident() > 0);
        assert_eq!(sampler.processes(), 1);
        // The middle shell ends before anyone looks: what it started is an orphan by then.
        let middle = "sh -c 'sleep 60 >/dev/null & echo $!'; sleep 60 >/dev/null & echo";
        let orphan: u32 = tell(&mut child, &mut out, middle).trim().parse().expect("a pid");
        tell(&mut child, &mut out, "");
        sampler.resident();
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
        while sampler.resident() > 0 || sampler.processes() > 1 {
            assert!(Instant::now() < deadline, "still there: {:?}", sampler.members);
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_orphan_among_neighbours_is_told_by_its_group_its_age_and_its_new_parent() {
        let kin = Kin {
            pids: HashSet::from([100]),
            groups: HashSet::from([100]),
            session: 50,
            own_session: false,
            start: 1000,
        };
        let (inside, outside) = (60, 70);
        let mut parents = HashMap::from([(INIT, false), (inside, false), (outside, true)]);
        let orphan =
            Stat { parent: outside, group: 100, session: 50, start: 1001, resident_pages: 1 };
        let mut is_orphan = |stat: Stat| kin.is_orphan(&stat, &mut parents);
        assert!(is_orphan(orphan));
        assert!(is_orphan(Stat { parent: std::process::id(), ..orphan }));
        assert!(!is_orphan(Stat { parent: inside, ..orphan }), "somebody's child");
        assert!(!is_orphan(Stat { session: 51, ..orphan }), "another session");
        assert!(!is_orphan(Stat { start: 999, ..orphan }), "older than the child");
        assert!(!is_orphan(Stat { group: 55, ..orphan }), "another job of the same shell");
        assert_eq!(
            is_orphan(Stat { parent: INIT, ..orphan }),
            std::os::unix::process::parent_id() != 1
        );
    }

    #[test]
    fn the_last_pid_is_at_least_ours() {
        let loadavg = File::open("/proc/loadavg").expect("open");
        assert!(last_pid(&loadavg).is_some_and(|pid| pid > 0));
        assert!(is_process(std::process::id()));
    }
}
