//! A line number in decimal, counted in its own text so that no line pays for a conversion.

/// Digits of the largest number: more lines than a stream can have.
const DIGITS: usize = 20;
/// Columns to which a number is right-aligned, as `cat -n` does.
const COLUMNS: usize = 6;

/// Counts lines. Starts at 0, the number of no line.
#[derive(Clone, Debug)]
pub(super) struct Number {
    /// Spaces, digits, and a tab.
    text: [u8; DIGITS + 1],
    /// Where in `text` the output starts.
    start: usize,
}

impl Default for Number {
    fn default() -> Self {
        let mut text = [b' '; DIGITS + 1];
        text[DIGITS - 1] = b'0';
        text[DIGITS] = b'\t';
        Number { text, start: DIGITS - COLUMNS }
    }
}

impl Number {
    /// The next number, as it is written.
    pub(super) fn next_line(&mut self) -> &[u8] {
        let mut at = DIGITS;
        while at > 0 {
            at -= 1;
            match self.text[at] {
                b'9' => self.text[at] = b'0',
                b' ' => {
                    self.text[at] = b'1';
                    break;
                }
                _ => {
                    self.text[at] += 1;
                    break;
                }
            }
        }
        self.start = self.start.min(at);
        &self.text[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_as_cat_does() {
        let mut number = Number::default();
        for line in 1..=1_100_000 {
            assert_eq!(number.next_line(), format!("{line:6}\t").as_bytes());
        }
    }
}
