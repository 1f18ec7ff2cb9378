//! A real terminal for the tests: a pty whose leader the test holds, and programs that run in a session on it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::libc::O_NOCTTY;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::capture::Capture;
use crate::harness::{Engine, Launch, Running, peer_path};

/// What bash prints when it waits for a command.
const PROMPT: &str = "at your command> ";

/// A pty follower in raw mode, to be written to, and what its leader got.
pub(crate) fn raw_sink() -> (OwnedFd, Capture) {
    let (leader, follower) = raw_pair();
    (follower, Capture::of(leader))
}

/// Leader and follower of a pty in raw mode.
pub(crate) fn raw_pair() -> (OwnedFd, OwnedFd) {
    let (leader, path) = open_leader();
    let follower = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(O_NOCTTY)
        .open(path)
        .expect("open the follower");
    let mut modes = tcgetattr(&follower).expect("tcgetattr");
    cfmakeraw(&mut modes);
    tcsetattr(&follower, SetArg::TCSANOW, &modes).expect("tcsetattr");
    (leader, follower.into())
}

/// A new pty's leader, and the path of its follower. openpty(3) would leave both to the programs that other tests
/// start at this moment.
pub(crate) fn open_leader() -> (OwnedFd, String) {
    let leader = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).expect("pty");
    grantpt(&leader).expect("grantpt");
    unlockpt(&leader).expect("unlockpt");
    let path = ptsname_r(&leader).expect("ptsname");
    (leader.as_fd().try_clone_to_owned().expect("dup"), path)
}

/// A terminal with an interactive bash on it, job control and all.
pub(crate) struct Terminal {
    keys: File,
    pub(crate) screen: Capture,
    pub(crate) shell: Running,
    prompts: usize,
}

impl Terminal {
    /// Under it, commands get pipes: what is tested is how nproxy shares the terminal with them.
    pub(crate) fn open(engine: Engine, directory: &Path) -> Terminal {
        Terminal::open_with(engine, directory, "never", "--noediting")
    }

    /// `pty` is what NPROXY_PTY says, `editing` the shell's option.
    pub(crate) fn open_with(
        engine: Engine,
        directory: &Path,
        pty: &str,
        editing: &str,
    ) -> Terminal {
        let (leader, path) = open_leader();
        let keys = File::from(leader.try_clone().expect("dup"));
        let shell = Launch::program(peer_path())
            .arg("with")
            .arg(format!("tty={path}"))
            .words("-- bash --norc --noprofile")
            .arg(editing)
            .arg("-i")
            .env("PS1", PROMPT)
            .env("TERM", "dumb")
            .env("HISTFILE", "")
            .env("NPROXY_ENGINE", engine.name())
            .env("NPROXY_PTY", pty)
            .directory(directory)
            .in_our_group()
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .start();
        let mut terminal = Terminal { keys, screen: Capture::of(leader), shell, prompts: 0 };
        terminal.wait_for_prompt();
        terminal
    }

    /// What the terminal does with input and output at this moment.
    #[allow(dead_code, reason = "for the tests in terminal/")]
    pub(crate) fn modes(&self) -> Termios {
        tcgetattr(&self.keys).expect("tcgetattr")
    }

    /// The process group that has the terminal's foreground.
    #[allow(dead_code, reason = "for the tests in terminal/")]
    pub(crate) fn foreground(&self) -> i32 {
        nix::unistd::tcgetpgrp(&self.keys).expect("tcgetpgrp").as_raw()
    }

    /// Bytes as a keyboard sends them.
    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("keys");
    }

    pub(crate) fn enter(&mut self, line: &str) {
        self.press(line);
        self.press("\n");
    }

    /// Waits until bash asks for the next command.
    #[track_caller]
    pub(crate) fn wait_for_prompt(&mut self) {
        self.prompts += 1;
        self.screen.wait_for(PROMPT, self.prompts);
    }

    /// Enters a command that ends by itself, and waits for its end.
    #[track_caller]
    pub(crate) fn run(&mut self, line: &str) {
        self.enter(line);
        self.wait_for_prompt();
    }

    /// Changes the size, as a user who drags the window's corner.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.keys, size).expect("TIOCSWINSZ");
    }

    /// Ends the shell, which must still be alive.
    #[track_caller]
    pub(crate) fn close(mut self) {
        self.enter("exit 7");
        self.shell.finish().expect_code(7);
    }
}
