//! What of the segments has been shipped, and when that is written down.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cursor::{Cursor, Known, Record};
use crate::notice::{Failure, Trouble};
use crate::segment::SegmentId;
use crate::source::Prefix;

/// How often the cursor is written while messages flow. What it is behind is refused as duplicates after a crash.
const SAVE: Duration = Duration::from_millis(250);

/// The record, and the cursor that holds it on disk.
pub(crate) struct Ledger {
    cursor: Cursor,
    pub(crate) record: Record,
    saved: Instant,
    /// The cursor is behind the record.
    pub(crate) unsaved: bool,
    /// It is so for want of room.
    pub(crate) disk_full: bool,
    trouble: Trouble,
}

impl Ledger {
    /// Takes the cursor, and nobody else may have it.
    pub(crate) fn open(cursor: &Path) -> Result<Self, Failure> {
        let (cursor, record) = Cursor::open(cursor)?;
        Ok(Ledger {
            cursor,
            record,
            saved: Instant::now(),
            unsaved: true,
            disk_full: false,
            trouble: Trouble::default(),
        })
    }

    /// What is known of `id`, to be changed: how the next messages are cut is open again.
    pub(crate) fn revise(&mut self, id: &SegmentId) -> Option<&mut Known> {
        let known = self.record.segments.iter_mut().find(|known| known.id == *id)?;
        self.record.planned.clear();
        self.unsaved = true;
        Some(known)
    }

    /// `prefix` of `id` is acknowledged now, by the message that the stream has as `sequence`.
    pub(crate) fn acknowledged(&mut self, id: &SegmentId, prefix: Prefix, sequence: u64) {
        if let Some(known) = self.record.segments.iter_mut().find(|k| k.id == *id) {
            known.offset = prefix.len;
            known.crc = prefix.crc;
        }
        if sequence > self.record.sequence {
            self.record.sequence = sequence;
        }
        if !self.record.planned.is_empty() {
            self.record.planned.remove(0);
        }
        self.unsaved = true;
    }

    /// Before anything is sent: what the stream holds behind `sequence` may be ours.
    pub(crate) fn begin_at(&mut self, sequence: Option<u64>) {
        let Some(sequence) = sequence.or_else(|| (!self.record.begun).then_some(0)) else { return };
        if !self.record.begun {
            self.record.begun = true;
            self.record.sequence = sequence;
            self.unsaved = true;
            self.save();
        } else if sequence < self.record.sequence {
            // The stream is a new one under the same name.
            self.record.sequence = sequence;
            self.unsaved = true;
        }
    }

    /// Writes down how the next messages are cut, before they are sent.
    pub(crate) fn plan(&mut self, lengths: Vec<usize>) {
        self.record.planned = lengths;
        self.unsaved = true;
        self.save();
    }

    /// Writes the cursor if that has not been done for a while.
    pub(crate) fn save_if_due(&mut self) {
        if self.saved.elapsed() >= SAVE {
            self.save();
        }
    }

    /// Writes the cursor. If that fails, shipping goes on: what is sent twice after a crash is refused.
    pub(crate) fn save(&mut self) {
        if !self.unsaved {
            return;
        }
        self.saved = Instant::now();
        match self.cursor.save(&mut self.record) {
            Ok(()) => {
                self.unsaved = false;
                self.disk_full = false;
                self.trouble.over("write the cursor");
            }
            Err(error) => {
                let kind = error.kind();
                self.disk_full =
                    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
                self.trouble.met(format!("write the cursor: {error}"));
            }
        }
    }
}
