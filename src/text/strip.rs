//! Removes terminal escape sequences from a byte stream, whatever its chunks.
//!
//! Where a sequence starts and ends is the automaton's to say; nothing is ever executed here.
//!
//! Invariants:
//! * It holds a state and a few counters, never a byte of the stream, so the end of the stream needs no
//!   call: a sequence that the stream leaves unfinished is dropped, everything else is already out.
//! * Where the chunks are cut and how large the output is changes nothing in what comes out.
//! * Text is copied, never changed: UTF-8, broken UTF-8, other encodings, and every C0 control but ESC.
//!
//! A C0 control in a CSI or an escape is executed by a terminal at once, so it stays, and comes before
//! whatever follows the sequence.

mod block;
#[cfg(test)]
pub(super) mod reference;
#[cfg(test)]
pub(super) mod tests;

use super::Progress;
pub use super::automaton::STRING_LIMIT;
use super::automaton::{Automaton, State, Taken};
pub use super::controls::C1;
use super::controls::{CSI, ESC};

/// Whether the two sequences that show and hide the cursor are stripped as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CursorVisibility {
    /// Every sequence is removed: for files, pipes and sockets.
    #[default]
    Removed,
    /// `CSI ?25h` and `CSI ?25l` pass unchanged: for a terminal, which a program that hides the cursor
    /// and is killed would otherwise leave in a state that the stripped stream cannot restore.
    Kept,
}

/// The parameters of the sequence that [`CursorVisibility::Kept`] keeps.
const CURSOR: &[u8; 3] = b"?25";
/// `Strip::matched` of a CSI that can no longer be that sequence.
const OTHER: u8 = u8::MAX;

/// Bytes of text taken one by one before blocks are tried again.
const STRETCH: usize = 64;

/// The stripper of one stream.
#[derive(Clone, Debug)]
pub(super) struct Strip {
    automaton: Automaton,
    cursor: CursorVisibility,
    /// In a CSI: bytes of [`CURSOR`] seen, or [`OTHER`]. 0 outside of one.
    matched: u8,
    /// At the final byte of a kept sequence: bytes of it that are already out.
    emitted: u8,
}

impl Strip {
    pub(super) fn new(cursor: CursorVisibility, c1: C1) -> Self {
        Strip { automaton: Automaton::new(c1), cursor, matched: 0, emitted: 0 }
    }

    #[cfg(test)]
    pub(super) fn with_limit(cursor: CursorVisibility, c1: C1, limit: u32) -> Self {
        Strip { automaton: Automaton::with_limit(c1, limit), ..Strip::new(cursor, c1) }
    }

    /// Between two characters of text: nothing is lost if the next byte goes another way.
    pub(super) fn is_neutral(&self) -> bool {
        self.automaton.is_neutral()
    }

    /// Bytes have passed that this automaton has not seen. The next ones may be the rest of a character.
    pub(super) fn rejoin(&mut self) {
        self.automaton.rejoin();
        self.matched = 0;
        self.emitted = 0;
    }

    /// Moves from `input` to `output` until one of them is used up.
    pub(super) fn filter(&mut self, input: &[u8], output: &mut [u8]) -> Progress {
        let mut at = Progress::default();
        while at.consumed < input.len() {
            let more = match self.automaton.state() {
                State::Ground => self.ground(input, output, &mut at),
                State::Escape | State::EscapeIntermediate | State::Csi | State::Palette => {
                    self.sequence(input[at.consumed], &mut output[at.produced..], &mut at)
                }
                State::OscStart | State::Osc | State::String => {
                    at.consumed += self.automaton.skip_string(&input[at.consumed..]);
                    true
                }
            };
            if !more {
                break;
            }
        }
        at
    }

    /// Copies text, at most up to the next control that starts a sequence, and takes that control.
    /// Returns whether there may be room for more.
    fn ground(&mut self, input: &[u8], output: &mut [u8], at: &mut Progress) -> bool {
        let done = block::filter(self.cursor, self.automaton.c1(), input, output, *at);
        if done != *at {
            *at = done;
            self.automaton.passed(&input[..done.consumed]);
        }
        let (rest, room) = (&input[at.consumed..], &mut output[at.produced..]);
        // Not far: the next bytes may be for blocks again.
        let reach = rest.len().min(room.len()).min(STRETCH);
        let text = self.automaton.text(&rest[..reach]);
        room[..text].copy_from_slice(&rest[..text]);
        at.consumed += text;
        at.produced += text;
        if text < reach {
            at.consumed += 1;
            self.automaton.start(rest[text]);
        }
        reach > 0
    }

    /// Takes one byte of a sequence. Returns whether there was room for what it adds to the text.
    fn sequence(&mut self, byte: u8, output: &mut [u8], at: &mut Progress) -> bool {
        let final_byte = self.automaton.state() == State::Csi && matches!(byte, 0x40..=0x7E);
        if final_byte && !self.keep_cursor(byte, output, at) {
            return false;
        }
        if output.is_empty() && self.automaton.executes(byte) {
            return false;
        }
        let taken = self.automaton.sequence(byte);
        self.matched = match taken {
            Taken::Executed => {
                output[0] = byte;
                at.produced += 1;
                self.matched
            }
            Taken::Part if byte == 0x7F => self.matched,
            Taken::Part if matches!(byte, 0x20..=0x3F) && self.automaton.state() == State::Csi => {
                match_cursor(self.matched, byte)
            }
            _ => 0,
        };
        at.consumed += usize::from(taken != Taken::Not);
        true
    }

    /// At the final byte of a CSI: lets it out if it is to be kept. Returns whether there was room.
    fn keep_cursor(&mut self, last: u8, output: &mut [u8], at: &mut Progress) -> bool {
        let kept = self.cursor == CursorVisibility::Kept
            && usize::from(self.matched) == CURSOR.len()
            && matches!(last, b'h' | b'l');
        if !kept {
            return true;
        }
        let sequence: &[u8] = if self.automaton.is_eight_bit() {
            &[CSI, b'?', b'2', b'5', last]
        } else {
            &[ESC, b'[', b'?', b'2', b'5', last]
        };
        // The final byte counts as consumed only once all of it is out: that is what resumes here.
        let pending = &sequence[usize::from(self.emitted)..];
        let fits = pending.len().min(output.len());
        output[..fits].copy_from_slice(&pending[..fits]);
        at.produced += fits;
        if fits < pending.len() {
            self.emitted += fits as u8;
            return false;
        }
        self.emitted = 0;
        true
    }
}

fn match_cursor(matched: u8, byte: u8) -> u8 {
    match CURSOR.get(usize::from(matched)) {
        Some(&expected) if expected == byte => matched + 1,
        _ => OTHER,
    }
}
