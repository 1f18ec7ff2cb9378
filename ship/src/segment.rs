//! A segment's identity, which survives its renaming.

use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

/// Inode number and birth time: the same file under whatever name, and never the same as a later file that got
/// its inode number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct SegmentId(String);

impl SegmentId {
    /// The identity of the file that `metadata` is of. A filesystem that keeps no birth time is an error: an inode
    /// number alone comes back with the next file.
    pub(crate) fn of(metadata: &Metadata) -> io::Result<Self> {
        let born = metadata.created().map_err(|_| {
            io::Error::other("this filesystem keeps no birth time, so a segment cannot be told from the next one")
        })?;
        let born = born.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Ok(SegmentId(format!("{:x}-{born:x}", metadata.ino())))
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What makes message identities of this machine and path different from those of a copy of its disk.
pub(crate) fn origin(host: &str, subject: &str, path: &str) -> String {
    let mut hash = crc32fast::Hasher::new();
    for word in [host, subject, path] {
        hash.update(word.as_bytes());
        hash.update(&[0]);
    }
    format!("{:08x}", hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_survives_renaming_and_ends_with_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, "x").expect("write");
        let before = SegmentId::of(&a.metadata().expect("metadata")).expect("birth time");
        std::fs::rename(&a, &b).expect("rename");
        std::fs::write(&a, "y").expect("write");
        assert_eq!(SegmentId::of(&b.metadata().expect("metadata")).expect("birth time"), before);
        assert_ne!(SegmentId::of(&a.metadata().expect("metadata")).expect("birth time"), before);
    }
}
