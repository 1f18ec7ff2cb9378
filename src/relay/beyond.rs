//! What becomes of a copy's bytes behind its relay, where a thread of its own writes them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The books of such a thread. They are read while it runs.
#[derive(Debug, Default)]
pub struct Beyond {
    bytes: AtomicU64,
    taken: AtomicU64,
    kept: AtomicU64,
    steps: AtomicU64,
    lost: AtomicU64,
    resent: AtomicU64,
    finished: AtomicBool,
}

impl Beyond {
    /// So many bytes have arrived where the copy ends.
    pub fn wrote(&self, bytes: u64) {
        self.store(bytes);
        self.deliver(bytes);
    }

    /// So many bytes are safe on disk, from where they will arrive.
    pub fn store(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Relaxed);
    }

    /// So many of those have arrived. They may be an earlier run's.
    pub fn deliver(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// So many bytes that counted as arrived have not: they are lost.
    pub fn lose(&self, bytes: u64) {
        let _ = self.bytes.fetch_update(Relaxed, Relaxed, |had| Some(had.saturating_sub(bytes)));
        self.lose_stored(bytes);
    }

    /// So many bytes that counted as safe are lost.
    pub fn lose_stored(&self, bytes: u64) {
        let _ = self.taken.fetch_update(Relaxed, Relaxed, |had| Some(had.saturating_sub(bytes)));
        self.lost.fetch_add(bytes, Relaxed);
    }

    /// So many bytes are safe on disk and have not arrived yet.
    pub fn keep(&self, bytes: u64) {
        self.kept.store(bytes, Relaxed);
    }

    /// What arrives gets on, although it arrives again.
    pub fn advance(&self) {
        self.steps.fetch_add(1, Relaxed);
    }

    /// A figure that changes as long as the copy gets on.
    pub fn progress(&self) -> u64 {
        self.taken().wrapping_add(self.bytes()).wrapping_add(self.steps.load(Relaxed))
    }

    /// So many bytes were sent once more.
    pub fn resend(&self, bytes: u64) {
        self.resent.fetch_add(bytes, Relaxed);
    }

    /// Nothing more comes of it.
    pub fn finish(&self) {
        self.finished.store(true, Relaxed);
    }

    /// Whether nothing more comes of it.
    pub fn is_finished(&self) -> bool {
        self.finished.load(Relaxed)
    }

    /// Bytes that have arrived.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Bytes that have left the relay for good: they have arrived, or are safe on disk.
    pub fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    /// Bytes that are safe on disk and have not arrived yet.
    pub fn kept(&self) -> u64 {
        self.kept.load(Relaxed)
    }

    /// Bytes that were sent more than once.
    pub fn resent(&self) -> u64 {
        self.resent.load(Relaxed)
    }

    /// Of `handed` bytes that the relay has handed over: what is lost. While the thread runs, what it has not written
    /// is on its way.
    pub fn lost(&self, handed: u64) -> u64 {
        match self.finished.load(Relaxed) {
            true => handed.saturating_sub(self.taken()),
            false => self.lost.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_is_lost_at_the_end_only() {
        let books = Beyond::default();
        books.wrote(70);
        books.lose(20);
        books.resend(5);
        assert_eq!((books.bytes(), books.lost(100), books.resent()), (50, 20, 5));
        books.finish();
        assert_eq!(books.lost(100), 50);
        assert_eq!(books.lost(40), 0);
    }

    #[test]
    fn what_is_on_disk_is_neither_lost_nor_there() {
        let books = Beyond::default();
        books.store(100);
        books.deliver(30);
        books.keep(70);
        books.finish();
        assert_eq!(
            (books.bytes(), books.kept(), books.lost(100), books.lost(110)),
            (30, 70, 0, 10)
        );
        books.lose_stored(5);
        assert_eq!(books.lost(100), 5);
    }
}
