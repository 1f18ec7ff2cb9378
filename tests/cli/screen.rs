//! Lines as the screen showed them at last, and where lines say they come from: of whole runs.

use std::fs::{self, File};
use std::path::PathBuf;

use tempfile::tempdir;

use crate::harness::{Engine, Launch, on_both_engines};

on_both_engines![
    recordings,
    progress_leaves_its_end,
    copies_are_clean_whatever_the_terminal_gets,
    the_screen_is_as_high_as_the_terminal,
    a_terminal_is_its_own_screen,
    a_stream_that_is_left_shows_all,
    nothing_is_said_to_be_delivered_that_is_held,
    much_more_than_a_buffer,
    text_of_other_encodings,
    labels_name_the_stream,
    labels_name_process_and_program,
    local_times,
];

fn recorded() -> Vec<PathBuf> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings");
    let entries = fs::read_dir(directory).expect(directory);
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "raw"));
    assert!(paths.len() >= 12, "{} recordings", paths.len());
    paths
}

fn without_trailing_spaces(text: &str) -> String {
    text.split('\n').map(|line| line.trim_end_matches(' ')).collect::<Vec<_>>().join("\n")
}

/// What real programs wrote, through a filter, a command and a copy: what another emulator showed of it.
fn recordings(engine: Engine) {
    let directory = tempdir().expect("directory");
    let log = directory.path().join("log");
    for path in recorded() {
        let view = fs::read_to_string(path.with_extension("view")).expect("a view");
        let raw = fs::read(&path).expect("a recording");
        let input = File::open(&path).expect("a recording");
        let run = Launch::nproxy(engine).arg("--text=screen").stdin(input).finish();
        run.expect_code(0).expect_silent();
        let shown = without_trailing_spaces(&run.stdout.text());
        run.expect(shown == view, &format!("{} as a filter", path.display()));

        let run = Launch::nproxy(engine)
            .arg("--tee-text=screen")
            .args([std::ffi::OsStr::new("--tee"), log.as_os_str()])
            .arg("cat")
            .arg(&path)
            .finish();
        run.expect_code(0).expect_silent();
        run.expect(run.stdout.head == raw, "what is delivered is untouched");
        let shown = without_trailing_spaces(&fs::read_to_string(&log).expect("a log"));
        run.expect(shown == view, &format!("a copy of {}", path.display()));
    }
}

fn progress_leaves_its_end(engine: Engine) {
    let cases = [
        (r"10 %%\r20 %%\r100 %%\ndone", "100 %\ndone"),
        (r"a: 0\nb: 0\n\033[2A\r\033[2Ka: 9\033[B\r\033[2Kb: 9\033[B\r", "a: 9\nb: 9\n"),
        (r"kept\nBuilding 1/2\r\033[K", "kept\n"),
        (r"left in a \033[3", "left in a "),
        (r"", ""),
    ];
    for (output, expected) in cases {
        for pty in ["never", "always"] {
            let run = Launch::nproxy(engine)
                .args(["--text=screen", "--pty", pty, "sh", "-c", &format!("printf '{output}'")])
                .finish();
            run.expect_code(0).expect_silent().expect_output(expected);
        }
    }
    // A prefix is for the lines that are left, and a status is the command's.
    let run = Launch::nproxy(engine)
        .args([
            "--text=screen,transform",
            "--timestamp=> ",
            "sh",
            "-c",
            r"printf '1\r2\r3\nend'; exit 3",
        ])
        .finish();
    run.expect_code(3).expect_silent().expect_output("> 3\n> end");
}

fn copies_are_clean_whatever_the_terminal_gets(engine: Engine) {
    let directory = tempdir().expect("directory");
    let log = directory.path().join("log");
    let script = r"printf '\033[1m10 %%\r\033[K100 %%\033[0m\nok\n'";
    for both in ["stdout", "stdout,stderr"] {
        let run = Launch::nproxy(engine)
            .args(["--pty=always", "--tee-text=screen", "--tee-streams", both, "--tee"])
            .arg(&log)
            .args(["sh", "-c", script])
            .finish();
        run.expect_code(0).expect_output("\x1b[1m10 %\r\x1b[K100 %\x1b[0m\nok\n");
        assert_eq!(fs::read_to_string(&log).expect("a log"), "100 %\nok\n");
    }
}

/// Beyond what a program can reach it redraws nothing: `ESC [ 99 A` ends at the top.
fn the_screen_is_as_high_as_the_terminal(engine: Engine) {
    let lines: String = (1..=30).map(|line| format!("{line}\n")).collect();
    let script = r"seq 30; printf '\033[99A\033[Jtop\n'";
    let run =
        Launch::nproxy(engine).args(["--text=screen", "--pty=never", "sh", "-c", script]).finish();
    // 24 rows, and the cursor is below the last line.
    let kept: String = lines.lines().take(7).map(|line| format!("{line}\n")).collect();
    run.expect_code(0).expect_silent().expect_output(&(kept + "top\n"));
}

fn a_terminal_is_its_own_screen(engine: Engine) {
    // The outer one is the inner one's terminal.
    let inner = r"nproxy --text=screen -- printf '1 %%\r2 %%\nname? '";
    let run = Launch::shell(engine, &format!("nproxy --pty=always -- {inner}")).finish();
    run.expect_code(0).expect_output("1 %\r2 %\nname? ");
}

/// Somebody else holds the pipe for longer than it is waited for.
fn a_stream_that_is_left_shows_all(engine: Engine) {
    let script = r"printf '1\r2\nheld'; sleep 5 &";
    let run = Launch::nproxy(engine)
        .args(["-q", "--text=screen", "--linger=100ms", "sh", "-c", script])
        .finish();
    run.expect_code(0).expect_silent().expect_output("2\nheld");
}

/// The reader is gone before the lines that are held have been written.
fn nothing_is_said_to_be_delivered_that_is_held(engine: Engine) {
    let script = "(seq 30; until [ -e gone ]; do sleep 0.01; done) | nproxy --text=screen | \
        { head -n 1; exec <&-; touch gone; }; echo ${PIPESTATUS[1]}";
    let directory = tempfile::tempdir().expect("a directory");
    let run = Launch::shell(engine, script).directory(directory.path()).finish();
    run.expect_code(0).expect_output("1\n141\n");
}

fn much_more_than_a_buffer(engine: Engine) {
    let script = "seq 300000 | sed 's/$/ %\\r/' | tr -d '\\n' | nproxy --text=screen; echo; \
        seq 300000 | nproxy --text=screen | cmp - <(seq 300000) && echo same";
    let run = Launch::shell(engine, script).finish();
    run.expect_code(0).expect_silent().expect_output("300000 %\nsame\n");
}

fn text_of_other_encodings(engine: Engine) {
    let latin = br"Chyba: \236\341dn\375 soubor, ERROR 42\n";
    let bytes = b"Chyba: \x9e\xe1dn\xfd soubor, ERROR 42\n";
    let format = String::from_utf8(latin.to_vec()).expect("octal");
    for modes in ["strip-ansi", "screen"] {
        let text = format!("--text={modes}");
        let run = Launch::nproxy(engine).args([&text, "printf", &format]).finish();
        run.expect_code(0).expect_silent();
        run.expect(run.stdout.head == bytes, "every letter is there");
        let run = Launch::nproxy(engine)
            .args([&text, "--c1=control", "printf", r"a\23331mb\235title\nc\n"])
            .finish();
        run.expect_code(0).expect_silent().expect_output("ab\nc\n");
    }
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

fn labels_name_the_stream(engine: Engine) {
    let script =
        r#"nproxy --prefix "{stream}: " -- sh -c "echo one; echo two >&2; echo three" 2>&1"#;
    let run = Launch::shell(engine, script).finish();
    run.expect_code(0);
    assert_eq!(sorted(&run.stdout.text()), ["stderr: two", "stdout: one", "stdout: three"]);
    // With a terminal each.
    let script = script.replace("--prefix", "--pty=always --prefix");
    let run = Launch::shell(engine, &script).finish();
    run.expect_code(0);
    assert_eq!(sorted(&run.stdout.text()), ["stderr: two", "stdout: one", "stdout: three"]);
    // After the stamp, before the number; in a filter there is one stream.
    let script =
        "seq 2 | nproxy --text=transform --timestamp='T ' --prefix='{stream} ' --line-numbers";
    let run = Launch::shell(engine, script).finish();
    run.expect_code(0).expect_output("T stdout      1\t1\nT stdout      2\t2\n");
    let mixed = "nproxy --tee /dev/null --tee-text=transform --prefix={stream} true";
    Launch::shell(engine, mixed).finish().expect_code(125);
    let apart = "nproxy --tee >(cat) --tee-text=transform --timestamp= --tee-streams=stderr --prefix={stream}: sh -c 'echo x >&2' 2>/dev/null | cat";
    Launch::shell(engine, apart).finish().expect_output("stderr:x\n");
}

fn labels_name_process_and_program(engine: Engine) {
    for pty in ["never", "always"] {
        let run = Launch::nproxy(engine)
            .args([
                "--pty",
                pty,
                "--prefix={command}[{pid}]@{host} {{x}} ",
                "/bin/sh",
                "-c",
                "echo $$",
            ])
            .finish();
        run.expect_code(0);
        let text = run.stdout.text();
        let (label, pid) = text.trim_end().rsplit_once(' ').expect("a label");
        let host = nix::unistd::gethostname().expect("a name").into_string().expect("text");
        assert_eq!(label, format!("sh[{pid}]@{host} {{x}}"));
    }
    let run = Launch::nproxy(engine).args(["--prefix={name}", "true"]).finish();
    run.expect_code(125);
    run.expect(run.stderr.text().contains("no field \"name\""), "which field");
}

fn local_times(engine: Engine) {
    let zone = |flags: &str| {
        let script = format!("echo a | TZ=XYZ-5:30 nproxy {flags}");
        let run = Launch::shell(engine, &script).finish();
        run.expect_code(0).expect_silent();
        run.stdout.text().to_owned()
    };
    assert_eq!(zone("--local-time '--timestamp=%z '"), "+0530 a\n");
    assert_eq!(zone("'--timestamp=%z '"), "+0000 a\n");
    let text = zone("--text=transform --local-time");
    assert!(text.ends_with("+05:30] a\n"), "{text}");
    assert_eq!(zone("--timestamp-mode=elapsed '--timestamp=%H:%M '"), "00:00 a\n");
}
