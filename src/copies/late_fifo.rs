//! A copy in a FIFO that nobody has opened for reading yet, and that must hold up nothing (`full=drop`).
//!
//! What comes until then finds no room and is dropped, as it is for a collector that is absent. A reader that leaves ends
//! the copy, as everywhere.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::errno::Errno;

use super::carrier::{Carrier, Over};
use super::intake::Intake;
use super::pause::Pause;
use super::writer::Work;
use crate::error::Error;
use crate::notice;

/// Such a copy.
#[derive(Debug)]
pub(crate) struct LateFifo {
    path: PathBuf,
}

impl LateFifo {
    pub(crate) fn new(path: PathBuf) -> LateFifo {
        LateFifo { path }
    }

    /// Opens the FIFO once it has a reader. `None` if the thread is asked to leave first, or nothing has come and nothing
    /// will.
    fn open(&self, intake: &Intake) -> Result<Option<File>, Error> {
        let text = format!(
            "{}: no reader has opened it; until then what its pipes cannot hold is dropped",
            intake.name
        );
        notice::notice(intake.verbosity, &text);
        let mut pause = Pause::new();
        while !intake.stop.is_asked() && !intake.is_over() {
            let mut options = File::options();
            options.write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
            match options.open(&self.path) {
                Ok(fifo) => return Ok(Some(fifo)),
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                    pause.wait_unless(intake, || intake.is_over());
                }
                Err(error) => return Err(Error::os(format!("open {}", intake.name), error)),
            }
        }
        Ok(None)
    }
}

impl Work for LateFifo {
    fn run(self: Box<Self>, intake: Intake) -> Result<(), Error> {
        let Some(fifo) = self.open(&intake)? else { return Ok(()) };
        match Carrier::default().feed(&intake, fifo.as_fd()) {
            Ok(Over::Input | Over::Asked) => Ok(()),
            Ok(Over::Sink) => Err(Errno::EPIPE),
            Err(errno) => Err(errno),
        }
        .map_err(|errno| Error::os(format!("write to {}", intake.name), errno))
    }
}
