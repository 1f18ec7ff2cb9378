//! A spool's segments on disk: filled from the copy's pipe, and sent from there inside the kernel.

use std::fs::{self, File};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::sendfile::sendfile64;

use super::backlog::{Backlog, Part};
use super::cursor::Cursor;
use crate::copies::intake::Intake;
use crate::copies::segments::current::{Current, Step};
use crate::error::Error;

/// The current segment's name in the directory. Finished ones are called `spool.TIME`.
const NAME: &str = "spool";

/// Bytes of a segment: small, so that what has arrived is soon gone from the disk.
const SEGMENT: u64 = 8 << 20;

/// How much is looked at in one go for a line's start, or sent where sendfile(2) is refused, in bytes.
const BUFFER: usize = 64 << 10;

/// The directory, and what is known of it.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    cursor: Cursor,
    current: Current,
    pub(super) backlog: Backlog,
    /// All is ready for the first byte of this run.
    begun: bool,
    /// The finished segment that was read last.
    open: Option<(Part, File)>,
    transfer: Transfer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transfer {
    InKernel,
    /// sendfile(2) is refused.
    Copied,
}

/// What became of a try to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// So many bytes, of which so many were sent before.
    Bytes { all: u64, again: u64 },
    /// All is sent.
    All,
    /// The socket has no room.
    NoRoom,
    /// A segment is not there any more, and so many bytes with it that were never sent.
    Missing(u64),
    /// The connection is lost.
    Lost(Errno),
}

impl Store {
    /// Opens the spool in an existing directory, and keeps others out. Nothing that is there is changed yet.
    ///
    /// # Errors
    /// If it is in use, or what the system says.
    pub(super) fn open(directory: &Path) -> io::Result<Store> {
        if !fs::metadata(directory)?.is_dir() {
            return Err(Errno::ENOTDIR.into());
        }
        let cursor = Cursor::open(&directory.join(format!(".{NAME}.cursor")))?;
        let path = directory.join(NAME);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other(format!("{} is no regular file", path.display())));
        }
        let current = Current::new(&path, file, Some(SEGMENT), None);
        let mut parts = Vec::new();
        for finished in current.directory().list()?.iter().filter(|each| each.compressed.is_none())
        {
            let inode = fs::metadata(current.directory().place(finished.time, None))?.ino();
            parts.push(Part { start: 0, size: finished.size, inode, time: Some(finished.time) });
        }
        parts.push(Part { start: 0, size: metadata.len(), inode: metadata.ino(), time: None });
        let backlog = Backlog::new(parts, cursor.read());
        let directory = directory.to_owned();
        Ok(Store {
            directory,
            cursor,
            current,
            backlog,
            begun: false,
            open: None,
            transfer: Transfer::InKernel,
        })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The current segment's file.
    pub(super) fn file(&self) -> &File {
        self.current.file()
    }

    fn failed(&self, tried: &str, error: impl Into<io::Error>) -> Error {
        Error::os(format!("{tried} the spool {}", self.directory.display()), error)
    }

    /// The run has begun. A line that the last one has not ended is ended, so that the first one of this run is a line of
    /// its own.
    fn begin(&mut self) -> Result<Step, Error> {
        // Before any byte comes: the file may have the inode of one that was written down before.
        if let Err(error) = self.cursor.write(&self.backlog.record()) {
            return self.refused(error);
        }
        self.current.append()?;
        if self.backlog.end() > self.backlog.record().start && !self.ends_a_line() {
            if let Err(errno) = nix::unistd::write(self.current.file(), b"\n") {
                return self.refused(errno);
            }
            self.current.append()?;
            self.backlog.wrote(1);
        }
        self.begun = true;
        Ok(Step::Nothing)
    }

    fn refused(&self, error: impl Into<io::Error>) -> Result<Step, Error> {
        Step::refused(error).map_err(|error| self.failed("write to", error))
    }

    fn ends_a_line(&mut self) -> bool {
        // A segment is finished behind a newline, but for a line longer than it.
        self.current.size() == 0 || self.current.ends_a_line()
    }

    /// Takes up to `most` bytes from the pipe.
    ///
    /// # Errors
    /// Why no more can be written.
    pub(super) fn take(&mut self, intake: &Intake, most: u64) -> Result<Step, Error> {
        if !self.begun
            && let Step::Full(errno) = self.begin()?
        {
            return Ok(Step::Full(errno));
        }
        let step = self.current.step(intake, most)?;
        match step {
            Step::Wrote(bytes) => self.backlog.wrote(bytes),
            Step::Finished(_, time) => {
                let metadata = self.current.file().metadata();
                let metadata = metadata.map_err(|error| self.failed("examine", error))?;
                self.backlog.finished(time, metadata.ino());
                // Somebody may have put something there.
                self.backlog.wrote(metadata.len());
            }
            Step::Nothing | Step::End | Step::Full(_) => {}
        }
        Ok(step)
    }

    /// A connection begins: at the start of the line in which that begins what its peer may not have read.
    pub(super) fn connected(&mut self, window: u64) {
        let (part, safe) = self.backlog.restart();
        let start = part.and_then(|part| {
            let file = self.file_of(part).ok()?;
            line_start(file, safe - part.start).ok().map(|at| part.start + at)
        });
        self.backlog.connected(start.unwrap_or(safe), window);
    }

    /// Sends up to `most` bytes.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>, most: u64) -> Result<Sent, Error> {
        let Some((part, at)) = self.backlog.next() else { return Ok(Sent::All) };
        if let Err(error) = self.file_of(part) {
            return match error.kind() {
                io::ErrorKind::NotFound => Ok(Sent::Missing(self.backlog.skip(part))),
                _ => Err(self.failed("read", error)),
            };
        }
        let most = most.min(part.size - at);
        if self.backlog.will_send(most) {
            self.write_down()?;
        }
        let transfer = self.transfer;
        let file = self.file_of(part).map_err(|error| Error::os("read a spool", error))?;
        let sent = match transfer {
            Transfer::InKernel => sendfile64(socket, file, Some(&mut (at as i64)), most as usize),
            Transfer::Copied => copy(socket, file, at, most),
        };
        match sent {
            // The file is shorter than it was.
            Ok(0) => Ok(Sent::Missing(self.backlog.skip(part))),
            Ok(bytes) => {
                let all = bytes as u64;
                Ok(Sent::Bytes { all, again: self.backlog.has_sent(all) })
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Sent::NoRoom),
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) if transfer == Transfer::InKernel => {
                self.transfer = Transfer::Copied;
                Ok(Sent::Bytes { all: 0, again: 0 })
            }
            Err(errno @ (Errno::EIO | Errno::ESTALE)) => Err(self.failed("read", errno)),
            Err(errno) => Ok(Sent::Lost(errno)),
        }
    }

    /// The file of a segment, which must still be the same.
    fn file_of(&mut self, part: Part) -> io::Result<&File> {
        let Some(time) = part.time else {
            return match self.backlog.is_current(&part) {
                true => Ok(self.current.file()),
                // Somebody has taken it away while it was the current one.
                false => Err(io::ErrorKind::NotFound.into()),
            };
        };
        if self.open.as_ref().is_none_or(|(open, _)| open.inode != part.inode) {
            let file = File::open(self.current.directory().place(time, None))?;
            if file.metadata()?.ino() != part.inode {
                return Err(io::ErrorKind::NotFound.into());
            }
            self.open = Some((part, file));
        }
        match &self.open {
            Some((_, file)) => Ok(file),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Writes down how far everything is.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn write_down(&self) -> Result<(), Error> {
        let written = self.cursor.write(&self.backlog.record());
        written.map_err(|error| self.failed("write to", error))
    }

    /// Removes segments that nobody needs any more.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn tidy(&mut self) -> Result<(), Error> {
        let surplus = self.backlog.surplus();
        if surplus.is_empty() {
            return Ok(());
        }
        // First it is written down that they are not needed.
        self.write_down()?;
        for part in surplus {
            self.remove(part)?;
        }
        Ok(())
    }

    fn remove(&self, part: Part) -> Result<(), Error> {
        let Some(time) = part.time else { return Ok(()) };
        match fs::remove_file(self.current.directory().place(time, None)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("remove a segment of", error))
            }
            _ => Ok(()),
        }
    }

    /// The collector has read everything: nothing stays.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn clear(&mut self) -> Result<(), Error> {
        self.backlog.confirmed();
        self.write_down()?;
        self.tidy()?;
        let directory = self.current.directory();
        match directory.names(self.current.file()) {
            true => fs::remove_file(directory.path())
                .map_err(|error| self.failed("remove a segment of", error)),
            false => Ok(()),
        }
    }
}

/// Sends what is read into a buffer.
fn copy(socket: BorrowedFd<'_>, file: &File, at: u64, most: u64) -> nix::Result<usize> {
    let mut buffer = [0; BUFFER];
    let most = BUFFER.min(usize::try_from(most).unwrap_or(BUFFER));
    let read = file.read_at(&mut buffer[..most], at);
    let read = read.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    match read {
        0 => Ok(0),
        read => nix::unistd::write(socket, &buffer[..read]),
    }
}

/// Where the line begins in which `at` is; a segment's start counts as one.
fn line_start(file: &File, at: u64) -> io::Result<u64> {
    let mut buffer = [0; BUFFER];
    let mut end = at;
    while end > 0 {
        let len = end.min(BUFFER as u64);
        let from = end - len;
        let bytes = &mut buffer[..len as usize];
        file.read_exact_at(bytes, from)?;
        if let Some(newline) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(from + newline as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}
