//! Takes back what a terminal does to newlines on output: ONLCR (termios(3)) puts a CR in front of each LF.
//!
//! Invariants:
//! * Of the CRs directly before an LF exactly one goes, the one that the terminal has put there. Any other
//!   CR stays: it redraws a line.
//! * What is kept from one call to the next is whether a CR came last, which only the next byte decides. As
//!   the end of the stream needs no call, a CR that is the stream's last byte goes with it.
//! * Where the chunks are cut and how large the output is changes nothing in what comes out.

#[cfg(test)]
pub(super) mod tests;

use memchr::memchr;

use super::Progress;

/// How the lines of a stream end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Newlines {
    /// As their writer wanted it: nothing is done to them.
    #[default]
    AsTheyAre,
    /// With the CR of a terminal's output processing in front of the LF: it is removed.
    OfATerminal,
}

/// Takes the CR out that stands directly before each LF, in place. Returns how many bytes are left; a CR that comes last
/// is one of them.
pub fn remove(bytes: &mut [u8]) -> usize {
    let (mut kept, mut at) = (0, 0);
    while at < bytes.len() {
        let line = memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |end| at + end);
        let is_ended = line < bytes.len();
        let text = if is_ended && line > at && bytes[line - 1] == b'\r' { line - 1 } else { line };
        bytes.copy_within(at..text, kept);
        kept += text - at;
        if is_ended {
            bytes[kept] = b'\n';
            kept += 1;
        }
        at = line + 1;
    }
    kept
}

/// The state of one stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Newline {
    /// A CR has been taken that is not out: it waits for the byte behind it.
    held: bool,
}

impl Newline {
    /// Whether every byte that was taken is out, or gone for good.
    pub(super) fn is_neutral(&self) -> bool {
        !self.held
    }

    /// Bytes have passed that were not seen here, so no CR comes directly before the next one.
    pub(super) fn rejoin(&mut self) {
        self.held = false;
    }

    /// Moves from `input` to `output` until one of them is used up.
    pub(super) fn filter(&mut self, input: &[u8], output: &mut [u8]) -> Progress {
        let mut at = Progress::default();
        while at.consumed < input.len() {
            let (rest, room) = (&input[at.consumed..], &mut output[at.produced..]);
            let reach = rest.len().min(room.len());
            if reach == 0 {
                break;
            }
            if std::mem::take(&mut self.held) && rest[0] != b'\n' {
                room[0] = b'\r';
                at.produced += 1;
                continue;
            }
            let text = memchr(b'\r', &rest[..reach]).unwrap_or(reach);
            room[..text].copy_from_slice(&rest[..text]);
            at.consumed += text;
            at.produced += text;
            if text < reach {
                at.consumed += 1;
                self.held = true;
            }
        }
        at
    }
}
