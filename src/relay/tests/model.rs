//! What may have arrived, given what was sent and what has happened.

use proptest::prelude::*;

use super::{End, OnFull, Outside, Trial};

impl Trial {
    pub(super) fn judge(&self) -> Result<(), TestCaseError> {
        let way = self.way;
        let Outside { sent, got, .. } = &self.outside;
        let end = self.relay.ended().expect("an end");
        prop_assert!(sent.starts_with(got), "{way:?}: what arrives is what was sent");
        let counters = self.relay.counters();
        let harmed = self.injected.main;
        if !self.injected.sink_closed {
            prop_assert_eq!(counters.bytes, got.len() as u64, "{:?}: the books", way);
        }
        let fed = self.fed_at_end.unwrap_or(self.outside.fed) as u64;
        match end {
            End::Delivered => {
                prop_assert_eq!(counters.bytes, sent.len() as u64, "{:?}: delivered", way);
            }
            // Nothing was on its way.
            End::Closed => {
                prop_assert!(self.injected.sink_closed, "{way:?}: nobody has left");
                prop_assert_eq!(counters.bytes, fed, "{:?}: closed", way);
            }
            End::ReaderLeft => {
                prop_assert!(self.injected.sink_closed || harmed, "{way:?}: nobody has left");
            }
            End::Abandoned => {
                prop_assert!(self.injected.left, "{way:?}: nobody has left it");
                prop_assert!(harmed || counters.bytes == fed, "{way:?}: abandoned");
            }
            End::Failed(error) => prop_assert!(harmed, "{way:?}: nothing failed, but {error}"),
            End::Stopped => prop_assert!(false, "{way:?}: nobody has stopped it"),
        }
        self.judge_copies()
    }

    fn judge_copies(&self) -> Result<(), TestCaseError> {
        let way = self.way;
        let Outside { sent, got, copies, .. } = &self.outside;
        let end = self.relay.ended().expect("an end");
        // What has gone into the sink, or past it for the sake of the copies.
        let counters = self.relay.counters();
        let passed = (counters.bytes + counters.undelivered) as usize;
        let unharmed = !self.injected.main && !self.injected.copies && !self.injected.left;
        for ((reader, copy), (_, dropped)) in copies.iter().zip(self.relay.dropped()) {
            if way.on_full == OnFull::Drop {
                self.judge_gaps(copy, dropped)?;
                continue;
            }
            prop_assert!(sent.starts_with(copy), "{way:?}: a copy is what was sent");
            if matches!(end, End::Delivered) && copy != sent {
                prop_assert!(self.injected.copies, "{way:?}: a copy fell short");
                if reader.is_some() {
                    prop_assert_eq!(dropped, (sent.len() - copy.len()) as u64);
                }
            }
            if way.instead && unharmed {
                prop_assert!(copy == sent, "{way:?}: a copy is completed without the sink");
            }
            if reader.is_some() {
                // What the sink has got, a copy that has lost nothing has too.
                let behind = copy.len() < got.len().max(passed.min(got.len()));
                prop_assert!(dropped > 0 || !behind, "{way:?}: behind the sink");
            }
        }
        Ok(())
    }

    /// What a copy has is what was sent, but for the gaps, and each gap is marked with its length.
    fn judge_gaps(&self, copy: &[u8], dropped: u64) -> Result<(), TestCaseError> {
        let way = self.way;
        let sent = &self.outside.sent;
        let (mut at, mut marked, mut rest) = (0, 0, copy);
        while let Some((piece, gap, behind)) = next_mark(rest) {
            let here = sent.get(at..at + piece.len());
            prop_assert!(here == Some(piece), "{way:?}: before a gap");
            (at, marked, rest) = (at + piece.len() + gap, marked + gap as u64, behind);
        }
        let last = sent.get(at..at + rest.len());
        prop_assert!(last == Some(rest), "{way:?}: behind the last gap");
        prop_assert!(marked <= dropped, "{way:?}: {marked} bytes marked, {dropped} dropped");
        if !self.injected.main && !self.injected.copies {
            prop_assert_eq!(marked, dropped, "{:?}: every gap is marked", way);
        }
        Ok(())
    }
}

/// The bytes before the first mark, how many it stands for, and what is behind it.
fn next_mark(bytes: &[u8]) -> Option<(&[u8], usize, &[u8])> {
    const BEGIN: &[u8] = b"\n[nproxy: ";
    const END: &[u8] = b" bytes dropped here]\n";
    let at = bytes.windows(BEGIN.len()).position(|window| window == BEGIN)?;
    let behind = &bytes[at + BEGIN.len()..];
    let end = behind.windows(END.len()).position(|window| window == END)?;
    let gap = std::str::from_utf8(&behind[..end]).ok()?.parse().ok()?;
    Some((&bytes[..at], gap, &behind[end + END.len()..]))
}
