//! Memory cgroups: what is used in one, what it may use, and in which ones a process is.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::policy::Room;

/// A memory cgroup's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    /// Of the unified hierarchy.
    V2(PathBuf),
    /// Of the memory controller's own.
    V1(PathBuf),
}

/// Below this share of the limit that is left, one part in so many, it matters how much of the rest is page cache.
const NEAR: u64 = 3;

impl Group {
    fn directory(&self) -> &Path {
        match self {
            Group::V2(path) | Group::V1(path) => path,
        }
    }

    fn number(&self, v2: &str, v1: &str) -> io::Result<u64> {
        let file = match self {
            Group::V2(_) => v2,
            Group::V1(_) => v1,
        };
        let text = read(&self.directory().join(file))?;
        text.trim().parse().map_err(io::Error::other)
    }

    /// Everything that is charged to the group, page cache included, in bytes.
    fn charged(&self) -> io::Result<u64> {
        self.number("memory.current", "memory.usage_in_bytes")
    }

    /// What the kernel would get back from the group without any harm: page cache, and its own caches.
    fn reclaimable(&self) -> io::Result<u64> {
        let text = fs::read_to_string(self.directory().join("memory.stat"))?;
        let counts: &[&str] = match self {
            Group::V2(_) => &["inactive_file ", "active_file ", "slab_reclaimable "],
            Group::V1(_) => &["total_inactive_file ", "total_active_file "],
        };
        let count = |line: &str| {
            counts.iter().find_map(|name| line.strip_prefix(name)?.parse::<u64>().ok())
        };
        Ok(text.lines().filter_map(count).sum())
    }

    /// What the group uses and would not give back by dropping page cache, in bytes: anonymous and shared memory, and
    /// what the kernel keeps for it.
    ///
    /// # Errors
    /// What the group's files say.
    pub fn usage(&self) -> io::Result<u64> {
        Ok(self.charged()?.saturating_sub(self.reclaimable()?))
    }

    /// The most that the group may use; `None` if there is no limit.
    fn limit(&self) -> Option<u64> {
        // No limit is "max" in the one and a number beyond all memory in the other.
        let limit = self.number("memory.max", "memory.limit_in_bytes").ok()?;
        (limit < 1 << 60).then_some(limit)
    }

    /// What is left of the limit. Page cache is looked at only where that matters.
    fn room(&self) -> Option<Room> {
        let limit = self.limit()?;
        let charged = self.charged().ok()?;
        let mut left = limit.saturating_sub(charged);
        if left < limit / NEAR {
            left = limit.min(left + self.reclaimable().unwrap_or(0));
        }
        Some(Room { left, limit })
    }
}

/// Where the memory controller's hierarchies are mounted.
#[derive(Clone, Debug)]
pub struct Hierarchies {
    /// Mount point, and the group that is seen there.
    v2: Option<(PathBuf, PathBuf)>,
    v1: Option<(PathBuf, PathBuf)>,
}

impl Hierarchies {
    /// As this process sees them.
    pub fn mounted() -> Hierarchies {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let of = |kind: &str, option: Option<&str>| {
            mounts.lines().find_map(|line| mounted(line, kind, option))
        };
        Hierarchies { v2: of("cgroup2", None), v1: of("cgroup", Some("memory")) }
    }

    /// Where they are on almost every system.
    pub fn usual() -> Hierarchies {
        let at = |mount: &str| Some((PathBuf::from(mount), PathBuf::from("/")));
        Hierarchies { v2: at("/sys/fs/cgroup"), v1: at("/sys/fs/cgroup/memory") }
    }

    /// The lowest limit on our own process, in bytes.
    pub fn lowest_limit(&self) -> Option<u64> {
        let text = read(Path::new("/proc/self/cgroup")).ok()?;
        self.groups(&text).iter().filter_map(Group::limit).min()
    }

    /// The groups that a process with this `/proc/PID/cgroup` is in, each with those above it.
    fn groups(&self, text: &str) -> Vec<Group> {
        let mut groups = Vec::new();
        for line in text.lines() {
            // "number:controllers:path", see cgroups(7).
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            let (mounted, version): (_, fn(PathBuf) -> Group) = match controllers {
                "" => (&self.v2, Group::V2),
                _ if controllers.split(',').any(|name| name == "memory") => (&self.v1, Group::V1),
                _ => continue,
            };
            let Some((mount, root)) = mounted else { continue };
            // In a container the path may lie outside of what is mounted: its root is the nearest to it.
            let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
            let own = mount.join(below);
            let above = own.ancestors().take_while(|path| path.starts_with(mount));
            groups.extend(above.map(|path| version(path.to_owned())));
        }
        groups
    }
}

/// Reads a short file of the kernel's, which says nothing of its size, with as few calls as can be.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::with_capacity(1024);
    File::open(path)?.take(u64::MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Mount point and root of a hierarchy (proc_pid_mountinfo(5)).
fn mounted(line: &str, kind: &str, option: Option<&str>) -> Option<(PathBuf, PathBuf)> {
    let (fields, filesystem) = line.split_once(" - ")?;
    let options = filesystem.strip_prefix(kind)?.strip_prefix(' ')?.rsplit(' ').next()?;
    if option.is_some_and(|wanted| !options.split(',').any(|option| option == wanted)) {
        return None;
    }
    let mut fields = fields.split(' ').skip(3);
    let root = fields.next()?;
    Some((fields.next()?.into(), root.into()))
}

/// What the limits on a process's groups leave; nothing where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rooms {
    /// Where the emergency stage is closest.
    pub tightest: Option<Room>,
    /// The one that allows the least to be owed after a try.
    pub narrowest: Option<Room>,
    /// In bytes.
    pub lowest_limit: Option<u64>,
}

impl Rooms {
    fn new(rooms: &[Room]) -> Rooms {
        let tightest = rooms.iter().min_by_key(|room| room.left.saturating_sub(room.limit / 5));
        let narrowest = rooms.iter().copied().reduce(Room::narrower);
        let lowest_limit = rooms.iter().map(|room| room.limit).min();
        Rooms { tightest: tightest.copied(), narrowest, lowest_limit }
    }
}

/// Looks at what is left of the limits on the group that a process is in, whichever it is by now.
#[derive(Debug)]
pub struct RoomWatch {
    hierarchies: Hierarchies,
    /// What `/proc/PID/cgroup` said last, and the groups that follow from it: a limit may come at any time.
    text: String,
    groups: Vec<Group>,
}

impl RoomWatch {
    /// Nothing has been looked at yet.
    pub fn new(hierarchies: Hierarchies) -> RoomWatch {
        RoomWatch { hierarchies, text: String::new(), groups: Vec::new() }
    }

    /// What the limits on the process with number `pid` leave.
    ///
    /// # Errors
    /// It is gone, or this kernel has no groups.
    pub fn read(&mut self, pid: u32) -> io::Result<Rooms> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        if text != self.text {
            self.groups = self.hierarchies.groups(&text);
            self.text = text;
        }
        let rooms: Vec<Room> = self.groups.iter().filter_map(Group::room).collect();
        Ok(Rooms::new(&rooms))
    }
}

/// Looks at what is left of the machine's memory.
#[derive(Debug)]
pub struct MachineWatch {
    /// `None` where it is not the kernel's own: lxcfs would answer from another process, in its own time.
    meminfo: Option<File>,
}

impl MachineWatch {
    /// Opens what tells it.
    pub fn open() -> MachineWatch {
        MachineWatch { meminfo: File::open("/proc/meminfo").ok().filter(is_of_the_kernel) }
    }

    /// What is left, swap included.
    pub fn read(&self) -> Option<Room> {
        let mut text = [0; 2048];
        let len = self.meminfo.as_ref()?.read_at(&mut text, 0).ok()?;
        room_of_machine(std::str::from_utf8(&text[..len]).ok()?)
    }
}

/// See proc_meminfo(5); MemAvailable came with Linux 3.14.
fn room_of_machine(meminfo: &str) -> Option<Room> {
    let bytes = |name: &str| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
    };
    let left = bytes("MemAvailable:")? + bytes("SwapFree:").unwrap_or(0);
    Some(Room { left, limit: bytes("MemTotal:")? })
}

/// Whether a file is of the kernel's own procfs. In a container of LXC lxcfs puts some over it that may tell the host's numbers.
pub(super) fn is_of_the_kernel(file: &File) -> bool {
    fstatfs(file).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC)
}

/// What the machine and the groups that this process is in could still give, in bytes.
pub fn left_to_us() -> u64 {
    let text = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let groups = Hierarchies::mounted().groups(&text);
    let rooms = groups.iter().filter_map(Group::room).chain(MachineWatch::open().read());
    rooms.map(|room| room.left).min().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_in_its_group_and_those_above() {
        let hierarchies = Hierarchies {
            v2: Some(("/sys/fs/cgroup".into(), "/".into())),
            v1: Some(("/cg/memory".into(), "/box".into())),
        };
        let groups = hierarchies.groups("9:name=systemd:/\n4:cpu,memory:/box/a\n0::/x/y:z\n");
        let expected = [
            Group::V1("/cg/memory/a".into()),
            Group::V1("/cg/memory".into()),
            Group::V2("/sys/fs/cgroup/x/y:z".into()),
            Group::V2("/sys/fs/cgroup/x".into()),
            Group::V2("/sys/fs/cgroup".into()),
        ];
        assert_eq!(groups, expected);
    }

    #[test]
    fn mounts_are_told_by_kind_and_controller() {
        let v1 = "36 30 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        let v2 = "37 30 0:34 /a /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw";
        let memory = Some("memory");
        let at = |mount: &str, root: &str| Some((mount.into(), root.into()));
        assert_eq!(mounted(v1, "cgroup", memory), at("/sys/fs/cgroup/memory", "/"));
        assert_eq!(mounted(v1, "cgroup", Some("cpu")), None);
        assert_eq!(mounted(v1, "cgroup2", None), None);
        assert_eq!(mounted(v2, "cgroup2", None), at("/sys/fs/cgroup/unified", "/a"));
    }

    #[test]
    fn groups_within_each_other_are_as_narrow_as_all_of_them() {
        let outer = Room { left: 100, limit: 10_000 };
        let inner = Room { left: 600, limit: 1000 };
        let (tightest, lowest_limit) = (Some(outer), Some(1000));
        let expected = Rooms { tightest, narrowest: Some(outer), lowest_limit };
        assert_eq!(Rooms::new(&[inner, outer]), expected);
        // As much is left of both, and of the smaller that is more.
        let machine = Room { left: 600, limit: 100_000 };
        assert_eq!(Rooms::new(&[inner, machine]).narrowest, Some(machine));
        assert_eq!(Rooms::new(&[]), Rooms::default());
    }

    #[test]
    fn the_machine_has_room_too() {
        let meminfo =
            "MemTotal:       1000 kB\nMemFree: 10 kB\nMemAvailable:    700 kB\nSwapFree: 50 kB\n";
        let room = Room { left: 750 << 10, limit: 1000 << 10 };
        assert_eq!(room_of_machine(meminfo), Some(room));
        assert_eq!(room_of_machine("MemTotal: 1000 kB\n"), None, "before 3.14");
        let machine = MachineWatch::open().read().expect("procfs");
        let free = left_to_us();
        assert!(free > 0 && machine.limit > 0, "{free} {machine:?}");
    }

    #[test]
    fn room_is_what_no_page_cache_takes() {
        let directory = tempfile::tempdir().expect("a directory");
        let group = Group::V2(directory.path().to_owned());
        let write = |name: &str, text: &str| {
            fs::write(directory.path().join(name), text).expect("write");
        };
        write("memory.stat", "anon 1\ninactive_file 200\nactive_file 100\nslab_reclaimable 50\n");
        write("memory.max", "max\n");
        write("memory.current", "900\n");
        assert_eq!(group.room(), None);
        assert_eq!(group.usage().expect("usage"), 550);
        write("memory.max", "1000\n");
        assert_eq!(group.room(), Some(Room { left: 450, limit: 1000 }));
        write("memory.current", "600\n");
        assert_eq!(group.room(), Some(Room { left: 400, limit: 1000 }), "far enough");
    }
}
