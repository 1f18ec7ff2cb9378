//! One line of a screen: a cell for each column.

/// Columns that a line can have. No terminal is as wide, so what is longer is no progress display.
pub(super) const COLUMNS: usize = 1024;

/// Bytes of a character with all that is combined with it. More is not shown: xterm stops at two marks, we do not
/// before three.
const CELL: usize = 15;

/// What one column shows. The second column of a wide character has no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    bytes: [u8; CELL],
    length: u8,
}

const BLANK: Cell = Cell::byte(b' ');
const RIGHT_HALF: Cell = Cell { bytes: [0; CELL], length: 0 };

impl Cell {
    #[inline(always)]
    const fn byte(byte: u8) -> Cell {
        let mut bytes = [0; CELL];
        bytes[0] = byte;
        Cell { bytes, length: 1 }
    }

    fn character(text: &[u8]) -> Cell {
        let mut cell = Cell { bytes: [0; CELL], length: text.len() as u8 };
        cell.bytes[..text.len()].copy_from_slice(text);
        cell
    }

    fn text(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// How many columns a character takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    One,
    Two,
}

/// The cells of a line, as far as anything has been written.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    cells: Vec<Cell>,
    /// Some cell may have more than one byte, or none.
    has_long: bool,
    /// Something was written over or erased: spaces at its end are then leftovers, not text.
    redrawn: bool,
}

impl Line {
    /// Makes it a line on which nothing was ever written. Keeps its memory.
    pub(super) fn reset(&mut self) {
        self.cells.clear();
        self.has_long = false;
        self.redrawn = false;
    }

    /// Whether it shows nothing.
    pub(super) fn is_blank(&self) -> bool {
        self.cells.iter().all(|cell| *cell == BLANK)
    }

    /// Whether nothing of it would go out: spaces that were written do, unless they are leftovers.
    pub(super) fn is_empty(&self) -> bool {
        self.cells.is_empty() || self.redrawn && self.is_blank()
    }

    /// Appends its text to `out`.
    pub(super) fn write_to(&self, out: &mut Vec<u8>) {
        let mut cells = &self.cells[..];
        if self.redrawn {
            let shown = cells.iter().rposition(|cell| *cell != BLANK).map_or(0, |last| last + 1);
            cells = &cells[..shown];
        }
        if self.has_long {
            cells.iter().for_each(|cell| out.extend_from_slice(cell.text()));
        } else {
            out.extend(cells.iter().map(|cell| cell.bytes[0]));
        }
    }

    /// Writes characters of one byte and one column each from column `at` on.
    #[inline(always)]
    pub(super) fn put_bytes(&mut self, at: usize, text: &[u8]) {
        if at == self.cells.len() {
            self.cells.extend(text.iter().map(|&byte| Cell::byte(byte)));
            return;
        }
        self.make_room(at, text.len());
        for (cell, &byte) in self.cells[at..].iter_mut().zip(text) {
            *cell = Cell::byte(byte);
        }
    }

    /// Writes one character at column `at`.
    pub(super) fn put(&mut self, at: usize, text: &[u8], width: Width) {
        self.has_long |= text.len() > 1;
        let columns = if width == Width::Two { 2 } else { 1 };
        self.make_room(at, columns);
        self.cells[at] = Cell::character(text);
        if width == Width::Two {
            self.cells[at + 1] = RIGHT_HALF;
        }
    }

    /// Adds a mark to the character before column `at`, if there is one and it has room.
    pub(super) fn combine(&mut self, at: usize, mark: &[u8]) {
        let before = self.cells.get_mut(..at).unwrap_or_default();
        let Some(cell) = before.iter_mut().rfind(|cell| cell.length > 0) else { return };
        let length = usize::from(cell.length);
        if let Some(room) = cell.bytes.get_mut(length..length + mark.len()) {
            room.copy_from_slice(mark);
            cell.length += mark.len() as u8;
            self.has_long = true;
        }
    }

    /// Blanks the columns from `from` up to `to`.
    pub(super) fn erase(&mut self, from: usize, to: usize) {
        self.redrawn = true;
        if from >= self.cells.len() {
            return;
        }
        self.split(from);
        if to >= self.cells.len() {
            self.cells.truncate(from);
        } else {
            self.split(to);
            self.cells[from..to].fill(BLANK);
        }
    }

    /// Inserts blanks at column `at`; what is there moves to the right.
    pub(super) fn insert(&mut self, at: usize, blanks: usize) {
        self.redrawn = true;
        if at < self.cells.len() {
            self.split(at);
            let blanks = blanks.min(COLUMNS - at);
            self.cells.resize(self.cells.len() + blanks, BLANK);
            self.cells[at..].rotate_right(blanks);
            self.split(COLUMNS);
            self.cells.truncate(COLUMNS);
        }
    }

    /// Takes columns out at `at`; what is behind them moves to the left.
    pub(super) fn delete(&mut self, at: usize, columns: usize) {
        self.redrawn = true;
        if at < self.cells.len() {
            let to = (at + columns).min(self.cells.len());
            self.split(at);
            self.split(to);
            self.cells.drain(at..to);
        }
    }

    /// Blanks up to column `at`, if the line is shorter.
    pub(super) fn extend_to(&mut self, at: usize) {
        if self.cells.len() < at {
            self.cells.resize(at, BLANK);
        }
    }

    /// Makes sure that columns `at` to `at + columns` exist, and that no half of a character is left beside them.
    fn make_room(&mut self, at: usize, columns: usize) {
        let end = at + columns;
        if at < self.cells.len() {
            self.redrawn = true;
            self.split(at);
            self.split(end);
        }
        self.extend_to(end);
    }

    /// Blanks a wide character that has one half on each side of column `at`.
    fn split(&mut self, at: usize) {
        if !self.has_long || at == 0 {
            return;
        }
        if self.cells.get(at).is_some_and(|cell| cell.length == 0) {
            self.cells[at] = BLANK;
            self.cells[at - 1] = BLANK;
        }
    }
}
