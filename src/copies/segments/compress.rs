//! Compression of finished segments, one at a time, by a program at low priority.
//!
//! The compressed segment is made under a name that begins with a dot, takes its own when it is complete, and only then
//! the plain one goes. A run that ends in between leaves both, and the next one removes the plain one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::process::{ChildStderr, Command, Stdio};

use nix::poll::PollFlags;

use super::directory::Directory;
use super::names::{Micros, Suffix};
use crate::config::Compression;
use crate::error::Error;
use crate::process::aside::{self, Waited};

/// What is being compressed.
#[derive(Debug)]
pub(super) struct Compressor {
    compression: Compression,
    running: Option<Running>,
    /// A segment that could not be compressed stays plain, and so do all after it.
    failed: bool,
}

#[derive(Debug)]
struct Running {
    time: Micros,
    child: Waited,
    /// Its end shows here, and what it complains of.
    stderr: ChildStderr,
    said: Vec<u8>,
}

impl Compressor {
    pub(super) fn new(compression: Compression) -> Compressor {
        Compressor { compression, running: None, failed: false }
    }

    /// Compresses the oldest plain segment, unless one is being compressed.
    pub(super) fn advance(&mut self, directory: &Directory) -> Result<(), Error> {
        let suffix = Suffix::of(self.compression);
        while self.running.is_none() && !self.failed {
            let all = directory.list().unwrap_or_default();
            let Some(plain) = all.iter().find(|finished| finished.compressed.is_none()) else {
                break;
            };
            if all.iter().any(|other| other.time == plain.time && other.compressed.is_some()) {
                // An earlier run has ended before it could remove it.
                self.failed = directory.remove(plain).is_err();
                continue;
            }
            let started = self.start(directory, plain.time, suffix);
            self.running = Some(started.map_err(|error| self.fail(&error.to_string()))?);
        }
        Ok(())
    }

    fn start(&self, directory: &Directory, time: Micros, suffix: Suffix) -> io::Result<Running> {
        let plain = File::open(directory.place(time, None))?;
        let mode = plain.metadata()?.permissions().mode() & 0o777;
        let made = directory.unfinished(time, suffix);
        let _ = fs::remove_file(&made);
        let compressed = File::options().write(true).create_new(true).mode(mode).open(&made)?;
        let arguments: &[&str] = match self.compression {
            Compression::Gzip => &["gzip", "-c"],
            Compression::Zstd => &["zstd", "-q", "-c"],
        };
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).args(arguments);
        command.stdin(plain).stdout(compressed).stderr(Stdio::piped());
        let mut child = aside::start(&mut command)?;
        let stderr = child.stderr.take().ok_or_else(|| io::Error::other("no pipe"))?;
        Ok(Running { time, child, stderr, said: Vec::new() })
    }

    fn fail(&mut self, why: &str) -> Error {
        self.failed = true;
        let name = match self.compression {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        };
        Error::usage(format!("compress with {name}"), format!("{why}; segments stay as they are"))
    }

    /// What tells that it has ended, while one runs.
    pub(super) fn wanted(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.running.as_ref().map(|running| (running.stderr.as_fd(), PollFlags::POLLIN))
    }

    pub(super) fn is_busy(&self) -> bool {
        self.running.is_some()
    }

    /// It has said something, or ended.
    pub(super) fn collect(&mut self, directory: &Directory) -> Result<(), Error> {
        let Some(running) = &mut self.running else { return Ok(()) };
        let mut said = [0; 512];
        match running.stderr.read(&mut said) {
            Ok(0) | Err(_) => {}
            Ok(len) => {
                let room = said.len().saturating_sub(running.said.len());
                running.said.extend(&said[..len.min(room)]);
                return Ok(());
            }
        }
        let Some(mut running) = self.running.take() else { return Ok(()) };
        let suffix = Suffix::of(self.compression);
        let made = directory.unfinished(running.time, suffix);
        let plain = directory.place(running.time, None);
        let status = running.child.wait();
        if !status.as_ref().is_ok_and(|status| status.success()) {
            let _ = fs::remove_file(made);
            let text = String::from_utf8_lossy(&running.said);
            let line = text.lines().next().unwrap_or_default().trim();
            let why = match (line, status) {
                ("", Ok(status)) => status.to_string(),
                ("", Err(error)) => error.to_string(),
                (line, _) => line.to_owned(),
            };
            return Err(self.fail(&why));
        }
        // The plain one may have been removed meanwhile, as the oldest of too many.
        let done = match plain.exists() {
            true => fs::rename(&made, directory.place(running.time, Some(suffix)))
                .and_then(|()| fs::remove_file(plain)),
            false => fs::remove_file(made),
        };
        done.map_err(|error| self.fail(&error.to_string()))
    }
}
