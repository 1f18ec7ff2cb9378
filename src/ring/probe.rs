//! What this kernel's io_uring offers, read once when the ring is opened.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use io_uring::squeue::Flags;
use io_uring::types::Fd as RawTarget;
use io_uring::{IoUring, Probe, opcode};

/// The operations that the program cannot do without, with the names that messages use.
const REQUIRED: [(u8, &str); 8] = [
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::Splice::CODE, "SPLICE"),
    (opcode::Tee::CODE, "TEE"),
    (opcode::Read::CODE, "READ"),
    (opcode::Write::CODE, "WRITE"),
    (opcode::ReadFixed::CODE, "READ_FIXED"),
    (opcode::WriteFixed::CODE, "WRITE_FIXED"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
];

/// Checks that every operation and feature that the driver uses is there, and that the kernel can start
/// a worker.
///
/// # Errors
/// `Unsupported`, naming what is missing; or what the kernel says of the worker.
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
    check_worker(ring)
}

/// Lets a worker read the end of an empty pipe. Where the user may start no more threads
/// (RLIMIT_NPROC), the kernel cancels what needs one, which would look like our own doing later on.
/// The worker stays for five seconds, so the first splice finds it there.
fn check_worker(ring: &mut IoUring) -> io::Result<()> {
    let (reader, _) = io::pipe()?;
    let mut byte = [0u8; 1];
    let target = RawTarget(reader.as_raw_fd());
    let read = opcode::Read::new(target, byte.as_mut_ptr(), 1).build().flags(Flags::ASYNC);
    // SAFETY: pipe and buffer outlive the wait below, which does not return before the read is over.
    unsafe { ring.submission().push(&read) }.map_err(io::Error::other)?;
    let result = loop {
        match ring.submit_and_wait(1) {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            entered => {
                entered?;
            }
        }
        // A stop (Ctrl-Z) ends the wait early, and what was submitted before it counts as success.
        if let Some(entry) = ring.completion().next() {
            break entry.result();
        }
    };
    match result {
        0 => Ok(()),
        result if result == -libc::ECANCELED => Err(unsupported("a worker (process limit)")),
        result => Err(io::Error::from_raw_os_error(-result)),
    }
}

fn unsupported(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("this kernel's io_uring lacks {name}"))
}
