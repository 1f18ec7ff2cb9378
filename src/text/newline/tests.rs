//! Each rule of the module's head, then all of them at once against a replacement that knows the whole stream.

use proptest::prelude::*;

use super::*;

/// What is left of the whole stream in one piece.
fn reference(stream: &[u8]) -> Vec<u8> {
    let lines = stream.split_inclusive(|&byte| byte == b'\n');
    let cut = |line: &[u8]| match line.strip_suffix(b"\r\n") {
        Some(text) => [text, b"\n"].concat(),
        None => line.to_vec(),
    };
    lines.map(cut).collect::<Vec<_>>().concat()
}

/// Takes chunks in behind each other, as they are read from a terminal: what the last one has left open comes again.
fn run<'b>(chunks: impl IntoIterator<Item = &'b [u8]>) -> Vec<u8> {
    let mut text = Vec::new();
    for chunk in chunks {
        let from = text.len().saturating_sub(1);
        text.extend_from_slice(chunk);
        let left = remove(&mut text[from..]);
        text.truncate(from + left);
    }
    text
}

#[track_caller]
fn assert_text(stream: &[u8], text: &[u8]) {
    assert_eq!(run([stream]), text);
    assert_eq!(run(stream.chunks(1)), text);
    assert_eq!(reference(stream), text);
}

#[test]
fn one_goes_before_each_line_feed() {
    assert_text(b"one\r\n\r\ntwo\r\n", b"one\n\ntwo\n");
    assert_text(b"\r\n", b"\n");
}

#[test]
fn others_stay() {
    assert_text(b"\r10 %\r\r20 %\rdone\n\rx", b"\r10 %\r\r20 %\rdone\n\rx");
    assert_text(b"text\r", b"text\r");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_cut_gives_what_the_reference_gives(
        pieces in prop::collection::vec(prop::sample::select(vec!["\r", "\n", "\r\n", "a", "text "]), 0..40),
        chunk in 1usize..20,
    ) {
        let stream = pieces.concat().into_bytes();
        let expected = reference(&stream);
        for cut in 0..=stream.len() {
            let (a, b) = stream.split_at(cut);
            prop_assert_eq!(&run([a, b]), &expected, "cut at {}", cut);
        }
        prop_assert_eq!(&run(stream.chunks(chunk)), &expected);
    }
}
