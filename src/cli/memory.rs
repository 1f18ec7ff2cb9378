//! Flags of the memory guard.

use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};

/// How the command's memory is watched and limited.
#[derive(Debug, Args)]
pub struct MemoryFlags {
    /// Whose memory is watched: the command's own process, all that it started, or its cgroup; `auto` is the
    /// cgroup that a limit makes, or else the tree
    #[arg(long, value_enum, default_value_t, env = "NPROXY_MONITOR", hide_env = true)]
    pub monitor: MonitorName,

    /// Memory from which the user is told; a bare number is MiB
    #[arg(long, value_name = "SIZE", value_parser = threshold, env = "NPROXY_ATTENTION_MB", hide_env = true)]
    pub attention: Option<u64>,

    /// Memory from which text modes and most observation are off; a bare number is MiB
    #[arg(long, value_name = "SIZE", value_parser = threshold, env = "NPROXY_PRESSURE_MB", hide_env = true)]
    pub pressure: Option<u64>,

    /// Memory from which the command's output is taken at a trickle only; a bare number is MiB
    #[arg(long, value_name = "SIZE", value_parser = threshold, env = "NPROXY_CRITICAL_MB", hide_env = true)]
    pub critical: Option<u64>,

    /// Memory from which all output is let out at once; a bare number is MiB
    #[arg(long, value_name = "SIZE", value_parser = threshold, env = "NPROXY_EMERGENCY_MB", hide_env = true)]
    pub emergency: Option<u64>,

    /// Shortest time between two looks at the memory; a bare number is milliseconds
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = tick, env = "NPROXY_TICK_MS", hide_env = true)]
    pub tick: Duration,

    /// Whether the command may be held back from the critical stage on
    #[arg(long, value_enum, default_value_t, env = "NPROXY_GATE", hide_env = true)]
    pub gate: GateName,

    /// Whether text modes are switched off from the pressure stage on
    #[arg(long, value_enum, default_value_t, env = "NPROXY_DEGRADE", hide_env = true)]
    pub degrade: DegradeName,

    /// Slow the command down above this much memory, in a cgroup of its own
    #[arg(long, value_name = "SIZE", value_parser = size, env = "NPROXY_MEMORY_HIGH", hide_env = true)]
    pub memory_high: Option<u64>,

    /// Never let the command have more than this much memory, in a cgroup of its own
    #[arg(long, value_name = "SIZE", value_parser = size, env = "NPROXY_MEMORY_MAX", hide_env = true)]
    pub memory_max: Option<u64>,

    /// Set a resource limit for the command, as in `nofile=1024` or `as=2G:unlimited`; repeatable
    #[arg(long, value_name = "NAME=SOFT[:HARD]", env = "NPROXY_RLIMIT", hide_env = true)]
    pub rlimit: Vec<String>,

    /// Tell the memory in use on stderr every so many seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 0,
        env = "NPROXY_MEMLOG",
        hide_env = true
    )]
    pub memlog: u32,

    /// Tell on stderr, at the start, what is run and watched
    #[arg(long, value_parser = FalseyValueParser::new(), env = "NPROXY_BANNER", hide_env = true)]
    pub banner: bool,
}

/// `--monitor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum MonitorName {
    /// The cgroup that a limit makes, or else the tree
    #[default]
    Auto,
    /// Nothing
    Off,
    /// The command's own process
    Rss,
    /// The command and all that it started
    Tree,
    /// The cgroup
    Cgroup,
}

/// `--gate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GateName {
    /// Closed in the critical stage, unless that does harm
    #[default]
    Auto,
    /// Always open
    Off,
}

/// `--degrade`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DegradeName {
    /// From the pressure stage on
    #[default]
    Auto,
    /// Never
    Never,
}

/// A size in bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    // An exponent is read as one, and 1e3 then is no unit but a thousand bytes: nobody means that.
    if text.contains(['e', 'E'])
        && text.trim_end_matches(['e', 'E', 'b', 'B', 'i']).contains(['e', 'E'])
    {
        return Err("expected a number and a unit, like 512M".to_owned());
    }
    let bytes = parse_size::Config::new().with_binary().parse_size(text);
    match bytes.map_err(|error| error.to_string())? {
        0 => Err("has to be more than nothing".to_owned()),
        bytes => Ok(bytes),
    }
}

/// A size in bytes; a bare number is MiB, as in the variables' names.
fn threshold(text: &str) -> Result<u64, String> {
    let bare = !text.bytes().any(|byte| byte.is_ascii_alphabetic());
    if bare && !text.is_empty() { size(&format!("{text}M")) } else { size(text) }
}

fn tick(text: &str) -> Result<Duration, String> {
    const RANGE: std::ops::RangeInclusive<Duration> =
        Duration::from_millis(1)..=Duration::from_secs(60);
    let time = match text.parse() {
        Ok(millis) => Duration::from_millis(millis),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string())?,
    };
    if RANGE.contains(&time) { Ok(time) } else { Err("between 1 ms and 60 s".to_owned()) }
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
    fn ticks() {
        assert_eq!(tick("25"), Ok(Duration::from_millis(25)));
        assert_eq!(tick("1s"), Ok(Duration::from_secs(1)));
        assert!(tick("0").is_err() && tick("1h").is_err() && tick("soon").is_err());
    }
}
