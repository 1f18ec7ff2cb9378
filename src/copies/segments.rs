//! A copy in a file that is finished and begun anew: segments.
//!
//! Bytes are spliced into the current file until it has its size or its age. From there to the end of a line they are
//! read and written, so that what follows the newline goes into the next segment and nothing has to be moved on disk.
//! Every byte is written once, to where it stays: whenever the program dies, the segments one behind the other are a
//! prefix of the copy.

mod compress;
mod cut;
mod directory;
mod names;
mod watch;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::intake::{Intake, Taken};
use super::writer::Work;
use crate::config::{Moved, Rotation, TeeOpen};
use crate::error::Error;
use crate::notice;
use compress::Compressor;
use cut::{Cut, Cutter, Next};
use directory::Directory;
use watch::Watch;

/// How much of a segment's end is looked at in one go, in bytes.
const END: usize = 64 << 10;

/// A copy in a regular file of our own.
#[derive(Debug)]
pub(crate) struct Segments {
    directory: Directory,
    file: File,
    existing: TeeOpen,
    rotation: Option<Rotation>,
    cutter: Cutter,
    watch: Option<Watch>,
    compressor: Option<Compressor>,
    /// Bytes of the finished segments when they were last counted.
    finished: u64,
    /// That a line was cut has been told.
    told: bool,
    /// Where the end of a segment is looked for.
    buffer: Vec<u8>,
    /// Splice is refused.
    transfer: Transfer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transfer {
    Spliced,
    Copied,
}

impl Segments {
    /// Of `path`, which `file` is opened from for writing at its own position. Nothing is changed yet.
    ///
    /// # Errors
    /// If another process writes segments there, or the path cannot be watched.
    pub(crate) fn new(
        path: &Path,
        file: File,
        existing: TeeOpen,
        rotation: Option<Rotation>,
        moved: Moved,
    ) -> io::Result<Segments> {
        // A link is followed once: what is renamed is the file.
        let path = match path.is_symlink() {
            true => path.canonicalize()?,
            false => path.to_owned(),
        };
        let directory = Directory::of(&path);
        if rotation.is_some() && file.try_lock().is_err() {
            return Err(io::Error::other("another nproxy writes its segments"));
        }
        let watch = match moved {
            Moved::Reopened => Some(Watch::new(directory.directory(), directory.base())?),
            Moved::Followed => None,
        };
        let (size, every) = rotation.as_ref().map_or((None, None), |each| (each.size, each.every));
        let compression = rotation.as_ref().and_then(|rotation| rotation.compress);
        Ok(Segments {
            cutter: Cutter::new(size, every),
            compressor: compression.map(Compressor::new),
            directory,
            file,
            existing,
            rotation,
            watch,
            finished: 0,
            told: false,
            buffer: Vec::new(),
            transfer: Transfer::Spliced,
        })
    }

    fn failed(&self, tried: &str, error: impl Into<io::Error>) -> Error {
        Error::os(format!("{tried} {}", self.directory.path().display()), error)
    }

    /// The run has begun: an existing file is emptied, finished or gone on with.
    fn begin(&mut self, intake: &Intake) -> Result<(), Error> {
        let size = self.file.metadata().map_err(|error| self.failed("examine", error))?.len();
        match (self.existing, &self.rotation) {
            (TeeOpen::Append, _) => {
                let end = self.file.seek(SeekFrom::End(0));
                let end = end.map_err(|error| self.failed("append to", error))?;
                self.cutter.resume(end, Instant::now());
            }
            (TeeOpen::Truncate, None) => {
                self.file.set_len(0).map_err(|error| self.failed("empty", error))?;
            }
            (TeeOpen::Truncate, Some(_)) if size > 0 => return self.rotate(intake),
            (TeeOpen::Truncate, Some(_)) => {}
        }
        self.tidy(intake);
        Ok(())
    }

    /// Finishes the current file and begins the next one.
    fn rotate(&mut self, intake: &Intake) -> Result<(), Error> {
        // Somebody else may have taken it away, and what is there now is not ours to rename.
        if self.directory.names(&self.file) {
            self.directory.finish().map_err(|error| self.failed("finish", error))?;
        }
        self.open_next()?;
        self.tidy(intake);
        Ok(())
    }

    /// Opens the path anew. What is there stays, and is gone on with.
    fn open_next(&mut self) -> Result<(), Error> {
        let mode = self.file.metadata().map_or(0o666, |meta| meta.permissions().mode() & 0o777);
        let mut next = self.directory.open(mode).map_err(|error| self.failed("open", error))?;
        if self.rotation.is_some() {
            // Nobody else has had time to lock it, but for one who writes there by mistake.
            let _ = next.try_lock();
        }
        let end = next.seek(SeekFrom::End(0)).map_err(|error| self.failed("append to", error))?;
        self.file = next;
        self.cutter.restart();
        self.cutter.resume(end, Instant::now());
        Ok(())
    }

    /// Removes finished segments that are too many, and has the others compressed.
    fn tidy(&mut self, intake: &Intake) {
        let Some(rotation) = &self.rotation else { return };
        if rotation.keep.is_some() || rotation.total.is_some() {
            let all = self.directory.list().unwrap_or_default();
            let size = self.cutter.size();
            let gone = names::surplus(&all, size, rotation.keep, rotation.total);
            self.finished = all.iter().map(|finished| finished.size).sum();
            for finished in &gone {
                match self.directory.remove(finished) {
                    Ok(()) => self.finished -= finished.size,
                    Err(error) => notice::error(&self.failed("remove a segment of", error)),
                }
            }
        }
        if let Some(compressor) = &mut self.compressor {
            if !compressor.is_busy() {
                self.directory.remove_unfinished();
            }
            if let Err(error) = compressor.advance(&self.directory) {
                notice::notice(intake.verbosity, &format!("{}: {error}", intake.name));
            }
        }
    }

    /// Does the next thing that can be done. False if bytes have to be waited for.
    fn step(&mut self, intake: &Intake) -> Result<Taken, Error> {
        let now = Instant::now();
        match self.cutter.next(now) {
            Next::Finish(how) => {
                self.finish(how, intake)?;
                Ok(Taken::Bytes(0))
            }
            Next::LookBack => {
                self.look_back();
                Ok(Taken::Bytes(0))
            }
            Next::Take(most) if self.transfer == Transfer::Spliced => self.splice(most, intake),
            Next::Take(_) | Next::Search(_) => {
                let mut buffer = std::mem::take(&mut self.buffer);
                buffer.resize(END, 0);
                let taken = intake.read(&mut buffer).map_err(|errno| self.failed("copy to", errno));
                if let Ok(Taken::Bytes(len)) = taken {
                    self.write_lines(&buffer[..len], intake)?;
                }
                self.buffer = buffer;
                taken
            }
        }
    }

    fn splice(&mut self, most: u64, intake: &Intake) -> Result<Taken, Error> {
        let taken = match intake.splice(&self.file, most) {
            // The filesystem does not know it, or a seccomp filter forbids the call.
            Err(Errno::EINVAL | Errno::EPERM | Errno::ENOSYS) => {
                self.transfer = Transfer::Copied;
                return Ok(Taken::Bytes(0));
            }
            taken => taken.map_err(|errno| self.failed("write to", errno))?,
        };
        if let Taken::Bytes(bytes) = taken {
            self.took(bytes as u64, None, intake);
        }
        Ok(taken)
    }

    fn took(&mut self, bytes: u64, line_ended: Option<bool>, intake: &Intake) {
        intake.beyond.wrote(bytes);
        self.cutter.took(bytes, line_ended, Instant::now());
        let total = self.rotation.as_ref().and_then(|rotation| rotation.total);
        if total
            .is_some_and(|total| self.finished > 0 && self.finished + self.cutter.size() > total)
        {
            self.tidy(intake);
        }
    }

    fn look_back(&mut self) {
        let mut last = [0];
        let at = self.file.stream_position().unwrap_or(0);
        let read = at.checked_sub(1).map(|at| self.file.read_at(&mut last, at));
        // What cannot be read is no newline: the next one will be seen.
        self.cutter.saw(matches!(read, Some(Ok(1))) && last[0] == b'\n');
    }

    fn finish(&mut self, how: Cut, intake: &Intake) -> Result<(), Error> {
        if how == Cut::InLine && !std::mem::replace(&mut self.told, true) {
            let text = "a line longer than a segment was cut, and others may be";
            notice::notice(intake.verbosity, &format!("{}: {text}", intake.name));
        }
        self.rotate(intake)
    }

    /// Writes bytes that were read, and finishes segments within them.
    fn write_lines(&mut self, mut bytes: &[u8], intake: &Intake) -> Result<(), Error> {
        while !bytes.is_empty() {
            let (end, line_ended) = match self.cutter.next(Instant::now()) {
                Next::Finish(how) => {
                    self.finish(how, intake)?;
                    continue;
                }
                Next::LookBack => {
                    self.look_back();
                    continue;
                }
                Next::Take(most) => {
                    let end = bytes.len().min(most as usize);
                    (end, bytes[end - 1] == b'\n')
                }
                Next::Search(most) => {
                    let seen = &bytes[..bytes.len().min(most as usize)];
                    let newline = seen.iter().position(|byte| *byte == b'\n');
                    (newline.map_or(seen.len(), |at| at + 1), newline.is_some())
                }
            };
            let written = nix::unistd::write(&self.file, &bytes[..end]);
            let written = match written {
                Err(Errno::EINTR) => continue,
                Ok(0) => Err(Errno::ENOSPC),
                written => written,
            };
            let written = written.map_err(|errno| self.failed("write to", errno))?;
            self.took(written as u64, Some(written == end && line_ended), intake);
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Waits until there is something to do, and does what is not about bytes.
    fn wait(&mut self, input: bool, until: Option<Instant>, intake: &Intake) -> Result<(), Error> {
        let watched = self.watch.as_ref().and_then(Watch::wanted);
        let compressing = self.compressor.as_ref().and_then(Compressor::wanted);
        let input = intake.input().filter(|_| input);
        let [_, changed, compressed] = intake.wait([input, watched, compressing], until);
        if !compressed.is_empty()
            && let Some(compressor) = &mut self.compressor
        {
            if let Err(error) = compressor.collect(&self.directory) {
                notice::notice(intake.verbosity, &format!("{}: {error}", intake.name));
            }
            if !compressor.is_busy() {
                self.tidy(intake);
            }
        }
        let changed = changed.contains(PollFlags::POLLIN)
            && self.watch.as_ref().is_some_and(Watch::has_changed);
        if changed && !self.directory.names(&self.file) {
            self.close()?;
            self.open_next()?;
        }
        Ok(())
    }

    /// Asks for what only closing tells: NFS, quotas and FUSE report there what they could not write.
    fn close(&self) -> Result<(), Error> {
        let last = self.file.try_clone().map(std::os::fd::OwnedFd::from);
        let closed = last.map(|fd| nix::unistd::close(fd).map_err(io::Error::from));
        closed.flatten().map_err(|error| self.failed("close", error))
    }
}

impl Work for Segments {
    fn run(mut self: Box<Self>, intake: Intake) -> Result<(), Error> {
        self.begin(&intake)?;
        while !intake.stop.is_asked() {
            match self.step(&intake)? {
                Taken::End => break,
                Taken::Bytes(_) if self.watch.is_none() && self.compressor.is_none() => {}
                Taken::Bytes(_) => self.wait(false, Some(Instant::now()), &intake)?,
                Taken::Nothing => {
                    // One that is over waits for the end of a line.
                    let due = self.cutter.deadline().filter(|at| *at > Instant::now());
                    self.wait(true, due, &intake)?;
                }
            }
        }
        self.close()?;
        while !intake.stop.is_asked() && self.compressor.as_ref().is_some_and(Compressor::is_busy) {
            self.wait(false, None, &intake)?;
        }
        Ok(())
    }
}
