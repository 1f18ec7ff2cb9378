//! Text modes off and on again in mid-stream.
//!
//! Off: the filter runs until it is neutral, so nothing is torn, and what comes after passes untouched; as
//! soon as the buffers are empty it does so without being copied, if both ends can be spliced. On: once the
//! splice is back, the filter joins in again without knowing where in a line it is. At every moment one
//! path alone reads the source, and it hands over only when it holds nothing.

use std::io;

use super::{Direct, Path};
use crate::relay::endpoint::Kind;
use crate::relay::flow::TextSwitch;
use crate::relay::link::Link;
use crate::ring::{Engine, Operation, Ring};

/// Where a relay with text modes stands.
#[derive(Debug)]
pub(in crate::relay) struct Switch {
    wanted: TextSwitch,
    /// The operation that reads the source has been asked back.
    recalled: bool,
    /// The fixed-buffer path while bytes are spliced past it.
    parked: Option<Path>,
    /// The kernel refuses to splice here (a seccomp filter, say): text modes are off and bytes go through the buffers all the same.
    refused: bool,
}

/// Whether paths are being exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) enum Handover {
    /// The path in use may read on.
    None,
    /// It takes nothing more until it holds nothing.
    Draining,
}

impl Switch {
    pub(in crate::relay) fn new() -> Switch {
        Switch { wanted: TextSwitch::On, recalled: false, parked: None, refused: false }
    }

    /// An operation has completed: another may be recalled.
    pub(in crate::relay) fn completed(&mut self) {
        self.recalled = false;
    }

    /// Says what is wanted of text modes from here on.
    pub(in crate::relay) fn want(&mut self, wanted: TextSwitch, path: &mut Path) {
        self.wanted = wanted;
        if let Path::Buffered(path) = path {
            path.want(wanted);
        }
    }

    /// Takes the next step towards the path that is wanted.
    pub(in crate::relay) fn step(
        &mut self,
        path: &mut Path,
        link: &Link,
        ring: &mut Ring,
    ) -> io::Result<Handover> {
        let (idle, reading, operation) = match (&*path, self.wanted) {
            (Path::Buffered(path), TextSwitch::Off)
                if path.is_raw() && !self.refused && can_splice(link, ring) =>
            {
                (path.is_idle(), path.is_armed(), Operation::Read)
            }
            (Path::Direct(path), TextSwitch::On) if self.parked.is_some() => {
                (!path.is_armed(), path.is_armed(), Operation::Splice)
            }
            _ => return Ok(Handover::None),
        };
        if idle {
            self.exchange(path);
            return Ok(Handover::None);
        }
        if reading && !self.recalled {
            self.recalled = true;
            ring.cancel(link.token(operation))?;
        }
        Ok(Handover::Draining)
    }

    /// The splice that took the place of the buffers is refused: they are back, and stay. Whether that was so.
    pub(in crate::relay) fn refused(&mut self, path: &mut Path) -> bool {
        let Some(buffered) = self.parked.take() else { return false };
        *path = buffered;
        if let Path::Buffered(path) = path {
            path.want(self.wanted);
        }
        self.refused = true;
        true
    }

    /// Lines that had ended when bytes began to be spliced past text modes.
    pub(in crate::relay) fn lines(&self) -> Option<u64> {
        match &self.parked {
            Some(Path::Buffered(path)) => path.lines(),
            _ => None,
        }
    }

    fn exchange(&mut self, path: &mut Path) {
        match self.parked.take() {
            None => {
                let buffered = std::mem::replace(path, Path::Direct(Direct::new()));
                self.parked = Some(buffered);
            }
            Some(buffered) => {
                *path = buffered;
                if let Path::Buffered(path) = path {
                    path.want(TextSwitch::On);
                }
            }
        }
    }
}

/// Only between ends that are known not to refuse it.
fn can_splice(link: &Link, ring: &Ring) -> bool {
    let (Some(source), Some(sink)) = (&link.source, &link.sink) else { return false };
    match (source.kind(), sink.kind()) {
        (Kind::Pipe, Kind::Pipe) => true,
        (Kind::Pipe, Kind::Null) => !sink.appends(),
        // One that blocks would be waited for with the command's own pipe locked: see [`Path::choose`].
        (Kind::Pipe, Kind::Socket) => ring.engine() == Engine::Uring && sink.is_nonblocking(),
        _ => false,
    }
}
