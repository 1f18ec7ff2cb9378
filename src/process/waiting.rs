//! Who waits for input from a terminal, as far as `/proc/PID/syscall` shows it.
//!
//! What cannot be seen (another user's process, a 32-bit one, a call that the kernel has restarted, an io_uring) counts
//! as waiting: a program that gets no keys would be worse than keys that come too early.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use nix::sys::stat::makedev;
use nix::unistd::{Pid, getpgid};

/// `poll(2)`'s "may be read".
const POLLIN: u64 = libc::POLLIN as u64;
/// How many descriptors of one poll(2) or select(2) are looked at.
const MOST_POLLED: u64 = 1024;

/// Calls that newer architectures have no number for.
#[cfg(target_arch = "x86_64")]
const OLD: [i64; 3] = [libc::SYS_poll, libc::SYS_select, libc::SYS_epoll_wait];
#[cfg(not(target_arch = "x86_64"))]
const OLD: [i64; 3] = [i64::MIN; 3];

/// Whether this kernel shows what a process waits for.
pub(crate) fn can_be_seen() -> bool {
    Path::new("/proc/self/syscall").exists()
}

/// Finds a process of a group that waits for input from a terminal, given as a device. Those of `first` are tried first.
pub(crate) fn reader_in(group: Pid, terminal: u64, first: &[u32]) -> Option<u32> {
    let waits = |pid: &u32| {
        getpgid(Some(Pid::from_raw(*pid as i32))) == Ok(group)
            && *pid != std::process::id()
            && waits(*pid, terminal)
    };
    first.iter().copied().find(|pid| waits(pid)).or_else(|| {
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        all.find(|pid| !first.contains(pid) && waits(pid))
    })
}

/// Whether one of a process's threads waits.
fn waits(pid: u32, terminal: u64) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut calls = tasks.map(|task| fs::read_to_string(task.path().join("syscall")));
    calls.any(|call| match call {
        Ok(call) => reads_terminal(pid, &call, terminal),
        // One that has ended meanwhile does not; one that may not be seen may.
        Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
    })
}

/// Reads a line of `/proc/PID/syscall` (proc_pid_syscall(5)): a number, six arguments, stack pointer and program counter,
/// or less for a thread that is in no system call.
fn reads_terminal(pid: u32, line: &str, terminal: u64) -> bool {
    let mut words = line.split_whitespace();
    let Some(Ok(call)) = words.next().map(str::parse::<i64>) else { return false };
    let numbers = words.filter_map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    let numbers: Vec<u64> = numbers.collect();
    let [first, second, .., stack, _] = numbers[..] else { return false };
    if numbers.len() < 8 {
        return false;
    }
    let is_terminal = |fd: u64| is_terminal(pid, fd, terminal);
    match call {
        // Other numbers mean other calls there.
        _ if size_of::<usize>() == 8 && u32::try_from(stack).is_ok() => true,
        libc::SYS_read | libc::SYS_readv | libc::SYS_preadv2 | libc::SYS_splice => {
            is_terminal(first)
        }
        libc::SYS_ppoll => polls(pid, first, second).into_iter().any(is_terminal),
        call if call == OLD[0] => polls(pid, first, second).into_iter().any(is_terminal),
        libc::SYS_pselect6 => selects(pid, first, second).into_iter().any(is_terminal),
        call if call == OLD[1] => selects(pid, first, second).into_iter().any(is_terminal),
        libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => watches(pid, first).any(is_terminal),
        call if call == OLD[2] => watches(pid, first).any(is_terminal),
        libc::SYS_restart_syscall | libc::SYS_io_uring_enter => true,
        _ => false,
    }
}

fn is_terminal(pid: u32, fd: u64, terminal: u64) -> bool {
    let file = fs::metadata(format!("/proc/{pid}/fd/{fd}"));
    // By its own name, or as /dev/tty.
    file.is_ok_and(|file| file.rdev() == terminal || file.rdev() == makedev(5, 0))
}

fn memory(pid: u32, at: u64, bytes: u64) -> Vec<u8> {
    let mut copy = vec![0; bytes as usize];
    let read =
        File::open(format!("/proc/{pid}/mem")).and_then(|mem| mem.read_exact_at(&mut copy, at));
    read.map_or_else(|_| Vec::new(), |()| copy)
}

/// The descriptors that a poll(2) waits to read from: an array of `struct pollfd`.
fn polls(pid: u32, at: u64, count: u64) -> Vec<u64> {
    let entries = memory(pid, at, count.min(MOST_POLLED) * 8);
    let (entries, _) = entries.as_chunks::<8>();
    let wanted = entries
        .iter()
        .filter(|[.., low, high, _, _]| u64::from(u16::from_ne_bytes([*low, *high])) & POLLIN != 0);
    wanted.map(|[a, b, c, d, ..]| u32::from_ne_bytes([*a, *b, *c, *d]).into()).collect()
}

/// The descriptors that a select(2) waits to read from: a set of bits.
fn selects(pid: u32, count: u64, at: u64) -> Vec<u64> {
    let bits = memory(pid, at, count.min(MOST_POLLED).div_ceil(64) * 8);
    let is_set =
        |fd: &u64| bits.get(*fd as usize / 8).is_some_and(|byte| byte >> (fd % 8) & 1 == 1);
    (0..count).filter(is_set).collect()
}

/// The descriptors that an epoll(7) watches for input: `tfd: N events: BITS …`.
fn watches(pid: u32, epoll: u64) -> impl Iterator<Item = u64> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{epoll}")).unwrap_or_default();
    let watched = info.lines().filter_map(|line| {
        let mut words = line.strip_prefix("tfd:")?.split_whitespace();
        let fd = words.next()?.parse().ok()?;
        let events = u64::from_str_radix(words.nth(1)?, 16).ok()?;
        (events & POLLIN != 0).then_some(fd)
    });
    watched.collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn only_a_wait_for_that_descriptor_counts() {
        let null = File::open("/dev/null").expect("open");
        let (own, fd) = (std::process::id(), null.as_raw_fd());
        let device = null.metadata().expect("stat").rdev();
        let stack = "0x7ffdd6f26068 0x7f3ee7b462ad";
        let read = |call: i64, fd: i32| format!("{call} {fd:#x} 0x1 0x2 0x0 0x0 0x0 {stack}\n");
        let cases = [
            (read(libc::SYS_read, fd), true),
            (read(libc::SYS_read, 9999), false),
            (read(libc::SYS_write, fd), false),
            ("running\n".to_owned(), false),
            (format!("-1 {stack}\n"), false),
            (read(libc::SYS_io_uring_enter, 9999), true),
        ];
        for (line, expected) in cases {
            assert_eq!(reads_terminal(own, &line, device), expected, "{line}");
        }
        let polled = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
        let at = polled.as_ptr() as u64;
        assert_eq!(polls(own, at, 1), [fd as u64]);
        let set = [0u8, 1 << 3, 0, 0, 0, 0, 0, 0];
        assert_eq!(selects(own, 12, set.as_ptr() as u64), [11]);
    }
}
