//! What a completion means for a transfer: the one place where results are read.

use nix::errno::Errno;

use crate::ring::Outcome;

/// The meaning of one completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Moved(u32),
    EndOfFile,
    /// One of the ends would have had to wait and may not.
    WouldBlock,
    /// Nothing happened; the same again.
    Again,
    /// Taken back on request.
    Cancelled,
    /// The kernel does not do this between these two.
    Refused,
    ReaderLeft,
    Failed(Errno),
}

impl Verdict {
    pub(super) fn of(outcome: Outcome) -> Verdict {
        match outcome {
            Outcome::Done(0) => Verdict::EndOfFile,
            Outcome::Done(moved) => Verdict::Moved(moved),
            Outcome::Cancelled => Verdict::Cancelled,
            Outcome::Failed(Errno::EAGAIN) => Verdict::WouldBlock,
            Outcome::Failed(Errno::EINTR) => Verdict::Again,
            Outcome::Failed(Errno::EINVAL) => Verdict::Refused,
            Outcome::Failed(Errno::EPIPE | Errno::ECONNRESET) => Verdict::ReaderLeft,
            Outcome::Failed(errno) => Verdict::Failed(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_in_one_way() {
        let cases = [
            (Outcome::Done(0), Verdict::EndOfFile),
            (Outcome::Done(7), Verdict::Moved(7)),
            (Outcome::Cancelled, Verdict::Cancelled),
            (Outcome::Failed(Errno::EAGAIN), Verdict::WouldBlock),
            (Outcome::Failed(Errno::EINTR), Verdict::Again),
            (Outcome::Failed(Errno::EINVAL), Verdict::Refused),
            (Outcome::Failed(Errno::EPIPE), Verdict::ReaderLeft),
            (Outcome::Failed(Errno::ECONNRESET), Verdict::ReaderLeft),
            (Outcome::Failed(Errno::ENOSPC), Verdict::Failed(Errno::ENOSPC)),
        ];
        for (outcome, verdict) in cases {
            assert_eq!(Verdict::of(outcome), verdict);
        }
    }
}
