//! Which bytes of a copy a spool holds, and how far they have got. Pure.
//!
//! ```text
//!   0 ··· removed ··· │ oldest segment │ … │ current segment │
//!                          ▲          ▲             ▲        ▲
//!                         safe     position        sent     end
//! ```
//!
//! Before `safe` the collector has read everything, whatever becomes of the connection. `sent` is how far bytes may have got
//! into a socket at any time; it is written down before they do. `position` is where the present connection is: after a lost
//! one it begins at a line's start not behind `safe`. What lies between is sent once more.

use std::collections::VecDeque;

use crate::copies::segments::names::Micros;

/// What is kept of what was sent, at least, in bytes.
pub(super) const KEEP: u64 = 16 << 20;

/// A segment on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Where it begins.
    pub(super) start: u64,
    pub(super) size: u64,
    /// What it is known by, whatever it is called.
    pub(super) inode: u64,
    /// When it was finished; the current one is not.
    pub(super) time: Option<Micros>,
}

impl Part {
    pub(super) fn end(&self) -> u64 {
        self.start + self.size
    }
}

/// What is written down, so that the next run can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The oldest segment, and where it begins.
    pub(super) inode: u64,
    pub(super) start: u64,
    pub(super) safe: u64,
    pub(super) sent: u64,
}

/// What a spool holds.
#[derive(Debug)]
pub(super) struct Backlog {
    /// In order; the last one is the current one.
    parts: VecDeque<Part>,
    safe: u64,
    sent: u64,
    position: u64,
    /// How far bytes have really got, as far as this run knows.
    reached: u64,
    /// What the collector may have been sent and not read.
    keep: u64,
}

impl Backlog {
    /// Of the segments that are there, each with its size, and what was written down of them. The last one is the current one.
    pub(super) fn new(mut parts: Vec<Part>, record: Option<Record>) -> Backlog {
        // One that is not among them was left by other hands: all of it counts as not sent.
        let known = record.and_then(|record| {
            let at = parts.iter().position(|part| part.inode == record.inode)?;
            let before: u64 = parts[..at].iter().map(|part| part.size).sum();
            // Older ones should have been removed.
            Some((record.start.checked_sub(before)?, record))
        });
        let mut start = known.map_or(0, |(start, _)| start);
        let first = start;
        for part in &mut parts {
            part.start = start;
            start += part.size;
        }
        // What the machine has lost in a crash cannot be sent.
        let within = |at: u64| at.clamp(first, start);
        let safe = known.map_or(first, |(_, record)| within(record.safe));
        let sent = known.map_or(first, |(_, record)| within(record.sent)).max(safe);
        let parts = parts.into();
        Backlog { parts, safe, sent, position: safe, reached: sent, keep: KEEP }
    }

    pub(super) fn record(&self) -> Record {
        let (inode, start) = self.parts.front().map_or((0, 0), |part| (part.inode, part.start));
        Record { inode, start, safe: self.safe, sent: self.sent }
    }

    /// Where the bytes end.
    pub(super) fn end(&self) -> u64 {
        self.parts.back().map_or(0, Part::end)
    }

    pub(super) fn is_current(&self, part: &Part) -> bool {
        self.parts.back().is_some_and(|current| current.inode == part.inode)
    }

    /// Bytes that were never sent.
    pub(super) fn unsent(&self) -> u64 {
        self.end() - self.sent.min(self.end())
    }

    /// Bytes that were sent and may not have been read.
    pub(super) fn unconfirmed(&self) -> u64 {
        self.sent - self.safe
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn reached(&self) -> u64 {
        self.reached
    }

    pub(super) fn safe(&self) -> u64 {
        self.safe
    }

    /// So many bytes were added to the current segment.
    pub(super) fn wrote(&mut self, bytes: u64) {
        if let Some(current) = self.parts.back_mut() {
            current.size += bytes;
        }
    }

    /// The current segment was finished, and the next one is this.
    pub(super) fn finished(&mut self, time: Option<Micros>, next_inode: u64) {
        let start = self.end();
        if let Some(current) = self.parts.back_mut() {
            current.time = time;
        }
        self.parts.push_back(Part { start, size: 0, inode: next_inode, time: None });
    }

    /// Where a new connection begins at the latest, and the segment in which a line's start is to be looked for before it.
    pub(super) fn restart(&self) -> (Option<Part>, u64) {
        let before = |part: &&Part| part.start < self.safe && self.safe <= part.end();
        (self.parts.iter().find(before).copied(), self.safe)
    }

    /// A connection begins there. `window` is what its peer's kernel may hold.
    pub(super) fn connected(&mut self, at: u64, window: u64) {
        self.position = at.min(self.safe);
        self.keep = KEEP.max(window);
    }

    /// What is to be sent next: a segment, and the place in it. `None` if all is sent.
    pub(super) fn next(&self) -> Option<(Part, u64)> {
        let at = self.position;
        let part = self.parts.iter().find(|part| at < part.end())?;
        debug_assert!(part.start <= at, "what is to be sent is kept");
        Some((*part, at.saturating_sub(part.start)))
    }

    /// So many bytes are about to be sent. True if that is to be written down first.
    pub(super) fn will_send(&mut self, bytes: u64) -> bool {
        let to = self.position + bytes;
        let further = to > self.sent;
        self.sent = self.sent.max(to);
        further
    }

    /// So many bytes were sent. How many of them were sent before.
    pub(super) fn has_sent(&mut self, bytes: u64) -> u64 {
        let from = self.position;
        self.position += bytes;
        self.safe = self.safe.max(self.position.saturating_sub(self.keep));
        let again = self.reached.min(self.position).saturating_sub(from);
        self.reached = self.reached.max(self.position);
        again
    }

    /// The collector has read all that was sent.
    pub(super) fn confirmed(&mut self) {
        self.safe = self.safe.max(self.position);
    }

    /// A segment that cannot be had any more is passed over. How many bytes that never were sent are lost with it.
    pub(super) fn skip(&mut self, part: Part) -> u64 {
        let lost = part.end().saturating_sub(self.reached.max(part.start));
        self.position = self.position.max(part.end());
        for at in [&mut self.safe, &mut self.sent, &mut self.reached] {
            *at = (*at).max(part.end());
        }
        lost
    }

    /// Takes out the oldest segments that nobody needs any more.
    pub(super) fn surplus(&mut self) -> Vec<Part> {
        let finished = self.parts.len().saturating_sub(1);
        // A connection may begin in front of `safe`, with the line that ends there.
        let needed = self.safe.min(self.position);
        let needless = self.parts.iter().take(finished).take_while(|part| part.end() <= needed);
        let count = needless.count();
        self.parts.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests;
