//! What the flags of observation mean together.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use super::copies::Destination;
use crate::cli::choices::{ProgressMode, StatsFormat, StatusFormat};
use crate::cli::{Given, ObserveFlags};
use crate::error::Error;
use crate::observe::Level;
pub use crate::observe::progress::Unit;

/// What is recorded of a run, and where it is told.
#[derive(Debug)]
pub struct Observe {
    /// How much is recorded of each transfer.
    pub level: Level,
    /// The report at the end.
    pub stats: Option<Stats>,
    /// Where events go.
    pub events: Option<Destination>,
    /// The live line.
    pub progress: ProgressLine,
    /// What there will be at the end, in bytes.
    pub size: Option<u64>,
    /// Whether others can ask how the run is going.
    pub control: ControlMode,
    /// Where crash reports go.
    pub crash_dump: Option<OsString>,
}

/// The live line of a run.
#[derive(Clone, Debug)]
pub struct ProgressLine {
    /// When there is one.
    pub mode: ProgressMode,
    /// What stands in front of it.
    pub name: Option<String>,
    /// What it counts.
    pub unit: Unit,
    /// How often it changes, if that was said.
    pub interval: Option<Duration>,
    /// It was asked for in this run, not by a habit in a variable.
    pub asked_now: bool,
}

impl ProgressLine {
    /// Whether lines have to be counted.
    pub fn counts_lines(&self) -> bool {
        self.mode != ProgressMode::Never && self.unit == Unit::Lines
    }
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
pub struct StatusRequest {
    /// One session, or all of them.
    pub pid: Option<u32>,
    /// How the answer is written.
    pub format: StatusFormat,
}

/// The report at the end of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// How it is written.
    pub format: StatsFormat,
    /// The file that it goes into; `None` is stderr.
    pub file: Option<Destination>,
}

impl Observe {
    /// Makes sense of the flags.
    pub(super) fn new(flags: &ObserveFlags, given: &Given) -> Result<Observe, Error> {
        if flags.crash_dump.as_deref().is_some_and(OsStr::is_empty) {
            return Err(Error::usage("--crash-dump", "an empty name"));
        }
        let events = flags.events.as_deref();
        Ok(Observe {
            level: flags.observe,
            stats: Stats::new(flags)?,
            events: events.map(|name| Destination::new(name, "--events")).transpose()?,
            progress: ProgressLine {
                mode: flags.progress.unwrap_or_default(),
                name: flags.progress_name.clone(),
                unit: if flags.progress_lines { Unit::Lines } else { Unit::Bytes },
                interval: flags.progress_interval,
                asked_now: given.contains("progress"),
            },
            size: flags.size,
            control: if flags.no_control { ControlMode::Off } else { ControlMode::Listen },
            crash_dump: flags.crash_dump.clone(),
        })
    }
}

impl StatusRequest {
    /// What is asked for, if anything is.
    pub fn new(flags: &ObserveFlags) -> Option<StatusRequest> {
        let format = flags.status_format;
        flags.status.map(|pid| StatusRequest { pid, format })
    }
}

impl Stats {
    fn new(flags: &ObserveFlags) -> Result<Option<Stats>, Error> {
        let format = match (flags.stats, &flags.stats_file) {
            (Some(format), _) => format,
            (None, Some(_)) => StatsFormat::Json,
            (None, None) => return Ok(None),
        };
        let file = flags.stats_file.as_deref();
        let file = file.map(|name| Destination::new(name, "--stats-file")).transpose()?;
        Ok(Some(Stats { format, file }))
    }
}
