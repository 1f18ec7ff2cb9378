//! Each rule of the module's head, then all of them at once against a prefixer that knows the whole stream.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn at(milliseconds: u64) -> Arrival {
    Arrival {
        wall: Duration::from_secs(1_700_000_000) + Duration::from_millis(milliseconds),
        elapsed: Duration::from_millis(milliseconds),
    }
}

fn transform(mode: StampMode, format: &str, numbers: LineNumbers) -> Transform {
    Transform::new(&Prefix::new(mode, Some(format), Zone::default(), numbers).unwrap())
}

/// Filters chunks, each with its time in milliseconds, through outputs of `room` bytes at most.
fn run(mut transform: Transform, chunks: &[(u64, &[u8])], room: usize) -> String {
    let mut text = Vec::new();
    let mut output = vec![0xEE; room];
    for &(time, chunk) in chunks {
        let mut rest = chunk;
        while !rest.is_empty() {
            let done = transform.filter(rest, &mut output, at(time));
            assert!(done != Progress::default(), "no progress at {rest:?}");
            text.extend_from_slice(&output[..done.produced]);
            rest = &rest[done.consumed..];
        }
    }
    text.escape_ascii().to_string().replace("\\n", "\n").replace("\\t", "\t")
}

#[test]
fn the_default_is_utc_with_milliseconds() {
    let prefix = Prefix::new(StampMode::Wall, None, Zone::default(), LineNumbers::Off).unwrap();
    let text = run(Transform::new(&prefix), &[(7, b"a\nb\n"), (1008, b"c")], 99);
    assert_eq!(
        text,
        "[2023-11-14T22:13:20.007Z] a\n[2023-11-14T22:13:20.007Z] b\n[2023-11-14T22:13:21.008Z] c"
    );
}

#[test]
fn elapsed_counts_from_the_start_and_delta_from_the_line_before() {
    let chunks: &[(u64, &[u8])] = &[(250, b"a\nb\n"), (1500, b"c\n"), (90_000, b"d\n")];
    let elapsed = Prefix::new(StampMode::Elapsed, None, Zone::default(), LineNumbers::Off).unwrap();
    assert_eq!(
        run(Transform::new(&elapsed), chunks, 99),
        "[00:00:00.250] a\n[00:00:00.250] b\n[00:00:01.500] c\n[00:01:30.000] d\n"
    );
    let delta = Prefix::new(StampMode::Delta, None, Zone::default(), LineNumbers::Off).unwrap();
    assert_eq!(
        run(Transform::new(&delta), chunks, 99),
        "[00:00:00.250] a\n[00:00:00.000] b\n[00:00:01.250] c\n[00:01:28.500] d\n"
    );
}

#[test]
fn a_line_has_the_time_of_its_first_byte() {
    let wall = transform(StampMode::Wall, "%S.%3f|", LineNumbers::Off);
    let chunks: &[(u64, &[u8])] =
        &[(1, b"na"), (5, b"me? "), (9, b"x\n"), (12, b"y"), (13, b"\nz\n")];
    assert_eq!(run(wall, chunks, 99), "20.001|name? x\n20.012|y\n20.013|z\n");
}

#[test]
fn a_prompt_goes_out_at_once() {
    let mut wall = transform(StampMode::Wall, "> ", LineNumbers::Off);
    let mut output = [0; 64];
    let done = wall.filter(b"name? ", &mut output, at(0));
    assert_eq!((done.consumed, &output[..done.produced]), (6, &b"> name? "[..]));
}

#[test]
fn an_empty_line_has_a_prefix_and_the_end_of_the_stream_has_none() {
    let wall = transform(StampMode::Wall, "> ", LineNumbers::Off);
    assert_eq!(run(wall.clone(), &[(0, b"\n\na\n")], 99), "> \n> \n> a\n");
    assert_eq!(run(wall, &[], 99), "");
}

#[test]
fn carriage_return_starts_no_line() {
    let wall = transform(StampMode::Wall, "> ", LineNumbers::Off);
    assert_eq!(
        run(wall, &[(0, b"10%\r20%\r"), (1, b"30%\r\ndone\r\n")], 99),
        "> 10%\\r20%\\r30%\\r\n> done\\r\n"
    );
}

#[test]
fn numbers_follow_the_stamp_or_stand_alone() {
    let both = transform(StampMode::Wall, "%S ", LineNumbers::On);
    assert_eq!(
        run(both, &[(0, b"a\nb\n"), (1000, b"c\n")], 99),
        "20      1\ta\n20      2\tb\n21      3\tc\n"
    );
    let alone = transform(StampMode::Wall, "", LineNumbers::On);
    assert_eq!(run(alone, &[(0, b"a\nb")], 99), "     1\ta\n     2\tb");
}

#[test]
fn microseconds_and_seconds_are_told_apart() {
    let show = |format: &str, arrivals: &[Duration]| {
        let mut wall = transform(StampMode::Wall, format, LineNumbers::Off);
        let mut output = [0; 64];
        let mut text = String::new();
        for &wall_time in arrivals {
            let arrival = Arrival { wall: wall_time, elapsed: Duration::ZERO };
            let done = wall.filter(b"\n", &mut output, arrival);
            text += std::str::from_utf8(&output[..done.produced]).unwrap();
        }
        text
    };
    let times = [0, 1, 999, 1000, 1001, 1_000_000].map(|us| Duration::from_micros(5_000_000 + us));
    assert_eq!(
        show("%S.%6f", &times),
        "05.000000\n05.000001\n05.000999\n05.001000\n05.001001\n06.000000\n"
    );
    assert_eq!(show("%S.%3f", &times), "05.000\n05.000\n05.000\n05.001\n05.001\n06.000\n");
    assert_eq!(show("%S", &times), "05\n05\n05\n05\n05\n06\n");
    // A clock that was set back shows so.
    assert_eq!(show("%S", &[times[5], times[0]]), "06\n05\n");
    // Out of the calendar.
    assert_eq!(show("%S", &[times[0], Duration::MAX]), "05\n05\n");
}

#[test]
fn days_come_in_front_of_the_hour() {
    let hour = 3_600_000;
    let times: &[(u64, &[u8])] =
        &[(hour, b"a\n"), (24 * hour, b"b\n"), (50 * hour + 61_002, b"c\n")];
    let show = |mode, format: Option<&str>| {
        let prefix = Prefix::new(mode, format, Zone::default(), LineNumbers::Off).unwrap();
        run(Transform::new(&prefix), times, 99)
    };
    assert_eq!(
        show(StampMode::Elapsed, None),
        "[01:00:00.000] a\n[1d 00:00:00.000] b\n[2d 02:01:01.002] c\n"
    );
    assert_eq!(show(StampMode::Delta, Some("%T ")), "01:00:00 a\n23:00:00 b\n1d 02:01:01 c\n");
    assert_eq!(
        show(StampMode::Elapsed, Some("%%H %M:%H|")),
        "%H 00:01|a\n%H 00:1d 00|b\n%H 01:2d 02|c\n"
    );
    assert_eq!(show(StampMode::Elapsed, Some("%s ")), "3600 a\n86400 b\n180061 c\n");
    assert_eq!(show(StampMode::Wall, Some("%H ")), "23 a\n22 b\n00 c\n");
}

#[test]
fn conversions_as_in_the_c_locale_and_as_ts_has_them() {
    let show = |format: &str| {
        let prefix = Prefix::new(StampMode::Wall, Some(format), Zone::default(), LineNumbers::Off);
        run(Transform::new(&prefix.unwrap()), &[(7, b"a")], 99)
    };
    assert_eq!(show("%c|"), "Tue Nov 14 22:13:20 2023|a");
    assert_eq!(show("%x %X %r|"), "11/14/23 22:13:20 10:13:20 PM|a");
    assert_eq!(show("%.S %.s %.T|"), "20.007000 1700000000.007000 22:13:20.007000|a");
    assert_eq!(show("%%.S %b %d|"), "%.S Nov 14|a");
}

#[test]
fn the_local_zone_says_so() {
    let zone = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    let prefix = Prefix::new(StampMode::Wall, None, zone.clone().into(), LineNumbers::Off).unwrap();
    let summer = 210 * 86_400_000;
    assert_eq!(
        run(Transform::new(&prefix), &[(7, b"a\n"), (summer, b"b\n")], 99),
        "[2023-11-14T23:13:20.007+01:00] a\n[2024-06-12T00:13:20.000+02:00] b\n"
    );
    // Elapsed times are in none.
    let elapsed = Prefix::new(StampMode::Elapsed, None, zone.into(), LineNumbers::Off).unwrap();
    assert_eq!(run(Transform::new(&elapsed), &[(7, b"a\n")], 99), "[00:00:00.007] a\n");
}

#[test]
fn a_label_follows_the_stamp() {
    let label = Label::parse("{command}[{pid}] {stream}: ").unwrap();
    let mut prefix = Prefix::new(StampMode::Wall, Some("%S "), Zone::default(), LineNumbers::On)
        .unwrap()
        .with_label(label);
    prefix.set_origin("example", "make");
    prefix.set_stream("stderr");
    let mut transform = Transform::new(&prefix);
    transform.set_pid(7);
    assert_eq!(
        run(transform, &[(7, b"a\nb\n"), (1008, b"c")], 5),
        "20 make[7] stderr:      1\ta\n20 make[7] stderr:      2\tb\n21 make[7] stderr:      3\tc"
    );
}

#[test]
fn a_bad_format_is_refused_in_one_line() {
    for format in ["%!", "%", "%3", "abc %", "%3f %é"] {
        let error = Prefix::new(StampMode::Wall, Some(format), Zone::default(), LineNumbers::Off)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("timestamp format ") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn rejoining_waits_for_the_next_line() {
    let mut wall = transform(StampMode::Wall, "> ", LineNumbers::Off);
    wall.rejoin();
    assert!(!wall.is_neutral());
    assert_eq!(run(wall, &[(0, b"rest\nline\n")], 99), "rest\n> line\n");
}

/// The prefixer that may hold the whole stream: each byte with its time.
fn naive(chunks: &[(u64, &[u8])], mode: StampMode, numbers: LineNumbers) -> String {
    let bytes: Vec<(u64, u8)> = chunks
        .iter()
        .flat_map(|&(time, chunk)| chunk.iter().map(move |&byte| (time, byte)))
        .collect();
    let mut text = String::new();
    let mut before = 0;
    for (line, bytes) in bytes.split_inclusive(|&(_, byte)| byte == b'\n').enumerate() {
        let first = bytes[0].0;
        let shown = match mode {
            StampMode::Wall => 1_700_000_000_000 + first,
            StampMode::Elapsed => first,
            StampMode::Delta => first - before,
        };
        before = first;
        text += &format!("{}.{:03} ", shown / 1000, shown % 1000);
        if numbers == LineNumbers::On {
            text += &format!("{:6}\t", line + 1);
        }
        text.extend(bytes.iter().map(|&(_, byte)| char::from(byte)));
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_cut_gives_what_the_naive_prefixer_gives(
        chunks in prop::collection::vec((0u64..2000, "[ab\r\n ]{0,24}"), 0..8),
        mode in prop::sample::select(vec![StampMode::Wall, StampMode::Elapsed, StampMode::Delta]),
        numbered: bool,
        room in 1usize..60,
    ) {
        let numbers = if numbered { LineNumbers::On } else { LineNumbers::Off };
        let mut time = 0;
        let chunks: Vec<(u64, &[u8])> = chunks.iter().map(|(wait, chunk)| {
            time += wait;
            (time, chunk.as_bytes())
        }).collect();
        let expected = naive(&chunks, mode, numbers).replace('\r', "\\r");
        let new = || transform(mode, "%s.%3f ", numbers);
        prop_assert_eq!(&run(new(), &chunks, 4096), &expected);
        prop_assert_eq!(&run(new(), &chunks, room), &expected);
        for cut in 1..24 {
            let finer: Vec<(u64, &[u8])> =
                chunks.iter().flat_map(|&(time, chunk)| chunk.chunks(cut).map(move |part| (time, part))).collect();
            prop_assert_eq!(&run(new(), &finer, room), &expected);
        }
    }
}
