//! `doc/recipes.md`: every command in it is run as it stands there.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use crate::harness::accept::{Accept as _, free_address};
use crate::harness::outcome::Finished;
use crate::harness::{Engine, Launch, need, nproxy_path, on_both_engines};

on_both_engines![
    make,
    cargo,
    npm,
    docker,
    ci,
    parallel_builds,
    systemd,
    pid_1,
    cron,
    rsyslog,
    redis,
    a_collector_that_may_be_away,
];

/// Those of [`on_both_engines`] above.
const TESTED: [&str; 12] = [
    "A collector that may be away",
    "CI",
    "PID 1 in a container",
    "Parallel builds",
    "cargo",
    "cron",
    "docker",
    "make",
    "npm",
    "redis",
    "rsyslog",
    "systemd",
];

#[test]
fn every_recipe_is_tested() {
    let names: Vec<String> = recipes().into_keys().collect();
    assert_eq!(names, TESTED);
}

/// The block of code under each heading.
fn recipes() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("doc/recipes.md");
    let text = fs::read_to_string(path).expect("doc/recipes.md");
    let sections = text.split("\n## ").skip(1).map(|section| {
        let (name, rest) = section.split_once('\n').expect("a heading");
        let block = rest.split("```").nth(1).expect("a block");
        let (_language, code) = block.split_once('\n').expect("a language");
        (name.to_owned(), code.to_owned())
    });
    sections.collect()
}

fn recipe(name: &str) -> String {
    recipes().remove(name).unwrap_or_else(|| panic!("no recipe `{name}`"))
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("directory");
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("parent")).expect("directory");
        fs::write(&path, text).expect("file");
        if text.starts_with("#!") {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
        }
    }
    directory
}

/// Runs a line of shell in a directory whose programs come first.
fn run(engine: Engine, line: &str, directory: &TempDir) -> Finished {
    let own = directory.path().display();
    Launch::shell(engine, &format!("PATH={own}:$PATH; {line}")).directory(directory.path()).finish()
}

fn log(directory: &TempDir, name: &str) -> String {
    fs::read_to_string(directory.path().join(name)).expect(name)
}

/// The first run succeeds and the second fails.
const MAKEFILE: &str = "all test:\n\t@echo building; echo careful >&2; test ! -e broken\n";

fn make(engine: Engine) {
    if !need(&["make", "--version"]) {
        return;
    }
    let place = directory(&[("Makefile", MAKEFILE)]);
    run(engine, &recipe("make"), &place).expect_code(0).expect_output("").expect_silent();
    fs::write(place.path().join("broken"), "").expect("file");
    let bare = run(engine, "make -j8", &place);
    let failed = run(engine, &recipe("make"), &place);
    failed.expect_code(2).expect_output(&bare.stdout.text());
    failed.expect(failed.stderr.text() == bare.stderr.text(), "stderr as bare");
}

fn cargo(engine: Engine) {
    if !need(&["cargo", "--version"]) {
        return;
    }
    let manifest =
        "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
    let place = directory(&[("Cargo.toml", manifest), ("src/main.rs", "fn main() {}\n")]);
    run(engine, &recipe("cargo"), &place).expect_code(0);
    let text = log(&place, "build.log");
    assert!(text.contains("Compiling tiny") && text.contains("Finished"), "{text:?}");
    assert!(!text.contains(['\r', '\u{1b}']), "{text:?}");
}

fn npm(engine: Engine) {
    if !need(&["npm", "--version"]) {
        return;
    }
    let package = r#"{"name": "tiny", "scripts": {"build": "echo built; test ! -e broken"}}"#;
    let place = directory(&[("package.json", package)]);
    run(engine, &recipe("npm"), &place).expect_code(0).expect_output("");
    fs::write(place.path().join("broken"), "").expect("file");
    let failed = run(engine, &recipe("npm"), &place);
    failed.expect_code(1).expect(failed.stdout.text().contains("built"), "what npm printed");
}

/// No docker runs here: a script draws as its build does, one line over the other.
fn docker(engine: Engine) {
    let script = "#!/bin/sh\nprintf '[1/2] 10%%\\n[2/2] 0%%\\n'; sleep .1\n\
        printf '\\033[2A\\033[K[1/2] done\\n\\033[K[2/2] done\\n'\n";
    let place = directory(&[("docker", script)]);
    run(engine, &recipe("docker"), &place).expect_code(0);
    assert_eq!(log(&place, "image.log"), "[1/2] done\n[2/2] done\n");
}

fn ci(engine: Engine) {
    if !need(&["make", "--version"]) {
        return;
    }
    let place = directory(&[("Makefile", MAKEFILE)]);
    run(engine, &recipe("CI"), &place).expect_code(0).expect_output("").expect_silent();
    let text = log(&place, "test.log");
    assert!(text.contains("building\n") && text.contains("careful\n"), "{text:?}");
    fs::write(place.path().join("broken"), "").expect("file");
    let failed = run(engine, &recipe("CI"), &place);
    failed.expect_code(2).expect(failed.stdout.text().contains("building"), "shown");
}

fn parallel_builds(engine: Engine) {
    if !need(&["make", "--version"]) {
        return;
    }
    let makefile = "all:\n\t@seq 5000\n";
    let names = ["a/Makefile", "b/Makefile", "c/Makefile", "d/Makefile"];
    let place = directory(&names.map(|name| (name, makefile)));
    run(engine, &recipe("Parallel builds"), &place).expect_code(0);
    let text = log(&place, "all.log");
    for name in ["a", "b", "c", "d"] {
        let prefix = format!("{name}/ ");
        let own = text.lines().filter_map(|line| line.strip_prefix(&prefix));
        let numbers: Vec<u32> = own.filter_map(|rest| rest.parse().ok()).collect();
        assert_eq!(numbers, (1..=5000).collect::<Vec<_>>(), "{name}");
    }
}

fn systemd(engine: Engine) {
    let place = directory(&[(
        "app",
        "#!/bin/sh\ntrap 'echo ended; exit 0' TERM\necho up\nkill -TERM $PPID; while :; do sleep .1; done\n",
    )]);
    let own = place.path().display().to_string();
    let unit = recipe("systemd")
        .replace("/usr/bin/nproxy", &nproxy_path().display().to_string())
        .replace("/usr/bin/app", &format!("{own}/app"))
        .replace("/var/log/app", &own);
    if need(&["systemd-analyze", "--version"]) {
        fs::write(place.path().join("app.service"), &unit).expect("unit");
        let checked = run(engine, "systemd-analyze verify ./app.service", &place);
        checked.expect_code(0).expect_silent();
    }
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("ExecStart");
    let done = run(engine, &format!("exec {line}"), &place);
    done.expect_code(0).expect_output("up\nended\n");
    assert_eq!(log(&place, "app.log"), "up\nended\n");
}

fn pid_1(engine: Engine) {
    if !need(&["unshare", "-rpf", "--mount-proc", "true"]) {
        return;
    }
    let script = "#!/bin/sh\n(sh -c 'sleep .2' &)\necho $PPID; trap 'exit 7' TERM; kill -TERM 1; while :; do sleep .1; done\n";
    let place = directory(&[("app", script)]);
    let text = recipe("PID 1 in a container")
        .replace("/usr/bin/nproxy", &nproxy_path().display().to_string())
        .replace("/usr/bin/app", &place.path().join("app").display().to_string());
    let words = text.lines().filter_map(|line| line.split_once(' '));
    let words =
        words.flat_map(|(_, list)| serde_json::from_str::<Vec<String>>(list).expect("a list"));
    let done = Launch::program("unshare")
        .args(["-rpf", "--mount-proc"])
        .args(words)
        .env("NPROXY_ENGINE", engine.name())
        .finish();
    done.expect_code(7).expect_output("1\n");
}

/// cron(8) runs the rest of the line by sh, with little else in the environment than PATH.
fn cron(engine: Engine) {
    let place = directory(&[("backup", "#!/bin/sh\necho saving; test ! -e broken || exit 9\n")]);
    let own = place.path().display().to_string();
    let text = recipe("cron").replace("/usr/local/bin", &own).replace("/usr/bin/nproxy", "nproxy");
    let line = text.trim_end().splitn(6, ' ').nth(5).expect("a command").to_owned();
    let job = format!("exec env -i PATH=\"$PATH\" NPROXY_ENGINE={} sh -c '{line}'", engine.name());
    run(engine, &job, &place).expect_code(0).expect_output("").expect_silent();
    fs::write(place.path().join("broken"), "").expect("file");
    run(engine, &job, &place).expect_code(9).expect_output("saving\n").expect_silent();
}

fn rsyslog(engine: Engine) {
    let place = directory(&[("app", "#!/bin/sh\necho up; printf '\\033[31mdown\\033[m\\n'\n")]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    let heard = std::thread::spawn(move || {
        let mut peer = listener.connection();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut peer, &mut text).expect("text");
        text
    });
    let line = recipe("rsyslog").replace("127.0.0.1:5514", &address);
    run(engine, &line, &place).expect_code(0).expect_output("up\n\u{1b}[31mdown\u{1b}[m\n");
    assert_eq!(heard.join().expect("the collector"), "<14>app: up\n<14>app: down\n");
}

/// No redis-server runs here: what redis-cli is given is what counts.
fn redis(engine: Engine) {
    let app = "#!/bin/sh\necho one two; printf '%s\\n' 'say \"hello\" \\n'\n";
    let place = directory(&[("app", app), ("redis-cli", "#!/bin/sh\ncat > given\n")]);
    run(engine, &recipe("redis"), &place).expect_code(0).expect_silent();
    let given = "RPUSH app \"one two\"\nRPUSH app \"say \\\"hello\\\" \\\\n\"\n";
    assert_eq!(log(&place, "given"), given);
}

/// The collector comes once the first line is written.
fn a_collector_that_may_be_away(engine: Engine) {
    let place = directory(&[("app", "#!/bin/sh\necho one; read -r go; echo two\n")]);
    let spool = place.path().join("spool");
    fs::create_dir(&spool).expect("directory");
    let address = free_address();
    let command = recipe("A collector that may be away")
        .replace("loghost:5140", &address.to_string())
        .replace("/var/spool/app", &spool.display().to_string())
        .replace("-- app", "-- ./app");
    let (reader, go) = std::io::pipe().expect("pipe");
    let run = Launch::shell(engine, &command).directory(place.path()).stdin(reader).start();
    run.stderr.as_ref().expect("captured").wait_for("tried again", 1);
    let listener = TcpListener::bind(address).expect("bind");
    drop(go);
    let mut peer = listener.connection();
    let mut got = String::new();
    peer.read_to_string(&mut got).expect("read");
    drop(peer);
    run.finish().expect_code(0).expect_output("one\ntwo\n");
    assert_eq!(got, "one\ntwo\n");
}
