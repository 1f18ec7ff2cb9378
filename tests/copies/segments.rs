//! Files that are finished at a line's end and begun anew.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::tempdir;

use crate::harness::{Engine, Launch, need, on_both_engines};
use crate::proc;

on_both_engines![
    segments_are_the_copy,
    text_modes_and_segments,
    an_existing_file_is_finished_and_never_emptied,
    old_segments_go,
    all_together_have_a_limit,
    one_that_cannot_be_removed_is_told_once,
    finished_segments_are_compressed,
    a_compressor_that_fails_leaves_them,
    long_lines_are_cut,
    age_ends_a_segment,
    a_moved_file_is_opened_anew,
    what_others_append_stays,
    one_writer_at_a_time,
];

/// The finished segments of `log`, in order.
pub(super) fn finished(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("directory");
    let mut all: Vec<PathBuf> = entries
        .map(|entry| entry.expect("entry").path())
        .filter(|path| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"log.2"))
        })
        .collect();
    all.sort();
    all
}

/// All segments of `log`, one behind the other.
pub(super) fn all_of(directory: &Path) -> Vec<u8> {
    let mut all: Vec<u8> = Vec::new();
    for path in finished(directory) {
        all.extend(fs::read(path).expect("segment"));
    }
    all.extend(fs::read(directory.join("log")).unwrap_or_default());
    all
}

/// What `seq 1 LAST` prints.
pub(super) fn numbers(last: u32) -> Vec<u8> {
    (1..=last).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("directory");
    entries.map(|entry| entry.expect("entry").file_name().into_string().expect("text")).collect()
}

fn segments_are_the_copy(engine: Engine) {
    let directory = tempdir().expect("directory");
    let run = Launch::nproxy(engine)
        .words("--stats=json --tee log,rotate=300K seq 1 1000000")
        .directory(directory.path())
        .finish();
    run.expect_code(0);
    let all = numbers(1_000_000);
    run.expect(run.leg("log", "bytes") == all.len() as u64, "all is counted");
    run.expect(run.leg("log", "lost_bytes") == 0, "nothing is lost");
    assert!(all_of(directory.path()) == all, "the segments are what was written");
    let segments = finished(directory.path());
    assert_eq!(segments.len(), all.len() / (300 << 10));
    for path in segments {
        let bytes = fs::read(path).expect("segment");
        assert!(bytes.len() >= 300 << 10 && bytes.len() < (300 << 10) + 8, "{}", bytes.len());
        assert_eq!(bytes.last(), Some(&b'\n'));
    }
    assert!(names(directory.path()).iter().all(|name| name.starts_with("log")));
}

fn text_modes_and_segments(engine: Engine) {
    let directory = tempdir().expect("directory");
    let run = Launch::nproxy(engine)
        .words("--tee log,rotate=64K,text=strip-ansi --text=off")
        .args(["sh", "-c", "seq 1 100000 | sed 's/.*/\x1b[31m&\x1b[m/'"])
        .directory(directory.path())
        .finish();
    run.expect_code(0).expect_silent();
    assert!(all_of(directory.path()) == numbers(100_000), "clean segments");
    assert!(finished(directory.path()).len() > 5);
}

/// A restart must not destroy the log of the crash.
fn an_existing_file_is_finished_and_never_emptied(engine: Engine) {
    let directory = tempdir().expect("directory");
    let run = |tee: &str, text: &str| {
        let run = Launch::nproxy(engine).args(["--tee", tee, "echo", text]);
        run.directory(directory.path()).finish().expect_code(0);
    };
    fs::write(directory.path().join("log"), "torn").expect("write");
    run("log,rotate=1M", "one");
    run("log,rotate=1M", "two");
    run("log,rotate=1M,append", "three");
    assert_eq!(all_of(directory.path()), b"tornone\ntwo\nthree\n");
    assert_eq!(finished(directory.path()).len(), 2);
    // A command that cannot be run changes nothing.
    let run = Launch::nproxy(engine)
        .words("--tee log,rotate=1M ./nothing")
        .directory(directory.path())
        .finish();
    run.expect_code(127);
    assert_eq!(finished(directory.path()).len(), 2);
}

fn old_segments_go(engine: Engine) {
    let directory = tempdir().expect("directory");
    fs::write(directory.path().join("log.1"), "somebody else's").expect("write");
    let run = Launch::nproxy(engine)
        .words("--tee log,rotate=100K,keep=3 seq 1 300000")
        .directory(directory.path())
        .finish();
    run.expect_code(0).expect_silent();
    assert_eq!(finished(directory.path()).len(), 3);
    let (all, kept) = (numbers(300_000), all_of(directory.path()));
    assert!(all.ends_with(&kept) && kept.len() > 300 << 10, "the newest stay");
    assert!(directory.path().join("log.1").exists());
}

fn all_together_have_a_limit(engine: Engine) {
    let directory = tempdir().expect("directory");
    let run = Launch::nproxy(engine)
        .words("--tee log,rotate=100K,total=450K seq 1 300000")
        .directory(directory.path())
        .finish();
    run.expect_code(0).expect_silent();
    let (all, kept) = (numbers(300_000), all_of(directory.path()));
    assert!(all.ends_with(&kept), "the newest stay");
    assert!(kept.len() <= 450 << 10 && kept.len() > 300 << 10, "{}", kept.len());
}

fn finished_segments_are_compressed(engine: Engine) {
    for (with, end, unpack) in [("gzip", "gz", "gzip"), ("zstd", "zst", "zstd")] {
        if !need(&[unpack, "--version"]) {
            continue;
        }
        let directory = tempdir().expect("directory");
        // What a run that was killed may leave.
        fs::write(directory.path().join(format!(".log.20200101T000000.000000Z.{end}")), "part")
            .expect("write");
        let run = Launch::nproxy(engine)
            .arg(format!("--tee=log,rotate=500K,compress={with}"))
            .words("seq 1 400000")
            .directory(directory.path())
            .finish();
        run.expect_code(0).expect_silent();
        let segments = finished(directory.path());
        assert!(segments.len() >= 4);
        let mut all = Vec::new();
        for path in &segments {
            assert_eq!(path.extension().and_then(|end| end.to_str()), Some(end));
            let plain =
                Command::new(unpack).arg("-dc").stdin(fs::File::open(path).expect("open")).output();
            all.extend(plain.expect(unpack).stdout);
        }
        all.extend(fs::read(directory.path().join("log")).expect("log"));
        assert!(all == numbers(400_000), "{with}");
        assert_eq!(names(directory.path()).len(), segments.len() + 1, "nothing else is left");
    }
}

fn a_compressor_that_fails_leaves_them(engine: Engine) {
    let directory = tempdir().expect("directory");
    let bin = directory.path().join("bin");
    fs::create_dir(&bin).expect("directory");
    let script = "
        printf '#!/bin/sh\\necho no room >&2; exit 1' > bin/gzip; chmod +x bin/gzip
        PATH=$PWD/bin:$PATH exec nproxy --tee log,rotate=100K,compress=gzip seq 1 100000";
    let run = Launch::shell(engine, script).directory(directory.path()).finish();
    run.expect_code(0).expect_one_line(&["compress with gzip: no room"]);
    assert!(all_of(directory.path()) == numbers(100_000));
}

/// A line longer than a segment is cut at twice its size, and said so once.
fn long_lines_are_cut(engine: Engine) {
    let directory = tempdir().expect("directory");
    let run = Launch::nproxy(engine)
        .words("--tee log,rotate=64K")
        .args(["sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end"])
        .directory(directory.path())
        .finish();
    run.expect_code(0).expect_one_line(&["log", "longer than a segment"]);
    let segments = finished(directory.path());
    assert!(segments.len() >= 7);
    let size = |path: &PathBuf| fs::metadata(path).expect("segment").len();
    assert!(segments[..7].iter().all(|path| size(path) == 128 << 10));
    let mut all = vec![b'x'; 1_000_000];
    all.extend(b"\nend\n");
    assert!(all_of(directory.path()) == all);
}

/// Not before a line has ended, and without another byte.
fn age_ends_a_segment(engine: Engine) {
    let directory = tempdir().expect("directory");
    let run = Launch::nproxy(engine)
        .words("--tee log,every=200ms")
        .args(["sh", "-c", "printf 'one '; while [ ! -e go ]; do sleep 0.05; done; echo two; while [ ! -e end ]; do sleep 0.05; done"])
        .directory(directory.path())
        .start();
    let log = directory.path().join("log");
    proc::until("the first bytes", || (fs::read(&log).ok()? == b"one ").then_some(()));
    // Its time is over several times; the line is not.
    let since = std::time::Instant::now();
    proc::until("a second", || (since.elapsed().as_millis() > 1000).then_some(()));
    assert_eq!(finished(directory.path()).len(), 0);
    fs::write(directory.path().join("go"), "").expect("write");
    let first = proc::until("a finished segment", || finished(directory.path()).first().cloned());
    assert_eq!(fs::read(first).expect("segment"), b"one two\n");
    fs::write(directory.path().join("end"), "").expect("write");
    run.finish().expect_code(0);
}

/// As logrotate(8) does it.
fn a_moved_file_is_opened_anew(engine: Engine) {
    let directory = tempdir().expect("directory");
    let run = Launch::nproxy(engine)
        .words("--tee log,reopen")
        .args(["sh", "-c", "echo one; while [ ! -e go ]; do sleep 0.05; done; echo two"])
        .directory(directory.path())
        .start();
    let (log, moved) = (directory.path().join("log"), directory.path().join("log.1"));
    proc::until("the first line", || (fs::read(&log).ok()? == b"one\n").then_some(()));
    fs::rename(&log, &moved).expect("rename");
    proc::until("a new file", || log.exists().then_some(()));
    fs::write(directory.path().join("go"), "").expect("write");
    run.finish().expect_code(0);
    assert_eq!(fs::read(moved).expect("moved"), b"one\n");
    assert_eq!(fs::read(log).expect("log"), b"two\n");
}

fn one_writer_at_a_time(engine: Engine) {
    let directory = tempdir().expect("directory");
    let first = Launch::nproxy(engine)
        .words("--tee log,rotate=1M")
        .args(["sh", "-c", "echo one; exec sleep 100"])
        .directory(directory.path())
        .start();
    let log = directory.path().join("log");
    proc::until("the first line", || (fs::read(&log).ok()? == b"one\n").then_some(()));
    let second = Launch::nproxy(engine)
        .words("--tee log,rotate=1M touch started")
        .directory(directory.path())
        .finish();
    second.expect_code(125).expect_one_line(&["log", "another nproxy"]);
    assert!(!directory.path().join("started").exists());
    drop(first);
}

/// A file that is appended to is not ours alone, also after it was moved.
fn what_others_append_stays(engine: Engine) {
    let directory = tempdir().expect("directory");
    let log = directory.path().join("log");
    let launch =
        || Launch::nproxy(engine).words("--tee log,append,reopen").directory(directory.path());
    let append = || {
        launch().words("echo others").finish().expect_code(0);
    };
    let (reader, mut go) = std::io::pipe().expect("pipe");
    let script = "for line in one two three four; do echo $line; read -r go; done; :";
    let run = launch().args(["sh", "-c", script]).stdin(reader).start();
    let expect = |text: &str| {
        proc::until_or(
            &format!("{text:?} in the log"),
            || (fs::read_to_string(&log).ok()? == text).then_some(()),
            || format!("{:?}", fs::read_to_string(&log)),
        );
    };
    expect("one\n");
    append();
    go.write_all(b"\n").expect("write");
    expect("one\nothers\ntwo\n");
    fs::rename(&log, directory.path().join("log.1")).expect("rename");
    proc::until("a new file", || log.exists().then_some(()));
    go.write_all(b"\n").expect("write");
    expect("three\n");
    append();
    go.write_all(b"\n").expect("write");
    expect("three\nothers\nfour\n");
    drop(go);
    run.finish().expect_code(0).expect_silent();
    let moved = fs::read_to_string(directory.path().join("log.1")).expect("moved");
    assert_eq!(moved, "one\nothers\ntwo\n");
}

/// And the others go all the same.
fn one_that_cannot_be_removed_is_told_once(engine: Engine) {
    if !need(&["unshare", "-rm", "mount", "--bind", "/etc/passwd", "/etc/passwd"]) {
        return;
    }
    let directory = tempdir().expect("directory");
    // What something is mounted on stays where it is.
    let script = "
        old=log.20200101T000000.000000Z; head -c 200000 /dev/zero > $old && mount --bind $old $old || exit 9
        exec nproxy --tee log,rotate=100K,total=150K seq 1 300000";
    let run = Launch::program("unshare")
        .args(["-rm", "bash", "-c", script])
        .env("NPROXY_ENGINE", engine.name())
        .directory(directory.path())
        .finish();
    run.expect_code(0).expect_one_line(&["remove a segment of log", "busy"]);
    assert_eq!(finished(directory.path()).len(), 2, "that one and another");
    let (all, kept) = (numbers(300_000), all_of(directory.path()));
    assert!(all.ends_with(&kept[200_000..]), "the newest stay");
}
