//! How far a run of text, or of string data, reaches, byte by byte where it matters.
//! Decides nothing but the length of a run, and gives the same answer for any cut of the stream.

use memchr::memchr;

use super::controls::{BEL, C1, CAN, ESC, SUB};

/// Continuation bytes that the UTF-8 sequence in progress may still have (0 to 3).
///
/// Only the shape counts: a lead byte announces one to three continuation bytes. Encodings that Unicode
/// forbids (surrogates, overlong forms) have that shape too and pass like the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Utf8(u8);

impl Utf8 {
    /// The state when the bytes before are unknown.
    pub(super) fn anything() -> Self {
        Utf8(3)
    }

    /// The state after `bytes` of text, none of them a C1 control: it depends on no more than three.
    pub(super) fn after(bytes: &[u8]) -> Self {
        let mut utf8 = Utf8::default();
        bytes[bytes.len().saturating_sub(3)..].iter().for_each(|&byte| utf8.step(byte));
        utf8
    }

    pub(super) fn in_progress(&self) -> bool {
        self.0 != 0
    }

    /// Whether the next byte is a C1 control: 0x80..=0x9F and no continuation byte.
    fn is_c1(&self, byte: u8) -> bool {
        self.0 == 0 && matches!(byte, 0x80..=0x9F)
    }

    fn step(&mut self, byte: u8) {
        self.0 = match byte {
            0x80..=0xBF => self.0.saturating_sub(1),
            0xC0..=0xDF => 1,
            0xE0..=0xEF => 2,
            0xF0..=0xF7 => 3,
            _ => 0,
        };
    }
}

/// Bytes of a string checked at a time. The compiler turns the loop over a block into vector code.
const BLOCK: usize = 64;

/// Whether BEL ends a string, as it ends an OSC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bell {
    Ends,
    IsData,
}

/// Whether a newline ends a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineFeed {
    Ends,
    IsData,
}

/// Length of the text at the start of `bytes`, up to an ESC or a C1 control.
pub(super) fn text(bytes: &[u8], c1: C1, utf8: &mut Utf8) -> usize {
    match c1 {
        C1::Text => memchr(ESC, bytes).unwrap_or(bytes.len()),
        C1::Control => run(bytes, c1, utf8, |byte| byte == ESC),
    }
}

/// Length of the string data at the start of `bytes`, up to what may end it.
pub(super) fn string(
    bytes: &[u8],
    bell: Bell,
    line_feed: LineFeed,
    c1: C1,
    utf8: &mut Utf8,
) -> usize {
    let ends = |byte| {
        matches!(byte, ESC | CAN | SUB)
            || (byte == BEL && bell == Bell::Ends)
            || (byte == b'\n' && line_feed == LineFeed::Ends)
    };
    let mut at = 0;
    loop {
        let stretch = &bytes[at..bytes.len().min(at + BLOCK)];
        let data = run(stretch, c1, utf8, ends);
        at += data;
        if data < stretch.len() || at == bytes.len() {
            return at;
        }
        // Images are long, and all of them is printable.
        while let Some(block) = bytes[at..].first_chunk::<BLOCK>() {
            if block.iter().fold(false, |any, byte| any | !(0x20..0x80).contains(byte)) {
                break;
            }
            *utf8 = Utf8::default();
            at += BLOCK;
        }
    }
}

/// Length of the run up to a byte that `ends` names or that is a C1 control.
#[inline(always)]
fn run(bytes: &[u8], c1: C1, utf8: &mut Utf8, ends: impl Fn(u8) -> bool) -> usize {
    match c1 {
        C1::Text => bytes.iter().position(|&byte| ends(byte)).unwrap_or(bytes.len()),
        C1::Control => {
            for (at, &byte) in bytes.iter().enumerate() {
                if ends(byte) || utf8.is_c1(byte) {
                    return at;
                }
                utf8.step(byte);
            }
            bytes.len()
        }
    }
}
