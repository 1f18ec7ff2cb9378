//! What can be asked of the ring: one typed constructor per operation, and the token that names it.
//!
//! An operation owns the fds and the buffer it uses until its completion arrives, so neither can be
//! closed, freed or reused under the kernel's hands.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::buffer::Buffer;

/// A file descriptor shared by its endpoint and the operations in flight on it.
///
/// The descriptor closes when the last of them lets go of it.
pub type Fd = Rc<OwnedFd>;

/// What a completion is about. The session's one `match` over these is the index of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// Somebody has connected to the status socket.
    Control,
    /// Events are written into their file.
    Event,
    /// The signalfd has something to read.
    Signal,
    /// The child's pidfd became readable: it ended.
    ChildExit,
    /// The kernel says that tasks stall for want of memory.
    MemoryStall,
    /// The kernel has counted something in the child's memory cgroup.
    MemoryEvent,
    /// A thread that writes a copy has ended.
    CopyWritten,
    /// A thread has written to a regular file: the ring's own, nobody else sees it.
    FileWritten,
    /// The monitor has something to report.
    MonitorEvent,
    /// Our terminal has something to read for the child's.
    Key,
    /// The child's terminal takes keys again.
    KeyRoom,
    /// A relay's sink reports an error or that its reader left.
    SinkWatch,
    /// Bytes move from a relay's source straight into its sink.
    Splice,
    /// Bytes move from a relay's source into its broker pipe.
    Fill,
    /// Bytes move from a relay's broker pipe into its sink.
    Drain,
    /// Bytes are read from a relay's source into a buffer.
    Read,
    /// Bytes are written from a buffer into a relay's sink.
    Write,
    /// A relay's source has bytes, to be shared out to its copies.
    Input,
    /// Bytes of a relay's source are duplicated into a copy's pipe.
    Tee,
    /// A line that stands for dropped bytes is written into a copy's pipe.
    Mark,
}

impl Operation {
    const ALL: [Operation; 20] = [
        Operation::Control,
        Operation::Event,
        Operation::Signal,
        Operation::ChildExit,
        Operation::MemoryStall,
        Operation::MemoryEvent,
        Operation::CopyWritten,
        Operation::FileWritten,
        Operation::MonitorEvent,
        Operation::Key,
        Operation::KeyRoom,
        Operation::SinkWatch,
        Operation::Splice,
        Operation::Fill,
        Operation::Drain,
        Operation::Read,
        Operation::Write,
        Operation::Input,
        Operation::Tee,
        Operation::Mark,
    ];

    fn from_bits(bits: u8) -> Option<Operation> {
        Operation::ALL.into_iter().find(|op| *op as u8 == bits)
    }
}

/// The name of one operation: what it does, for which relay and which of the relay's copies.
///
/// At most one operation of a given name is in flight at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What is being done.
    pub operation: Operation,
    /// Index of the relay in the session; 0 for operations of the session itself.
    pub relay: u8,
    /// Index of the copy within the relay; 0 for the main path.
    pub copy: u16,
}

impl Token {
    /// A token for the session itself.
    pub fn session(operation: Operation) -> Token {
        Token { operation, relay: 0, copy: 0 }
    }

    /// A token for a relay's main path.
    pub fn relay(operation: Operation, relay: u8) -> Token {
        Token { operation, relay, copy: 0 }
    }
}

/// `user_data` of one submission: the token, the slot that keeps what the operation owns, and which
/// link of the operation's chain this is (waits come first, 0 is the operation proper).
///
/// Layout, from the low bits: copy 16, relay 8, operation 8, link 8, slot 24.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UserData {
    pub(super) token: Token,
    pub(super) link: u8,
    pub(super) slot: u32,
}

impl UserData {
    /// Marks completions nobody waits for: those of cancel requests. No slot is this large.
    pub(super) const IGNORED: u64 = u64::MAX;
    /// Marks the driver's timer.
    pub(super) const TIMER: u64 = u64::MAX - 1;

    pub(super) fn encode(self) -> u64 {
        debug_assert!(self.slot < 1 << 24);
        u64::from(self.token.copy)
            | u64::from(self.token.relay) << 16
            | u64::from(self.token.operation as u8) << 24
            | u64::from(self.link) << 32
            | u64::from(self.slot) << 40
    }

    pub(super) fn decode(bits: u64) -> Option<UserData> {
        if matches!(bits, UserData::IGNORED | UserData::TIMER) {
            return None;
        }
        let operation = Operation::from_bits((bits >> 24) as u8)?;
        Some(UserData {
            token: Token { operation, relay: (bits >> 16) as u8, copy: bits as u16 },
            link: (bits >> 32) as u8,
            slot: (bits >> 40) as u32,
        })
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out. For transfers the number of bytes, 0 at end of file; for polls the events.
    Done(u32),
    /// It was taken back before it moved anything.
    Cancelled,
    /// The kernel refused it; nothing was moved.
    Failed(Errno),
}

impl Outcome {
    /// Reads a completion's result. A cancelled splice or tee reports −512 (ERESTARTSYS, which no
    /// system call would let through), other cancelled operations −125 (ECANCELED).
    pub(super) fn from_result(result: i32) -> Outcome {
        const ERESTARTSYS: i32 = 512;
        match u32::try_from(result) {
            Ok(moved) => Outcome::Done(moved),
            Err(_) if result == -libc::ECANCELED || result == -ERESTARTSYS => Outcome::Cancelled,
            Err(_) => Outcome::Failed(Errno::from_raw(-result)),
        }
    }

    pub(super) fn from_errno(result: Result<usize, Errno>) -> Outcome {
        match result {
            Ok(moved) => Outcome::Done(moved as u32),
            Err(errno) => Outcome::Failed(errno),
        }
    }
}

/// An operation that has ended: its name, how it ended, and the buffer that it used.
#[derive(Debug)]
pub struct Completion {
    /// The name it was submitted under.
    pub token: Token,
    /// How it ended.
    pub outcome: Outcome,
    /// The buffer handed in with a read or a write.
    pub buffer: Option<Buffer>,
    /// When it was submitted.
    pub submitted: Instant,
}

/// What a tee does when the pipe that it fills has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Wait for room, in a kernel worker.
    Block,
    /// Fail with EAGAIN.
    Refuse,
}

/// An operation ready to be submitted.
#[derive(Debug)]
pub struct Op {
    pub(super) action: Action,
    /// Readiness to wait for first, in this order.
    pub(super) waits: [Option<Wait>; 2],
    /// Run on a kernel worker from the start.
    pub(super) on_worker: bool,
    /// Made by the loop itself, on either engine.
    pub(super) in_place: bool,
}

#[derive(Debug)]
pub(super) struct Wait {
    pub(super) fd: Fd,
    pub(super) events: PollFlags,
}

#[derive(Debug)]
pub(super) enum Action {
    Poll { fd: Fd, events: PollFlags },
    Splice { from: Fd, to: Fd, len: u32 },
    Tee { from: Fd, to: Fd, len: u32, full: Full },
    Read { fd: Fd, buffer: Buffer, range: Range<usize> },
    Write { fd: Fd, buffer: Buffer, range: Range<usize> },
    ReadFile { fd: Fd, buffer: Buffer, range: Range<usize> },
    WriteFile { fd: Fd, buffer: Buffer, range: Range<usize> },
}

impl Op {
    fn new(action: Action) -> Op {
        Op { action, waits: [None, None], on_worker: false, in_place: false }
    }

    /// Wait until `fd` has one of `events`, an error or a hang-up; completes with the events found.
    pub fn poll(fd: &Fd, events: PollFlags) -> Op {
        Op::new(Action::Poll { fd: fd.clone(), events })
    }

    /// Move up to `len` bytes from one fd to another inside the kernel; at least one of them is a pipe.
    ///
    /// Blocks in a kernel worker until something can be moved. See splice(2).
    pub fn splice(from: &Fd, to: &Fd, len: u32) -> Op {
        Op::new(Action::Splice { from: from.clone(), to: to.clone(), len })
    }

    /// Duplicate up to `len` bytes from one pipe into another without consuming them. See tee(2).
    pub fn tee(from: &Fd, to: &Fd, len: u32, full: Full) -> Op {
        Op::new(Action::Tee { from: from.clone(), to: to.clone(), len, full })
    }

    /// Read into `buffer` from `start` to its end.
    pub fn read(fd: &Fd, buffer: Buffer, start: usize) -> Op {
        debug_assert!(start < buffer.len());
        let range = start..buffer.len();
        Op::new(Action::Read { fd: fd.clone(), buffer, range })
    }

    /// Write the bytes of `buffer` that lie in `range`.
    pub fn write(fd: &Fd, buffer: Buffer, range: Range<usize>) -> Op {
        debug_assert!(range.start < range.end && range.end <= buffer.len());
        Op::new(Action::Write { fd: fd.clone(), buffer, range })
    }

    /// Read from a regular file by read(2), at the position that all holders of the file share.
    ///
    /// Carried out while it is submitted: only the system call takes the lock on that position.
    pub fn read_file(fd: &Fd, buffer: Buffer, start: usize) -> Op {
        debug_assert!(start < buffer.len());
        let range = start..buffer.len();
        Op::new(Action::ReadFile { fd: fd.clone(), buffer, range })
    }

    /// Write to a regular file by write(2), at the position that all holders of the file share.
    ///
    /// Carried out while it is submitted, for the reason given at [`Op::read_file`], or by a thread
    /// ([`super::Ring::write_files_apart`]).
    pub fn write_file(fd: &Fd, buffer: Buffer, range: Range<usize>) -> Op {
        debug_assert!(range.start < range.end && range.end <= buffer.len());
        Op::new(Action::WriteFile { fd: fd.clone(), buffer, range })
    }

    /// Hold this operation back until `fd` has one of `events`. At most two such waits.
    ///
    /// # Panics
    /// If the operation already has two waits.
    pub fn after(mut self, fd: &Fd, events: PollFlags) -> Op {
        let wait = Wait { fd: fd.clone(), events };
        let free = self.waits.iter_mut().find(|wait| wait.is_none());
        *free.expect("an operation waits for its source and its sink, never for more") = Some(wait);
        self
    }

    /// Bounds what a read takes, to at least one byte.
    pub fn at_most(mut self, bytes: usize) -> Op {
        if let Action::Read { range, .. } | Action::ReadFile { range, .. } = &mut self.action {
            range.end = range.end.min(range.start + bytes.max(1));
        }
        self
    }

    /// Let a kernel worker carry this operation out from the start, where it may block.
    pub fn on_worker(self) -> Op {
        Op { on_worker: true, ..self }
    }

    /// Let the loop make this transfer itself, on either engine, whenever it need not wait: for pipes that nobody keeps
    /// locked while they wait for something else.
    pub fn in_place(self) -> Op {
        debug_assert!(matches!(self.action, Action::Splice { .. } | Action::Tee { .. }));
        Op { in_place: true, ..self }
    }

    pub(super) fn into_buffer(self) -> Option<Buffer> {
        match self.action {
            Action::Poll { .. } | Action::Splice { .. } | Action::Tee { .. } => None,
            Action::Read { buffer, .. }
            | Action::Write { buffer, .. }
            | Action::ReadFile { buffer, .. }
            | Action::WriteFile { buffer, .. } => Some(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_survives_the_round_trip() {
        for operation in Operation::ALL {
            let data = UserData {
                token: Token { operation, relay: 0xA5, copy: 0xBEEF },
                link: 2,
                slot: 0x00AB_CDEF,
            };
            assert_eq!(UserData::decode(data.encode()), Some(data));
        }
        assert_eq!(UserData::decode(UserData::IGNORED), None);
    }

    #[test]
    fn both_cancel_codes_mean_cancelled() {
        assert_eq!(Outcome::from_result(-125), Outcome::Cancelled);
        assert_eq!(Outcome::from_result(-512), Outcome::Cancelled);
        assert_eq!(Outcome::from_result(-32), Outcome::Failed(Errno::EPIPE));
        assert_eq!(Outcome::from_result(7), Outcome::Done(7));
    }
}
