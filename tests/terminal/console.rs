//! nproxy as the leader of a session on a terminal that the test holds.

use std::fs::File;
use std::io::Write;
use std::process::Stdio;

use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::capture::Capture;
use crate::harness::terminal::open_leader;
use crate::harness::{Engine, Launch, Running, nproxy_path, peer_path};
use crate::proc;

pub(crate) const CTRL_C: &str = "\x03";
pub(crate) const CTRL_D: &str = "\x04";
pub(crate) const CTRL_Q: &str = "\x11";
pub(crate) const CTRL_S: &str = "\x13";
pub(crate) const CTRL_Z: &str = "\x1a";
pub(crate) const CTRL_BACKSLASH: &str = "\x1c";

/// A terminal, and what runs on it.
pub(crate) struct Console {
    /// The leader: it is written to, and its modes are the follower's.
    pub(crate) keys: File,
    pub(crate) screen: Capture,
    pub(crate) run: Running,
    /// The modes before anything ran.
    pub(crate) before: Termios,
}

impl Console {
    /// `nproxy WORDS`, with fds 0 to 2 on the terminal.
    pub(crate) fn nproxy(engine: Engine, words: &[&str]) -> Console {
        let nproxy = nproxy_path().to_str().expect("a path in UTF-8").to_owned();
        let own = [nproxy, "--engine".into(), engine.name().into()];
        let words = own.into_iter().chain(words.iter().map(|word| (*word).to_owned()));
        Console::start(engine, words, |modes| modes)
    }

    /// The same with nothing in between, for comparison.
    pub(crate) fn bare(words: &[&str]) -> Console {
        Console::start(Engine::Epoll, words.iter().map(|word| (*word).to_owned()), |modes| modes)
    }

    /// `nproxy WORDS` on a terminal in raw mode.
    pub(crate) fn nproxy_raw(engine: Engine, words: &[&str]) -> Console {
        let nproxy = nproxy_path().to_str().expect("a path in UTF-8").to_owned();
        let own = [nproxy, "--engine".into(), engine.name().into()];
        let words = own.into_iter().chain(words.iter().map(|word| (*word).to_owned()));
        Console::start(engine, words, |mut modes| {
            nix::sys::termios::cfmakeraw(&mut modes);
            modes
        })
    }

    fn start(
        engine: Engine,
        words: impl Iterator<Item = String>,
        change: impl FnOnce(Termios) -> Termios,
    ) -> Console {
        let (leader, path) = open_leader();
        let keys = File::from(leader.try_clone().expect("dup"));
        let size = Winsize { ws_row: 25, ws_col: 81, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&keys, size).expect("TIOCSWINSZ");
        let modes = change(tcgetattr(&keys).expect("tcgetattr"));
        tcsetattr(&keys, SetArg::TCSANOW, &modes).expect("tcsetattr");
        let before = tcgetattr(&keys).expect("tcgetattr");
        let run = Launch::program(peer_path())
            .arg("with")
            .arg(format!("tty={path}"))
            .arg("--")
            .args(words)
            .env("TERM", "dumb")
            .env("NPROXY_ENGINE", engine.name())
            .in_our_group()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .start();
        Console { keys, screen: Capture::of(leader), run, before }
    }

    pub(crate) fn modes(&self) -> Termios {
        tcgetattr(&self.keys).expect("tcgetattr")
    }

    /// Waits until the child runs at its terminal: its monitor, and the child.
    #[track_caller]
    pub(crate) fn wait_until_started(&self) -> (i32, i32) {
        let monitor = proc::until("a monitor", || proc::children(self.run.pid()).first().copied());
        (monitor, proc::only_child(monitor))
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("keys");
    }

    /// Changes the size, as a user who drags the window's corner.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.keys, size).expect("TIOCSWINSZ");
    }

    /// What is on the screen.
    pub(crate) fn text(&self) -> String {
        self.screen.so_far().text()
    }
}

impl Console {
    /// Waits until nproxy has ended, without reaping it.
    #[track_caller]
    pub(crate) fn wait_for_end(&mut self) {
        let pid = self.run.pid();
        proc::until_or(
            "the end of the run",
            || matches!(proc::state(pid), 'X' | 'Z').then_some(()),
            || self.text(),
        );
    }
}
