//! What a relay that feeds copies knows of each of them: how far it is ahead, what went past it, and the markers that
//! stand for that.

use std::fmt::Write as _;
use std::io;

use nix::poll::PollFlags;

use crate::relay::endpoint::Endpoint;
use crate::relay::link::Link;
use crate::relay::result::TransferResult;
use crate::relay::route::{Feed, OnFull, StringEnd};
use crate::ring::{Buffer, Op, Operation, Ring, Token};

/// Room for a gap marker, in bytes.
const MARKER: usize = 128;

/// A copy, and how far it is ahead.
#[derive(Debug)]
pub(in crate::relay) struct CopyState {
    /// Its number among the copies of the run.
    number: usize,
    /// `None` once the copy's reader is gone, or the copy has got all it will get.
    pub(super) pipe: Option<Endpoint>,
    pub(super) on_full: OnFull,
    /// Bytes at the head of the source that this copy has got already.
    pub(super) ahead: u64,
    /// A tee or a marker is in flight.
    pub(super) busy: bool,
    /// Bytes that went past since the last marker.
    pub(super) gap: u64,
    /// Bytes that went past altogether.
    dropped: u64,
    /// What a marker begins with.
    string_end: StringEnd,
    /// For the marker; with the kernel while it is written.
    marker: Option<Buffer>,
    /// A thread of ours writes what goes in here, and may wait for a disk or a peer meanwhile.
    pub(super) threaded: bool,
}

/// What a copy needs before bytes may move on.
pub(super) enum Need {
    /// Nothing: it is ahead, gone, or loses what comes next.
    Nothing,
    Tee,
    Mark,
}

impl CopyState {
    pub(super) fn new(feed: Feed, ring: &mut Ring) -> CopyState {
        CopyState {
            number: feed.copy,
            pipe: Some(feed.pipe),
            on_full: feed.on_full,
            ahead: 0,
            busy: false,
            gap: 0,
            string_end: feed.string_end,
            dropped: 0,
            threaded: feed.threaded,
            marker: (feed.on_full == OnFull::Drop).then(|| ring.buffer(MARKER)),
        }
    }

    pub(super) fn need(&self) -> Need {
        match (&self.pipe, self.on_full) {
            (None, _) => Need::Nothing,
            _ if self.ahead > 0 => Need::Nothing,
            (Some(_), OnFull::Block) => Need::Tee,
            (Some(pipe), OnFull::Drop) if !pipe.has_room() => Need::Nothing,
            (Some(_), OnFull::Drop) if self.gap > 0 => Need::Mark,
            (Some(_), OnFull::Drop) => Need::Tee,
        }
    }

    /// Whether the marker of a gap is on its way into a pipe that has no room for it any more: whoever else fills that pipe was
    /// faster. The relay does not wait for it.
    pub(super) fn marks_in_vain(&self) -> bool {
        self.marker.is_none() && self.loses_for_want_of_room()
    }

    /// Whether what comes now is lost to it.
    pub(super) fn loses_for_want_of_room(&self) -> bool {
        self.on_full == OnFull::Drop && self.pipe.as_ref().is_some_and(|pipe| !pipe.has_room())
    }

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

/// At the end: lets go of the copies' pipes, so that their own relays see it. A copy whose last gap is not marked keeps
/// its pipe until it is.
pub(in crate::relay) fn release(copies: &mut [CopyState]) {
    for copy in copies.iter_mut().filter(|copy| copy.gap == 0) {
        copy.pipe = None;
    }
}

/// After the end: writes the last marker of each copy that still lacks one, when there is room for it.
pub(in crate::relay) fn mark_last(
    copies: &mut [CopyState],
    link: &Link,
    ring: &mut Ring,
) -> io::Result<()> {
    for (index, copy) in copies.iter_mut().enumerate() {
        let Some(fd) = copy.pipe.as_ref().map(|pipe| pipe.fd().clone()) else { continue };
        let Some((buffer, length)) = copy.take_marker() else { continue };
        let token = Token { copy: index as u16, ..link.token(Operation::Mark) };
        ring.submit(token, Op::write(&fd, buffer, 0..length).after(&fd, PollFlags::POLLOUT))?;
    }
    Ok(())
}

/// After the end: a marker has been written, or cannot be, or was called back and is tried once more.
pub(in crate::relay) fn marked_last(
    copy: &mut CopyState,
    result: TransferResult,
    buffer: Option<Buffer>,
) {
    copy.marked(result, buffer);
    if copy.gap == 0 {
        copy.pipe = None;
    }
}

/// The copies, and the bytes that went past each.
pub(super) fn dropped(copies: &[CopyState]) -> Vec<(usize, u64)> {
    copies.iter().map(|copy| (copy.number, copy.dropped)).collect()
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
