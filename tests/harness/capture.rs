//! Taking in what a program writes, in a thread of its own: all of it hashed, the beginning of it kept as text.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::patience::Patience;
use crate::payload::{CHUNK, Digest, Hasher};
use crate::proc;

/// How much is kept to be looked at. Payload is judged by its digest.
const KEPT: usize = 1 << 20;

/// What arrived.
#[derive(Clone)]
pub(crate) struct Captured {
    pub(crate) digest: Digest,
    /// The first bytes, at most [`KEPT`].
    pub(crate) head: Vec<u8>,
}

impl Captured {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.head).into_owned()
    }
}

impl Default for Captured {
    fn default() -> Self {
        Captured { digest: Hasher::default().digest(), head: Vec::new() }
    }
}

impl std::fmt::Display for Captured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.head[..self.head.len().min(400)];
        write!(f, "{} \"{}\"", self.digest, shown.escape_ascii())
    }
}

/// A capture under way.
pub(crate) struct Capture {
    state: Arc<Mutex<(Hasher, Vec<u8>)>>,
    ended: Receiver<io::Result<()>>,
}

impl Capture {
    pub(crate) fn of(from: impl Into<OwnedFd>) -> Capture {
        let mut from = File::from(from.into());
        let state = Arc::new(Mutex::new((Hasher::default(), Vec::new())));
        let (end, ended) = sync_channel(1);
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            let mut chunk = vec![0; CHUNK];
            let result = loop {
                match from.read(&mut chunk) {
                    Ok(0) => break Ok(()),
                    // The leader of a pty gives EIO where a pipe gives its end.
                    Err(error) if error.raw_os_error() == Some(nix::libc::EIO) => break Ok(()),
                    Err(error) => break Err(error),
                    Ok(length) => {
                        let mut state = shared.lock().expect("captured bytes");
                        state.0.update(&chunk[..length]);
                        let room = KEPT - state.1.len();
                        state.1.extend_from_slice(&chunk[..length.min(room)]);
                    }
                }
            };
            let _ = end.send(result);
        });
        Capture { state, ended }
    }

    pub(crate) fn so_far(&self) -> Captured {
        let state = self.state.lock().expect("captured bytes");
        Captured { digest: state.0.digest(), head: state.1.clone() }
    }

    /// Everything, once the writers are gone; nothing if they are not by `deadline`, and get nowhere.
    pub(crate) fn finish(&self, deadline: Instant) -> Option<Captured> {
        let mut patience = Patience::until(deadline);
        loop {
            match self.ended.recv_timeout(Duration::from_millis(100)) {
                Ok(result) => result.expect("reading a program's output"),
                // The end was taken note of before.
                Err(RecvTimeoutError::Disconnected) => {}
                Err(RecvTimeoutError::Timeout) if patience.lasts() => continue,
                Err(RecvTimeoutError::Timeout) => return None,
            }
            return Some(self.so_far());
        }
    }

    /// Waits until the beginning holds `text` at least `times` times.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str, times: usize) {
        let wanted = format!("{times} × {text:?} in the output");
        proc::until_or(
            &wanted,
            || (self.so_far().text().matches(text).count() >= times).then_some(()),
            || self.so_far().to_string(),
        );
    }

    /// Waits until so many bytes have arrived.
    #[track_caller]
    pub(crate) fn wait_for_bytes(&self, bytes: u64) {
        proc::until_or(
            &format!("{bytes} bytes of output"),
            || (self.so_far().digest.bytes >= bytes).then_some(()),
            || self.so_far().to_string(),
        );
    }
}

/// The digest of all that is left in a reader.
#[track_caller]
pub(crate) fn digest(from: &mut impl Read) -> Digest {
    let mut hasher = Hasher::default();
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk).expect("reading payload") {
            0 => return hasher.digest(),
            length => hasher.update(&chunk[..length]),
        }
    }
}

/// Bytes that lie unread in a pipe, socket or terminal.
#[track_caller]
pub(crate) fn waiting_bytes(fd: &OwnedFd) -> usize {
    rustix::io::ioctl_fionread(fd).expect("FIONREAD") as usize
}
