//! Flags that say how bytes are moved.

use std::time::Duration;

use clap::Args;

use super::choices::EngineChoice;
use super::values::size;
use crate::units::{bytes, read_size};

/// How bytes are moved.
#[derive(Debug, Args)]
#[command(next_help_heading = "Engine")]
pub struct EngineFlags {
    /// How bytes are moved: auto, uring or epoll
    #[arg(long, value_enum, value_name = "ENGINE", default_value_t, env = "NPROXY_ENGINE")]
    pub engine: EngineChoice,

    /// Relay at most so many bytes a second, each stream
    ///
    /// On the average: after a pause, at most what 100 ms allow passes at once.
    #[arg(long, value_name = "SIZE", value_parser = size, env = "NPROXY_LIMIT_RATE")]
    pub limit_rate: Option<u64>,

    /// Grow pipes to this size, or keep them as they are
    #[arg(
        long,
        value_name = "SIZE|keep",
        default_value = "1M",
        value_parser = pipe_size,
        hide_short_help = true,
        env = "NPROXY_PIPE_SIZE"
    )]
    pub pipe_size: PipeSize,

    /// The longest that a busy stream waits for more bytes, in microseconds
    ///
    /// Waiting makes fewer and larger transfers out of many small ones, which costs less processor time. `auto` is
    /// 200, `off` is 0. The first byte after a silence never waits.
    #[arg(
        long,
        value_name = "MICROSECONDS|auto|off",
        default_value = "auto",
        value_parser = coalesce,
        hide_short_help = true,
        env = "NPROXY_COALESCE"
    )]
    pub coalesce: Duration,
}

/// `--pipe-size`: bytes, or `None` for `keep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipeSize(pub Option<u32>);

/// The largest pipe that F_SETPIPE_SZ can make, in bytes (fs/pipe.c: a power of two below 2³¹).
const LARGEST_PIPE: u64 = 1 << 30;

/// The longest wait of `--coalesce=auto`.
const AUTO_WAIT: Duration = Duration::from_micros(200);

/// The longest that may be asked for, in microseconds: more would look like a hang.
const LONGEST_WAIT: u64 = 10_000_000;

fn pipe_size(text: &str) -> Result<PipeSize, String> {
    if text == "keep" {
        return Ok(PipeSize(None));
    }
    match read_size(text) {
        Ok(bytes @ 1..=LARGEST_PIPE) => Ok(PipeSize(Some(bytes as u32))),
        Ok(_) => Err(format!("expected at least 1 byte and at most {}", bytes(LARGEST_PIPE))),
        Err(why) => Err(format!("{why}, or `keep`")),
    }
}

fn coalesce(text: &str) -> Result<Duration, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(AUTO_WAIT),
        ("off", _) => Ok(Duration::ZERO),
        (_, Ok(micros @ 0..=LONGEST_WAIT)) => Ok(Duration::from_micros(micros)),
        (_, Ok(_)) => Err(format!("expected at most {LONGEST_WAIT} microseconds")),
        (_, Err(_)) => Err("expected `auto`, `off` or a number of microseconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_pipes() {
        assert_eq!(pipe_size("64K"), Ok(PipeSize(Some(65536))));
        assert_eq!(pipe_size("1MiB"), Ok(PipeSize(Some(1 << 20))));
        assert_eq!(pipe_size("keep"), Ok(PipeSize(None)));
        for wrong in ["much", "0", "2G", "-1", "18446744073709551615"] {
            assert!(pipe_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn waits() {
        assert_eq!(coalesce("auto"), Ok(AUTO_WAIT));
        assert_eq!(coalesce("off"), Ok(Duration::ZERO));
        assert_eq!(coalesce("1500"), Ok(Duration::from_micros(1500)));
        for wrong in ["-5", "10000001", "1ms", "99999999999999999999"] {
            assert!(coalesce(wrong).is_err(), "{wrong}");
        }
    }
}
