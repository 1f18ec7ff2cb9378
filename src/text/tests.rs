//! The modes together: that they are one after the other whatever the buffers, and where they may change.

use proptest::prelude::*;

use super::*;
use crate::text::transform::{LineNumbers, StampMode, Zone};

fn modes(strip: bool, transform: bool) -> Modes {
    Modes {
        newlines: Newlines::AsTheyAre,
        escapes: match strip {
            true => Escapes::Strip { cursor: CursorVisibility::Kept, c1: C1::Control },
            false => Escapes::Pass,
        },
        transform: transform.then(|| {
            Prefix::new(StampMode::Elapsed, Some("%S> "), Zone::default(), LineNumbers::On).unwrap()
        }),
    }
}

fn from_terminal(strip: bool, transform: bool) -> Modes {
    Modes { newlines: Newlines::OfATerminal, ..modes(strip, transform) }
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
fn newlines_come_first() {
    let text = |strip, transform, stream: &[u8]| {
        let mut filter = Filter::new(&from_terminal(strip, transform));
        run(&mut filter, stream, usize::MAX, 99).escape_ascii().to_string()
    };
    assert_eq!(text(false, false, b"a\r\nb\rc\r\n"), r"a\nb\rc\n");
    // With a sequence between the two, the CR is not the one that the terminal put there.
    assert_eq!(text(true, false, b"a\r\x1b[m\nb\x1b[m\r\n"), r"a\r\nb\n");
    assert_eq!(text(false, true, b"a\r\n\r\n"), r"00>      1\ta\n00>      2\t\n");
    // No line has begun with a CR that may yet belong to a newline.
    assert_eq!(text(true, true, b"a\r\n\r"), r"00>      1\ta\n");
}

#[test]
fn a_held_carriage_return_is_not_neutral() {
    let mut filter = Filter::new(&from_terminal(true, false));
    let mut after = |bytes: &[u8]| {
        run(&mut filter, bytes, 99, 99);
        filter.is_neutral()
    };
    assert!(!after(b"a\r"));
    assert!(after(b"\n"));
    assert!(!after(b"\r"));
    filter.rejoin();
    assert_eq!(run(&mut filter, b"b", 99, 99), b"b");
    assert!(filter.is_neutral());
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

/// Streams with the newlines of a terminal among them.
fn terminal_stream() -> impl Strategy<Value = Vec<u8>> {
    let newline = prop::sample::select(vec!["\r\n", "\r", "\r\r\n", ""]);
    let part = (strip::tests::stream(), newline);
    prop::collection::vec(part, 0..4).prop_map(|parts| {
        let parts = parts.into_iter().map(|(text, newline)| [&text, newline.as_bytes()].concat());
        parts.collect::<Vec<_>>().concat()
    })
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

    /// A terminal's CRs go before the other modes see anything.
    #[test]
    fn newlines_are_one_before_the_others(
        stream in terminal_stream(), strip: bool, transform: bool, chunk in 1usize..200, room in 1usize..200,
    ) {
        let expected = whole(strip, transform, &newline::tests::reference(&stream));
        let new = || Filter::new(&from_terminal(strip, transform));
        prop_assert_eq!(&run(&mut new(), &stream, usize::MAX, 1 << 20), &expected);
        prop_assert_eq!(&run(&mut new(), &stream, chunk, room), &expected);
        let short = &stream[..stream.len().min(60)];
        let expected = whole(strip, transform, &newline::tests::reference(short));
        for cut in 0..=short.len() {
            let (a, b) = short.split_at(cut);
            let mut filter = new();
            let text = [run(&mut filter, a, usize::MAX, 7), run(&mut filter, b, usize::MAX, room)].concat();
            prop_assert_eq!(&text, &expected, "cut at {}", cut);
        }
    }

    /// A stream whose filter is dropped at a neutral place goes on as it is.
    #[test]
    fn settling_loses_nothing(
        stream in terminal_stream(), terminal: bool, strip: bool, transform: bool,
        at in 0usize..100, room in 1usize..99,
    ) {
        let (before, after) = stream.split_at(at.min(stream.len()));
        let newlines = if terminal { Newlines::OfATerminal } else { Newlines::AsTheyAre };
        let mut filter = Filter::new(&Modes { newlines, ..modes(strip, transform) });
        let mut text = run(&mut filter, before, 64, 64);
        let mut settled = 0;
        let mut output = vec![0; room];
        while settled < after.len() && !filter.is_neutral() {
            let done = filter.settle(&after[settled..], &mut output, Arrival::default());
            prop_assert!(done != Progress::default());
            text.extend_from_slice(&output[..done.produced]);
            settled += done.consumed;
        }
        let mut seen = stream[..before.len() + settled].to_vec();
        if terminal {
            let last = seen.last().copied();
            seen = newline::tests::reference(&seen);
            // The byte behind it is there, and did not fit.
            if last == Some(b'\r') && filter.is_neutral() {
                seen.push(b'\r');
            }
        }
        prop_assert_eq!(text, whole(strip, transform, &seen));
    }
}
