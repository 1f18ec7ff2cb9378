//! The report at the end agrees with what was really moved, and with its schema.

use std::fs;

use serde_json::Value;

use super::schema::all_fit;
use crate::harness::{Engine, Launch, on_both_engines, payload_bytes, payload_digest};

on_both_engines!(
    figures_agree_with_the_truth,
    every_report_fits_the_schema,
    a_report_goes_into_a_file,
    a_report_goes_into_a_descriptor,
    what_it_waited_for_is_told,
    a_slow_copy_is_told,
    what_did_not_happen_is_not_told,
    levels_decide_what_is_recorded,
);

#[track_caller]
fn fits(report: &Value) {
    all_fit("stats", [report]);
}

fn stream<'a>(report: &'a Value, name: &str) -> &'a Value {
    let streams = report["streams"].as_array().expect("streams");
    streams.iter().find(|stream| stream["stream"] == name).expect(name)
}

/// Behind what was written there before, by the run too.
fn a_report_goes_into_a_descriptor(engine: Engine) {
    for name in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let directory = tempfile::tempdir().unwrap();
        let script = format!("echo old >log; nproxy --stats-file {name} echo hi >>log");
        let run = Launch::shell(engine, &script).directory(directory.path()).finish();
        run.expect_code(0).expect_silent();
        let log = fs::read_to_string(directory.path().join("log")).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!((lines.len(), &lines[..2]), (3, &["old", "hi"][..]), "{name}");
        fits(&serde_json::from_str(lines[2]).expect(lines[2]));
    }
    let run = Launch::nproxy(engine).args(["--stats-file", "/dev/fd/77", "true"]).finish();
    run.expect_code(125).expect_one_line(&["--stats-file: cannot open /dev/fd/77"]);
}

fn figures_agree_with_the_truth(engine: Engine) {
    let run = Launch::nproxy(engine)
        .words("--stats=json peer write")
        .arg(payload_bytes().to_string())
        .arg("64K")
        .finish();
    run.expect_code(0).expect_stdout(payload_digest());
    let report = run.stats();
    fits(&report);
    let stdout = stream(&report, "stdout");
    let sizes = &stdout["recorded"]["transfer_bytes"];
    assert_eq!(stdout["bytes"], payload_bytes());
    assert_eq!(sizes["count"], stdout["operations"], "{report}");
    let operations = stdout["operations"].as_f64().unwrap();
    let mean = sizes["mean"].as_f64().unwrap();
    assert!((mean * operations - payload_bytes() as f64).abs() < 1.0, "{report}");
    let gaps = &stdout["recorded"]["interarrival_seconds"];
    assert_eq!(gaps["count"].as_f64().unwrap(), operations - 1.0, "{report}");
    // The clock outside also sees the start of the program and its end.
    let told = report["elapsed_seconds"].as_f64().unwrap();
    assert!(told <= run.elapsed.as_secs_f64(), "{told} of {:?}", run.elapsed);
    let rate = stdout["bytes_per_second"].as_f64().unwrap();
    assert!((rate * told / payload_bytes() as f64 - 1.0).abs() < 0.02, "{report}");
}

fn every_report_fits_the_schema(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    for flags in ["", "--observe=off", "--observe=summary", "--text=strip-ansi", "--monitor=off"] {
        let run = Launch::nproxy(engine)
            .arg("--stats=json")
            .words(flags)
            .arg("--tee")
            .arg(&log)
            .args(["sh", "-c", "echo out; exit 7"])
            .finish();
        fits(&run.expect_code(7).stats());
    }
    let filter = Launch::nproxy(engine).arg("--stats=json").finish();
    fits(&filter.expect_code(0).stats());
}

fn a_report_goes_into_a_file(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report");
    fs::write(&path, "something longer than the report ".repeat(1000)).unwrap();
    let file = format!("--stats-file={}", path.display());
    let run = Launch::nproxy(engine).arg(&file).args(["echo", "hello"]).finish();
    run.expect_code(0).expect_output("hello\n").expect_silent();
    let report: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    fits(&report);
    assert_eq!(stream(&report, "stdout")["bytes"], 6);
    let run = Launch::nproxy(engine).arg(&file).words("--stats=text echo hello").finish();
    run.expect_code(0).expect_silent();
    let table = fs::read_to_string(&path).unwrap();
    assert!(table.contains("transfers") && table.contains("median"), "{table}");
    // Nothing is run whose report could not be written.
    let nowhere = directory.path().join("no/such/directory");
    let run = Launch::nproxy(engine).arg("--stats-file").arg(nowhere).args(["echo", "x"]).finish();
    run.expect_code(125)
        .expect_output("")
        .expect_one_line(&["--stats-file: cannot open", "No such file"]);
    // Nor does anything wait for somebody to read it.
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let run = Launch::nproxy(engine).arg("--stats-file").arg(fifo).args(["echo", "x"]).finish();
    run.expect_code(125).expect_output("").expect_one_line(&["--stats-file: cannot open", "fifo"]);
}

fn what_it_waited_for_is_told(engine: Engine) {
    let waits = |script: &str| {
        let run = Launch::shell(engine, script).finish();
        let report = run.expect_code(0).stats();
        let recorded = &stream(&report, "stdout")["recorded"];
        let wait = |who: &str| recorded[format!("waited_for_{who}_seconds")].as_f64().unwrap();
        (wait("writer"), wait("reader"))
    };
    let (writer, reader) = waits("nproxy --stats=json sh -c 'echo a; sleep 0.5; echo b' | cat");
    assert!(writer >= 0.4 && reader < 0.2, "writer {writer}, reader {reader}");
    // Sixteen blocks, each after the reader has slept.
    let slow = "nproxy --stats=json peer write 8M 64K | peer read 1M --delay 60 >/dev/null";
    let (writer, reader) = waits(slow);
    assert!(reader >= 0.15 && reader > 2.0 * writer, "writer {writer}, reader {reader}");
}

/// A copy that is read late is what everything waits for, at the end and while it lasts.
fn a_slow_copy_is_told(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    let script = "mkfifo copy go; { read go <go; cat >/dev/null; } <copy &
        NPROXY_RUNTIME_DIR=$PWD nproxy --stats=json --stats-file=report --tee copy peer write 8M 64K >/dev/null &
        until nproxy_status | grep -q '  copy  '; do sleep 0.01; done
        sleep 0.3; echo >go; wait $!
        cat report >&2";
    let status = "NPROXY_RUNTIME_DIR=$PWD nproxy --status 2>/dev/null";
    let script = script.replace("nproxy_status", status);
    let run = Launch::shell(engine, &script).directory(directory.path()).finish();
    let report = run.expect_code(0).stats();
    fits(&report);
    let recorded = &stream(&report, "stdout")["recorded"];
    let wait = |who: &str| recorded[format!("waited_for_{who}_seconds")].as_f64().unwrap();
    assert!(wait("copies") >= 0.25, "{report}");
    assert!(wait("reader") < wait("copies") / 2.0, "{report}");
    assert_eq!(report["copies"][0]["bytes"], 8 << 20);
}

fn what_did_not_happen_is_not_told(engine: Engine) {
    let run = Launch::nproxy(engine).words("--stats echo hello").finish();
    run.expect_code(0).expect_output("hello\n");
    let text = run.stderr.text();
    assert!(text.contains("\nstdout ") && !text.contains("stderr"), "{text}");
    for word in ["undelivered", "delivered", "lost", "OOM", "gate", "copy", "stage"] {
        assert!(!text.contains(word), "{word} in {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

fn levels_decide_what_is_recorded(engine: Engine) {
    let recorded = |level: &str| {
        let run = Launch::nproxy(engine)
            .arg(format!("--observe={level}"))
            .words("--stats=json echo x")
            .finish();
        let report = run.expect_code(0).stats();
        assert_eq!(report["observe"], level);
        stream(&report, "stdout")["recorded"].is_object()
    };
    assert!(recorded("full") && recorded("summary") && !recorded("off"));
}
