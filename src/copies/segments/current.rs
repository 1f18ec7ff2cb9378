//! The segment being written: bytes go into it until it has its size or its age, and to the end of a line.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::cut::{Cut, Cutter, Next};
use super::directory::Directory;
use super::names::Micros;
use crate::copies::intake::{Intake, Taken};
use crate::error::Error;

/// How much of a segment's end is looked at in one go, in bytes.
const END: usize = 64 << 10;

/// The current segment, and where the finished ones are.
#[derive(Debug)]
pub(in crate::copies) struct Current {
    pub(super) directory: Directory,
    file: File,
    cutter: Cutter,
    /// When the segment was finished, while the next one could not be opened.
    finished: Option<Micros>,
    transfer: Transfer,
    /// Where the end of a segment is looked for.
    buffer: Vec<u8>,
    /// What was read into the buffer and is not written yet.
    unwritten: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transfer {
    Spliced,
    /// Splice is refused.
    Copied,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::copies) enum Step {
    /// So many bytes were written.
    Wrote(u64),
    /// A segment was finished and the next one begun. Finished ones have the time in their names; one whose name somebody
    /// else has taken away has none.
    Finished(Cut, Option<Micros>),
    /// Nothing is there to be written.
    Nothing,
    /// The copy has ended, and all of it is written.
    End,
    /// The disk has no room. The next step tries again, and what was taken and is not written stays for it.
    Full(Errno),
}

impl Step {
    /// A disk without room may have some later. Any other error is handed back.
    pub(in crate::copies) fn refused(error: impl Into<io::Error>) -> io::Result<Step> {
        let error = error.into();
        match error.raw_os_error().map(Errno::from_raw) {
            Some(errno @ (Errno::ENOSPC | Errno::EDQUOT)) => Ok(Step::Full(errno)),
            _ => Err(error),
        }
    }
}

impl Current {
    /// Into `file`, which is what `path` names. A segment ends at a line's end, once it has so many bytes or its age.
    pub(in crate::copies) fn new(
        path: &Path,
        file: File,
        size: Option<u64>,
        every: Option<Duration>,
    ) -> Current {
        Current {
            directory: Directory::of(path),
            file,
            cutter: Cutter::new(size, every),
            finished: None,
            transfer: Transfer::Spliced,
            buffer: Vec::new(),
            unwritten: 0..0,
        }
    }

    /// What could not be done with the copy's path.
    pub(in crate::copies) fn failed(&self, tried: &str, error: impl Into<io::Error>) -> Error {
        Error::os(format!("{tried} {}", self.directory.path().display()), error)
    }

    pub(in crate::copies) fn file(&self) -> &File {
        &self.file
    }

    pub(in crate::copies) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Bytes in the segment.
    pub(in crate::copies) fn size(&self) -> u64 {
        self.cutter.size()
    }

    /// When the segment is old enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.cutter.deadline()
    }

    /// Goes on behind what is in the file.
    ///
    /// # Errors
    /// What the system says.
    pub(in crate::copies) fn append(&mut self) -> Result<(), Error> {
        let end = self.file.seek(SeekFrom::End(0));
        let end = end.map_err(|error| self.failed("append to", error))?;
        self.cutter.resume(end, Instant::now());
        Ok(())
    }

    /// Finishes the segment, which is cut in this way, and begins the next one.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn rotate(&mut self, how: Cut) -> Result<Step, Error> {
        // Somebody else may have taken it away, and what is there now is not ours to rename.
        if self.finished.is_none() && self.directory.names(&self.file) {
            match self.directory.finish() {
                Ok(time) => self.finished = Some(time),
                Err(error) => return self.refused("finish", error),
            }
        }
        match self.directory.open_after(&self.file) {
            Ok(next) => self.go_on_in(next)?,
            Err(error) => return self.refused("open", error),
        }
        Ok(Step::Finished(how, self.finished.take()))
    }

    /// Opens the path anew. What is there stays, and is gone on with.
    ///
    /// # Errors
    /// What the system says, also of closing the file before it.
    pub(super) fn open_next(&mut self) -> Result<(), Error> {
        let next = self.directory.open_after(&self.file);
        self.go_on_in(next.map_err(|error| self.failed("open", error))?)
    }

    fn go_on_in(&mut self, next: File) -> Result<(), Error> {
        let before = std::mem::replace(&mut self.file, next);
        self.cutter.restart();
        self.append()?;
        nix::unistd::close(before).map_err(|errno| self.failed("close", errno))
    }

    /// Does the next thing that can be done, with up to `most` bytes from the pipe.
    ///
    /// # Errors
    /// Why no more can be written.
    pub(in crate::copies) fn step(&mut self, intake: &Intake, most: u64) -> Result<Step, Error> {
        match self.cutter.next(Instant::now()) {
            Next::Finish(how) => self.rotate(how),
            Next::LookBack => {
                let ended = self.ends_a_line();
                self.cutter.saw(ended);
                Ok(Step::Wrote(0))
            }
            Next::Take(limit)
                if self.unwritten.is_empty() && self.transfer == Transfer::Spliced =>
            {
                self.splice(limit.min(most), intake)
            }
            next => match self.read(most, intake)? {
                Taken::End => Ok(Step::End),
                Taken::Nothing => Ok(Step::Nothing),
                Taken::Bytes(_) => self.write(next),
            },
        }
    }

    fn splice(&mut self, most: u64, intake: &Intake) -> Result<Step, Error> {
        match intake.splice(&self.file, most) {
            // The filesystem does not know it, or a seccomp filter forbids the call.
            Err(Errno::EINVAL | Errno::EPERM | Errno::ENOSYS) => {
                self.transfer = Transfer::Copied;
                Ok(Step::Wrote(0))
            }
            Err(errno) => self.refused("write to", errno),
            Ok(Taken::End) => Ok(Step::End),
            Ok(Taken::Nothing) => Ok(Step::Nothing),
            Ok(Taken::Bytes(bytes)) => Ok(self.wrote(bytes, None)),
        }
    }

    /// Sees to it that something is in the buffer.
    fn read(&mut self, most: u64, intake: &Intake) -> Result<Taken, Error> {
        if !self.unwritten.is_empty() {
            return Ok(Taken::Bytes(self.unwritten.len()));
        }
        self.buffer.resize(END, 0);
        let most = END.min(usize::try_from(most).unwrap_or(END));
        let taken = intake.read(&mut self.buffer[..most]);
        let taken = taken.map_err(|errno| self.failed("copy to", errno))?;
        if let Taken::Bytes(len) = taken {
            self.unwritten = 0..len;
        }
        Ok(taken)
    }

    /// Writes of what is in the buffer as much as belongs into this segment.
    fn write(&mut self, next: Next) -> Result<Step, Error> {
        let bytes = &self.buffer[self.unwritten.clone()];
        let (end, line_ended) = match next {
            Next::Search(most) => {
                let seen = &bytes[..bytes.len().min(most as usize)];
                let newline = seen.iter().position(|byte| *byte == b'\n');
                (newline.map_or(seen.len(), |at| at + 1), newline.is_some())
            }
            Next::Take(most) => {
                let end = bytes.len().min(most as usize);
                (end, bytes[end - 1] == b'\n')
            }
            Next::LookBack | Next::Finish(_) => (0, false),
        };
        match nix::unistd::write(&self.file, &bytes[..end]) {
            Err(Errno::EINTR) => Ok(Step::Wrote(0)),
            Ok(0) => self.refused("write to", Errno::ENOSPC),
            Err(errno) => self.refused("write to", errno),
            Ok(written) => {
                self.unwritten.start += written;
                Ok(self.wrote(written, Some(written == end && line_ended)))
            }
        }
    }

    fn wrote(&mut self, bytes: usize, line_ended: Option<bool>) -> Step {
        self.cutter.took(bytes as u64, line_ended, Instant::now());
        Step::Wrote(bytes as u64)
    }

    fn refused(&self, tried: &str, error: impl Into<io::Error>) -> Result<Step, Error> {
        Step::refused(error).map_err(|error| self.failed(tried, error))
    }

    /// Whether the last byte of the file ends a line.
    pub(in crate::copies) fn ends_a_line(&mut self) -> bool {
        let mut last = [0];
        let at = self.file.stream_position().unwrap_or(0);
        let read = at.checked_sub(1).map(|at| self.file.read_at(&mut last, at));
        // What cannot be read is no newline: the next one will be seen.
        matches!(read, Some(Ok(1))) && last[0] == b'\n'
    }

    /// Asks for what only closing tells: NFS, quotas and FUSE report there what they could not write.
    ///
    /// # Errors
    /// Just that.
    pub(super) fn close(&self) -> Result<(), Error> {
        let last = self.file.try_clone();
        let closed = last.map(|file| nix::unistd::close(file).map_err(io::Error::from));
        closed.flatten().map_err(|error| self.failed("close", error))
    }
}
