//! The tools around nproxy, each run as a person would.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use nproxy::cli::{Cli, Detail};

use crate::harness::{Launch, nproxy_path};
use crate::outcome::Finished;
use crate::proc;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name)
}

/// A help text, which has to fit a terminal of 80 columns.
fn expect_help(help: &Finished, usage: &str) {
    help.expect_code(0).expect_silent();
    let text = help.stdout.text();
    help.expect(text.starts_with(usage), "its name in the usage");
    let long: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(long.is_empty(), "wider than a terminal: {long:#?}");
}

#[test]
fn each_has_a_help_text_and_refuses_nonsense() {
    for name in ["psd", "monitor-status.sh", "nproxy-run.sh", "install"] {
        let help = Launch::program(script(name)).arg("--help").finish();
        expect_help(&help, "usage: ");
        let wrong = Launch::program(script(name)).arg("--no-such-flag").finish();
        wrong.expect(wrong.status.code().is_some_and(|code| code != 0), "a refusal");
        wrong.expect(!wrong.stderr.text().is_empty(), "a reason");
    }
}

#[test]
fn psd_dumps_nproxy_itself() {
    let run = Launch::program(nproxy_path()).args(["sleep", "100"]).start();
    let child = proc::only_child(run.pid());
    let dump = Launch::program(script("psd")).arg(run.pid().to_string()).finish();
    dump.expect_code(0).expect_silent();
    let text = dump.stdout.text();
    let parts = [
        "== threads",
        "== processor time",
        "== mappings",
        "== memory",
        "VmRSS",
        "Max open files",
        "== descriptors",
        "pipe:[",
    ];
    for part in parts {
        dump.expect(text.contains(part), part);
    }
    dump.expect(text.contains(&format!("{child} sleep 100")), "its child");
    dump.expect(text.contains("unix, state"), "its status socket");
    dump.expect(!text.contains("TEST_RUN_OF_NPROXY"), "nothing of its environment");
}

#[test]
fn psd_wakes_what_is_stopped_only_when_asked() {
    let run = Launch::program("sleep").arg("100").start();
    run.signal(Signal::SIGSTOP);
    proc::until("it to stop", || (proc::state(run.pid()) == 'T').then_some(()));
    let dump = Launch::program(script("psd")).arg(run.pid().to_string()).finish();
    dump.expect_code(0).expect(dump.stdout.text().contains("--recover"), "an offer");
    assert_eq!(proc::state(run.pid()), 'T');
    let woken = Launch::program(script("psd")).arg("--recover").arg(run.pid().to_string()).finish();
    woken.expect_code(0).expect(woken.stdout.text().contains("runs again"), "success");
    proc::until("it to sleep again", || (proc::state(run.pid()) == 'S').then_some(()));
}

#[test]
fn psd_tells_of_a_pid_that_is_not_there() {
    let missing = Launch::program(script("psd")).arg("999999999").finish();
    missing.expect_code(1).expect_output("");
    assert_eq!(missing.stderr.text(), "psd: look at 999999999: no such process\n");
}

#[test]
fn monitor_status_shows_the_table() {
    let runtime = tempfile::tempdir().unwrap();
    let run = Launch::program(nproxy_path())
        .args(["sleep", "100"])
        .env("NPROXY_RUNTIME_DIR", runtime.path())
        .start();
    let socket = runtime.path().join(format!("nproxy/{}.sock", run.pid()));
    proc::until("the socket", || socket.exists().then_some(()));
    let shown = Launch::program(script("monitor-status.sh"))
        .words("--count 2 --interval 0.01")
        .env("NPROXY_RUNTIME_DIR", runtime.path())
        .finish();
    shown.expect_code(0);
    assert_eq!(shown.stdout.text().matches("sleep 100").count(), 2, "{}", shown.stdout.text());
}

#[test]
fn nproxy_run_knows_its_modes() {
    let directory = tempfile::tempdir().unwrap();
    let run = |mode: &str| {
        let run = Launch::program(script("nproxy-run.sh"))
            .directory(directory.path())
            .args([mode, "printf", "\\033[31mred\\033[m\\n"])
            .finish();
        run.expect_code(0);
        run
    };
    run("pass").expect_output("\x1b[31mred\x1b[m\n");
    run("strip").expect_output("red\n");
    let stamped = run("clean").stdout.text();
    assert!(stamped.starts_with("[20") && stamped.ends_with("] red\n"), "{stamped}");
    run("stats").expect_output("\x1b[31mred\x1b[m\n");
    run("log").expect_output("\x1b[31mred\x1b[m\n");
    assert_eq!(fs::read_to_string(directory.path().join("printf.log")).unwrap(), "red\n");
    let failed =
        Launch::program(script("nproxy-run.sh")).words("pass sh -c").arg("exit 7").finish();
    failed.expect_code(7);
}

/// It asks nproxy which options take a value. What it makes of each of them is read here from a program that stands for
/// nproxy and shows its words.
#[test]
fn nproxy_run_takes_every_option() {
    let directory = tempfile::tempdir().unwrap();
    let shows = directory.path().join("shows");
    let real = nproxy_path();
    let text = format!(
        "#!/bin/sh\n[ \"$*\" != --help ] || exec '{}' --help\nprintf '%s\\n' \"$@\"\n",
        real.display()
    );
    fs::write(&shows, text).unwrap();
    fs::set_permissions(&shows, PermissionsExt::from_mode(0o755)).unwrap();
    let (mut given, mut made) = (vec![], vec![]);
    for arg in Cli::definition(Detail::Full).get_arguments() {
        let name = match arg.get_long() {
            Some("help") | None => continue,
            Some(name) => format!("--{name}"),
        };
        let takes_value = arg.get_action().takes_values();
        let needs_value = takes_value && arg.get_num_args().is_none_or(|n| n.min_values() > 0);
        if takes_value && arg.is_hide_set() {
            // An older word, which no help tells of.
            given.push(format!("{name}=never"));
            made.push(format!("{name}=never"));
            continue;
        }
        given.push(name.clone());
        if needs_value {
            given.push("never".to_owned());
            made.push(format!("{name}=never"));
        } else {
            made.push(name);
        }
        if let Some(letter) = arg.get_short() {
            given.push(format!("-{letter}{letter}"));
            made.push(format!("-{letter}{letter}"));
        }
    }
    assert!(given.len() > 50, "{given:?}");
    for word in ["--stats=json", "--tee=a b", "--no-pty"] {
        given.push(word.to_owned());
        made.push(word.to_owned());
    }
    made.extend(["--", "a command", "--quiet"].map(str::to_owned));
    let run =
        |words: &[&str]| Launch::program(script("nproxy-run.sh")).env("NPROXY", &shows).args(words);
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let shown = run(&[&["pass"], &given[..], &["a command", "--quiet"]].concat()).finish();
    shown.expect_code(0).expect_silent();
    let shown = shown.stdout.text();
    assert_eq!(shown.lines().collect::<Vec<_>>(), made);
    for (words, why) in [
        (["pass", "--tee"], "--tee needs a value"),
        (["--te", "true"], "--te: not an option of nproxy"),
        (["--only", "true"], "--only: not an option of nproxy"),
        (["--t.e", "true"], "--t.e: not an option of nproxy"),
        (["--line-numbers", "--"], "no command"),
    ] {
        let refused = run(&words).finish();
        refused.expect_code(125).expect_output("");
        refused.expect(refused.stderr.text().contains(why), why);
    }
}

/// As it was called before: other names of modes, a mode left out, options, and the status.
#[test]
fn nproxy_run_knows_the_words_of_old() {
    let run = |words: &[&str]| {
        let run = Launch::program(script("nproxy-run.sh")).args(words).finish();
        run.expect_code(0);
        run.stdout.text()
    };
    let red = ["printf", "\\033[31mred\\033[m\\n"];
    let with = |words: &[&str]| run(&[words, &red].concat());
    assert_eq!(with(&[]), "\x1b[31mred\x1b[m\n");
    assert_eq!(with(&["passthrough", "--"]), "\x1b[31mred\x1b[m\n");
    assert_eq!(with(&["strip-ansi", "--"]), "red\n");
    assert!(with(&["transform", "--"]).starts_with("[20"));
    assert_eq!(run(&["passthrough", "--pty", "sh", "-c", "test -t 1 && echo yes"]), "yes\n");
    assert_eq!(run(&["--pty", "never", "sh", "-c", "test -t 1 || echo no"]), "no\n");
    let runtime = tempfile::tempdir().unwrap();
    let status = Launch::program(script("nproxy-run.sh"))
        .arg("status")
        .env("NPROXY_RUNTIME_DIR", runtime.path())
        .finish();
    status.expect_code(0).expect(status.stdout.text() == "no sessions\n", "their table");
}

#[test]
fn monitor_status_counts_restarts() {
    let runtime = tempfile::tempdir().unwrap();
    let session = || {
        let run = Launch::program(nproxy_path())
            .args(["sleep", "123"])
            .env("NPROXY_RUNTIME_DIR", runtime.path())
            .start();
        let socket = runtime.path().join(format!("nproxy/{}.sock", run.pid()));
        proc::until("the socket", || socket.exists().then_some(()));
        run
    };
    let first = session();
    let monitor = Launch::program(script("monitor-status.sh"))
        .words("--interval 0.05")
        .env("NPROXY_RUNTIME_DIR", runtime.path())
        .start();
    let shown = monitor.stdout.as_ref().expect("captured");
    shown.wait_for("sleep 123", 2);
    drop(first);
    let _second = session();
    shown.wait_for("restarts: 1 of sleep 123", 1);
}

#[test]
fn install_writes_aliases_and_shims() {
    let directory = tempfile::tempdir().unwrap();
    let prefix = directory.path().join("a prefix");
    let install = |words: &[&str]| {
        let run = Launch::program(script("install"))
            .arg("--prefix")
            .arg(&prefix)
            .arg("--binary")
            .arg(nproxy_path())
            .args(words)
            .finish();
        run.expect_code(0).expect_silent();
        run.stdout.text()
    };
    install(&["--alias", "red=printf 'it'\\''s %s\\n'", "--shim", "printf"]);
    install(&["--alias", "red=printf 'it'\\''s %s\\n'"]);
    let aliases = prefix.join("share/nproxy/aliases.sh");
    assert_eq!(fs::read_to_string(&aliases).unwrap().lines().count(), 1, "no line twice");
    // Options of nproxy stand in front of the command.
    install(&["--alias", "tag=--prefix '# ' -- printf", "--shim", "echo=--prefix='% '"]);
    let lines = fs::read_to_string(&aliases).unwrap();
    let line = lines.lines().find_map(|line| line.strip_prefix("alias tag='")).expect("the alias");
    assert!(line.ends_with(r"/bin/nproxy'\'' --prefix '\''# '\'' -- printf'"), "{line}");
    // A shell that reads them, with the line that the install has told to add, runs them.
    let told = install(&["--alias", "red=printf 'it'\\''s %s\\n'"]);
    let reads = told.lines().find_map(|line| line.split_once("zshrc: ")).expect("what to add").1;
    let aliased = format!("shopt -s expand_aliases; {reads}\nred red; tag 'b\\n'");
    Launch::program("bash")
        .args(["-c", &aliased])
        .finish()
        .expect_code(0)
        .expect_output("it's red\n# b\n");
    for wrong in [["--alias", "x=--quiet make"], ["--shim", "a/b"], ["--shim", "make=quiet"]] {
        Launch::program(script("install")).args(wrong).finish().expect_code(2);
    }
    // A program that is called by name only, so that what is found is the shim.
    let shims = prefix.join("lib/nproxy/shims");
    let script =
        "PATH=$1:$PATH; NPROXY_TEXT=transform NPROXY_TIMESTAMP='> ' command env printf 'a\\nb\\n'";
    let run = Launch::program("bash").args(["-c", script, "bash"]).arg(&shims).finish();
    run.expect_code(0).expect_output("> a\n> b\n");
    let run = Launch::program("bash")
        .args(["-c", "PATH=$1:$PATH; command env echo a", "bash"])
        .arg(&shims)
        .finish();
    run.expect_code(0).expect_output("% a\n");
    install(&["--uninstall"]);
    assert!(!aliases.exists() && !shims.exists());
}

#[test]
fn what_is_installed_can_be_uninstalled() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    let install = |flags: &str| {
        let run = Launch::program(script("install"))
            .arg("--destdir")
            .arg(&root)
            .arg("--binary")
            .arg(nproxy_path())
            .words(flags)
            .finish();
        run.expect_code(0).expect_silent();
    };
    install("");
    install("");
    for place in ["bin/nproxy", "share/man/man1/nproxy.1", "share/zsh/site-functions/_nproxy"] {
        assert!(root.join("usr/local").join(place).is_file(), "{place}");
    }
    // All that the Debian package has for people to read, and what that names.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let package = fs::read_to_string(here.join("Cargo.toml")).unwrap();
    let documents = package.split('"').filter_map(|word| word.strip_prefix("usr/share/doc/"));
    let documents: Vec<PathBuf> =
        documents.map(|name| root.join("usr/local/share/doc").join(name)).collect();
    assert!(documents.len() > 5, "{documents:?}");
    for document in documents {
        assert!(document.exists(), "{}", document.display());
    }
    let installed = root.join("usr/local/share/doc/nproxy");
    for directory in ["doc", "doc/bench"] {
        for entry in here.join(directory).read_dir().unwrap() {
            let name = entry.unwrap().file_name();
            let text = name.as_encoded_bytes();
            if directory == "doc/bench" || text.ends_with(b".md") || text.ends_with(b".json") {
                assert!(installed.join(directory).join(&name).is_file(), "{name:?}");
            }
        }
    }
    let version = Launch::program(root.join("usr/local/bin/nproxy")).arg("--version").finish();
    version.expect_code(0);
    for name in ["nproxy-psd", "nproxy-monitor-status", "nproxy-run"] {
        let tool = root.join("usr/local/bin").join(name);
        let help = Launch::program(&tool).arg("--help").finish();
        expect_help(&help, &format!("usage: {name} "));
        let wrong = Launch::program(&tool).args(["--no-such-flag", "x"]).finish();
        wrong.expect(wrong.stderr.text().starts_with(&format!("{name}: ")), "its installed name");
    }
    // Each finds the nproxy that was installed with it, whether or not PATH leads there.
    for (name, words) in [("nproxy-run", "pass true"), ("nproxy-monitor-status", "--count 1")] {
        let tool = root.join("usr/local/bin").join(name);
        let run = Launch::program("env")
            .words("-u NPROXY PATH=/usr/bin:/bin")
            .arg(tool)
            .words(words)
            // Another session of this user, which may be stopped, would be spoken of.
            .env("NPROXY_RUNTIME_DIR", directory.path());
        run.finish().expect_code(0).expect_silent();
    }
    // As an older version has left it.
    fs::remove_file(installed.join("files")).unwrap();
    fs::write(root.join("usr/local/bin/other"), "").unwrap();
    install("--uninstall");
    let left = Launch::program("find").arg(&root).words("-not -type d").finish();
    assert_eq!(left.stdout.text(), format!("{}\n", root.join("usr/local/bin/other").display()));
    assert!(!root.join("usr/local/share").exists());
}
