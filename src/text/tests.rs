//! The modes together: that they are one after the other whatever the buffers, and where they may change.

use proptest::prelude::*;

use super::*;
use crate::text::transform::{LineNumbers, StampMode, Zone};

fn modes(strip: bool, transform: bool) -> Modes {
    Modes {
        escapes: match strip {
            true => Escapes::Strip { cursor: CursorVisibility::Kept, c1: C1::Control },
            false => Escapes::Pass,
        },
        transform: transform.then(|| {
            Prefix::new(StampMode::Elapsed, Some("%S> "), Zone::default(), LineNumbers::On).unwrap()
        }),
    }
}

/// Filters `stream` in chunks, through outputs of `room` bytes at most.
fn run(filter: &mut Filter, stream: &[u8], chunk: usize, room: usize) -> Vec<u8> {
    let mut text = Vec::new();
    let mut output = vec![0xEE; room];
    for chunk in stream.chunks(chunk) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let done = filter.filter(rest, &mut output, Arrival::default());
            assert!(done != Progress::default());
            text.extend_from_slice(&output[..done.produced]);
            rest = &rest[done.consumed..];
        }
    }
    text
}

fn whole(strip: bool, transform: bool, stream: &[u8]) -> Vec<u8> {
    run(&mut Filter::new(&modes(strip, transform)), stream, usize::MAX, 1 << 20)
}

#[test]
fn no_mode_changes_nothing() {
    assert_eq!(whole(false, false, b"\x1b[1ma\n"), b"\x1b[1ma\n");
}

#[test]
fn what_is_removed_starts_no_line() {
    let text = whole(true, true, b"\x1b[1mone\x1b[m\n\x1b[2m\ntwo\n\x1b[m\x1bPt\n\x1b\\");
    assert_eq!(
        text.escape_ascii().to_string(),
        r"00>      1\tone\n00>      2\t\n00>      3\ttwo\n"
    );
}

#[test]
fn neutral_needs_both() {
    let mut filter = Filter::new(&modes(true, true));
    let mut after = |bytes: &[u8]| {
        run(&mut filter, bytes, 99, 99);
        filter.is_neutral()
    };
    assert!(after(b""));
    assert!(!after(b"a"));
    assert!(after(b"\n"));
    assert!(!after(b"\x1b["));
    assert!(after(b"m"));
}

#[test]
fn settling_stops_at_the_first_neutral_place() {
    let settle = |strip, transform, before: &[u8], stream: &[u8]| {
        let mut filter = Filter::new(&modes(strip, transform));
        run(&mut filter, before, 99, 99);
        let done = filter.settle(stream, &mut [0; 99], Arrival::default());
        (done.consumed, filter.is_neutral())
    };
    assert_eq!(settle(true, false, b"a", b"b\x1b[mc"), (0, true));
    assert_eq!(settle(true, false, b"a\x1b[3", b"1mb\x1b[mc"), (2, true));
    assert_eq!(settle(false, true, b"a", b"b\nc\n"), (2, true));
    assert_eq!(settle(false, true, b"a", b"bc"), (2, false));
    assert_eq!(settle(true, true, b"a", b"\x1bP0\n\x1b\\b\nc\n"), (8, true));
}

/// What the stream has left while nobody looked is not waited for.
#[test]
fn a_screen_that_joins_again_shows_what_comes() {
    let escapes = Escapes::Screen { size: ScreenSize::default(), c1: C1::default() };
    let mut filter = Filter::new(&Modes { escapes, transform: None });
    run(&mut filter, b"\x1b[?1049h\x1b(0", 99, 99);
    filter.rejoin();
    let mut text = run(&mut filter, b"\nlaq\n", 99, 99);
    let mut rest = [0; 99];
    let done = filter.finish(&mut rest, Arrival::default());
    text.extend_from_slice(&rest[..done.produced]);
    assert_eq!(String::from_utf8_lossy(&text), "\nlaq\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn both_are_one_after_the_other(
        stream in strip::tests::stream(), chunk in 1usize..200, room in 1usize..200,
    ) {
        let expected = whole(false, true, &whole(true, false, &stream));
        prop_assert_eq!(&whole(true, true, &stream), &expected);
        prop_assert_eq!(&run(&mut Filter::new(&modes(true, true)), &stream, chunk, room), &expected);
    }

    /// A stream whose filter is dropped at a neutral place goes on as it is.
    #[test]
    fn settling_loses_nothing(
        stream in strip::tests::stream(), strip: bool, transform: bool,
        at in 0usize..100, room in 1usize..99,
    ) {
        let (before, after) = stream.split_at(at.min(stream.len()));
        let mut filter = Filter::new(&modes(strip, transform));
        let mut text = run(&mut filter, before, 64, 64);
        let mut settled = 0;
        let mut output = vec![0; room];
        while settled < after.len() && !filter.is_neutral() {
            let done = filter.settle(&after[settled..], &mut output, Arrival::default());
            prop_assert!(done != Progress::default());
            text.extend_from_slice(&output[..done.produced]);
            settled += done.consumed;
        }
        let seen = &stream[..before.len() + settled];
        prop_assert_eq!(text, whole(strip, transform, seen));
    }
}
