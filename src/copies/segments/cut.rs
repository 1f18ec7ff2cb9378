//! Where a segment ends: at a line's end, once it has its size or its age. Pure: sizes and times are handed in.

use std::time::{Duration, Instant};

/// The most that one transfer takes, in bytes.
const TRANSFER: u64 = 1 << 20;

/// The segment being written, as far as its end is concerned.
#[derive(Debug)]
pub(super) struct Cutter {
    limit: Option<u64>,
    every: Option<Duration>,
    size: u64,
    /// When its first byte came.
    began: Option<Instant>,
    /// Whether its last byte ends a line; what was spliced was not seen.
    line_ended: Option<bool>,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Take up to so many bytes, unseen.
    Take(u64),
    /// Look what the last byte of the file is.
    LookBack,
    /// Look at up to so many bytes: the segment ends behind the first newline.
    Search(u64),
    /// The segment ends here.
    Finish(Cut),
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::copies) enum Cut {
    /// Behind a newline.
    AtLineEnd,
    /// In a line that is longer than the limit.
    InLine,
}

impl Cutter {
    pub(super) fn new(limit: Option<u64>, every: Option<Duration>) -> Cutter {
        Cutter { limit, every, size: 0, began: None, line_ended: None }
    }

    /// A segment that exists has so many bytes; its age counts from now.
    pub(super) fn resume(&mut self, size: u64, now: Instant) {
        self.size = size;
        self.began = (size > 0).then_some(now);
        self.line_ended = None;
    }

    pub(super) fn next(&self, now: Instant) -> Next {
        let full = self.limit.is_some_and(|limit| self.size >= limit);
        let old = self.deadline().is_some_and(|at| now >= at);
        if self.size == 0 || !(full || old) {
            let most = self.limit.map_or(TRANSFER, |limit| limit - self.size);
            return Next::Take(most.min(TRANSFER));
        }
        match (self.line_ended, self.longest()) {
            (Some(true), _) => Next::Finish(Cut::AtLineEnd),
            (None, _) => Next::LookBack,
            (Some(false), Some(longest)) if self.size >= longest => Next::Finish(Cut::InLine),
            (Some(false), Some(longest)) => Next::Search((longest - self.size).min(TRANSFER)),
            (Some(false), None) => Next::Search(TRANSFER),
        }
    }

    /// What a segment has at the most, however long its last line.
    fn longest(&self) -> Option<u64> {
        self.limit.map(|limit| limit.saturating_mul(2))
    }

    /// So many bytes were added; `line_ended` says of the last one whether it ends a line, if that was seen.
    pub(super) fn took(&mut self, bytes: u64, line_ended: Option<bool>, now: Instant) {
        if bytes > 0 {
            self.size += bytes;
            self.began.get_or_insert(now);
            self.line_ended = line_ended;
        }
    }

    /// The answer to [`Next::LookBack`].
    pub(super) fn saw(&mut self, line_ended: bool) {
        self.line_ended = Some(line_ended);
    }

    /// When the segment is old enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.began?.checked_add(self.every?)
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The next segment begins.
    pub(super) fn restart(&mut self) {
        (self.size, self.began, self.line_ended) = (0, None, None);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Cuts `input`, which comes in pieces of the given sizes, as a writer would; a tick passes with each piece.
    fn cut(
        input: &[u8],
        pieces: &[usize],
        limit: Option<u64>,
        every: Option<Duration>,
    ) -> (Vec<Vec<u8>>, Vec<Cut>) {
        let start = Instant::now();
        let mut cutter = Cutter::new(limit, every);
        let (mut segments, mut cuts) = (vec![Vec::new()], Vec::new());
        let (mut at, mut turn) = (0, 0);
        while at < input.len() {
            let now = start + Duration::from_secs(turn as u64);
            let there = (at + pieces[turn % pieces.len()]).min(input.len());
            turn += 1;
            while at < there {
                let segment: &mut Vec<u8> = segments.last_mut().expect("there is one");
                match cutter.next(now) {
                    Next::Take(most) => {
                        let end = there.min(at + most as usize);
                        segment.extend(&input[at..end]);
                        cutter.took((end - at) as u64, None, now);
                        at = end;
                    }
                    Next::LookBack => cutter.saw(segment.last() == Some(&b'\n')),
                    Next::Search(most) => {
                        let seen = &input[at..there.min(at + most as usize)];
                        let newline = seen.iter().position(|byte| *byte == b'\n');
                        let end = newline.map_or(seen.len(), |at| at + 1);
                        segment.extend(&seen[..end]);
                        cutter.took(end as u64, Some(newline.is_some()), now);
                        at += end;
                    }
                    Next::Finish(how) => {
                        cuts.push(how);
                        segments.push(Vec::new());
                        cutter.restart();
                    }
                }
            }
        }
        (segments, cuts)
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_lines_stay_whole(
            input in prop::collection::vec(prop_oneof![4 => Just(b'x'), 1 => Just(b'\n')], 0..2000),
            pieces in prop::collection::vec(1usize..60, 1..20),
            limit in 1u64..200,
        ) {
            let (segments, cuts) = cut(&input, &pieces, Some(limit), None);
            prop_assert_eq!(segments.concat(), input);
            for (segment, how) in segments.iter().zip(&cuts) {
                let size = segment.len() as u64;
                prop_assert!(size >= limit && size <= 2 * limit);
                match how {
                    Cut::AtLineEnd => {
                        prop_assert_eq!(segment.last(), Some(&b'\n'));
                        // And it is the first chance.
                        let later = &segment[limit as usize - 1..segment.len() - 1];
                        prop_assert!(!later.contains(&b'\n'));
                    }
                    Cut::InLine => prop_assert_eq!(size, 2 * limit),
                }
            }
        }

        #[test]
        fn old_segments_end_at_a_line(
            input in prop::collection::vec(prop_oneof![4 => Just(b'x'), 1 => Just(b'\n')], 0..500),
            pieces in prop::collection::vec(1usize..10, 1..20),
            seconds in 1u64..20,
        ) {
            let every = Some(Duration::from_secs(seconds));
            let (segments, cuts) = cut(&input, &pieces, None, every);
            prop_assert_eq!(segments.concat(), input);
            prop_assert!(cuts.iter().all(|how| *how == Cut::AtLineEnd));
            for segment in segments.iter().take(cuts.len()) {
                prop_assert_eq!(segment.last(), Some(&b'\n'));
            }
        }
    }

    #[test]
    fn an_empty_segment_never_ends() {
        let start = Instant::now();
        let mut cutter = Cutter::new(Some(10), Some(Duration::from_secs(1)));
        assert_eq!(cutter.next(start + Duration::from_secs(60)), Next::Take(10));
        assert_eq!(cutter.deadline(), None);
        cutter.took(3, None, start);
        assert_eq!(cutter.deadline(), Some(start + Duration::from_secs(1)));
        assert_eq!(cutter.next(start), Next::Take(7));
        assert_eq!(cutter.next(start + Duration::from_secs(1)), Next::LookBack);
    }
}
