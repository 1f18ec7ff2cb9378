//! How a process ended, and what a shell makes of that.

/// How the child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Status(u8),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// Reads what waitpid(2) says of a process that has ended.
    pub(crate) fn of(status: i32) -> Exit {
        match libc::WIFSIGNALED(status) {
            true => Exit::Signal(libc::WTERMSIG(status)),
            false => Exit::Status(libc::WEXITSTATUS(status) as u8),
        }
    }

    /// The status as a shell shows it: a signal counts as 128 + its number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Status(status) => status,
            Exit::Signal(signal) => 128u8.wrapping_add(signal as u8),
        }
    }
}
