//! Tells when a path no longer names the file that is open, as after logrotate(8).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::poll::PollFlags;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// A watched name in a directory.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: Inotify,
    name: OsString,
}

impl Watch {
    /// # Errors
    /// What inotify(7) says.
    pub(super) fn new(directory: &Path, name: &OsStr) -> io::Result<Watch> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let events = AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_CREATE;
        inotify.add_watch(directory, events)?;
        Ok(Watch { inotify, name: name.to_owned() })
    }

    pub(super) fn wanted(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        Some((self.inotify.as_fd(), PollFlags::POLLIN))
    }

    /// Whether anything has happened to the name since this was last asked. An event without a name says that the
    /// kernel has forgotten some.
    pub(super) fn has_changed(&self) -> bool {
        let mut changed = false;
        while let Ok(events) = self.inotify.read_events() {
            changed |= events
                .iter()
                .any(|event| event.name.as_ref().is_none_or(|name| *name == self.name));
        }
        changed
    }
}
