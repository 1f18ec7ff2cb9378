//! Text modes of whole runs: what is stripped of any stream in any cut, what is put in front of lines, and when.

use std::io::Write;
use std::time::{Duration, SystemTime};

use tempfile::tempdir;

use crate::coloured::{Form, Text};
use crate::ends::{SINKS, Sink};
use crate::harness::{Engine, Launch, on_both_engines, text_bytes};
use crate::payload::Payload;
use crate::reference;

on_both_engines![
    text_to_every_sink,
    text_in_any_cut,
    bytes_that_are_no_text,
    sequence_that_never_ends,
    timestamps_are_monotonic,
    elapsed_and_delta,
    a_prefix_is_for_the_copy_that_asks_for_it,
    prompt_appears_at_once,
    line_numbers,
    lines_are_what_line_feeds_end,
    both_modes,
    one_stream_only,
    both_streams_on_one_file,
    time_of_the_first_byte,
];

/// `peer text` behind nproxy, as a command and as a filter, into every kind of sink.
fn text_to_every_sink(engine: Engine) {
    let directory = tempdir().expect("directory");
    let bytes = text_bytes();
    let plain = Text::digest(bytes, Form::Plain);
    for sink in SINKS.into_iter().filter(|sink| *sink != Sink::Null) {
        let (end, arrival) = sink.open(directory.path());
        let run = Launch::nproxy(engine)
            .words("--text=strip-ansi --stats=json peer text")
            .args([&bytes.to_string(), "random"])
            .stdout(end)
            .finish();
        run.expect_code(0);
        let arrived = arrival.digest(&run).expect("a sink that keeps");
        run.expect(arrived == plain, &format!("{sink:?} got {arrived}, expected {plain}"));
        run.expect(run.stat("stdout", "bytes") == plain.bytes, "what is delivered is counted");

        let (end, arrival) = sink.open(directory.path());
        let (source, pipe) = std::io::pipe().expect("pipe");
        let writer = Launch::peer("text").args([&bytes.to_string(), "64K"]).stdout(pipe).start();
        let run =
            Launch::nproxy(engine).arg("--text=strip-ansi").stdin(source).stdout(end).finish();
        writer.finish().expect_code(0);
        run.expect_code(0).expect_silent();
        let arrived = arrival.digest(&run).expect("a sink that keeps");
        run.expect(arrived == plain, &format!("{sink:?} got {arrived}, expected {plain}"));
    }
}

/// Single bytes, pages, megabytes, and a reader that takes odd sizes: the cut changes nothing.
fn text_in_any_cut(engine: Engine) {
    let cases = [(100 << 10, "1", "1M"), (2 << 20, "4095", "1021"), (200 << 10, "1M", "7")];
    for (bytes, block, reads) in cases {
        let script =
            format!("nproxy --text=strip-ansi peer text {bytes} {block} | peer read {reads}");
        let run = Launch::shell(engine, &script).finish();
        run.expect_code(0).expect_silent();
        run.expect_output(&format!("{}\n", Text::digest(bytes, Form::Plain)));
    }
}

/// Random bytes hold every control, broken UTF-8 and strings without an end: as the slow parser reads them.
fn bytes_that_are_no_text(engine: Engine) {
    for seed in 1..=2 {
        let mut bytes = vec![0; 400 << 10];
        Payload::new(bytes.len() as u64, seed).fill(&mut bytes);
        let expected = reference::strip(&bytes, false, false, 16 << 20);
        let script = format!("nproxy --text=strip-ansi peer write 400K random {seed}");
        let run = Launch::shell(engine, &script).finish();
        run.expect_code(0).expect_silent();
        run.expect(run.stdout.head == expected, "as the reference strips it");
    }
}

/// An OSC without an end swallows 16 MiB, as an inline image might have, and not a byte more.
fn sequence_that_never_ends(engine: Engine) {
    let script = r"nproxy --text=strip-ansi sh -c '
        printf before; printf \\033]1337\;File=; head -c 17M /dev/zero | tr \\0 x; echo after' | {
        head -c 6; tail -c 6; }";
    let run = Launch::shell(engine, script).finish();
    run.expect_code(0).expect_silent().expect_output("beforeafter\n");
    let cut_short =
        r"nproxy --text=strip-ansi printf 'text\033[31'; nproxy --text=strip-ansi printf '\033'";
    Launch::shell(engine, cut_short).finish().expect_code(0).expect_silent().expect_output("text");
}

fn timestamps_are_monotonic(engine: Engine) {
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
    let before = now();
    // Each line comes after the one before it has arrived.
    let script = "for i in $(seq 200); do echo line $i; read; done; seq 20000";
    let (source, mut answers) = std::io::pipe().expect("pipe");
    let run = Launch::nproxy(engine)
        .args(["--text=transform", "--timestamp=%s.%6f ", "bash", "-c", script])
        .stdin(source)
        .start();
    for line in 1..=200 {
        run.stdout.as_ref().expect("its output").wait_for(&format!(" line {line}\n"), 1);
        answers.write_all(b"\n").expect("an answer");
    }
    let run = run.finish();
    let after = now();
    run.expect_code(0).expect_silent();
    let text = run.stdout.text();
    let mut last = Duration::from_micros(before.as_micros() as u64);
    let mut distinct = 0;
    for line in text.lines() {
        let (stamp, _) = line.split_once(' ').unwrap_or_else(|| run.fail("a stamp"));
        let (seconds, micros) = stamp.split_once('.').unwrap_or_else(|| run.fail("a fraction"));
        let number = |digits: &str| digits.parse::<u64>().unwrap_or_else(|_| run.fail("digits"));
        let time = Duration::from_secs(number(seconds)) + Duration::from_micros(number(micros));
        run.expect(time >= last && time <= after, &format!("{line:?} is in order"));
        distinct += u32::from(time > last);
        last = time;
    }
    run.expect(text.lines().count() == 20200, "every line has arrived");
    run.expect(distinct >= 200, "lines that came apart have stamps of their own");
    // The default is a date that others can read.
    let run = Launch::nproxy(engine).words("--text=transform echo x").finish();
    let text = run.expect_code(0).stdout.text();
    let shape: String =
        text.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
    run.expect(shape == "[0000-00-00T00:00:00.000Z] x\n", "the default format");
}

/// On a busy machine a line may be read late, never early: that bounds what the stamps may be.
fn elapsed_and_delta(engine: Engine) {
    let script = "echo a; sleep 0.3; echo b; sleep 0.2; echo c";
    let stamps = |mode: &str| -> Vec<f64> {
        let run = Launch::nproxy(engine)
            .args(["--timestamp-mode", mode, "--timestamp=%s.%6f|", "sh", "-c", script])
            .finish();
        run.expect_code(0).expect_silent();
        let text = run.stdout.text();
        let stamps: Vec<f64> =
            text.lines().filter_map(|line| line.split_once('|')?.0.parse().ok()).collect();
        run.expect(stamps.len() == 3, "three stamped lines");
        let last = if mode == "delta" { stamps.iter().sum() } else { stamps[2] };
        run.expect(last <= run.elapsed.as_secs_f64(), "not more than the run took");
        stamps
    };
    let elapsed = stamps("elapsed");
    assert!(elapsed[1] >= 0.3 && elapsed[2] >= 0.5 && elapsed.is_sorted(), "{elapsed:?}");
    let delta = stamps("delta");
    assert!(
        delta.iter().sum::<f64>() >= 0.5 && delta.iter().all(|delta| *delta >= 0.0),
        "{delta:?}"
    );
}

/// A prompt has no line feed, and still has to be read before it can be answered.
fn prompt_appears_at_once(engine: Engine) {
    for flags in ["--text=transform", "--line-numbers", "--text=strip-ansi,transform"] {
        let (stdin, mut keyboard) = std::io::pipe().expect("pipe");
        let run = Launch::nproxy(engine)
            .words(flags)
            .args(["sh", "-c", r"printf '\033[1mname?\033[0m '; read name; echo hello $name"])
            .stdin(stdin)
            .start();
        run.stdout.as_ref().expect("captured").wait_for("name?", 1);
        keyboard.write_all(b"you\n").expect("answer");
        let run = run.finish();
        run.expect_code(0).expect_silent();
        let text = run.stdout.text();
        // The answer's echo is the terminal's affair, so the line goes on.
        run.expect(text.ends_with("hello you\n") && text.lines().count() == 1, "one line");
    }
}

fn line_numbers(engine: Engine) {
    let lines = text_bytes() / 16;
    let script = format!(
        "nproxy --line-numbers seq {lines} | peer read; seq {lines} | cat -n | peer read
         seq {lines} | nproxy --line-numbers | peer read"
    );
    let run = Launch::shell(engine, &script).finish();
    run.expect_code(0).expect_silent();
    let text = run.stdout.text();
    let digests: Vec<_> = text.lines().collect();
    run.expect(
        digests.len() == 3 && digests[0] == digests[1] && digests[1] == digests[2],
        "as cat -n",
    );
}

/// Carriage returns begin no line; a last line without an end stays as it is, and so does no line at all.
fn lines_are_what_line_feeds_end(engine: Engine) {
    let cases = [
        (r"10\r20\rdone\nnext\n", "     1\t10\r20\rdone\n     2\tnext\n"),
        (r"a\r\nb\r\n", "     1\ta\r\n     2\tb\r\n"),
        (r"one\ntwo", "     1\tone\n     2\ttwo"),
        (r"\n\n", "     1\t\n     2\t\n"),
        ("", ""),
    ];
    for (text, expected) in cases {
        let run = Launch::nproxy(engine).args(["--line-numbers", "printf", text]).finish();
        run.expect_code(0).expect_silent().expect_output(expected);
    }
}

/// Stripped first, then numbered: a line of nothing but colours is an empty line.
fn both_modes(engine: Engine) {
    let bytes = text_bytes() / 4;
    let script = format!(
        "nproxy --text=strip-ansi,transform --timestamp= --line-numbers peer text {bytes} random | peer read
         peer text {bytes} 64K plain | cat -n | peer read"
    );
    let run = Launch::shell(engine, &script).finish();
    run.expect_code(0).expect_silent();
    let text = run.stdout.text();
    let digests: Vec<_> = text.lines().collect();
    run.expect(digests.len() == 2 && digests[0] == digests[1], "as cat -n of the plain text");
}

/// `--text-streams`: one stream is worked on, the other passes, whether they end in one file or in two.
fn one_stream_only(engine: Engine) {
    let command = r"printf '\033[31mout\033[0m\n'; printf '\033[31merr\033[0m\n' >&2";
    let (red_out, red_err) = ("\x1b[31mout\x1b[0m\n", "\x1b[31merr\x1b[0m\n");
    for (streams, out, err) in [
        ("stdout", "out\n", red_err),
        ("stderr", red_out, "err\n"),
        ("stdout,stderr", "out\n", "err\n"),
    ] {
        let run = Launch::nproxy(engine)
            .args(["--text=strip-ansi", "--text-streams", streams, "sh", "-c", command])
            .finish();
        run.expect_code(0).expect_output(out).expect(run.stderr.text() == err, "on stderr");
        let script = format!(
            "nproxy --text=strip-ansi --text-streams={streams} sh -c \"$COMMAND\" 2>&1 | sort"
        );
        let run = Launch::shell(engine, &script).env("COMMAND", command).finish();
        let mut expected = [out, err];
        expected.sort_unstable();
        run.expect_code(0).expect_output(&expected.concat());
    }
}

/// With both streams worked on in the same way, their order in one file is that of the bare run.
fn both_streams_on_one_file(engine: Engine) {
    let script = r"
        lines() { for i in $(seq 3000); do printf '\033[32mo%d\033[0m\n' $i; printf '\033[31me%d\033[0m\n' $i >&2; done; }
        export -f lines
        nproxy --text=strip-ansi bash -c lines > both 2>&1
        for i in $(seq 3000); do echo o$i; echo e$i; done | cmp - both && wc -l < both";
    let directory = tempdir().expect("directory");
    let run = Launch::shell(engine, script).directory(directory.path()).finish();
    run.expect_code(0).expect_silent().expect_output("6000\n");
}

/// The stamp is that of a line's first byte, however much later its last one comes.
fn time_of_the_first_byte(engine: Engine) {
    let (stdin, mut keyboard) = std::io::pipe().expect("pipe");
    let run = Launch::nproxy(engine)
        .args(["--timestamp=%s.%6f ", "sh", "-c", "printf a; read x; printf 'b\\nc\\n'"])
        .stdin(stdin)
        .start();
    run.stdout.as_ref().expect("captured").wait_for(" a", 1);
    let between = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
    keyboard.write_all(b"\n").expect("line");
    let run = run.finish();
    run.expect_code(0).expect_silent();
    let text = run.stdout.text();
    let stamp = |line: &str| line.split(' ').next().and_then(|word| word.parse::<f64>().ok());
    let stamps: Vec<f64> = text.lines().filter_map(stamp).collect();
    run.expect(stamps.len() == 2, "two stamped lines");
    run.expect(
        stamps[0] <= between.as_secs_f64() && stamps[1] >= between.as_secs_f64(),
        "two times",
    );
}

/// One line that says what is wrong, 125, and nothing has been started or written.
#[test]
fn refused_before_anything_starts() {
    let cases: [(&[&str], &str); 9] = [
        (&["--text=nonsense"], "nonsense"),
        (&["--text=strip-ansi,nonsense"], "nonsense"),
        (&["--text=passthrough,strip-ansi"], "passthrough"),
        (&["--tee-text=nonsense", "--tee=log"], "nonsense"),
        (&["--text-streams=stdin"], "stdin"),
        (&["--text=transform", "--timestamp=%!"], "%!"),
        (&["--text=transform", "--timestamp=%"], "timestamp"),
        (&["--timestamp=%!"], "%!"),
        (&["--text=transform", "--timestamp-mode=moon"], "moon"),
    ];
    for (flags, named) in cases {
        let directory = tempdir().expect("directory");
        let launch = || Launch::program(crate::harness::nproxy_path()).directory(directory.path());
        let run = launch().args(flags).words("touch started").finish();
        run.expect_code(125).expect_output("").expect_one_line(&[named]);
        let filter = launch().args(flags).finish();
        filter.expect_code(125).expect_output("").expect_one_line(&[named]);
        let left: Vec<_> = directory.path().read_dir().expect("list").collect();
        assert!(left.is_empty(), "{flags:?} left {left:?}");
    }
}

/// However a copy is told to have prefixes: what they are made of is for that copy, and the output stays as it is. Without
/// such a copy the output has them.
fn a_prefix_is_for_the_copy_that_asks_for_it(engine: Engine) {
    let run = |flags: &str| {
        let directory = tempdir().expect("directory");
        let run = Launch::nproxy(engine)
            .words(flags)
            .words("--timestamp=T --prefix=P --line-numbers -- echo hi")
            .directory(directory.path())
            .finish();
        run.expect_code(0).expect_silent();
        let copy = std::fs::read_to_string(directory.path().join("log")).expect("a copy");
        (run.stdout.text(), copy)
    };
    let (plain, stamped) = ("hi\n".to_owned(), "TP     1\thi\n".to_owned());
    for flags in ["--tee log --tee-text=transform", "--tee log,text=transform"] {
        assert_eq!(run(flags), (plain.clone(), stamped.clone()), "{flags}");
    }
    for flags in ["--tee log", "--tee log --tee-text=strip-ansi", "--tee log,text=strip-ansi"] {
        assert_eq!(run(flags), (stamped.clone(), plain.clone()), "{flags}");
    }
    let both = "--text=transform --tee log,text=transform";
    assert_eq!(run(both), (stamped.clone(), stamped.clone()));
}
