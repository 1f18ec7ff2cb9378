//! The systemd journal's protocol for streams: a header once, then lines. See systemd-cat(1) and sd_journal_stream_fd(3).

/// Where journald takes streams.
pub(super) const SOCKET: &str = "/run/systemd/journal/stdout";

/// What stands before the first line: the name, no unit, priority "info", no level prefixes in front of lines, and nothing
/// forwarded to syslog, the kernel's log or the console.
pub(super) fn header(name: &str) -> Vec<u8> {
    format!("{name}\n\n6\n0\n0\n0\n0\n").into_bytes()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_header_has_seven_lines() {
        assert_eq!(super::header("app"), b"app\n\n6\n0\n0\n0\n0\n");
    }
}
