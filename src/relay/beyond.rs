//! What becomes of a copy's bytes behind its relay, where a thread of its own writes them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The books of such a thread. They are read while it runs.
#[derive(Debug, Default)]
pub struct Beyond {
    bytes: AtomicU64,
    lost: AtomicU64,
    resent: AtomicU64,
    finished: AtomicBool,
}

impl Beyond {
    /// So many bytes have arrived where the copy ends.
    pub fn wrote(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// So many bytes that counted as arrived have not: they are lost.
    pub fn lose(&self, bytes: u64) {
        let _ = self.bytes.fetch_update(Relaxed, Relaxed, |had| Some(had.saturating_sub(bytes)));
        self.lost.fetch_add(bytes, Relaxed);
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

    /// Bytes that were sent more than once.
    pub fn resent(&self) -> u64 {
        self.resent.load(Relaxed)
    }

    /// Of `handed` bytes that the relay has handed over: what is lost. While the thread runs, what it has not written
    /// is on its way.
    pub fn lost(&self, handed: u64) -> u64 {
        match self.finished.load(Relaxed) {
            true => handed.saturating_sub(self.bytes()),
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
}
