//! The lines that a screen shows, and the cursor. A line that scrolls off at the top is done with and goes out.

use std::collections::VecDeque;

use super::line::{COLUMNS, Line, Width};
use super::{MOST_ROWS, ScreenSize};

/// Columns from one tab stop to the next.
const TAB: usize = 8;

/// A row and a column, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    row: usize,
    column: usize,
}

/// Part of the screen, or of a line, that is erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// From the cursor on.
    After,
    /// Up to the cursor, and the cursor's own column.
    Before,
    All,
}

/// The screen.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    /// From the top down to the lowest row that was ever reached; there are at least as many as `at.row + 1`.
    lines: VecDeque<Line>,
    rows: usize,
    /// Where moves of the cursor end at the right. Text goes on beyond.
    columns: usize,
    at: Position,
    saved: Position,
    /// The first and the last row of what scrolls.
    scrolls: (usize, usize),
    /// What has left the screen.
    out: Vec<u8>,
}

impl Grid {
    pub(super) fn new(size: ScreenSize) -> Grid {
        let rows = usize::from(size.rows).clamp(1, MOST_ROWS);
        Grid {
            lines: VecDeque::from([Line::default()]),
            rows,
            columns: usize::from(size.columns).clamp(1, COLUMNS),
            at: Position::default(),
            saved: Position::default(),
            scrolls: (0, rows - 1),
            out: Vec::new(),
        }
    }

    /// Whether nothing is on its way out.
    pub(super) fn is_drained(&self) -> bool {
        self.out.is_empty()
    }

    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Whether nothing is held: no line, no cursor away from the corner.
    pub(super) fn is_empty(&self) -> bool {
        self.at == Position::default()
            && self.lines[0].is_empty()
            && self.lines.iter().all(Line::is_blank)
    }

    /// Lets everything out that is shown, the last line without a newline of its own, and starts anew.
    pub(super) fn flush(&mut self) {
        let shown = self.lines.iter().rposition(|line| !line.is_blank()).unwrap_or(0);
        let last = shown.max(self.at.row);
        self.lines.truncate(last + 1);
        for row in 0..last {
            self.lines[row].write_to(&mut self.out);
            self.out.push(b'\n');
        }
        self.lines[last].write_to(&mut self.out);
        self.reset();
    }

    /// As it was at the start, but for what is already out.
    pub(super) fn reset(&mut self) {
        self.lines.truncate(1);
        self.lines[0].reset();
        self.at = Position::default();
        self.saved = Position::default();
        self.scrolls = (0, self.rows - 1);
    }

    /// Writes characters of one byte and one column each.
    #[inline(always)]
    pub(super) fn put_bytes(&mut self, mut text: &[u8]) {
        while !text.is_empty() {
            if self.at.column >= COLUMNS {
                self.cut();
            }
            let (now, rest) = text.split_at(text.len().min(COLUMNS - self.at.column));
            self.lines[self.at.row].put_bytes(self.at.column, now);
            self.at.column += now.len();
            text = rest;
        }
    }

    /// Writes one character.
    pub(super) fn put(&mut self, text: &[u8], width: Width) {
        let columns = if width == Width::Two { 2 } else { 1 };
        if self.at.column + columns > COLUMNS {
            self.cut();
        }
        self.lines[self.at.row].put(self.at.column, text, width);
        self.at.column += columns;
    }

    /// Adds a mark to the character before the cursor.
    pub(super) fn combine(&mut self, mark: &[u8]) {
        self.lines[self.at.row].combine(self.at.column, mark);
    }

    /// The line is as long as one can be. What there is of it goes out, after all that is above it, and it goes on
    /// where it was left.
    fn cut(&mut self) {
        for line in self.lines.drain(..self.at.row) {
            line.write_to(&mut self.out);
            self.out.push(b'\n');
        }
        let line = &mut self.lines[0];
        line.extend_to(self.at.column);
        line.write_to(&mut self.out);
        line.reset();
        self.at = Position::default();
    }

    /// To the start of the next line.
    #[inline(always)]
    pub(super) fn new_line(&mut self) {
        self.at.column = 0;
        self.index();
    }

    /// One row down; at the lowest one that scrolls, everything moves up instead.
    pub(super) fn index(&mut self) {
        if self.at.row == self.scrolls.1 {
            self.scroll_up(self.scrolls.0, 1);
        } else if self.at.row + 1 < self.rows {
            self.at.row += 1;
        }
        self.reach();
    }

    /// One row up; at the topmost one that scrolls, everything moves down instead.
    pub(super) fn reverse_index(&mut self) {
        if self.at.row == self.scrolls.0 {
            self.scroll_down(self.scrolls.0, 1);
        } else {
            self.at.row = self.at.row.saturating_sub(1);
        }
    }

    /// Makes sure that the cursor's row exists.
    fn reach(&mut self) {
        while self.lines.len() <= self.at.row {
            self.lines.push_back(Line::default());
        }
    }

    /// Moves the lines from `top` to the end of what scrolls up. What leaves the screen at its top goes out; what is
    /// above other lines is gone.
    pub(super) fn scroll_up(&mut self, top: usize, times: usize) {
        let bottom = self.scrolls.1;
        for _ in 0..times.min(self.rows) {
            let Some(mut line) = self.lines.remove(top) else { return };
            if top == 0 {
                line.write_to(&mut self.out);
                self.out.push(b'\n');
            }
            line.reset();
            if bottom <= self.lines.len() {
                self.lines.insert(bottom, line);
            }
            self.reach();
        }
    }

    /// Moves the lines from `top` to the end of what scrolls down, and makes room for a new one.
    pub(super) fn scroll_down(&mut self, top: usize, times: usize) {
        let bottom = self.scrolls.1;
        for _ in 0..times.min(self.rows) {
            if top >= self.lines.len() {
                return;
            }
            if bottom < self.lines.len() {
                self.lines.remove(bottom);
            }
            self.lines.insert(top, Line::default());
        }
    }

    /// Scrolls what scrolls, wherever the cursor is.
    pub(super) fn scroll_all_up(&mut self, times: usize) {
        self.scroll_up(self.scrolls.0, times);
    }

    /// The same in the other direction.
    pub(super) fn scroll_all_down(&mut self, times: usize) {
        self.scroll_down(self.scrolls.0, times);
    }

    /// Blank lines at the cursor; those below move down.
    pub(super) fn insert_lines(&mut self, lines: usize) {
        if self.is_in_scrolled() {
            self.scroll_down(self.at.row, lines);
            self.at.column = 0;
        }
    }

    /// Takes out lines at the cursor; those below move up. What is taken out is gone, on the topmost row too.
    pub(super) fn delete_lines(&mut self, lines: usize) {
        if !self.is_in_scrolled() {
            return;
        }
        let (row, bottom) = (self.at.row, self.scrolls.1);
        for _ in 0..lines.min(bottom + 1 - row) {
            if let Some(mut line) = self.lines.remove(row)
                && bottom <= self.lines.len()
            {
                line.reset();
                self.lines.insert(bottom, line);
            }
        }
        self.at.column = 0;
        self.reach();
    }

    fn is_in_scrolled(&self) -> bool {
        (self.scrolls.0..=self.scrolls.1).contains(&self.at.row)
    }

    /// Which rows scroll, from 1; the whole screen if it makes no sense. The cursor goes to the corner.
    pub(super) fn set_scrolls(&mut self, top: usize, bottom: usize) {
        let bottom = if bottom == 0 { self.rows } else { bottom.min(self.rows) };
        let top = top.max(1);
        if top < bottom {
            self.scrolls = (top - 1, bottom - 1);
            self.at = Position::default();
        }
    }

    /// To the corner; everything scrolls.
    pub(super) fn home(&mut self) {
        self.at = Position::default();
        self.scrolls = (0, self.rows - 1);
    }

    pub(super) fn carriage_return(&mut self) {
        self.at.column = 0;
    }

    pub(super) fn tab(&mut self) {
        self.at.column = ((self.at.column / TAB + 1) * TAB).min(COLUMNS);
    }

    /// Up within what scrolls, or within the screen if the cursor is above that.
    pub(super) fn up(&mut self, rows: usize) {
        let top = if self.at.row >= self.scrolls.0 { self.scrolls.0 } else { 0 };
        self.at.row = self.at.row.saturating_sub(rows).max(top);
    }

    /// Down within what scrolls, or within the screen if the cursor is below that.
    pub(super) fn down(&mut self, rows: usize) {
        let bottom = if self.at.row <= self.scrolls.1 { self.scrolls.1 } else { self.rows - 1 };
        self.at.row = (self.at.row + rows).min(bottom);
        self.reach();
    }

    pub(super) fn left(&mut self, columns: usize) {
        self.at.column = self.at.column.saturating_sub(columns);
    }

    /// Right, not beyond the terminal's last column; a line that is longer than the terminal may be there already.
    pub(super) fn right(&mut self, columns: usize) {
        let column = self.at.column.saturating_add(columns).min(self.columns - 1);
        self.at.column = self.at.column.max(column);
    }

    /// To a column, from 0.
    pub(super) fn set_column(&mut self, column: usize) {
        self.at.column = column.min(self.columns - 1);
    }

    /// To a row, from 0.
    pub(super) fn set_row(&mut self, row: usize) {
        self.at.row = row.min(self.rows - 1);
        self.reach();
    }

    pub(super) fn save(&mut self) {
        self.saved = self.at;
    }

    pub(super) fn restore(&mut self) {
        self.at = self.saved;
        self.reach();
    }

    pub(super) fn erase_in_line(&mut self, part: Part) {
        let line = &mut self.lines[self.at.row];
        match part {
            Part::After => line.erase(self.at.column, COLUMNS),
            Part::Before => line.erase(0, self.at.column + 1),
            Part::All => line.erase(0, COLUMNS),
        }
    }

    pub(super) fn erase_in_display(&mut self, part: Part) {
        self.erase_in_line(part);
        let row = self.at.row;
        if part != Part::Before {
            self.lines.truncate(row + 1);
        }
        if part != Part::After {
            self.lines.iter_mut().take(row).for_each(|line| line.erase(0, COLUMNS));
        }
    }

    pub(super) fn erase_columns(&mut self, columns: usize) {
        let from = self.at.column;
        self.lines[self.at.row].erase(from, from + columns);
    }

    pub(super) fn insert_columns(&mut self, columns: usize) {
        self.lines[self.at.row].insert(self.at.column, columns);
    }

    pub(super) fn delete_columns(&mut self, columns: usize) {
        self.lines[self.at.row].delete(self.at.column, columns);
    }
}
