//! The page that this process writes its heap's figures to: nproxy's, if there is one, else its own.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use nproxy::memory::heap_page::{BYTES, Page, WORDS};

/// A page of this process's own.
pub(crate) fn own() -> Page<'static> {
    Page::begin(Box::leak(Box::new([const { AtomicU64::new(0) }; WORDS])))
}

/// The page at `path`, which nproxy made. It stays mapped for as long as the process lives.
pub(crate) fn shared(path: &str) -> io::Result<Page<'static>> {
    let file = File::options().read(true).write(true).open(path)?;
    // Beyond the end of a shorter file an access would be a SIGBUS.
    if file.metadata()?.len() != BYTES as u64 {
        return Err(io::Error::other("not a page of nproxy's"));
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, at a place of the kernel's choice.
    let start = unsafe {
        libc::mmap(ptr::null_mut(), BYTES, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: so many bytes are mapped, for ever, and aligned to a page; all who share them use atomic words. The file
    // is sealed against shrinking.
    let words = unsafe { &*start.cast::<[AtomicU64; WORDS]>() };
    Page::open(words).ok_or_else(|| io::Error::other("another version of nproxy"))
}

/// The number of this process's PID namespace; 0 where /proc does not say.
pub(crate) fn pid_namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino())
}

/// The half of a request word that a futex waits for, whose value `Request::of` reads.
fn half(word: &AtomicU64) -> *const AtomicU32 {
    let low = if cfg!(target_endian = "little") { 0 } else { 1 };
    ptr::from_ref(word).cast::<AtomicU32>().wrapping_add(low)
}

/// The low half of a request word.
pub(crate) fn low(word: &AtomicU64) -> u32 {
    word.load(Ordering::Acquire) as u32
}

/// Waits until the low half of `word` is no longer `seen`, or for `timeout`. May return earlier.
pub(crate) fn wait(word: &AtomicU64, seen: u32, timeout: Option<Duration>) {
    let time = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: futex(2): the word is mapped for ever, and the time is read before the call returns. Not the private kind:
    // nproxy wakes us from its own process.
    unsafe { libc::syscall(libc::SYS_futex, half(word), libc::FUTEX_WAIT, seen, time) };
}

/// Wakes who waits for `word`.
pub(crate) fn wake(word: &AtomicU64) {
    // SAFETY: futex(2), as above.
    unsafe { libc::syscall(libc::SYS_futex, half(word), libc::FUTEX_WAKE, i32::MAX) };
}
