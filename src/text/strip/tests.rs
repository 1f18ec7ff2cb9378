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
fn strip_with(cursor: CursorVisibility, c1: C1, stream: &[u8]) -> Vec<u8> {
    let new = || Strip::new(cursor, c1);
    let whole = run(new(), &[stream], stream.len() + 16);
    for cut in 0..=stream.len() {
        let (a, b) = stream.split_at(cut);
        assert_eq!(run(new(), &[a, b], 16), whole, "cut at {cut}");
    }
    let bytes: Vec<_> = stream.chunks(1).collect();
    assert_eq!(run(new(), &bytes, 1), whole);
    whole
}

#[track_caller]
fn assert_c1(c1: C1, stream: &[u8], text: &[u8]) {
    let found = strip_with(CursorVisibility::Removed, c1, stream);
    assert_eq!(found.escape_ascii().to_string(), text.escape_ascii().to_string());
}

/// With 8-bit controls as controls.
#[track_caller]
fn assert_control(stream: &[u8], text: &[u8]) {
    assert_c1(C1::Control, stream, text);
}

/// The same whatever 8-bit controls are.
#[track_caller]
fn assert_strip(stream: &[u8], text: &[u8]) {
    assert_c1(C1::Text, stream, text);
    assert_control(stream, text);
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
    let binary: Vec<u8> = (0..=255).filter(|b| *b != ESC).collect();
    assert_c1(C1::Text, &binary, &binary);
    // Surrogate, overlong, truncated at the end.
    assert_strip(b"\xed\xa0\x80 \xc0\x80 \xe2\x9b", b"\xed\xa0\x80 \xc0\x80 \xe2\x9b");
}

/// The end of a quotation mark that was cut in half, and letters of other encodings, begin strings by the letter of
/// ECMA-48.
#[test]
fn a_stray_byte_costs_no_more_than_its_line() {
    assert_control(b"\x9d then\nERROR\nmore\n", b"\nERROR\nmore\n");
    assert_control(b"Dvo\x9e\xe1k 1\r\nERROR 2\n", b"Dvo\nERROR 2\n");
    assert_control(b"a\x9d0;title\x9cb\x900;1\x9cc\n", b"abc\n");
    // With ESC it was meant, and images have newlines in them.
    assert_strip(b"a\x1bPq\n\n\x1b\\b", b"ab");
}

#[test]
fn text_of_other_encodings_stays() {
    let unchanged: [&[u8]; 5] = [
        // CP1250, CP1252, Shift-JIS, KOI8-R, CP437.
        b"Chyba: \x9e\xe1dn\xfd soubor, ERROR 42\n",
        b"can\x92t open \x93name\x94 \x96 done\x85\n",
        b"\x83t\x83@\x83C\x83\x8b\x82\xaa \x90\xb3\x9b\x9d\n",
        b"\xc6\xc1\xca\xcc \x9e 1 \x9f\n",
        b"\x9b5.00 \x9d \x8e \x90\n",
    ];
    for text in unchanged {
        assert_c1(C1::Text, text, text);
        // In the middle of sequences it ends them, in strings it is data.
        assert_c1(
            C1::Text,
            &[b"\x1b[1m", text, b"\x1b]0;\x9c\x9d\x07\x1bP\x9c\x1b\\"].concat(),
            text,
        );
        for sequence in [&b"\x1b"[..], b"\x1b[3", b"\x1b("] {
            assert_c1(C1::Text, &[sequence, b"\x9b", text].concat(), &[b"\x9b", text].concat());
        }
    }
}

#[test]
fn the_palette_of_the_linux_console_has_no_end() {
    assert_strip(b"a\x1b]Rb\x1b]P0123456c\x1b]Pfabcdef9\n", b"abc9\n");
    assert_strip(b"\x1b]P1\nb\x1b]P12\x1b[mc\x1b]P\x18d\x1b]P0zz\n", b"\nbcdzz\n");
    assert_strip(b"\x1b]P0000000\x1b\\a\x1b]R\x1b\\b", b"ab");
    assert_control(b"\x9dRb\x9dP1234567c", b"bc");
}

#[test]
fn titles_are_removed() {
    assert_strip(b"\x1bkmake: all\x1b\\a\x1bkone\x07b\x1bkleft open\nc\n", b"ab\nc\n");
    assert_strip("\x1bkmake – größer\x1b\\a".as_bytes(), b"a");
    // An OSC that nobody ends costs its line.
    assert_strip(b"\x1b]0;title\nERROR 1\nERROR 2\n", b"\nERROR 1\nERROR 2\n");
}

/// A search to the end of the input for each start of a string took 28 s for 16 MB. Then it matters how much is
/// handed over at once, and for nothing else does it.
#[test]
fn time_is_linear_whatever_comes() {
    let units: [&[u8]; 6] = [b"\x90", b"\x9d", b"\x1b]", b"\x1bk", b"\x1b]P", b"\x1bP\x18"];
    for unit in units {
        let stream = unit.repeat((256 << 10) / unit.len());
        let time = |chunk: usize| {
            let chunks: Vec<_> = stream.chunks(chunk).collect();
            let strip = Strip::new(CursorVisibility::Removed, C1::Control);
            let began = std::time::Instant::now();
            run(strip, &chunks, 256 << 10);
            began.elapsed()
        };
        // Others may be at work on this machine: one good comparison of several is enough.
        let linear = (0..5).any(|_| time(stream.len()) < 2 * time(4 << 10));
        assert!(linear, "{} takes longer the more is at hand", unit.escape_ascii());
    }
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
    assert_strip(b"\x1b]0;title\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b", b"alinkb");
    assert_control(b"a\x1b]0;t\x9cb", b"ab");
    assert_strip(b"\x1b]0;two\tthree\x07a", b"a");
}

#[test]
fn other_strings_end_with_st_only() {
    for start in *b"PX^_" {
        let stream = [b"a\x1b", &[start][..], b"1;2q data \x07\n more\x1b\\b"].concat();
        assert_strip(&stream, b"ab");
    }
    for start in [0x90, 0x98, 0x9E, 0x9F] {
        let stream = [b"a", &[start][..], b"1;2q data \x07 more\x9cb"].concat();
        assert_control(&stream, b"ab");
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
    assert_control(b"\x1bNa\x1bOb\x8ec\x8fd", b"abcd");
    assert_control(b"\x1b\\a\x9cb", b"ab");
}

#[test]
fn c1_controls_are_removed_outside_utf8() {
    assert_control(b"a\x9b31mb\x84\x85\x80c\x9d0;t\x07d", b"abcd");
    assert_control(b"\xe2\x82A\x9b1mb", b"\xe2\x82Ab");
    // As many continuation bytes as the lead byte announces, and no more.
    assert_control(b"\xc3\x9b\x9b1ma", b"\xc3\x9ba");
    assert_control(b"\xf0\x9f\x98\x80\x9b1ma", "😀a".as_bytes());
    assert_control(b"\xe2\x1b[m\x9b1ma\xf8\x9b1m", b"\xe2a\xf8");
}

#[test]
fn can_sub_and_esc_abort() {
    assert_strip(b"a\x1b[31\x18b\x1b\x1ac\x1b]0;t\x18d\x1bPx\x1ae\x1b(\x18f", b"abcdef");
    assert_control(b"a\x1b[31\x1b[mb\x1b\x1b[mc\x1b]0;t\x1b[1md\x1b]\x9b1me", b"abcde");
    assert_control(b"a\x1bP\x1b]8;;x\x07b\x9b\x84c", b"abc");
}

#[test]
fn a_character_ends_a_sequence_and_stays() {
    assert_strip("a\x1bé\x1b[3é\x1b(é".as_bytes(), "aééé".as_bytes());
}

#[test]
fn a_sequence_without_its_end_is_dropped() {
    for tail in [&b"\x1b"[..], b"\x1b[3", b"\x1b(", b"\x1b]0;t", b"\x1bPq", b"\x1bkt", b"\x1b]P1"] {
        assert_strip(&[b"a", tail].concat(), b"a");
    }
}

#[test]
fn an_endless_string_is_given_up() {
    let limit = |stream: &[u8]| {
        run(Strip::with_limit(CursorVisibility::Removed, C1::Control, 4), &[stream], 64)
    };
    assert_eq!(limit(b"\x1b]1234\x07a"), b"a");
    assert_eq!(limit(b"\x1b]1234\x1b\\a"), b"a");
    assert_eq!(limit(b"\x1b]12345\x07a"), b"5\x07a");
    assert_eq!(limit(b"\x1bP1234\x9ca\x1bP1234\x07a"), b"a\x07a");

    let mut strip = Strip::new(CursorVisibility::Removed, C1::Control);
    let image = vec![b'A'; STRING_LIMIT as usize];
    assert!(run(strip.clone(), &[b"\x1b]", &image, b"\x07text"], 64) == b"text");
    strip.filter(b"\x1b]", &mut [0]);
    assert!(run(strip, &[&image, b"text"], 64) == b"text");
}

#[test]
fn cursor_visibility_is_kept_for_a_terminal() {
    let kept = |stream: &[u8]| strip_with(CursorVisibility::Kept, C1::Control, stream);
    assert_eq!(kept(b"\x1b[?25la\x1b[1mb\x1b[?25h"), b"\x1b[?25lab\x1b[?25h");
    assert_eq!(kept(b"\x9b?25la\x9b?25h"), b"\x9b?25la\x9b?25h");
    assert_eq!(kept(b"\x1b[?2\n5h"), b"\n\x1b[?25h");
    assert_eq!(kept(b"\x1b[?25\x1b[?25hx"), b"\x1b[?25hx");
    assert_eq!(kept(b"\x1b[?250h\x1b[?2h\x1b[?25;1h\x1b[25h\x1b[?25i\x1b[?25 h\x1b[?1049hx"), b"x");
    assert_strip(b"\x1b[?25la\x1b[?25h", b"a");
}

#[test]
fn neutral_is_ground_between_characters() {
    let mut strip = Strip::new(CursorVisibility::Removed, C1::Control);
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
    let mut strip = Strip::new(CursorVisibility::Removed, C1::Control);
    strip.filter(b"\x1b]", &mut [0]);
    strip.rejoin();
    assert_eq!(run(strip, &[b"\x9c\x9b a\x9b1mb"], 64), b"\x9c\x9b ab");

    // Half of a kept sequence was out.
    let mut strip = Strip::new(CursorVisibility::Kept, C1::Control);
    strip.filter(b"\x1b[?25h", &mut [0; 3]);
    strip.rejoin();
    assert_eq!(run(strip, &[b"\x1b[?25h"], 64), b"\x1b[?25h");
}

/// Streams in which every piece of a sequence is as likely as text.
pub(in crate::text) fn stream() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&[u8]> = vec![
        b"\x1b", b"\x1b[", b"\x9b", b"?25", b"h", b"l", b"m", b"0;1;38:5;", b" ", b"?", b"2", b"5", b"\x1b[?25l",
        b"\x1b[?25h", b"\x1b[0m", b"\x1b]", b"\x9d", b"\x07", b"\x1b\\", b"\x9c", b"\\", b"\x1bP", b"\x90", b"\x1bX",
        b"\x98", b"\x1b^", b"\x1b_", b"\x9e", b"\x9f", b"\x1bN", b"\x1bO", b"\x8e", b"\x8f", b"\x1b(B", b"(", b"#", b"\x1bk", b"\x1b]R", b"\x1b]P", b"\x1b]P12abCD", b"R", b"P", b"7",
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
        stream in stream(), keep: bool, control: bool, limit in prop_oneof![0u32..40, Just(STRING_LIMIT)], room in prop_oneof![1usize..80, Just(4096)],
    ) {
        let cursor = if keep { CursorVisibility::Kept } else { CursorVisibility::Removed };
        let c1 = if control { C1::Control } else { C1::Text };
        let expected = reference::strip(&stream, keep, control, limit as usize);
        let new = || Strip::with_limit(cursor, c1, limit);
        prop_assert_eq!(&run(new(), &[&stream], stream.len() + 16), &expected);
        for cut in 0..=stream.len() {
            let (a, b) = stream.split_at(cut);
            prop_assert_eq!(&run(new(), &[a, b], room), &expected, "cut at {}", cut);
        }
        let lead = [&b"some text in front, so that blocks start anywhere "[..room.min(50)], &stream].concat();
        let expected_lead = reference::strip(&lead, keep, control, limit as usize);
        prop_assert_eq!(&run(new(), &[&lead], 4096), &expected_lead);
        prop_assert_eq!(&run(new(), &stream.chunks(1).collect::<Vec<_>>(), 1), &expected);
        prop_assert_eq!(&run(new(), &stream.chunks(room).collect::<Vec<_>>(), 7), &expected);
    }
}
