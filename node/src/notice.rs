//! Lines for the person at the shell, on stderr, from beside JavaScript.
//!
//! The stream is the application's: a line never waits for room, and never goes into a screen that the application draws
//! (its terminal then is in raw mode). What cannot be written now is kept, up to a few lines, for later.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::mem::MaybeUninit;

use nproxy::memory::policy::Stage;

/// How many lines wait at most; the oldest go first.
const MOST_HELD: usize = 32;

/// What is said, and what waits.
#[derive(Debug)]
pub(crate) struct Notices {
    held: VecDeque<String>,
    coloured: bool,
    quiet: bool,
}

impl Notices {
    pub(crate) fn new(quiet: bool) -> Notices {
        let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Notices { held: VecDeque::new(), coloured, quiet }
    }

    /// Says `text`, now or as soon as it can be said.
    pub(crate) fn say(&mut self, text: &str) {
        self.push(format!("nproxy: {text}\n"));
    }

    /// Says `text` in the colour of a stage.
    pub(crate) fn say_of(&mut self, stage: Stage, text: &str) {
        let colour = match stage {
            Stage::Monitoring => return self.say(text),
            Stage::Attention => "\x1b[33m",
            Stage::Pressure => "\x1b[31m",
            Stage::Critical => "\x1b[34m",
            Stage::Emergency => "\x1b[35m",
        };
        match self.coloured {
            true => self.push(format!("{colour}nproxy: {text}\x1b[0m\n")),
            false => self.say(text),
        }
    }

    fn push(&mut self, line: String) {
        if self.quiet {
            return;
        }
        if self.held.len() == MOST_HELD {
            self.held.pop_front();
        }
        self.held.push_back(line);
        self.flush();
    }

    /// Whether something waits.
    pub(crate) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Says what waits, as far as it can be said now.
    pub(crate) fn flush(&mut self) {
        while let Some(line) = self.held.front() {
            if is_a_screen() || !has_room() || !write_all(line.as_bytes()) {
                return;
            }
            self.held.pop_front();
        }
    }
}

/// Writes a line to stderr in one call; whether all of it went.
pub(crate) fn write_all(line: &[u8]) -> bool {
    // SAFETY: write(2) from memory that we hold.
    let written = unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
    // What cannot be told (EPIPE, a closed fd) is not tried again.
    written >= 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EAGAIN)
}

/// Whether stderr takes a line without waiting: a pipe that polls writable has room for PIPE_BUF bytes.
pub(crate) fn has_room() -> bool {
    let mut poll = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one entry, which we hold.
    unsafe { libc::poll(&mut poll, 1, 0) != 0 }
}

/// Whether stderr is a terminal that is not in its ordinary, line by line, mode.
fn is_a_screen() -> bool {
    let mut modes = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: tcgetattr(3) fills what it is given, or fails where stderr is no terminal.
    unsafe {
        libc::tcgetattr(libc::STDERR_FILENO, modes.as_mut_ptr()) == 0
            && modes.assume_init().c_lflag & libc::ICANON == 0
    }
}
