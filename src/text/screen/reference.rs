//! The screen's oracle: the whole stream at once, a list of characters for each row, and no thought of speed or memory.
//! Shares no code with what it checks but the width of characters. Knows what the streams of the tests are made of:
//! text, C0 controls, CSI and the escapes that move the cursor, all of them complete.

use unicode_width::UnicodeWidthChar;

/// A column: a character with its marks, `None` for the right half of a wide one.
type Column = Option<String>;

#[derive(Default)]
struct Screen {
    rows: Vec<Vec<Column>>,
    redrawn: Vec<bool>,
    height: usize,
    row: usize,
    column: usize,
    saved: (usize, usize),
    last: Option<char>,
    out: String,
}

/// What a screen of `height` lines showed at last of `stream`, which is UTF-8.
pub(crate) fn screen(stream: &str, height: usize) -> String {
    let mut screen = Screen { height, ..Screen::default() };
    screen.reach();
    let mut rest = stream.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\u{1b}' => match rest.next() {
                Some('[') => {
                    let mut parameters = String::new();
                    let last = loop {
                        match rest.next() {
                            Some(byte @ '\u{40}'..='\u{7e}') => break byte,
                            Some(byte) => parameters.push(byte),
                            None => return screen.end(),
                        }
                    };
                    screen.csi(&parameters, last);
                }
                Some('M') if screen.row > 0 => screen.row -= 1,
                Some('M') => screen.insert_line(0),
                Some('7') => screen.saved = (screen.row, screen.column),
                Some('8') => {
                    (screen.row, screen.column) = screen.saved;
                    screen.reach();
                }
                _ => {}
            },
            '\n' => {
                screen.column = 0;
                screen.row += 1;
                if screen.row == height {
                    screen.row -= 1;
                    let line = screen.line(0);
                    screen.out += &(line + "\n");
                    screen.rows.remove(0);
                    screen.redrawn.remove(0);
                }
                screen.reach();
            }
            '\r' => screen.column = 0,
            '\u{8}' => screen.column = screen.column.saturating_sub(1),
            '\t' => screen.column = (screen.column + 8) / 8 * 8,
            '\0'..='\u{1f}' | '\u{7f}' => {}
            _ => screen.write(character),
        }
    }
    screen.end()
}

impl Screen {
    fn reach(&mut self) {
        while self.rows.len() <= self.row {
            self.rows.push(Vec::new());
            self.redrawn.push(false);
        }
    }

    fn line(&self, row: usize) -> String {
        let text: String = self.rows[row].iter().flatten().map(String::as_str).collect();
        match self.redrawn[row] {
            true => text.trim_end_matches(' ').to_owned(),
            false => text,
        }
    }

    fn end(self) -> String {
        let lines: Vec<String> = (0..self.rows.len()).map(|row| self.line(row)).collect();
        let shown = lines.iter().rposition(|line| !line.trim_matches(' ').is_empty()).unwrap_or(0);
        self.out.clone() + &lines[..=shown.max(self.row)].join("\n")
    }

    /// A column becomes `text`; if it was half of a character, the other half becomes a space.
    fn set(&mut self, column: usize, text: Column) {
        let row = &mut self.rows[self.row];
        while row.len() <= column {
            row.push(Some(" ".to_owned()));
        }
        if row[column].is_none() {
            row[column - 1] = Some(" ".to_owned());
        }
        if let Some(right @ None) = row.get_mut(column + 1) {
            *right = Some(" ".to_owned());
        }
        row[column] = text;
    }

    fn write(&mut self, character: char) {
        // Unicode has one that is wider (U+17D8); no terminal gives it more than two columns.
        let width = character.width().unwrap_or(0).min(2);
        if width == 0 {
            let before = self.rows[self.row].get_mut(..self.column).unwrap_or_default();
            if let Some(text) = before.iter_mut().rev().flatten().next()
                && text.len() + character.len_utf8() <= 15
            {
                text.push(character);
            }
            return;
        }
        self.last = Some(character);
        let over = self.column < self.rows[self.row].len();
        self.redrawn[self.row] |= over;
        self.set(self.column, Some(character.to_string()));
        if width == 2 {
            self.set(self.column + 1, Some(" ".to_owned()));
            self.rows[self.row][self.column + 1] = None;
        }
        self.column += width;
    }

    fn insert_line(&mut self, row: usize) {
        self.rows.insert(row, Vec::new());
        self.redrawn.insert(row, false);
        self.rows.truncate(self.height);
        self.redrawn.truncate(self.height);
    }

    fn erase(&mut self, row: usize, from: usize, to: usize) {
        self.redrawn[row] = true;
        let at = (self.row, row).0;
        self.row = row;
        for column in from..to.min(self.rows[row].len()) {
            self.set(column, Some(" ".to_owned()));
        }
        self.row = at;
        if to >= self.rows[row].len() && from < self.rows[row].len() {
            self.rows[row].truncate(from);
        }
    }

    fn csi(&mut self, parameters: &str, last: char) {
        let parameter = |at: usize| -> usize {
            parameters.split(';').nth(at).and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        let times = parameter(0).max(1);
        let (row, column) = (self.row, self.column);
        match last {
            'A' => self.row = row.saturating_sub(times),
            'B' => self.row = (row + times).min(self.height - 1),
            'C' => self.column += times,
            'D' => self.column = column.saturating_sub(times),
            'E' => (self.row, self.column) = ((row + times).min(self.height - 1), 0),
            'F' => (self.row, self.column) = (row.saturating_sub(times), 0),
            'G' => self.column = times - 1,
            'd' => self.row = (times - 1).min(self.height - 1),
            'H' => {
                (self.row, self.column) =
                    ((times - 1).min(self.height - 1), parameter(1).max(1) - 1);
            }
            'K' | 'J' => {
                let (from, to) = match parameter(0) {
                    0 => (column, usize::MAX),
                    1 => (0, column + 1),
                    2 => (0, usize::MAX),
                    _ => return,
                };
                self.erase(row, from, to);
                if last == 'J' {
                    if to == usize::MAX {
                        self.rows.truncate(row + 1);
                        self.redrawn.truncate(row + 1);
                    }
                    if from == 0 && parameter(0) != 0 {
                        (0..row).for_each(|above| self.erase(above, 0, usize::MAX));
                    }
                }
            }
            'X' => self.erase(row, column, column + times),
            'b' => {
                if let Some(last) = self.last {
                    (0..times).for_each(|_| self.write(last));
                }
            }
            'P' => {
                self.redrawn[row] = true;
                for _ in 0..times.min(self.rows[row].len().saturating_sub(column)) {
                    self.set(column, Some(" ".to_owned()));
                    self.rows[row].remove(column);
                }
            }
            '@' => {
                self.redrawn[row] = true;
                if column < self.rows[row].len() {
                    if self.rows[row][column].is_none() {
                        self.set(column, Some(" ".to_owned()));
                    }
                    for _ in 0..times {
                        self.rows[row].insert(column, Some(" ".to_owned()));
                    }
                }
            }
            'L' => {
                (0..times).for_each(|_| self.insert_line(row));
                self.column = 0;
            }
            'M' => {
                for _ in 0..times.min(self.rows.len() - row) {
                    self.rows.remove(row);
                    self.redrawn.remove(row);
                }
                self.column = 0;
            }
            _ => {}
        }
        self.reach();
    }
}
