//! Where the live line goes: stderr, without ever waiting for it.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, send};
use nix::unistd::{Whence, getpgrp, lseek, tcgetpgrp};

use super::{Session, notice};
use crate::config::ProgressMode;
use crate::observe::progress::Line;
use crate::relay::{Endpoint, Kind, Place, Relay, Stream};

/// How often the line on a terminal changes, and how often one is added to a log.
const ON_TERMINAL: Duration = Duration::from_millis(200);
const IN_LOG: Duration = Duration::from_secs(1);
/// Width of a line in a log, and on a terminal that does not tell its own.
const COLUMNS: usize = 100;

/// The live line.
#[derive(Debug)]
pub(super) struct Progress {
    line: Line,
    out: File,
    kind: Kind,
    next: Instant,
}

impl Progress {
    fn period(&self) -> Duration {
        if self.kind == Kind::Terminal { ON_TERMINAL } else { IN_LOG }
    }

    /// When the line is due.
    pub(super) fn deadline(&self) -> Instant {
        self.next
    }

    fn columns(&self) -> usize {
        if self.kind != Kind::Terminal {
            return COLUMNS;
        }
        match super::terminal::columns(self.out.as_raw_fd()) {
            // The last column would wrap on some terminals.
            Some(columns @ 2..) => usize::from(columns) - 1,
            _ => COLUMNS,
        }
    }

    /// Writes the line if stderr takes it at this moment; else this one is skipped.
    fn show(&mut self, elapsed: Duration, bytes: u64, state: Option<String>, last: Last) {
        if self.kind == Kind::Terminal && (notice::is_held() || !self.is_foreground()) {
            return;
        }
        let line = self.line.at(elapsed, bytes, state, self.columns());
        let text = match (self.kind, last) {
            (Kind::Terminal, Last::No) => format!("\r{line}\x1b[K"),
            (Kind::Terminal, Last::Yes) => format!("\r{line}\x1b[K\n"),
            _ => format!("{line}\n"),
        };
        let _ = match self.kind {
            Kind::Socket => {
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

impl Session<'_> {
    /// Begins the live line, if it was asked for and there is a place for it.
    pub(super) fn open_progress(&mut self) {
        let observe = &self.config.observe;
        let Some(mode) = observe.progress else { return };
        let stderr = std::io::stderr();
        let Ok(stderr) = stderr.as_fd().try_clone_to_owned() else { return };
        let Ok(end) = Endpoint::new(stderr) else { return };
        let kind = end.kind();
        // What the command writes to a terminal and the line would overwrite each other.
        let shared = self.relays.iter().any(|relay| {
            relay.stream() != Stream::Stdin
                && relay.place() != Place::Leg
                && relay.sink().is_some_and(|sink| sink.kind() == Kind::Terminal)
        });
        if mode == ProgressMode::Auto && (kind != Kind::Terminal || shared) {
            return;
        }
        // A description of our own, so that O_NONBLOCK reaches nobody else. A file keeps the position
        // that it shares with others, and a socket cannot be opened anew; neither needs it.
        let out = match kind {
            Kind::File | Kind::Socket => end.fd().as_fd().try_clone_to_owned().map(File::from),
            _ => File::options()
                .write(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(format!("/proc/self/fd/{}", end.fd().as_raw_fd())),
        };
        let Ok(out) = out else { return };
        let total = observe.size.or_else(|| self.size_of_input());
        let mut progress = Progress { line: Line::new(total), out, kind, next: self.started };
        progress.next += progress.period();
        self.observation.progress = Some(progress);
    }

    /// What is left to read of a filter's input, if that is a file.
    fn size_of_input(&self) -> Option<u64> {
        let first = self.relays.iter().find(|relay| relay.place().is_first())?;
        let source = first.source()?;
        if source.kind() != Kind::File {
            return None;
        }
        let size = nix::sys::stat::fstat(source.fd()).ok()?.st_size;
        let position = lseek(source.fd(), 0, Whence::SeekCur).ok()?;
        u64::try_from(size - position).ok()
    }

    /// Shows the line, if it is time.
    pub(super) fn show_progress(&mut self, now: Instant) {
        let bytes = self.delivered();
        let Some(progress) = &mut self.observation.progress else { return };
        if now < progress.next {
            return;
        }
        progress.next = now + progress.period();
        let state = self.observation.stages.words();
        progress.show(now.saturating_duration_since(self.started), bytes, state, Last::No);
    }

    /// Shows the line for the last time.
    pub(super) fn finish_progress(&mut self) {
        let bytes = self.delivered();
        if let Some(mut progress) = self.observation.progress.take() {
            progress.show(self.started.elapsed(), bytes, None, Last::Yes);
        }
    }

    /// Bytes that have reached the ends of the streams from the command.
    fn delivered(&self) -> u64 {
        let last = |relay: &&Relay| relay.place().is_last() && relay.stream() != Stream::Stdin;
        self.relays.iter().filter(last).map(|relay| relay.counters().bytes).sum()
    }
}
