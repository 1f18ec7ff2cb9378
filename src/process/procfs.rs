//! Where nproxy stands in the shell's job control, and who else holds a pipe.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgid, getpgrp, getpid, getppid, getsid};

/// Whether this process leads its session: a terminal's end is told to it alone.
pub(crate) fn leads_session() -> bool {
    getsid(None) == Ok(getpid())
}

/// Whether nobody would continue our process group once it stopped.
///
/// A group is orphaned if no member's parent is in another group of the same session (POSIX, "orphaned
/// process group"). Members between us and the shell are followed upwards: `sh -c 'nproxy make'` shares
/// its group with the `sh`.
pub(crate) fn group_is_orphaned() -> bool {
    let (group, session) = (getpgrp(), getsid(None));
    let mut ancestor = getppid();
    while getpgid(Some(ancestor)) == Ok(group) {
        match parent_of(ancestor) {
            Some(parent) => ancestor = parent,
            // Without /proc: a group that holds the session's leader has nobody above it.
            None => return session == Ok(group),
        }
    }
    session.is_err() || getsid(Some(ancestor)) != session
}

fn parent_of(pid: Pid) -> Option<Pid> {
    stat_field(pid, 4).map(Pid::from_raw)
}

/// A field of `/proc/PID/stat`, by its number in proc_pid_stat(5): the third or a later one.
fn stat_field<T: FromStr>(pid: impl Display, number: usize) -> Option<T> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // "pid (name) state parent …": the name may hold any bytes, cut in the middle of a character too, so read from
    // its end.
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    fields.split_whitespace().nth(number - 3)?.parse().ok()
}

/// Whether a process of this group runs, or would if a processor were free.
pub(crate) fn group_runs(group: i32) -> bool {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.any(|pid| stat_field(pid, 5) == Some(group) && stat_field(pid, 3) == Some('R'))
}

/// One process, and none that has its number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pid: i32,
    /// In clock ticks since boot.
    started: u64,
}

impl Process {
    fn find(pid: i32) -> Option<Process> {
        Some(Process { pid, started: stat_field(pid, 22)? })
    }

    /// Sends it a signal, unless it has ended.
    pub(crate) fn signal(self, signal: Signal) {
        if self.runs() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Whether it has not ended. One that nobody has waited for yet has.
    pub(crate) fn runs(self) -> bool {
        let state = stat_field(self.pid, 3);
        Process::find(self.pid) == Some(self) && state.is_some_and(|state: char| state != 'Z')
    }
}

/// A process and all that descend from it, as far as their parents still run.
pub(crate) fn tree(root: i32) -> Vec<Process> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let parents: Vec<(i32, i32)> =
        pids.filter_map(|pid| Some((pid, stat_field(pid, 4)?))).collect();
    let mut tree = vec![root];
    let mut next = 0;
    while next < tree.len() {
        let parent = tree[next];
        tree.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    tree.into_iter().filter_map(Process::find).collect()
}

/// A process that holds a pipe or a terminal open.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    pub(crate) command: String,
    /// It has ended and is about to let go.
    pub(crate) exiting: bool,
}

impl Holder {
    /// Whether it has ended since.
    pub(crate) fn has_gone(&self) -> bool {
        stat_field(self.pid as i32, 3).is_none_or(|state: char| state == 'Z')
    }
}

/// What somebody else may hold open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// The pipe with this inode number.
    Pipe(u64),
    /// The terminal with this device number.
    Terminal(u64),
}

/// Finds another process that has it open. Only what this user may see of `/proc` is looked at.
pub(crate) fn holder_of(held: Held) -> Option<Holder> {
    let own = std::process::id();
    let pids = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.find(|pid| *pid != own && holds(*pid, held))?;
    Some(Holder { pid, command: command_of(pid), exiting: is_exiting(pid) })
}

fn holds(pid: u32, held: Held) -> bool {
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    // Following the link stats the open file itself.
    let mut open = fds.flatten().filter_map(|fd| fs::metadata(fd.path()).ok());
    open.any(|file| match (held, file.mode() & libc::S_IFMT) {
        (Held::Pipe(inode), libc::S_IFIFO) => file.ino() == inode,
        (Held::Terminal(device), libc::S_IFCHR) => file.rdev() == device,
        _ => false,
    })
}

fn is_exiting(pid: u32) -> bool {
    /// Of the kernel's task flags (include/linux/sched.h).
    const PF_EXITING: u32 = 4;
    stat_field(pid, 9).is_some_and(|flags: u32| flags & PF_EXITING != 0)
}

/// Whether a signal that kills by default would kill this process: it neither handles nor ignores it.
pub(crate) fn dies_of(pid: u32, signal: i32) -> bool {
    let Ok(status) = fs::read(format!("/proc/{pid}/status")) else { return false };
    // The name may hold any bytes.
    let status = String::from_utf8_lossy(&status);
    let has = |field: &str| {
        let sets = status.lines().filter_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
        sets.filter_map(|set| u64::from_str_radix(set, 16).ok())
            .any(|set| set >> (signal - 1) & 1 == 1)
    };
    !has("SigCgt") && !has("SigIgn") && !has("SigBlk")
}

fn command_of(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let words: Vec<_> = words.map(String::from_utf8_lossy).collect();
    words.join(" ")
}
