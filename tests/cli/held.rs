//! `--only-on-failure`: nothing of a command that succeeds, everything of one that fails, and no byte lost on the way.

use nix::sys::signal::Signal;

use crate::harness::{
    Engine, Launch, need, nproxy_path, on_both_engines, payload_bytes, payload_digest,
};

on_both_engines![
    nothing_of_a_success,
    all_of_a_failure,
    order_of_both_streams,
    order_of_streams_that_are_told_apart,
    death_by_a_signal,
    copies_and_figures_as_always,
    text_modes_see_when_it_came,
    file_size_limit_ends_the_hiding,
    full_disk_ends_the_hiding,
    no_place_to_hold_it,
    an_empty_tmpdir_names_none,
    reader_that_leaves,
    silence_is_a_failure,
    at_a_terminal,
    a_prompt_is_seen,
];

fn nothing_of_a_success(engine: Engine) {
    let script = format!("peer write {} 64K; echo and this >&2", payload_bytes());
    Launch::nproxy(engine)
        .args(["--only-on-failure", "sh", "-c", &script])
        .finish()
        .expect_code(0)
        .expect_output("")
        .expect_silent();
}

/// Byte for byte, each stream where it belongs, and the status.
fn all_of_a_failure(engine: Engine) {
    let script = format!("peer write {} 64K; seq 5 >&2; exit 42", payload_bytes());
    let run = Launch::nproxy(engine).args(["--only-on-failure", "sh", "-c", &script]).finish();
    run.expect_code(42).expect_stdout(payload_digest());
    run.expect(run.stderr.text() == "1\n2\n3\n4\n5\n", "stderr as it was");
}

fn an_empty_tmpdir_names_none(engine: Engine) {
    let run = Launch::nproxy(engine).env("TMPDIR", "").args(["--only-on-failure", "echo", "x"]);
    run.finish().expect_code(0).expect_output("").expect_silent();
}

/// Where both go to one place, they share a file.
fn order_of_both_streams(engine: Engine) {
    let script = "for i in $(seq 500); do echo out $i; echo err $i >&2; done; exit 1";
    let bare = Launch::shell(engine, &format!("({script}) 2>&1")).finish();
    let run = Launch::shell(engine, &format!("nproxy --only-on-failure sh -c '{script}' 2>&1"));
    run.finish().expect_code(1).expect_output(&bare.stdout.text());
}

/// The streams have different prefixes, and still their order.
fn order_of_streams_that_are_told_apart(engine: Engine) {
    let script = "nproxy --only-on-failure --prefix '{stream} ' \
        sh -c 'for i in 1 2 3 4; do echo $i; sleep .4; echo $i >&2; sleep .4; done; exit 1' 2>&1";
    let expected: String = (1..=4).map(|i| format!("stdout {i}\nstderr {i}\n")).collect();
    Launch::shell(engine, script).finish().expect_code(1).expect_output(&expected);
}

fn death_by_a_signal(engine: Engine) {
    let run = Launch::nproxy(engine)
        .args(["--only-on-failure", "sh", "-c", "echo last words; kill -TERM $$"])
        .finish();
    run.expect_signal(Signal::SIGTERM).expect_output("last words\n");
}

/// A copy gets every byte of a hidden success, and the figures are those of the command.
fn copies_and_figures_as_always(engine: Engine) {
    let directory = tempfile::tempdir().expect("directory");
    for status in [0, 1] {
        let script = format!("peer write {} 64K; exit {status}", payload_bytes());
        let run = Launch::nproxy(engine)
            .args(["--only-on-failure", "--tee=log", "--stats-file=stats", "sh", "-c", &script])
            .directory(directory.path())
            .finish();
        run.expect_code(status).expect_silent();
        let shown = if status == 0 { 0 } else { payload_bytes() };
        run.expect(run.stdout.digest.bytes == shown, "what is shown");
        let log = crate::harness::digest_of_file(&directory.path().join("log"), 0);
        run.expect(log == payload_digest(), "the copy");
        let stats = std::fs::read_to_string(directory.path().join("stats")).expect("stats");
        let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
        let streams = stats["streams"].as_array().expect("streams");
        run.expect(streams.len() == 2, "two streams");
        run.expect(streams[0]["bytes"] == payload_bytes(), "counted once");
    }
}

/// Stamps tell when a line came, not when it was shown.
fn text_modes_see_when_it_came(engine: Engine) {
    let script = "echo first; sleep 1.2; echo second; exit 1";
    let run = Launch::nproxy(engine)
        .args(["--only-on-failure", "--timestamp=%s ", "sh", "-c", script])
        .finish();
    let text = run.expect_code(1).stdout.text();
    let stamps: Vec<u64> =
        text.lines().filter_map(|line| line.split_once(' ')?.0.parse().ok()).collect();
    run.expect(stamps.len() == 2 && stamps[1] > stamps[0], "two moments");
}

/// What the file did not take comes after what it did, as it comes.
fn file_size_limit_ends_the_hiding(engine: Engine) {
    for modes in ["", "--text=strip-ansi"] {
        let script = format!(
            "ulimit -f 1000; nproxy --only-on-failure {modes} sh -c 'seq 2000000; echo e >&2'"
        );
        let bare = Launch::shell(engine, "seq 2000000").finish();
        let run = Launch::shell(engine, &script).finish();
        run.expect_code(0).expect_stdout(bare.stdout.digest);
        let said = run.stderr.text();
        run.expect(said.starts_with("nproxy: hold output: write to a file in"), "why it is seen");
        run.expect(said.ends_with("e\n") && said.lines().count() == 2, "stderr too, and no more");
    }
}

/// The same on a disk of 10 MiB.
fn full_disk_ends_the_hiding(engine: Engine) {
    if !need(&["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]) {
        return;
    }
    let script = format!(
        "mount -t tmpfs -o size=10M none /mnt && TMPDIR=/mnt exec {} --only-on-failure peer write {} 64K",
        nproxy_path().display(),
        payload_bytes(),
    );
    let run = Launch::program("unshare")
        .args(["-rm", "sh", "-c", &script])
        .env("NPROXY_ENGINE", engine.name())
        .finish();
    run.expect_code(0).expect_stdout(payload_digest());
    run.expect_one_line(&["write to a file in /mnt: No space left on device"]);
}

fn no_place_to_hold_it(engine: Engine) {
    let run = Launch::nproxy(engine)
        .args(["--only-on-failure", "echo", "seen"])
        .env("TMPDIR", "/nowhere/at/all")
        .finish();
    run.expect_code(0).expect_output("seen\n");
    run.expect(run.stderr.text().contains("it is shown as it comes"), "and that is said");
}

/// Who does not want to see it to the end ends nothing else.
fn reader_that_leaves(engine: Engine) {
    let script =
        "nproxy --only-on-failure sh -c 'seq 3000000; exit 7' | head -n 2; echo ${PIPESTATUS[0]}";
    let run = Launch::shell(engine, script).finish();
    run.expect_code(0).expect_output("1\n2\n7\n").expect_silent();
}

fn silence_is_a_failure(engine: Engine) {
    let run = Launch::nproxy(engine)
        .args(["--only-on-failure", "--idle-timeout=2s", "sh", "-c", "echo before; sleep 600"])
        .finish();
    run.expect_code(124).expect_output("before\n");
}

/// The command has its terminal, on which nothing is seen of a success.
fn at_a_terminal(engine: Engine) {
    if !need(&["script", "--version"]) {
        return;
    }
    for (status, shown) in [(0, ""), (3, "terminal\ncolour\n")] {
        let line = format!(
            "nproxy --only-on-failure sh -c 'test -t 1 && echo terminal; test -t 2 && echo colour >&2; exit {status}' </dev/null"
        );
        let run = Launch::program("script")
            .args(["-qec", &line, "/dev/null"])
            .env("NPROXY_ENGINE", engine.name())
            .in_our_group()
            .finish();
        run.expect_code(status);
        let text = run.stdout.text().replace('\r', "");
        run.expect(text == shown, "what is seen");
    }
}

/// A command that asks is seen at once, with all that it printed before and from then on.
fn a_prompt_is_seen(engine: Engine) {
    if !need(&["script", "--version"]) {
        return;
    }
    let scripts = [
        "echo first; printf \"name? \"; read -r name; echo for $name",
        "echo first; printf \"name? \" >/dev/tty; read -r name </dev/tty; echo for $name",
        "echo first; printf \"name? \"; stty -echo; IFS= read -r name; stty echo; echo for $name",
    ];
    for inner in scripts {
        let line = format!("nproxy --only-on-failure sh -c '{inner}; sleep .3; echo last'");
        let (keys, typist) = std::io::pipe().expect("a pipe");
        let run = Launch::program("script")
            .args(["-qec", &line, "/dev/null"])
            .env("NPROXY_ENGINE", engine.name())
            .stdin(keys)
            .in_our_group()
            .start();
        run.stdout.as_ref().expect("its output").wait_for("name? ", 1);
        std::io::Write::write_all(&mut &typist, b"me\n").expect("write");
        let done = run.finish();
        done.expect_code(0);
        let text = done.stdout.text().replace('\r', "");
        done.expect(
            text.starts_with("first\nname? ") && text.ends_with("for me\nlast\n"),
            "all of it",
        );
        drop(typist);
    }
}
