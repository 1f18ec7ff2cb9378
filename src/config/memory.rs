//! What the flags of the memory guard mean.

use std::time::Duration;

use crate::cli::{DegradeName, GateName, MemoryFlags, MonitorName};
use crate::error::Error;
use crate::memory::limit::{Limits, Rlimit};
use crate::memory::policy::{Degrade, GateMode, Named, Settings};

/// How the command's memory is watched and limited.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Whose memory counts.
    pub monitor: Monitor,
    /// Thresholds that the user named.
    pub named: Named,
    /// What the policy may do.
    pub settings: Settings,
    /// Limits of a cgroup made for the command.
    pub limits: Limits,
    /// Resource limits of the command's process.
    pub rlimits: Vec<Rlimit>,
    /// How often the memory in use is told.
    pub log_every: Option<Duration>,
    /// Whether the run begins with a line about it.
    pub banner: Banner,
}

/// Whose memory counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Monitor {
    /// The cgroup that a limit makes, or else the tree.
    Auto,
    /// Nobody's.
    Off,
    /// The child's own process.
    Process,
    /// The child's and that of all that it started.
    Tree,
    /// The cgroup's.
    Cgroup,
}

/// Whether the run begins with a line about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Banner {
    /// It does not.
    None,
    /// It does.
    Shown,
}

impl Memory {
    pub(super) fn new(flags: &MemoryFlags) -> Result<Memory, Error> {
        let named = Named([flags.attention, flags.pressure, flags.critical, flags.emergency]);
        named.check().map_err(|wrong| {
            Error::usage(format!("--{}", wrong.lower), format!("more than --{}", wrong.higher))
        })?;
        if let (Some(high), Some(max)) = (flags.memory_high, flags.memory_max)
            && high > max
        {
            return Err(Error::usage("--memory-high", "more than --memory-max"));
        }
        Ok(Memory {
            monitor: match flags.monitor {
                MonitorName::Auto => Monitor::Auto,
                MonitorName::Off => Monitor::Off,
                MonitorName::Rss => Monitor::Process,
                MonitorName::Tree => Monitor::Tree,
                MonitorName::Cgroup => Monitor::Cgroup,
            },
            named,
            settings: Settings {
                gate: match flags.gate {
                    GateName::Auto => GateMode::Auto,
                    GateName::Off => GateMode::Off,
                },
                degrade: match flags.degrade {
                    DegradeName::Auto => Degrade::Auto,
                    DegradeName::Never => Degrade::Never,
                },
                fastest: flags.tick,
            },
            limits: Limits { high: flags.memory_high, max: flags.memory_max },
            rlimits: flags
                .rlimit
                .iter()
                .map(|text| {
                    Rlimit::parse(text).map_err(|why| Error::usage(format!("--rlimit {text}"), why))
                })
                .collect::<Result<_, _>>()?,
            log_every: (flags.memlog > 0).then(|| Duration::from_secs(flags.memlog.into())),
            banner: if flags.banner { Banner::Shown } else { Banner::None },
        })
    }
}
