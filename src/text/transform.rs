//! Puts a prefix (a timestamp, a label, a line number) before the first byte of each line.
//!
//! Invariants:
//! * The filter holds no line (the relay may, `relay/path/lines.rs`). What has arrived of a line goes out at once, a prompt without a newline included,
//!   and a last line without one is left as it is.
//! * A line starts after LF, and at the start of the stream. CR alone redraws a line and starts none.
//! * The prefix belongs to the line's first byte: it goes out no earlier than that byte has arrived, and
//!   shows the time of that arrival.
//! * Where the chunks are cut and how large the output is changes nothing in what comes out. A prefix that
//!   does not fit is resumed.

mod label;
mod number;
mod stamp;
#[cfg(test)]
mod tests;

use memchr::memchr;

use super::{Arrival, Progress};
use label::Field;
pub use label::{Label, LabelError};
use number::Number;
use stamp::Stamp;
pub use stamp::{FormatError, StampMode, Zone};

/// Whether lines are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LineNumbers {
    /// No numbers.
    #[default]
    Off,
    /// From 1, right-aligned to six columns, then a tab: as `cat -n` has them.
    On,
}

/// A line prefix that is known to be valid, from which any number of streams can start.
#[derive(Clone, Debug)]
pub struct Prefix {
    stamp: Stamp,
    label: Label,
    numbers: LineNumbers,
}

impl Prefix {
    /// `format` is strftime's as `jiff` reads it (`%3f` is milliseconds, `%6f` microseconds) with `%c`, `%x`, `%X` and
    /// `%r` as in the C locale, and with ts(1)'s `%.S`, `%.s` and `%.T`, which have microseconds. An empty one means no
    /// timestamp, `None` the default of `mode`. An elapsed time or a delta is formatted as that much time after midnight;
    /// from 24 hours on the first conversion that shows the hour has the days in front (`1d 02:03:04`).
    ///
    /// # Errors
    /// If `format` has a conversion that does not exist.
    pub fn new(
        mode: StampMode,
        format: Option<&str>,
        zone: Zone,
        numbers: LineNumbers,
    ) -> Result<Self, FormatError> {
        let default = || mode.default_format(&zone);
        let stamp = Stamp::new(mode, format.unwrap_or_else(default), zone.clone())?;
        Ok(Prefix { stamp, label: Label::default(), numbers })
    }

    /// With a label after the timestamp.
    pub fn with_label(self, label: Label) -> Self {
        Prefix { label, ..self }
    }

    /// Says on which machine the lines are made, and by which program: the label may show it.
    pub fn set_origin(&mut self, host: &str, command: &str) {
        self.label.set(Field::Host, host);
        self.label.set(Field::Command, command);
    }

    /// Says of which stream the lines are.
    pub fn set_stream(&mut self, stream: &str) {
        self.label.set(Field::Stream, stream);
    }

    /// Whether the label shows of which stream a line is.
    pub fn has_stream(&self) -> bool {
        self.label.has_stream()
    }
}

/// Where in a line the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before a line of which nothing has arrived.
    Start,
    /// The line's first byte is there; so many bytes of its prefix are out.
    Prefix(usize),
    /// After the prefix.
    Inside,
}

/// The prefixer of one stream.
#[derive(Clone, Debug)]
pub(super) struct Transform {
    place: Place,
    stamp: Stamp,
    label: Label,
    number: Option<Number>,
    /// The prefix of the current line: the stamp, the label, then the number.
    prefix: Vec<u8>,
    /// Bytes of `prefix` that are the stamp and the label.
    stamped: usize,
}

impl Transform {
    pub(super) fn new(prefix: &Prefix) -> Self {
        Transform {
            place: Place::Start,
            stamp: prefix.stamp.clone(),
            label: prefix.label.clone(),
            number: match prefix.numbers {
                LineNumbers::Off => None,
                LineNumbers::On => Some(Number::default()),
            },
            prefix: Vec::new(),
            stamped: 0,
        }
    }

    /// Says which process the lines come from. Before the first line.
    pub(super) fn set_pid(&mut self, pid: u32) {
        self.label.set(Field::Pid, &pid.to_string());
    }

    /// Before a line.
    pub(super) fn is_neutral(&self) -> bool {
        self.place == Place::Start
    }

    /// Bytes have passed that were not seen here: what comes is taken for the rest of a line.
    pub(super) fn rejoin(&mut self) {
        self.place = Place::Inside;
    }

    /// Moves from `input` to `output` until one of them is used up. `arrival` is that of `input`.
    pub(super) fn filter(&mut self, input: &[u8], output: &mut [u8], arrival: Arrival) -> Progress {
        let mut consumed = 0;
        let mut produced = 0;
        while consumed < input.len() {
            let room = &mut output[produced..];
            match self.place {
                Place::Start => {
                    self.compose(arrival);
                    self.place = Place::Prefix(0);
                }
                Place::Prefix(out) => {
                    let pending = &self.prefix[out..];
                    let fits = pending.len().min(room.len());
                    room[..fits].copy_from_slice(&pending[..fits]);
                    produced += fits;
                    if fits < pending.len() {
                        self.place = Place::Prefix(out + fits);
                        break;
                    }
                    self.place = Place::Inside;
                }
                Place::Inside => {
                    let rest = &input[consumed..];
                    let rest = &rest[..rest.len().min(room.len())];
                    if rest.is_empty() {
                        break;
                    }
                    let line = memchr(b'\n', rest).map_or(rest.len(), |end| {
                        self.place = Place::Start;
                        end + 1
                    });
                    room[..line].copy_from_slice(&rest[..line]);
                    consumed += line;
                    produced += line;
                }
            }
        }
        Progress { consumed, produced }
    }

    /// Makes `prefix` that of a line which starts with `arrival`.
    fn compose(&mut self, arrival: Arrival) {
        if let Some(stamp) = self.stamp.next_line(arrival) {
            self.prefix.clear();
            self.prefix.extend_from_slice(stamp);
            self.label.write_to(&mut self.prefix);
            self.stamped = self.prefix.len();
        }
        if let Some(number) = &mut self.number {
            self.prefix.truncate(self.stamped);
            self.prefix.extend_from_slice(number.next_line());
        }
    }
}
