//! The crash report: what is known of a run whose command died abnormally, as a file.
//!
//! Figures, names and times only: no payload and nothing of the environment.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;

use super::child::Exit;
use super::watch::Watch;
use super::{Session, notice};
use crate::error::Error;
use crate::observe::report::MemoryReport;
use crate::observe::status::SessionStatus;

/// Version of the report's fields.
const VERSION: u32 = 1;

/// Deaths that nobody asks for: faults, aborts, kills, limits. Not those by which a program is told to go.
const ABNORMAL: [i32; 10] = [
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGKILL,
    libc::SIGSEGV,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGSYS,
];

#[derive(Debug, Serialize)]
struct CrashReport {
    version: u32,
    /// When the command died, in UTC.
    time: String,
    signal: i32,
    signal_name: &'static str,
    /// As a shell would show it.
    exit_status: u8,
    /// Processes that the OOM killer ended meanwhile: in the command's control group, or on this machine.
    oom_kills: u64,
    usage: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryReport>,
    /// The last looks at the command's memory, oldest first.
    memory_history: Vec<MemorySample>,
    /// The run at its end.
    session: SessionStatus,
    /// The last transfers, oldest first.
    history: Vec<Transfer>,
}

/// What the command and its descendants used.
#[derive(Debug, Serialize)]
struct Usage {
    /// Largest resident memory of one process.
    peak_resident_bytes: u64,
    user_seconds: f64,
    system_seconds: f64,
}

#[derive(Debug, Serialize)]
struct MemorySample {
    /// Since the start.
    seconds: f64,
    resident_bytes: u64,
    stage: &'static str,
}

#[derive(Debug, Serialize)]
struct Transfer {
    /// Since the start.
    seconds: f64,
    stream: &'static str,
    bytes: u32,
    way: &'static str,
}

impl Session<'_> {
    /// Leaves a report, if the command died in a way that asks for one.
    pub(super) fn report_crash(&self, exit: Exit, watch: Option<&Watch<'_>>) {
        let Some(directory) = &self.config.observe.crash_dump else { return };
        let Exit::Signal(signal) = exit else { return };
        if !ABNORMAL.contains(&signal) {
            return;
        }
        let report = self.crash_report(signal, exit.code(), watch);
        let written = serde_json::to_vec_pretty(&report)
            .map_err(io::Error::other)
            .and_then(|text| write(directory, &text));
        match written {
            Ok(path) => {
                let text = format!("crash report: {}", path.display());
                notice::notice(self.config.verbosity, &text);
            }
            Err(error) => {
                let tried = format!("write a crash report in {}", directory.to_string_lossy());
                notice::error(&Error::os(tried, error));
            }
        }
    }

    fn crash_report(&self, signal: i32, exit_status: u8, watch: Option<&Watch<'_>>) -> CrashReport {
        let transfers = self.observation.history().map(|record| Transfer {
            seconds: record.at().as_secs_f64(),
            stream: record.stream.name(),
            bytes: record.size,
            way: record.way.name(),
        });
        let samples = self.observation.stages.samples().map(|sample| MemorySample {
            seconds: sample.at.as_secs_f64(),
            resident_bytes: sample.resident,
            stage: sample.stage.name(),
        });
        let name = nix::sys::signal::Signal::try_from(signal);
        CrashReport {
            version: VERSION,
            time: jiff::Timestamp::now().to_string(),
            signal,
            signal_name: name.map_or("", |name| name.as_str()),
            exit_status,
            oom_kills: watch.map_or(0, Watch::killed),
            usage: Usage::of_children(),
            memory: watch.and_then(Watch::report),
            memory_history: samples.collect(),
            session: self.status(Instant::now()),
            history: transfers.collect(),
        }
    }
}

impl Usage {
    fn of_children() -> Usage {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN);
        let seconds = |micros: i64| micros as f64 / 1e6;
        match usage {
            Ok(usage) => Usage {
                // Linux counts in KiB (getrusage(2)).
                peak_resident_bytes: (usage.max_rss() as u64) << 10,
                user_seconds: seconds(usage.user_time().num_microseconds()),
                system_seconds: seconds(usage.system_time().num_microseconds()),
            },
            Err(_) => Usage { peak_resident_bytes: 0, user_seconds: 0.0, system_seconds: 0.0 },
        }
    }
}

/// Writes a new file that only this user can read, in a directory that is made if need be.
fn write(directory: &OsStr, text: &[u8]) -> io::Result<PathBuf> {
    let directory = Path::new(directory);
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let name = format!("nproxy-crash-{time}-{}.json", std::process::id());
    let path = directory.join(name);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(text)?;
    file.write_all(b"\n")?;
    Ok(path)
}
