//! Which processes are the child's: itself, what it started, what those started, and orphans of all these.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::unistd::{getpgrp, getpid, getppid};

/// Takes in orphans where nobody nearer does.
const INIT: u32 = 1;

/// What tells which processes are the child's.
#[derive(Debug)]
pub(super) struct Kin {
    pub(super) pids: HashSet<u32>,
    /// Process groups that members were found in, unless it is our own.
    pub(super) groups: HashSet<u32>,
    pub(super) session: u32,
    /// It is not ours: all in it are the child's doing.
    pub(super) own_session: bool,
    pub(super) start: u64,
}

/// The fields of `/proc/PID/stat` that matter here; see proc_pid_stat(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) parent: u32,
    pub(super) group: u32,
    pub(super) session: u32,
    pub(super) kind: Kind,
    pub(super) start: u64,
    /// It runs no more, and waits for its parent to ask how it ended.
    pub(super) ended: bool,
}

/// What has a number: a thread can be read by its own as a process can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Process,
    /// Of a process, and not its first.
    Thread,
}

impl Kin {
    /// Whether a process with this stat is the child's although its parent ended before we saw it: it is
    /// in the child's session and younger, its new parent is one that takes in orphans, and it is in a
    /// process group of the tree if the session is not the child's own.
    ///
    /// Who takes in orphans cannot be read anywhere. It is surely ourselves, and whoever is outside of the
    /// session. Process 1 inside of it is (a container's), unless it started us: then what it has besides
    /// may be our neighbours.
    pub(super) fn is_orphan(&self, stat: &Stat, parents: &mut HashMap<u32, bool>) -> bool {
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

impl Stat {
    pub(super) fn read(pid: u32) -> Option<Stat> {
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
        let ended = matches!(fields.next()?, "Z" | "X");
        let mut field = |skip| fields.nth(skip)?.parse::<u64>().ok();
        let (parent, group) = (field(0)? as u32, field(0)? as u32);
        let (session, start) = (field(0)? as u32, field(15)?);
        // Field 38 is the signal that its parent gets at its end. A thread has none, which shows as -1.
        let kind = if fields.nth(15)? == "-1" { Kind::Thread } else { Kind::Process };
        Some(Stat { parent, group, session, kind, start, ended })
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::gettid;

    use super::*;

    #[test]
    fn stat_is_read_whatever_the_name() {
        let text =
            b"7 (a) b\xff (c) S 3 5 6 34816 7 4194304 1 2 3 4 5 6 7 8 20 0 1 0 12345 4096 77 \
            1 2 3 4 5 6 7 8 9 10 11 12 13 17 1 0\n";
        let kind = Kind::Process;
        let stat = Stat { parent: 3, group: 5, session: 6, kind, start: 12345, ended: false };
        assert_eq!(Stat::parse(text), Some(stat));
        let text = String::from_utf8_lossy(text).replace(") S ", ") Z ");
        assert_eq!(Stat::parse(text.as_bytes()), Some(Stat { ended: true, ..stat }));
        assert_eq!(Stat::parse(b"7 (a"), None);
    }

    #[test]
    fn threads_are_told_from_processes() {
        let own = Stat::read(std::process::id()).expect("we are here");
        assert_eq!(own.kind, Kind::Process);
        let thread = std::thread::spawn(|| Stat::read(gettid().as_raw() as u32)).join();
        let thread = thread.expect("joined").expect("it is there");
        assert_eq!((thread.kind, thread.parent), (Kind::Thread, own.parent));
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
        let kind = Kind::Process;
        let orphan =
            Stat { parent: outside, group: 100, session: 50, kind, start: 1001, ended: false };
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
}
