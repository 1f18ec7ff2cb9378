//! The line drawing characters of the VT100, which programs that draw boxes still select.

/// What 0x60 to 0x7E show in the special graphics set, as xterm shows them in UTF-8.
const SPECIAL: [char; 31] = [
    '◆', '▒', '␉', '␌', '␍', '␊', '°', '±', '␤', '␋', '┘', '┐', '┌', '└', '┼', '⎺', '⎻', '─', '⎼',
    '⎽', '├', '┤', '┴', '┬', '│', '≤', '≥', 'π', '≠', '£', '·',
];

/// What a set of characters is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Charset {
    #[default]
    Ordinary,
    Special,
}

/// G0 and G1, and which of them is in use.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Charsets {
    sets: [Charset; 2],
    in_use: usize,
}

impl Charsets {
    /// Whether letters are something else now.
    #[inline(always)]
    pub(super) fn is_special(&self) -> bool {
        self.sets[self.in_use] == Charset::Special
    }

    /// What `byte` shows in the special set.
    pub(super) fn shown(&self, byte: u8) -> char {
        let at = usize::from(byte).wrapping_sub(0x60);
        SPECIAL.get(at).copied().unwrap_or(char::from(byte))
    }

    /// SO and SI.
    pub(super) fn shift(&mut self, control: u8) {
        self.in_use = usize::from(control == 0x0E);
    }

    /// `ESC ( 0` and the like.
    pub(super) fn designate(&mut self, intermediate: u8, last: u8) {
        let set = if last == b'0' { Charset::Special } else { Charset::Ordinary };
        match intermediate {
            b'(' => self.sets[0] = set,
            b')' => self.sets[1] = set,
            _ => {}
        }
    }
}
