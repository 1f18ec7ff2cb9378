//! Each rule of the module's head, then all of them at once against a replacement that knows the whole stream.

use proptest::prelude::*;

use super::*;

/// What comes out of the whole stream in one piece.
pub(in crate::text) fn reference(stream: &[u8]) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = stream.split(|&byte| byte == b'\n').collect();
    for line in &mut lines {
        *line = line.strip_suffix(b"\r").unwrap_or(line);
    }
    lines.join(&b'\n')
}

/// Filters chunks through outputs of `room` bytes at most.
fn run(chunks: &[&[u8]], room: usize) -> Vec<u8> {
    let mut newline = Newline::default();
    let mut text = Vec::new();
    let mut output = vec![0xEE; room];
    for chunk in chunks {
        let mut rest = *chunk;
        while !rest.is_empty() {
            let done = newline.filter(rest, &mut output);
            assert!(done != Progress::default(), "no progress at {rest:?}");
            text.extend_from_slice(&output[..done.produced]);
            rest = &rest[done.consumed..];
        }
    }
    text
}

/// Asserts what becomes of `stream`, whole and in single bytes.
#[track_caller]
fn assert_text(stream: &[u8], text: &[u8]) {
    assert_eq!(run(&[stream], 99), text);
    assert_eq!(run(&stream.chunks(1).collect::<Vec<_>>(), 1), text);
    assert_eq!(reference(stream), text);
}

#[test]
fn one_goes_before_each_line_feed() {
    assert_text(b"one\r\n\r\ntwo\r\n", b"one\n\ntwo\n");
    assert_text(b"\r\r\n\r\r\r\n", b"\r\n\r\r\n");
}

#[test]
fn others_stay() {
    assert_text(b"\r10 %\r\r20 %\rdone\n\rx", b"\r10 %\r\r20 %\rdone\n\rx");
}

#[test]
fn at_the_very_end_it_goes() {
    assert_text(b"text\r", b"text");
    assert_text(b"\r\r", b"\r");
}

#[test]
fn neutral_is_with_nothing_held() {
    let mut newline = Newline::default();
    let mut after = |bytes: &[u8]| {
        newline.filter(bytes, &mut [0; 9]);
        newline.is_neutral()
    };
    assert!(after(b"a"));
    assert!(!after(b"\r"));
    assert!(!after(b"\r"));
    assert!(after(b"\n"));
    assert!(!after(b"\r"));
    assert!(after(b"a"));
}

#[test]
fn rejoining_forgets() {
    let mut newline = Newline::default();
    newline.filter(b"\r", &mut [0; 9]);
    newline.rejoin();
    let mut output = [0; 9];
    let done = newline.filter(b"a\n", &mut output);
    assert_eq!(&output[..done.produced], b"a\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_cut_gives_what_the_reference_gives(
        pieces in prop::collection::vec(prop::sample::select(vec!["\r", "\n", "\r\n", "a", "text "]), 0..40),
        room in 1usize..20,
    ) {
        let stream = pieces.concat().into_bytes();
        let expected = reference(&stream);
        for cut in 0..=stream.len() {
            let (a, b) = stream.split_at(cut);
            prop_assert_eq!(&run(&[a, b], room), &expected, "cut at {}", cut);
        }
        prop_assert_eq!(&run(&[&stream], 4096), &expected);
        prop_assert_eq!(&run(&stream.chunks(1).collect::<Vec<_>>(), 1), &expected);
        prop_assert_eq!(&run(&stream.chunks(room).collect::<Vec<_>>(), 7), &expected);
    }
}
