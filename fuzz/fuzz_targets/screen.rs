//! The screen on streams, cuts and buffer sizes of the fuzzer's choice: any cut gives the same, and a stream that moves
//! nothing and erases nothing is what it was.
//!
//! The first three bytes choose the height, the meaning of 8-bit bytes, the length of the chunks and the room in the
//! output; the rest is the stream. `cargo +nightly fuzz run screen -- -dict=screen.dict`, or with RUSTC_BOOTSTRAP=1 on a
//! stable toolchain.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nproxy::text::screen::ScreenSize;
use nproxy::text::strip::C1;
use nproxy::text::{Arrival, Escapes, Filter, Modes};

/// Filters `stream` to its end.
fn run(escapes: Escapes, stream: &[u8], chunk: usize, room: usize) -> Vec<u8> {
    let mut filter = Filter::new(&Modes {
        escapes,
        ..Modes::default()
    });
    let mut output = vec![0xEE; room];
    let mut text = Vec::new();
    for chunk in stream.chunks(chunk) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let done = filter.filter(rest, &mut output, Arrival::default());
            assert!(done.consumed + done.produced > 0, "no progress");
            text.extend_from_slice(&output[..done.produced]);
            rest = &rest[done.consumed..];
        }
    }
    loop {
        let done = filter.finish(&mut output, Arrival::default());
        if done.produced == 0 {
            break;
        }
        text.extend_from_slice(&output[..done.produced]);
    }
    assert!(!filter.holds_text(), "all of it is out");
    text
}

fuzz_target!(|data: &[u8]| {
    let [choice, cut, room, stream @ ..] = data else {
        return;
    };
    let c1 = if choice & 1 != 0 {
        C1::Control
    } else {
        C1::Text
    };
    let size = ScreenSize {
        rows: u16::from(choice >> 1) + 1,
        columns: u16::from(*room) * 8,
    };
    let escapes = Escapes::Screen { size, c1 };
    let whole = run(escapes, stream, stream.len().max(1), 1 << 20);
    let chunk = usize::from(*cut) + 1;
    let pieces = run(escapes, stream, chunk, usize::from(*room) + 1);
    assert!(
        whole == pieces,
        "{}\nbut in pieces\n{}",
        whole.escape_ascii(),
        pieces.escape_ascii()
    );

    let is_plain = |byte: &u8| matches!(byte, b'\n' | 0x20..=0x7E);
    if stream.iter().all(is_plain) {
        assert!(whole == stream, "{}", whole.escape_ascii());
    }
});
