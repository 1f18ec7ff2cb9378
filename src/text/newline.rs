//! Takes back what a terminal does to newlines on output: ONLCR (termios(3)) puts a CR in front of each LF.
//!
//! Of the CRs directly before an LF exactly one goes, the one that the terminal has put there. Any other CR stays: it
//! redraws a line.

#[cfg(test)]
mod tests;

use memchr::memchr;

/// How the lines end that come from a terminal.
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
