//! From a segment's bytes to messages: pure, no file, no clock.
//!
//! Invariant: joining the payloads, with a newline behind each one that ends a line, gives the segment's bytes back.

use bytes::{Bytes, BytesMut};

/// Whether a message ends with its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The newline behind the payload was left out.
    Line,
    /// The line goes on in the next message, or has no newline at all.
    Open,
}

/// A message as it was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where it begins, in bytes from the segment's start.
    pub(crate) offset: u64,
    /// What is sent.
    pub(crate) payload: Bytes,
    /// Whether a newline was left out behind it.
    pub(crate) end: End,
}

impl Piece {
    /// Bytes of the segment that this message stands for.
    pub(crate) fn len(&self) -> u64 {
        self.payload.len() as u64 + u64::from(self.end == End::Line)
    }
}

/// How messages are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Bytes of a payload at most; longer lines are sent in pieces.
    pub(crate) limit: usize,
    /// Bytes up to which whole lines are joined.
    pub(crate) batch: Option<usize>,
}

/// Bytes that were read and not cut yet.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    buffer: BytesMut,
    offset: u64,
    /// Bytes at the buffer's start that are known to hold no newline.
    searched: usize,
}

impl Cutter {
    /// A cutter whose first byte is at `offset` of the segment.
    pub(crate) fn at(offset: u64) -> Self {
        Cutter { offset, ..Cutter::default() }
    }

    /// Where the next byte that is read belongs.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    /// Bytes that wait for the end of their line.
    pub(crate) fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// Takes bytes that follow the ones before.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, or nothing while its end has not come.
    pub(crate) fn next(&mut self, rule: Rule) -> Option<Piece> {
        if let Some(batch) = rule.batch {
            let within = &self.buffer[..self.buffer.len().min(batch.min(rule.limit) + 1)];
            if let Some(at) = memchr::memrchr(b'\n', within) {
                return Some(self.take(at, End::Line));
            }
        }
        let from = self.searched.min(self.buffer.len());
        let within = self.buffer.len().min(rule.limit + 1);
        let found = (from < within).then(|| memchr::memchr(b'\n', &self.buffer[from..within]));
        match found.flatten() {
            Some(at) => Some(self.take(from + at, End::Line)),
            None if self.buffer.len() > rule.limit => Some(self.take(rule.limit, End::Open)),
            None => {
                self.searched = self.buffer.len();
                None
            }
        }
    }

    /// A message of exactly `len` bytes of the segment, as it was cut once before; nothing if so many are not there.
    pub(crate) fn next_of(&mut self, len: usize) -> Option<Piece> {
        if len == 0 || self.buffer.len() < len {
            return None;
        }
        match self.buffer[len - 1] {
            b'\n' => Some(self.take(len - 1, End::Line)),
            _ => Some(self.take(len, End::Open)),
        }
    }

    /// What is left when no more will come: a line without an end.
    pub(crate) fn rest(&mut self) -> Option<Piece> {
        (!self.buffer.is_empty()).then(|| self.take(self.buffer.len(), End::Open))
    }

    fn take(&mut self, payload: usize, end: End) -> Piece {
        let offset = self.offset;
        let payload = self.buffer.split_to(payload).freeze();
        if end == End::Line {
            let _ = self.buffer.split_to(1);
        }
        self.searched = 0;
        let piece = Piece { offset, payload, end };
        self.offset += piece.len();
        piece
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8], steps: &[usize], rule: Rule) -> Vec<Piece> {
        let mut cutter = Cutter::at(7);
        let mut pieces = Vec::new();
        let mut rest = bytes;
        for step in steps.iter().cycle() {
            let (now, later) = rest.split_at((*step).min(rest.len()));
            cutter.push(now);
            rest = later;
            while let Some(piece) = cutter.next(rule) {
                pieces.push(piece);
            }
            if rest.is_empty() {
                break;
            }
        }
        pieces.extend(cutter.rest());
        pieces
    }

    fn joined(pieces: &[Piece]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in pieces {
            bytes.extend_from_slice(&piece.payload);
            if piece.end == End::Line {
                bytes.push(b'\n');
            }
        }
        bytes
    }

    fn texts(pieces: &[Piece]) -> Vec<(u64, String, End)> {
        pieces
            .iter()
            .map(|p| (p.offset, String::from_utf8_lossy(&p.payload).into_owned(), p.end))
            .collect()
    }

    #[test]
    fn a_line_is_a_message_and_a_long_one_goes_in_pieces() {
        let rule = Rule { limit: 4, batch: None };
        let pieces = all(b"ab\n\nabcd\nabcdefghi\nx", &[100], rule);
        let expected = [
            (7, "ab", End::Line),
            (10, "", End::Line),
            (11, "abcd", End::Line),
            (16, "abcd", End::Open),
            (20, "efgh", End::Open),
            (24, "i", End::Line),
            (26, "x", End::Open),
        ];
        assert_eq!(texts(&pieces), expected.map(|(o, t, e)| (o, t.to_owned(), e)));
    }

    #[test]
    fn a_batch_holds_whole_lines_only() {
        let rule = Rule { limit: 8, batch: Some(5) };
        let pieces = all(b"a\nb\nc\nlonger\nd\n", &[100], rule);
        let expected = [(7, "a\nb\nc", End::Line), (13, "longer", End::Line), (20, "d", End::Line)];
        assert_eq!(texts(&pieces), expected.map(|(o, t, e)| (o, t.to_owned(), e)));
    }

    #[test]
    fn a_message_can_be_cut_again_as_it_was() {
        let mut cutter = Cutter::at(0);
        cutter.push(b"a\nb\nc\nhalf");
        assert_eq!(cutter.next_of(4).map(|p| p.payload), Some(Bytes::from_static(b"a\nb")));
        assert_eq!(cutter.next_of(7), None);
        assert_eq!(cutter.next_of(6).map(|p| p.end), Some(End::Open));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_changed(
            bytes in proptest::collection::vec(prop_oneof![3 => Just(b'\n'), 5 => any::<u8>()], 0..300),
            steps in proptest::collection::vec(1usize..40, 1..8),
            limit in 1usize..30,
            batch in proptest::option::of(1usize..60),
        ) {
            let pieces = all(&bytes, &steps, Rule { limit, batch });
            prop_assert_eq!(joined(&pieces), bytes);
            let mut offset = 7;
            for piece in &pieces {
                prop_assert_eq!(piece.offset, offset);
                prop_assert!(piece.payload.len() <= limit);
                offset += piece.len();
            }
        }

        #[test]
        fn without_batches_the_cut_does_not_depend_on_when_bytes_come(
            bytes in proptest::collection::vec(prop_oneof![1 => Just(b'\n'), 5 => any::<u8>()], 0..300),
            steps in proptest::collection::vec(1usize..40, 1..8),
            limit in 1usize..30,
        ) {
            let rule = Rule { limit, batch: None };
            prop_assert_eq!(all(&bytes, &steps, rule), all(&bytes, &[1], rule));
        }
    }
}
