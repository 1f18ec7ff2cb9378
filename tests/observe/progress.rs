//! The live line: where it is shown, where it is not, and what it says.

use std::fs::File;

use crate::harness::{Engine, Launch, need, on_both_engines, payload_bytes};

on_both_engines!(
    nothing_is_shown_in_a_pipe_unless_forced,
    a_known_size_gives_a_percentage,
    what_is_read_counts,
    lines_a_name_and_an_interval,
    a_terminal_gets_one_line,
    a_terminal_that_the_command_writes_to_is_left_alone,
);

fn nothing_is_shown_in_a_pipe_unless_forced(engine: Engine) {
    for when in ["--progress", "--progress=auto", "--progress=never"] {
        let run = Launch::nproxy(engine).arg(when).args(["sh", "-c", "sleep 0.5; echo x"]).finish();
        run.expect_code(0).expect_output("x\n").expect_silent();
    }
    let run = Launch::nproxy(engine)
        .words("--progress=always --size=10 sh -c")
        .arg("echo 1234; sleep 1.5; echo 6789")
        .finish();
    run.expect_code(0).expect_output("1234\n6789\n");
    let text = run.stderr.text();
    let lines: Vec<&str> = text.lines().collect();
    let seconds = run.elapsed.as_secs() as usize;
    assert!((2..=1 + seconds).contains(&lines.len()), "one each second, and the last: {text:?}");
    let (last, before) = lines.split_last().expect("lines");
    assert!(before.iter().any(|line| line.contains("50 %")) && last.contains("100 %"), "{text:?}");
    assert!(!text.contains(['\r', '\x1b']), "{text:?}");
}

fn a_known_size_gives_a_percentage(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("input");
    let file = File::create(&path).unwrap();
    file.set_len(payload_bytes()).unwrap();
    let run =
        Launch::nproxy(engine).arg("--progress=always").stdin(File::open(&path).unwrap()).finish();
    run.expect_code(0);
    assert_eq!(run.stdout.digest.bytes, payload_bytes());
    assert!(run.stderr.text().contains("100 %"), "{}", run.stderr.text());
}

/// Whatever the text modes make of it, the end of the input is 100 %.
fn what_is_read_counts(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("input");
    std::fs::write(&path, "\x1b[1;31mred\x1b[0m\n".repeat(1000)).unwrap();
    for modes in ["strip-ansi", "transform"] {
        let run = Launch::nproxy(engine)
            .args(["--progress=always", "--text", modes])
            .stdin(File::open(&path).unwrap())
            .finish();
        let text = run.expect_code(0).stderr.text();
        assert!(text.trim_end().ends_with("100 %") && !text.contains("beyond"), "{modes}: {text}");
    }
}

/// As pv's -l, -N and -i; bytes pass as they are.
fn lines_a_name_and_an_interval(engine: Engine) {
    for copies in [&[][..], &["--tee=/dev/null"]] {
        let run = Launch::nproxy(engine)
            .words("--progress=always --progress-lines --progress-name=log --progress-interval=100ms --size=1000")
            .args(copies)
            .args(["sh", "-c", "seq 500; sleep 1; seq 501 1000"])
            .finish();
        let expected: String = (1..=1000).map(|number| format!("{number}\n")).collect();
        run.expect_code(0).expect_output(&expected);
        let text = run.stderr.text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() >= 4, "one each 100 ms: {text:?}");
        assert!(lines.iter().all(|line| line.starts_with("log: ")), "{text:?}");
        let half = |line: &&str| line.contains("500 lines") && line.contains(" 50 %");
        assert!(lines.iter().any(half), "{text:?}");
        assert!(lines.last().unwrap().contains("1000 lines"), "{text:?}");
        assert!(lines.last().unwrap().ends_with("100 %"), "{text:?}");
    }
}

/// Runs a shell line with stderr on a terminal made by script(1), and returns what that showed.
fn on_terminal(engine: Engine, line: &str) -> Option<String> {
    if !need(&["script", "--version"]) {
        return None;
    }
    let run = Launch::program("script")
        .args(["-qec", line, "/dev/null"])
        .env("NPROXY_ENGINE", engine.name())
        .in_our_group()
        .finish();
    run.expect_code(0);
    Some(run.stdout.text())
}

fn a_terminal_gets_one_line(engine: Engine) {
    let line =
        "(printf 12345; sleep 1; printf 67890) | nproxy --progress --size 10 | cat >/dev/null";
    let Some(shown) = on_terminal(engine, line) else { return };
    let frames: Vec<&str> = shown.split('\r').filter(|frame| frame.contains("/s")).collect();
    assert!((3..=20).contains(&frames.len()), "a few each second: {shown:?}");
    assert!(frames.iter().any(|frame| frame.contains("50 %")), "{shown:?}");
    assert!(frames.last().unwrap().contains("100 %"), "{shown:?}");
    assert_eq!(shown.matches('\n').count(), 1, "{shown:?}");
    // Each frame is written over the last, and only what is left of that is erased.
    assert!(frames.iter().all(|frame| frame.contains("\x1b[K")), "{shown:?}");
    assert!(!shown.contains("\x1b[2J") && !shown.contains("\x1b[2K"), "{shown:?}");
}

fn a_terminal_that_the_command_writes_to_is_left_alone(engine: Engine) {
    let Some(shown) = on_terminal(engine, "nproxy --progress sh -c 'echo a; sleep 0.5; echo b'")
    else {
        return;
    };
    // script(1) passes the end of its own stdin on as a key, which the terminal echoes.
    let shown = shown.replace('\r', "").replace("^@", "");
    let said = "nproxy: --progress shows nothing: the streams go to this terminal too (--progress=always shows it all the same)\n";
    assert_eq!(shown.replacen(said, "", 1), "a\nb\n");
    assert!(shown.contains(said), "and it is said");
    // A habit says nothing.
    let habit = on_terminal(engine, "NPROXY_PROGRESS=auto nproxy echo a").expect("script");
    assert_eq!(habit.replace('\r', "").replace("^@", ""), "a\n");
}
