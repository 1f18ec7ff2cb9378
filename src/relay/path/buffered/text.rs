//! The text work of one relay: the filter, and whether it is at work. Memory pressure switches it off and on in
//! mid-stream.

use std::time::{Instant, SystemTime};

use crate::relay::flow::TextSwitch;
use crate::relay::route::TextWork;
use crate::text::{Arrival, Filter, Progress};

/// The text work of one relay.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) filter: Filter,
    started: Instant,
    /// There is nothing to switch off: to count lines changes no byte.
    pub(super) only_counts: bool,
    pub(super) mode: Mode,
    /// When the bytes in `input` came.
    pub(super) arrival: Arrival,
}

/// Whether the filter is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    On,
    /// Until it is neutral.
    Settling,
    Off,
    /// Until a line ends: where in a line or sequence the stream is now is not known.
    Joining,
}

impl Text {
    pub(super) fn new(work: &TextWork) -> Text {
        Text {
            filter: Filter::new(&work.modes),
            started: work.started,
            only_counts: work.modes.is_default(),
            mode: Mode::On,
            arrival: Arrival::default(),
        }
    }

    /// Switches the filter off where it is neutral, or on.
    pub(super) fn want(&mut self, wanted: TextSwitch) {
        if self.only_counts {
            return;
        }
        self.mode = match (wanted, self.mode) {
            (TextSwitch::Off, Mode::On) => Mode::Settling,
            (TextSwitch::On, Mode::Off) => {
                self.filter.rejoin();
                Mode::Joining
            }
            (TextSwitch::On, Mode::Settling) => Mode::On,
            (TextSwitch::Off, Mode::Joining) => Mode::Off,
            (_, mode) => mode,
        };
    }

    /// Moves bytes from one buffer to the other as the mode says, as far as one mode reaches.
    pub(super) fn work(&mut self, bytes: &[u8], output: &mut [u8]) -> Progress {
        match self.mode {
            Mode::On => self.filter.filter(bytes, output, self.arrival),
            Mode::Settling => {
                let done = self.filter.settle(bytes, output, self.arrival);
                if self.filter.is_neutral() {
                    self.mode = Mode::Off;
                }
                done
            }
            Mode::Off | Mode::Joining => {
                let end = bytes.iter().position(|byte| *byte == b'\n');
                let reach = end.unwrap_or(bytes.len()).min(output.len());
                output[..reach].copy_from_slice(&bytes[..reach]);
                if end == Some(reach) {
                    // The line feed is the filter's: it then knows that a line starts.
                    self.mode = Mode::On;
                }
                Progress { consumed: reach, produced: reach }
            }
        }
    }

    /// Reads both clocks, once for each chunk.
    pub(super) fn arrive(&mut self) {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.arrival = Arrival { wall, elapsed: self.started.elapsed() };
    }
}
