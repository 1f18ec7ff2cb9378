//! What the completions of the fixed-buffer path mean: bytes that came, bytes that went, ends and failures.

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::{BUFFER, Buffered, Buffers, LineWait, SMALLEST_WRITE};
use crate::relay::endpoint::{Endpoint, Kind};
use crate::relay::link::{Link, Step};
use crate::relay::result::TransferResult;
use crate::relay::route::End;
use crate::ring::Buffer;
use crate::text::newline::{self, Newlines};

impl Buffered {
    pub(super) fn polled(&mut self, result: TransferResult, link: &mut Link) -> Step {
        self.buffers = Buffers::Unmade;
        match result {
            TransferResult::Moved(events) if events & PollFlags::POLLIN.bits() as u32 != 0 => {
                self.buffers = Buffers::Due;
                Step::Continue
            }
            // A hang-up without input: nothing ever came.
            TransferResult::Moved(_) => match link.hung_up() {
                Step::End(End::Failed(_)) => self.read_failed(Errno::EBADF, link),
                _ => {
                    self.source_ended = true;
                    self.end_if_drained(link)
                }
            },
            TransferResult::Failed(_) | TransferResult::Refused => {
                self.read_failed(result.errno(), link)
            }
            _ => Step::Continue,
        }
    }

    pub(super) fn read(&mut self, result: TransferResult, link: &mut Link) -> Step {
        match result {
            // Of a longer record the kernel has thrown the rest away, and it does not say so.
            TransferResult::Moved(moved)
                if link.kinds.0 == Kind::Records && moved as usize == BUFFER =>
            {
                self.read_failed(Errno::EMSGSIZE, link)
            }
            TransferResult::Moved(moved) => {
                self.completing_line = false;
                let (before, held) = (self.filled.end, self.filled.len());
                match link.packets {
                    Some(newlines) => self.unpack(moved as usize, newlines, link),
                    None => self.filled.end += moved as usize,
                }
                link.counters.taken += (self.filled.len() + self.filled.start - before) as u64;
                if let Some(text) = &mut self.text {
                    text.arrive(held.min(self.filled.len()));
                }
                Step::Continue
            }
            TransferResult::EndOfFile => {
                self.source_ended = true;
                self.completing_line = false;
                self.end_if_drained(link)
            }
            // What a pty says once nobody has its other end open any more.
            TransferResult::Failed(Errno::EIO)
                if link.kinds.0 == Kind::Leader
                    && link.source.as_ref().is_some_and(Endpoint::is_hung_up) =>
            {
                self.source_ended = true;
                self.completing_line = false;
                self.end_if_drained(link)
            }
            TransferResult::WouldBlock => {
                link.poll_both();
                Step::Continue
            }
            TransferResult::Cancelled if self.finishing => {
                self.source_ended = true;
                self.completing_line = false;
                self.end_if_drained(link)
            }
            TransferResult::Again | TransferResult::Cancelled => {
                self.completing_line &= self.line_wait != LineWait::Over;
                Step::Continue
            }
            TransferResult::Refused => self.read_failed(Errno::EINVAL, link),
            TransferResult::ReaderLeft => self.read_failed(Errno::EPIPE, link),
            TransferResult::Reset => self.read_failed(Errno::ECONNRESET, link),
            TransferResult::Failed(errno) => self.read_failed(errno, link),
        }
    }

    /// Takes in what a pty's leader gives in packet mode: a byte that says what follows, and that. A newline's CR, which
    /// the pty has put there, is taken out again: if the reader is a terminal, it puts its own.
    fn unpack(&mut self, moved: usize, newlines: Newlines, link: &mut Link) {
        let Some(input) = &mut self.input else { return };
        let (start, bytes) = (self.filled.end, input.bytes_mut());
        let end = start + moved;
        if bytes[start] != 0 {
            link.status |= bytes[start];
            return;
        }
        bytes.copy_within(start + 1..end, start);
        self.filled.end = end - 1;
        if newlines == Newlines::OfATerminal {
            // What came before may end in the CR of the first LF.
            let from = start.saturating_sub(1).max(self.filled.start);
            self.filled.end = from + newline::remove(&mut bytes[from..end - 1]);
            let more = || link.source.as_ref().is_some_and(Endpoint::has_input);
            let ends_open = self.filled.end > from && bytes[self.filled.end - 1] == b'\r';
            // A program that only ever redraws its line is not waited for.
            self.completing_line = ends_open && self.filled.end < BUFFER / 2 && more();
        }
    }

    /// The source has failed: what came before is still delivered, and whoever reads the sink sees its end.
    fn read_failed(&mut self, errno: Errno, link: &mut Link) -> Step {
        self.source_ended = true;
        self.completing_line = false;
        self.end = Some(End::Failed(link.read_error(errno)));
        self.end_if_drained(link)
    }

    pub(super) fn wrote(&mut self, result: TransferResult, link: &mut Link) -> Step {
        match result {
            TransferResult::Moved(moved) => {
                self.pending.start += moved as usize;
                if self.ending {
                    return self.end_if_drained(link);
                }
                let written = self.output.as_ref().map(Buffer::bytes);
                self.last = written.and_then(|bytes| Some(*bytes.get(self.pending.start - 1)?));
                link.delivered_from_buffer(moved);
                self.end_if_drained(link)
            }
            TransferResult::WouldBlock => {
                link.poll_both();
                Step::Continue
            }
            TransferResult::Again | TransferResult::Cancelled => Step::Continue,
            TransferResult::ReaderLeft | TransferResult::Reset => Step::End(End::ReaderLeft),
            // A write of some bytes that writes none: the device takes no more.
            TransferResult::EndOfFile => link.write_failed(Errno::ENOSPC),
            TransferResult::Refused => link.write_failed(Errno::EINVAL),
            // What comes from a stream may be divided into records anyhow.
            TransferResult::Failed(Errno::EMSGSIZE)
                if link.kinds.0 != Kind::Records && self.largest_write > SMALLEST_WRITE =>
            {
                self.largest_write /= 2;
                Step::Continue
            }
            TransferResult::Failed(errno) => link.write_failed(errno),
        }
    }
}
