//! The crash report: what is known of a run whose command died abnormally, as a file.
//!
//! Figures, names and times only: no payload and nothing of the environment.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;

use super::figures::Figures;
use super::recorder::Recorder;
use super::stages::Stages;
use crate::memory::heap::Record;
use crate::observe::report::MemoryReport;
use crate::observe::status::SessionStatus;
use crate::process::exit::Exit;

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
    /// The last samples of the command's memory, oldest first.
    memory_history: Vec<MemorySample>,
    /// How the heaps of its Node processes have changed lately, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    heap_history: Vec<HeapSample>,
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
struct HeapSample {
    /// Since the start.
    seconds: f64,
    pid: u32,
    used_bytes: u64,
    /// What the last full collection found alive.
    live_bytes: u64,
    limit_bytes: u64,
    external_bytes: u64,
    near_limits: u64,
}

#[derive(Debug, Serialize)]
struct Transfer {
    /// Since the start.
    seconds: f64,
    stream: &'static str,
    bytes: u32,
    method: &'static str,
}

/// What a crash report is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence<'a> {
    /// How the command ended.
    pub(crate) exit: Exit,
    /// The run at its end.
    pub(crate) figures: &'a Figures,
    /// The last transfers.
    pub(crate) recorder: &'a Recorder,
    /// The last samples of its memory.
    pub(crate) stages: &'a Stages,
    /// What became of its memory.
    pub(crate) memory: Option<&'a MemoryReport>,
    /// Processes that the OOM killer ended meanwhile.
    pub(crate) oom_kills: u64,
    /// The last figures of its Node processes.
    pub(crate) heap_records: &'a [Record],
}

/// Writes a report into `directory` if the command died in a way that asks for one. Returns where it is.
///
/// # Errors
/// What the system says of the directory or the file.
pub(crate) fn report(directory: &OsStr, evidence: Evidence<'_>) -> io::Result<Option<PathBuf>> {
    let Exit::Signal(signal) = evidence.exit else { return Ok(None) };
    if !ABNORMAL.contains(&signal) {
        return Ok(None);
    }
    let text = serde_json::to_vec_pretty(&CrashReport::new(signal, evidence));
    write(directory, &text.map_err(io::Error::other)?).map(Some)
}

/// Whether reports can be written there: tries it, and leaves nothing behind. A directory that is missing is made with
/// the first report.
///
/// # Errors
/// Why not.
pub(crate) fn check_directory(directory: &Path) -> io::Result<()> {
    let made = match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    let name = format!(".nproxy-crash-{}", std::process::id());
    let path = directory.join(name);
    let tried = File::options().write(true).create_new(true).mode(0o600).open(&path);
    if tried.is_ok() {
        fs::remove_file(&path)?;
    }
    if made {
        // Another nproxy may use it by now.
        let _ = fs::remove_dir(directory);
    }
    match tried {
        // One that tried this at the same time has made it and taken it away.
        Err(_) if !made && !directory.exists() => Ok(()),
        tried => tried.map(drop),
    }
}

impl CrashReport {
    fn new(signal: i32, evidence: Evidence<'_>) -> CrashReport {
        let transfers = evidence.recorder.history().map(|record| Transfer {
            seconds: record.at().as_secs_f64(),
            stream: record.stream.name(),
            bytes: record.size,
            method: record.method.name(),
        });
        let samples = evidence.stages.samples().map(|sample| MemorySample {
            seconds: sample.at.as_secs_f64(),
            resident_bytes: sample.resident,
            stage: sample.stage.name(),
        });
        let heaps = evidence.heap_records.iter().map(|Record { at, heap }| HeapSample {
            seconds: at.as_secs_f64(),
            pid: heap.pid,
            used_bytes: heap.used,
            live_bytes: heap.live,
            limit_bytes: heap.limit,
            external_bytes: heap.external,
            near_limits: heap.near_limits,
        });
        let name = nix::sys::signal::Signal::try_from(signal);
        CrashReport {
            version: VERSION,
            time: jiff::Timestamp::now().to_string(),
            signal,
            signal_name: name.map_or("", |name| name.as_str()),
            exit_status: evidence.exit.code(),
            oom_kills: evidence.oom_kills,
            usage: Usage::of_children(),
            memory: evidence.memory.cloned(),
            memory_history: samples.collect(),
            heap_history: heaps.collect(),
            session: evidence.figures.status(),
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
