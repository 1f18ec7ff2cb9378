//! Whether a command asks for something at its terminal: what it has printed before must be seen then.
//!
//! Nothing tells of that, so it is looked at again and again, sooner after output and at growing intervals in silence.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::sys::stat::makedev;
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::{Pid, getpgid, tcgetpgrp};

/// The first and the last interval between two checks.
const SOON: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_millis(500);
/// Checking takes at most one part in so many of a processor's time.
const SHARE: u32 = 100;

/// Looks for a prompt.
#[derive(Debug)]
pub(crate) struct PromptWatch {
    /// How the terminal was when the command got it.
    before: Option<LocalFlags>,
    next: Instant,
    pause: Duration,
    /// What had been printed at the last check, in bytes.
    printed: u64,
}

impl PromptWatch {
    pub(crate) fn new(now: Instant) -> PromptWatch {
        PromptWatch { before: None, next: now + SOON, pause: SOON, printed: 0 }
    }

    /// When to check next.
    pub(crate) fn deadline(&self) -> Instant {
        self.next
    }

    /// Checks, if it is time to: whether somebody in the foreground of the terminal behind `leader`, which for the command is
    /// `device`, asks for something. So many bytes have been `printed`.
    pub(crate) fn sees_prompt(
        &mut self,
        leader: impl AsFd,
        device: u64,
        printed: u64,
        now: Instant,
    ) -> bool {
        if printed != self.printed {
            (self.printed, self.pause) = (printed, SOON);
            self.next = self.next.min(now + SOON);
        }
        if now < self.next {
            return false;
        }
        let began = Instant::now();
        let found = self.has_changed(&leader) || is_read(&leader, device);
        self.pause = (self.pause * 2).min(LATE).max(began.elapsed() * SHARE);
        self.next = Instant::now() + self.pause;
        found
    }

    /// Whether the command has turned line editing or echo off: it wants single keys, or a password.
    fn has_changed(&mut self, leader: impl AsFd) -> bool {
        let wanted = LocalFlags::ICANON | LocalFlags::ECHO;
        let Ok(modes) = tcgetattr(leader) else { return false };
        let flags = modes.local_flags & wanted;
        !flags.contains(*self.before.get_or_insert(flags))
    }
}

/// Whether a process of the foreground group waits in a read of the terminal. One that may not be looked at, as another
/// user's, may ask for a password.
fn is_read(leader: impl AsFd, device: u64) -> bool {
    let Ok(group) = tcgetpgrp(leader) else { return false };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut all = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    all.any(|pid| {
        getpgid(Some(Pid::from_raw(pid))) == Ok(group)
            && pid != std::process::id() as i32
            && reads(pid, device)
    })
}

fn reads(pid: i32, device: u64) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut calls = tasks.map(|task| fs::read_to_string(task.path().join("syscall")));
    calls.any(|call| match call {
        Ok(call) => {
            read_fd(&call).is_some_and(|fd| {
                let file = fs::metadata(format!("/proc/{pid}/fd/{fd}"));
                // By its own name, or as /dev/tty.
                file.is_ok_and(|file| file.rdev() == device || file.rdev() == makedev(5, 0))
            })
        }
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    })
}

/// The descriptor that is being read, from a line of `/proc/PID/syscall` (proc_pid_syscall(5)).
fn read_fd(line: &str) -> Option<u64> {
    let mut words = line.split_whitespace();
    match words.next()?.parse().ok()? {
        libc::SYS_read | libc::SYS_readv => {
            u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_read_has_a_descriptor() {
        let line = |call: i64| format!("{call} 0x5 0x1 0x2 0x0 0x0 0x0 0x7ffd 0x7f3e\n");
        assert_eq!(read_fd(&line(libc::SYS_read)), Some(5));
        assert_eq!(read_fd(&line(libc::SYS_write)), None);
        assert_eq!(read_fd("running\n"), None);
        assert_eq!(read_fd(""), None);
    }
}
