//! A copy in a file that others may write to as well: appended to, or inherited.
//!
//! Only write(2) takes the lock on a position that is shared. Whole lines go out as long as the rest of the last one is
//! already on its way, so two programs that append to one file tear a line only where its writer pauses in the middle of it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::intake::{Intake, Taken};
use super::segments::directory::{Directory, followed};
use super::segments::watch::Watch;
use super::writer::Work;
use crate::config::Moved;
use crate::error::Error;

/// Size of the buffer, in bytes.
const BUFFER: usize = 256 << 10;

/// How long the beginning of a line waits for its rest: as long as in a file that stdout itself goes into.
const REST: Duration = Duration::from_millis(200);

/// Who is woken so late is on a busy machine, where the rest may be late too: then it is waited for so many times.
const LATE: Duration = Duration::from_millis(20);
const TIMES: u32 = 5;

/// Such a copy.
#[derive(Debug)]
pub(crate) struct SharedFile {
    file: File,
    /// Where it is opened anew once others have moved it.
    name: Option<(Directory, Watch)>,
}

impl SharedFile {
    /// Of a file that was inherited.
    pub(crate) fn new(file: File) -> SharedFile {
        SharedFile { file, name: None }
    }

    /// Of `path`, which `file` is opened from to be appended to.
    ///
    /// # Errors
    /// If the path cannot be watched.
    pub(crate) fn at(path: &Path, file: File, moved: Moved) -> io::Result<SharedFile> {
        let name = match moved {
            Moved::Followed => None,
            Moved::Reopened => {
                let directory = Directory::of(&followed(path)?);
                let watch = Watch::new(&directory)?;
                Some((directory, watch))
            }
        };
        Ok(SharedFile { file, name })
    }
}

impl Work for SharedFile {
    fn run(mut self: Box<Self>, intake: Intake) -> Result<(), Error> {
        let tried = |error: io::Error| Error::os(format!("write to {}", intake.name), error);
        let mut buffer = vec![0; BUFFER];
        let mut filled = 0;
        while !intake.stop.is_asked() {
            self.follow_name(&intake)?;
            match intake.read(&mut buffer[filled..]).map_err(|errno| tried(errno.into()))? {
                Taken::Nothing => {
                    let moved = self.name.as_ref().and_then(|(_, watch)| watch.wanted());
                    intake.wait([intake.input(), moved], None);
                }
                Taken::Bytes(len) => {
                    filled += len;
                    let end = due(&buffer[..filled], filled == BUFFER, || rest_comes(&intake));
                    self.write(&buffer[..end], &intake).map_err(|errno| tried(errno.into()))?;
                    buffer.copy_within(end..filled, 0);
                    filled -= end;
                }
                Taken::End => {
                    self.write(&buffer[..filled], &intake).map_err(|errno| tried(errno.into()))?;
                    break;
                }
            }
        }
        let closed = nix::unistd::close(OwnedFd::from(self.file));
        closed.map_err(|errno| Error::os(format!("close {}", intake.name), errno))
    }
}

impl SharedFile {
    /// Goes on in the file that the path names now, if others have moved the one before.
    fn follow_name(&mut self, intake: &Intake) -> Result<(), Error> {
        let Some((directory, watch)) = &self.name else { return Ok(()) };
        if !watch.has_changed() || directory.names(&self.file) {
            return Ok(());
        }
        let next = directory.open_after(&self.file);
        let next = next.map_err(|error| Error::os(format!("open {}", intake.name), error))?;
        let closed = nix::unistd::close(std::mem::replace(&mut self.file, next));
        closed.map_err(|errno| Error::os(format!("close {}", intake.name), errno))
    }

    fn write(&self, mut bytes: &[u8], intake: &Intake) -> Result<(), Errno> {
        while !bytes.is_empty() {
            match nix::unistd::write(&self.file, bytes) {
                Err(Errno::EINTR) => {}
                Ok(0) => return Err(Errno::ENOSPC),
                Ok(written) => {
                    intake.beyond.wrote(written as u64);
                    bytes = &bytes[written..];
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

/// Whether more comes at once. The rest of a line may still be on its way through the pipes before this one.
fn rest_comes(intake: &Intake) -> bool {
    for _ in 0..TIMES {
        let until = Instant::now() + REST;
        let [found] = intake.wait([intake.input()], Some(until));
        if !found.is_empty() || intake.stop.is_asked() {
            return found.contains(PollFlags::POLLIN);
        }
        if Instant::now() < until + LATE {
            return false;
        }
    }
    false
}

/// How much goes out now: whole lines, if the rest of the last one comes. What fills the buffer came faster than it was
/// taken, so there is more.
fn due(bytes: &[u8], is_full: bool, rest_comes: impl FnOnce() -> bool) -> usize {
    let more = bytes.last() != Some(&b'\n') && (is_full || rest_comes());
    match bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(last) if more => last + 1,
        // Its beginning goes out only if nothing comes, or it is longer than can be kept.
        None if more && !is_full => 0,
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_out_whole_while_more_is_there() {
        assert_eq!(due(b"one\ntwo", false, || true), 4);
        assert_eq!(due(b"one\ntwo", false, || false), 7);
        assert_eq!(due(b"one", false, || true), 0);
        assert_eq!(due(b"one", false, || false), 3);
        let nobody_asks = || panic!("there is nothing to wait for");
        assert_eq!(due(b"one\n", false, nobody_asks), 4);
        assert_eq!(due(b"one\ntwo", true, nobody_asks), 4);
        assert_eq!(due(b"one", true, nobody_asks), 3);
    }
}
