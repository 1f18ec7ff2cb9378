//! Lines as a screen showed them at last: progress that redraws itself leaves what it ended with.
//!
//! A screen of a terminal's height without colours. What moves the cursor and what erases does so here, within what has
//! not scrolled off. A line goes out when it leaves the screen at the top, which it does when the program has moved on
//! by a screen, or at the end of the stream.
//!
//! Invariants:
//! * What is held is bounded: at most [`MOST_ROWS`] lines, 24 where there is no terminal, of at most 1024 columns with
//!   16 bytes each, so 16 KiB a line (384 KiB with 24), and a few KiB of what is on its way out. A line that is longer goes out
//!   piece by piece, with what is above it: nothing of it is lost, but what is out is not redrawn.
//! * Lines do not wrap. CR LF and a bare LF both start a new line, and go out as LF. The last line gets no newline that
//!   it did not have.
//! * Tabs become the spaces that a terminal shows. Spaces at the end of a line that was redrawn are leftovers and go.
//! * What an alternate screen shows is skipped: it was not meant to stay.
//! * Bytes that are no UTF-8 are characters of one column, and go out as they came.
//! * Where the chunks are cut and how large the output is changes nothing in what comes out.

mod charset;
mod grid;
mod line;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use unicode_width::UnicodeWidthChar;

use super::automaton::{Automaton, State, Taken};
use super::controls::C1;
use charset::Charsets;
use grid::{Grid, Part};
use line::Width;

/// The highest screen. A higher terminal's lines leave it earlier than its own.
pub const MOST_ROWS: usize = 256;

/// Bytes of text taken at a time, and about as many may be on their way out.
const STRETCH: usize = 4096;

/// The most parameters of a control sequence that count.
const PARAMETERS: usize = 16;

/// The size of the terminal for which the program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScreenSize {
    /// Lines, at most [`MOST_ROWS`].
    pub rows: u16,
    /// Where moves of the cursor end at the right; text goes on beyond.
    pub columns: u16,
}

impl Default for ScreenSize {
    /// What programs take a terminal for that does not say: 24 lines, and as wide as can be.
    fn default() -> Self {
        ScreenSize { rows: 24, columns: u16::MAX }
    }
}

/// The screen of one stream.
#[derive(Clone, Debug)]
pub(super) struct Screen {
    automaton: Automaton,
    grid: Grid,
    /// Bytes of `grid.out` that have been taken.
    taken: usize,
    character: Partial,
    sequence: Sequence,
    charsets: Charsets,
    alternate: bool,
    /// The last character that was put somewhere: REP puts it again.
    last: Partial,
}

/// A character of which some bytes are there.
#[derive(Clone, Copy, Debug, Default)]
struct Partial {
    bytes: [u8; 4],
    length: u8,
}

/// What is known of the sequence in progress.
#[derive(Clone, Copy, Debug, Default)]
struct Sequence {
    /// `<`, `=`, `>` or `?` in front of the parameters, or 0.
    private: u8,
    /// The last intermediate byte, or 0.
    intermediate: u8,
    parameters: [u16; PARAMETERS],
    /// Which parameter is being read; those beyond the last one are not kept.
    at: usize,
}

impl Sequence {
    fn take(&mut self, byte: u8) {
        match byte {
            b'0'..=b'9' => {
                if let Some(parameter) = self.parameters.get_mut(self.at) {
                    let digit = u16::from(byte - b'0');
                    *parameter = parameter.saturating_mul(10).saturating_add(digit);
                }
            }
            b';' | b':' => self.at += 1,
            b'<'..=b'?' => self.private = byte,
            _ => self.intermediate = byte,
        }
    }

    /// A parameter, 0 if it is not there.
    fn parameter(&self, at: usize) -> usize {
        usize::from(self.parameters[at])
    }

    /// The first parameter as a number of times.
    fn times(&self) -> usize {
        self.parameter(0).max(1)
    }

    /// The first parameter as a part of the screen.
    fn part(&self) -> Option<Part> {
        match self.parameter(0) {
            0 => Some(Part::After),
            1 => Some(Part::Before),
            2 => Some(Part::All),
            _ => None,
        }
    }
}

impl Screen {
    pub(super) fn new(size: ScreenSize, c1: C1) -> Self {
        Screen {
            automaton: Automaton::new(c1),
            grid: Grid::new(size),
            taken: 0,
            character: Partial::default(),
            sequence: Sequence::default(),
            charsets: Charsets::default(),
            alternate: false,
            last: Partial::default(),
        }
    }

    /// What has left the screen and has not been taken.
    pub(super) fn pending(&mut self) -> &[u8] {
        &self.grid.out()[self.taken..]
    }

    /// Takes `bytes` of what is pending.
    pub(super) fn take(&mut self, bytes: usize) {
        self.taken += bytes;
        if self.taken == self.grid.out().len() {
            self.grid.out().clear();
            self.taken = 0;
        }
    }

    /// Outside of any sequence and character.
    pub(super) fn is_between(&self) -> bool {
        self.automaton.state() == State::Ground && self.character.length == 0
    }

    /// Whether nothing is held and nothing on its way.
    pub(super) fn is_neutral(&self) -> bool {
        self.is_between() && self.grid.is_empty() && self.grid.is_drained()
    }

    /// Whether there is text that has not been taken.
    pub(super) fn holds_text(&self) -> bool {
        self.character.length > 0 || !self.grid.is_empty() || !self.grid.is_drained()
    }

    /// Bytes have passed that were not seen here. What they may have switched off again would hide text, or turn it into
    /// something else.
    pub(super) fn rejoin(&mut self) {
        self.automaton.rejoin();
        self.character = Partial::default();
        self.sequence = Sequence::default();
        self.charsets = Charsets::default();
        self.alternate = false;
        self.last = Partial::default();
    }

    /// Lets out everything that is held. Nothing is left of a sequence that the stream has not finished.
    pub(super) fn flush(&mut self) {
        self.broken();
        if !self.grid.is_empty() {
            self.grid.flush();
        }
    }

    /// Takes from the start of `input`, until it is used up or enough is pending. Returns the bytes taken.
    pub(super) fn feed(&mut self, input: &[u8]) -> usize {
        let mut at = 0;
        while at < input.len() && self.grid.out().len() < STRETCH {
            match self.automaton.state() {
                State::Ground => {
                    let rest = &input[at..input.len().min(at + STRETCH)];
                    let text = self.automaton.text(rest);
                    self.text(&rest[..text]);
                    at += text;
                    if let Some(&control) = rest.get(text) {
                        at += 1;
                        self.broken();
                        self.sequence = Sequence::default();
                        let taken = self.automaton.start(control);
                        self.act(taken, control);
                    }
                }
                State::Escape | State::EscapeIntermediate | State::Csi | State::Palette => {
                    let byte = input[at];
                    let taken = self.automaton.sequence(byte);
                    at += usize::from(taken != Taken::Not);
                    self.act(taken, byte);
                }
                State::OscStart | State::Osc | State::String => {
                    at += self.automaton.skip_string(&input[at..]);
                }
            }
        }
        at
    }

    /// Text and C0 controls.
    fn text(&mut self, mut text: &[u8]) {
        while let Some(&first) = text.first() {
            let plain = text.iter().position(|&byte| !matches!(byte, 0x20..=0x7E));
            let plain = plain.unwrap_or(text.len());
            if plain > 0 {
                self.broken();
                self.plain(&text[..plain]);
                text = &text[plain..];
                continue;
            }
            text = &text[1..];
            match first {
                0x80.. => self.character_byte(first),
                _ => {
                    self.broken();
                    self.control(first);
                }
            }
        }
    }

    #[inline(always)]
    fn plain(&mut self, text: &[u8]) {
        if self.alternate {
            return;
        }
        if !self.charsets.is_special() {
            if let [.., last] = text {
                self.last = Partial { bytes: [*last, 0, 0, 0], length: 1 };
            }
            return self.grid.put_bytes(text);
        }
        for &byte in text {
            let mut bytes = [0; 4];
            let length = self.charsets.shown(byte).encode_utf8(&mut bytes).len() as u8;
            self.put(Partial { bytes, length }, Width::One);
        }
    }

    /// Puts one character, which can then be repeated.
    fn put(&mut self, character: Partial, width: Width) {
        self.last = character;
        self.grid.put(&character.bytes[..usize::from(character.length)], width);
    }

    /// Puts the last character so many times more.
    fn repeat(&mut self, times: usize) {
        let last = self.last;
        let text = str::from_utf8(&last.bytes[..usize::from(last.length)]).unwrap_or_default();
        let Some(character) = text.chars().next() else { return };
        let width = if character.width().unwrap_or(1) > 1 { Width::Two } else { Width::One };
        (0..times.min(line::COLUMNS)).for_each(|_| self.put(last, width));
    }

    /// A byte from 0x80 up.
    fn character_byte(&mut self, byte: u8) {
        let expected = |lead: u8| match lead {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 1,
        };
        if self.character.length > 0 && byte & 0xC0 != 0x80 {
            self.broken();
        }
        self.character.bytes[usize::from(self.character.length)] = byte;
        self.character.length += 1;
        let length = usize::from(self.character.length);
        if length < expected(self.character.bytes[0]) {
            return;
        }
        let bytes = self.character.bytes;
        let Ok(Some(character)) = str::from_utf8(&bytes[..length]).map(|text| text.chars().next())
        else {
            return self.broken();
        };
        let whole = std::mem::take(&mut self.character);
        if self.alternate {
            return;
        }
        match character.width() {
            Some(0) | None => self.grid.combine(&bytes[..length]),
            Some(1) => self.put(whole, Width::One),
            Some(_) => self.put(whole, Width::Two),
        }
    }

    /// The bytes that were to be a character are none: each stands for itself.
    #[inline(always)]
    fn broken(&mut self) {
        if self.character.length > 0 {
            let Partial { bytes, length } = std::mem::take(&mut self.character);
            if !self.alternate {
                self.grid.put_bytes(&bytes[..usize::from(length)]);
            }
        }
    }

    /// Does what a C0 control says.
    #[inline(always)]
    fn control(&mut self, control: u8) {
        match control {
            0x0E | 0x0F => self.charsets.shift(control),
            _ if self.alternate => {}
            b'\n' | 0x0B | 0x0C => self.grid.new_line(),
            b'\r' => self.grid.carriage_return(),
            0x08 => self.grid.left(1),
            b'\t' => self.grid.tab(),
            _ => {}
        }
    }

    /// Does what a byte of a sequence completes.
    #[inline(always)]
    fn act(&mut self, taken: Taken, byte: u8) {
        match taken {
            Taken::Part => match self.automaton.state() {
                // DEL is ignored.
                _ if byte == 0x7F => {}
                State::Csi | State::EscapeIntermediate if byte < 0x40 => self.sequence.take(byte),
                _ => self.sequence = Sequence::default(),
            },
            Taken::Executed => self.control(byte),
            Taken::Csi => self.csi(byte),
            Taken::Escape(last) => self.escape(last),
            Taken::Not => {}
        }
    }

    /// An escape that ends with `last`.
    fn escape(&mut self, last: u8) {
        if self.sequence.intermediate != 0 {
            return self.charsets.designate(self.sequence.intermediate, last);
        }
        match last {
            b'c' => {
                self.alternate = false;
                self.charsets = Charsets::default();
                self.grid.erase_in_display(Part::All);
                self.grid.home();
            }
            _ if self.alternate => {}
            b'7' => self.grid.save(),
            b'8' => self.grid.restore(),
            b'D' => self.grid.index(),
            b'E' => self.grid.new_line(),
            b'M' => self.grid.reverse_index(),
            _ => {}
        }
    }

    /// A control sequence with the final byte `last`.
    fn csi(&mut self, last: u8) {
        let sequence = self.sequence;
        match (sequence.private, sequence.intermediate, last) {
            (b'?', 0, b'h' | b'l') => self.mode(last == b'h'),
            _ if self.alternate => {}
            (0 | b'?', 0, b'J') => {
                if let Some(part) = sequence.part() {
                    self.grid.erase_in_display(part);
                }
            }
            (0 | b'?', 0, b'K') => {
                if let Some(part) = sequence.part() {
                    self.grid.erase_in_line(part);
                }
            }
            (0, 0, b'A'..=b'I' | b'`' | b'a' | b'd' | b'e' | b'f' | b's' | b'u') => {
                self.cursor(last);
            }
            (0, 0, _) => self.edit(last),
            _ => {}
        }
    }

    /// A control sequence that moves the cursor.
    fn cursor(&mut self, last: u8) {
        let times = self.sequence.times();
        match last {
            b'A' => self.grid.up(times),
            b'B' | b'e' => self.grid.down(times),
            b'C' | b'a' => self.grid.right(times),
            b'D' => self.grid.left(times),
            b'E' => {
                self.grid.carriage_return();
                self.grid.down(times);
            }
            b'F' => {
                self.grid.carriage_return();
                self.grid.up(times);
            }
            b'G' | b'`' => self.grid.set_column(times - 1),
            b'd' => self.grid.set_row(times - 1),
            b'H' | b'f' => {
                self.grid.set_row(times - 1);
                self.grid.set_column(self.sequence.parameter(1).max(1) - 1);
            }
            b'I' => (0..times.min(line::COLUMNS)).for_each(|_| self.grid.tab()),
            b's' => self.grid.save(),
            b'u' => self.grid.restore(),
            _ => {}
        }
    }

    /// A control sequence that changes what is shown.
    fn edit(&mut self, last: u8) {
        let times = self.sequence.times();
        match last {
            b'@' => self.grid.insert_columns(times),
            b'b' => self.repeat(times),
            b'P' => self.grid.delete_columns(times),
            b'X' => self.grid.erase_columns(times),
            b'L' => self.grid.insert_lines(times),
            b'M' => self.grid.delete_lines(times),
            b'S' => self.grid.scroll_all_up(times),
            b'T' => self.grid.scroll_all_down(times),
            b'r' => self.grid.set_scrolls(self.sequence.parameter(0), self.sequence.parameter(1)),
            _ => {}
        }
    }

    /// Private modes are set or reset.
    fn mode(&mut self, set: bool) {
        let last = self.sequence.at.min(PARAMETERS - 1);
        for at in 0..=last {
            match self.sequence.parameter(at) {
                47 | 1047 => self.alternate = set,
                1048 if set => self.grid.save(),
                1048 => self.grid.restore(),
                1049 if set && !self.alternate => {
                    self.grid.save();
                    self.alternate = true;
                }
                1049 if !set && self.alternate => {
                    self.alternate = false;
                    self.grid.restore();
                }
                _ => {}
            }
        }
    }
}
