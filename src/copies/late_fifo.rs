//! A copy in a FIFO that nobody has opened for reading yet, and that must hold up nothing (`full=drop`).
//!
//! What comes until then finds no room and is dropped, as it is for a collector that is absent. A reader that leaves ends
//! the copy, as everywhere.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::intake::{Intake, Taken};
use super::pause::Pause;
use super::writer::Work;
use crate::error::Error;
use crate::notice;

/// The most that one transfer takes, in bytes.
const TRANSFER: u64 = 1 << 20;

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
        let text =
            format!("{}: no reader has opened it; until then bytes are dropped", intake.name);
        notice::notice(intake.verbosity, &text);
        let mut pause = Pause::new();
        while !intake.stop.is_asked() && !intake.is_over() {
            let mut options = File::options();
            options.write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
            match options.open(&self.path) {
                Ok(fifo) => return Ok(Some(fifo)),
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) => pause.wait(intake),
                Err(error) => return Err(Error::os(format!("open {}", intake.name), error)),
            }
        }
        Ok(None)
    }

    /// Fills the FIFO until there is no more.
    fn feed(fifo: &File, intake: &Intake) -> Result<(), Errno> {
        while !intake.stop.is_asked() {
            match intake.splice(fifo, TRANSFER)? {
                Taken::Bytes(bytes) => intake.beyond.wrote(bytes as u64),
                Taken::End => break,
                Taken::Nothing => {
                    let wanted = match intake.has_bytes() {
                        true => [None, Some((fifo.as_fd(), PollFlags::POLLOUT))],
                        false => [intake.input(), Some((fifo.as_fd(), PollFlags::empty()))],
                    };
                    let [_, found] = intake.wait(wanted, None);
                    if found.contains(PollFlags::POLLERR) {
                        return Err(Errno::EPIPE);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Work for LateFifo {
    fn run(self: Box<Self>, intake: Intake) -> Result<(), Error> {
        let Some(fifo) = self.open(&intake)? else { return Ok(()) };
        LateFifo::feed(&fifo, &intake)
            .map_err(|errno| Error::os(format!("write to {}", intake.name), errno))
    }
}
