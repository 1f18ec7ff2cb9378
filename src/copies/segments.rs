//! A copy in a file that is finished and begun anew: segments.
//!
//! Bytes are spliced into the current file until it has its size or its age. From there to the end of a line they are
//! read and written, so that what follows the newline goes into the next segment and nothing has to be moved on disk.
//! Every byte is written once, to where it stays: whenever the program dies, the segments one behind the other are a
//! prefix of the copy.

mod compress;
pub(super) mod current;
mod cut;
pub(super) mod directory;
pub(super) mod names;
pub(super) mod watch;

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Instant;

use nix::poll::PollFlags;

use super::intake::Intake;
use super::writer::Work;
use crate::config::{Moved, Rotation, TeeOpen};
use crate::error::Error;
use crate::notice;
use compress::Compressor;
use current::{Current, Step};
use cut::Cut;
use directory::followed;
use watch::Watch;

/// A copy in a regular file of our own.
#[derive(Debug)]
pub(crate) struct Segments {
    current: Current,
    existing: TeeOpen,
    rotation: Option<Rotation>,
    watch: Option<Watch>,
    compressor: Option<Compressor>,
    /// Bytes of the finished segments when they were last counted.
    finished: u64,
    /// One that should be gone cannot be removed. That has been said.
    stuck: bool,
    /// That a line was cut has been said.
    said: bool,
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
        if rotation.is_some() {
            file.try_lock().map_err(|error| match error {
                TryLockError::WouldBlock => io::Error::other("another nproxy writes its segments"),
                TryLockError::Error(error) => error,
            })?;
        }
        let (size, every) = rotation.as_ref().map_or((None, None), |each| (each.size, each.every));
        let current = Current::new(&followed(path)?, file, size, every);
        let watch = match moved {
            Moved::Reopened => Some(Watch::new(current.directory())?),
            Moved::Followed => None,
        };
        let compression = rotation.as_ref().and_then(|rotation| rotation.compress);
        Ok(Segments {
            current,
            existing,
            compressor: compression.map(Compressor::new),
            rotation,
            watch,
            finished: 0,
            stuck: false,
            said: false,
        })
    }

    /// The run has begun: an existing file is emptied, finished or gone on with.
    fn begin(&mut self, intake: &Intake) -> Result<(), Error> {
        let current = &mut self.current;
        let metadata = current.file().metadata();
        let size = metadata.map_err(|error| current.failed("examine", error))?.len();
        match (self.existing, &self.rotation) {
            (TeeOpen::Append, _) => current.append()?,
            (TeeOpen::Truncate, None) => {
                current.file().set_len(0).map_err(|error| current.failed("empty", error))?;
            }
            (TeeOpen::Truncate, Some(_)) if size > 0 => {
                if let Step::Full(errno) = current.rotate(Cut::AtLineEnd)? {
                    return Err(current.failed("finish", errno));
                }
                self.lock();
            }
            (TeeOpen::Truncate, Some(_)) => {}
        }
        self.tidy(intake);
        Ok(())
    }

    /// Keeps others from writing segments to a new file. They have had no time to, but for one who writes there by mistake.
    fn lock(&self) {
        if self.rotation.is_some() {
            let _ = self.current.file().try_lock();
        }
    }

    /// Removes finished segments that are too many, and has the others compressed.
    fn tidy(&mut self, intake: &Intake) {
        self.remove_surplus();
        if let Some(compressor) = &mut self.compressor {
            if !compressor.is_busy() {
                self.current.directory.remove_unfinished();
            }
            if let Err(error) = compressor.advance(&self.current.directory) {
                notice::notice(intake.verbosity, &format!("{}: {error}", intake.name));
            }
        }
    }

    fn remove_surplus(&mut self) {
        let Some(Rotation { keep, total, .. }) = self.rotation else { return };
        if keep.is_none() && total.is_none() {
            return;
        }
        let directory = &self.current.directory;
        let all = directory.list().unwrap_or_default();
        self.finished = all.iter().map(|finished| finished.size).sum();
        let was_stuck = std::mem::replace(&mut self.stuck, false);
        for finished in &names::surplus(&all, self.current.size(), keep, total) {
            match directory.remove(finished) {
                Ok(()) => self.finished -= finished.size,
                Err(error) => {
                    if !was_stuck && !self.stuck {
                        notice::error(&self.current.failed("remove a segment of", error));
                    }
                    self.stuck = true;
                }
            }
        }
    }

    /// Does the next thing that can be done. What comes of it is the copy's, but for its end.
    fn step(&mut self, intake: &Intake) -> Result<Step, Error> {
        let step = self.current.step(intake, u64::MAX)?;
        match step {
            Step::Wrote(bytes) => {
                intake.beyond.wrote(bytes);
                let total = self.rotation.as_ref().and_then(|rotation| rotation.total);
                let all = self.finished + self.current.size();
                // What cannot be removed is tried again once the next one is finished.
                let removable = self.finished > 0 && !self.stuck;
                if removable && total.is_some_and(|total| all > total) {
                    self.tidy(intake);
                }
            }
            Step::Finished(how, _) => {
                self.lock();
                if how == Cut::InLine && !std::mem::replace(&mut self.said, true) {
                    let text = "a line longer than a segment was cut, and others may be";
                    notice::notice(intake.verbosity, &format!("{}: {text}", intake.name));
                }
                self.tidy(intake);
            }
            Step::Full(errno) => return Err(self.current.failed("write to", errno)),
            Step::Nothing | Step::End => {}
        }
        Ok(step)
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
            if let Err(error) = compressor.collect(&self.current.directory) {
                notice::notice(intake.verbosity, &format!("{}: {error}", intake.name));
            }
            if !compressor.is_busy() {
                self.tidy(intake);
            }
        }
        let changed = changed.contains(PollFlags::POLLIN)
            && self.watch.as_ref().is_some_and(Watch::has_changed);
        if changed && !self.current.directory.names(self.current.file()) {
            self.current.open_next()?;
            self.lock();
        }
        Ok(())
    }
}

impl Work for Segments {
    fn run(mut self: Box<Self>, intake: Intake) -> Result<(), Error> {
        self.begin(&intake)?;
        while !intake.stop.is_asked() {
            match self.step(&intake)? {
                Step::End => break,
                Step::Wrote(_) | Step::Finished(..) | Step::Full(_)
                    if self.watch.is_none() && self.compressor.is_none() => {}
                Step::Wrote(_) | Step::Finished(..) | Step::Full(_) => {
                    self.wait(false, Some(Instant::now()), &intake)?
                }
                Step::Nothing => {
                    // One that is over waits for the end of a line.
                    let due = self.current.deadline().filter(|at| *at > Instant::now());
                    self.wait(true, due, &intake)?;
                }
            }
        }
        self.current.close()?;
        while !intake.stop.is_asked() && self.compressor.as_ref().is_some_and(Compressor::is_busy) {
            self.wait(false, None, &intake)?;
        }
        Ok(())
    }
}
