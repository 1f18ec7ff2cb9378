//! What the flags of the memory guard mean.

use std::time::Duration;

use crate::cli::MemoryFlags;
use crate::cli::choices::MonitorMode;
use crate::error::Error;
use crate::memory::limit::{Limits, Rlimit};
use crate::memory::policy::{Named, Settings, Stage};
use crate::units;

/// How the command's memory is watched and limited.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Whose memory counts.
    pub monitor: MonitorMode,
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
            let named_bytes = |stage: Stage| named.of(stage).unwrap_or_default();
            let (lower, higher) = (wrong.lower.name(), wrong.higher.name());
            out_of_order((lower, named_bytes(wrong.lower)), (higher, named_bytes(wrong.higher)))
        })?;
        if let (Some(high), Some(max)) = (flags.memory_high, flags.memory_max)
            && high > max
        {
            return Err(out_of_order(("memory-high", high), ("memory-max", max)));
        }
        Ok(Memory {
            monitor: flags.monitor,
            named,
            settings: Settings { gate: flags.gate, degrade: flags.degrade, fastest: flags.tick },
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

/// Two sizes that were named the wrong way round, each with the flag that named it.
fn out_of_order(lower: (&str, u64), higher: (&str, u64)) -> Error {
    let shown = |(flag, bytes): (&str, u64)| format!("--{flag} ({})", units::bytes(bytes));
    Error::sentence(format!("{} must not exceed {}", shown(lower), shown(higher)))
}
