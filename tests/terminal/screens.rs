//! The same keys to the bare program and to the wrapped one, in a terminal emulator: the screens are the same.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::{TempDir, tempdir};

use crate::harness::{Engine, mark, need, nproxy_path, on_both_engines};
use crate::proc;

on_both_engines![editor, pager, pager_behind_a_pipe, interpreter, shell];

/// How long a screen has to be the same, and all programs behind it asleep, for it to be the answer to a key.
const SETTLED: Duration = Duration::from_millis(400);

/// How often in a row they have to be found asleep.
const AT_REST: usize = 3;

/// A tmux server of its own, with one window, and the directory where that is and its programs begin. The server has ended before
/// the directory goes, with its socket.
struct Window {
    directory: TempDir,
    socket: PathBuf,
    /// The variable that its programs are known by.
    mark: (&'static str, String),
}

impl Window {
    fn open(engine: Engine, wrapper: &str) -> Window {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = tempdir().expect("directory");
        let lines: String = (1..200).map(|line| format!("line {line} of the file\n")).collect();
        std::fs::write(directory.path().join("file"), lines).expect("file");
        let socket = directory.path().join(format!("tmux-{number}"));
        let window = Window { directory, socket, mark: mark() };
        let bin = nproxy_path().parent().expect("directory of nproxy").display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let shell = format!(
            "cd {}; stty -g >modes; exec env PATH={bin}:{path} NPROXY_ENGINE={} PS1='> ' W={wrapper} HISTFILE= LESS= \
             MODES=$PWD/modes bash --norc --noprofile -i",
            window.directory.path().display(),
            engine.name()
        );
        let sizes = ["new-session", "-d", "-x", "80", "-y", "24"];
        window.tmux(&[&sizes[..], &[&shell]].concat());
        window
    }

    fn tmux(&self, words: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-f", "/dev/null", "-S"])
            .arg(&self.socket)
            .args(words)
            .env_remove("TMUX")
            .env(self.mark.0, &self.mark.1)
            .output()
            .expect("tmux");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn screen(&self) -> String {
        let text = self.tmux(&["capture-pane", "-p", "-e"]);
        text + &self.tmux(&["display-message", "-p", "#{cursor_x},#{cursor_y} #{alternate_on}"])
    }

    /// The screen once it `fits` and has come to rest: it stays the same, and nobody runs who could change it, or would
    /// run if a processor were free.
    #[track_caller]
    fn settled(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let mut last = (String::new(), Instant::now(), 0);
        proc::until_or(
            what,
            || {
                std::thread::sleep(Duration::from_millis(20));
                let now = self.screen();
                if now != last.0 {
                    last = (now, Instant::now(), 0);
                }
                last.2 = if self.is_at_rest() { last.2 + 1 } else { 0 };
                let settled = last.1.elapsed() >= SETTLED && last.2 >= AT_REST;
                (settled && fits(&last.0)).then(|| last.0.clone())
            },
            || self.screen(),
        )
    }

    /// The variable as it stands in the environment of the window's programs.
    fn programs(&self) -> HashSet<String> {
        HashSet::from([format!("{}={}", self.mark.0, self.mark.1)])
    }

    /// Whether everything in the window sleeps; tmux itself is kept awake by being asked.
    fn is_at_rest(&self) -> bool {
        let programs = proc::with_environment(&self.programs()).into_iter();
        let mut programs = programs.filter(|pid| !proc::command_line(*pid).starts_with("tmux"));
        programs.all(proc::sleeps)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
        // A server that one of the programs was, if the test failed before it had ended.
        for pid in proc::with_environment(&self.programs()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// A key or line to send, or a new size, and what has to show before the screens are compared.
pub(super) enum Step<'s> {
    Keys(&'s [&'s str], &'s str),
    Size(&'s str, &'s str, &'s str),
}

impl Step<'_> {
    /// Takes the step, and gives the screen that is there then.
    #[track_caller]
    fn take(&self, window: &Window, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let expected = match self {
            Step::Keys(keys, expected) => {
                window.tmux(&[&["send-keys"], *keys].concat());
                expected
            }
            Step::Size(columns, rows, expected) => {
                window.tmux(&["resize-window", "-x", columns, "-y", rows]);
                expected
            }
        };
        window.settled(&format!("{expected:?} in {what}"), |screen| {
            screen.contains(expected) && fits(screen)
        })
    }
}

/// The last step of all: the terminal's modes are those from before the first program.
const SAME_MODES: Step<'_> =
    Step::Keys(&["clear; stty -g | cmp - $MODES && echo sa''me modes", "Enter"], "same modes");

/// Runs the steps bare and wrapped, and compares the screen after each. They end at the shell's prompt.
#[track_caller]
pub(super) fn compare(engine: Engine, steps: &[Step<'_>]) {
    if !need(&["tmux", "-V"]) {
        return;
    }
    let open = |wrapper: &str| {
        let window = Window::open(engine, wrapper);
        window.settled("the prompt", |screen| screen.contains('>'));
        window
    };
    let steps = || steps.iter().chain([&SAME_MODES]);
    let bare = open("env");
    let shots: Vec<_> =
        steps().map(|step| step.take(&bare, "the bare program's screen", |_| true)).collect();
    let wrapped = open("nproxy");
    for (number, (step, shot)) in steps().zip(&shots).enumerate() {
        let what = format!("step {number}, where the bare program's screen was\n{shot}\n");
        step.take(&wrapped, &what, |screen| screen == shot);
    }
}

fn editor(engine: Engine) {
    if !need(&["vim", "--version"]) {
        return;
    }
    compare(
        engine,
        &[
            Step::Keys(&["$W vim -u NONE -N '+set ttimeout ttm=10' file", "Enter"], "line 23 of"),
            Step::Keys(&["j", "j", "d", "d", "i", "HELLO", "Escape"], "HELLOline 4"),
            Step::Size("70", "15", "HELLOline 4"),
            Step::Keys(&["G"], "line 199"),
            Step::Keys(&["C-z"], "Stopped"),
            Step::Keys(&["fg", "Enter"], "line 199"),
            Step::Keys(&[":wq", "Enter"], "vim -u NONE -N '+set ttimeout ttm=10' file\n>"),
            Step::Keys(&["echo status=$?; head -n 4 file", "Enter"], "HELLOline 4"),
        ],
    );
}

fn pager(engine: Engine) {
    compare(
        engine,
        &[
            Step::Keys(&["$W less file", "Enter"], "line 23 of"),
            Step::Keys(&["Space"], "line 46 of"),
            Step::Size("70", "15", ":"),
            Step::Keys(&["/line 150", "Enter"], "line 150"),
            Step::Keys(&["C-z"], "Stopped"),
            Step::Keys(&["fg", "Enter"], "line 150"),
            Step::Keys(&["q"], "less file\n>"),
            Step::Keys(&["echo status=$?", "Enter"], "status=0"),
        ],
    );
}

fn pager_behind_a_pipe(engine: Engine) {
    compare(
        engine,
        &[
            Step::Keys(&["seq -f 'row %g.' 300 | $W less", "Enter"], "row 23."),
            Step::Keys(&["Space"], "row 46."),
            Step::Keys(&["C-z"], "Stopped"),
            Step::Keys(&["fg", "Enter"], "row 46."),
            Step::Keys(&["G"], "row 300."),
            Step::Keys(&["q"], "W less\n>"),
            Step::Keys(&["echo status=$?", "Enter"], "status=0"),
        ],
    );
}

fn interpreter(engine: Engine) {
    if !need(&["python3", "--version"]) {
        return;
    }
    compare(
        engine,
        &[
            Step::Keys(&["$W python3 -q", "Enter"], ">>>"),
            Step::Keys(&["import time; print(6*7); time.sleep(60)", "Enter"], "\n42"),
            Step::Keys(&["C-c"], "KeyboardInterrupt"),
            Step::Size("60", "20", ">>>"),
            Step::Keys(&["import os; os.get_terminal_size()", "Enter"], "columns=60, lines=20"),
            Step::Keys(&["C-d"], "\n>"),
            Step::Keys(&["echo status=$?", "Enter"], "status=0"),
        ],
    );
}

fn shell(engine: Engine) {
    compare(
        engine,
        &[
            Step::Keys(&["$W bash --norc --noprofile -i", "Enter"], "-i\n>"),
            Step::Keys(&["stty size", "Enter"], "24 80"),
            Step::Keys(&["cat", "Enter"], "cat"),
            Step::Keys(&["C-z"], "Stopped"),
            Step::Keys(&["fg", "Enter"], "fg\ncat"),
            Step::Keys(&["C-c"], "^C"),
            Step::Keys(&["echo inner=$?", "Enter"], "inner=130"),
            Step::Size("60", "20", "inner"),
            Step::Keys(&["stty size", "Enter"], "20 60"),
            Step::Keys(&["exit 5", "Enter"], "exit\n>"),
            Step::Keys(&["echo status=$?", "Enter"], "status=5"),
        ],
    );
}
