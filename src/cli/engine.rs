//! Flags that say how bytes are moved.

use std::time::Duration;

use clap::Args;

use super::choices::{EngineChoice, PipeSize};
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
    ///
    /// `auto` is 1 MiB, and less where memory is limited to less than 128 MiB: what waits in pipes counts as the command's.
    #[arg(
        long,
        value_name = "SIZE|auto|keep",
        default_value = "auto",
        value_parser = pipe_size,
        hide_short_help = true,
        env = "NPROXY_PIPE_SIZE"
    )]
    pub pipe_size: PipeSize,

    /// The longest that a busy stream waits for more bytes, in microseconds
    ///
    /// Waiting makes fewer and larger transfers out of many small ones, which costs less processor time. `auto` is
    /// 200, and 0 where only one processor may be used: there, waiting gains nothing. `off` is 0. The first byte after a
    /// silence never waits.
    #[arg(
        long,
        value_name = "MICROSECONDS|auto|off",
        default_value = "auto",
        value_parser = coalesce,
        hide_short_help = true,
        env = "NPROXY_COALESCE"
    )]
    pub coalesce: Coalesce,
}

/// `--coalesce`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coalesce {
    /// As long as pays with so many processors.
    Auto,
    /// At most so long.
    UpTo(Duration),
}

impl Coalesce {
    /// The longest wait where so many processors may be used.
    pub fn longest(self, processors: usize) -> Duration {
        match self {
            Coalesce::Auto if processors == 1 => Duration::ZERO,
            Coalesce::Auto => AUTO_WAIT,
            Coalesce::UpTo(wait) => wait,
        }
    }
}

/// The largest pipe that F_SETPIPE_SZ can make, in bytes (fs/pipe.c: a power of two below 2³¹).
const LARGEST_PIPE: u64 = 1 << 30;

/// The longest wait of `--coalesce=auto`.
const AUTO_WAIT: Duration = Duration::from_micros(200);

/// The longest that may be asked for, in microseconds: more would look like a hang.
const LONGEST_WAIT: u64 = 10_000_000;

fn pipe_size(text: &str) -> Result<PipeSize, String> {
    match (text, read_size(text)) {
        ("auto", _) => Ok(PipeSize::Auto),
        ("keep", _) => Ok(PipeSize::Keep),
        (_, Ok(bytes @ 1..=LARGEST_PIPE)) => Ok(PipeSize::Bytes(bytes as u32)),
        (_, Ok(_)) => Err(format!("expected at least 1 byte and at most {}", bytes(LARGEST_PIPE))),
        (_, Err(why)) => Err(format!("{why}, or `auto` or `keep`")),
    }
}

fn coalesce(text: &str) -> Result<Coalesce, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(Coalesce::Auto),
        ("off", _) => Ok(Coalesce::UpTo(Duration::ZERO)),
        (_, Ok(micros @ 0..=LONGEST_WAIT)) => Ok(Coalesce::UpTo(Duration::from_micros(micros))),
        (_, Ok(_)) => Err(format!("expected at most {LONGEST_WAIT} microseconds")),
        (_, Err(_)) => Err("expected `auto`, `off` or a number of microseconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_pipes() {
        assert_eq!(pipe_size("64K"), Ok(PipeSize::Bytes(65536)));
        assert_eq!(pipe_size("1MiB"), Ok(PipeSize::Bytes(1 << 20)));
        assert_eq!(pipe_size("keep"), Ok(PipeSize::Keep));
        assert_eq!(pipe_size("auto"), Ok(PipeSize::Auto));
        for wrong in ["much", "0", "2G", "-1", "18446744073709551615"] {
            assert!(pipe_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pipes_take_a_small_part_of_memory() {
        let auto = |memory| PipeSize::Auto.within(|| memory);
        assert_eq!(auto(u64::MAX), Some(1 << 20));
        assert_eq!(auto(128 << 20), Some(1 << 20));
        assert_eq!(auto((128 << 20) - 1), Some(1 << 19));
        assert_eq!(auto(17 << 20), Some(1 << 17));
        assert_eq!(auto(15 << 20), None);
        assert_eq!(auto(0), None);
        assert_eq!(PipeSize::Bytes(1 << 20).within(|| 0), Some(1 << 20), "as asked");
        assert_eq!(PipeSize::Keep.within(|| u64::MAX), None);
    }

    #[test]
    fn waits() {
        let longest = |text| coalesce(text).map(|wait| [1, 2].map(|most| wait.longest(most)));
        assert_eq!(longest("auto"), Ok([Duration::ZERO, AUTO_WAIT]));
        assert_eq!(longest("off"), Ok([Duration::ZERO; 2]));
        assert_eq!(longest("1500"), Ok([Duration::from_micros(1500); 2]));
        for wrong in ["-5", "10000001", "1ms", "99999999999999999999"] {
            assert!(coalesce(wrong).is_err(), "{wrong}");
        }
    }
}
