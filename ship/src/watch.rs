//! Waiting until something happens in a directory.

use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A directory that is watched by inotify, as far as the system allows.
pub(crate) struct DirectoryWatch {
    inotify: Option<Inotify>,
}

/// The borrow keeps the descriptor open for as long as it is registered.
struct Fd<'a>(&'a Inotify);

impl AsRawFd for Fd<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl DirectoryWatch {
    /// Watches `directory`. Where that fails, the caller's own timer has to do.
    pub(crate) fn new(directory: &Path) -> Self {
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_DELETE;
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .and_then(|inotify| inotify.add_watch(directory, flags).map(|_| inotify))
            .ok();
        DirectoryWatch { inotify }
    }

    /// Returns once something has happened since the last call.
    pub(crate) async fn changed(&self) {
        if let Some(inotify) = &self.inotify
            && let Some(fd) = register(inotify)
            && fd.readable().await.is_ok()
        {
            while inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
            return;
        }
        std::future::pending().await
    }
}

#[expect(deprecated, reason = "its successor is an unsafe function; `Fd` borrows what it names")]
fn register(inotify: &Inotify) -> Option<AsyncFd<Fd<'_>>> {
    AsyncFd::with_interest(Fd(inotify), Interest::READABLE).ok()
}
