//! Tells when a path no longer names the file that is open, as after logrotate(8).

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::PollFlags;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::directory::Directory;

/// A watched name in a directory.
#[derive(Debug)]
pub(in crate::copies) struct Watch {
    inotify: Inotify,
    name: OsString,
}

impl Watch {
    /// Of the current file's name.
    ///
    /// # Errors
    /// What inotify(7) says.
    pub(in crate::copies) fn new(directory: &Directory) -> io::Result<Watch> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let events = AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_CREATE;
        inotify.add_watch(directory.directory(), events)?;
        Ok(Watch { inotify, name: directory.base().to_owned() })
    }

    pub(in crate::copies) fn wanted(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        Some((self.inotify.as_fd(), PollFlags::POLLIN))
    }

    /// Whether anything has happened to the name since this was last asked. An event without a name says that the
    /// kernel has forgotten some.
    pub(in crate::copies) fn has_changed(&self) -> bool {
        let mut changed = false;
        while let Ok(events) = self.inotify.read_events() {
            changed |= events
                .iter()
                .any(|event| event.name.as_ref().is_none_or(|name| *name == self.name));
        }
        changed
    }
}
