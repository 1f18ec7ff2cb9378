//! Coloured text and what is left of it without its colours, made side by side from one list of pieces: no parser has
//! a part in it, so a filter can be judged by it. Used by the peer and by the tests.

use crate::payload::{Digest, Hasher, Payload};

/// What a terminal is sent, and what of it is text. Every piece ends outside any sequence.
const PIECES: &[(&str, &str)] = &[
    ("warning", "warning"),
    (" src/main.rs:42 ", " src/main.rs:42 "),
    ("\n", "\n"),
    ("\r\n", "\r\n"),
    ("\t", "\t"),
    ("naïve façade 漢字 🦀 ", "naïve façade 漢字 🦀 "),
    ("progress 10%\rprogress 20%", "progress 10%\rprogress 20%"),
    // Colours, with and without parameters, as RGB in both spellings.
    ("\x1b[0m", ""),
    ("\x1b[m", ""),
    ("\x1b[01;31m\x1b[K", ""),
    ("\x1b[38;2;255;128;0m", ""),
    ("\x1b[38:2::255:128:0m", ""),
    // Cursor and screen, private modes, intermediates.
    ("\x1b[2K\x1b[1A", ""),
    ("\x1b[?25l", ""),
    ("\x1b[?25h", ""),
    ("\x1b[?2004h", ""),
    ("\x1b[>4;2m", ""),
    ("\x1b[2 q", ""),
    ("\x1b[!p", ""),
    // Titles and hyperlinks, by either end.
    ("\x1b]0;make: all\x07", ""),
    ("\x1b]2;a title\x1b\\", ""),
    ("\x1b]8;;https://example.org/a?b=c\x1b\\link\x1b]8;;\x1b\\", "link"),
    // Strings that may hold newlines.
    ("\x1bP$q\"p\x1b\\", ""),
    ("\x1b_Gf=100;iVBORw0KGgo=\n\x1b\\", ""),
    ("\x1b^private\x1b\\\x1bXstart\x1b\\", ""),
    // Charsets, keypad, save and restore, single shift of a visible character.
    ("\x1b(B\x1b)0", ""),
    ("\x1b=\x1b>", ""),
    ("\x1b7\x1b8", ""),
    ("\x1bOA", "A"),
    // A control in a sequence is executed; CAN and SUB end it.
    ("\x1b[3\n1m", "\n"),
    ("\x1b[31\x18", ""),
    ("\x1b[31\x1a", ""),
    ("\x1b[31\x1b[32m", ""),
];

/// Pieces in a tile, which is what repeats.
const PIECES_PER_TILE: usize = 100_000;

/// With the escape sequences, or without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    Coloured,
    Plain,
}

/// The text: tiles that begin with their number, as many as make up a size.
pub(crate) struct Text {
    tile: Vec<u8>,
    tiles: u64,
    next: u64,
    /// What is left of the tile before `next`.
    rest: Vec<u8>,
    taken: usize,
}

impl Text {
    /// The text whose coloured form has at least `bytes` bytes.
    pub(crate) fn new(bytes: u64, form: Form) -> Text {
        let [coloured, plain] = tile();
        let tiles = bytes.div_ceil(coloured.len() as u64);
        let tile = if form == Form::Coloured { coloured } else { plain };
        Text { tile, tiles, next: 0, rest: Vec::new(), taken: 0 }
    }

    /// Fills the front of `buffer` and returns how many bytes: fewer than asked only at the end.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < buffer.len() {
            if self.taken == self.rest.len() {
                if self.next == self.tiles {
                    break;
                }
                self.rest = format!("tile {}\n", self.next).into_bytes();
                self.rest.extend_from_slice(&self.tile);
                (self.next, self.taken) = (self.next + 1, 0);
            }
            let length = (buffer.len() - filled).min(self.rest.len() - self.taken);
            buffer[filled..filled + length]
                .copy_from_slice(&self.rest[self.taken..self.taken + length]);
            filled += length;
            self.taken += length;
        }
        filled
    }

    #[allow(dead_code, reason = "the peer writes, the tests compare")]
    pub(crate) fn digest(bytes: u64, form: Form) -> Digest {
        let mut text = Text::new(bytes, form);
        let mut hasher = Hasher::default();
        let mut chunk = vec![0; crate::payload::CHUNK];
        loop {
            match text.fill(&mut chunk) {
                0 => return hasher.digest(),
                length => hasher.update(&chunk[..length]),
            }
        }
    }
}

/// One tile in both forms.
fn tile() -> [Vec<u8>; 2] {
    let mut choices = vec![0; PIECES_PER_TILE];
    Payload::new(u64::MAX, 7).fill(&mut choices);
    let mut forms = [Vec::new(), Vec::new()];
    for choice in choices {
        let (coloured, plain) = PIECES[usize::from(choice) % PIECES.len()];
        forms[0].extend_from_slice(coloured.as_bytes());
        forms[1].extend_from_slice(plain.as_bytes());
    }
    forms
}
