//! The files of one copy on disk: the current one and those that are finished.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, OFlag, RenameFlags, fcntl, renameat2};

use super::names::{self, Finished, Micros, Suffix};

/// Where the segments of a copy are.
#[derive(Debug)]
pub(in crate::copies) struct Directory {
    path: PathBuf,
    directory: PathBuf,
    base: OsString,
    /// When the newest finished one was finished: the next is later, whatever the clock says.
    newest: Option<Micros>,
}

/// What a path names: a link is followed once, and what is renamed is the file.
pub(in crate::copies) fn followed(path: &Path) -> io::Result<PathBuf> {
    match path.is_symlink() {
        true => path.canonicalize(),
        false => Ok(path.to_owned()),
    }
}

impl Directory {
    /// Of the copy into `path`.
    pub(in crate::copies) fn of(path: &Path) -> Directory {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let base = path.file_name().unwrap_or_default().to_owned();
        Directory { path: path.to_owned(), directory, base, newest: None }
    }

    pub(in crate::copies) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the current file as the one before it was opened. A new one has the mode of that, less the umask.
    pub(in crate::copies) fn open_after(&self, before: &File) -> io::Result<File> {
        let mode = before.metadata().map_or(0o666, |meta| meta.permissions().mode() & 0o777);
        let flags = OFlag::from_bits_truncate(fcntl(before, FcntlArg::F_GETFL)?);
        let mut options = File::options();
        options.write(true).append(flags.contains(OFlag::O_APPEND)).create(true).truncate(false);
        options.mode(mode).custom_flags(libc::O_NOCTTY);
        // Reading is only for the last byte, and need not be allowed.
        let both = options.clone().read(true).open(&self.path);
        both.or_else(|_| options.open(&self.path))
    }

    /// Whether the path still names this file.
    pub(in crate::copies) fn names(&self, file: &File) -> bool {
        match (fs::metadata(&self.path), file.metadata()) {
            (Ok(named), Ok(open)) => (named.dev(), named.ino()) == (open.dev(), open.ino()),
            _ => false,
        }
    }

    /// Gives the current file the name of a finished one. Says when that was.
    pub(in crate::copies) fn finish(&mut self) -> io::Result<Micros> {
        if self.newest.is_none() {
            self.newest = self.list()?.last().map(|finished| finished.time);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Micros::try_from(now.as_micros()).unwrap_or(Micros::MAX);
        let mut time = self.newest.map_or(now, |newest| now.max(newest + 1));
        loop {
            let to = self.directory.join(names::finished(&self.base, time, None));
            let renamed =
                match renameat2(AT_FDCWD, &self.path, AT_FDCWD, &to, RenameFlags::RENAME_NOREPLACE)
                {
                    // The filesystem cannot promise that nothing is replaced; a name to the microsecond can.
                    Err(Errno::EINVAL | Errno::ENOSYS) if !to.exists() => {
                        nix::fcntl::renameat(AT_FDCWD, &self.path, AT_FDCWD, &to)
                    }
                    renamed => renamed,
                };
            match renamed {
                Err(Errno::EEXIST) => time += 1,
                Err(errno) => return Err(errno.into()),
                Ok(()) => {
                    self.newest = Some(time);
                    return Ok(time);
                }
            }
        }
    }

    /// The finished ones, in order.
    pub(in crate::copies) fn list(&self) -> io::Result<Vec<Finished>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Some((time, compressed)) = names::parse(&self.base, &entry.file_name()) else {
                continue;
            };
            // It may have been taken away since.
            if let Ok(metadata) = entry.metadata()
                && metadata.is_file()
            {
                all.push(Finished { time, compressed, size: metadata.len() });
            }
        }
        all.sort();
        Ok(all)
    }

    pub(in crate::copies) fn remove(&self, finished: &Finished) -> io::Result<()> {
        match fs::remove_file(self.place(finished.time, finished.compressed)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Where a finished segment is.
    pub(in crate::copies) fn place(&self, time: Micros, suffix: Option<Suffix>) -> PathBuf {
        self.directory.join(names::finished(&self.base, time, suffix))
    }

    /// Where a compressed segment is while it is being made.
    pub(in crate::copies) fn unfinished(&self, time: Micros, suffix: Suffix) -> PathBuf {
        self.directory.join(names::unfinished(&self.base, time, suffix))
    }

    /// Removes what a compressor has left that did not end.
    pub(in crate::copies) fn remove_unfinished(&self) {
        let mut prefix = OsString::from(".");
        prefix.push(&self.base);
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        for entry in entries {
            let ours = names::parse(&prefix, &entry.file_name());
            if let Some((_, Some(_))) = ours {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The directory, to be watched.
    pub(in crate::copies) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The current file's name in it.
    pub(in crate::copies) fn base(&self) -> &OsStr {
        &self.base
    }
}
