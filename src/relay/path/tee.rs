//! The zero-copy path with copies: what is in the source is first duplicated into every copy's pipe by
//! tee, then exactly that much moves on into the sink.
//!
//! tee always begins at the head of the pipe, and a copy may have room for less than another. So each
//! copy is *ahead* of the sink by what it has got of the bytes that still lie in the source; no more
//! moves on than every copy has, and only a copy that is not ahead gets more.

use std::fmt::Write as _;
use std::io;

use nix::errno::Errno;
use nix::poll::PollFlags;

use crate::relay::endpoint::Endpoint;
use crate::relay::link::{Link, Reads, Step, TRANSFER};
use crate::relay::result::{TransferResult, is_forbidden};
use crate::relay::route::{End, Feed, OnFull, StringEnd};
use crate::ring::{Buffer, Full, Op, Operation, Ring, Token};

/// Room for a gap marker, in bytes.
const MARKER: usize = 128;

/// Source and sink joined by one splice, with copies.
#[derive(Debug)]
pub(in crate::relay) struct Teed {
    copies: Vec<CopyState>,
    input: Input,
    /// The splice is in flight.
    splicing: bool,
    /// The kernel does not let us have tee(2) or splice(2): once nothing is in flight, bytes are copied instead.
    refused: bool,
}

/// Whether the source has bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Unknown,
    /// The poll is in flight.
    Awaited,
}

/// A copy, and how far it is ahead.
#[derive(Debug)]
pub(in crate::relay) struct CopyState {
    /// Its number among the copies of the run.
    pub(super) number: usize,
    /// `None` once the copy's reader is gone.
    pub(super) pipe: Option<Endpoint>,
    pub(super) on_full: OnFull,
    /// Bytes at the head of the source that this copy has got already.
    pub(super) ahead: u64,
    /// A tee or a marker is in flight.
    busy: bool,
    /// Bytes that went past since the last marker.
    pub(super) gap: u64,
    /// Bytes that went past altogether.
    pub(super) dropped: u64,
    /// What a marker begins with.
    string_end: StringEnd,
    /// For the marker; with the kernel while it is written.
    marker: Option<Buffer>,
}

/// What a copy needs before bytes may move on.
enum Need {
    /// Nothing: it is ahead, gone, or loses what comes next.
    Nothing,
    Tee,
    Mark,
}

impl CopyState {
    fn need(&self) -> Need {
        match (&self.pipe, self.on_full) {
            (None, _) => Need::Nothing,
            _ if self.ahead > 0 => Need::Nothing,
            (Some(_), OnFull::Block) => Need::Tee,
            (Some(pipe), OnFull::Drop) if !pipe.has_room() => Need::Nothing,
            (Some(_), OnFull::Drop) if self.gap > 0 => Need::Mark,
            (Some(_), OnFull::Drop) => Need::Tee,
        }
    }
}

impl Teed {
    pub(in crate::relay) fn new(copies: Vec<Feed>, ring: &mut Ring) -> Teed {
        let copies = copies.into_iter().map(|copy| CopyState {
            number: copy.copy,
            pipe: Some(copy.pipe),
            on_full: copy.on_full,
            ahead: 0,
            busy: false,
            gap: 0,
            string_end: copy.string_end,
            dropped: 0,
            marker: (copy.on_full == OnFull::Drop).then(|| ring.buffer(MARKER)),
        });
        Teed { copies: copies.collect(), input: Input::Unknown, splicing: false, refused: false }
    }

    pub(in crate::relay) fn advance(
        &mut self,
        link: &Link,
        reads: Reads,
        ring: &mut Ring,
    ) -> io::Result<()> {
        let (Some(source), Some(sink)) = (&link.source, &link.sink) else { return Ok(()) };
        if self.splicing || self.input == Input::Awaited || self.copies.iter().any(|copy| copy.busy)
        {
            return Ok(());
        }
        // What a copy has got already has to move on; only a fresh start can wait.
        let most = match reads {
            Reads::UpTo(most) => most,
            Reads::Held if self.copies.iter().all(|copy| copy.ahead == 0) => return Ok(()),
            Reads::Held => TRANSFER,
        };
        if !source.has_input() {
            ring.submit(link.token(Operation::Input), Op::poll(source.fd(), PollFlags::POLLIN))?;
            self.input = Input::Awaited;
            return Ok(());
        }
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
                    ring.submit(token(Operation::Tee), op)?;
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
        if waiting {
            return Ok(());
        }
        let ahead = self.copies.iter().filter(|copy| copy.ahead > 0).map(|copy| copy.ahead).min();
        let len = ahead.map_or(most, |ahead| ahead.min(TRANSFER.into()) as u32);
        let mut op = Op::splice(source.fd(), sink.fd(), len);
        if sink.is_nonblocking() {
            op = op.after(sink.fd(), PollFlags::POLLOUT);
        }
        ring.submit(link.token(Operation::Splice), op)?;
        self.splicing = true;
        Ok(())
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
            // A hang-up without input: the source has ended, and all of it has moved on.
            TransferResult::Moved(events) if events & PollFlags::POLLIN.bits() as u32 == 0 => {
                link.hung_up()
            }
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

    /// Lets go of the copies' pipes, so that their own relays see the end.
    pub(in crate::relay) fn release_copies(&mut self) {
        for copy in self.copies.iter_mut().filter(|copy| copy.gap == 0 || copy.busy) {
            copy.pipe = None;
        }
    }

    /// After the end: writes the last marker of each copy that still lacks one, when there is room for it.
    pub(in crate::relay) fn mark_last(&mut self, link: &Link, ring: &mut Ring) -> io::Result<()> {
        for (index, copy) in self.copies.iter_mut().enumerate() {
            if copy.busy {
                continue;
            }
            let (Some(pipe), Some(mut buffer)) = (&copy.pipe, copy.marker.take()) else { continue };
            let len = mark(&mut buffer, copy.gap, copy.string_end);
            let token = Token { copy: index as u16, ..link.token(Operation::Mark) };
            let op = Op::write(pipe.fd(), buffer, 0..len).after(pipe.fd(), PollFlags::POLLOUT);
            ring.submit(token, op)?;
            copy.busy = true;
        }
        Ok(())
    }

    /// After the end: a last marker was written, or cannot be.
    pub(in crate::relay) fn marked_last(&mut self, copy: u16) {
        self.copies[usize::from(copy)].pipe = None;
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
        self.copies.iter().map(|copy| (copy.number, copy.dropped)).collect()
    }
}

impl CopyState {
    /// Writes the marker of a gap, if it is not being written: the buffer, and how much of it.
    pub(super) fn take_marker(&mut self) -> Option<(Buffer, usize)> {
        let mut buffer = self.marker.take()?;
        let length = mark(&mut buffer, self.gap, self.string_end);
        Some((buffer, length))
    }

    /// The marker has been written, or could not be.
    pub(super) fn marked(&mut self, result: TransferResult, buffer: Option<Buffer>) {
        self.marker = buffer;
        match result {
            // A marker is smaller than PIPE_BUF: it goes whole or not at all.
            TransferResult::Moved(_) => self.gap = 0,
            TransferResult::ReaderLeft | TransferResult::Reset | TransferResult::Failed(_) => {
                self.pipe = None
            }
            _ => {}
        }
    }

    /// The copy has no room for the next so many bytes, which move on without it.
    pub(super) fn lose(&mut self, bytes: u64) {
        self.ahead += bytes;
        self.dropped += bytes;
        self.gap += bytes;
    }

    /// So many bytes have moved on into the sink: those that it has not got went past it.
    pub(super) fn pass(&mut self, moved: u64) {
        let had = moved.min(self.ahead);
        self.ahead -= had;
        self.dropped += moved - had;
        self.gap += moved - had;
    }
}

/// Writes the line that stands for a gap. It begins with a line feed: where the last line was torn is
/// not known, because nobody has looked at the bytes.
///
/// Where escape sequences are removed, one that the gap has torn would swallow the marker: it is ended first.
fn mark(buffer: &mut Buffer, gap: u64, string_end: StringEnd) -> usize {
    let mut line = String::with_capacity(MARKER);
    if string_end == StringEnd::Written {
        line.push_str("\x1b\\");
    }
    let _ = write!(line, "\n[nproxy: {gap} bytes dropped here]\n");
    buffer.bytes_mut()[..line.len()].copy_from_slice(line.as_bytes());
    line.len()
}
