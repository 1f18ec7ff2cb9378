//! How a relay ends: because its source has, because its sink takes no more, because nobody needs it any more, or because
//! its source is left to whoever holds it open.

use std::io;

use nix::poll::PollFlags;

use super::path::{Path, copy};
use super::{
    Delivery, End, Endpoint, Operation, Outcome, Relay, Ring, State, Token, TransferResult, Watch,
};
use crate::error::Error;

impl Relay {
    pub(super) fn sink_changed(&mut self, outcome: Outcome, ring: &mut Ring) -> io::Result<()> {
        self.watch = Watch::Over;
        let gone = (PollFlags::POLLERR | PollFlags::POLLHUP).bits() as u32;
        match outcome {
            // The wrong end of a pipe tells of its writers; what is written to it fails.
            Outcome::Done(events) if events & gone != 0 && self.sink_can_be_written() => {
                match self.holds_nothing() {
                    true => self.end(End::Closed, ring),
                    false => self.end(End::ReaderLeft, ring),
                }
            }
            // A peer that only stopped sending (POLLRDHUP) can still read.
            _ => Ok(()),
        }
    }

    fn sink_can_be_written(&self) -> bool {
        self.link.sink.as_ref().is_some_and(Endpoint::can_be_written)
    }

    /// While leaving: bytes that came after all open the relay again, silence ends it.
    pub(super) fn settle_leaving(
        &mut self,
        result: TransferResult,
        ring: &mut Ring,
    ) -> io::Result<()> {
        if !matches!(self.state, State::Leaving) {
            return Ok(());
        }
        let silent = result == TransferResult::Cancelled && self.is_empty();
        if silent {
            if let Path::Buffered(path) = &mut self.path
                && path.give_up(&self.link)
            {
                self.state = State::Open;
                return Ok(());
            }
            return self.end(End::Abandoned, ring);
        }
        self.state = State::Open;
        Ok(())
    }

    /// Gives up a source that stays silent; bytes that arrive in the same moment are still carried.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub fn leave(&mut self, ring: &mut Ring) -> io::Result<()> {
        if matches!(self.state, State::Open) {
            self.state = State::Leaving;
            self.cancel_reads(ring)?;
        }
        Ok(())
    }

    /// Takes no more from the source; what was taken goes on.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub fn finish(&mut self, ring: &mut Ring) -> io::Result<()> {
        let goes_on = match (&self.state, &mut self.path) {
            (State::Ended(_), _) => return Ok(()),
            (_, Path::Buffered(path)) => path.finish(),
            (_, Path::Brokered(path)) => path.finish(),
            (_, Path::Shared(path)) => path.finish(),
            (_, Path::Direct(_) | Path::Teed(_)) => false,
        };
        if !goes_on {
            return self.stop(ring);
        }
        self.state = State::Open;
        self.cancel_reads(ring)
    }

    /// Ends the relay at once: nobody needs its bytes any more.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub fn stop(&mut self, ring: &mut Ring) -> io::Result<()> {
        match self.state {
            State::Ended(_) => Ok(()),
            _ => self.end(End::Stopped, ring),
        }
    }

    /// Closes our ends at once, and takes back what is in flight: until those operations have
    /// completed they hold the fds, so the ring has to be entered once more.
    pub(super) fn end(&mut self, end: End, ring: &mut Ring) -> io::Result<()> {
        if let End::ReaderLeft | End::Closed | End::Failed(_) = end
            && let Some(instead) = self.instead.take()
        {
            self.sink_end = Some(end);
            self.link.delivery = Delivery::Nowhere;
            self.link.kinds.1 = instead.kind();
            self.link.sink = Some(instead);
            return Ok(());
        }
        let end = self.sink_end.take().unwrap_or(end);
        // Whatever the end is: what was taken and has not gone on goes nowhere any more.
        self.link.counters.undelivered += self.held();
        self.link.source = None;
        let end = self.close_sink(end);
        copy::release(self.path.copies_mut());
        self.state = State::Ended(end);
        self.cancel_reads(ring)?;
        for operation in [Operation::Drain, Operation::Write, Operation::SinkWatch] {
            ring.cancel(self.link.token(operation))?;
        }
        for copy in 0..self.path.copies_mut().len() as u16 {
            for operation in [Operation::Tee, Operation::Mark] {
                ring.cancel(Token { copy, ..self.link.token(operation) })?;
            }
        }
        Ok(())
    }

    /// Lets go of the sink. Quotas, NFS and FUSE report a failed write only when the file is closed.
    fn close_sink(&mut self, end: End) -> End {
        let closed = self.link.sink.take().map_or(Ok(()), Endpoint::close);
        match (end, closed) {
            (End::Delivered, Err(errno)) => {
                let tried = format!("close {}", self.link.sink_name);
                End::Failed(Error::os(tried, errno))
            }
            (end, _) => end,
        }
    }

    fn cancel_reads(&self, ring: &mut Ring) -> io::Result<()> {
        for operation in [Operation::Splice, Operation::Fill, Operation::Read, Operation::Input] {
            ring.cancel(self.link.token(operation))?;
        }
        Ok(())
    }
}
