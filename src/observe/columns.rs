//! How wide text is on a screen: some characters take two columns, some none.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The columns that a text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// As much of a text from its beginning as fits.
pub(super) fn fitting(text: &str, columns: usize) -> &str {
    let mut used = 0;
    let mut outside = text.char_indices().filter(|(_, character)| {
        used += character.width().unwrap_or(0);
        used > columns
    });
    outside.next().map_or(text, |(at, _)| &text[..at])
}

/// So much of a text, the last column being a mark that more follows.
pub(super) fn cut(text: &str, columns: usize) -> String {
    match width(text) > columns {
        true => fitting(text, columns - 1).to_owned() + "…",
        false => text.to_owned(),
    }
}

/// Blanks that fill a text up to so many columns.
pub(super) fn padding(text: &str, columns: usize) -> String {
    " ".repeat(columns.saturating_sub(width(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(width("a名前"), 5);
        assert_eq!(fitting("a名前", 5), "a名前");
        assert_eq!(fitting("a名前", 4), "a名");
        assert_eq!(fitting("a名前", 0), "");
        assert_eq!(cut("名前名前", 6), "名前…");
        assert_eq!(cut("名前名前", 8), "名前名前");
        assert_eq!(padding("名", 4), "  ");
    }

    #[test]
    fn marks_that_combine_take_none() {
        assert_eq!(fitting("e\u{301}x", 1), "e\u{301}");
    }
}
