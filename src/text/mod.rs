//! Text filters: bytes in, bytes out. Pure: no I/O and no clock of their own.
//!
//! A [`Filter`] works between two fixed buffers of its caller. Any cut of the input and any size of the output give the
//! same result. Only [`Escapes::Screen`] keeps bytes of the stream from one call to the next, a bounded number of them,
//! and needs a last call when the stream has ended, [`Filter::finish`].

mod automaton;
mod controls;
pub mod newline;
mod scan;
pub mod screen;
pub mod strip;
pub mod transform;

#[cfg(test)]
mod tests;

use std::time::Duration;

use screen::{Screen, ScreenSize};
use strip::{C1, CursorVisibility, Strip};
use transform::{Prefix, Transform};

/// How many lines end in `bytes`.
pub fn line_ends(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', bytes).count()
}

/// What one call of a filter did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// Bytes of the output that are filled.
    pub produced: usize,
}

/// When a chunk of input arrived, read off both clocks by the caller, once per chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Since 1970-01-01T00:00:00Z.
    pub wall: Duration,
    /// Since the start of the session, on a clock that never steps back.
    pub elapsed: Duration,
}

/// The text modes of one stream. The default is to pass everything through.
#[derive(Clone, Debug, Default)]
pub struct Modes {
    /// What becomes of escape sequences.
    pub escapes: Escapes,
    /// Whether lines get a prefix, and which. Comes after `escapes`: what is removed starts no line.
    pub transform: Option<Prefix>,
}

impl Modes {
    /// Says for what size of a terminal the stream is written.
    pub fn set_screen(&mut self, of: ScreenSize) {
        if let Escapes::Screen { size, .. } = &mut self.escapes {
            *size = of;
        }
    }

    /// Whether everything passes through.
    pub fn is_default(&self) -> bool {
        self.escapes == Escapes::Pass && self.transform.is_none()
    }

    /// What comes nearest without a last call when the stream has ended: escape sequences are removed, not obeyed.
    pub fn without_screen(mut self) -> Modes {
        if let Escapes::Screen { c1, .. } = self.escapes {
            self.escapes = Escapes::Strip { cursor: CursorVisibility::Removed, c1 };
        }
        self
    }
}

/// What becomes of escape sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escapes {
    /// They pass.
    #[default]
    Pass,
    /// They are removed.
    Strip {
        /// Which of them stay.
        cursor: CursorVisibility,
        /// What the bytes 0x80..=0x9F are.
        c1: C1,
    },
    /// They are obeyed: what comes out is what a screen showed at last. This needs lines to be held, and says itself
    /// how they end.
    Screen {
        /// The terminal's.
        size: ScreenSize,
        /// What the bytes 0x80..=0x9F are.
        c1: C1,
    },
}

/// The state of one stream's text modes.
#[derive(Clone, Debug)]
pub struct Filter(Work);

#[derive(Clone, Debug)]
enum Work {
    Pass,
    Strip(Strip),
    Transform(Transform),
    Both {
        strip: Strip,
        transform: Transform,
        /// What `strip` hands to `transform` within one call.
        between: Box<[u8; BETWEEN]>,
    },
    Screen {
        screen: Box<Screen>,
        transform: Option<Transform>,
    },
}

/// Small enough to stay in the first-level cache beside what is read and written.
const BETWEEN: usize = 4096;

impl Filter {
    /// The filter of a stream at its start.
    pub fn new(modes: &Modes) -> Self {
        Filter(match (modes.escapes, &modes.transform) {
            (Escapes::Pass, None) => Work::Pass,
            (Escapes::Strip { cursor, c1 }, None) => Work::Strip(Strip::new(cursor, c1)),
            (Escapes::Pass, Some(prefix)) => Work::Transform(Transform::new(prefix)),
            (Escapes::Strip { cursor, c1 }, Some(prefix)) => Work::Both {
                strip: Strip::new(cursor, c1),
                transform: Transform::new(prefix),
                between: Box::new([0; BETWEEN]),
            },
            (Escapes::Screen { size, c1 }, prefix) => Work::Screen {
                screen: Box::new(Screen::new(size, c1)),
                transform: prefix.as_ref().map(Transform::new),
            },
        })
    }

    /// Whether some of the stream is held here.
    pub fn holds_text(&self) -> bool {
        match &self.0 {
            Work::Screen { screen, .. } => screen.holds_text(),
            Work::Pass | Work::Strip(_) | Work::Transform(_) | Work::Both { .. } => false,
        }
    }

    /// Says which process the lines come from, for labels that show it. Before the first byte.
    pub fn set_pid(&mut self, pid: u32) {
        match &mut self.0 {
            Work::Pass | Work::Strip(_) => {}
            Work::Transform(transform) | Work::Both { transform, .. } => transform.set_pid(pid),
            Work::Screen { transform, .. } => {
                transform.iter_mut().for_each(|transform| transform.set_pid(pid));
            }
        }
    }

    /// Moves from `input`, which came with `arrival`, to `output` until one of them is used up.
    ///
    /// While input is left, call again with the rest of it, the same `arrival`, and room in `output`: any
    /// room but none makes progress. Bytes of `output` beyond what is produced may have been overwritten.
    pub fn filter(&mut self, input: &[u8], output: &mut [u8], arrival: Arrival) -> Progress {
        match &mut self.0 {
            Work::Pass => {
                let reach = input.len().min(output.len());
                output[..reach].copy_from_slice(&input[..reach]);
                Progress { consumed: reach, produced: reach }
            }
            Work::Strip(strip) => strip.filter(input, output),
            Work::Transform(transform) => transform.filter(input, output, arrival),
            Work::Both { strip, transform, between } => {
                chain(strip, transform, between, input, output, arrival)
            }
            Work::Screen { screen, transform } => {
                let mut at = Progress::default();
                while drain(screen, transform, output, &mut at.produced, arrival)
                    && at.consumed < input.len()
                {
                    at.consumed += screen.feed(&input[at.consumed..]);
                }
                at
            }
        }
    }

    /// The stream has ended: moves what is held to `output`. Call it until it produces nothing.
    pub fn finish(&mut self, output: &mut [u8], arrival: Arrival) -> Progress {
        let mut at = Progress::default();
        match &mut self.0 {
            Work::Screen { screen, transform } => {
                if drain(screen, transform, output, &mut at.produced, arrival) {
                    screen.flush();
                    drain(screen, transform, output, &mut at.produced, arrival);
                }
            }
            Work::Pass | Work::Strip(_) | Work::Transform(_) | Work::Both { .. } => {}
        }
        at
    }

    /// Like [`filter`](Self::filter), but stops at the first place where the filter is neutral, if
    /// `input` reaches one: at once if it is already. For a change of modes in mid-stream.
    pub fn settle(&mut self, input: &[u8], output: &mut [u8], arrival: Arrival) -> Progress {
        let mut at = Progress::default();
        if let Work::Screen { .. } = self.0 {
            return self.settle_screen(input, output, arrival);
        }
        while at.consumed < input.len() && !self.is_neutral() {
            let rest = &input[at.consumed..];
            // A line start follows an LF; the ground state may follow any byte.
            let step = match self.has_lines() {
                false => 1,
                true => memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1),
            };
            let done = self.filter(&rest[..step], &mut output[at.produced..], arrival);
            at.consumed += done.consumed;
            at.produced += done.produced;
            if done.consumed < step {
                break;
            }
        }
        at
    }

    /// A screen is neutral once it is empty: between two characters, everything that it holds goes out.
    fn settle_screen(&mut self, input: &[u8], output: &mut [u8], arrival: Arrival) -> Progress {
        let mut at = Progress::default();
        loop {
            let Work::Screen { screen, .. } = &self.0 else { return at };
            if screen.is_between() {
                at.produced += self.finish(&mut output[at.produced..], arrival).produced;
                return at;
            }
            let Some(byte) = input.get(at.consumed..at.consumed + 1) else { return at };
            let done = self.filter(byte, &mut output[at.produced..], arrival);
            at.consumed += done.consumed;
            at.produced += done.produced;
            if done.consumed == 0 {
                return at;
            }
        }
    }

    /// Whether it is neutral only at the start of a line.
    fn has_lines(&self) -> bool {
        match &self.0 {
            Work::Pass | Work::Strip(_) | Work::Screen { .. } => false,
            Work::Transform(_) | Work::Both { .. } => true,
        }
    }

    /// Whether the stream may go on without this filter, or with another, and nothing is torn: between
    /// characters and outside any escape sequence, and at the start of a line if lines have prefixes. A screen is to
    /// hold no line.
    pub fn is_neutral(&self) -> bool {
        match &self.0 {
            Work::Pass => true,
            Work::Strip(strip) => strip.is_neutral(),
            Work::Transform(transform) => transform.is_neutral(),
            Work::Both { strip, transform, .. } => strip.is_neutral() && transform.is_neutral(),
            Work::Screen { screen, .. } => screen.is_neutral(),
        }
    }

    /// Says that part of the stream went past this filter, so that where it stands is not known. The next
    /// byte is taken for text in the middle of a line, and perhaps of a character.
    pub fn rejoin(&mut self) {
        match &mut self.0 {
            Work::Pass => {}
            Work::Strip(strip) => strip.rejoin(),
            Work::Transform(transform) => transform.rejoin(),
            Work::Both { strip, transform, .. } => {
                strip.rejoin();
                transform.rejoin();
            }
            Work::Screen { screen, transform } => {
                screen.rejoin();
                transform.iter_mut().for_each(Transform::rejoin);
            }
        }
    }
}

/// Moves what has left `screen` to `output`, from `produced` on. Returns whether that is all of it.
fn drain(
    screen: &mut Screen,
    transform: &mut Option<Transform>,
    output: &mut [u8],
    produced: &mut usize,
    arrival: Arrival,
) -> bool {
    let (text, room) = (screen.pending(), &mut output[*produced..]);
    let done = match transform {
        Some(transform) => transform.filter(text, room, arrival),
        None => {
            let reach = text.len().min(room.len());
            room[..reach].copy_from_slice(&text[..reach]);
            Progress { consumed: reach, produced: reach }
        }
    };
    let all = done.consumed == text.len();
    *produced += done.produced;
    screen.take(done.consumed);
    all
}

/// Two filters, one after the other, through `between`. Nothing stays there: if `transform` finds no room for all of it,
/// `strip` goes back and goes again exactly as far as `transform` came.
fn chain(
    strip: &mut Strip,
    transform: &mut Transform,
    between: &mut [u8; BETWEEN],
    input: &[u8],
    output: &mut [u8],
    arrival: Arrival,
) -> Progress {
    let mut at = Progress::default();
    while at.consumed < input.len() {
        let rest = &input[at.consumed..];
        let before = strip.clone();
        let handed = strip.filter(rest, between);
        let text = &between[..handed.produced];
        let done = transform.filter(text, &mut output[at.produced..], arrival);
        at.produced += done.produced;
        if done.consumed == text.len() {
            at.consumed += handed.consumed;
            continue;
        }
        *strip = before;
        let again = strip.filter(rest, &mut between[..done.consumed]);
        debug_assert_eq!(again.produced, done.consumed);
        at.consumed += again.consumed;
        break;
    }
    at
}
