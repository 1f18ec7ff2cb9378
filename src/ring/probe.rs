//! Opens an io_uring, and reads once what this kernel offers.

#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::types::{Fd as RawTarget, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, opcode};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

/// Submission queue entries. A chain must fit; a full queue is submitted early, not an error.
const ENTRIES: u32 = 32;
/// What a splice completes with that was interrupted; no system call would let it through.
const ERESTARTSYS: i32 = 512;
/// A process limit below this many may be used up, or nearly: then every worker is tried, not only one.
const CLOSE_LIMIT: u64 = 2000;
/// How long workers may take to start where that is in doubt.
const START: Duration = Duration::from_millis(50);
/// How long they may take to answer. Of several, those that cannot be had never do; of one the kernel says so at once, so
/// silence only means that the machine is very busy (eight busy loops on two processors have kept one from running for 3 s).
const PATIENCE: Duration = Duration::from_secs(2);
const PATIENCE_WITH_ONE: Duration = Duration::from_secs(10);
/// How long one wait for them may last.
const STEP: Duration = Duration::from_millis(100);

/// The kernel threads that blocked transfers of io_uring may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers {
    /// How many at once: at least the number of operations that can block at the same time, or one starves another.
    pub most: u32,
    /// Whether there will be such operations. If not, it is not tried at the beginning whether the kernel can start a
    /// worker, which takes a third of a millisecond.
    pub needed: bool,
}

/// The operations that the program cannot do without, with the names that messages use.
const REQUIRED: [(u8, &str); 9] = [
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::Splice::CODE, "SPLICE"),
    (opcode::Tee::CODE, "TEE"),
    (opcode::Read::CODE, "READ"),
    (opcode::Write::CODE, "WRITE"),
    (opcode::ReadFixed::CODE, "READ_FIXED"),
    (opcode::WriteFixed::CODE, "WRITE_FIXED"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
    (opcode::Timeout::CODE, "TIMEOUT"),
];

/// Opens one with what newer kernels offer, or without it on older ones.
pub(super) fn open() -> io::Result<IoUring> {
    let modern = IoUring::builder()
        // Only this thread submits (6.0): the kernel skips a lock.
        .setup_single_issuer()
        // Completion work runs when we wait (6.1), not as an interruption of what we do.
        .setup_defer_taskrun()
        .build(ENTRIES);
    match modern {
        // The answer of kernels that do not know a setup flag.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            IoUring::builder().build(ENTRIES)
        }
        answer => answer,
    }
}

/// Checks that every operation and feature that the driver uses is there.
///
/// # Errors
/// `Unsupported`, naming what is missing.
pub(super) fn check(ring: &mut IoUring) -> io::Result<()> {
    // Waiting with a time limit (5.11) and completions that are never dropped (5.5).
    if !ring.params().is_feature_ext_arg() {
        return Err(unsupported("EXT_ARG"));
    }
    if !ring.params().is_feature_nodrop() {
        return Err(unsupported("NODROP"));
    }
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    if let Some((_, name)) = REQUIRED.iter().find(|(code, _)| !probe.is_supported(*code)) {
        return Err(unsupported(name));
    }
    Ok(())
}

/// Bounds the kernel's workers, and makes sure that it can run as many at once as may have to block: one too few, and
/// a blocked transfer holds up another for ever. A process limit (RLIMIT_NPROC) lowers the bound silently, and
/// processes of the same user may have used it up.
///
/// # Errors
/// `Unsupported`, or what the kernel says.
pub(super) fn check_workers(ring: &mut IoUring, workers: u32) -> io::Result<()> {
    let limit = getrlimit(Resource::RLIMIT_NPROC).map_or(RLIM_INFINITY, |(soft, _)| soft);
    // Where every worker is tried, one more keeps a place for the command.
    let (bound, tried) =
        if limit < CLOSE_LIMIT { (workers + 1, workers + 1) } else { (workers, 1) };
    // Bounded (regular files) and unbounded (everything else) workers. Kernels before 5.15 do not know the call and
    // bound workers by the process limit alone.
    let known = ring.submitter().register_iowq_max_workers(&mut [bound, bound]).is_ok();
    let mut granted = [0, 0];
    // Zeroes change nothing; what comes back is what holds.
    if known
        && ring.submitter().register_iowq_max_workers(&mut granted).is_ok()
        && granted.iter().any(|granted| *granted < bound)
    {
        return Err(unsupported("workers (process limit)"));
    }
    start_workers(ring, tried)
}

/// Lets so many workers splice from an empty pipe, then ends it. Where the user may start no more threads, the kernel
/// cancels what needs the first, which would look like our own doing later on, and lets what needs another wait.
/// Workers stay for five seconds, so the first splices find them there.
fn start_workers(ring: &mut IoUring, count: u32) -> io::Result<()> {
    let ((reader, writer), (_sink, to)) = (io::pipe()?, io::pipe()?);
    let (from, to) = (RawTarget(reader.as_raw_fd()), RawTarget(to.as_raw_fd()));
    for _ in 0..count {
        let splice = opcode::Splice::new(from, -1, to, -1, 1).build();
        // SAFETY: the entry names no memory; the kernel takes hold of the pipes when it is submitted.
        while unsafe { ring.submission().push(&splice) }.is_err() {
            enter(ring, 0, Duration::ZERO)?;
        }
    }
    enter(ring, 0, Duration::ZERO)?;
    let deadline = Instant::now() + START;
    // One shows by what it does. Of several, each starts the next.
    let mut started = if count == 1 { 1 } else { workers_started() };
    while started < count as usize && Instant::now() < deadline {
        enter(ring, 1, Duration::from_millis(1))?;
        started = workers_started();
    }
    drop(writer);
    let patience = if count == 1 { PATIENCE_WITH_ONE } else { PATIENCE };
    let deadline = Instant::now() + patience;
    let (mut ended, mut result) = (0, 0);
    while ended < count && Instant::now() < deadline {
        enter(ring, 1, STEP)?;
        for entry in ring.completion() {
            ended += 1;
            // A worker that a stop (Ctrl-Z) has interrupted was there.
            let interrupted = matches!(-entry.result(), libc::EINTR | ERESTARTSYS);
            result = result.min(if interrupted { 0 } else { entry.result() });
        }
    }
    match result {
        _ if ended < count => Err(unsupported("a worker that runs (process limit)")),
        0 if started >= count as usize => Ok(()),
        0 => Err(unsupported("workers (process limit)")),
        result if result == -libc::ECANCELED => Err(unsupported("a worker (process limit)")),
        result => Err(io::Error::from_raw_os_error(-result)),
    }
}

/// Workers are threads of this process, which has no others.
fn workers_started() -> usize {
    fs::read_dir("/proc/self/task").map_or(usize::MAX, |tasks| tasks.count().saturating_sub(1))
}

/// Submits what waits, and waits a while for `wanted` completions. A stop (Ctrl-Z) ends a wait early, and what was
/// submitted before it counts as success.
fn enter(ring: &mut IoUring, wanted: usize, limit: Duration) -> io::Result<()> {
    let limit = Timespec::from(limit);
    match ring.submitter().submit_with_args(wanted, &SubmitArgs::new().timespec(&limit)) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ETIME)) => Ok(()),
        entered => entered.map(drop),
    }
}

fn unsupported(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("this kernel's io_uring lacks {name}"))
}
