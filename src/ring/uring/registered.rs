//! The ring's table of registered buffers: the kernel keeps their pages at hand, so that it need not look them up for each
//! read and write.

#![allow(unsafe_code)]

use std::io;

use io_uring::IoUring;

use crate::ring::buffer::Buffer;

/// Size of the table: more buffers than the relays of a session use.
const ENTRIES: u32 = 16;
/// What a user may lock is shared by all processes of that user, and rings take from it too: a buffer is
/// registered only where this many more would fit.
const SPARE: u32 = 3;

#[derive(Debug)]
pub(super) enum Registered {
    /// No buffer has been asked for yet.
    Unused,
    /// The kernel has a table; this many entries are taken.
    Table(u16),
    /// The kernel refused (locked-memory limit): plain reads and writes do the work.
    Refused,
}

impl Registered {
    /// Registers a buffer, unless the kernel has refused one before.
    pub(super) fn add(&mut self, ring: &IoUring, buffer: &mut Buffer) {
        if matches!(self, Registered::Unused) {
            let table = ring.submitter().register_buffers_sparse(ENTRIES);
            let fits = table.is_ok() && has_spare(ring, buffer);
            *self = if fits { Registered::Table(0) } else { Registered::Refused };
        }
        let Registered::Table(used) = *self else { return };
        if u32::from(used) == ENTRIES {
            return;
        }
        match set_entry(ring, used.into(), Some(buffer)) {
            Ok(()) => {
                buffer.index = Some(used);
                *self = Registered::Table(used + 1);
            }
            Err(_) => *self = Registered::Refused,
        }
    }
}

/// Whether some more buffers of this size could be locked. Each entry of the table counts for itself,
/// also if it names the same memory.
fn has_spare(ring: &IoUring, buffer: &mut Buffer) -> bool {
    let entries = 0..=SPARE;
    let fits = entries.clone().all(|entry| set_entry(ring, entry, Some(buffer)).is_ok());
    let emptied = entries.map(|entry| set_entry(ring, entry, None)).all(|result| result.is_ok());
    fits && emptied
}

/// Fills an entry of the table, or empties it.
fn set_entry(ring: &IoUring, entry: u32, buffer: Option<&mut Buffer>) -> io::Result<()> {
    let memory = buffer.map_or(&mut [][..], Buffer::bytes_mut);
    let base = if memory.is_empty() { std::ptr::null_mut() } else { memory.as_mut_ptr() };
    let iovec = libc::iovec { iov_base: base.cast(), iov_len: memory.len() };
    // SAFETY: the kernel pins these pages. They are only used through `ReadFixed` and `WriteFixed`,
    // whose operations own the buffer until they complete; a pinned page outlives our freeing it.
    unsafe { ring.submitter().register_buffers_update(entry, &[iovec], None) }
}
