//! What the flags of observation mean together.

use std::ffi::OsString;

use crate::cli::{ObserveFlags, ObserveName, ProgressName, StatsName, StatusFormatName};
use crate::observe::history::Depth;

/// What is recorded of a run, and where it is told.
#[derive(Debug)]
pub struct Observe {
    /// How much is recorded of each transfer.
    pub level: Level,
    /// The report at the end.
    pub stats: Option<Stats>,
    /// Where events go.
    pub events: Option<OsString>,
    /// The live line, if there may be one.
    pub progress: Option<ProgressMode>,
    /// What there will be at the end, in bytes.
    pub size: Option<u64>,
    /// Whether others can ask how the run is going.
    pub control: ControlMode,
    /// Where crash reports go.
    pub crash_dump: Option<OsString>,
}

/// When there is a live line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressMode {
    /// On a terminal that the command does not write to.
    Auto,
    /// Wherever stderr goes.
    Always,
}

/// Whether others can ask how the run is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlMode {
    /// On a socket that only this user and root can reach.
    Listen,
    /// Nobody can.
    Off,
}

/// What `--status` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inquiry {
    /// One session, or all of them.
    pub pid: Option<u32>,
    /// How the answer is written.
    pub format: StatusFormat,
}

/// How `--status` writes its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusFormat {
    /// A table.
    Text,
    /// One JSON object.
    Json,
    /// Metrics in the text format of Prometheus.
    Prometheus,
}

/// How much is recorded of each transfer, most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything but its content.
    Full,
    /// What can be summed up.
    Summary,
    /// Totals only.
    Off,
}

/// The report at the end of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// How it is written.
    pub format: StatsFormat,
    /// The file that it goes into; `None` is stderr.
    pub file: Option<OsString>,
}

/// How the report at the end is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsFormat {
    /// A table.
    Text,
    /// One JSON object.
    Json,
}

impl Observe {
    /// Makes sense of the flags.
    pub(super) fn new(flags: &ObserveFlags) -> Observe {
        Observe {
            level: match flags.observe {
                ObserveName::Full => Level::Full,
                ObserveName::Summary => Level::Summary,
                ObserveName::Off => Level::Off,
            },
            stats: Stats::new(flags),
            events: flags.events.clone(),
            progress: match flags.progress {
                Some(ProgressName::Auto) => Some(ProgressMode::Auto),
                Some(ProgressName::Always) => Some(ProgressMode::Always),
                Some(ProgressName::Never) | None => None,
            },
            size: flags.size,
            control: if flags.no_control { ControlMode::Off } else { ControlMode::Listen },
            crash_dump: flags.crash_dump.clone(),
        }
    }
}

impl Inquiry {
    /// What is asked for, if anything is.
    pub fn new(flags: &ObserveFlags) -> Option<Inquiry> {
        let format = match flags.status_format {
            StatusFormatName::Text => StatusFormat::Text,
            StatusFormatName::Json => StatusFormat::Json,
            StatusFormatName::Prometheus => StatusFormat::Prometheus,
        };
        flags.status.map(|pid| Inquiry { pid, format })
    }
}

impl Level {
    /// The name used on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Level::Full => "full",
            Level::Summary => "summary",
            Level::Off => "off",
        }
    }

    /// How many transfers are remembered one by one.
    pub fn depth(self) -> Depth {
        match self {
            Level::Full => Depth::Full,
            Level::Summary => Depth::Summary,
            Level::Off => Depth::Off,
        }
    }
}

impl Stats {
    fn new(flags: &ObserveFlags) -> Option<Stats> {
        let format = match (flags.stats, &flags.stats_file) {
            (Some(StatsName::Text), _) => StatsFormat::Text,
            (Some(StatsName::Json), _) | (None, Some(_)) => StatsFormat::Json,
            (None, None) => return None,
        };
        Some(Stats { format, file: flags.stats_file.clone() })
    }
}
