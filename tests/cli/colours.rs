//! Real programs with their colours on, through `--text=strip-ansi` to a terminal and to a pipe: what arrives is what
//! the same program prints with its colours off.

use std::path::Path;
use std::time::Instant;

use tempfile::tempdir;

use crate::harness::terminal::raw_sink;
use crate::harness::{Engine, Launch, need, on_both_engines, time_limit};

on_both_engines![
    listings,
    matches,
    a_commit_graph,
    compiler_errors,
    links_and_titles,
    spinner,
    colours_stay_where_they_are_not_asked_away,
];

/// Where the output of nproxy goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum To {
    Terminal,
    Pipe,
}

/// What arrives of a script's output behind `nproxy FLAGS`; both streams go to the same place.
#[track_caller]
fn through(engine: Engine, flags: &str, script: &str, directory: &Path, to: To) -> String {
    let launch = Launch::nproxy(engine)
        .words(flags)
        .args(["bash", "-c", script])
        .env("TERM", "xterm-256color")
        // The script must not see a terminal that the bare run beside it does not see.
        .env("NPROXY_PTY", "never")
        .directory(directory);
    if to == To::Pipe {
        let run = launch.finish();
        run.expect_silent();
        return run.stdout.text();
    }
    let (follower, arrived) = raw_sink();
    let stderr = follower.try_clone().expect("dup");
    let run = launch.stdout(follower).stderr(stderr).finish();
    arrived
        .finish(Instant::now() + time_limit())
        .unwrap_or_else(|| run.fail("the terminal was never closed"))
        .text()
}

/// The coloured script's output arrives without an ESC and equal to the plain script's, bare.
#[track_caller]
fn expect_stripped(engine: Engine, coloured: &str, plain: &str, directory: &Path) {
    let bare = |script: &str| {
        let run = Launch::program("bash")
            .args(["-c", script])
            .env("TERM", "xterm-256color")
            .directory(directory)
            .finish();
        run.stdout.text()
    };
    assert!(bare(coloured).contains('\x1b'), "`{coloured}` shows no colours here");
    let plain = bare(plain);
    assert!(!plain.is_empty() && !plain.contains('\x1b'), "the plain form is no plain text");
    for to in [To::Terminal, To::Pipe] {
        let arrived = through(engine, "--text=strip-ansi", coloured, directory, to);
        assert_eq!(arrived, plain, "`{coloured}` to {to:?}");
    }
}

fn listings(engine: Engine) {
    // A directory of its own below: what lies beside it, other tests change.
    let outer = tempdir().expect("directory");
    let directory = outer.path().join("inner");
    std::fs::create_dir(&directory).expect("mkdir");
    let make = "mkdir sub; touch a.tar 'with space' ünïcode; ln -s sub link; ln -s none broken; touch run; chmod +x run";
    Launch::shell(engine, make).directory(&directory).finish().expect_code(0);
    let ls = |flags: &str| format!("ls -la {flags}; ls -C -T 0 -w 60 {flags} /usr/bin /etc");
    expect_stripped(engine, &ls("--color=always"), &ls("--color=never"), &directory);
    // Every name becomes an OSC 8 hyperlink.
    let links = "ls --hyperlink=always --color=always";
    expect_stripped(engine, links, "ls", &directory);
}

fn matches(engine: Engine) {
    let directory = tempdir().expect("directory");
    let text = "seq 5000 > numbers; printf 'naïve café\\n' > words";
    Launch::shell(engine, text).directory(directory.path()).finish().expect_code(0);
    let grep = |colour: &str| format!("grep -nHE --color={colour} -B 1 '[37]+|é' numbers words");
    expect_stripped(engine, &grep("always"), &grep("never"), directory.path());
}

fn a_commit_graph(engine: Engine) {
    if !need(&["git", "--version"]) {
        return;
    }
    let directory = tempdir().expect("directory");
    let history = "
        export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
        export GIT_{AUTHOR,COMMITTER}_NAME=n GIT_{AUTHOR,COMMITTER}_EMAIL=e@example.org
        git init -qb main . && for round in 1 2 3; do
            echo $round > main-$round; git add .; git commit -qm \"main $round\"
            git checkout -qb side-$round
            echo $round > side-$round; git add .; git commit -qm \"side $round – ünïcode\"
            git checkout -q main; echo $round >> log; git add .; git commit -qm \"more $round\"
            git merge -q --no-edit side-$round
        done; git tag v1";
    Launch::shell(engine, history).directory(directory.path()).finish().expect_code(0);
    let log = |colour: &str| format!("git log --graph --all --stat -p --decorate --color={colour}");
    expect_stripped(engine, &log("always"), &log("never"), directory.path());
}

/// rustc's diagnostics by way of cargo: the program fails, so that no line tells a time.
fn compiler_errors(engine: Engine) {
    if !need(&["cargo", "--version"]) {
        return;
    }
    let directory = tempdir().expect("directory");
    let manifest =
        "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
    std::fs::create_dir(directory.path().join("src")).expect("mkdir");
    std::fs::write(directory.path().join("Cargo.toml"), manifest).expect("write");
    let source = "fn main() { let unused = 1; let x: u32 = \"text\"; missing(x) }\n";
    std::fs::write(directory.path().join("src/main.rs"), source).expect("write");
    let cargo = |colour: &str| {
        format!(
            "export CARGO_HOME=$PWD/home CARGO_TARGET_DIR=$PWD/target; cargo build --offline --color={colour} 2>&1"
        )
    };
    expect_stripped(engine, &cargo("always"), &cargo("never"), directory.path());
}

fn links_and_titles(engine: Engine) {
    let directory = tempdir().expect("directory");
    let coloured = r"
        printf '\e]0;building: 10%%\a'; printf '\e]2;done\e\\'
        printf 'see \e]8;id=1;https://example.org/?q=1;2\e\\the \e[1mbold\e[0m docs\e]8;;\e\\ for more\n'
        printf '\e]8;;file:///tmp/x\ax\e]8;;\a\n\e(B\e[m\e[?2004hprompt $ \e[?2004l\r\n'";
    let plain = r"printf 'see the bold docs for more\nx\nprompt $ \r\n'";
    expect_stripped(engine, coloured, plain, directory.path());
}

/// A spinner as npm and its like draw it: one line written again and again, the cursor hidden meanwhile. On a terminal
/// the cursor sequences stay, so that the end of the command shows it again; in a file there is no cursor.
fn spinner(engine: Engine) {
    let directory = tempdir().expect("directory");
    let draw = r"printf '\e[?25l'
        for frame in ⠋ ⠙ ⠹ ⠸; do
            printf '\r\e[2K\e[36m%s\e[39m installing \e[2mlodash\e[22m' $frame; done
        printf '\r\e[2K\e[?25hadded 1 package\n'";
    let frame = |frame| format!("\r{frame} installing lodash");
    let frames: String = ["⠋", "⠙", "⠹", "⠸"].map(frame).concat();
    let arrived = |to| through(engine, "--text=strip-ansi", draw, directory.path(), to);
    assert_eq!(arrived(To::Pipe), format!("{frames}\radded 1 package\n"));
    let shown = format!("\x1b[?25l{frames}\r\x1b[?25hadded 1 package\n");
    assert_eq!(arrived(To::Terminal), shown);
    // A log of it has no cursor either, whatever the screen is.
    let text = |to| {
        let log = format!("--tee={}", directory.path().join("log").display());
        let screen =
            through(engine, &format!("{log} --tee-text=strip-ansi"), draw, directory.path(), to);
        (screen, std::fs::read_to_string(directory.path().join("log")).expect("log"))
    };
    for to in [To::Terminal, To::Pipe] {
        let (screen, log) = text(to);
        assert_eq!(log, format!("{frames}\radded 1 package\n"));
        assert_eq!(screen.matches("\x1b[2K").count(), 5, "the screen keeps everything");
    }
}

/// Without text modes nothing is removed, at a terminal either.
fn colours_stay_where_they_are_not_asked_away(engine: Engine) {
    let directory = tempdir().expect("directory");
    let ls = "ls -la --color=always /usr/bin";
    let bare = Launch::program("bash").args(["-c", ls]).finish().stdout.text();
    for to in [To::Terminal, To::Pipe] {
        for flags in ["", "--text=off", "--text=passthrough"] {
            assert_eq!(through(engine, flags, ls, directory.path(), to), bare, "{flags} to {to:?}");
        }
    }
}
