//! Where the live line goes: stderr, without ever waiting for it.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, send};
use nix::unistd::{getpgrp, tcgetpgrp};

use crate::config::{ProgressLine, ProgressMode};
use crate::notice;
use crate::observe::progress::Line;
use crate::relay::{Endpoint, Kind};
use crate::terminal;

/// How often the line on a terminal changes, and how often one is added to a log.
const ON_TERMINAL: Duration = Duration::from_millis(200);
const IN_LOG: Duration = Duration::from_secs(1);
/// Width of a line in a log, and on a terminal that does not tell its own.
const COLUMNS: usize = 100;

/// The live line.
#[derive(Debug)]
pub(crate) struct Progress {
    line: Line,
    out: File,
    kind: Kind,
    started: Instant,
    period: Duration,
    next: Instant,
}

/// Whether the command writes to the same terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Screen {
    /// It does: its output and the line would overwrite each other.
    Shared,
    /// The line has the terminal to itself.
    Own,
}

impl Progress {
    /// Begins the live line, if there is a place for it. `total` is how much is to come, if that is known.
    pub(crate) fn open(
        asked: &ProgressLine,
        screen: Screen,
        total: Option<u64>,
        started: Instant,
    ) -> Option<Progress> {
        let mode = asked.mode;
        if mode == ProgressMode::Never {
            return None;
        }
        let end = Endpoint::new(std::io::stderr().as_fd().try_clone_to_owned().ok()?).ok()?;
        let kind = end.kind();
        if mode == ProgressMode::Auto && (kind != Kind::Terminal || screen == Screen::Shared) {
            return None;
        }
        // A description of our own, so that O_NONBLOCK reaches nobody else. A file keeps the position
        // that it shares with others, and a socket cannot be opened anew; neither needs it.
        let out = match kind {
            Kind::File | Kind::Socket | Kind::Records => {
                end.fd().as_fd().try_clone_to_owned().map(File::from)
            }
            _ => end.open_anew(),
        };
        let line = Line::new(total, asked.unit, asked.name.as_deref());
        let usual = if kind == Kind::Terminal { ON_TERMINAL } else { IN_LOG };
        let period = asked.interval.unwrap_or(usual);
        let mut progress = Progress { line, out: out.ok()?, kind, started, period, next: started };
        progress.next += progress.period;
        Some(progress)
    }

    /// Whether the line is due.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    /// Shows the line, with `count` read so far and a few words on the state of things.
    pub(crate) fn update(&mut self, now: Instant, count: u64, state: Option<String>) {
        self.next = now + self.period;
        self.show(now.saturating_duration_since(self.started), count, state, Last::No);
    }

    /// Shows the line for the last time.
    pub(crate) fn finish(mut self, count: u64) {
        self.show(self.started.elapsed(), count, None, Last::Yes);
    }

    /// Leaves the terminal to the command's output.
    pub(crate) fn leave_screen(mut self) {
        if self.kind == Kind::Terminal && !notice::is_held() && self.is_foreground() {
            let _ = self.out.write(b"\r\x1b[K");
        }
    }

    /// When the line is due.
    pub(crate) fn deadline(&self) -> Instant {
        self.next
    }

    fn columns(&self) -> usize {
        if self.kind != Kind::Terminal {
            return COLUMNS;
        }
        match terminal::columns(self.out.as_raw_fd()) {
            // The last column would wrap on some terminals.
            Some(columns @ 2..) => usize::from(columns) - 1,
            _ => COLUMNS,
        }
    }

    /// Writes the line if stderr takes it at this moment; else this one is skipped.
    fn show(&mut self, elapsed: Duration, count: u64, state: Option<String>, last: Last) {
        if self.kind == Kind::Terminal && (notice::is_held() || !self.is_foreground()) {
            return;
        }
        let line = self.line.at(elapsed, count, state, self.columns());
        let text = match (self.kind, last) {
            (Kind::Terminal, Last::No) => format!("\r{line}\x1b[K"),
            (Kind::Terminal, Last::Yes) => format!("\r{line}\x1b[K\n"),
            _ => format!("{}{line}\n", notice::line_start()),
        };
        let _ = match self.kind {
            Kind::Socket | Kind::Records => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                send(self.out.as_raw_fd(), text.as_bytes(), flags).is_ok()
            }
            _ => self.out.write(text.as_bytes()).is_ok(),
        };
    }

    /// In the background of a terminal a line of ours would land in another program's screen.
    fn is_foreground(&self) -> bool {
        tcgetpgrp(&self.out).is_ok_and(|group| group == getpgrp())
    }
}

/// Whether a line is the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    No,
    Yes,
}
