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
    /// When the last bytes in `input` came.
    pub(super) arrival: Arrival,
    /// How many bytes in `input` were there before those, the beginning of a line, and when the first of them came.
    early: Option<(usize, Arrival)>,
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
            early: None,
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
        let Some((held, came)) = self.early.take() else {
            return self.step(bytes, output, self.arrival);
        };
        let (first, rest) = bytes.split_at(held.min(bytes.len()));
        let mut done = self.step(first, output, came);
        if done.consumed < held {
            self.early = Some((held - done.consumed, came));
        }
        if done.consumed == first.len() && !rest.is_empty() {
            let more = self.step(rest, &mut output[done.produced..], self.arrival);
            done.consumed += more.consumed;
            done.produced += more.produced;
        }
        done
    }

    /// The same of bytes that came at the same time.
    fn step(&mut self, bytes: &[u8], output: &mut [u8], arrival: Arrival) -> Progress {
        match self.mode {
            Mode::On => self.filter.filter(bytes, output, arrival),
            Mode::Settling => {
                let done = self.filter.settle(bytes, output, arrival);
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

    /// Bytes pass by that no mode works on.
    pub(super) fn forget_early(&mut self) {
        self.early = None;
    }

    /// Bytes have come behind `held` others. Reads both clocks, once for each chunk.
    pub(super) fn arrive(&mut self, held: usize) {
        if held > 0 {
            self.early.get_or_insert((held, self.arrival));
        }
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.arrival = Arrival { wall, elapsed: self.started.elapsed() };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::text::Modes;
    use crate::text::transform::{LineNumbers, Prefix, StampMode, Zone};

    /// What is put out of `bytes`, of which so many were held back from before the last arrival, with so much room.
    fn stamped(bytes: &[u8], held: usize, room: usize) -> String {
        let prefix =
            Prefix::new(StampMode::Elapsed, Some("%S> "), Zone::default(), LineNumbers::Off);
        let modes = Modes { transform: Some(prefix.expect("a format")), ..Modes::default() };
        let mut text = Text::new(&TextWork { modes, started: Instant::now() });
        text.arrival.elapsed = Duration::from_secs(3);
        text.arrive(held);
        text.arrival.elapsed = Duration::from_secs(5);
        let (mut rest, mut out, mut output) = (bytes, Vec::new(), vec![0; room]);
        while !rest.is_empty() {
            let done = text.work(rest, &mut output);
            out.extend_from_slice(&output[..done.produced]);
            rest = &rest[done.consumed..];
        }
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_line_that_was_held_has_the_time_of_its_first_byte() {
        for room in 1..40 {
            assert_eq!(stamped(b"build done\nnext\n", 5, room), "03> build done\n05> next\n");
            assert_eq!(stamped(b"build done\nnext\n", 0, room), "05> build done\n05> next\n");
            assert_eq!(stamped(b"all held\n", 9, room), "03> all held\n");
        }
    }
}
