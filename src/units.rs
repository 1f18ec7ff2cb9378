//! Sizes, times and names as people read and write them.

use std::time::Duration;

/// The longest time that is told apart from for ever: so added to any clock it does not overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Reads a size in bytes, such as `4096`, `64K`, `1.5M` or `2GiB`. Units are binary.
///
/// # Errors
/// What was expected.
pub fn read_size(text: &str) -> Result<u64, String> {
    // An exponent would be read as one, and 1e3 be no unit but a thousand bytes: nobody means that.
    let unit = |end: char| "eEbBi".contains(end);
    if text.trim_end_matches(unit).contains(['e', 'E']) {
        return Err(EXPECTED_SIZE.to_owned());
    }
    // parse_size rounds what it cannot hold, beyond what it can hold.
    if numbers(text).any(|digits| digits.len() > 20) {
        return Err(TOO_LARGE.to_owned());
    }
    match parse_size::Config::new().with_binary().parse_size(text) {
        Ok(bytes) => Ok(bytes),
        Err(parse_size::Error::PosOverflow) => Err(TOO_LARGE.to_owned()),
        Err(_) => Err(EXPECTED_SIZE.to_owned()),
    }
}

const EXPECTED_SIZE: &str = "expected a size such as 64K or 1M";
const TOO_LARGE: &str = "expected less than 16 EiB";
const EXPECTED_TIME: &str = "expected a time such as 200ms or 5s";

/// The numbers in a text, as their digits.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|one: char| !one.is_ascii_digit()).filter(|digits| !digits.is_empty())
}

/// Reads a time such as `200ms` or `1m 30s`. More than a century is a century.
///
/// # Errors
/// What was expected.
pub fn read_time(text: &str) -> Result<Duration, String> {
    // humantime panics where seconds and milliseconds together are just too many. So many of whatever it is are enough.
    let (mut shorter, mut is_long) = (text.to_owned(), false);
    for digits in numbers(text).filter(|digits| digits.len() > 18) {
        shorter = shorter.replacen(digits, &digits[..18], 1);
        is_long = true;
    }
    match humantime::parse_duration(&shorter) {
        Ok(_) if is_long && !text.contains('.') => Ok(LONGEST),
        Ok(time) => Ok(time.min(LONGEST)),
        // Of a fraction it is no overflow: a third of an hour is no number of its smaller units.
        Err(humantime::DurationError::NumberOverflow) if !text.contains('.') => Ok(LONGEST),
        Err(_) => Err(EXPECTED_TIME.to_owned()),
    }
}

/// A size in bytes, such as `312 B`, `64 KiB` or `1.5 GiB`.
pub fn size(bytes: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes;
    let mut unit = 0;
    // 1023.95 would be written as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{value:.0} B"),
        _ if value.fract() == 0.0 => format!("{value} {}", UNITS[unit]),
        _ if value < 99.95 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// The same for a whole number of bytes.
pub fn bytes(count: u64) -> String {
    size(count as f64)
}

/// A span of time in seconds, such as `45 µs`, `1.2 ms` or `3.40 s`.
pub fn span(seconds: f64) -> String {
    match seconds {
        0.0 => "0".to_owned(),
        ..1e-6 => format!("{:.0} ns", seconds * 1e9),
        ..1e-3 => format!("{:.0} µs", seconds * 1e6),
        ..1.0 => format!("{:.1} ms", seconds * 1e3),
        ..100.0 => format!("{seconds:.2} s"),
        _ => clock(seconds),
    }
}

/// A span of time as a clock shows it: `0:07`, `1:02:03`, `2d 03:04:05`.
pub fn clock(seconds: f64) -> String {
    let whole = seconds as u64;
    let (days, hours, minutes, seconds) =
        (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}:{seconds:02}"),
        (0, _) => format!("{hours}:{minutes:02}:{seconds:02}"),
        _ => format!("{days}d {hours:02}:{minutes:02}:{seconds:02}"),
    }
}

/// The same of a time in a sentence, with tenths where a clock would show nothing: `0.3 s`.
pub fn elapsed(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{seconds:.1} s"),
        seconds => clock(seconds),
    }
}

/// Text without control characters: what would move the cursor is shown as `\u{…}`.
pub fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            (0.0, "0 B"),
            (1023.0, "1023 B"),
            (1024.0, "1 KiB"),
            (65536.0, "64 KiB"),
            (100_000.0, "97.7 KiB"),
            (131_072.0, "128 KiB"),
            (1_048_575.0, "1.0 MiB"),
            (1.5 * f64::from(1 << 30), "1.5 GiB"),
            (f64::MAX, &size(f64::MAX)),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn what_is_printed_can_be_read() {
        for bytes in [1, 1023, 1 << 10, 3 << 19, 1 << 30, 5 << 50] {
            assert_eq!(read_size(&size(bytes as f64)), Ok(bytes), "{}", size(bytes as f64));
        }
        assert_eq!(read_size("1E"), Ok(1 << 60));
        assert_eq!(read_size("1EiB"), Ok(1 << 60));
        assert!(read_size("99E").unwrap_err().contains("16 EiB"));
        for wrong in ["", "K", "1e3", "-1", "5X", "1e3K", "two"] {
            assert_eq!(read_size(wrong), Err(EXPECTED_SIZE.to_owned()), "{wrong}");
        }
    }

    #[test]
    fn what_no_number_holds_is_refused() {
        for large in ["184467440737095516155", "99999999999999999999999K", "16E"] {
            assert_eq!(read_size(large), Err(TOO_LARGE.to_owned()), "{large}");
        }
    }

    #[test]
    fn a_time_can_be_added_to_any_clock() {
        assert_eq!(read_time("1m 30s"), Ok(Duration::from_secs(90)));
        for long in ["9300000000000000000s", "99999999999999999999y", "200y"] {
            let time = read_time(long).unwrap();
            assert!(std::time::Instant::now().checked_add(time).is_some(), "{long}");
        }
        assert_eq!(read_time("18446744073709551615s 1000ms"), Ok(LONGEST));
        assert_eq!(read_time("0.5h"), Ok(Duration::from_secs(1800)));
        // A fraction that its smaller units do not divide is refused, and is no century.
        for wrong in ["", "5", "soon", "-1s", "s", "0.333h", "0.042d", "1.0000000001s"] {
            assert!(read_time(wrong).unwrap_err().contains("200ms"), "{wrong}");
        }
    }

    #[test]
    fn times() {
        let cases = [
            (0.0, "0"),
            (45e-6, "45 µs"),
            (3e-7, "300 ns"),
            (0.0012, "1.2 ms"),
            (3.4, "3.40 s"),
            (200.0, "3:20"),
            (3723.0, "1:02:03"),
            (183_845.0, "2d 03:04:05"),
        ];
        for (seconds, text) in cases {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(clock(7.9), "0:07");
        assert_eq!(elapsed(Duration::from_millis(320)), "0.3 s");
        assert_eq!(elapsed(Duration::from_millis(7900)), "0:07");
    }
}
