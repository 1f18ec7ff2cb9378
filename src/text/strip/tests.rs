//! Each rule of the module's head, then all of them at once against the reference.

use proptest::prelude::*;

use super::*;

/// Filters `chunks` through outputs of `room` bytes at most.
fn run(mut strip: Strip, chunks: &[&[u8]], room: usize) -> Vec<u8> {
    let mut text = Vec::new();
    let mut output = vec![0xEE; room];
    for chunk in chunks {
        let mut rest = *chunk;
        while !rest.is_empty() {
            let done = strip.filter(rest, &mut output);
            assert!(done != Progress::default(), "no progress in {strip:?} at {rest:?}");
            text.extend_from_slice(&output[..done.produced]);
            rest = &rest[done.consumed..];
        }
    }
    text
}

/// The filter's answer, after making sure that no cut of the stream changes it.
fn strip_with(cursor: CursorVisibility, stream: &[u8]) -> Vec<u8> {
    let whole = run(Strip::new(cursor), &[stream], stream.len() + 16);
    for cut in 0..=stream.len() {
        let (a, b) = stream.split_at(cut);
        assert_eq!(run(Strip::new(cursor), &[a, b], 16), whole, "cut at {cut}");
    }
    let bytes: Vec<_> = stream.chunks(1).collect();
    assert_eq!(run(Strip::new(cursor), &bytes, 1), whole);
    whole
}

#[track_caller]
fn assert_strip(stream: &[u8], text: &[u8]) {
    let found = strip_with(CursorVisibility::Removed, stream);
    assert_eq!(found.escape_ascii().to_string(), text.escape_ascii().to_string());
}

#[test]
fn text_and_c0_controls_stay() {
    assert_strip(b"", b"");
    assert_strip(b"a\tb\r\nc\x08\x07\x00\x18\x1a\x7f", b"a\tb\r\nc\x08\x07\x00\x18\x1a\x7f");
    assert_strip(
        "naïve – 日本語 😀 \u{85}\u{9b}".as_bytes(),
        "naïve – 日本語 😀 \u{85}\u{9b}".as_bytes(),
    );
}

#[test]
fn broken_utf8_and_binary_stay() {
    let binary: Vec<u8> = (0..=255).filter(|b| *b != ESC && !(0x80..0xA0).contains(b)).collect();
    assert_strip(&binary, &binary);
    // Surrogate, overlong, truncated at the end.
    assert_strip(b"\xed\xa0\x80 \xc0\x80 \xe2\x9b", b"\xed\xa0\x80 \xc0\x80 \xe2\x9b");
}

/// The end of a quotation mark that was cut in half, and letters of other encodings, begin strings by the letter of
/// ECMA-48.
#[test]
fn a_stray_byte_costs_no_more_than_its_line() {
    assert_strip(b"\x9d then\nERROR\nmore\n", b"\nERROR\nmore\n");
    assert_strip(b"Dvo\x9e\xe1k 1\r\nERROR 2\n", b"Dvo\nERROR 2\n");
    assert_strip(b"a\x9d0;title\x9cb\x900;1\x9cc\n", b"abc\n");
    // With ESC it was meant, and images have newlines in them.
    assert_strip(b"a\x1bPq\n\n\x1b\\b\x1b]0;x\ny\x07c", b"abc");
}

#[test]
fn csi_is_removed() {
    assert_strip(
        b"a\x1b[mb\x1b[0;1;38;5;123mc\x1b[?1049hd\x1b[>4;2me\x1b[2 qf\x1b[!pg",
        b"abcdefg",
    );
    assert_strip(b"\x1b[38:2::1:2:3mx\x1b[1?2<mx\x1b[ 1mx\x1b[~x\x1b[@x", b"xxxxx");
}

#[test]
fn controls_in_a_sequence_stay() {
    assert_strip(b"\x1b[3\n1\tma\x1b\r(\x08Bb\x1b[1\x7f2mc", b"\n\ta\r\x08bc");
}

#[test]
fn osc_ends_with_bel_or_st() {
    assert_strip(
        b"\x1b]0;title\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b\x1b]0;t\x9cc",
        b"alinkbc",
    );
    assert_strip(b"\x1b]0;one\ntwo\tthree\x07a", b"a");
}

#[test]
fn other_strings_end_with_st_only() {
    for start in *b"PX^_" {
        let stream = [b"a\x1b", &[start][..], b"1;2q data \x07\n more\x1b\\b"].concat();
        assert_strip(&stream, b"ab");
    }
    for start in [0x90, 0x98, 0x9E, 0x9F] {
        let stream = [b"a", &[start][..], b"1;2q data \x07 more\x9cb"].concat();
        assert_strip(&stream, b"ab");
    }
}

#[test]
fn utf8_in_a_string_is_no_terminator() {
    // U+2733 is E2 9C B3, and 9C alone would be ST.
    assert_strip("\x1b]0;\u{2733} busy\x07a".as_bytes(), b"a");
}

#[test]
fn escapes_are_removed() {
    assert_strip(
        b"\x1b(B\x1b)0\x1b*A\x1b%Ga\x1b7b\x1b8\x1b=\x1b>c\x1bMd\x1bce\x1b #8f\x1b~g",
        b"abcdefg",
    );
    assert_strip(b"\x1bNa\x1bOb\x8ec\x8fd", b"abcd");
    assert_strip(b"\x1b\\a\x9cb", b"ab");
}

#[test]
fn c1_controls_are_removed_outside_utf8() {
    assert_strip(b"a\x9b31mb\x84\x85\x80c\x9d0;t\x07d", b"abcd");
    assert_strip(b"\xe2\x82A\x9b1mb", b"\xe2\x82Ab");
    // As many continuation bytes as the lead byte announces, and no more.
    assert_strip(b"\xc3\x9b\x9b1ma", b"\xc3\x9ba");
    assert_strip(b"\xf0\x9f\x98\x80\x9b1ma", "😀a".as_bytes());
    assert_strip(b"\xe2\x1b[m\x9b1ma\xf8\x9b1m", b"\xe2a\xf8");
}

#[test]
fn can_sub_and_esc_abort() {
    assert_strip(b"a\x1b[31\x18b\x1b\x1ac\x1b]0;t\x18d\x1bPx\x1ae\x1b(\x18f", b"abcdef");
    assert_strip(b"a\x1b[31\x1b[mb\x1b\x1b[mc\x1b]0;t\x1b[1md\x1b]\x9b1me", b"abcde");
    assert_strip(b"a\x1bP\x1b]8;;x\x07b\x9b\x84c", b"abc");
}

#[test]
fn a_character_ends_a_sequence_and_stays() {
    assert_strip("a\x1bé\x1b[3é\x1b(é".as_bytes(), "aééé".as_bytes());
}

#[test]
fn a_sequence_without_its_end_is_dropped() {
    for tail in [&b"\x1b"[..], b"\x1b[3", b"\x1b(", b"\x1b]0;t", b"\x1bPq", b"\x9b"] {
        assert_strip(&[b"a", tail].concat(), b"a");
    }
}

#[test]
fn an_endless_string_is_given_up() {
    let limit = |stream: &[u8]| run(Strip::with_limit(CursorVisibility::Removed, 4), &[stream], 64);
    assert_eq!(limit(b"\x1b]1234\x07a"), b"a");
    assert_eq!(limit(b"\x1b]1234\x1b\\a"), b"a");
    assert_eq!(limit(b"\x1b]12345\x07a"), b"5\x07a");
    assert_eq!(limit(b"\x1bP1234\x9ca\x1bP1234\x07a"), b"a\x07a");

    let mut strip = Strip::new(CursorVisibility::Removed);
    let image = vec![b'A'; STRING_LIMIT as usize];
    assert!(run(strip.clone(), &[b"\x1b]", &image, b"\x07text"], 64) == b"text");
    strip.filter(b"\x1b]", &mut [0]);
    assert!(run(strip, &[&image, b"text"], 64) == b"text");
}

#[test]
fn cursor_visibility_is_kept_for_a_terminal() {
    let kept = |stream: &[u8]| strip_with(CursorVisibility::Kept, stream);
    assert_eq!(kept(b"\x1b[?25la\x1b[1mb\x1b[?25h"), b"\x1b[?25lab\x1b[?25h");
    assert_eq!(kept(b"\x9b?25la\x9b?25h"), b"\x9b?25la\x9b?25h");
    assert_eq!(kept(b"\x1b[?2\n5h"), b"\n\x1b[?25h");
    assert_eq!(kept(b"\x1b[?25\x1b[?25hx"), b"\x1b[?25hx");
    assert_eq!(kept(b"\x1b[?250h\x1b[?2h\x1b[?25;1h\x1b[25h\x1b[?25i\x1b[?25 h\x1b[?1049hx"), b"x");
    assert_strip(b"\x1b[?25la\x1b[?25h", b"a");
}

#[test]
fn neutral_is_ground_between_characters() {
    let mut strip = Strip::new(CursorVisibility::Removed);
    let mut after = |bytes: &[u8]| {
        run(strip.clone(), &[bytes], 64);
        strip.filter(bytes, &mut [0; 64]);
        strip.is_neutral()
    };
    assert!(after(b"text"));
    assert!(!after(b"\x1b"));
    assert!(!after(b"[3"));
    assert!(after(b"m"));
    assert!(!after(b"\xe2\x9c"));
    assert!(after(b"\xb3"));
    assert!(!after(b"\x1b]"));
    assert!(after(b"\x07"));
}

#[test]
fn rejoining_spares_the_rest_of_a_character() {
    let mut strip = Strip::new(CursorVisibility::Removed);
    strip.filter(b"\x1b]", &mut [0]);
    strip.rejoin();
    assert_eq!(run(strip, &[b"\x9c\x9b a\x9b1mb"], 64), b"\x9c\x9b ab");

    // Half of a kept sequence was out.
    let mut strip = Strip::new(CursorVisibility::Kept);
    strip.filter(b"\x1b[?25h", &mut [0; 3]);
    strip.rejoin();
    assert_eq!(run(strip, &[b"\x1b[?25h"], 64), b"\x1b[?25h");
}

/// Streams in which every piece of a sequence is as likely as text.
pub(in crate::text) fn stream() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&[u8]> = vec![
        b"\x1b", b"\x1b[", b"\x9b", b"?25", b"h", b"l", b"m", b"0;1;38:5;", b" ", b"?", b"2", b"5", b"\x1b[?25l",
        b"\x1b[?25h", b"\x1b[0m", b"\x1b]", b"\x9d", b"\x07", b"\x1b\\", b"\x9c", b"\\", b"\x1bP", b"\x90", b"\x1bX",
        b"\x98", b"\x1b^", b"\x1b_", b"\x9e", b"\x9f", b"\x1bN", b"\x1bO", b"\x8e", b"\x8f", b"\x1b(B", b"(", b"#",
        b"\x18", b"\x1a", b"\n", b"\r", b"\x00", b"\x7f", b"\x84", b"\x85", b"\xe2", b"\x9c\xb3", b"\xe2\x9b\xb3",
        b"\xf0\x9f\x98\x80", b"\xc3", b"\xc2\x9b", b"\xed\xa0\x80", b"\xa0", b"\xff", b"\xf8", b"\x80", b"word ",
        b"a longer stretch of plain text, beyond what one block of the scan can hold in one look at it", b"1",
    ];
    let piece = prop_oneof![
        6 => prop::sample::select(pieces).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 1..4),
        1 => prop::collection::vec(0x20u8..0x7F, 1..80),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_cut_gives_what_the_reference_gives(
        stream in stream(), keep: bool, limit in prop_oneof![0u32..40, Just(STRING_LIMIT)], room in prop_oneof![1usize..80, Just(4096)],
    ) {
        let cursor = if keep { CursorVisibility::Kept } else { CursorVisibility::Removed };
        let expected = reference::strip(&stream, keep, limit as usize);
        let new = || Strip::with_limit(cursor, limit);
        prop_assert_eq!(&run(new(), &[&stream], stream.len() + 16), &expected);
        for cut in 0..=stream.len() {
            let (a, b) = stream.split_at(cut);
            prop_assert_eq!(&run(new(), &[a, b], room), &expected, "cut at {}", cut);
        }
        let lead = [&b"some text in front, so that blocks start anywhere "[..room.min(50)], &stream].concat();
        let expected_lead = reference::strip(&lead, keep, limit as usize);
        prop_assert_eq!(&run(new(), &[&lead], 4096), &expected_lead);
        prop_assert_eq!(&run(new(), &stream.chunks(1).collect::<Vec<_>>(), 1), &expected);
        prop_assert_eq!(&run(new(), &stream.chunks(room).collect::<Vec<_>>(), 7), &expected);
    }
}
