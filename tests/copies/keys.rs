//! What is said of one copy counts for that copy only.

use std::fs;

use tempfile::tempdir;

use crate::harness::{Engine, Launch, on_both_engines};

on_both_engines![each_copy_has_its_own, what_cannot_be_is_refused];

fn each_copy_has_its_own(engine: Engine) {
    let directory = tempdir().expect("directory");
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).expect(name);
    fs::write(directory.path().join("kept"), "before\n").expect("write");
    fs::write(directory.path().join("emptied"), "before\n").expect("write");
    let run = Launch::nproxy(engine)
        .args(["--tee=kept,append,streams=stdout", "--tee=emptied,streams=stderr"])
        .args(["--tee=clean,text=strip-ansi", "--tee=a,b.log"])
        .args(["sh", "-c", "printf '\\033[31mout\\033[m\\n'; echo err >&2"])
        .directory(directory.path())
        .finish();
    run.expect_code(0);
    assert_eq!(read("kept"), "before\n\x1b[31mout\x1b[m\n");
    assert_eq!(read("emptied"), "err\n");
    let clean = read("clean");
    assert!(clean == "out\nerr\n" || clean == "err\nout\n", "{clean:?}");
    assert_eq!(read("a,b.log").len(), "\x1b[31mout\x1b[m\nerr\n".len());
}

fn what_cannot_be_is_refused(engine: Engine) {
    let directory = tempdir().expect("directory");
    let too_long = format!("unix:{:0108}", 1);
    let cases = [
        ("log,rotate=five", "expected a size"),
        ("log,keep=3", "need rotate or every"),
        ("log,rotate=2M,total=1M", "total is less than rotate"),
        ("/dev/null,rotate=1M", "regular files"),
        ("tcp:127.0.0.1:9,rotate=1M", "are for files"),
        ("log,restart=never", "restart is for commands"),
        ("|", "expected |COMMAND"),
        ("journal:", "expected journal:IDENT"),
        ("unix:", "expected unix:PATH"),
        (&too_long, "at most 107 bytes"),
        ("", "an empty name"),
        ("log,full=wait", "expected block or drop"),
    ];
    for (target, why) in cases {
        let run = Launch::nproxy(engine)
            .args(["--tee", target, "touch", "started"])
            .directory(directory.path())
            .finish();
        run.expect_code(125).expect_output("").expect_one_line(&["--tee", why]);
        run.expect(!directory.path().join("started").exists(), "nothing was started");
    }
}
