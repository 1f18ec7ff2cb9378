//! What a spool writes down beside its segments: how far they have got. The same file tells that the spool is in use.
//!
//! One line of always the same length, written in place by one pwrite(2): a program that is killed leaves the old one or the
//! new one. A line that is neither is none, and then everything that is there is sent.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::backlog::Record;

/// What the line begins with.
const NAME: &str = "nproxy-spool 1";

/// The open file.
#[derive(Debug)]
pub(super) struct Cursor {
    file: File,
}

impl Cursor {
    /// Opens it, and keeps others from doing so.
    ///
    /// # Errors
    /// If another run uses the spool, or what the system says.
    pub(super) fn open(path: &Path) -> io::Result<Cursor> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Cursor { file }),
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(io::Error::other("the spool is in use by another nproxy"))
            }
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    pub(super) fn read(&self) -> Option<Record> {
        let mut line = [0; 128];
        let len = self.file.read_at(&mut line, 0).ok()?;
        decode(std::str::from_utf8(&line[..len]).ok()?)
    }

    /// # Errors
    /// What pwrite(2) says.
    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        self.file.write_all_at(encode(record).as_bytes(), 0)
    }
}

fn encode(record: &Record) -> String {
    let Record { inode, start, safe, sent } = record;
    format!("{NAME} {inode:016x} {start:016x} {safe:016x} {sent:016x}\n")
}

fn decode(text: &str) -> Option<Record> {
    let line = text.strip_suffix('\n')?;
    let mut fields = line.strip_prefix(NAME)?.strip_prefix(' ')?.split(' ');
    let mut field = || u64::from_str_radix(fields.next()?, 16).ok();
    let record = Record { inode: field()?, start: field()?, safe: field()?, sent: field()? };
    // Whatever else it may say, it is not ours.
    let ours = encode(&record) == text && record.start <= record.safe && record.safe <= record.sent;
    ours.then_some(record)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(inode: u64, start in 0..1u64 << 60, more in 0..1u64 << 60, yet in 0..1u64 << 60) {
            let record = Record { inode, start, safe: start + more, sent: start + more + yet };
            let text = encode(&record);
            prop_assert_eq!(decode(&text), Some(record));
            prop_assert_eq!(decode(&text[1..]), None);
            prop_assert_eq!(decode(&text[..text.len() - 2]), None);
        }
    }

    #[test]
    fn what_is_no_record_is_none() {
        for text in ["", "\n", "nproxy-spool 1\n", "nproxy-spool 2 0 0 0 0\n"] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_spool_has_one_user() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("cursor");
        let first = Cursor::open(&path).expect("open");
        assert_eq!(first.read(), None);
        let record = Record { inode: 7, start: 1, safe: 2, sent: 3 };
        first.write(&record).expect("write");
        let second = Cursor::open(&path).expect_err("in use").to_string();
        assert!(second.contains("in use"), "{second}");
        drop(first);
        assert_eq!(Cursor::open(&path).expect("open").read(), Some(record));
    }
}
