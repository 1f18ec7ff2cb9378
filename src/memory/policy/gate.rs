//! Whether the closed gate does harm: a child that queues its own output grows when it is held back.

use std::time::Duration;

use super::{Sample, Source};

/// The blocked time over which growth is judged.
const WINDOW: Duration = Duration::from_secs(1);

/// Growth over the window that counts as harm, as a share of the memory at its beginning: one part in
/// so many.
const HARMFUL_PART: u64 = 20;

/// Judges one episode of a closed gate.
#[derive(Clone, Debug, Default)]
pub(super) struct Judge {
    verdict: Verdict,
    /// Memory when the window began.
    base: u64,
    /// Time in which bytes waited unread.
    blocked: Duration,
    /// How much memory grew in that time.
    grown: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Verdict {
    #[default]
    None,
    Harmful,
}

impl Judge {
    /// Takes the time between two samples in. True if it turned out that the gate does harm.
    pub(super) fn sample(&mut self, last: Sample, now: Sample) -> bool {
        if self.found_harm() {
            return false;
        }
        // With nothing unread the child was not held back, and what it did is its own affair.
        if last.source == Source::Empty || now.source == Source::Empty {
            return false;
        }
        if self.blocked.is_zero() {
            self.base = last.resident;
            self.grown = 0;
        }
        self.blocked += now.at.saturating_sub(last.at);
        self.grown += now.resident.saturating_sub(last.resident) as i64
            - last.resident.saturating_sub(now.resident) as i64;
        if self.blocked < WINDOW {
            return false;
        }
        self.blocked = Duration::ZERO;
        if self.grown > 0 && self.grown as u64 >= self.base / HARMFUL_PART {
            self.verdict = Verdict::Harmful;
        }
        self.found_harm()
    }

    pub(super) fn found_harm(&self) -> bool {
        self.verdict == Verdict::Harmful
    }
}
