//! Flags of the memory guard.

use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::choices::MonitorMode;
use super::values::{millis, seconds, size, threshold};
use crate::memory::policy::{Degrade, GateMode};

/// How the command's memory is watched and limited.
#[derive(Debug, Args)]
#[command(next_help_heading = "Memory")]
pub struct MemoryFlags {
    /// Kill the command above this much memory (cgroup v2)
    ///
    /// The kernel never lets the command and what it starts have more; the limit holds for a cgroup made for them.
    #[arg(long, value_name = "SIZE", value_parser = size, env = "NPROXY_MEMORY_MAX")]
    pub memory_max: Option<u64>,

    /// Slow the command down above this much (cgroup v2)
    ///
    /// The kernel then takes back what it can and makes the command wait for that, instead of killing it.
    #[arg(long, value_name = "SIZE", value_parser = size, env = "NPROXY_MEMORY_HIGH")]
    pub memory_high: Option<u64>,

    /// Set a resource limit such as nofile=1024; repeatable
    ///
    /// LIMIT is `NAME=SOFT[:HARD]`, with the names of getrlimit(2): `as=2G:unlimited` sets a soft limit of 2 GiB on the
    /// address space and no hard one.
    #[arg(long, value_name = "LIMIT", env = "NPROXY_RLIMIT")]
    pub rlimit: Vec<String>,

    /// Watch whose memory: auto, off, rss, tree or cgroup
    #[arg(long, value_enum, value_name = "WHOSE", default_value_t, env = "NPROXY_MONITOR")]
    pub monitor: MonitorMode,

    /// Print a notice from this much memory on
    ///
    /// Threshold of the attention stage, the first of four. A bare number is MiB. Without this option: 256 MiB, or 30 % of the memory limit if
    /// that is more and the limit is 2 GiB or larger. The limit is the least of the machine's memory, the limits of
    /// the cgroups that nproxy is in, and --memory-max. A stage is left below 90 % of its threshold.
    #[arg(long, value_name = "MIB", value_parser = threshold, env = "NPROXY_ATTENTION_MB")]
    pub attention: Option<u64>,

    /// Switch --text off from this much memory on
    ///
    /// Threshold of the pressure stage: --text and the recording of single transfers are off, and transfers are smaller;
    /// copies keep their text modes. Without this option: 512 MiB, or 50 % of the limit as for --attention.
    #[arg(long, value_name = "MIB", value_parser = threshold, env = "NPROXY_PRESSURE_MB")]
    pub pressure: Option<u64>,

    /// Slow the output down from this much memory on
    ///
    /// Threshold of the critical stage: nproxy takes the command's output slowly for a while, and goes on doing so only
    /// while memory falls. Without this option: 1 GiB, or 70 % of the limit as for --attention.
    #[arg(long, value_name = "MIB", value_parser = threshold, env = "NPROXY_CRITICAL_MB")]
    pub critical: Option<u64>,

    /// Hold nothing back from this much on
    ///
    /// Threshold of the emergency stage: no try begins or goes on. A command that is behind after a try that helped still
    /// catches up about as fast as it wrote before. Without this option: 80 % of the limit.
    /// Thresholds that you do not set keep the order: one that would reach the next is lowered to its share of the
    /// limit, and those beside one that you set move with it.
    #[arg(long, value_name = "MIB", value_parser = threshold, env = "NPROXY_EMERGENCY_MB")]
    pub emergency: Option<u64>,

    /// Shortest time between two samples of the memory; a bare number is milliseconds
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10ms",
        value_parser = tick,
        hide_short_help = true,
        env = "NPROXY_TICK_MS"
    )]
    pub tick: Duration,

    /// Whether output may be slowed down from the critical stage on
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        hide_short_help = true,
        env = "NPROXY_GATE"
    )]
    pub gate: GateMode,

    /// Whether --text is switched off from the pressure stage on
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        hide_short_help = true,
        env = "NPROXY_DEGRADE"
    )]
    pub degrade: Degrade,

    /// Print the memory in use on stderr every so many seconds; 0 means never
    #[arg(
        long,
        value_name = "SECONDS",
        value_parser = seconds,
        default_value_t = 0,
        hide_short_help = true,
        env = "NPROXY_MEMLOG"
    )]
    pub memlog: u32,

    /// Print on stderr at the start what is run and watched
    #[arg(long, value_parser = FalseyValueParser::new(), hide_short_help = true, env = "NPROXY_BANNER")]
    pub banner: bool,
}

fn tick(text: &str) -> Result<Duration, String> {
    millis(text, &(Duration::from_millis(1)..=Duration::from_secs(60)))
}
