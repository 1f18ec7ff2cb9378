//! Children that nobody waits for: pid 1 and a subreaper get those whose parents are gone.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpid};

/// Children that somebody here waits for, the command and its monitor aside.
static WAITED_FOR: Mutex<Vec<i32>> = Mutex::new(Vec::new());

fn waited_for() -> MutexGuard<'static, Vec<i32>> {
    WAITED_FOR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program that runs beside the command and is waited for by whoever has this, never collected as an orphan.
#[derive(Debug)]
pub(crate) struct Waited(Child);

impl Waited {
    /// Starts it.
    ///
    /// # Errors
    /// What fork(2) and execve(2) say.
    pub(super) fn start(command: &mut Command) -> io::Result<Waited> {
        // Held until it is listed: it may end at once.
        let mut waited_for = waited_for();
        let child = command.spawn()?;
        waited_for.push(child.id() as i32);
        Ok(Waited(child))
    }
}

impl Deref for Waited {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Waited {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        let pid = self.0.id() as i32;
        waited_for().retain(|other| *other != pid);
        if inherits_orphans() {
            // Orphans may have ended behind it, or it is one itself from now on: SIGCHLD has been heard, and is sent again.
            // SAFETY: kill(2) has no memory effects.
            unsafe { libc::kill(getpid().as_raw(), libc::SIGCHLD) };
        }
    }
}

/// Whether processes become ours when their parents are gone: of pid 1, and of a subreaper, which prctl(2) may have
/// made of this process before exec(2).
fn inherits_orphans() -> bool {
    getpid().as_raw() == 1 || nix::sys::prctl::get_child_subreaper().unwrap_or(false)
}

/// Collects processes whose parents are gone; never `own`, nor one that runs beside the command.
pub(super) fn reap_all_but(own: Pid) {
    if !inherits_orphans() {
        return;
    }
    let waited_for = waited_for();
    while let Some(pid) = first_ended() {
        if pid == own || waited_for.contains(&pid.as_raw()) {
            return;
        }
        let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
    }
}

/// The first child that has ended. (nix's waitid(2) refuses one that a real-time signal has ended.)
fn first_ended() -> Option<Pid> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: waitid(2) writes to `info`, which is zeroed, so that it can be read in any case; of a child it has the pid.
    let pid = unsafe {
        Errno::result(libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), flags)).ok()?;
        info.assume_init().si_pid()
    };
    (pid != 0).then(|| Pid::from_raw(pid))
}
