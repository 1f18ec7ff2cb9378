//! Lines from many at once: what goes into one pipe from several nproxies stays line by line.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::harness::{Engine, Launch, on_both_engines};

on_both_engines![no_line_is_torn, a_prompt_is_seen];

/// Lines of each of the four writers; NPROXY_TEST_LINES sets them.
fn lines() -> u64 {
    std::env::var("NPROXY_TEST_LINES").map_or(100_000, |lines| lines.parse().expect("a number"))
}

/// Four inputs that are read in pieces which end in the middle of lines, and never wait there: half a line is not kept for
/// long. The reader does not keep up, so that the pipe is full.
fn no_line_is_torn(engine: Engine) {
    let each = lines();
    let mut script = format!("seq {each} > numbers; {{ ");
    for writer in 0..4 {
        let _ = write!(script, "nproxy --prefix 'w{writer} ' <numbers & ");
    }
    script.push_str("wait; } | { sleep 1; cat > lines; }");
    let directory = tempfile::tempdir().expect("directory");
    let run = Launch::shell(engine, &script).directory(directory.path()).finish();
    run.expect_code(0).expect_silent();
    let text = std::fs::read_to_string(directory.path().join("lines")).expect("lines");
    let mut next: HashMap<&str, u64> = HashMap::new();
    for line in text.lines() {
        let Some((writer, number)) = line.split_once(' ') else {
            run.fail(&format!("torn: {line}"))
        };
        let expected = next.entry(writer).or_insert(1);
        run.expect(number == expected.to_string(), &format!("torn: {line:?}"));
        *expected += 1;
    }
    run.expect(next.len() == 4 && next.values().all(|next| *next == each + 1), "all lines");
}

/// What is no whole line is not kept for long.
fn a_prompt_is_seen(engine: Engine) {
    let run = Launch::nproxy(engine)
        .args(["--text=strip-ansi", "sh", "-c", "printf 'name? '; exec sleep 600"])
        .start();
    run.stdout.as_ref().expect("its output").wait_for("name? ", 1);
}
