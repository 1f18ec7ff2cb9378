//! What all the suites stand on: the engines, what may be skipped, the payload, and the programs under test.

pub(crate) mod accept;
pub(crate) mod capture;
pub(crate) mod ends;
mod launch;
pub(crate) mod outcome;
pub(crate) mod patience;
pub(crate) mod proc;
pub(crate) mod terminal;
mod watchdog;

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub(crate) use self::launch::{Launch, Running, mark};
use crate::payload::Digest;

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

/// Says, past libtest's capture, that something could not be tested, adds it to the list that NPROXY_TEST_SKIPPED names,
/// and fails where everything must be tested (NPROXY_REQUIRE_ALL=1). Returns false, to read well in `need(..) || return`.
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
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(list) = std::env::var_os("NPROXY_TEST_SKIPPED") {
        let mut list = OpenOptions::new().append(true).create(true).open(list).expect("the list");
        list.write_all(format!("{name}: {why}\n").as_bytes()).expect("the list of what is skipped");
    }
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

/// How long one program may take, unless it still gets somewhere: generous, because a whole suite shares the machine, and
/// longer for more payload.
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

/// The digest of what a file holds from `offset` on.
#[track_caller]
pub(crate) fn digest_of_file(path: &Path, offset: u64) -> Digest {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(offset)).expect("seek");
    capture::digest(&mut file)
}
