//! Removes terminal escape sequences from a byte stream, whatever its chunks.
//!
//! The automaton follows ECMA-48 (5th edition) and the parser of the DEC VT500 series as Paul Williams
//! drew it (<https://vt100.net/emu/dec_ansi_parser>), which xterm and its kin also run. Only what decides
//! where a sequence ends is left of it, as nothing is ever executed here.
//!
//! Invariants:
//! * It holds a state and a few counters, never a byte of the stream, so the end of the stream needs no
//!   call: a sequence that the stream leaves unfinished is dropped, everything else is already out.
//! * Where the chunks are cut and how large the output is changes nothing in what comes out.
//! * Text is copied, never changed: UTF-8, broken UTF-8, and every C0 control but ESC.
//!
//! What ends a sequence:
//! * CSI: a final byte (0x40..=0x7E). Escape: the same, from 0x30. SS2 and SS3 are such escapes: what
//!   they shift is a visible character and stays.
//! * OSC: BEL (xterm) or ST. DCS, SOS, PM and APC: ST only; BEL and newlines are their data.
//! * Any of them: CAN or SUB, which vanish, or the start of another sequence, which counts (VT500,
//!   "anywhere"), or, in a CSI or an escape, a byte from 0xA0 up, which is text.
//! * A string also ends, unterminated, after [`STRING_LIMIT`] bytes; what follows is text again. One that began with
//!   an 8-bit control ends before a newline already: such a byte is more often a piece of broken UTF-8, or another
//!   encoding's letter, and shall not cost more than the rest of its line.
//!
//! A C0 control in a CSI or an escape is executed by a terminal at once, so it stays, and comes before
//! whatever follows the sequence. A byte 0x80..=0x9F is a C1 control unless UTF-8 accounts for it.

mod block;
#[cfg(test)]
pub(super) mod reference;
mod scan;
#[cfg(test)]
pub(super) mod tests;

use super::Progress;
use scan::Utf8;

/// Bytes of data after which an OSC, DCS, SOS, PM or APC string without an end is given up: 16 MiB.
/// Inline images (iTerm2, sixel, kitty) come as one string of several MiB.
pub const STRING_LIMIT: u32 = 16 << 20;

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

const ESC: u8 = 0x1B;
const BEL: u8 = 0x07;
const CAN: u8 = 0x18;
const SUB: u8 = 0x1A;
const CSI: u8 = 0x9B;

/// The parameters of the sequence that [`CursorVisibility::Kept`] keeps.
const CURSOR: &[u8; 3] = b"?25";
/// `Strip::matched` of a CSI that can no longer be that sequence.
const OTHER: u8 = u8::MAX;

/// Bytes of text taken one by one before blocks are tried again.
const STRETCH: usize = 64;

/// States of the VT500 parser, those merged that end alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Text.
    Ground,
    /// After ESC.
    Escape,
    /// After ESC and at least one intermediate byte (0x20..=0x2F).
    EscapeIntermediate,
    /// After CSI: entry, param, intermediate and ignore end alike.
    Csi,
    /// In an OSC string.
    Osc,
    /// In a DCS, SOS, PM or APC string.
    String,
}

/// The automaton for one stream.
#[derive(Clone, Debug)]
pub(super) struct Strip {
    state: State,
    cursor: CursorVisibility,
    utf8: Utf8,
    /// In `Csi`: bytes of [`CURSOR`] seen, or [`OTHER`].
    matched: u8,
    /// In `Csi`, `Osc` and `String`: it began with one byte rather than with ESC and another.
    eight_bit: bool,
    /// In `Csi`, at the final byte of a kept sequence: bytes of it that are already out.
    emitted: u8,
    /// In `Osc` and `String`: bytes of data seen, at most `limit`.
    string: u32,
    limit: u32,
}

impl Strip {
    pub(super) fn new(cursor: CursorVisibility) -> Self {
        Strip {
            state: State::Ground,
            cursor,
            utf8: Utf8::default(),
            matched: 0,
            eight_bit: false,
            emitted: 0,
            string: 0,
            limit: STRING_LIMIT,
        }
    }

    #[cfg(test)]
    pub(super) fn with_limit(cursor: CursorVisibility, limit: u32) -> Self {
        Strip { limit, ..Strip::new(cursor) }
    }

    /// Between two characters of text: nothing is lost if the next byte goes another way.
    pub(super) fn is_neutral(&self) -> bool {
        self.state == State::Ground && !self.utf8.in_progress()
    }

    /// Bytes have passed that this automaton has not seen. The next ones may be the rest of a character.
    pub(super) fn rejoin(&mut self) {
        self.state = State::Ground;
        self.emitted = 0;
        self.utf8 = Utf8::anything();
    }

    /// Moves from `input` to `output` until one of them is used up.
    pub(super) fn filter(&mut self, input: &[u8], output: &mut [u8]) -> Progress {
        let mut at = Progress::default();
        while at.consumed < input.len() {
            let more = match self.state {
                State::Ground => self.ground(input, output, &mut at),
                State::Escape | State::EscapeIntermediate | State::Csi => {
                    self.sequence(input[at.consumed], &mut output[at.produced..], &mut at)
                }
                State::Osc | State::String => {
                    at.consumed += self.skip_string(&input[at.consumed..]);
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
        let done = block::filter(self.cursor, input, output, *at);
        if done != *at {
            *at = done;
            self.utf8 = Utf8::after(&input[..done.consumed]);
        }
        let (rest, room) = (&input[at.consumed..], &mut output[at.produced..]);
        // Not far: the next bytes may be for blocks again.
        let reach = rest.len().min(room.len()).min(STRETCH);
        let text = scan::text(&rest[..reach], &mut self.utf8);
        room[..text].copy_from_slice(&rest[..text]);
        at.consumed += text;
        at.produced += text;
        if text < reach {
            at.consumed += 1;
            self.anywhere(rest[text]);
        }
        reach > 0
    }

    /// Takes one byte of an escape or a CSI. Returns whether there was room for what it adds to the text.
    fn sequence(&mut self, byte: u8, output: &mut [u8], at: &mut Progress) -> bool {
        match byte {
            CAN | SUB | ESC | 0x80..=0x9F => self.anywhere(byte),
            // C0: executed by a terminal in the middle of the sequence.
            0x00..=0x1F => {
                let Some(slot) = output.first_mut() else {
                    return false;
                };
                *slot = byte;
                at.produced += 1;
            }
            // DEL is ignored in a sequence, and so is part of it.
            0x7F => {}
            0xA0..=0xFF => {
                self.state = State::Ground;
                return true;
            }
            0x20..=0x7E => match self.state {
                State::Csi => match byte {
                    0x20..=0x3F => self.matched = match_cursor(self.matched, byte),
                    _ => {
                        if !self.keep_cursor(byte, output, at) {
                            return false;
                        }
                        self.state = State::Ground;
                    }
                },
                State::Escape => self.escape(byte),
                _ if byte >= 0x30 => self.state = State::Ground,
                _ => {}
            },
        }
        at.consumed += 1;
        true
    }

    /// The byte after ESC, where it is no control.
    fn escape(&mut self, byte: u8) {
        match byte {
            0x20..=0x2F => self.state = State::EscapeIntermediate,
            // The 7-bit form of a C1 control is ESC and the control less 0x40 (ECMA-48, 5.3).
            0x40..=0x5F => self.anywhere(byte + 0x40),
            _ => self.state = State::Ground,
        }
        self.eight_bit = false;
    }

    /// A control that ends what was going on, in any state, and may start a sequence.
    fn anywhere(&mut self, control: u8) {
        self.utf8 = Utf8::default();
        self.eight_bit = true;
        self.state = match control {
            ESC => State::Escape,
            CSI => {
                self.matched = 0;
                State::Csi
            }
            0x9D => State::Osc,
            // DCS, SOS, PM, APC.
            0x90 | 0x98 | 0x9E | 0x9F => State::String,
            // CAN, SUB, and the C1 controls that are complete: ST, SS2, SS3, IND, NEL and so on.
            _ => State::Ground,
        };
        self.string = 0;
    }

    /// At the final byte of a CSI: lets it out if it is to be kept. Returns whether there was room.
    fn keep_cursor(&mut self, last: u8, output: &mut [u8], at: &mut Progress) -> bool {
        let kept = self.cursor == CursorVisibility::Kept
            && usize::from(self.matched) == CURSOR.len()
            && matches!(last, b'h' | b'l');
        if !kept {
            return true;
        }
        let sequence: &[u8] = if self.eight_bit {
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

    /// Takes the data of a string, and its end if that is in `input`. Returns the bytes taken.
    fn skip_string(&mut self, input: &[u8]) -> usize {
        let bell_ends = self.state == State::Osc;
        let reach = input.len().min((self.limit - self.string) as usize);
        let line = self.eight_bit.then(|| memchr::memchr(b'\n', &input[..reach])).flatten();
        let reach = line.unwrap_or(reach);
        let mut data = scan::string(&input[..reach], bell_ends, &mut self.utf8);
        self.string += data as u32;
        let Some(&next) = input.get(data) else {
            return data;
        };
        // The limit or the line's end is reached and the string has not ended here: back to text, with this byte.
        if data == reach
            && (line.is_some() || scan::string(&[next], bell_ends, &mut self.utf8.clone()) == 1)
        {
            self.state = State::Ground;
            return data;
        }
        data += 1;
        self.anywhere(next);
        data
    }
}

fn match_cursor(matched: u8, byte: u8) -> u8 {
    match CURSOR.get(usize::from(matched)) {
        Some(&expected) if expected == byte => matched + 1,
        _ => OTHER,
    }
}
