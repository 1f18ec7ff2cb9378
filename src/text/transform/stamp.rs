//! The timestamp of a line, formatted again only when what it shows has changed.
//!
//! `jiff` does the formatting: of the two maintained crates it is the one that reads strftime (`%3f` and `%6f` included)
//! and names what is wrong with a format, where `time` has a language of its own. The cache keeps its cost off the lines:
//! most share their stamp with the line before, at least those of one chunk.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::strtime::{BrokenDownTime, Config, PosixCustom};
use jiff::tz::TimeZone;

use crate::text::Arrival;

/// What time a stamp shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StampMode {
    /// The time of day, in UTC or in the local zone.
    #[default]
    Wall,
    /// The time since the start of the session.
    Elapsed,
    /// The time since the line before; for the first, since the start of the session.
    Delta,
}

impl StampMode {
    /// The strftime format where the user names none.
    pub fn default_format(self, zone: &Zone) -> &'static str {
        match self {
            StampMode::Wall if *zone == Zone::default() => "[%Y-%m-%dT%H:%M:%S.%3fZ] ",
            StampMode::Wall => "[%Y-%m-%dT%H:%M:%S.%3f%:z] ",
            StampMode::Elapsed | StampMode::Delta => "[%H:%M:%S.%3f] ",
        }
    }
}

/// The time zone of what is shown; UTC unless it was made from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Default for Zone {
    fn default() -> Self {
        Zone(TimeZone::UTC)
    }
}

impl From<TimeZone> for Zone {
    fn from(zone: TimeZone) -> Self {
        Zone(zone)
    }
}

/// A strftime format that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError {
    format: String,
    why: String,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timestamp format {:?}: {}", self.format, self.why)
    }
}

impl std::error::Error for FormatError {}

/// Formats the stamps of one stream.
#[derive(Clone, Debug)]
pub(super) struct Stamp {
    mode: StampMode,
    format: Format,
    zone: TimeZone,
    /// Nanoseconds (a power of ten, at most a second) below which the format shows no difference.
    resolution: u32,
    /// The arrival of the line before, and the time it was stamped with.
    last: Option<(Arrival, Duration)>,
    text: Vec<u8>,
}

impl Stamp {
    /// # Errors
    /// If `format` has a conversion that does not exist.
    pub(super) fn new(mode: StampMode, format: &str, zone: Zone) -> Result<Self, FormatError> {
        let bad = |why: String| FormatError { format: format.to_owned(), why };
        let zone = match mode {
            StampMode::Wall => zone.0,
            StampMode::Elapsed | StampMode::Delta => TimeZone::UTC,
        };
        let read = Format::new(format, mode);
        // Every digit of the fraction is 1, so one more in any place is seen and carries into no other.
        let sample = Duration::new(1_111_111_111, 111_111_111);
        let shown = read.write(sample, &zone).map_err(bad)?;
        let mut resolution = 1;
        while resolution < 1_000_000_000 {
            let later = sample + Duration::from_nanos(resolution.into());
            if read.write(later, &zone).map_err(bad)? != shown {
                break;
            }
            resolution *= 10;
        }
        Ok(Stamp { mode, format: read, zone, resolution, last: None, text: Vec::new() })
    }

    /// The stamp of a line whose first byte came with `arrival`, or `None` if it is that of the line before.
    pub(super) fn next_line(&mut self, arrival: Arrival) -> Option<&[u8]> {
        let time = match (self.mode, self.last) {
            (StampMode::Wall | StampMode::Elapsed, Some((last, _))) if last == arrival => {
                return None;
            }
            (StampMode::Wall, _) => arrival.wall,
            (StampMode::Elapsed, _) => arrival.elapsed,
            (StampMode::Delta, None) => arrival.elapsed,
            (StampMode::Delta, Some((last, _))) => arrival.elapsed.saturating_sub(last.elapsed),
        };
        let shown = |time: Duration| (time.as_secs(), time.subsec_nanos() / self.resolution);
        if let Some((last, stamped)) = &mut self.last {
            let same = shown(*stamped) == shown(time);
            (*last, *stamped) = (arrival, time);
            if same {
                return None;
            }
        }
        self.last = Some((arrival, time));
        // The format has been tried; only a time out of the calendar's range can fail, and then the stamp
        // before is as good as any.
        if let Ok(text) = self.format.write(time, &self.zone) {
            self.text = text;
        }
        Some(&self.text)
    }
}

/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;

/// A format in jiff's words.
#[derive(Clone, Debug)]
struct Format {
    text: String,
    /// Where days are put in, if there are any to show: in front of the hour of an elapsed time.
    days_at: Option<usize>,
}

impl Format {
    /// Puts jiff's words for those that only ts(1) has, and finds the hour.
    fn new(format: &str, mode: StampMode) -> Format {
        let mut text = String::new();
        let mut days_at = None;
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            text.push_str(&rest[..at]);
            rest = &rest[at..];
            // A conversion: flags, a width, and a letter.
            let end = rest[1..]
                .find(|c: char| !matches!(c, '0'..='9' | '.' | '-' | '_' | '^' | '#' | ':'));
            let end = 1 + end.unwrap_or(rest.len() - 1);
            let length = end + rest[end..].chars().next().map_or(0, char::len_utf8);
            let (conversion, after) = rest.split_at(length);
            if days_at.is_none() && conversion.ends_with(['H', 'k', 'T', 'R', 'c', 'X']) {
                days_at = Some(text.len());
            }
            text.push_str(match conversion {
                "%.S" => "%S.%6f",
                "%.s" => "%s.%6f",
                "%.T" => "%T.%6f",
                other => other,
            });
            rest = after;
        }
        text.push_str(rest);
        Format { text, days_at: days_at.filter(|_| mode != StampMode::Wall) }
    }

    /// `time` after the epoch, or what is wrong with the format.
    fn write(&self, time: Duration, zone: &TimeZone) -> Result<Vec<u8>, String> {
        let nanoseconds = i128::try_from(time.as_nanos()).map_err(|error| error.to_string())?;
        let stamp = Timestamp::from_nanosecond(nanoseconds).map_err(|error| error.to_string())?;
        let zoned = BrokenDownTime::from(&stamp.to_zoned(zone.clone()));
        let mut text = Vec::new();
        let write = |format: &str, text: &mut Vec<u8>| {
            let config = Config::new().custom(PosixCustom::new());
            zoned.format_with_config(&config, format, text).map_err(|error| error.to_string())
        };
        match (self.days_at, time.as_secs() / DAY) {
            (Some(at), days @ 1..) => {
                write(&self.text[..at], &mut text)?;
                text.extend_from_slice(format!("{days}d ").as_bytes());
                write(&self.text[at..], &mut text)?;
            }
            _ => write(&self.text, &mut text)?,
        }
        Ok(text)
    }
}
