//! The zero-copy path with legs: what is in the source is first duplicated into every leg's pipe by
//! tee, then exactly that much moves on into the sink.
//!
//! tee always begins at the head of the pipe, and a leg may have room for less than another. So each
//! leg is *ahead* of the sink by what it has got of the bytes that still lie in the source; no more
//! moves on than every leg has, and only a leg that is not ahead gets more.

use std::fmt::Write as _;
use std::io;

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::splice::delivered;
use super::{End, Endpoint, Link, Reads, Step, TRANSFER, Verdict};
use crate::ring::{Buffer, Full, Op, Operation, Ring, Token};

/// Room for a gap marker, in bytes.
const MARKER: usize = 128;

/// What a leg that has no room does to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// Holds it up.
    Block,
    /// Loses bytes, which are counted and marked in the leg.
    Drop,
}

/// A leg before the relay starts: the pipe to fill for it.
#[derive(Clone, Debug)]
pub struct Leg {
    /// The end that the relay fills. Relays may share one: their bytes then mix as they come.
    pub pipe: Endpoint,
    /// What becomes of bytes for which it has no room.
    pub on_full: OnFull,
}

/// Source and sink joined by one splice, with legs.
#[derive(Debug)]
pub(super) struct Teed {
    legs: Vec<LegState>,
    input: Input,
    /// The splice is in flight.
    splicing: bool,
}

/// Whether the source has bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Unknown,
    /// The poll is in flight.
    Awaited,
}

#[derive(Debug)]
struct LegState {
    /// `None` once the leg's reader is gone.
    pipe: Option<Endpoint>,
    on_full: OnFull,
    /// Bytes at the head of the source that this leg has got already.
    ahead: u64,
    /// A tee or a marker is in flight.
    busy: bool,
    /// Bytes that went past since the last marker.
    gap: u64,
    /// Bytes that went past altogether.
    dropped: u64,
    /// For the marker; with the kernel while it is written.
    marker: Option<Buffer>,
}

/// What a leg needs before bytes may move on.
enum Need {
    /// Nothing: it is ahead, gone, or loses what comes next.
    Nothing,
    Tee,
    Mark,
}

impl LegState {
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
    pub(super) fn new(legs: Vec<Leg>, ring: &mut Ring) -> Teed {
        let legs = legs.into_iter().map(|leg| LegState {
            pipe: Some(leg.pipe),
            on_full: leg.on_full,
            ahead: 0,
            busy: false,
            gap: 0,
            dropped: 0,
            marker: (leg.on_full == OnFull::Drop).then(|| ring.buffer(MARKER)),
        });
        Teed { legs: legs.collect(), input: Input::Unknown, splicing: false }
    }

    pub(super) fn advance(&mut self, link: &Link, reads: Reads, ring: &mut Ring) -> io::Result<()> {
        let (Some(source), Some(sink)) = (&link.source, &link.sink) else { return Ok(()) };
        if self.splicing || self.input == Input::Awaited || self.legs.iter().any(|leg| leg.busy) {
            return Ok(());
        }
        // What a leg has got already has to move on; only a fresh start can wait.
        let most = match reads {
            Reads::UpTo(most) => most,
            Reads::Held if self.legs.iter().all(|leg| leg.ahead == 0) => return Ok(()),
            Reads::Held => TRANSFER,
        };
        if !source.has_input() {
            ring.submit(link.token(Operation::Input), Op::poll(source.fd(), PollFlags::POLLIN))?;
            self.input = Input::Awaited;
            return Ok(());
        }
        let mut waiting = false;
        for (index, leg) in self.legs.iter_mut().enumerate() {
            let token = |operation| Token { leg: index as u16, ..link.token(operation) };
            match (leg.need(), &leg.pipe, leg.on_full) {
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
                    let Some(mut buffer) = leg.marker.take() else { continue };
                    let len = mark(&mut buffer, leg.gap);
                    ring.submit(token(Operation::Mark), Op::write(pipe.fd(), buffer, 0..len))?;
                }
                _ => continue,
            }
            leg.busy = true;
            waiting = true;
        }
        if waiting {
            return Ok(());
        }
        let ahead = self.legs.iter().filter(|leg| leg.ahead > 0).map(|leg| leg.ahead).min();
        let len = ahead.map_or(most, |ahead| ahead.min(TRANSFER.into()) as u32);
        let mut op = Op::splice(source.fd(), sink.fd(), len);
        if sink.is_nonblocking() {
            op = op.after(sink.fd(), PollFlags::POLLOUT);
        }
        ring.submit(link.token(Operation::Splice), op)?;
        self.splicing = true;
        Ok(())
    }

    pub(super) fn complete(
        &mut self,
        token: Token,
        verdict: Verdict,
        buffer: Option<Buffer>,
        link: &mut Link,
    ) -> Step {
        match token.operation {
            Operation::Input => self.polled(verdict),
            Operation::Tee => self.teed(token.leg, verdict, link),
            Operation::Mark => self.marked(token.leg, verdict, buffer),
            _ => self.spliced(verdict, link),
        }
    }

    fn polled(&mut self, verdict: Verdict) -> Step {
        self.input = Input::Unknown;
        match verdict {
            // A hang-up without input: the source has ended, and all of it has moved on.
            Verdict::Moved(events) if events & PollFlags::POLLIN.bits() as u32 == 0 => {
                Step::End(End::Delivered)
            }
            _ => Step::Continue,
        }
    }

    fn teed(&mut self, leg: u16, verdict: Verdict, link: &mut Link) -> Step {
        let leg = &mut self.legs[usize::from(leg)];
        leg.busy = false;
        match verdict {
            Verdict::Moved(moved) => leg.ahead = moved.into(),
            Verdict::WouldBlock if leg.on_full == OnFull::Block => link.poll_both(),
            // Another relay that shares the leg was faster: it will poll full now.
            Verdict::WouldBlock => {}
            // What the leg's own relay met, it has told; here its pipe is just of no more use.
            Verdict::ReaderLeft | Verdict::Refused | Verdict::Failed(_) => leg.pipe = None,
            Verdict::EndOfFile | Verdict::Again | Verdict::Cancelled => {}
        }
        Step::Continue
    }

    fn marked(&mut self, leg: u16, verdict: Verdict, buffer: Option<Buffer>) -> Step {
        let leg = &mut self.legs[usize::from(leg)];
        leg.busy = false;
        leg.marker = buffer;
        match verdict {
            // A marker is smaller than PIPE_BUF: it goes whole or not at all.
            Verdict::Moved(_) => leg.gap = 0,
            Verdict::ReaderLeft | Verdict::Failed(_) => leg.pipe = None,
            _ => {}
        }
        Step::Continue
    }

    fn spliced(&mut self, verdict: Verdict, link: &mut Link) -> Step {
        self.splicing = false;
        match verdict {
            Verdict::Moved(moved) => {
                link.counters.taken += u64::from(moved);
                delivered(link, moved);
                for leg in &mut self.legs {
                    leg.pass(moved.into());
                }
                Step::Continue
            }
            Verdict::EndOfFile => Step::End(End::Delivered),
            Verdict::WouldBlock => {
                link.poll_both();
                Step::Continue
            }
            Verdict::Again | Verdict::Cancelled => Step::Continue,
            Verdict::Refused => link.splice_failed(Errno::EINVAL),
            Verdict::ReaderLeft => Step::End(End::ReaderLeft),
            Verdict::Failed(errno) => link.splice_failed(errno),
        }
    }

    /// Lets go of the legs' pipes, so that their own relays see the end.
    pub(super) fn release_legs(&mut self) {
        self.legs.iter_mut().for_each(|leg| leg.pipe = None);
    }

    /// A read is armed: only new bytes can change that.
    pub(super) fn is_armed(&self) -> bool {
        self.input == Input::Awaited
    }

    /// Bytes that went past each leg.
    pub(super) fn dropped(&self) -> impl Iterator<Item = u64> {
        self.legs.iter().map(|leg| leg.dropped)
    }
}

impl LegState {
    /// So many bytes have moved on into the sink.
    fn pass(&mut self, moved: u64) {
        if self.ahead > 0 {
            debug_assert!(moved <= self.ahead, "more moved on than a leg had got");
            self.ahead -= moved.min(self.ahead);
        } else {
            self.dropped += moved;
            self.gap += moved;
        }
    }
}

/// Writes the line that stands for a gap. It begins with a line feed: where the last line was torn is
/// not known, because nobody has looked at the bytes.
fn mark(buffer: &mut Buffer, gap: u64) -> usize {
    let mut line = String::with_capacity(MARKER);
    let _ = write!(line, "\n[nproxy: {gap} bytes dropped here]\n");
    buffer.bytes_mut()[..line.len()].copy_from_slice(line.as_bytes());
    line.len()
}
