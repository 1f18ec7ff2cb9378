//! The state that the process was started with, read before Rust's own start-up changes it.
//!
//! Rust opens `/dev/null` on a closed fd 0, 1 or 2 and ignores SIGPIPE before `main` runs. The child
//! has to get what nproxy got, so a function in `.init_array`, which the C library calls earlier, looks
//! first. SIGXFSZ is ignored later, by nproxy itself, and is looked at here for the same reason.

#![allow(unsafe_code)]

use std::fs;
use std::mem::MaybeUninit;

use std::sync::atomic::{AtomicBool, Ordering};

static CLOSED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];
static SIGPIPE_IGNORED: AtomicBool = AtomicBool::new(false);
static SIGXFSZ_IGNORED: AtomicBool = AtomicBool::new(false);

#[used]
#[unsafe(link_section = ".init_array")]
static CAPTURE: extern "C" fn() = capture;

extern "C" fn capture() {
    for (fd, closed) in CLOSED.iter().enumerate() {
        // SAFETY: F_GETFD only asks whether the number is open.
        let flags = unsafe { libc::fcntl(fd as i32, libc::F_GETFD) };
        closed.store(flags < 0, Ordering::Relaxed);
    }
    SIGPIPE_IGNORED.store(is_ignored(libc::SIGPIPE), Ordering::Relaxed);
    SIGXFSZ_IGNORED.store(is_ignored(libc::SIGXFSZ), Ordering::Relaxed);
}

/// Takes variables out of this process's environment, so that nothing that it starts inherits them: not the command, nor what a copy
/// goes into. For the beginning, when there is one thread.
pub(crate) fn withhold(names: &[&str]) {
    for name in names {
        // SAFETY: nobody else reads the environment meanwhile.
        unsafe { std::env::remove_var(name) };
    }
}

/// Whether this process ignores `signal`.
pub(crate) fn is_ignored(signal: i32) -> bool {
    let mut old = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null new action only asks; the old one is read only if the call filled it in.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), old.as_mut_ptr()) == 0
            && old.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Whether fd 0, 1 or 2 was closed when the process started.
///
/// # Panics
/// For any other number.
pub(crate) fn was_closed(fd: usize) -> bool {
    CLOSED[fd].load(Ordering::Relaxed)
}

/// Whether the process was started with SIGPIPE ignored.
pub(crate) fn sigpipe_was_ignored() -> bool {
    SIGPIPE_IGNORED.load(Ordering::Relaxed)
}

/// Whether the process was started with SIGXFSZ ignored.
pub(crate) fn sigxfsz_was_ignored() -> bool {
    SIGXFSZ_IGNORED.load(Ordering::Relaxed)
}

/// The fds above stderr that were open when this was called: before the session opens any of its own,
/// these are what nproxy inherited.
#[derive(Debug)]
pub(crate) struct Inherited(Vec<i32>);

impl Inherited {
    /// Reads the list from `/proc`; where there is none, it is empty.
    pub(crate) fn list() -> Inherited {
        let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let numbers: Vec<i32> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        // What came through exec(2) cannot have close-on-exec set; what a preloaded library has opened
        // since usually has. The directory that was just read is closed by now.
        let came_through_exec = |fd: &i32| {
            // SAFETY: F_GETFD only asks for the flags of a number, open or not.
            let flags = unsafe { libc::fcntl(*fd, libc::F_GETFD) };
            *fd > 2 && flags >= 0 && flags & libc::FD_CLOEXEC == 0
        };
        Inherited(numbers.into_iter().filter(came_through_exec).collect())
    }

    /// Closes them: the child has its own copies, and whoever waits for their last holder waits for it.
    pub(crate) fn close(self) {
        for fd in self.0 {
            // SAFETY: the number was open before anything of ours was, so nothing of ours owns it.
            unsafe { libc::close(fd) };
        }
    }
}
