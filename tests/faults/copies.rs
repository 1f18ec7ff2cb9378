//! Copies that meet a limit of their own, and what leads one copy into another's file.

use std::fs;
use std::os::unix::ffi::OsStringExt;

use tempfile::tempdir;

use crate::harness::{Engine, Launch, digest_of_file, on_both_engines, strace_works};
use crate::payload::Digest;

on_both_engines![
    file_size_limit,
    file_size_limit_of_the_command,
    error_at_close,
    variables_of_one_run_end_with_it,
    address_that_is_no_text,
];

/// RLIMIT_FSIZE ends the file that meets it: not nproxy, not the other copies, not the stream.
fn file_size_limit(engine: Engine) {
    let whole = Digest::of_payload(4 << 20, 1);
    for command in [
        "peer write 4M 64K | nproxy --tee limited",
        "peer write 4M 64K | nproxy --tee limited --tee-text=strip-ansi",
        "peer write 4M 64K | nproxy --tee limited --tee-append",
        "nproxy --tee limited peer write 4M 64K",
        "nproxy --tee limited --tee-append peer write 4M 64K",
    ] {
        let directory = tempdir().expect("directory");
        let script = format!("ulimit -f 64; {command} | peer read; echo ${{PIPESTATUS[*]}}");
        let run = Launch::shell(engine, &script).directory(directory.path()).finish();
        let output = run.stdout.text();
        run.expect(output.starts_with(&format!("{whole}\n")), "the stream is whole");
        run.expect(
            output.lines().nth(1).is_some_and(|all| all.split(' ').all(|one| one == "0")),
            "status 0",
        );
        run.expect_message(&["write to limited", "File too large"]);
        let size = fs::metadata(directory.path().join("limited")).expect("the copy").len();
        run.expect(size <= 64 << 10 && size > 0, "filled to its limit");
    }
    // stdout itself.
    for command in ["peer write 4M 64K 2>/dev/null | nproxy", "nproxy peer write 4M 64K"] {
        let directory = tempdir().expect("directory");
        let script = format!("ulimit -f 64; {command} > limited; echo $?");
        let run = Launch::shell(engine, &script).directory(directory.path()).finish();
        run.expect_output("125\n").expect_one_line(&["write to stdout", "File too large"]);
    }
}

/// The command gets SIGXFSZ back as nproxy was started with it.
fn file_size_limit_of_the_command(engine: Engine) {
    let directory = tempdir().expect("directory");
    let run = Launch::shell(engine, "ulimit -f 4; nproxy sh -c 'seq 10000 > out'; echo $?")
        .directory(directory.path())
        .finish();
    run.expect_output("153\n");
    let script = "ulimit -f 4; trap '' XFSZ; nproxy sh -c 'seq 10000 > out'; echo $?";
    let run = Launch::shell(engine, script).directory(directory.path()).finish();
    run.expect_output("1\n");
}

/// Every close(2) of one file says that a quota was exceeded: that is the end of this copy, of no other, and it is told.
fn error_at_close(engine: Engine) {
    if !strace_works() {
        return;
    }
    let whole = Digest::of_payload(300_000, 1);
    let moves = "
        peer write 300000 16K; until [ $(wc -c < log) -ge 300000 ]; do sleep 0.02; done
        mv log log.1; until [ -e log ]; do sleep 0.02; done";
    for (file, tee, command) in [
        ("log", "log", "peer write 300000 16K"),
        ("log", "log,append", "peer write 300000 16K"),
        ("log", "log,text=strip-ansi", "peer write 300000 16K"),
        ("log", "log,rotate=64K", "peer write 300000 16K"),
        ("log.1", "log,reopen", moves),
        ("out", "log", "peer write 300000 16K"),
    ] {
        for (flags, status) in [("", if file == "out" { 125 } else { 0 }), ("--tee-strict", 125)] {
            let directory = tempdir().expect("directory");
            let path = directory.path().canonicalize().expect("directory");
            let out = fs::File::create(path.join("out")).expect("create");
            let run = Launch::program("strace")
                .args(["-f", "-o", "/dev/null", "-e", "trace=close", "-P"])
                .arg(path.join(file))
                .args(["-e", "inject=close:error=EDQUOT", "nproxy", "--tee", tee, "--tee", "other"])
                .words(flags)
                .args(["sh", "-c", command])
                .env("NPROXY_ENGINE", engine.name())
                .directory(&path)
                .stdout(out)
                .finish();
            run.expect_code(status).expect_one_line(&["close", "Disk quota exceeded"]);
            for name in ["out", "other"] {
                let arrived = digest_of_file(&path.join(name), 0);
                run.expect(arrived == whole, &format!("{name} is whole, {tee}"));
            }
        }
    }
}

/// What is meant for one run is not inherited by the command, or an nproxy in it would empty the same log; what is a
/// habit is.
fn variables_of_one_run_end_with_it(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = "seq 100000; nproxy -- echo inner; env | grep ^NPROXY_ | grep -v TEST | sort";
    let run = Launch::nproxy(engine)
        .args(["--", "sh", "-c", script])
        .directory(directory.path())
        .env("NPROXY_TEE", "log")
        .env("NPROXY_STATS_FILE", "stats")
        .env("NPROXY_EVENTS", "events")
        .env("NPROXY_SIZE", "1M")
        .env("NPROXY_TEXT", "strip-ansi")
        .env("NPROXY_STDIN", "null")
        .env("NPROXY_COALESCE", "off")
        .env("NPROXY_LINGER", "1s")
        .finish();
    run.expect_code(0);
    let output = run.stdout.text();
    run.expect(output.ends_with("\ninner\nNPROXY_COALESCE=off\nNPROXY_LINGER=1s\n"), "the habits");
    let log = fs::read(directory.path().join("log")).expect("log");
    run.expect(log == output.as_bytes(), "the log has everything");
    let events = fs::read_to_string(directory.path().join("events")).expect("events");
    run.expect(events.matches("\"start\"").count() == 1, "the events of one run");
}

/// It is a bad address, not the name of a file.
fn address_that_is_no_text(engine: Engine) {
    let directory = tempdir().expect("directory");
    let address = std::ffi::OsString::from_vec(b"tcp:h\xff:80".to_vec());
    let run = Launch::nproxy(engine)
        .arg("--tee")
        .arg(address)
        .words("-- echo x")
        .directory(directory.path())
        .finish();
    run.expect_code(125).expect_output("").expect_one_line(&["expected tcp:HOST:PORT"]);
    assert_eq!(fs::read_dir(directory.path()).expect("directory").count(), 0, "no such file");
}
