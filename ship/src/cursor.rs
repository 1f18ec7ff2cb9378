//! What has been shipped, written down beside the segments.
//!
//! The file is replaced as a whole: a spare of the same size is overwritten, synced and exchanged with it. The spare
//! keeps its blocks, so that on a full disk, where shipping is what makes room, the cursor still moves.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};
use serde::{Deserialize, Serialize};

use crate::directory::{Form, Found};
use crate::notice::Failure;
use crate::segment::SegmentId;

/// What is known of a segment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Of the file that was written, also when only its compressed form is left.
    pub(crate) id: SegmentId,
    /// Its name once it was finished.
    pub(crate) stem: Option<String>,
    /// Bytes of the file when it was last seen.
    pub(crate) size: u64,
    /// It was not seen plain since it grew last, so `size` says nothing of how long its content is.
    #[serde(default)]
    pub(crate) packed: bool,
    /// Bytes of its content that were acknowledged.
    pub(crate) offset: u64,
    /// CRC-32 of those bytes.
    pub(crate) crc: u32,
    /// Counts how often the file was found to hold something else than what was shipped of it.
    #[serde(default)]
    pub(crate) generation: u32,
    /// All of it has been shipped.
    pub(crate) done: bool,
    /// Its rest cannot be read; the file is left for people to look at.
    #[serde(default)]
    pub(crate) lost: bool,
}

impl Known {
    /// A segment that is met for the first time, in `file`.
    pub(crate) fn met(file: &Found) -> Self {
        Known {
            id: file.id.clone(),
            stem: file.stem.clone(),
            size: file.size,
            packed: file.form != Form::Plain,
            offset: 0,
            crc: 0,
            generation: 0,
            done: false,
            lost: false,
        }
    }

    /// Takes what can be seen of the segment from `file`, which holds it now.
    pub(crate) fn seen_in(&mut self, file: &Found) {
        if file.form == Form::Plain {
            self.size = file.size;
            self.packed = false;
        } else if self.stem.is_none() || self.id == file.id {
            // It may have grown before it was finished; or it was compressed when it was met, which a cursor of an older
            // version does not say.
            self.packed = true;
        }
        self.stem.clone_from(&file.stem);
    }

    /// Bytes that are not acknowledged; none if that cannot be said.
    pub(crate) fn left(&self) -> Option<u64> {
        (!self.packed).then(|| self.size.saturating_sub(self.offset))
    }
}

/// The whole state of one path.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    /// The stream that acknowledged last.
    pub(crate) stream: String,
    /// The stream's sequence number of what was acknowledged last.
    pub(crate) sequence: u64,
    /// Whether anything may have been sent.
    #[serde(default)]
    pub(crate) begun: bool,
    /// When this was written, in seconds since 1970.
    pub(crate) written: u64,
    /// In the order in which they were met.
    pub(crate) segments: Vec<Known>,
    /// Bytes of each message that is on its way, where the cut does not follow from the content alone.
    #[serde(default)]
    pub(crate) planned: Vec<usize>,
}

/// The cursor of one path, held by one process at a time.
pub(crate) struct Cursor {
    path: PathBuf,
    spare: PathBuf,
    _lock: Flock<File>,
}

/// Cursor files are a multiple of this many bytes, so that overwriting one of them needs no new block.
const BLOCK: usize = 4096;

const VERSION: u32 = 1;

impl Cursor {
    /// Takes the cursor at `path` for this process and reads what it says.
    pub(crate) fn open(path: &Path) -> Result<(Self, Record), Failure> {
        let beside = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let tried = || format!("take {}", path.display());
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(beside(".lock"))
            .map_err(|e| Failure::new(tried(), e))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            let why = match errno {
                nix::errno::Errno::EWOULDBLOCK => "another nproxy-ship ships these segments".into(),
                other => other.to_string(),
            };
            Failure::new(tried(), why)
        })?;
        let record = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice::<Record>(&bytes)
                .ok()
                .filter(|record| record.version == VERSION)
                .ok_or_else(|| {
                    Failure::new(
                        format!("read {}", path.display()),
                        "this is no cursor of nproxy-ship; without it all segments are shipped anew",
                    )
                })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Record { version: VERSION, ..Record::default() }
            }
            Err(error) => return Err(Failure::new(format!("read {}", path.display()), error)),
        };
        Ok((Cursor { path: path.to_owned(), spare: beside(".spare"), _lock: lock }, record))
    }

    /// Writes `record` down; on return it survives a crash of the machine.
    pub(crate) fn save(&self, record: &mut Record) -> io::Result<()> {
        record.written = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut bytes = serde_json::to_vec(record)?;
        bytes.resize(bytes.len().next_multiple_of(BLOCK) - 1, b' ');
        bytes.push(b'\n');
        self.write_spare(&bytes)?;
        if !self.path.exists() {
            // The first time there is nothing to exchange; the next spare is made at once, while there is room.
            std::fs::rename(&self.spare, &self.path)?;
            self.write_spare(&bytes)?;
        } else if renameat2(
            AT_FDCWD,
            &self.spare,
            AT_FDCWD,
            &self.path,
            RenameFlags::RENAME_EXCHANGE,
        )
        .is_err()
        {
            std::fs::rename(&self.spare, &self.path)?;
        }
        File::open(crate::directory::directory_of(&self.path))?.sync_all()
    }

    fn write_spare(&self, bytes: &[u8]) -> io::Result<()> {
        let mut spare =
            OpenOptions::new().create(true).truncate(false).write(true).open(&self.spare)?;
        spare.write_all(bytes)?;
        // Only once all is written: cutting first would give the blocks away.
        spare.set_len(bytes.len() as u64)?;
        spare.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_read_again_and_one_process_holds_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(".log.ship");
        let (cursor, mut record) = Cursor::open(&path).expect("open");
        for sequence in 1..=3 {
            record.sequence = sequence;
            record.planned = vec![7; usize::try_from(sequence).expect("small") * 2000];
            cursor.save(&mut record).expect("save");
        }
        record.sequence = 4;
        record.planned.clear();
        cursor.save(&mut record).expect("save");
        assert!(Cursor::open(&path).is_err(), "it is taken");
        drop(cursor);
        let (_cursor, record) = Cursor::open(&path).expect("open");
        assert_eq!((record.sequence, record.planned.len()), (4, 0));
    }

    #[test]
    fn something_else_is_no_cursor() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x");
        std::fs::write(&path, "hello").expect("write");
        assert!(Cursor::open(&path).is_err());
    }
}
