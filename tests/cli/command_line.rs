//! The command line: what is nproxy's, what is the command's, and what the child is started with.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use tempfile::tempdir;

use crate::harness::{Engine, Launch, nproxy_path, on_both_engines, payload_bytes};

/// Everything from the first word that is no option on belongs to the command.
#[test]
fn words_of_the_command_are_left_alone() {
    let words = ["printf", "[%s]", "--stats", "-v", "--", "--engine=warp", "", "a b", "-"];
    let expected = "[--stats][-v][--][--engine=warp][][a b][-]";
    for separator in [&["--"][..], &[]] {
        let run = Launch::program(nproxy_path()).args(separator).args(words).finish();
        run.expect_code(0).expect_silent().expect_output(expected);
    }
    let run = Launch::program(nproxy_path()).args(["-q", "echo", "--", "--", "x"]).finish();
    run.expect_code(0).expect_silent().expect_output("-- -- x\n");
    // A command whose name looks like an option.
    Launch::program(nproxy_path())
        .args(["--", "--stats"])
        .finish()
        .expect_code(127)
        .expect_one_line(&["--stats"]);
}

#[test]
fn words_that_are_no_text_pass_unchanged() {
    let raw = OsStr::from_bytes(b"\xff\xfe=\x80");
    let run = Launch::program(nproxy_path()).args(["printf", "%s"]).arg(raw).finish();
    run.expect_code(0).expect_silent().expect(run.stdout.head == raw.as_bytes(), "the same bytes");
    let run = Launch::program(nproxy_path()).arg("--").arg(raw).finish();
    run.expect_code(127);
}

#[test]
fn help_and_version_are_on_stdout() {
    for flag in ["--help", "--version", "-h", "-V"] {
        let run = Launch::program(nproxy_path()).arg(flag).finish();
        run.expect_code(0)
            .expect_silent()
            .expect(run.stdout.text().contains("nproxy"), "it names itself");
    }
    let help = Launch::program(nproxy_path()).arg("--help").finish();
    for flag in
        ["--engine", "--pipe-size", "--stdin", "--linger", "--signal-exit", "--group", "--stats"]
    {
        help.expect(help.stdout.text().contains(flag), &format!("--help names {flag}"));
    }
}

/// What was asked for and will not happen is said, unless it is a habit or notices are unwanted.
#[test]
fn flags_without_effect_are_named() {
    let run = |words: &str| {
        let run = Launch::program(nproxy_path()).words(words).arg("true");
        run.env("NPROXY_TEE_APPEND", "1").env("NPROXY_NO_SUCH", "1").finish()
    };
    run("").expect_code(0).expect_silent();
    let size = ["--size has no effect without --progress"];
    run("--size=5").expect_code(0).expect_one_line(&size);
    run("--size=5 -q").expect_code(0).expect_silent();
    run("--status-format=json").expect_one_line(&["--status-format", "without --status"]);
    run("--tee-text=strip-ansi").expect_one_line(&["--tee-text", "without --tee"]);
    run("-v").expect_code(0).expect_message(&["NPROXY_NO_SUCH: no such variable"]);
}

/// Beside a question no run takes place: what was asked of one is refused, not forgotten.
#[test]
fn nothing_is_asked_of_a_run_that_does_not_take_place() {
    for (words, why) in [
        ("--status --tee log", "--tee has no effect with --status"),
        ("--status --stats --pty=never", "--pty, --stats have no effect with --status"),
        ("--completions bash true", "true has no effect with --completions"),
    ] {
        let run = Launch::program(nproxy_path()).words(words).finish();
        run.expect_code(125).expect_output("").expect_one_line(&[why]);
    }
}

/// Durations and sizes to their limits are taken or refused, and what is taken can be run with.
#[test]
fn values_to_their_limits() {
    let values =
        "0 1 1ns 4294967295 4294967296 9300000000000000000s 99999999999999999999y 16777215T 15E
        18446744073709551615 18446744073709551616 1e30 -1";
    let flags = "linger tick coalesce pipe-size attention pressure critical emergency memlog size";
    for flag in flags.split_whitespace() {
        for value in values.split_whitespace() {
            let run = Launch::program(nproxy_path())
                .arg(format!("--{flag}={value}"))
                .env("NPROXY_LINGER", "30ms")
                .words("--progress=always --stats --stdin=relay sh -c")
                .arg("echo early; (sleep 0.02; echo late) &")
                .finish();
            let text = run.stderr.text();
            run.expect(!text.contains("panicked"), "no panic");
            match run.status.code() {
                // Without patience what comes late is left.
                Some(0) => run.expect(run.stdout.text().starts_with("early\n"), "the output"),
                _ => run.expect_code(125).expect_output("").expect_one_line(&[flag]),
            };
        }
    }
}

/// An alias can be overridden.
#[test]
fn the_last_of_a_flag_counts() {
    let run = Launch::program(nproxy_path())
        .words("-q -q --engine=warp --engine=epoll --stats --stats=json --tee-append --tee-append true")
        .finish();
    // A value that cannot be read is refused wherever it stands.
    run.expect_code(125).expect_one_line(&["--engine", "warp"]);
    let run = Launch::program(nproxy_path())
        .words("-q -q --engine=uring --engine=epoll --stats --stats=json --tee-append true");
    assert_eq!(run.finish().expect_code(0).stats()["engine"], "epoll");
}

/// A variable that somebody has by habit, or has got wrong, keeps nobody from asking.
#[test]
fn help_and_reports_do_not_depend_on_variables() {
    let run = |words: &str, variable: &str, value: &str| {
        Launch::program(nproxy_path()).words(words).env(variable, value).finish()
    };
    for words in ["--help", "-q -h", "--version"] {
        run(words, "NPROXY_TICK_MS", "x").expect_code(0).expect_silent();
    }
    run("true", "NPROXY_TICK_MS", "x").expect_code(125).expect_one_line(&["NPROXY_TICK_MS"]);
    // What other tools know too is nothing to a run that does not ask for it.
    run("true", "NODE_OPT_MAX_OLD", "4g").expect_code(0).expect_silent();
    run("--node true", "NODE_OPT_MAX_OLD", "4g")
        .expect_code(125)
        .expect_one_line(&["NODE_OPT_MAX_OLD", "MiB"]);
    let told = run("-vv true", "NPROXY_QUIET", "1").expect_code(0).stderr.text();
    assert!(told.contains("true on "), "{told}");
    run("-v -q true", "NPROXY_QUIET", "0").expect_code(0).expect_silent();
}

#[test]
fn the_flag_wins_over_the_environment() {
    let stats = |variable: &str, flags: &str| {
        let run = Launch::program(nproxy_path())
            .words(flags)
            .words("--stats=json true")
            .env("NPROXY_ENGINE", variable);
        run.finish().stats()["engine"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(stats("epoll", ""), "epoll");
    assert_eq!(stats("auto", "--engine=epoll"), "epoll");
    if crate::harness::Engine::Uring.available() {
        assert_eq!(stats("uring", ""), "uring");
        assert_eq!(stats("epoll", "--engine=uring"), "uring");
        assert_eq!(stats("auto", ""), "uring");
    }
}

on_both_engines![
    statistics,
    descriptors_of_the_child,
    dispositions_of_the_child,
    nobody_inherits_what_was_meant_for_this_run,
    stdin_modes,
    child_that_leaves_its_stdin,
    pipe_size,
];

fn statistics(engine: Engine) {
    let json =
        Launch::nproxy(engine).words("--stats=json sh -c").arg("printf hello; exit 3").finish();
    json.expect_code(3).expect_output("hello");
    let stats = json.stats();
    json.expect(stats["version"] == 1, "version 1");
    json.expect(stats["exit_status"] == 3, "the exit status");
    json.expect(
        stats["elapsed_seconds"].as_f64().is_some_and(|time| time > 0.0 && time < 60.0),
        "the time",
    );
    json.expect(json.stat("stdout", "bytes") == 5, "5 bytes on stdout");
    json.expect(json.stat("stderr", "bytes") == 0, "none on stderr");
    json.expect(json.stat("stdout", "undelivered_bytes") == 0, "none undelivered");
    let text = Launch::nproxy(engine).words("--stats printf hello").finish();
    text.expect_code(0)
        .expect_output("hello")
        .expect(text.stderr.text().contains('5'), "a report for people");
    let both = Launch::nproxy(engine).words("--stats=text printf hello").finish();
    both.expect_code(0).expect(both.stderr.text().contains("stdout"), "a report for people");
}

/// Neither the command nor what a copy goes into, around a command as in a pipeline. An nproxy in there would empty the log or
/// start itself for ever.
fn nobody_inherits_what_was_meant_for_this_run(engine: Engine) {
    for (flags, command) in [("", "sh -c env"), ("--pty=always", "sh -c env"), ("", "")] {
        let directory = tempfile::tempdir().expect("directory");
        let run = Launch::nproxy(engine)
            .words(flags)
            .args(["--tee", "|env > got; cat > copy"])
            .words(command)
            .env("NPROXY_TEE", "log")
            .env("NPROXY_TEXT", "strip-ansi")
            .env("NPROXY_LINGER", "100ms")
            .directory(directory.path())
            .stdin(std::process::Stdio::null())
            .finish();
        run.expect_code(0);
        let got = std::fs::read_to_string(directory.path().join("got")).expect("got");
        for text in [got, run.stdout.text()] {
            assert!(!text.contains("NPROXY_TEE=") && !text.contains("NPROXY_TEXT="), "{text}");
        }
        let habit = std::fs::read_to_string(directory.path().join("got")).expect("got");
        assert!(habit.contains("NPROXY_LINGER=100ms"), "{habit}");
    }
}

/// The child has what the bare run has, plus nothing: pipes for 1 and 2, and whatever we were given ourselves.
fn descriptors_of_the_child(engine: Engine) {
    let script = "exec 5</etc/passwd 7<>/dev/null 9>&1; RUN peer fds | sed 's/pipe:.*/pipe/' ";
    let list = |run: &str| {
        let run = Launch::shell(engine, &script.replace("RUN", run)).finish();
        run.expect_code(0).expect_silent();
        run.stdout.text()
    };
    let bare = list("");
    assert!(bare.contains("7 /dev/null"), "{bare}");
    assert_eq!(list("nproxy"), bare);
    assert_eq!(list("nproxy --stdin=null"), bare);
    assert_eq!(list("nproxy --stdin=relay"), bare.replacen("0 /dev/null", "0 pipe", 1));
}

/// Signals that were ignored or blocked stay so in the child, the others do not become so.
fn dispositions_of_the_child(engine: Engine) {
    for settings in [
        "",
        "ignore=INT ignore=QUIT",
        "ignore=PIPE",
        "block=USR1 block=TERM ignore=CHLD",
        "ignore=TSTP ignore=HUP",
    ] {
        let read = |relay: &[&str]| {
            let run = Launch::peer("with")
                .words(settings)
                .arg("--")
                .args(relay)
                .words("peer dispositions")
                .finish();
            run.expect_code(0).expect_silent();
            run.stdout.text()
        };
        assert_eq!(read(&["nproxy", "--engine", engine.name()]), read(&[]), "with {settings:?}");
    }
}

fn stdin_modes(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = "printf abc | nproxy cat; printf abc | nproxy --stdin=inherit cat
        printf abc | nproxy --stdin=relay cat; echo
        printf abc | { nproxy --stdin=null cat; cat; }; echo
        # Inherited, what the child does not read is still there for the next.
        printf 'one\\ntwo\\n' > lines; { nproxy sh -c 'read x; echo $x'; cat; } < lines";
    let run = Launch::shell(engine, script).directory(directory.path()).finish();
    run.expect_code(0).expect_silent().expect_output("abcabcabc\nabc\none\ntwo\n");
}

/// A child that reads only a part of a relayed stdin is no error, and the writer learns it as from a closed pipe.
fn child_that_leaves_its_stdin(engine: Engine) {
    for command in ["true", "head -c 100000 | tail -c 1 | wc -c", "exec <&-; echo closed"] {
        let (reader, writer) = std::io::pipe().expect("pipe");
        let peer = Launch::peer("write")
            .arg(payload_bytes().to_string())
            .arg("64K")
            .stdout(writer)
            .start();
        let run = Launch::nproxy(engine)
            .args(["--stdin=relay", "sh", "-c", command])
            .stdin(reader)
            .finish();
        run.expect_code(0).expect_silent();
        peer.finish().expect_signal(nix::sys::signal::Signal::SIGPIPE);
    }
}

fn pipe_size(engine: Engine) {
    let size = |flags: &str| {
        let run = Launch::nproxy(engine).words(flags).args(["peer", "pipe-size"]).finish();
        run.expect_code(0).expect_silent();
        run.stdout.text().trim().parse::<u32>().expect("a size")
    };
    assert_eq!(size("--pipe-size=keep"), 65536);
    assert_eq!(size("--pipe-size=128K"), 131_072);
    // Beyond the user's soft limit of pipe pages the kernel refuses, and what there is must do.
    let default = size("");
    assert!(default == 1 << 20 || !nix::unistd::geteuid().is_root(), "{default}");
}
