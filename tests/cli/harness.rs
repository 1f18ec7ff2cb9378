//! Starting programs. Every process is bounded in time: what is still running at its limit is named in the
//! failure and killed, together with all that it started.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::capture::{Capture, Captured};
use crate::outcome::Finished;
use crate::payload::Digest;
use crate::proc;

/// The two drivers of the ring. Whatever touches the relay is tested on both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Engine {
    Uring,
    Epoll,
}

impl Engine {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Engine::Uring => "uring",
            Engine::Epoll => "epoll",
        }
    }

    /// Whether this kernel lets us have the engine; where not, the test is skipped and says so.
    pub(crate) fn available(self) -> bool {
        self == Engine::Epoll
            || io_uring::IoUring::new(2).is_ok()
            || skip("io_uring is not allowed here")
    }
}

/// Makes two tests of each function: `name::uring` and `name::epoll`, so that a failure names its engine.
macro_rules! on_both_engines {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use crate::harness::Engine;

            #[test]
            fn uring() {
                if Engine::Uring.available() {
                    super::$name(Engine::Uring);
                }
            }

            #[test]
            fn epoll() {
                super::$name(Engine::Epoll);
            }
        }
    )+};
}
pub(crate) use on_both_engines;

/// Says, past libtest's capture, that something could not be tested, and fails where everything must be
/// (NPROXY_REQUIRE_ALL=1). Returns false, to read well in `need(..) || return`.
#[track_caller]
pub(crate) fn skip(why: &str) -> bool {
    static SKIPPED: AtomicU32 = AtomicU32::new(0);
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    assert!(
        std::env::var_os("NPROXY_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "skipped, but all is required: {why}"
    );
    let line = format!("SKIPPED ({count} so far) {name}: {why}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    false
}

/// Payload bytes of an ordinary test: NPROXY_TEST_MIB, 32 MiB by default, and always more than any pipe holds.
pub(crate) fn payload_bytes() -> u64 {
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let mib = std::env::var("NPROXY_TEST_MIB")
            .map_or(32, |mib| mib.parse().expect("NPROXY_TEST_MIB is a number"));
        u64::max(mib, 4) << 20
    })
}

/// Bytes of text that an ordinary test has filtered: as the payload, but less where the filter is not optimised.
pub(crate) fn text_bytes() -> u64 {
    if cfg!(debug_assertions) { u64::max(payload_bytes() / 16, 2 << 20) } else { payload_bytes() }
}

/// The digest of the ordinary payload: seed 1, [`payload_bytes`].
pub(crate) fn payload_digest() -> Digest {
    static DIGEST: OnceLock<Digest> = OnceLock::new();
    *DIGEST.get_or_init(|| Digest::of_payload(payload_bytes(), 1))
}

/// How long one program may take: generous, because a whole suite shares the machine, and longer for more payload.
pub(crate) fn time_limit() -> Duration {
    Duration::from_secs(60) + Duration::from_millis(payload_bytes() >> 14)
}

/// nproxy as built, or NPROXY_BIN; the file must be called nproxy, because scripts find it through PATH.
pub(crate) fn nproxy_path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = std::env::var_os("NPROXY_BIN")
            .map_or(env!("CARGO_BIN_EXE_nproxy").into(), PathBuf::from);
        assert_eq!(
            path.file_name(),
            Some(OsStr::new("nproxy")),
            "NPROXY_BIN names a file called nproxy"
        );
        path
    })
}

/// The peer lies beside the test binary, where cargo puts examples.
pub(crate) fn peer_path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let own = std::env::current_exe().expect("own path");
        let path =
            own.parent().and_then(Path::parent).expect("target directory").join("examples/peer");
        assert!(path.exists(), "{} is missing: cargo build --examples", path.display());
        path
    })
}

/// Whether a program is installed and willing (`probe` succeeds), or a skip that says what is missing.
#[track_caller]
pub(crate) fn need(probe: &[&str]) -> bool {
    let ran = Command::new(probe[0])
        .args(&probe[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    ran.is_ok_and(|status| status.success())
        || skip(&format!("`{}` does not work here", probe.join(" ")))
}

pub(crate) fn strace_works() -> bool {
    need(&["strace", "-o", "/dev/null", "-e", "inject=io_uring_setup:error=ENOSYS", "true"])
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
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let tag = format!(
            "NPROXY_TEST_RUN={}.{}",
            std::process::id(),
            RUNS.fetch_add(1, Ordering::Relaxed)
        );
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
        let (name, value) = tag.split_once('=').expect("tag has a value");
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
            tag: self.tag,
            started,
            deadline: started + self.limit,
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
    tag: String,
    started: Instant,
    deadline: Instant,
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
                None if Instant::now() >= self.deadline => self.expire("still running"),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let elapsed = self.started.elapsed();
        self.reaped = true;
        let mut captured = [self.stdout.take(), self.stderr.take()].map(|capture| match capture {
            None => Captured::default(),
            Some(capture) => capture
                .finish(self.deadline.max(Instant::now() + Duration::from_secs(5)))
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

/// The digest of what a file holds from `offset` on.
#[track_caller]
pub(crate) fn digest_of_file(path: &Path, offset: u64) -> Digest {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(offset)).expect("seek");
    crate::capture::digest(&mut file)
}
