//! Starting programs. Every process is bounded in time: what is still running at its limit is named in the
//! failure and killed, together with all that it started.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, SigHandler, Signal, kill};
use nix::unistd::Pid;

use crate::capture::{Capture, Captured};
use crate::harness::patience::{self, Patience};
use crate::harness::{Engine, nproxy_path, peer_path, time_limit};
use crate::outcome::Finished;
use crate::proc;

/// A variable by which a program is known as started by this test, with all that it starts. Its name is none that nproxy
/// would take for one of its own.
pub(crate) fn mark() -> (&'static str, String) {
    heed_signals();
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let value = format!("{}.{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
    patience::follow(&format!("TEST_RUN_OF_NPROXY={value}"));
    ("TEST_RUN_OF_NPROXY", value)
}

/// Whoever has started the suites may ignore signals (nohup, `&` in a script), and programs inherit that: here they are to be
/// as they are where nobody ignores any.
#[allow(unsafe_code, reason = "a disposition may be a handler's address; this one is none")]
fn heed_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in
            [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGTSTP, Signal::SIGXFSZ]
        {
            // SAFETY: no handler is installed, and this program has none of its own for these.
            unsafe { signal::signal(signal, SigHandler::SigDfl) }.expect("signal");
        }
    });
}

/// A program about to be started. stdin is /dev/null, stdout and stderr are captured, unless said otherwise.
pub(crate) struct Launch {
    command: Command,
    words: Vec<OsString>,
    limit: Duration,
    tag: String,
    captured: [bool; 2],
    own_group: bool,
}

impl Launch {
    pub(crate) fn program(program: impl AsRef<OsStr>) -> Launch {
        let (name, value) = mark();
        let tag = format!("{name}={value}");
        let program = program.as_ref();
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"NPROXY_") {
                command.env_remove(name);
            }
        }
        let own =
            [nproxy_path(), peer_path()].map(|path| path.parent().expect("a directory").to_owned());
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        // Root's directories, when the suite runs as somebody else, would turn "not found" into "not allowed".
        let searchable = std::env::split_paths(&inherited).filter(|path| path.read_dir().is_ok());
        let path = std::env::join_paths(own.into_iter().chain(searchable)).expect("PATH");
        command.env("PATH", path).env("LC_ALL", "C").env(name, value).stdin(Stdio::null());
        Launch {
            command,
            words: vec![program.into()],
            limit: time_limit(),
            tag,
            captured: [true; 2],
            own_group: true,
        }
    }

    /// `nproxy --engine=ENGINE`
    pub(crate) fn nproxy(engine: Engine) -> Launch {
        Launch::program(nproxy_path()).arg("--engine").arg(engine.name())
    }

    pub(crate) fn peer(role: &str) -> Launch {
        Launch::program(peer_path()).arg(role)
    }

    /// A bash script, in which `nproxy` is the one under test, on that engine, and `peer` is the peer.
    pub(crate) fn shell(engine: Engine, script: &str) -> Launch {
        Launch::program("bash").args(["-c", script]).env("NPROXY_ENGINE", engine.name())
    }

    pub(crate) fn arg(self, word: impl AsRef<OsStr>) -> Launch {
        self.args([word])
    }

    pub(crate) fn args(mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Launch {
        for word in words {
            self.command.arg(&word);
            self.words.push(word.as_ref().into());
        }
        self
    }

    /// Several words in one literal, for what contains no blank.
    pub(crate) fn words(self, words: &str) -> Launch {
        self.args(words.split_ascii_whitespace())
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Launch {
        self.command.env(name, value);
        self
    }

    pub(crate) fn directory(mut self, path: &Path) -> Launch {
        self.command.current_dir(path);
        self
    }

    pub(crate) fn limit(mut self, limit: Duration) -> Launch {
        self.limit = limit;
        self
    }

    /// Leaves the program in the test's own process group: setsid(2) refuses a group leader.
    pub(crate) fn in_our_group(mut self) -> Launch {
        self.own_group = false;
        self
    }

    pub(crate) fn stdin(mut self, from: impl Into<Stdio>) -> Launch {
        self.command.stdin(from);
        self
    }

    pub(crate) fn stdout(mut self, to: impl Into<Stdio>) -> Launch {
        self.command.stdout(to);
        self.captured[0] = false;
        self
    }

    pub(crate) fn stderr(mut self, to: impl Into<Stdio>) -> Launch {
        self.command.stderr(to);
        self.captured[1] = false;
        self
    }

    #[track_caller]
    pub(crate) fn start(mut self) -> Running {
        let what =
            self.words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        if self.captured[0] {
            self.command.stdout(Stdio::piped());
        }
        if self.captured[1] {
            self.command.stderr(Stdio::piped());
        }
        if self.own_group {
            self.command.process_group(0);
        }
        let started = Instant::now();
        let mut child =
            self.command.spawn().unwrap_or_else(|error| panic!("starting {what}: {error}"));
        let stdout = child.stdout.take().map(|pipe| Capture::of(OwnedFd::from(pipe)));
        let stderr = child.stderr.take().map(|pipe| Capture::of(OwnedFd::from(pipe)));
        Running {
            child,
            what,
            tag: HashSet::from([self.tag]),
            started,
            patience: Patience::new(self.limit),
            stdout,
            stderr,
            reaped: false,
        }
    }

    #[track_caller]
    pub(crate) fn finish(self) -> Finished {
        self.start().finish()
    }
}

/// A program that was started. Dropped unfinished, as by a failing assertion, it is killed with all that it started.
pub(crate) struct Running {
    child: Child,
    what: String,
    tag: HashSet<String>,
    started: Instant,
    patience: Patience,
    pub(crate) stdout: Option<Capture>,
    pub(crate) stderr: Option<Capture>,
    reaped: bool,
}

impl Running {
    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Every live process that this one started, however often reparented, itself included.
    pub(crate) fn processes(&self) -> Vec<i32> {
        proc::with_environment(&self.tag)
    }

    /// The one process of this run whose command line holds `words`, once it is there.
    #[track_caller]
    pub(crate) fn process(&self, words: &str) -> i32 {
        proc::until(&format!("a process `{words}` of {}", self.what), || {
            self.processes()
                .into_iter()
                .find(|pid| *pid != self.pid() && proc::command_line(*pid).starts_with(words))
        })
    }

    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal)
            .unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.what));
    }

    /// Waits for the end of the program and then of its captured output.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let status = loop {
            match self.child.try_wait().expect("wait") {
                Some(status) => break status,
                None if !self.patience.lasts() => self.expire("still running"),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let elapsed = self.started.elapsed();
        self.reaped = true;
        let mut captured = [self.stdout.take(), self.stderr.take()].map(|capture| match capture {
            None => Captured::default(),
            Some(capture) => capture
                .finish(self.patience.end().max(Instant::now() + Duration::from_secs(5)))
                .unwrap_or_else(|| self.expire("ended, but somebody still holds its output")),
        });
        let [stdout, stderr] = [std::mem::take(&mut captured[0]), std::mem::take(&mut captured[1])];
        Finished {
            status,
            stdout,
            stderr,
            elapsed,
            left: self.processes(),
            what: std::mem::take(&mut self.what),
        }
    }

    #[track_caller]
    fn expire(&self, how: &str) -> ! {
        let mut message = format!("{how} after {:?}: {}", self.started.elapsed(), self.what);
        for pid in self.processes() {
            let _ = write!(message, "\n  {}", proc::describe(pid));
        }
        for (name, capture) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if let Some(capture) = capture {
                let _ = write!(message, "\n  {name}: {}", capture.so_far());
            }
        }
        panic!("{message}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for pid in proc::with_environment(&self.tag) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if !self.reaped {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
