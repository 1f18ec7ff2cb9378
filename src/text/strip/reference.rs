//! The filter's oracle: the VT500 parser, one byte at a time, all of its states and actions written out as
//! Paul Williams drew them, with no thought of speed. Shares no code with what it checks. It sees the whole
//! stream at once, and may therefore hold bytes.

use State::*;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ground,
    Escape,
    EscapeIntermediate,
    CsiEntry,
    CsiParam,
    CsiIntermediate,
    CsiIgnore,
    DcsEntry,
    DcsParam,
    DcsIntermediate,
    DcsPassthrough,
    DcsIgnore,
    OscString,
    /// `ESC k`, ended as an OSC is.
    Title,
    /// After OSC `P`.
    Palette,
    SosPmApcString,
}

/// Bytes of `stream` that belong to UTF-8: a lead byte and as many continuation bytes as it announces.
fn utf8(stream: &[u8]) -> Vec<bool> {
    let mut part = vec![false; stream.len()];
    for (at, &byte) in stream.iter().enumerate() {
        let announced = match byte {
            0xC0..=0xDF => 1,
            0xE0..=0xEF => 2,
            0xF0..=0xF7 => 3,
            _ => continue,
        };
        part[at] = true;
        for next in at + 1..stream.len().min(at + 1 + announced) {
            if stream[next] & 0xC0 != 0x80 {
                break;
            }
            part[next] = true;
        }
    }
    part
}

/// `stream` without its escape sequences. `keep_cursor`: CSI ?25h and CSI ?25l stay. `eight_bit_controls`: 0x80..=0x9F
/// are controls where UTF-8 does not account for them, else all of them are text. `limit`: bytes of data after which an
/// unterminated string is given up.
pub(crate) fn strip(
    stream: &[u8],
    keep_cursor: bool,
    eight_bit_controls: bool,
    limit: usize,
) -> Vec<u8> {
    let character = if eight_bit_controls { utf8(stream) } else { vec![true; stream.len()] };
    let mut text = Vec::new();
    let mut state = Ground;
    let mut sequence = Vec::new(); // of a CSI, without what a terminal executes or ignores in it
    let mut string = 0;
    let mut eight_bit = false; // of a string: it began with one byte
    for (at, &byte) in stream.iter().enumerate() {
        // Anywhere. In a UTF-8 terminal a character's bytes are no C1.
        let c1 = (0x80..=0x9F).contains(&byte) && !character[at];
        let next = match byte {
            0x18 | 0x1A if state != Ground => Some(Ground),
            0x1B => Some(Escape),
            0x90 if c1 => Some(DcsEntry),
            0x9D if c1 => Some(OscString),
            0x98 | 0x9E | 0x9F if c1 => Some(SosPmApcString),
            0x9B if c1 => Some(CsiEntry),
            _ if c1 => Some(Ground),
            _ => None,
        };
        if let Some(next) = next {
            state = next;
            string = 0;
            eight_bit = byte != 0x1B;
            sequence = vec![byte];
            continue;
        }
        let in_string = matches!(
            state,
            DcsEntry
                | DcsParam
                | DcsIntermediate
                | DcsPassthrough
                | DcsIgnore
                | OscString
                | Title
                | SosPmApcString
        );
        if state == OscString && string == 0 && byte == b'R' {
            state = Ground; // reset palette, complete
            continue;
        }
        if state == OscString && string == 0 && byte == b'P' {
            state = Palette;
            continue;
        }
        if in_string {
            let titled = matches!(state, OscString | Title);
            if titled && byte == 0x07 {
                state = Ground;
                continue;
            }
            string += 1;
            if string > limit || (eight_bit || titled) && byte == b'\n' {
                state = Ground;
            }
        } else if state == Palette {
            if byte.is_ascii_hexdigit() {
                string += 1;
                if string == 7 {
                    state = Ground;
                }
                continue;
            }
            state = Ground;
        } else if byte >= 0x80 {
            state = Ground; // text in the middle of a sequence
        }
        state = match (state, byte) {
            (Ground, _) => {
                text.push(byte);
                Ground
            }
            // execute
            (
                Escape | EscapeIntermediate | CsiEntry | CsiParam | CsiIntermediate | CsiIgnore,
                0x00..=0x1F,
            ) => {
                text.push(byte);
                state
            }
            // ignore
            (
                Escape | EscapeIntermediate | CsiEntry | CsiParam | CsiIntermediate | CsiIgnore,
                0x7F,
            ) => state,

            (Escape, 0x20..=0x2F) => EscapeIntermediate,
            (Escape, b'P') => DcsEntry,
            (Escape, b']') => OscString,
            (Escape, b'k') => Title,
            (Escape, b'X' | b'^' | b'_') => SosPmApcString,
            (Escape, b'[') => {
                sequence = vec![0x1B, b'['];
                CsiEntry
            }
            (Escape, _) => Ground,

            (EscapeIntermediate, 0x20..=0x2F) => EscapeIntermediate,
            (EscapeIntermediate, _) => Ground,

            (CsiEntry | CsiParam | CsiIntermediate | CsiIgnore, 0x40..=0x7E) => {
                sequence.push(byte);
                let shown = [&b"\x1b[?25h"[..], b"\x1b[?25l", b"\x9b?25h", b"\x9b?25l"];
                if keep_cursor && shown.contains(&&sequence[..]) {
                    text.extend(&sequence);
                }
                Ground
            }
            (CsiEntry | CsiParam | CsiIntermediate | CsiIgnore, _) => {
                sequence.push(byte);
                match (state, byte) {
                    (CsiEntry, b'<'..=b'?') => CsiParam,
                    (CsiEntry | CsiParam, b'0'..=b'9' | b';') => CsiParam,
                    (CsiEntry | CsiParam | CsiIntermediate, 0x20..=0x2F) => CsiIntermediate,
                    _ => CsiIgnore,
                }
            }

            (DcsEntry, 0x00..=0x1F | 0x7F) => DcsEntry,
            (DcsEntry, b'<'..=b'?') => DcsParam,
            (DcsEntry | DcsParam, b'0'..=b'9' | b';') => DcsParam,
            (DcsParam | DcsIntermediate, 0x00..=0x1F | 0x7F) => state,
            (DcsEntry | DcsParam | DcsIntermediate, 0x20..=0x2F) => DcsIntermediate,
            (DcsEntry | DcsParam | DcsIntermediate, 0x40..=0x7E) => DcsPassthrough,
            (DcsEntry | DcsParam | DcsIntermediate, _) => DcsIgnore,
            (DcsPassthrough | DcsIgnore | OscString | Title | Palette | SosPmApcString, _) => state,
        };
    }
    text
}
