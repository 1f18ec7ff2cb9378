//! A disk that takes nothing for a while stalls its own copy, whatever the kernel holds locked meanwhile.

use std::fs;

use tempfile::tempdir;

use crate::harness::{
    Engine, Launch, digest_of_file, need, on_both_engines, payload_bytes, payload_digest,
};

on_both_engines![
    a_copy_that_may_lose_bytes,
    a_copy_of_the_other_stream,
    the_file_of_the_other_stream
];

/// Runs a script beside `mnt/slow`, which takes nothing before the script makes `go`.
fn beside_a_slow_disk(engine: Engine, script: &str, check: impl Fn(&std::path::Path)) {
    if !need(&["test", "-w", "/dev/fuse"]) || !need(&["unshare", "-m", "true"]) {
        return;
    }
    let directory = tempdir().expect("directory");
    fs::create_dir(directory.path().join("mnt")).expect("directory");
    let run = Launch::program("unshare")
        .words("-m peer fuse mnt 1 0 bash -c")
        .arg(script)
        .env("NPROXY_ENGINE", engine.name())
        .env("BYTES", payload_bytes().to_string())
        .directory(directory.path())
        .finish();
    run.expect_code(0).expect_output("0\n");
    check(directory.path());
}

/// The command ends, and all of its output is there, before the disk has taken a byte.
fn a_copy_that_may_lose_bytes(engine: Engine) {
    for keys in ["", ",append", ",text=strip-ansi"] {
        let script = format!(
            "nproxy --tee mnt/slow,full=drop{keys} peer write $BYTES 64K > out & main=$!
             until [ $(wc -c < out) -ge $BYTES ]; do sleep 0.02; done; touch go; wait $main; echo $?"
        );
        beside_a_slow_disk(engine, &script, |directory| {
            assert_eq!(digest_of_file(&directory.join("out"), 0), payload_digest(), "{keys}");
        });
    }
}

/// stdout waits for its copy; stderr does not.
fn a_copy_of_the_other_stream(engine: Engine) {
    for keys in ["", ",append"] {
        let script = format!(
            "nproxy --tee mnt/slow,streams=stdout{keys} bash -c 'peer write $BYTES 64K & peer write $BYTES 64K >&2; wait' \
                 > out 2> err & main=$!
             until [ $(wc -c < err) -ge $BYTES ]; do sleep 0.02; done; touch go; wait $main; echo $?"
        );
        beside_a_slow_disk(engine, &script, |directory| {
            for name in ["out", "err"] {
                assert_eq!(digest_of_file(&directory.join(name), 0), payload_digest(), "{name}");
            }
        });
    }
}

/// stdout is a file there itself; stderr, and a copy of it, do not wait.
fn the_file_of_the_other_stream(engine: Engine) {
    for (flags, redirection) in [
        ("--tee log,streams=stderr", "> mnt/slow 2> err"),
        ("--tee log,streams=stderr", ">> mnt/slow 2> err"),
        ("--text=strip-ansi --text-streams=stdout --tee log,streams=stderr", "> mnt/slow 2>> err"),
        // The other way round: what nothing is written to is stdout.
        ("--tee log,streams=stdout", "2> mnt/slow > err"),
    ] {
        let script = format!(
            "nproxy {flags} bash -c 'peer write $BYTES 64K & peer write $BYTES 64K >&2; wait' {redirection} & main=$!
             until [ $(wc -c < err) -ge $BYTES ] && [ $(wc -c < log) -ge $BYTES ]; do sleep 0.02; done
             touch go; wait $main; echo $?"
        );
        beside_a_slow_disk(engine, &script, |directory| {
            // What text modes leave of the payload is another matter.
            let taken = (!flags.contains("--text")).then_some("taken");
            for name in ["err", "log"].into_iter().chain(taken) {
                let digest = digest_of_file(&directory.join(name), 0);
                assert_eq!(digest, payload_digest(), "{name}: {flags} {redirection}");
            }
        });
    }
}
