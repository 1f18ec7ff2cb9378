//! What the user is told of a collector: once when it is away, and once when it is back.

use nix::errno::Errno;

use super::intake::Intake;
use crate::error::Error;
use crate::notice;

/// What was told last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Presence {
    #[default]
    Assumed,
    Away,
}

impl Presence {
    /// It cannot be connected to.
    pub(super) fn is_absent(&mut self, errno: Errno, intake: &Intake) {
        // A full backlog: somebody listens, and has much to do.
        if errno != Errno::EAGAIN {
            self.tell("connect to", errno, intake);
        }
    }

    /// A connection is lost.
    pub(super) fn has_gone(&mut self, errno: Errno, intake: &Intake) {
        self.tell("write to", errno, intake);
    }

    fn tell(&mut self, tried: &str, errno: Errno, intake: &Intake) {
        if std::mem::replace(self, Presence::Away) == Presence::Assumed {
            let error = Error::os(format!("{tried} {}", intake.name), errno);
            notice::notice(intake.verbosity, &format!("{error}; it is tried again"));
        }
    }

    /// It is connected.
    pub(super) fn is_back(&mut self, intake: &Intake) {
        if std::mem::replace(self, Presence::Assumed) == Presence::Away {
            notice::notice(intake.verbosity, &format!("{}: connected", intake.name));
        }
    }
}
