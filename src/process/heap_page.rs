//! The page of shared memory that Node processes write their heaps' figures to.
//!
//! They open it by its path, because descriptors do not get through to the processes that Node starts. It
//! is sealed, so that nobody can shrink it under those who read it.

#![allow(unsafe_code)]

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

use crate::memory::heap_page::{BYTES, Collection, Page, Slot, WORDS};

/// The page, for as long as nproxy runs.
#[derive(Debug)]
pub(crate) struct HeapPage {
    file: OwnedFd,
    page: Page<'static>,
}

impl HeapPage {
    /// Makes the page. It stays mapped until nproxy ends.
    ///
    /// # Errors
    /// What memfd_create(2) or mmap(2) says.
    pub(crate) fn new() -> io::Result<HeapPage> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create(c"nproxy-heaps", flags)?;
        ftruncate(&file, BYTES as i64)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let fd = file.as_raw_fd();
        // SAFETY: a new mapping, at a place of the kernel's choice.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), BYTES, protection, libc::MAP_SHARED, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: so many bytes are mapped for ever, aligned to a page, and cannot go away for the seals; all who share
        // them use atomic words.
        let words = unsafe { &*start.cast::<[AtomicU64; WORDS]>() };
        let page = Page::begin(words);
        page.set_namespace(pid_namespace());
        Ok(HeapPage { file, page })
    }

    /// Where others find it while this process lives.
    pub(crate) fn path(&self) -> OsString {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// What is written in it.
    pub(crate) fn page(&self) -> Page<'static> {
        self.page
    }
}

/// The number of this process's PID namespace; 0 where /proc does not say.
fn pid_namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino())
}

/// Asks a process for a collection.
pub(crate) fn ask(slot: Slot<'static>, collection: Collection) {
    slot.request(collection);
    let low = if cfg!(target_endian = "little") { 0 } else { 1 };
    let half = ptr::from_ref(slot.request_word()).cast::<AtomicU32>().wrapping_add(low);
    // SAFETY: futex(2): the word is mapped for ever. Not the private kind: the one who waits is another process.
    unsafe { libc::syscall(libc::SYS_futex, half, libc::FUTEX_WAKE, i32::MAX) };
}
