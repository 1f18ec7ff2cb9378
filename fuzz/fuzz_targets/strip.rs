//! The filters against the reference parser, on streams, cuts and buffer sizes of the fuzzer's choice.
//!
//! The first two bytes choose the modes, the length of the chunks and the room in the output; the rest is the stream.
//! `cargo +nightly fuzz run strip`, or with RUSTC_BOOTSTRAP=1 on a stable toolchain.

#![no_main]

#[path = "../../src/text/strip/reference.rs"]
mod reference;

use libfuzzer_sys::fuzz_target;
use nproxy::text::strip::{C1, CursorVisibility, STRING_LIMIT};
use nproxy::text::transform::{LineNumbers, Prefix, StampMode, Zone};
use nproxy::text::{Arrival, Escapes, Filter, Modes, Progress};

fuzz_target!(|data: &[u8]| {
    let [choice, cut, stream @ ..] = data else {
        return;
    };
    let keep = choice & 1 != 0;
    let prefixed = choice & 2 != 0;
    let control = choice & 4 != 0;
    let room = match choice >> 3 {
        0 => stream.len() + 4096,
        room => usize::from(room) * 8,
    };
    // Chunks of one byte to all of it, and several lengths in one run.
    let chunk = |at: usize| match cut {
        0 => stream.len().max(1),
        cut => 1 + usize::from(cut.wrapping_mul(at as u8 | 1)),
    };

    let mut expected = reference::strip(stream, keep, control, STRING_LIMIT as usize);
    if prefixed {
        let lines = expected.split_inclusive(|&byte| byte == b'\n').enumerate();
        expected = lines
            .flat_map(|(at, line)| [format!("00> {:6}\t", at + 1).as_bytes(), line].concat())
            .collect();
    }

    let cursor = if keep {
        CursorVisibility::Kept
    } else {
        CursorVisibility::Removed
    };
    let c1 = if control { C1::Control } else { C1::Text };
    let transform = prefixed.then(|| {
        Prefix::new(StampMode::Elapsed, Some("%S> "), Zone::default(), LineNumbers::On).expect("a valid format")
    });
    let mut filter = Filter::new(&Modes {
        escapes: Escapes::Strip { cursor, c1 },
        transform,
        ..Modes::default()
    });
    let mut output = vec![0xEE; room];
    let mut text = Vec::new();
    let mut at = 0;
    while at < stream.len() {
        let mut rest = &stream[at..stream.len().min(at + chunk(at))];
        at += rest.len();
        while !rest.is_empty() {
            let done = filter.filter(rest, &mut output, Arrival::default());
            assert_ne!(done, Progress::default(), "no progress");
            text.extend_from_slice(&output[..done.produced]);
            rest = &rest[done.consumed..];
        }
    }
    assert!(
        text == expected,
        "{}\nbut expected\n{}",
        text.escape_ascii(),
        expected.escape_ascii()
    );
});
