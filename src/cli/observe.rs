//! The flags of observation: what is recorded of a run, and where it is told.

use std::ffi::OsString;

use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};

/// What is recorded of a run, and where it is told.
#[derive(Debug, Args)]
pub struct ObserveFlags {
    /// How much is recorded of each transfer; never what was in it
    #[arg(long, value_enum, default_value_t, env = "NPROXY_OBSERVE", hide_env = true)]
    pub observe: ObserveName,

    /// Report what was moved on stderr at the end
    #[arg(long, value_enum, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text", env = "NPROXY_STATS", hide_env = true)]
    pub stats: Option<StatsName>,

    /// Write the report into this file instead, as JSON unless --stats=text is given too
    #[arg(long, value_name = "PATH", env = "NPROXY_STATS_FILE", hide_env = true)]
    pub stats_file: Option<OsString>,

    /// Append what happens to this file or FIFO, as lines of JSON; events that it cannot take are dropped
    #[arg(long, value_name = "PATH", env = "NPROXY_EVENTS", hide_env = true)]
    pub events: Option<OsString>,

    /// A live line on stderr: `auto` only on a terminal that the command does not write to
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "auto", env = "NPROXY_PROGRESS", hide_env = true)]
    pub progress: Option<ProgressName>,

    /// How many bytes there will be, for a percentage in the live line
    #[arg(long, value_name = "SIZE", value_parser = size, env = "NPROXY_SIZE", hide_env = true)]
    pub size: Option<u64>,

    /// List the running sessions, or the one of this process, and leave; their sockets are in
    /// $NPROXY_RUNTIME_DIR, $XDG_RUNTIME_DIR or /tmp
    #[arg(long, value_name = "PID", num_args = 0..=1, conflicts_with = "command")]
    pub status: Option<Option<u32>>,

    /// How --status writes its list
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        default_value_t,
        env = "NPROXY_STATUS_FORMAT",
        hide_env = true
    )]
    pub status_format: StatusFormatName,

    /// No status socket: --status does not show this session
    #[arg(long, value_parser = FalseyValueParser::new(), env = "NPROXY_NO_CONTROL", hide_env = true)]
    pub no_control: bool,

    /// Write a report into this directory when the command dies of a fault, an abort or a kill
    #[arg(long, value_name = "DIR", env = "NPROXY_CRASH_DIR", hide_env = true)]
    pub crash_dump: Option<OsString>,
}

/// `--progress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressName {
    /// On a terminal that the command does not write to
    Auto,
    /// Wherever stderr goes
    Always,
    /// Not at all
    Never,
}

/// `--status-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum StatusFormatName {
    /// A table to read
    #[default]
    Text,
    /// One JSON object
    Json,
    /// Metrics in the text format of Prometheus
    Prometheus,
}

fn size(text: &str) -> Result<u64, String> {
    let bytes = parse_size::Config::new().with_binary().parse_size(text);
    bytes.map_err(|error| error.to_string())
}

/// `--observe`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ObserveName {
    /// Sizes, times and waits, and the last 1024 transfers
    #[default]
    Full,
    /// Sizes, times and waits, and the last 128 transfers
    Summary,
    /// Totals only
    Off,
}

/// `--stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatsName {
    /// A table to read
    Text,
    /// One JSON object
    Json,
}
