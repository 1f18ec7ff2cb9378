//! Readers of values that more than one group of flags has. A refusal says what was expected.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::units::{read_size, read_time};

/// A size in bytes, more than none.
pub(super) fn size(text: &str) -> Result<u64, String> {
    match read_size(text)? {
        0 => Err("expected more than 0".to_owned()),
        bytes => Ok(bytes),
    }
}

/// A time, more than none.
pub(super) fn some_time(text: &str) -> Result<Duration, String> {
    match read_time(text)? {
        Duration::ZERO => Err("expected more than 0".to_owned()),
        time => Ok(time),
    }
}

/// How often something is told: not so often that telling is all that is done.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match read_time(text)? {
        time if time < Duration::from_millis(10) => Err("expected 10ms or more".to_owned()),
        time => Ok(time),
    }
}

/// A size in bytes; a bare number is MiB, as in the variables' names.
pub(super) fn threshold(text: &str) -> Result<u64, String> {
    let bare = !text.bytes().any(|byte| byte.is_ascii_alphabetic());
    if bare && !text.is_empty() { size(&format!("{text}M")) } else { size(text) }
}

/// The number of a process.
pub(super) fn pid(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "expected the PID of an nproxy, as --status lists it".to_owned())
}

/// Whole seconds.
pub(super) fn seconds(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "expected a number of seconds".to_owned())
}

/// A time within `range`; a bare number is milliseconds.
pub(super) fn millis(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let time = match text.parse() {
        Ok(millis) => Duration::from_millis(millis),
        Err(_) => read_time(text)?,
    };
    match range.contains(&time) {
        true => Ok(time),
        false => Err(format!("expected a time from {:?} to {:?}", range.start(), range.end())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_threshold_is_in_mebibytes() {
        assert_eq!(threshold("512"), Ok(512 << 20));
        assert_eq!(threshold("512M"), Ok(512 << 20));
        assert_eq!(threshold("1.5"), Ok(3 << 19));
        assert_eq!(threshold("1_000"), Ok(1000 << 20));
        assert_eq!(threshold("1GiB"), Ok(1 << 30));
        assert_eq!(size("4096"), Ok(4096));
        for wrong in ["0", "0M", "", "5X", "-1", "99999999999999999999", "999999E"] {
            assert!(threshold(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_bare_time_is_in_milliseconds() {
        let tick = |text| millis(text, &(Duration::from_millis(1)..=Duration::from_secs(60)));
        assert_eq!(tick("25"), Ok(Duration::from_millis(25)));
        assert_eq!(tick("1s"), Ok(Duration::from_secs(1)));
        assert!(tick("0").is_err() && tick("1h").is_err() && tick("soon").is_err());
        assert_eq!(tick("1h"), Err("expected a time from 1ms to 60s".to_owned()));
    }
}
