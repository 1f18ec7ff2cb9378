//! Limits on the child's memory, and those that stand above it.
//!
//! `--memory-high` and `--memory-max` need a cgroup v2 group that holds the child from before its first
//! instruction. It is made beside our own group, not below: v2 hands controllers to the children of a group
//! only if that group holds no process itself (cgroups(7), "no internal processes"). The group is removed when
//! this value is dropped; a process that is still in it goes back to ours.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::resource::{RLIM_INFINITY, Resource, rlim_t};
use nix::sys::sysinfo::sysinfo;
use nix::unistd::{AccessFlags, access};

use super::group::{Group, Hierarchies};
use crate::error::Error;
use crate::units::read_size;

/// What `--memory-high` and `--memory-max` ask for, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Beyond this the kernel slows the group down and reclaims.
    pub high: Option<u64>,
    /// Beyond this it kills.
    pub max: Option<u64>,
}

/// A resource limit, as in getrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// Of what.
    pub resource: Resource,
    /// The limit in force.
    pub soft: rlim_t,
    /// What it may be raised to.
    pub hard: rlim_t,
}

/// The names of resource limits, as `ulimit` and limits.conf(5) have them.
const RESOURCES: [(&str, Resource); 16] = [
    ("as", Resource::RLIMIT_AS),
    ("core", Resource::RLIMIT_CORE),
    ("cpu", Resource::RLIMIT_CPU),
    ("data", Resource::RLIMIT_DATA),
    ("fsize", Resource::RLIMIT_FSIZE),
    ("locks", Resource::RLIMIT_LOCKS),
    ("memlock", Resource::RLIMIT_MEMLOCK),
    ("msgqueue", Resource::RLIMIT_MSGQUEUE),
    ("nice", Resource::RLIMIT_NICE),
    ("nofile", Resource::RLIMIT_NOFILE),
    ("nproc", Resource::RLIMIT_NPROC),
    ("rss", Resource::RLIMIT_RSS),
    ("rtprio", Resource::RLIMIT_RTPRIO),
    ("rttime", Resource::RLIMIT_RTTIME),
    ("sigpending", Resource::RLIMIT_SIGPENDING),
    ("stack", Resource::RLIMIT_STACK),
];

impl Rlimit {
    /// Reads `NAME=SOFT[:HARD]`; without HARD it is the same as SOFT. Values are numbers with an optional
    /// binary unit, or `unlimited`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Rlimit, String> {
        let (name, values) = text.split_once('=').ok_or("expected NAME=SOFT[:HARD]")?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let known = RESOURCES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let names = || RESOURCES.map(|(name, _)| name).join(", ");
        let (_, resource) = known.ok_or_else(|| format!("expected one of {}", names()))?;
        let value = |text: &str| match text {
            "unlimited" => Ok(RLIM_INFINITY),
            _ => read_size(text).map_err(|_| {
                "expected a number, one with a unit such as 64K, or unlimited".to_owned()
            }),
        };
        let (soft, hard) = (value(soft)?, value(hard)?);
        if soft > hard {
            return Err("the soft limit is above the hard one".to_owned());
        }
        Ok(Rlimit { resource: *resource, soft, hard })
    }
}

/// What the kernel has counted in a group (`memory.events`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Times that it was slowed down at `memory.high`.
    pub high: u64,
    /// Times that it was about to go beyond `memory.max`.
    pub max: u64,
    /// Processes that the OOM killer ended.
    pub oom_kill: u64,
}

/// The group made for the child.
#[derive(Debug)]
pub struct ChildGroup {
    path: PathBuf,
    /// Where its processes go when it is removed.
    own: PathBuf,
    /// For the child to move in by writing "0", with the rights that nproxy has.
    procs: File,
    events: File,
}

impl ChildGroup {
    /// Makes the group, if there is anything to limit.
    ///
    /// # Errors
    /// One line that says why there can be none, and what to use instead.
    pub fn new(limits: Limits) -> Result<Option<ChildGroup>, Error> {
        if limits == Limits::default() {
            return Ok(None);
        }
        let flag = if limits.high.is_some() { "--memory-high" } else { "--memory-max" };
        ChildGroup::make(limits).map(Some).map_err(|why| {
            let property = if limits.high.is_some() { "MemoryHigh" } else { "MemoryMax" };
            let instead = format!("systemd-run --user --scope -p {property}=SIZE COMMAND");
            Error::usage(flag, format!("{why} (instead: {instead})"))
        })
    }

    fn make(limits: Limits) -> Result<ChildGroup, String> {
        let mounted = "there is no cgroup v2 with a memory controller to use";
        let place = Place::find().ok_or(mounted)?;
        let mut refused = None;
        for parent in place.parents() {
            if !lists(&parent.join("cgroup.controllers"), "memory") {
                continue;
            }
            let path = parent.join(format!("nproxy-{}", std::process::id()));
            match ChildGroup::make_in(parent, path, &place.own, limits) {
                Ok(group) => return Ok(group),
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        Err(refused.unwrap_or_else(|| mounted.to_owned()))
    }

    fn make_in(
        parent: &Path,
        path: PathBuf,
        own: &Path,
        limits: Limits,
    ) -> Result<ChildGroup, String> {
        let failed = |what: &Path, error: io::Error| {
            let why = error.raw_os_error().map(nix::errno::Errno::from_raw);
            let why = why.map_or_else(|| error.to_string(), |errno| errno.desc().to_owned());
            format!("cannot write {}: {why}", what.display())
        };
        // Moving a process takes the right to write here, the common ancestor, too (cgroups(7)).
        let common = parent.join("cgroup.procs");
        access(&common, AccessFlags::W_OK).map_err(|errno| failed(&common, errno.into()))?;
        let control = parent.join("cgroup.subtree_control");
        if !lists(&control, "memory") {
            fs::write(&control, "+memory").map_err(|error| failed(&control, error))?;
        }
        // A number that came round: what was left behind under it is empty, or in use and refuses.
        let _ = fs::remove_dir(&path);
        fs::create_dir(&path).map_err(|error| failed(&path, error))?;
        let filled = || {
            for (file, value) in [("memory.high", limits.high), ("memory.max", limits.max)] {
                if let Some(bytes) = value {
                    let file = path.join(file);
                    fs::write(&file, bytes.to_string()).map_err(|error| failed(&file, error))?;
                }
            }
            let open = |name: &str, options: &mut fs::OpenOptions| {
                let file = path.join(name);
                options.open(&file).map_err(|error| failed(&file, error))
            };
            Ok((
                open("cgroup.procs", File::options().write(true))?,
                open("memory.events", File::options().read(true))?,
            ))
        };
        match filled() {
            Ok((procs, events)) => {
                Ok(ChildGroup { own: own.to_owned(), path: path.clone(), procs, events })
            }
            Err(why) => {
                let _ = fs::remove_dir(&path);
                Err(why)
            }
        }
    }

    /// A copy of the fd through which a process enters the group by writing "0".
    ///
    /// # Errors
    /// What dup(2) says.
    pub fn entrance(&self) -> io::Result<OwnedFd> {
        Ok(self.procs.try_clone()?.into())
    }

    /// An fd that polls POLLPRI when an event has been counted since [`ChildGroup::events`] last looked.
    ///
    /// # Errors
    /// What dup(2) says.
    pub fn watch(&self) -> io::Result<OwnedFd> {
        Ok(self.events.try_clone()?.into())
    }

    /// What has been counted so far.
    pub fn events(&self) -> Events {
        let mut text = [0; 512];
        let len = self.events.read_at(&mut text, 0).unwrap_or(0);
        Events::parse(std::str::from_utf8(&text[..len]).unwrap_or_default())
    }

    /// The group, to be sampled.
    pub fn group(&self) -> Group {
        Group::V2(self.path.clone())
    }

    /// The most that the group has used, in bytes; kernels before 5.19 do not say.
    pub fn peak(&self) -> Option<u64> {
        fs::read_to_string(self.path.join("memory.peak")).ok()?.trim().parse().ok()
    }

    /// Where to write a PSI trigger.
    pub fn pressure_file(&self) -> PathBuf {
        self.path.join("memory.pressure")
    }
}

impl Drop for ChildGroup {
    fn drop(&mut self) {
        // Whoever outlives the child must not be ended by a limit on the child; and a process that is just
        // ending still counts for a moment.
        for _ in 0..50 {
            if fs::remove_dir(&self.path).is_ok() || !self.path.exists() {
                return;
            }
            let left = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
            for pid in left.lines() {
                if let Ok(mut procs) =
                    File::options().write(true).open(self.own.join("cgroup.procs"))
                {
                    let _ = procs.write_all(pid.as_bytes());
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Events {
    fn parse(text: &str) -> Events {
        let count = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            lines
                .find(|(key, _)| *key == name)
                .and_then(|(_, value)| value.parse().ok())
                .unwrap_or(0)
        };
        Events { high: count("high"), max: count("max"), oom_kill: count("oom_kill") }
    }
}

/// Where our process is in the cgroup v2 hierarchy.
#[derive(Debug)]
struct Place {
    mount: PathBuf,
    own: PathBuf,
}

impl Place {
    fn find() -> Option<Place> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let (mount, root) = mounts.lines().find_map(mounted_v2)?;
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
        // The mount may show a part of the hierarchy only.
        let below = Path::new(path).strip_prefix(&root).ok()?;
        Some(Place { own: mount.join(below), mount })
    }

    /// The groups that could hold one beside ours, from the nearest up. The root may hold processes and
    /// hand out controllers all the same.
    fn parents(&self) -> impl Iterator<Item = &Path> {
        let above = if self.own == self.mount { 0 } else { 1 };
        let within = self.own.ancestors().take_while(|path| path.starts_with(&self.mount));
        within.skip(above)
    }
}

/// Mount point and root of a cgroup2 mount (proc_pid_mountinfo(5)).
fn mounted_v2(line: &str) -> Option<(PathBuf, PathBuf)> {
    let (fields, filesystem) = line.split_once(" - ")?;
    if !filesystem.starts_with("cgroup2 ") {
        return None;
    }
    let mut fields = fields.split(' ').skip(3);
    let root = fields.next()?;
    Some((fields.next()?.into(), root.into()))
}

fn lists(file: &Path, word: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.split_ascii_whitespace().any(|w| w == word))
}

/// Our own memory cgroup, v2 or v1, if there is one whose figures we can read.
pub fn own_group() -> Option<Group> {
    let v2 = Place::find().map(|place| Group::V2(place.own));
    let v1 = || v1_directory().map(Group::V1);
    v2.into_iter().chain(v1()).find(|group| group.usage().is_ok())
}

fn v1_directory() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == "memory").then_some(path)
    })?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (fields, filesystem) = line.split_once(" - ")?;
        let options = filesystem.strip_prefix("cgroup ")?.rsplit(' ').next()?;
        if !options.split(',').any(|option| option == "memory") {
            return None;
        }
        let mut fields = fields.split(' ').skip(3);
        let (root, mount) = (fields.next()?, Path::new(fields.next()?));
        // In a container the path may lie outside of what is mounted: its root is the nearest to ours.
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        Some(mount.join(below))
    })
}

/// The most memory that the child can have, in bytes: the smallest of the machine's, of every limit
/// above us, and of its own.
pub fn ceiling(limits: Limits) -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = machine.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?.trim().trim_end_matches(" kB").parse::<u64>().ok()
    });
    let v2 = Place::find().into_iter().flat_map(|place| {
        let groups = place.own.ancestors().take_while(|path| path.starts_with(&place.mount));
        let limits = groups.filter_map(|path| {
            // "max" is no number, and no limit.
            fs::read_to_string(path.join("memory.max")).ok()?.trim().parse::<u64>().ok()
        });
        limits.collect::<Vec<_>>()
    });
    let v1 = v1_directory().and_then(|path| {
        let stat = fs::read_to_string(path.join("memory.stat")).ok()?;
        stat.lines().find_map(|line| line.strip_prefix("hierarchical_memory_limit ")?.parse().ok())
    });
    let all = total.map(|kib| kib << 10).into_iter().chain(v2).chain(v1).chain(limits.max);
    all.min().unwrap_or(u64::MAX)
}

/// The same as far as it shows without a search for where groups are mounted, which would take a tenth of nproxy's start: the child's own
/// limit, and those that stand above us at the usual places.
pub fn at_first_sight(limits: Limits) -> u64 {
    let machine = sysinfo().ok().map(|machine| machine.ram_total());
    let above = Hierarchies::usual().lowest_limit().into_iter().chain(machine);
    above.chain(limits.high).chain(limits.max).min().unwrap_or(u64::MAX)
}

/// Processes that the OOM killer has ended on this machine since boot (4.13; nothing before).
pub fn oom_kills() -> Option<u64> {
    let counts = fs::read_to_string("/proc/vmstat").ok()?;
    counts.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rlimits() {
        let limit = |resource, soft, hard| Ok(Rlimit { resource, soft, hard });
        assert_eq!(Rlimit::parse("nofile=64"), limit(Resource::RLIMIT_NOFILE, 64, 64));
        assert_eq!(Rlimit::parse("AS=1G:2G"), limit(Resource::RLIMIT_AS, 1 << 30, 2 << 30));
        assert_eq!(
            Rlimit::parse("core=0:unlimited"),
            limit(Resource::RLIMIT_CORE, 0, RLIM_INFINITY)
        );
        for wrong in ["nofile", "nofile=", "nofile=x", "files=1", "nofile=2:1"] {
            assert!(Rlimit::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn events_are_read_by_name() {
        let text = "low 0\nhigh 12\nmax 3\noom 1\noom_kill 1\noom_group_kill 0\n";
        assert_eq!(Events::parse(text), Events { high: 12, max: 3, oom_kill: 1 });
        assert_eq!(Events::parse(""), Events::default());
    }

    #[test]
    fn a_mount_of_version_two_is_found() {
        let line = "30 23 0:26 /user /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw";
        assert_eq!(mounted_v2(line), Some(("/sys/fs/cgroup".into(), "/user".into())));
        assert_eq!(mounted_v2("30 23 0:26 / /proc rw - proc proc rw"), None);
    }

    #[test]
    fn parents_begin_beside_us_and_end_at_the_mount() {
        let place = |own: &str| Place { mount: "/c".into(), own: own.into() };
        let names =
            |place: &Place| -> Vec<PathBuf> { place.parents().map(Path::to_owned).collect() };
        assert_eq!(names(&place("/c/a/b")), [Path::new("/c/a"), Path::new("/c")]);
        assert_eq!(names(&place("/c")), [Path::new("/c")]);
    }

    #[test]
    fn there_is_a_ceiling() {
        assert!(ceiling(Limits::default()) < u64::MAX);
        assert_eq!(ceiling(Limits { high: None, max: Some(4096) }), 4096);
    }
}
