//! The text modes of stdout and stderr: nproxy's own filters, a chunk at a time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nproxy::config::{SinkIs, Text};
use nproxy::relay::Stream;
use nproxy::text::{Arrival, Filter};

/// How much a filter is given to fill at a time, and the most that is kept from one chunk to the next.
const STEP: usize = 64 << 10;

/// Whether text modes run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// As asked.
    On,
    /// Memory is short: bytes pass as soon as nothing is torn by it.
    Off,
}

/// One stream.
pub(crate) struct TextStream {
    filter: Filter,
    /// Bytes pass by the filter.
    passing: bool,
    output: Vec<u8>,
    started: Instant,
}

impl TextStream {
    /// The filter that `text` asks for on stdout (fd 1) or stderr (fd 2); `None` if there is nothing to do.
    pub(crate) fn new(text: &Text, fd: i32, started: Instant) -> Option<TextStream> {
        let stream = if fd == 1 { Stream::Stdout } else { Stream::Stderr };
        // SAFETY: isatty(3) only asks.
        let sink = match unsafe { libc::isatty(fd) } {
            1 => SinkIs::Terminal,
            _ => SinkIs::Other,
        };
        let modes = text.modes(sink, stream).filter(|_| text.streams.include(stream))?;
        // A process does not always come to say that its output has ended.
        let mut filter = Filter::new(&modes.without_screen());
        filter.set_pid(std::process::id());
        Some(TextStream { filter, passing: false, output: Vec::new(), started })
    }

    /// What becomes of `input`.
    pub(crate) fn filter(&mut self, input: &[u8], wanted: Wanted) -> &[u8] {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let arrival = Arrival { wall, elapsed: self.started.elapsed() };
        self.output.clear();
        self.output.shrink_to(STEP);
        let mut rest = input;
        if wanted == Wanted::On && self.passing {
            self.passing = false;
            self.filter.rejoin();
        }
        while !rest.is_empty() && !self.passing {
            if wanted == Wanted::Off && self.filter.is_neutral() {
                self.passing = true;
                break;
            }
            let filled = self.output.len();
            self.output.resize(filled + STEP.min(rest.len() + 256), 0);
            let room = &mut self.output[filled..];
            let done = match wanted {
                Wanted::On => self.filter.filter(rest, room, arrival),
                Wanted::Off => self.filter.settle(rest, room, arrival),
            };
            self.output.truncate(filled + done.produced);
            rest = &rest[done.consumed..];
        }
        self.output.extend_from_slice(rest);
        &self.output
    }
}
