//! The fixed buffers that bytes pass through where they cannot be spliced.

/// A buffer of fixed size, registered with the kernel where the user's locked-memory limit allows.
///
/// It is moved into an operation and comes back with the completion, so nothing can touch the
/// bytes while the kernel may.
#[derive(Debug)]
pub struct Buffer {
    memory: Box<[u8]>,
    /// Its index in the ring's table of registered buffers.
    pub(super) index: Option<u16>,
}

impl Buffer {
    pub(super) fn new(len: usize) -> Buffer {
        Buffer { memory: vec![0; len].into_boxed_slice(), index: None }
    }

    /// The whole buffer, read-only.
    pub fn bytes(&self) -> &[u8] {
        &self.memory
    }

    /// The whole buffer, for filters that write into it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// Its size in bytes.
    #[allow(clippy::len_without_is_empty)] // a buffer has a size, never a fill level
    pub fn len(&self) -> usize {
        self.memory.len()
    }
}
