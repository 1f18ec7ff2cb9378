//! Sizes and times as people write them.

/// A size in bytes, such as `312 B` or `1.5 GiB`.
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
        _ if value < 99.95 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            (0.0, "0 B"),
            (1023.0, "1023 B"),
            (1024.0, "1.0 KiB"),
            (65536.0, "64.0 KiB"),
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
    }
}
