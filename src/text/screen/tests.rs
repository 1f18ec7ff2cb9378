//! What programs do with a screen, one thing after the other; then all of it at once against the reference, and
//! recordings of real programs against what another emulator showed.

use proptest::prelude::*;

use super::{STRETCH, Screen, ScreenSize, reference};
use crate::text::controls::C1;
use crate::text::transform::{LineNumbers, Prefix, StampMode, Zone};
use crate::text::{Arrival, Escapes, Filter, Modes};

fn size(rows: u16) -> ScreenSize {
    ScreenSize { rows, ..ScreenSize::default() }
}

fn filter(size: ScreenSize) -> Filter {
    let escapes = Escapes::Screen { size, c1: C1::Text };
    Filter::new(&Modes { escapes, ..Modes::default() })
}

/// Filters `chunks` through outputs of `room` bytes at most, to the end of the stream.
fn run<'a>(mut filter: Filter, chunks: impl IntoIterator<Item = &'a [u8]>, room: usize) -> Vec<u8> {
    let mut text = Vec::new();
    let mut output = vec![0xEE; room];
    for chunk in chunks {
        let mut rest = chunk;
        while !rest.is_empty() {
            let done = filter.filter(rest, &mut output, Arrival::default());
            assert!(done.consumed + done.produced > 0, "no progress at {rest:?}");
            text.extend_from_slice(&output[..done.produced]);
            rest = &rest[done.consumed..];
        }
    }
    loop {
        let done = filter.finish(&mut output, Arrival::default());
        if done.produced == 0 {
            return text;
        }
        text.extend_from_slice(&output[..done.produced]);
    }
}

fn whole(size: ScreenSize, stream: &[u8]) -> Vec<u8> {
    run(filter(size), [stream], 1 << 20)
}

/// Asserts what is left of `stream` on a screen of six rows, whole and at every cut.
#[track_caller]
fn assert_screen(stream: impl AsRef<[u8]>, text: impl AsRef<[u8]>) {
    let (stream, text) = (stream.as_ref(), text.as_ref().escape_ascii().to_string());
    let shown = |bytes: Vec<u8>| bytes.escape_ascii().to_string();
    assert_eq!(shown(whole(size(6), stream)), text);
    assert_eq!(shown(run(filter(size(6)), stream.chunks(1), 1)), text, "byte by byte");
    for cut in 0..stream.len().min(300) {
        let (a, b) = stream.split_at(cut);
        assert_eq!(shown(run(filter(size(6)), [a, b], 3)), text, "cut at {cut}");
    }
}

#[test]
fn plain_text_is_what_it_was() {
    for text in [
        "",
        "a",
        "a\n",
        "a\nb",
        "\n\n",
        " indented  \ntrailing \n",
        "naïve – 日本語 😀\ne\u{301}\n",
    ] {
        assert_screen(text, text);
    }
    let long: String = (0..50).map(|line| format!("line {line}\n")).collect();
    assert_screen(&long, &long);
}

#[test]
fn both_newlines_are_one() {
    assert_screen("a\r\nb\nc\r\r\n\r\n", "a\nb\nc\n\n");
}

#[test]
fn progress_leaves_its_end() {
    assert_screen("10 %\r20 %\r100 %\n", "100 %\n");
    assert_screen("a long one\rshort\n", "shortg one\n");
    assert_screen(
        "Building 1/2\r\x1b[K   Compiling a\nBuilding 2/2\r\x1b[K    Finished\n",
        "   Compiling a\n    Finished\n",
    );
    assert_screen("wait...\x08\x08\x08!!!\n", "wait!!!\n");
    // Written over with spaces.
    assert_screen("100 %\r     \rdone\r\n", "done\n");
    assert_screen("50 %\r      \r", "");
    assert_screen(
        "\u{280b}\x1b[1G\x1b[0K\u{2819}\x1b[1G\x1b[0Kadded 3\n\u{280b}\x1b[1G\x1b[0K",
        "added 3\n",
    );
}

#[test]
fn several_bars_leave_theirs() {
    let bars = "a: 0\nb: 0\n\x1b[2A\r\x1b[2Ka: 5\x1b[1B\r\x1b[2Kb: 7\x1b[1B\r\x1b[2A\r\x1b[2Ka: done\n\x1b[2Kb: done\nend\n";
    assert_screen(bars, "a: done\nb: done\nend\n");
    // Drawn again in full, erased at last.
    assert_screen(
        "one\n[1]\n[2]\x1b[1A\r\x1b[Jtwo\n[1]\n[2]\x1b[1F\x1b[0Jthree\n",
        "one\ntwo\nthree\n",
    );
}

#[test]
fn what_has_scrolled_off_stays() {
    let lines: String = (0..20).map(|line| format!("{line}\n")).collect();
    let expected: String = (0..15).map(|line| format!("{line}\n")).collect();
    assert_screen(lines + "\x1b[99A\x1b[Jtop", expected + "top");
}

#[test]
fn columns() {
    assert_screen("a\x1b[5Gb\x1b[2Dc\x1b[3Cd\n", "a  cb  d\n");
    assert_screen("ab\tc\t\td\n", "ab      c               d\n");
    assert_screen("\x1b[60G[ OK ]\rStarted x\n", format!("Started x{}[ OK ]\n", " ".repeat(50)));
    assert_screen("abcdef\x1b[3D\x1b[2Pf\x1b[4D\x1b[1@x\n", "xabcf\n");
    assert_screen("abcdef\r\x1b[3Xx\x1b[1K\n", "   def\n");
    // A terminal's last column is where moves end.
    let narrow = ScreenSize { rows: 6, columns: 10 };
    assert_eq!(whole(narrow, b"\x1b[999Cx\r\x1b[99Gy\ra longer line\n"), b"a longer line\n");
    assert_eq!(whole(narrow, b"\x1b[999Cx"), b"         x");
    // Beyond it no move to the right leads back.
    assert_eq!(whole(narrow, b"a longer line\x1b[Cx\n"), b"a longer linex\n");
}

#[test]
fn wide_and_combining_characters() {
    assert_screen("漢字\r\u{20ac}\n", "€ 字\n");
    assert_screen("漢字\x1b[3D-\n", " -字\n");
    assert_screen("e\u{301}x\r\x1b[1Co\n", "e\u{301}o\n");
    assert_screen("abc\re\u{301}\n", "e\u{301}bc\n");
    assert_screen("漢\x1b[2G\x1b[Kx\n", " x\n");
    assert_screen("👩\u{200d}👩 ❤\u{fe0f}\n", "👩\u{200d}👩 ❤\u{fe0f}\n");
}

#[test]
fn other_encodings_stay() {
    assert_screen(
        b"Chyba: \x9e\xe1dn\xfd soubor\n10 %\r\x93OK\x94\n",
        b"Chyba: \x9e\xe1dn\xfd soubor\n\x93OK\x94\n",
    );
    assert_screen(
        b"\xe2\x82 \xf0\x9f\x98A \xc3\n \xed\xa0\x80 \xc0\x80\n",
        b"\xe2\x82 \xf0\x9f\x98A \xc3\n \xed\xa0\x80 \xc0\x80\n",
    );
    assert_screen(b"\xe2\x82\x1b[m\xac\xe2", b"\xe2\x82\xac\xe2");
    let escapes = Escapes::Screen { size: size(6), c1: C1::Control };
    let modes = Modes { escapes, ..Modes::default() };
    assert_eq!(run(Filter::new(&modes), [&b"ab\x9b1Dc\x85d\x84e\n"[..]], 99), b"ac\nd\n e\n");
}

#[test]
fn colours_titles_and_strings_leave_nothing() {
    assert_screen(
        "\x1b]0;title\x07\x1b[1;38:2::1:2:3ma\x1b[0mb\x1b]8;;http://x\x1b\\c\x1bPq#0~\n~\x1b\\d\n",
        "abcd\n",
    );
    assert_screen("\x1b]0;left open\nnext\n", "\nnext\n");
    assert_screen("a\x07b\x00c\x1b[3", "abc");
}

#[test]
fn an_alternate_screen_is_skipped() {
    assert_screen(
        "before\n\x1b[?1049h\x1b[Hvim\n\n\n\n\n\n\n\n~\x1b[?25h\x1b[?1049lafter\n",
        "before\nafter\n",
    );
    assert_screen("a\x1b[?47hb\x1b[2J\x1b[?47l\x1b[?2004hc\n", "ac\n");
    assert_screen("never left\n\x1b[?1049hmenu", "never left\n");
}

#[test]
fn what_was_cleared_is_gone() {
    assert_screen("old\nold\n\x1b[H\x1b[2J\x1b[3Jnew\n", "new\n");
    assert_screen("old\n\x1bcnew\n", "new\n");
    assert_screen("1\n2\n3\x1b[2;2H\x1b[1J\x1b[3;1H", "\n\n3");
}

#[test]
fn a_region_scrolls_for_itself() {
    // apt keeps a bar in the last row.
    let apt = "\x1b7\x1b[0;5r\x1b8\x1b[1A1\n\x1b7\x1b[6;0fbar\x1b8";
    let lines: String = (2..12).map(|line| format!("{line}\n")).collect();
    let shown: String = (1..12).map(|line| format!("{line}\n")).collect();
    assert_screen(format!("{apt}{lines}\x1b7\x1b[0;6r\x1b8\x1b[6;1H\x1b[K\x1b[5;1H"), shown);
    // Above other lines what scrolls is gone.
    assert_screen("top\na\nb\nc\x1b[2;3r\x1b[3;1H\nd\x1b[r\x1b[4;2H\n", "top\nb\nd\nc\n");
    assert_screen("1\n2\n3\x1b[2;1H\x1b[Lnew\x1b[1;1H\x1b[M\x1b[4;1H", "new\n2\n3\n");
    assert_screen("1\n2\x1b[1;1H\x1bM0\x1b[3;1H", "0\n1\n2");
}

#[test]
fn boxes_are_drawn() {
    assert_screen("\x1b(0lqk\x1b(Bx\x1b)0\x0eq\x0fq\n", "┌─┐x─q\n");
}

#[test]
fn a_long_line_goes_out_whole() {
    let long = "0123456789".repeat(1000);
    assert_screen(format!("above\n{long}\nbelow\n"), format!("above\n{long}\nbelow\n"));
    let wide = "漢".repeat(3000);
    assert_screen(format!("above\n{wide}\n"), format!("above\n{wide}\n"));
    assert_screen(format!("1\n2\n3\x1b[2A\r{long}\n"), format!("{long}\n2\n3"));
}

#[test]
fn prefixes_are_for_the_lines_that_are_left() {
    let transform =
        Prefix::new(StampMode::Elapsed, Some("%S> "), Zone::default(), LineNumbers::On).unwrap();
    let escapes = Escapes::Screen { size: size(3), c1: C1::Text };
    let modes = Modes { escapes, transform: Some(transform) };
    for room in [1, 7, 1000] {
        let text = run(Filter::new(&modes), [&b"1 %\r2 %\ra\x1b[K\r\nb\nc\nd\n"[..]], room);
        let expected = "00>      1\ta\n00>      2\tb\n00>      3\tc\n00>      4\td\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}

#[test]
fn settling_lets_everything_out() {
    let mut filter = filter(size(6));
    let mut output = [0; 99];
    let done = filter.filter(b"one\ntwo\r\x1b[3", &mut output, Arrival::default());
    assert_eq!((done.produced, filter.is_neutral()), (0, false));
    let done = filter.settle(b"1mraw\x1b[m", &mut output, Arrival::default());
    assert_eq!((done.consumed, &output[..done.produced]), (2, &b"one\ntwo"[..]));
    assert!(filter.is_neutral());
    filter.rejoin();
    assert_eq!(run(filter, [&b"\nthree\n"[..]], 99), b"\nthree\n");
}

#[test]
fn what_is_held_is_bounded() {
    let mut screen = Screen::new(size(24), C1::Text);
    let mut feed = |stream: &[u8]| {
        let mut most = 0;
        for mut rest in stream.chunks(64 << 10) {
            while !rest.is_empty() {
                rest = &rest[screen.feed(rest)..];
                let pending = screen.pending().len();
                most = most.max(pending);
                screen.take(pending);
            }
        }
        most
    };
    // No more than what one stretch of text adds to what may wait, and a whole screen once.
    let bound = 2 * STRETCH + 24 * 1024 * 15;
    assert!(feed("x".repeat(1 << 20).as_bytes()) <= bound);
    assert!(feed("line\n".repeat(1 << 18).as_bytes()) <= bound);
    assert!(feed("\x1b[9999S\x1b[999;999Hx".repeat(1 << 14).as_bytes()) <= bound);
    assert!(feed("e\u{301}\u{302}\u{303}\u{304}".repeat(1 << 16).as_bytes()) <= bound);
    assert!(
        feed("\x1b[65535@x\x1b[65535L\x1b[65535T\x1b[65535X".repeat(1 << 12).as_bytes()) <= bound
    );
}

/// A moment of a session that any program may have.
fn stream() -> impl Strategy<Value = String> {
    let pieces = vec![
        "\r",
        "\n",
        "\r\n",
        "\x08",
        "\t",
        "\x1b[K",
        "\x1b[1K",
        "\x1b[2K",
        "\x1b[J",
        "\x1b[1J",
        "\x1b[2J",
        "\x1b[A",
        "\x1b[2A",
        "\x1b[B",
        "\x1b[3B",
        "\x1b[C",
        "\x1b[2C",
        "\x1b[4D",
        "\x1b[E",
        "\x1b[2F",
        "\x1b[3G",
        "\x1b[d",
        "\x1b[3d",
        "\x1b[H",
        "\x1b[2;3H",
        "\x1b[2X",
        "\x1b[P",
        "\x1b[2P",
        "\x1b[@",
        "\x1b[2@",
        "\x1b[b",
        "\x1b[4b",
        "\x1b[L",
        "\x1b[2M",
        "\x1b[1;31m",
        "\x1b[m",
        "\x1bM",
        "\x1b7",
        "\x1b8",
        "word ",
        "漢",
        "字x",
        "é",
        "e\u{301}",
        "\u{301}",
        "\u{200d}",
        "  ",
        "\x07",
        "\x7f",
        "\x1b[?25l",
        "100 %",
    ];
    let piece = prop_oneof![
        8 => prop::sample::select(pieces).prop_map(str::to_owned),
        1 => "[a-z ]{1,12}",
        1 => "\\PC{1,4}",
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_cut_shows_what_the_reference_shows(
        stream in stream(), rows in 1u16..7, chunk in 1usize..40, room in 1usize..40,
    ) {
        let expected = reference::screen(&stream, rows.into());
        let shown = |text: Vec<u8>| String::from_utf8(text).unwrap();
        let bytes = stream.as_bytes();
        prop_assert_eq!(&shown(whole(size(rows), bytes)), &expected);
        prop_assert_eq!(&shown(run(filter(size(rows)), bytes.chunks(chunk), room)), &expected);
        prop_assert_eq!(&shown(run(filter(size(rows)), bytes.chunks(1), 1)), &expected);
    }

    /// Whatever comes, sequences that nothing ends and bytes that are no text included.
    #[test]
    fn any_cut_gives_the_same(
        stream in crate::text::strip::tests::stream(), moves in stream(), rows in 1u16..7, chunk in 1usize..99, room in 1usize..99,
        control: bool,
    ) {
        let stream = [&stream, moves.as_bytes(), &stream].concat();
        let c1 = if control { C1::Control } else { C1::Text };
        let new = || Filter::new(&Modes { escapes: Escapes::Screen { size: size(rows), c1 }, ..Modes::default() });
        let expected = run(new(), [&stream[..]], 1 << 20);
        prop_assert_eq!(&run(new(), stream.chunks(chunk), room), &expected);
        prop_assert_eq!(&run(new(), stream.chunks(1), 1), &expected);
    }
}

/// Recordings of real programs on a terminal of 24 rows and 100 columns, and what pyte showed of each at last.
#[test]
fn recordings_show_what_another_emulator_shows() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings");
    let mut seen = 0;
    for entry in std::fs::read_dir(directory).expect(directory) {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "raw") {
            continue;
        }
        seen += 1;
        let recording = std::fs::read(&path).expect("a recording");
        let view = std::fs::read_to_string(path.with_extension("view")).expect("its view");
        let text = whole(ScreenSize { rows: 24, columns: 100 }, &recording);
        let text = String::from_utf8(text).expect("UTF-8");
        // The other emulator does not tell a space that was written from one that was not.
        let trimmed: Vec<&str> = text.split('\n').map(|line| line.trim_end_matches(' ')).collect();
        assert_eq!(trimmed.join("\n"), view, "{}", path.display());
        assert_eq!(
            run(filter(ScreenSize { rows: 24, columns: 100 }), recording.chunks(7), 5),
            text.as_bytes()
        );
    }
    assert!(seen >= 12, "{seen} recordings");
}
