//! Flags that say what is recorded of a run, and where that is reported.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::choices::{ProgressMode, StatsFormat, StatusFormat};
use super::values::{interval, pid};
use crate::observe::Level;
use crate::units::read_size;

/// What is recorded of a run, and where that is reported.
#[derive(Debug, Args)]
#[command(next_help_heading = "Statistics and reports")]
pub struct ObserveFlags {
    /// Print transfer statistics to stderr at exit
    #[arg(long, value_enum, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text", env = "NPROXY_STATS")]
    pub stats: Option<StatsFormat>,

    /// Write the statistics to a file, as JSON
    ///
    /// With --stats=text as a table.
    #[arg(long, value_name = "PATH", env = "NPROXY_STATS_FILE")]
    pub stats_file: Option<OsString>,

    /// Show a progress line on stderr
    ///
    /// --progress alone means `auto`: no line where it would mix with output on the same terminal.
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "auto", env = "NPROXY_PROGRESS")]
    pub progress: Option<ProgressMode>,

    /// Name in front of the progress line
    #[arg(long, value_name = "NAME", hide_short_help = true, env = "NPROXY_PROGRESS_NAME")]
    pub progress_name: Option<String>,

    /// Count lines instead of bytes
    ///
    /// In the progress line; --size is then a number of lines. What passes goes through a buffer of nproxy's.
    #[arg(long, value_parser = FalseyValueParser::new(), hide_short_help = true, env = "NPROXY_PROGRESS_LINES")]
    pub progress_lines: bool,

    /// How often the progress line changes
    ///
    /// Without this option, 5 times a second on a terminal and once a second elsewhere.
    #[arg(long, value_name = "TIME", value_parser = interval, hide_short_help = true, env = "NPROXY_PROGRESS_INTERVAL")]
    pub progress_interval: Option<Duration>,

    /// Expected size of what comes, for a percentage
    ///
    /// Used by --progress, which counts what has been read. A filter whose stdin is a file knows it already.
    #[arg(long, value_name = "SIZE", value_parser = read_size, env = "NPROXY_SIZE")]
    pub size: Option<u64>,

    /// List all running sessions, or one, and exit
    ///
    /// PID is nproxy's own, as the list shows it. Each session answers on a socket in $NPROXY_RUNTIME_DIR,
    /// $XDG_RUNTIME_DIR or /tmp.
    #[arg(long, value_name = "PID", num_args = 0..=1, value_parser = pid, conflicts_with = "command")]
    pub status: Option<Option<u32>>,

    /// Format of --status: text, json or prometheus
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, env = "NPROXY_STATUS_FORMAT")]
    pub status_format: StatusFormat,

    /// Append what happens to a file, as lines of JSON
    ///
    /// A FIFO will do, too. Events that it has no room for are dropped and counted; the run never waits for them.
    #[arg(long, value_name = "PATH", env = "NPROXY_EVENTS")]
    pub events: Option<OsString>,

    /// Write a report to DIR if the command crashes
    ///
    /// That is, if it dies of a fault, an abort or a kill. A missing directory is made; one that cannot be used is refused at the
    /// start.
    #[arg(long, value_name = "DIR", env = "NPROXY_CRASH_DIR")]
    pub crash_dump: Option<OsString>,

    /// How much is recorded of the transfers; never their content
    #[arg(
        long,
        value_enum,
        value_name = "LEVEL",
        default_value = "full",
        hide_short_help = true,
        env = "NPROXY_OBSERVE"
    )]
    pub observe: Level,

    /// Do not let --status see this session
    #[arg(long, value_parser = FalseyValueParser::new(), hide_short_help = true, env = "NPROXY_NO_CONTROL")]
    pub no_control: bool,
}
