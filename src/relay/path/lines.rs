//! Where what was read may be divided so that no line is torn at a place where others write too, and how long the beginning
//! of a line waits for its rest.

use std::time::{Duration, Instant};

use crate::relay::endpoint::{Endpoint, Kind};

/// So much goes into a pipe in one piece, whoever else writes there (PIPE_BUF in pipe(7)), in bytes.
const WHOLE: usize = libc::PIPE_BUF;

/// How long the beginning of a line waits for the rest where others may write to the same place: writers flush their
/// buffers anywhere in a line, and write the next part at once. A prompt is seen so much later.
const REST_OF_LINE: Duration = Duration::from_millis(20);

/// The same where it would go into a file. Nobody waits there for a prompt, and the writer of the rest may have to wait
/// for a processor as long as this on a busy machine.
const REST_OF_LINE_IN_FILE: Duration = Duration::from_millis(200);

/// Whether the rest of a line is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineWait {
    No,
    Until(Instant),
    /// It has not come in time: what is there goes as it is.
    Over,
}

impl LineWait {
    /// How much of `bytes` is to go on now: whole lines, until the rest of the last one has been waited for long enough, or
    /// it fills the buffer, which takes `most`.
    pub(super) fn cut(
        &mut self,
        bytes: &[u8],
        source: &Endpoint,
        into: Kind,
        most: usize,
    ) -> usize {
        let lines = last_line_end(bytes).unwrap_or(0);
        match self {
            _ if lines == bytes.len() => *self = LineWait::No,
            _ if lines == 0 && bytes.len() >= most => {
                *self = LineWait::No;
                return bytes.len();
            }
            LineWait::Over => {
                *self = LineWait::No;
                // It may have come in this moment.
                return line_cut(bytes, source);
            }
            LineWait::Until(_) if lines == 0 => {}
            LineWait::No | LineWait::Until(_) => {
                *self = LineWait::Until(Instant::now() + patience(into));
            }
        }
        lines
    }
}

/// How much of `bytes` goes into a pipe at a time: as many whole lines as stay in one piece there, or one longer line.
pub(super) fn whole_lines(bytes: &[u8]) -> usize {
    if bytes.len() <= WHOLE {
        return bytes.len();
    }
    let longer = || bytes.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
    last_line_end(&bytes[..WHOLE]).or_else(longer).unwrap_or(bytes.len())
}

/// Where the last whole line ends.
pub(super) fn last_line_end(bytes: &[u8]) -> Option<usize> {
    bytes.iter().rposition(|byte| *byte == b'\n').map(|end| end + 1)
}

/// How much of `bytes` may go where others may write as well, once the rest of the last line is not waited for: whole
/// lines, if that rest is already on its way.
pub(super) fn line_cut(bytes: &[u8], source: &Endpoint) -> usize {
    match last_line_end(bytes) {
        Some(last) if last < bytes.len() && source.has_input() => last,
        _ => bytes.len(),
    }
}

/// How long the rest of a line may take.
fn patience(into: Kind) -> Duration {
    match into {
        Kind::File => REST_OF_LINE_IN_FILE,
        _ => REST_OF_LINE,
    }
}
