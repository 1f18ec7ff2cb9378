//! The zero-copy path with copies: what is in the source is first duplicated into every copy's pipe by
//! tee, then exactly that much moves on into the sink.
//!
//! tee always begins at the head of the pipe, and a copy may have room for less than another. So each
//! copy is *ahead* of the sink by what it has got of the bytes that still lie in the source; no more
//! moves on than every copy has, and only a copy that is not ahead gets more.

use std::io;

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::copy::{self, CopyState, Need};
use crate::relay::endpoint::Endpoint;
use crate::relay::link::{Link, Reads, Step, TRANSFER};
use crate::relay::result::{TransferResult, is_forbidden};
use crate::relay::route::{End, Feed, OnFull};
use crate::ring::{Buffer, Full, Op, Operation, Ring, Token};

/// Source and sink joined by one splice, with copies.
#[derive(Debug)]
pub(in crate::relay) struct Teed {
    copies: Vec<CopyState>,
    input: Input,
    /// The splice is in flight.
    splicing: bool,
    /// The most that the last round was to move, in bytes.
    asked: u32,
    /// The kernel does not let us have tee(2) or splice(2): once nothing is in flight, bytes are copied instead.
    refused: bool,
}

/// Whether the source has bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Unknown,
    /// What it had has most probably all moved on.
    Spent,
    /// The poll is in flight.
    Awaited,
    /// The poll has said so.
    There,
}

impl Teed {
    pub(in crate::relay) fn new(copies: Vec<Feed>, ring: &mut Ring) -> Teed {
        let copies = copies.into_iter().map(|feed| CopyState::new(feed, ring));
        Teed {
            copies: copies.collect(),
            input: Input::Spent,
            splicing: false,
            asked: 0,
            refused: false,
        }
    }

    pub(in crate::relay) fn advance(
        &mut self,
        link: &Link,
        reads: Reads,
        ring: &mut Ring,
    ) -> io::Result<()> {
        let (Some(source), Some(sink)) = (&link.source, &link.sink) else { return Ok(()) };
        for (index, copy) in self.copies.iter().enumerate() {
            if copy.busy && copy.marks_in_vain() {
                ring.cancel(Token { copy: index as u16, ..link.token(Operation::Mark) })?;
            }
        }
        if self.splicing || self.input == Input::Awaited || self.copies.iter().any(|copy| copy.busy)
        {
            return Ok(());
        }
        // What a copy has got already has to move on; only a fresh start can wait.
        let most = match reads {
            Reads::UpTo(most) => most,
            _ if self.copies.iter().all(|copy| copy.ahead == 0) => return Ok(()),
            Reads::Held | Reads::Flush => TRANSFER,
        };
        if !self.is_there(source) {
            ring.submit(link.token(Operation::Input), Op::poll(source.fd(), PollFlags::POLLIN))?;
            self.input = Input::Awaited;
            return Ok(());
        }
        // Known for this round only.
        self.input = Input::Unknown;
        if self.feed(source, most, link, ring)? {
            return Ok(());
        }
        let ahead = self.copies.iter().filter(|copy| copy.ahead > 0).map(|copy| copy.ahead).min();
        let len = ahead.map_or(most, |ahead| ahead.min(TRANSFER.into()) as u32);
        let mut op = Op::splice(source.fd(), sink.fd(), len);
        if link.is_alone() {
            op = op.in_place();
        }
        if sink.is_nonblocking() {
            op = op.after(sink.fd(), PollFlags::POLLOUT);
        }
        ring.submit(link.token(Operation::Splice), op)?;
        self.splicing = true;
        Ok(())
    }

    /// Whether the source has bytes, as far as that is known or can be asked.
    fn is_there(&self, source: &Endpoint) -> bool {
        match self.input {
            // What a copy is ahead by lies in the source.
            _ if self.copies.iter().any(|copy| copy.ahead > 0) => true,
            Input::There => true,
            Input::Unknown => source.has_input(),
            Input::Spent | Input::Awaited => false,
        }
    }

    /// Gives each copy what it needs before bytes may move on, and says whether one needs something.
    fn feed(
        &mut self,
        source: &Endpoint,
        most: u32,
        link: &Link,
        ring: &mut Ring,
    ) -> io::Result<bool> {
        let in_place = link.is_alone();
        let mut waiting = false;
        for (index, copy) in self.copies.iter_mut().enumerate() {
            let token = |operation| Token { copy: index as u16, ..link.token(operation) };
            match (copy.need(), &copy.pipe, copy.on_full) {
                (Need::Tee, Some(pipe), on_full) => {
                    let full = match on_full {
                        OnFull::Block => Full::Block,
                        OnFull::Drop => Full::Refuse,
                    };
                    let mut op = Op::tee(source.fd(), pipe.fd(), most, full);
                    if source.is_nonblocking() && on_full == OnFull::Block {
                        op = op.after(pipe.fd(), PollFlags::POLLOUT);
                    }
                    if in_place && !copy.threaded {
                        op = op.in_place();
                    }
                    ring.submit(token(Operation::Tee), op)?;
                    self.asked = most;
                }
                (Need::Mark, Some(pipe), _) => {
                    let fd = pipe.fd().clone();
                    let Some((buffer, len)) = copy.take_marker() else { continue };
                    ring.submit(token(Operation::Mark), Op::write(&fd, buffer, 0..len))?;
                }
                _ => continue,
            }
            copy.busy = true;
            waiting = true;
        }
        Ok(waiting)
    }

    pub(in crate::relay) fn complete(
        &mut self,
        token: Token,
        result: TransferResult,
        buffer: Option<Buffer>,
        link: &mut Link,
    ) -> Step {
        let step = match token.operation {
            Operation::Input => self.polled(result, link),
            Operation::Tee => self.teed(token.copy, result, link),
            Operation::Mark => self.marked(token.copy, result, buffer),
            _ => self.spliced(result, link),
        };
        match step {
            Step::Continue if self.refused && !self.copies.iter().any(|copy| copy.busy) => {
                Step::Refused
            }
            step => step,
        }
    }

    /// The copies, for a path that does without tee(2).
    pub(in crate::relay) fn into_copies(self) -> Vec<CopyState> {
        self.copies
    }

    fn polled(&mut self, result: TransferResult, link: &Link) -> Step {
        self.input = Input::Unknown;
        match result {
            TransferResult::Moved(events) if events & PollFlags::POLLIN.bits() as u32 != 0 => {
                self.input = Input::There;
                Step::Continue
            }
            // A hang-up without input: the source has ended, and all of it has moved on.
            TransferResult::Moved(_) => link.hung_up(),
            TransferResult::Failed(_) | TransferResult::Refused => link.read_failed(result.errno()),
            _ => Step::Continue,
        }
    }

    fn teed(&mut self, copy: u16, result: TransferResult, link: &mut Link) -> Step {
        let copy = &mut self.copies[usize::from(copy)];
        copy.busy = false;
        match result {
            TransferResult::Moved(moved) => copy.ahead = moved.into(),
            TransferResult::WouldBlock if copy.on_full == OnFull::Block => link.poll_both(),
            // Another relay that shares the copy was faster: it will poll full now.
            TransferResult::WouldBlock => {}
            TransferResult::Failed(errno) if is_forbidden(errno) => self.refused = true,
            // What the copy's own relay met, it has told; here its pipe is just of no more use.
            TransferResult::ReaderLeft
            | TransferResult::Reset
            | TransferResult::Refused
            | TransferResult::Failed(_) => copy.pipe = None,
            TransferResult::EndOfFile | TransferResult::Again | TransferResult::Cancelled => {}
        }
        Step::Continue
    }

    fn marked(&mut self, copy: u16, result: TransferResult, buffer: Option<Buffer>) -> Step {
        let copy = &mut self.copies[usize::from(copy)];
        copy.busy = false;
        copy.marked(result, buffer);
        Step::Continue
    }

    fn spliced(&mut self, result: TransferResult, link: &mut Link) -> Step {
        self.splicing = false;
        let first = link.counters.operations == 0;
        match if first { result.of_splice() } else { result } {
            TransferResult::Moved(moved) => {
                link.counters.taken += u64::from(moved);
                link.delivered(moved);
                if !link.paced && moved < self.asked / 2 {
                    self.input = Input::Spent;
                }
                for copy in &mut self.copies {
                    copy.pass(moved.into());
                }
                Step::Continue
            }
            TransferResult::EndOfFile => Step::End(End::Delivered),
            TransferResult::WouldBlock => {
                link.poll_both();
                Step::Continue
            }
            TransferResult::Again | TransferResult::Cancelled => Step::Continue,
            TransferResult::Refused if link.counters.operations == 0 => Step::Refused,
            TransferResult::Refused => link.splice_failed(Errno::EINVAL),
            TransferResult::ReaderLeft => Step::End(End::ReaderLeft),
            TransferResult::Reset => link.reset(),
            TransferResult::Failed(errno) => link.splice_failed(errno),
        }
    }

    /// The copies, once the relay has ended.
    pub(in crate::relay) fn copies_mut(&mut self) -> &mut [CopyState] {
        &mut self.copies
    }

    /// A read is armed: only new bytes can change that.
    pub(in crate::relay) fn is_armed(&self) -> bool {
        self.input == Input::Awaited
    }

    /// Whether bytes wait for a copy that has no room for them.
    pub(in crate::relay) fn awaits_copy(&self) -> bool {
        self.copies.iter().any(|copy| {
            copy.busy
                && copy.on_full == OnFull::Block
                && copy.pipe.as_ref().is_some_and(|pipe| !pipe.has_room())
        })
    }

    /// The copies, and the bytes that went past each.
    pub(in crate::relay) fn dropped(&self) -> Vec<(usize, u64)> {
        copy::dropped(&self.copies)
    }
}
