//! The fds that nproxy was started with, and pipes of its own.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};

use super::startup;
use crate::error::Error;
use crate::relay::{Endpoint, Stream};

/// Lets go of our own stdin and stdout: the relays have theirs, and who closes them has to close the
/// last copy. The numbers stay taken, so that no file opened later becomes "stdout". stderr is kept
/// for messages.
pub(crate) fn release_standard_fds() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(&null);
        let _ = nix::unistd::dup2_stdout(&null);
    }
}

/// A pipe of our own, close-on-exec at both ends: reader, writer.
///
/// # Errors
/// One that says what the pipe was for.
pub(crate) fn new_pipe(purpose: &str) -> Result<(OwnedFd, OwnedFd), Error> {
    let tried = |error| Error::os(format!("make a pipe for {purpose}"), error);
    let (reader, writer) = io::pipe().map_err(tried)?;
    Ok((reader.into(), writer.into()))
}

/// A close-on-exec duplicate of an fd that nproxy was started with.
///
/// # Errors
/// EBADF if there is none of that number. What is open but close-on-exec did not come through exec(2):
/// it is something that we have opened ourselves by now.
pub(crate) fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only asks for the flags of a number, open or not.
    let flags = Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    let was_closed = usize::try_from(number).is_ok_and(|fd| fd < 3 && startup::was_closed(fd));
    if was_closed || flags & libc::FD_CLOEXEC != 0 {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: F_DUPFD_CLOEXEC takes any number and refuses one that is not open.
    let fd = Errno::result(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the kernel just made this fd for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn source_end(fd: OwnedFd, stream: Stream) -> Result<Endpoint, Error> {
    Endpoint::source(fd).map_err(|errno| examine(stream, errno))
}

pub(crate) fn sink_end(fd: OwnedFd, stream: Stream) -> Result<Endpoint, Error> {
    Endpoint::sink(fd).map_err(|errno| examine(stream, errno))
}

/// One of our standard fds: 0, 1 or 2.
pub(crate) fn standard(number: usize) -> BorrowedFd<'static> {
    debug_assert!(number < 3);
    // SAFETY: these numbers stay open, as themselves or as /dev/null, for as long as this process runs.
    unsafe { BorrowedFd::borrow_raw(number as i32) }
}

fn examine(stream: Stream, errno: Errno) -> Error {
    Error::os(format!("examine {}", stream.name()), errno)
}

/// A close-on-exec duplicate of one of our three streams. For one that was closed when we started it
/// is an fd that refuses with EBADF what is asked of it, as a closed one would: the failure is then
/// met, and told, when there are bytes to carry.
pub(crate) fn own(number: usize, stream: Stream) -> Result<OwnedFd, Error> {
    let tried = |error| Error::os(format!("use {}", stream.name()), error);
    if startup::was_closed(number) {
        let reads = number == 0;
        let wrong_way = File::options().read(!reads).write(reads).open("/dev/null");
        return wrong_way.map(OwnedFd::from).map_err(tried);
    }
    standard(number).try_clone_to_owned().map_err(tried)
}

/// Whether stdout and stderr are one and the same open file, as after `2>&1`.
pub(crate) fn same_file() -> bool {
    let (Ok(stdout), Ok(stderr)) = (fstat(io::stdout()), fstat(io::stderr())) else { return false };
    if (stdout.st_dev, stdout.st_ino) != (stderr.st_dev, stderr.st_ino) {
        return false;
    }
    let regular = SFlag::from_bits_truncate(stdout.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
    // A pipe or terminal opened twice is still one queue; a regular file opened twice has two
    // positions, unless both append.
    !regular || same_description() || (appends(io::stdout()) && appends(io::stderr()))
}

fn same_description() -> bool {
    const KCMP_FILE: libc::c_int = 0;
    let pid = std::process::id();
    // SAFETY: kcmp(2) takes numbers only. Where it is forbidden the answer is "no", not a wrong "yes".
    unsafe { libc::syscall(libc::SYS_kcmp, pid, pid, KCMP_FILE, 1, 2) == 0 }
}

fn appends(fd: impl AsFd) -> bool {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map(OFlag::from_bits_truncate);
    flags.is_ok_and(|flags| flags.contains(OFlag::O_APPEND))
}
