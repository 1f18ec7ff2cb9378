//! The timestamp of a line, formatted again only when what it shows has changed.
//!
//! `jiff` does the formatting, without a time zone database as all stamps are UTC: of the two maintained
//! crates it is the one that reads strftime (`%3f` and `%6f` included) and names what is wrong with a
//! format, where `time` has a language of its own. The cache keeps its cost off the lines: most share their
//! stamp with the line before, at least those of one chunk.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;

use crate::text::Arrival;

/// What time a stamp shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StampMode {
    /// The time of day, UTC.
    #[default]
    Wall,
    /// The time since the start of the session.
    Elapsed,
    /// The time since the line before; for the first, since the start of the session.
    Delta,
}

impl StampMode {
    /// The strftime format where the user names none.
    pub fn default_format(self) -> &'static str {
        match self {
            StampMode::Wall => "[%Y-%m-%dT%H:%M:%S.%3fZ] ",
            StampMode::Elapsed | StampMode::Delta => "[%H:%M:%S.%3f] ",
        }
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
    format: String,
    /// Nanoseconds (a power of ten, at most a second) below which the format shows no difference.
    resolution: u32,
    /// The arrival of the line before, and the time it was stamped with.
    last: Option<(Arrival, Duration)>,
    text: Vec<u8>,
}

impl Stamp {
    /// # Errors
    /// If `format` has a conversion that does not exist.
    pub(super) fn new(mode: StampMode, format: &str) -> Result<Self, FormatError> {
        let bad = |why: String| FormatError { format: format.to_owned(), why };
        // Every digit of the fraction is 1, so one more in any place is seen and carries into no other.
        let sample = Duration::new(1_111_111_111, 111_111_111);
        let shown = write(format, sample).map_err(bad)?;
        let mut resolution = 1;
        while resolution < 1_000_000_000 {
            let later = sample + Duration::from_nanos(resolution.into());
            if write(format, later).map_err(bad)? != shown {
                break;
            }
            resolution *= 10;
        }
        Ok(Stamp { mode, format: format.to_owned(), resolution, last: None, text: Vec::new() })
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
        if let Ok(text) = write(&self.format, time) {
            self.text = text;
        }
        Some(&self.text)
    }
}

/// `time` after the epoch in `format`, or what is wrong with the format.
fn write(format: &str, time: Duration) -> Result<Vec<u8>, String> {
    let nanoseconds = i128::try_from(time.as_nanos()).map_err(|error| error.to_string())?;
    let time = Timestamp::from_nanosecond(nanoseconds).map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    BrokenDownTime::from(&time.to_zoned(TimeZone::UTC))
        .format(format, &mut text)
        .map_err(|error| error.to_string())?;
    Ok(text)
}
