//! Outputs and copies that fail, and what goes on.

use std::fs;

use tempfile::tempdir;

use crate::harness::{
    Engine, Launch, digest_of_file, on_both_engines, payload_bytes, payload_digest,
};

on_both_engines![
    copies_are_completed_without_a_reader,
    copies_are_completed_when_stdout_fails,
    a_copy_that_cannot_be_opened_is_left_out,
    the_last_gap_is_marked,
    a_marker_survives_a_torn_sequence,
    failures_of_some_are_not_those_of_others,
];

/// `| head`: the log has everything.
fn copies_are_completed_without_a_reader(engine: Engine) {
    let script = "
        nproxy --tee-output-error=warn --tee log seq 1 300000 | head -n 1; echo ${PIPESTATUS[@]}
        seq 1 300000 | nproxy --tee-output-error=warn --tee flog | head -n 1; echo ${PIPESTATUS[@]}
        nproxy --tee-output-error=warn --tee tlog --text=transform --timestamp= seq 1 300000 | head -n 1
        tail -qn 1 log flog tlog";
    let directory = tempdir().expect("directory");
    let run = Launch::shell(engine, script).directory(directory.path()).finish();
    run.expect_output("1\n0 0\n1\n0 141 0\n1\n300000\n300000\n300000\n");
    // Without it they end where stdout ends.
    let script = "nproxy --tee log seq 1 30000000 | head -n 1; tail -n 1 log";
    let run = Launch::shell(engine, script).directory(directory.path()).finish();
    run.expect(!run.stdout.text().contains("30000000"), "the command has met a closed pipe");
}

fn copies_are_completed_when_stdout_fails(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = format!(
        "nproxy --tee-output-error=warn --tee a --tee '|cat > b' peer write {} 64K > /dev/full",
        payload_bytes()
    );
    let run = Launch::shell(engine, &script).directory(directory.path()).finish();
    run.expect_code(125).expect_message(&["write to stdout", "No space left"]);
    for name in ["a", "b"] {
        assert_eq!(digest_of_file(&directory.path().join(name), 0), payload_digest(), "{name}");
    }
}

fn a_copy_that_cannot_be_opened_is_left_out(engine: Engine) {
    let directory = tempdir().expect("directory");
    let run = Launch::nproxy(engine)
        .words("--tee-output-error=warn --tee nowhere/log --tee log,streams=stdout --tee err,streams=stderr")
        .args(["sh", "-c", "echo out; echo err >&2"])
        .directory(directory.path())
        .finish();
    run.expect_code(0).expect_message(&["nowhere/log", "No such file"]);
    let read = |name| fs::read_to_string(directory.path().join(name)).expect(name);
    assert_eq!((read("log"), read("err")), ("out\n".into(), "err\n".into()));
}

/// A copy that gets nothing any more still says so at its end.
fn the_last_gap_is_marked(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = format!(
        "mkfifo fifo; (exec 3<fifo; touch open; while [ ! -e done ]; do sleep 0.02; done; cat <&3 > got) &
         exec 4<>fifo; (while [ ! -e open ]; do sleep 0.02; done)
         (nproxy --tee fifo,full=drop --stats=json peer write {} 64K; touch ended) | (cat; touch done) > /dev/null
         exec 4>&-; wait; tail -c 60 got | tail -n 1",
        payload_bytes()
    );
    // The run waits for the reader, and the reader for the end of stdout.
    let run = Launch::shell(
        engine,
        &script.replace(
            "| (cat; touch done) > /dev/null",
            "> out & main=$!
         until [ $(wc -c < out) -ge $BYTES ]; do sleep 0.02; done; touch done; wait $main",
        ),
    )
    .env("BYTES", payload_bytes().to_string())
    .directory(directory.path())
    .finish();
    run.expect_code(0);
    let text = run.stdout.text();
    run.expect(text.ends_with(" bytes dropped here]\n"), "the last line is a marker");
}

/// The gap begins within a title that never ends: the marker is not part of it.
fn a_marker_survives_a_torn_sequence(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = "
        mkfifo fifo; exec 4<>fifo
        nproxy --tee fifo,full=drop,text=strip-ansi sh -c 'head -c 2000000 /dev/zero | tr \"\\0\" x; printf \"\\033]0;title\"; head -c 30000000 /dev/zero | tr \"\\0\" x' > out & main=$!
        until [ $(wc -c < out) -ge 32000009 ]; do sleep 0.02; done
        exec 5<fifo; exec 4>&-; cat <&5 > got; wait; grep -a -q 'bytes dropped here' got && echo marked";
    let run = Launch::shell(engine, script).directory(directory.path()).finish();
    run.expect_code(0).expect_output("marked\n");
}

/// One of each kind, and beside each another of its kind that fails in its own way.
fn failures_of_some_are_not_those_of_others(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = format!(
        "mkfifo good bad; cat good > good.got & head -c 1000 bad > bad.got &
         nproxy --tee file --tee /dev/full --tee seg,rotate=1M,keep=1000 --tee good --tee bad \
            --tee '|cat > command.got' --tee '|head -c 10 > /dev/null' --tee app,append \
            --tee unix:nowhere,full=drop,wait=100ms --tee tcp:127.0.0.1:1,full=drop,wait=100ms \
            peer write {} 64K
         status=$?; wait; cat seg.* seg > seg.got; exit $status",
        payload_bytes()
    );
    let run = Launch::shell(engine, &script).directory(directory.path()).finish();
    run.expect_code(0).expect_stdout(payload_digest());
    for name in ["file", "good.got", "command.got", "app", "seg.got"] {
        assert_eq!(digest_of_file(&directory.path().join(name), 0), payload_digest(), "{name}");
    }
}
