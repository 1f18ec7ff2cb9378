//! Text modes off and on again in mid-stream.
//!
//! Off: the filter runs until it is neutral, so nothing is torn, and what comes after passes untouched; as
//! soon as the buffers are empty it does so without being copied, if both ends can be spliced. On: once the
//! splice is back, the filter joins in again without knowing where in a line it is. At every moment one
//! path alone reads the source, and it hands over only when it holds nothing.

use std::io;

use super::{Kind, Path, Relay};
use crate::memory::policy::TextModes;
use crate::relay::splice::Direct;
use crate::ring::{Engine, Operation, Ring};

/// Where a relay with text modes stands.
#[derive(Debug)]
pub(super) struct Switch {
    wanted: TextModes,
    /// The operation that reads the source has been asked back.
    recalled: bool,
    /// The fixed-buffer path while bytes are spliced past it.
    parked: Option<Path>,
}

/// Whether paths are being exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handover {
    /// The path in use may read on.
    None,
    /// It takes nothing more until it holds nothing.
    Draining,
}

impl Switch {
    pub(super) fn new() -> Switch {
        Switch { wanted: TextModes::AsAsked, recalled: false, parked: None }
    }

    /// An operation has completed: another may be recalled.
    pub(super) fn completed(&mut self) {
        self.recalled = false;
    }
}

impl Relay {
    /// Switches text modes off or on. It takes effect where nothing is torn. A relay without text modes
    /// has nothing to switch.
    pub fn set_text(&mut self, wanted: TextModes) {
        self.switch.wanted = wanted;
        if let Path::Buffered(path) = &mut self.path {
            path.want(wanted);
        }
    }

    /// Takes the next step towards the path that is wanted.
    pub(super) fn hand_over(&mut self, ring: &mut Ring) -> io::Result<Handover> {
        let (idle, reading, operation) = match (&self.path, self.switch.wanted) {
            (Path::Buffered(path), TextModes::Off) if path.is_raw() && self.can_splice(ring) => {
                (path.is_idle(), path.is_armed(), Operation::Read)
            }
            (Path::Direct(path), TextModes::AsAsked) if self.switch.parked.is_some() => {
                (!path.is_armed(), path.is_armed(), Operation::Splice)
            }
            _ => return Ok(Handover::None),
        };
        if idle {
            self.exchange();
            return Ok(Handover::None);
        }
        if reading && !self.switch.recalled {
            self.switch.recalled = true;
            ring.cancel(self.link.token(operation))?;
        }
        Ok(Handover::Draining)
    }

    fn exchange(&mut self) {
        match self.switch.parked.take() {
            None => {
                let buffered = std::mem::replace(&mut self.path, Path::Direct(Direct::new()));
                self.switch.parked = Some(buffered);
            }
            Some(buffered) => {
                self.path = buffered;
                if let Path::Buffered(path) = &mut self.path {
                    path.want(TextModes::AsAsked);
                }
            }
        }
    }

    /// Only between ends that are known not to refuse it.
    fn can_splice(&self, ring: &Ring) -> bool {
        let (Some(source), Some(sink)) = (&self.link.source, &self.link.sink) else { return false };
        match (source.kind(), sink.kind()) {
            (Kind::Pipe, Kind::Pipe | Kind::Null) => true,
            (Kind::Pipe, Kind::Socket) => ring.engine() == Engine::Uring,
            _ => false,
        }
    }
}
