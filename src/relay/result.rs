//! What a completion means for a transfer: the one place where results are read.

use nix::errno::Errno;

use crate::ring::Outcome;

/// The meaning of one completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransferResult {
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
    /// The reader of what was written is gone.
    ReaderLeft,
    /// The peer of a socket has broken the connection off.
    Reset,
    Failed(Errno),
}

impl TransferResult {
    pub(super) fn of(outcome: Outcome) -> TransferResult {
        match outcome {
            Outcome::Done(0) => TransferResult::EndOfFile,
            Outcome::Done(moved) => TransferResult::Moved(moved),
            Outcome::Cancelled => TransferResult::Cancelled,
            Outcome::Failed(Errno::EAGAIN) => TransferResult::WouldBlock,
            Outcome::Failed(Errno::EINTR) => TransferResult::Again,
            Outcome::Failed(Errno::EINVAL) => TransferResult::Refused,
            Outcome::Failed(Errno::EPIPE) => TransferResult::ReaderLeft,
            Outcome::Failed(Errno::ECONNRESET) => TransferResult::Reset,
            Outcome::Failed(errno) => TransferResult::Failed(errno),
        }
    }

    /// The error that it stands for, when it is one.
    pub(super) fn errno(self) -> Errno {
        match self {
            TransferResult::Failed(errno) => errno,
            TransferResult::ReaderLeft => Errno::EPIPE,
            TransferResult::Reset => Errno::ECONNRESET,
            _ => Errno::EINVAL,
        }
    }

    /// The same for the first of several splices: one that is forbidden is refused between any two ends.
    pub(super) fn of_splice(self) -> TransferResult {
        match self {
            TransferResult::Failed(errno) if is_forbidden(errno) => TransferResult::Refused,
            result => result,
        }
    }
}

/// Whether the kernel has looked at nothing but the number of the system call: it does not know it, or a seccomp filter
/// forbids it.
pub(super) fn is_forbidden(errno: Errno) -> bool {
    matches!(errno, Errno::ENOSYS | Errno::EPERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_in_one_way() {
        let cases = [
            (Outcome::Done(0), TransferResult::EndOfFile),
            (Outcome::Done(7), TransferResult::Moved(7)),
            (Outcome::Cancelled, TransferResult::Cancelled),
            (Outcome::Failed(Errno::EAGAIN), TransferResult::WouldBlock),
            (Outcome::Failed(Errno::EINTR), TransferResult::Again),
            (Outcome::Failed(Errno::EINVAL), TransferResult::Refused),
            (Outcome::Failed(Errno::EPIPE), TransferResult::ReaderLeft),
            (Outcome::Failed(Errno::ECONNRESET), TransferResult::Reset),
            (Outcome::Failed(Errno::ENOSPC), TransferResult::Failed(Errno::ENOSPC)),
        ];
        for (outcome, result) in cases {
            assert_eq!(TransferResult::of(outcome), result);
        }
    }
}
