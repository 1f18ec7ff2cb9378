//! Where an escape sequence starts and where it ends, whatever the chunks of the stream.
//!
//! It follows ECMA-48 (5th edition) and the parser of the DEC VT500 series as Paul Williams drew it
//! (<https://vt100.net/emu/dec_ansi_parser>), which xterm and its kin also run. Only what decides where a
//! sequence ends is left of it; what a sequence means is for who drives it.
//!
//! It holds a state and a few counters, never a byte of the stream. What ends a sequence:
//! * CSI: a final byte (0x40..=0x7E). Escape: the same, from 0x30. SS2 and SS3 are such escapes: what
//!   they shift is a visible character and stays.
//! * OSC, and the title of screen and tmux (`ESC k`): BEL (xterm) or ST, and a newline, which is no part of any of
//!   them: a title that was left open costs its line, not the log.
//! * The Linux console's palette has no end of its own: `ESC ] R` is complete, `ESC ] P` takes seven hexadecimal digits
//!   (console_codes(4)).
//! * DCS, SOS, PM and APC: ST only; BEL and newlines are their data.
//! * Any of them: CAN or SUB, which vanish, or the start of another sequence, which counts (VT500,
//!   "anywhere"), or, in a CSI or an escape, a byte from 0x80 up that is text.
//! * A string also ends, unterminated, after [`STRING_LIMIT`] bytes; what follows is text again. One that began with
//!   an 8-bit control ends before a newline already: such a byte is more often a piece of broken UTF-8, or another
//!   encoding's letter, and shall not cost more than the rest of its line.
//!
//! Every byte is looked at a bounded number of times, whatever the stream.

use super::controls::C1;
use super::controls::{CAN, CSI, ESC, SUB};
use super::scan::{self, Bell, LineFeed, Utf8};

/// Bytes of data after which an OSC, DCS, SOS, PM or APC string without an end is given up: 16 MiB.
/// Inline images (iTerm2, sixel, kitty) come as one string of several MiB.
pub const STRING_LIMIT: u32 = 16 << 20;

/// Hexadecimal digits of a colour of the Linux console: its number, then red, green and blue.
const PALETTE: u32 = 7;

/// States of the VT500 parser, those merged that end alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Text.
    Ground,
    /// After ESC.
    Escape,
    /// After ESC and at least one intermediate byte (0x20..=0x2F).
    EscapeIntermediate,
    /// After CSI: entry, param, intermediate and ignore end alike.
    Csi,
    /// Right after OSC.
    OscStart,
    /// In an OSC string, or in a title of screen's.
    Osc,
    /// After OSC and `P`: a colour of the Linux console.
    Palette,
    /// In a DCS, SOS, PM or APC string.
    String,
}

/// What became of one byte of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It belongs to a sequence that goes on, or to one that was given up.
    Part,
    /// A C0 control, which a terminal executes at once in the middle of a sequence.
    Executed,
    /// It ends a CSI; it is its final byte.
    Csi,
    /// It ends an escape of two or more bytes, or is a C1 control that is complete; the byte is the escape's last.
    Escape(u8),
    /// Nothing: it is text, and the sequence is over.
    Not,
}

/// The automaton for one stream.
#[derive(Clone, Debug)]
pub(super) struct Automaton {
    state: State,
    c1: C1,
    /// Where in a character the text is; only kept up while C1 controls are looked for.
    utf8: Utf8,
    /// In `Csi`, `Osc` and `String`: it began with one byte rather than with ESC and another.
    eight_bit: bool,
    /// In `Osc`, `Palette` and `String`: bytes of data seen, at most `limit`.
    string: u32,
    limit: u32,
}

impl Automaton {
    pub(super) fn new(c1: C1) -> Self {
        Automaton {
            state: State::Ground,
            c1,
            utf8: Utf8::default(),
            eight_bit: false,
            string: 0,
            limit: STRING_LIMIT,
        }
    }

    #[cfg(test)]
    pub(super) fn with_limit(c1: C1, limit: u32) -> Self {
        Automaton { limit, ..Automaton::new(c1) }
    }

    #[inline(always)]
    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn c1(&self) -> C1 {
        self.c1
    }

    /// Whether the sequence in progress began with one byte.
    pub(super) fn is_eight_bit(&self) -> bool {
        self.eight_bit
    }

    /// Between two characters of text: nothing is lost if the next byte goes another way.
    pub(super) fn is_neutral(&self) -> bool {
        self.state == State::Ground && !self.utf8.in_progress()
    }

    /// Bytes have passed that were not seen here. The next ones may be the rest of a character.
    pub(super) fn rejoin(&mut self) {
        self.state = State::Ground;
        self.utf8 = Utf8::anything();
    }

    /// Somebody else has gone through text that ends with `text`, in which there is no control that counts here.
    pub(super) fn passed(&mut self, text: &[u8]) {
        if self.c1 == C1::Control {
            self.utf8 = Utf8::after(text);
        }
    }

    /// Length of the text at the start of `bytes`, up to a control that starts a sequence.
    pub(super) fn text(&mut self, bytes: &[u8]) -> usize {
        scan::text(bytes, self.c1, &mut self.utf8)
    }

    /// Takes the control at which [`text`](Self::text) has stopped.
    pub(super) fn start(&mut self, control: u8) -> Taken {
        self.anywhere(control)
    }

    /// Whether `byte`, in the middle of an escape or a CSI, is a control that a terminal executes.
    pub(super) fn executes(&self, byte: u8) -> bool {
        byte < 0x20 && !matches!(byte, CAN | SUB | ESC) && self.state != State::Palette
    }

    /// Takes one byte of an escape, a CSI or a palette.
    #[inline(always)]
    pub(super) fn sequence(&mut self, byte: u8) -> Taken {
        match byte {
            CAN | SUB | ESC => self.anywhere(byte),
            0x80..=0x9F if self.c1 == C1::Control => self.anywhere(byte),
            0x80.. => self.leave(Taken::Not),
            _ if self.state == State::Palette => self.palette(byte),
            0x00..=0x1F => Taken::Executed,
            // DEL is ignored in a sequence, and so is part of it.
            0x7F => Taken::Part,
            0x20..=0x7E => match self.state {
                State::Csi if byte < 0x40 => Taken::Part,
                State::Csi => self.leave(Taken::Csi),
                State::Escape => self.escape(byte),
                _ if byte >= 0x30 => self.leave(Taken::Escape(byte)),
                _ => Taken::Part,
            },
        }
    }

    /// Takes the data of a string, and its end if that is in `input`. Returns the bytes taken.
    pub(super) fn skip_string(&mut self, input: &[u8]) -> usize {
        if self.state == State::OscStart {
            return self.start_osc(input);
        }
        let (bell, line_feed) = match self.state {
            State::Osc => (Bell::Ends, LineFeed::Ends),
            _ if self.eight_bit => (Bell::IsData, LineFeed::Ends),
            _ => (Bell::IsData, LineFeed::IsData),
        };
        let reach = input.len().min((self.limit - self.string) as usize);
        let data = scan::string(&input[..reach], bell, line_feed, self.c1, &mut self.utf8);
        self.string += data as u32;
        let Some(&next) = input.get(data) else {
            return data;
        };
        let mut utf8 = self.utf8.clone();
        let mut is_data = || scan::string(&[next], bell, LineFeed::IsData, self.c1, &mut utf8) == 1;
        // A line's end, or the limit where the string has no end: back to text, with this byte.
        if (next == b'\n' && line_feed == LineFeed::Ends) || (data == reach && is_data()) {
            self.state = State::Ground;
            return data;
        }
        self.anywhere(next);
        data + 1
    }

    /// The first byte of an OSC tells whether it is one of the Linux console's.
    fn start_osc(&mut self, input: &[u8]) -> usize {
        let (state, taken) = match input.first() {
            Some(b'R') => (State::Ground, 1),
            Some(b'P') => (State::Palette, 1),
            Some(_) => (State::Osc, 0),
            None => (State::OscStart, 0),
        };
        self.state = state;
        taken
    }

    fn palette(&mut self, byte: u8) -> Taken {
        if !byte.is_ascii_hexdigit() {
            return self.leave(Taken::Not);
        }
        self.string += 1;
        if self.string == PALETTE {
            self.state = State::Ground;
        }
        Taken::Part
    }

    #[inline(always)]
    fn leave(&mut self, taken: Taken) -> Taken {
        self.state = State::Ground;
        taken
    }

    /// The byte after ESC, where it is no control.
    fn escape(&mut self, byte: u8) -> Taken {
        let taken = match byte {
            0x20..=0x2F => {
                self.state = State::EscapeIntermediate;
                Taken::Part
            }
            // The 7-bit form of a C1 control is ESC and the control less 0x40 (ECMA-48, 5.3).
            0x40..=0x5F => self.anywhere(byte + 0x40),
            b'k' => {
                self.state = State::Osc;
                self.string = 0;
                Taken::Part
            }
            _ => self.leave(Taken::Escape(byte)),
        };
        self.eight_bit = false;
        taken
    }

    /// A control that ends what was going on, in any state, and may start a sequence.
    fn anywhere(&mut self, control: u8) -> Taken {
        self.utf8 = Utf8::default();
        self.eight_bit = true;
        self.string = 0;
        self.state = match control {
            ESC => State::Escape,
            CSI => State::Csi,
            0x9D => State::OscStart,
            // DCS, SOS, PM, APC.
            0x90 | 0x98 | 0x9E | 0x9F => State::String,
            // CAN, SUB, and the C1 controls that are complete: ST, SS2, SS3, IND, NEL and so on.
            _ => State::Ground,
        };
        match control {
            0x80..=0x9F if self.state == State::Ground => Taken::Escape(control - 0x40),
            _ => Taken::Part,
        }
    }
}
