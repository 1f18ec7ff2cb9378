//! What can go wrong in nproxy itself, and the exit status of each.
//!
//! An error says what was being done, to what, and why it failed, in one line.

use std::fmt;
use std::io;

/// The command was ended because it was silent for too long, as timeout(1) says it.
pub const STATUS_TIMED_OUT: u8 = 124;
/// nproxy itself failed: a bad flag, no ring, bytes that could not be delivered.
pub const STATUS_FAILED: u8 = 125;
/// The command was found but cannot be executed.
pub const STATUS_NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
pub const STATUS_NOT_FOUND: u8 = 127;

/// A failure of nproxy, as one line for the user: `what was tried: why`.
#[derive(Debug)]
pub struct Error {
    tried: String,
    why: String,
    status: u8,
}

impl Error {
    /// An operation that the system refused.
    pub fn os(tried: impl Into<String>, error: impl Into<io::Error>) -> Error {
        let error = error.into();
        // strerror(3)'s own words, without the "(os error 2)" that `io::Error` adds.
        let why = error.to_string();
        let why = why.split(" (os error").next().unwrap_or_default().to_owned();
        Error { tried: tried.into(), why, status: STATUS_FAILED }
    }

    /// A request that makes no sense, whatever the system.
    pub fn usage(tried: impl Into<String>, why: impl Into<String>) -> Error {
        Error { tried: tried.into(), why: why.into(), status: STATUS_FAILED }
    }

    /// A request that makes no sense, as a whole sentence that names its options.
    pub fn sentence(text: impl Into<String>) -> Error {
        Error::usage(text, String::new())
    }

    /// The same error with an exit status of its own.
    pub fn with_status(self, status: u8) -> Error {
        Error { status, ..self }
    }

    /// The exit status that this error stands for.
    pub fn status(&self) -> u8 {
        self.status
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why.is_empty() {
            true => f.write_str(&self.tried),
            false => write!(f, "{}: {}", self.tried, self.why),
        }
    }
}

impl std::error::Error for Error {}
