//! Copies where the kernel refuses tee(2) or splice(2), as a seccomp filter may: what is read once into a buffer is
//! written from there into the pipe of every copy, one after the other, and last into the sink.
//!
//! As on the zero-copy path a copy may be *ahead* of the sink, and no byte moves on that a copy has not got.

use std::io;
use std::ops::Range;

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::BUFFER;
use super::copy::{self, CopyState};
use crate::relay::endpoint::Endpoint;
use crate::relay::link::{Link, Reads, Step};
use crate::relay::result::TransferResult;
use crate::relay::route::{End, OnFull};
use crate::ring::{Buffer, Op, Operation, Ring, Token};

/// Source and sink joined by a buffer, with copies.
#[derive(Debug)]
pub(in crate::relay) struct Shared {
    copies: Vec<CopyState>,
    /// With the kernel while an operation is in flight.
    buffer: Option<Buffer>,
    /// The bytes of the buffer that have not gone into the sink.
    chunk: Range<usize>,
    /// The operation in flight, and the copy that it is for.
    in_flight: Option<(Operation, u16)>,
    /// No more is taken from the source.
    finishing: bool,
}

impl Shared {
    /// Takes over from the zero-copy path, which has nothing in flight.
    pub(in crate::relay) fn new(copies: Vec<CopyState>, ring: &mut Ring) -> Shared {
        let buffer = Some(ring.buffer(BUFFER));
        Shared { copies, buffer, chunk: 0..0, in_flight: None, finishing: false }
    }

    pub(in crate::relay) fn advance(
        &mut self,
        link: &Link,
        reads: Reads,
        ring: &mut Ring,
    ) -> io::Result<()> {
        let (Some(source), Some(sink)) = (&link.source, &link.sink) else { return Ok(()) };
        if let Some((operation, copy)) = self.in_flight {
            return self.call_back(operation, copy, link, ring);
        }
        let (operation, copy, op) = if self.chunk.is_empty() {
            let Reads::UpTo(most) = reads else { return Ok(()) };
            if self.finishing {
                return Ok(());
            }
            let Some(buffer) = self.buffer.take() else { return Ok(()) };
            let read = Op::read(source.fd(), buffer, 0).at_most(most as usize);
            (Operation::Read, 0, when(read, source, PollFlags::POLLIN))
        } else if let Some((copy, operation, op)) = self.next_copy() {
            (operation, copy, op)
        } else {
            let Some(buffer) = self.buffer.take() else { return Ok(()) };
            let write = Op::write(sink.fd(), buffer, self.chunk.clone());
            (Operation::Write, 0, when(write, sink, PollFlags::POLLOUT))
        };
        self.in_flight = Some((operation, copy));
        ring.submit(Token { copy, ..link.token(operation) }, op)
    }

    /// Takes back what would wait for room in the pipe of a copy that loses bytes instead: whoever else fills that pipe was
    /// faster.
    fn call_back(
        &self,
        operation: Operation,
        copy: u16,
        link: &Link,
        ring: &mut Ring,
    ) -> io::Result<()> {
        let into_copy = matches!(operation, Operation::Tee | Operation::Mark);
        let target = self.copies.get(usize::from(copy));
        match into_copy && target.is_some_and(CopyState::loses_for_want_of_room) {
            true => ring.cancel(Token { copy, ..link.token(operation) }),
            false => Ok(()),
        }
    }

    /// What the first copy needs that has not got all of the chunk.
    fn next_copy(&mut self) -> Option<(u16, Operation, Op)> {
        let chunk = self.chunk.clone();
        for (index, copy) in self.copies.iter_mut().enumerate() {
            let left = (chunk.len() as u64).saturating_sub(copy.ahead);
            let Some(pipe) = copy.pipe.as_ref().filter(|_| left > 0) else { continue };
            let (index, fd) = (index as u16, pipe.fd().clone());
            if copy.on_full == OnFull::Drop && !pipe.has_room() {
                copy.lose(left);
                continue;
            }
            if copy.gap > 0
                && let Some((buffer, length)) = copy.take_marker()
            {
                return Some((index, Operation::Mark, Op::write(&fd, buffer, 0..length)));
            }
            let buffer = self.buffer.take()?;
            let range = chunk.end - left as usize..chunk.end;
            return Some((index, Operation::Tee, Op::write(&fd, buffer, range)));
        }
        None
    }

    pub(in crate::relay) fn complete(
        &mut self,
        token: Token,
        result: TransferResult,
        buffer: Option<Buffer>,
        link: &mut Link,
    ) -> Step {
        self.in_flight = None;
        if token.operation == Operation::Mark {
            self.copies[usize::from(token.copy)].marked(result, buffer);
            return Step::Continue;
        }
        self.buffer = buffer;
        match token.operation {
            Operation::Read => self.read(result, link),
            Operation::Tee => {
                self.copied(token.copy, result);
                Step::Continue
            }
            _ => self.wrote(result, link),
        }
    }

    fn read(&mut self, result: TransferResult, link: &mut Link) -> Step {
        match result {
            TransferResult::Moved(moved) => {
                self.chunk = 0..moved as usize;
                link.counters.taken += u64::from(moved);
                Step::Continue
            }
            TransferResult::EndOfFile => Step::End(End::Delivered),
            TransferResult::Cancelled | TransferResult::Again | TransferResult::WouldBlock
                if self.finishing =>
            {
                Step::End(End::Stopped)
            }
            TransferResult::WouldBlock => {
                link.poll_both();
                Step::Continue
            }
            TransferResult::Again | TransferResult::Cancelled => Step::Continue,
            other => link.read_failed(other.errno()),
        }
    }

    fn copied(&mut self, copy: u16, result: TransferResult) {
        let copy = &mut self.copies[usize::from(copy)];
        match result {
            TransferResult::Moved(moved) => copy.ahead += u64::from(moved),
            TransferResult::WouldBlock | TransferResult::Again | TransferResult::Cancelled => {}
            // What the copy's own relay met, it has told.
            _ => copy.pipe = None,
        }
    }

    fn wrote(&mut self, result: TransferResult, link: &mut Link) -> Step {
        match result {
            TransferResult::Moved(moved) => {
                self.chunk.start += moved as usize;
                link.delivered_from_buffer(moved);
                self.copies.iter_mut().for_each(|copy| copy.pass(moved.into()));
                match self.finishing && self.chunk.is_empty() {
                    true => Step::End(End::Stopped),
                    false => Step::Continue,
                }
            }
            TransferResult::WouldBlock => {
                link.poll_both();
                Step::Continue
            }
            TransferResult::Again | TransferResult::Cancelled => Step::Continue,
            TransferResult::ReaderLeft | TransferResult::Reset => Step::End(End::ReaderLeft),
            TransferResult::EndOfFile => link.write_failed(Errno::ENOSPC),
            other => link.write_failed(other.errno()),
        }
    }

    /// Takes no more. False if nothing was taken.
    pub(in crate::relay) fn finish(&mut self) -> bool {
        self.finishing = true;
        !self.chunk.is_empty() || self.in_flight.is_some()
    }

    /// The copies, once the relay has ended.
    pub(in crate::relay) fn copies_mut(&mut self) -> &mut [CopyState] {
        &mut self.copies
    }

    pub(in crate::relay) fn is_armed(&self) -> bool {
        matches!(self.in_flight, Some((Operation::Read, _)))
    }

    pub(in crate::relay) fn held(&self) -> u64 {
        self.chunk.len() as u64
    }

    /// Whether bytes wait for a copy that has no room for them.
    pub(in crate::relay) fn awaits_copy(&self) -> bool {
        matches!(self.in_flight, Some((Operation::Tee, _)))
    }

    /// Bytes that went past each copy.
    pub(in crate::relay) fn dropped(&self) -> Vec<(usize, u64)> {
        copy::dropped(&self.copies)
    }
}

/// The operation, behind a poll where the fd does not wait by itself.
fn when(op: Op, end: &Endpoint, events: PollFlags) -> Op {
    if end.is_nonblocking() { op.after(end.fd(), events) } else { op }
}
