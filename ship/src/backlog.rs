//! What there is to ship of one path: the files in its directory, each known again whatever it is called now, beside what
//! the ledger says of them.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::config::Shipped;
use crate::cursor::Known;
use crate::directory::{Form, Found, scan, stem_of};
use crate::ledger::Ledger;
use crate::notice::{Failure, say};
use crate::segment::SegmentId;
use crate::source::{Prefix, Source};
use crate::stats::{Counters, add};

/// How often the directory is looked at while there is enough to do.
const LOOK: Duration = Duration::from_secs(1);

/// A directory that is read while a file in it is renamed may show neither name: gone is what is gone twice.
pub(crate) const GONE: Duration = Duration::from_millis(200);

/// Shipped and deleted segments that are remembered, because a compressor may still bring them back.
const REMEMBERED: usize = 64;

/// The segments of one path.
pub(crate) struct Backlog {
    path: PathBuf,
    pub(crate) ledger: Ledger,
    shipped: Shipped,
    counters: Arc<Counters>,
    found: Vec<(SegmentId, Found)>,
    missing: HashMap<SegmentId, Instant>,
    /// The current segment, open: the kernel says what became of its name even if it is renamed, compressed and removed
    /// between two looks.
    current: Option<(SegmentId, File)>,
    looked: Option<Instant>,
}

impl Backlog {
    /// Takes the cursor of `path`.
    pub(crate) fn open(
        path: &Path,
        cursor: &Path,
        shipped: Shipped,
        counters: Arc<Counters>,
    ) -> Result<Self, Failure> {
        Ok(Backlog {
            path: path.to_owned(),
            ledger: Ledger::open(cursor)?,
            shipped,
            counters,
            found: Vec::new(),
            missing: HashMap::new(),
            current: None,
            looked: None,
        })
    }

    /// Compares directory and cursor. `open` is being read and stays readable, whatever happened to its name.
    pub(crate) fn look(&mut self, open: Option<&SegmentId>) -> io::Result<()> {
        let found = scan(&self.path)?;
        self.looked = Some(Instant::now());
        let files: HashSet<SegmentId> = found.iter().map(|f| f.id.clone()).collect();
        self.name_the_former_current(&files);
        self.found.clear();
        for file in found {
            if let Some(id) = self.recognise(&file, &files) {
                if file.stem.is_none() {
                    self.hold(&id, &file);
                }
                self.found.push((id, file));
            }
        }
        self.miss(open);
        self.sweep();
        Ok(())
    }

    /// Keeps the current segment open.
    fn hold(&mut self, id: &SegmentId, file: &Found) {
        if self.current.as_ref().is_none_or(|(held, _)| held != id)
            && let Ok(opened) = File::open(&file.path)
            && opened.metadata().is_ok_and(|m| SegmentId::of(&m).is_ok_and(|now| now == *id))
        {
            self.current = Some((id.clone(), opened));
        }
    }

    /// Gives the segment that was the current one the name that it got, if it is no longer found as a file.
    fn name_the_former_current(&mut self, files: &HashSet<SegmentId>) {
        let Some((id, file)) = &self.current else { return };
        if files.contains(id) {
            return;
        }
        let Ok(target) = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())) else {
            return;
        };
        // "PATH.TIME (deleted)" once the name is gone (proc_pid_fd(5)).
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = name.strip_suffix(" (deleted)").unwrap_or(&name);
        let stem = stem_of(&self.path, name);
        let known =
            self.ledger.record.segments.iter_mut().find(|k| k.id == *id && k.stem.is_none());
        if let (Some(stem), Some(known)) = (stem, known) {
            known.stem = Some(stem);
            if let Ok(metadata) = file.metadata() {
                known.size = metadata.len();
            }
            self.current = None;
        }
    }

    /// Whether something is not found and not yet known to be gone.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Looks again unless that has just been done.
    pub(crate) fn look_if_due(&mut self, open: Option<&SegmentId>) -> io::Result<()> {
        match self.looked {
            Some(at) if at.elapsed() < LOOK => Ok(()),
            _ => self.look(open),
        }
    }

    /// Which segment `file` holds; none if that can be said only by the next look. A compressed file is a new one, but
    /// its segment is not.
    fn recognise(&mut self, file: &Found, files: &HashSet<SegmentId>) -> Option<SegmentId> {
        let missing = |k: &Known| !files.contains(&k.id);
        let segments = &mut self.ledger.record.segments;
        let mut index = segments.iter().position(|k| k.id == file.id);
        if index.is_none() && file.form != Form::Plain {
            index =
                segments.iter().position(|k| missing(k) && k.stem.is_some() && k.stem == file.stem);
        }
        if index.is_none() && file.form != Form::Plain {
            // It may be one that was the current one when it was last seen, by the run before.
            let nameless = |k: &Known| missing(k) && k.stem.is_none();
            let gone =
                |k: &Known| self.missing.get(&k.id).is_some_and(|since| since.elapsed() >= GONE);
            if segments.iter().any(|k| nameless(k) && !gone(k)) {
                return None;
            }
            index = segments.iter().position(|k| {
                let prefix = Prefix { len: k.offset, crc: k.crc };
                nameless(k) && Source::holds(file, prefix, k.size)
            });
        }
        match index {
            Some(index) => {
                let known = &mut segments[index];
                self.ledger.unsaved |= known.stem != file.stem;
                known.seen_in(file);
                Some(known.id.clone())
            }
            None => {
                segments.push(Known::met(file));
                self.ledger.unsaved = true;
                Some(file.id.clone())
            }
        }
    }

    /// Reports what was removed before it was shipped, and forgets what was removed after.
    fn miss(&mut self, open: Option<&SegmentId>) {
        let present: HashSet<&SegmentId> = self.found.iter().map(|(id, _)| id).collect();
        let gone = |known: &Known| !present.contains(&known.id);
        let (missing, now) = (&mut self.missing, Instant::now());
        missing.retain(|id, _| {
            !present.contains(id) && self.ledger.record.segments.iter().any(|k| k.id == *id)
        });
        let mut lost = Vec::new();
        for known in self.ledger.record.segments.iter().filter(|k| gone(k)) {
            if known.done && known.stem.is_some() {
                continue;
            }
            let since = *missing.entry(known.id.clone()).or_insert(now);
            if now.duration_since(since) >= GONE && !known.done && Some(&known.id) != open {
                lost.push(known.clone());
            }
        }
        let remembered = self.ledger.record.segments.iter().filter(|k| gone(k) && k.done).count();
        let mut forget = remembered.saturating_sub(REMEMBERED);
        self.ledger.record.segments.retain(|known| {
            let old = known.done && forget > 0 && gone(known);
            forget -= usize::from(old);
            !old && lost.iter().all(|l| l.id != known.id)
        });
        for known in lost {
            self.ledger.unsaved = true;
            self.ledger.record.planned.clear();
            // Of the current segment all may be shipped, although it is not done.
            if known.left() != Some(0) {
                self.gap(&known, "was removed before it was shipped");
            }
        }
    }

    /// Tells of a segment whose rest is not shipped and never will be.
    fn gap(&self, known: &Known, what: &str) {
        add(&self.counters.gaps, 1);
        let missing = match known.left() {
            Some(bytes) if bytes > 0 => {
                add(&self.counters.gap_bytes, bytes);
                format!("{bytes} of {} bytes are missing", known.size)
            }
            // Its size is not known, or nothing was left by it although the end was not reached.
            _ => "an unknown number of bytes is missing".to_owned(),
        };
        let name = known.stem.clone().unwrap_or_else(|| self.path.display().to_string());
        say(&format!("gap: {name} {what}: {missing}"));
    }

    /// Deletes what has been shipped, once that is written down or cannot be for lack of room.
    fn sweep(&mut self) {
        let done: HashSet<SegmentId> = self
            .ledger
            .record
            .segments
            .iter()
            .filter(|k| k.done && !k.lost)
            .map(|k| k.id.clone())
            .collect();
        let shipped = |id: &SegmentId, file: &Found| file.stem.is_some() && done.contains(id);
        if self.shipped == Shipped::Keep || !self.found.iter().any(|(id, f)| shipped(id, f)) {
            return;
        }
        self.ledger.save();
        // On a full disk it is the deleting that makes room for the cursor. A crash in between costs a false word about
        // a segment that is gone, no line.
        if self.ledger.unsaved && !self.ledger.disk_full {
            return;
        }
        self.found.retain(|(id, file)| {
            if !shipped(id, file) {
                return true;
            }
            if let Err(error) = std::fs::remove_file(&file.path)
                && error.kind() != io::ErrorKind::NotFound
            {
                say(&format!("delete {}: {error}", file.path.display()));
                return true;
            }
            false
        });
        self.ledger.save();
    }

    /// The oldest segment that has not been shipped completely.
    pub(crate) fn next(&self) -> Option<(Known, Found)> {
        self.found.iter().find_map(|(id, file)| {
            let known = self.ledger.record.segments.iter().find(|k| k.id == *id && !k.done)?;
            Some((known.clone(), file.clone()))
        })
    }

    /// The segments that have not been shipped, with their sizes.
    pub(crate) fn unshipped(&self) -> HashMap<SegmentId, u64> {
        let undone =
            |id: &SegmentId| self.ledger.record.segments.iter().any(|k| k.id == *id && !k.done);
        self.found
            .iter()
            .filter(|(id, _)| undone(id))
            .map(|(id, file)| (id.clone(), file.size))
            .collect()
    }

    /// Whether `id` is the segment that is being written.
    pub(crate) fn is_current(&self, id: &SegmentId) -> bool {
        self.found.iter().any(|(found, file)| found == id && file.stem.is_none())
    }

    /// A segment's name for messages.
    pub(crate) fn name(&self, id: &SegmentId) -> String {
        let known = self.ledger.record.segments.iter().find(|k| k.id == *id);
        match known.and_then(|k| k.stem.clone()) {
            Some(stem) => self.path.with_file_name(stem).display().to_string(),
            None => self.path.display().to_string(),
        }
    }

    /// Bytes that are not acknowledged; `open` of the segment that is being read.
    pub(crate) fn measure_lag(&self, open: Option<(&SegmentId, u64)>) {
        let lag = self.found.iter().filter_map(|(id, file)| {
            let known = self.ledger.record.segments.iter().find(|k| k.id == *id && !k.done)?;
            Some(match open {
                Some((open, left)) if open == id => left,
                // Bytes on disk less bytes of content would be nothing long before all is shipped.
                _ if file.form != Form::Plain => file.size,
                _ => file.size.saturating_sub(known.offset),
            })
        });
        self.counters.lag_bytes.store(lag.sum(), Ordering::Relaxed);
    }

    /// All of `id` is acknowledged, and nothing will be added to it.
    pub(crate) fn finish(&mut self, id: &SegmentId) {
        if let Some(known) = self.ledger.revise(id) {
            known.done = true;
            add(&self.counters.segments, 1);
        }
    }

    /// The rest of `id` cannot be read.
    pub(crate) fn lose(&mut self, id: &SegmentId, why: &io::Error) {
        if let Some(known) = self.ledger.revise(id) {
            known.done = true;
            known.lost = true;
            let known = known.clone();
            self.gap(&known, &format!("cannot be read ({why})"));
        }
    }

    /// `id` no longer begins with what was shipped of it: it is another segment under the same identity.
    pub(crate) fn changed(&mut self, id: &SegmentId) {
        say(&format!(
            "{}: it no longer begins with what was shipped of it; it is shipped anew",
            self.name(id)
        ));
        if let Some(known) = self.ledger.revise(id) {
            known.generation += 1;
            known.offset = 0;
            known.crc = 0;
        }
    }
}
