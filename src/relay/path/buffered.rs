//! The fixed-buffer path: for text work, and between ends that the kernel refuses to splice.
//!
//! Two buffers take turns: one is read into while the other is written out. Nothing else is ever
//! held, and a read is submitted only into a buffer whose bytes have all been passed on. The buffers of a pipe are
//! made when its first byte has come: many a command never writes to its stderr.

mod completed;
mod text;

use std::io;
use std::ops::Range;
use std::time::Instant;

use nix::poll::PollFlags;

use super::lines::{LineWait, last_line_end, line_cut, whole_lines};
use crate::relay::endpoint::{Endpoint, Kind};
use crate::relay::flow::TextSwitch;
use crate::relay::link::{Link, Reads, Step};
use crate::relay::result::TransferResult;
use crate::relay::route::{End, TextWork};
use crate::ring::{Buffer, Engine, Op, Operation, Ring};
use crate::text::line_ends;
use text::{Mode, Text};

/// Size of each of the two buffers, in bytes.
pub(in crate::relay) const BUFFER: usize = 256 << 10;

/// Less than this is no full buffer that a writer has flushed (C's stdio has none that is smaller): at a terminal it is
/// a prompt or the echo of a key, and goes at once.
const FLUSHED_BUFFER: usize = 1024;

/// Into a socket that keeps records apart, no smaller ones are tried than these: every transport takes them.
const SMALLEST_WRITE: usize = 512;

/// Source and sink joined by two buffers.
#[derive(Debug)]
pub(in crate::relay) struct Buffered {
    /// Read into; with the kernel while a read is in flight.
    input: Option<Buffer>,
    /// The bytes of `input` that have not been passed on.
    filled: Range<usize>,
    /// Written out; with the kernel while a write is in flight.
    output: Option<Buffer>,
    /// The bytes of `output` that have not been written.
    pending: Range<usize>,
    /// Of `output`: the beginning of a line whose rest the filter still has, and no room for.
    kept: Range<usize>,
    source_ended: bool,
    /// No more is taken from the source.
    finishing: bool,
    /// How the relay ends, if not because the source has ended.
    end: Option<End>,
    /// The most that one write may carry: a socket that keeps records apart takes only so much at a time.
    largest_write: usize,
    /// The last byte delivered: where the end of input is a character, it matters whether a line is open.
    last: Option<u8>,
    /// That character is on its way; it is none of the stream's bytes.
    ending: bool,
    /// `filled` is the beginning of a line whose rest is already waiting in the source.
    completing_line: bool,
    /// For the rest of a line that is not yet waiting: how long.
    line_wait: LineWait,
    /// Lines that have ended while there were text modes to work on them.
    lines: u64,
    text: Option<Text>,
    buffers: Buffers,
}

/// Where a chunk may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Division {
    Anywhere,
    /// Behind a line, if the rest of the last one is already in the source.
    Lines,
    /// Behind a line, and the rest of the last one is waited for.
    AwaitedLines,
}

/// Whether the two buffers are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Buffers {
    /// Not before there is something to put into them.
    Unmade,
    /// A poll will tell when there is.
    Awaited,
    Due,
    Made,
}

impl Buffered {
    pub(in crate::relay) fn new(text: Option<TextWork>) -> Buffered {
        let text = text.map(|work| Text::new(&work));
        Buffered {
            text,
            buffers: Buffers::Unmade,
            input: None,
            filled: 0..0,
            output: None,
            pending: 0..0,
            kept: 0..0,
            source_ended: false,
            finishing: false,
            end: None,
            largest_write: BUFFER,
            last: None,
            ending: false,
            completing_line: false,
            line_wait: LineWait::No,
            lines: 0,
        }
    }

    pub(in crate::relay) fn advance(
        &mut self,
        link: &Link,
        reads: Reads,
        ring: &mut Ring,
    ) -> io::Result<()> {
        let (Some(source), Some(sink)) = (&link.source, &link.sink) else { return Ok(()) };
        if self.buffers != Buffers::Made {
            let waits = source.kind() == Kind::Pipe && sink.kind() != Kind::Leader;
            match self.buffers {
                Buffers::Unmade if waits && !matches!(reads, Reads::UpTo(_)) => return Ok(()),
                Buffers::Unmade if waits => {
                    let op = Op::poll(source.fd(), PollFlags::POLLIN);
                    ring.submit(link.token(Operation::Input), op)?;
                    self.buffers = Buffers::Awaited;
                    return Ok(());
                }
                Buffers::Awaited => return Ok(()),
                Buffers::Unmade | Buffers::Due | Buffers::Made => {
                    self.input = Some(ring.buffer(BUFFER));
                    self.output = Some(ring.buffer(BUFFER));
                    self.buffers = Buffers::Made;
                }
            }
        }
        if self.finishing && self.input.is_some() {
            self.source_ended = true;
        }
        self.completing_line &= reads != Reads::Flush && !self.finishing;
        self.pass_on(source, sink, reads);
        if let Reads::UpTo(most) = reads
            && !self.source_ended
            && (self.filled.is_empty() || self.completing_line)
            && let Some(input) = self.input.take()
        {
            let most = match source.kind() {
                // What does not fit is lost.
                Kind::Records => BUFFER,
                // And the byte in front.
                _ if link.packets.is_some() => (most as usize).saturating_add(1),
                _ => most as usize,
            };
            let op = read(source, input, self.filled.end).at_most(most);
            ring.submit(link.token(Operation::Read), op)?;
        }
        if !self.pending.is_empty()
            && let Some(output) = self.output.take()
        {
            let pending = self.pending.clone();
            let mut end = pending.end.min(pending.start.saturating_add(self.largest_write));
            if sink.kind() == Kind::Pipe && self.text.is_some() {
                end = pending.start + whole_lines(&output.bytes()[pending.start..end]);
            }
            let op = write(sink, output, pending.start..end, ring.engine());
            ring.submit(link.token(Operation::Write), op)?;
        }
        Ok(())
    }

    /// Hands what was read over to be written, once the last write is through.
    fn pass_on(&mut self, source: &Endpoint, sink: &Endpoint, reads: Reads) {
        let division = self.division(source, sink, reads);
        let (Some(input), Some(output)) = (&mut self.input, &mut self.output) else { return };
        if self.filled.is_empty() || !self.pending.is_empty() || self.completing_line {
            return;
        }
        let whole = self.filled.clone();
        let bytes = &input.bytes()[whole.clone()];
        let cut = match division {
            Division::Anywhere => bytes.len(),
            Division::Lines => line_cut(bytes, source),
            Division::AwaitedLines => {
                // A packet has a byte in front: with room for one nothing more can be read.
                let most = BUFFER - usize::from(source.packets().is_some());
                self.line_wait.cut(bytes, source, sink.kind(), most)
            }
        };
        if division != Division::AwaitedLines {
            self.line_wait = LineWait::No;
        }
        let end = whole.start + cut;
        match &mut self.text {
            None | Some(Text { mode: Mode::Off, .. }) if !self.kept.is_empty() => {
                self.pending = std::mem::take(&mut self.kept);
            }
            None | Some(Text { mode: Mode::Off, .. }) => {
                let tail = end..whole.end;
                output.bytes_mut()[..tail.len()].copy_from_slice(&input.bytes()[tail.clone()]);
                std::mem::swap(input, output);
                self.pending = whole.start..end;
                self.filled = 0..tail.len();
                self.completing_line = !tail.is_empty();
                if let Some(text) = &mut self.text {
                    text.forget_early();
                    self.lines += line_ends(&output.bytes()[whole.start..end]) as u64;
                }
            }
            Some(text) => {
                let bytes = &input.bytes()[whole.start..end];
                let kept = std::mem::take(&mut self.kept);
                let free = kept.len();
                output.bytes_mut().copy_within(kept, 0);
                let done = text.work(bytes, &mut output.bytes_mut()[free..]);
                self.lines += line_ends(&bytes[..done.consumed]) as u64;
                self.pending = 0..free + done.produced;
                self.filled.start += done.consumed;
                if self.filled.start == end {
                    input.bytes_mut().copy_within(end..whole.end, 0);
                    self.filled = 0..whole.end - end;
                    self.completing_line = !self.filled.is_empty();
                } else if self.pending.is_empty() {
                    // The mode has changed before these bytes.
                    self.pass_on(source, sink, reads);
                } else if let Some(last) = last_line_end(&output.bytes()[self.pending.clone()]) {
                    (self.pending, self.kept) = (0..last, last..self.pending.end);
                }
            }
        }
    }

    /// Where what was read may be divided: in lines, if others may write to the sink as well.
    fn division(&self, source: &Endpoint, sink: &Endpoint, reads: Reads) -> Division {
        let text = self.text.is_some();
        match sink.kind() {
            _ if self.source_ended || reads == Reads::Flush => Division::Anywhere,
            _ if source.kind() == Kind::Records => Division::Anywhere,
            Kind::Terminal if !text && self.goes_at_once() => Division::Lines,
            Kind::File | Kind::Terminal => Division::AwaitedLines,
            Kind::Pipe if text => Division::AwaitedLines,
            _ => Division::Anywhere,
        }
    }

    /// Whether what has come may be all that comes, and somebody at the terminal waits to see it: a prompt, or what a program
    /// draws that knows no lines.
    fn goes_at_once(&self) -> bool {
        let bytes =
            self.input.as_ref().map_or(&[][..], |input| &input.bytes()[self.filled.clone()]);
        let drawn = || last_line_end(bytes).is_none();
        self.line_wait == LineWait::No && (bytes.len() < FLUSHED_BUFFER || drawn())
    }

    pub(in crate::relay) fn complete(
        &mut self,
        operation: Operation,
        result: TransferResult,
        buffer: Option<Buffer>,
        link: &mut Link,
    ) -> Step {
        match operation {
            Operation::Input => self.polled(result, link),
            Operation::Read => {
                self.input = buffer;
                self.read(result, link)
            }
            _ => {
                self.output = buffer;
                self.wrote(result, link)
            }
        }
    }

    /// When the rest of a line has been waited for long enough.
    pub(in crate::relay) fn deadline(&self) -> Option<Instant> {
        match self.line_wait {
            LineWait::Until(until) => Some(until),
            LineWait::No | LineWait::Over => None,
        }
    }

    /// Takes the read for the rest of a line back, if that has had its time.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub(in crate::relay) fn on_time(
        &mut self,
        link: &Link,
        ring: &mut Ring,
        now: Instant,
    ) -> io::Result<()> {
        if self.deadline().is_some_and(|until| now >= until) {
            self.line_wait = LineWait::Over;
            match self.input {
                Some(_) => self.completing_line = false,
                None => ring.cancel(link.token(Operation::Read))?,
            }
        }
        Ok(())
    }

    /// Whether the source has ended and nothing is held or under way: a line that was waited for may have come to nothing
    /// under text modes, and then no write follows it.
    pub(in crate::relay) fn is_spent(&self) -> bool {
        self.source_ended && self.held() == 0 && self.input.is_some() && self.output.is_some()
    }

    pub(in crate::relay) fn end_if_drained(&mut self, link: &Link) -> Step {
        if !self.source_ended || self.held() > 0 {
            return Step::Continue;
        }
        if let (Some(text), Some(output)) = (&mut self.text, &mut self.output) {
            let done = text.filter.finish(output.bytes_mut(), text.arrival);
            self.pending = 0..done.produced;
            if done.produced > 0 {
                return Step::Continue;
            }
        }
        // Pipes and files are ended by closing them; a terminal stays, and is told by a character.
        if let (Some(sink), Some(output)) = (&link.sink, &mut self.output)
            && sink.kind() == Kind::Leader
            && !std::mem::replace(&mut self.ending, true)
        {
            let end = sink.end_of_input(self.last);
            output.bytes_mut()[..end.len()].copy_from_slice(&end);
            self.pending = 0..end.len();
            if !end.is_empty() {
                return Step::Continue;
            }
        }
        Step::End(self.end.take().unwrap_or(End::Delivered))
    }

    /// Takes no more. False if there is nothing that could go on.
    pub(in crate::relay) fn finish(&mut self) -> bool {
        if self.buffers != Buffers::Made {
            return false;
        }
        self.finishing = true;
        self.source_ended |= self.input.is_some();
        self.end.get_or_insert(End::Stopped);
        true
    }

    /// The source is being left: lets out what text modes hold, and ends when that is written. False if they hold nothing.
    pub(in crate::relay) fn give_up(&mut self, link: &Link) -> bool {
        if !self.holds_text() {
            return false;
        }
        self.source_ended = true;
        self.end = Some(End::Abandoned);
        matches!(self.end_if_drained(link), Step::Continue)
    }

    /// Whether text modes hold some of the stream.
    pub(in crate::relay) fn holds_text(&self) -> bool {
        self.text.as_ref().is_some_and(|text| text.filter.holds_text())
    }

    /// Says which process the lines come from.
    pub(in crate::relay) fn set_pid(&mut self, pid: u32) {
        if let Some(text) = &mut self.text {
            text.filter.set_pid(pid);
        }
    }

    /// The last byte delivered.
    pub(in crate::relay) fn last(&self) -> Option<u8> {
        self.last
    }

    /// Lines that have ended under text modes; `None` without any.
    pub(in crate::relay) fn lines(&self) -> Option<u64> {
        self.text.as_ref().map(|_| self.lines)
    }

    pub(in crate::relay) fn is_armed(&self) -> bool {
        match self.buffers {
            Buffers::Unmade | Buffers::Due => false,
            Buffers::Awaited => true,
            Buffers::Made => self.input.is_none(),
        }
    }

    /// Whether nothing is in flight and nothing held.
    pub(in crate::relay) fn is_idle(&self) -> bool {
        let free = match self.buffers {
            Buffers::Unmade => true,
            Buffers::Awaited | Buffers::Due => false,
            Buffers::Made => self.input.is_some() && self.output.is_some(),
        };
        free && self.held() == 0 && !self.source_ended
    }

    /// Switches the filter off where it is neutral, or on.
    pub(in crate::relay) fn want(&mut self, wanted: TextSwitch) {
        if let Some(text) = &mut self.text {
            text.want(wanted);
        }
    }

    /// Whether there is more to do than to count lines.
    pub(in crate::relay) fn has_text_modes(&self) -> bool {
        self.text.as_ref().is_some_and(|text| !text.only_counts)
    }

    /// Whether text modes were asked for and are off.
    pub(in crate::relay) fn is_raw(&self) -> bool {
        self.text.as_ref().is_some_and(|text| text.mode == Mode::Off)
    }

    pub(in crate::relay) fn held(&self) -> u64 {
        (self.filled.len() + self.pending.len() + self.kept.len()) as u64
    }
}

fn read(source: &Endpoint, buffer: Buffer, start: usize) -> Op {
    match source.kind() {
        Kind::File => Op::read_file(source.fd(), buffer, start),
        _ if source.is_nonblocking() => {
            Op::read(source.fd(), buffer, start).after(source.fd(), PollFlags::POLLIN)
        }
        _ => Op::read(source.fd(), buffer, start),
    }
}

fn write(sink: &Endpoint, buffer: Buffer, range: Range<usize>, engine: Engine) -> Op {
    // A kernel worker may wait, and then others at the terminal tear no line. What is drawn on it, or echoed, need not.
    if let Some(terminal) = sink.blocking()
        && engine == Engine::Uring
        && buffer.bytes()[range.clone()].contains(&b'\n')
    {
        return Op::write(terminal, buffer, range).on_worker();
    }
    match sink.kind() {
        Kind::File => Op::write_file(sink.fd(), buffer, range),
        _ if sink.is_nonblocking() => {
            Op::write(sink.fd(), buffer, range).after(sink.fd(), PollFlags::POLLOUT)
        }
        // It could not be reopened without blocking: a worker may block in our place.
        Kind::Terminal => Op::write(sink.fd(), buffer, range).on_worker(),
        // Some devices never say that they are writable (/dev/kmsg): waiting for that might not end.
        Kind::Other if !sink.has_room() => Op::write_file(sink.fd(), buffer, range),
        _ => Op::write(sink.fd(), buffer, range),
    }
}
