//! What the flags of the copies mean together.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use super::text::{Machine, Streams, Text};
use crate::cli::Cli;
use crate::cli::choices::{Compression, OutputError, Restart};
use crate::cli::copy_keys::{self, Keys};
use crate::error::Error;
use crate::relay::OnFull;

/// The most tee targets: a token of the ring has eight bits for the number of a relay, and the streams
/// need some themselves.
const MOST_TARGETS: usize = 200;

/// How long the end of a run waits for a copy that takes nothing, if nothing is said.
const WAIT: Duration = Duration::from_secs(10);

/// One that is only late, because the machine is busy, is not given up sooner.
const SHORTEST_WAIT: Duration = Duration::from_millis(200);
/// How many bytes may wait in a spool, if nothing is said.
const SPOOL: u64 = 1 << 30;

/// Copies of the streams.
#[derive(Debug)]
pub struct Tee {
    /// Each of them.
    pub copies: Vec<CopyTo>,
    /// What a failed target means for the exit status.
    pub failure: TeeFailure,
    /// What becomes of the copies when an output fails.
    pub output_error: OutputError,
}

/// One copy.
#[derive(Debug)]
pub struct CopyTo {
    /// Where to.
    pub target: Target,
    /// What is done to it, and which streams go there.
    pub text: Text,
    /// What an existing file becomes.
    pub open: TeeOpen,
    /// What happens when the target cannot keep up.
    pub on_full: OnFull,
    /// When its file is finished and the next one begun.
    pub rotation: Option<Rotation>,
    /// What becomes of it when its file is renamed or removed by others.
    pub moved: Moved,
    /// How long the end of the run waits for a target that takes nothing.
    pub wait: Duration,
    /// Whether a command is started again.
    pub restart: Restart,
    /// Where what a collector has not got is kept.
    pub spool: Option<SpoolAt>,
}

/// A spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolAt {
    /// The directory, which exists.
    pub directory: OsString,
    /// The most bytes that may wait in it to be sent.
    pub max: u64,
}

/// When a copy's file is finished, and how many finished ones there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// When it has so many bytes.
    pub size: Option<u64>,
    /// So long after its first byte.
    pub every: Option<Duration>,
    /// How many finished segments are kept.
    pub keep: Option<usize>,
    /// The most bytes that all segments have together, the current one included.
    pub total: Option<u64>,
    /// What finished segments are compressed with.
    pub compress: Option<Compression>,
}

/// What becomes of a copy when its file is renamed or removed by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It goes on in the same file, whatever that is called.
    Followed,
    /// The path is opened anew.
    Reopened,
}

/// Where a copy goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file, FIFO or device of this name.
    Path(OsString),
    /// An fd that nproxy has inherited, and the name by which it was called.
    Inherited(i32, String),
    /// A Unix stream socket to connect to.
    Unix(OsString),
    /// A TCP address to connect to, as HOST:PORT.
    Tcp(String),
    /// A command for sh to run, which gets it as its stdin.
    Command(OsString),
    /// The systemd journal, under this name.
    Journal(String),
}

/// What an existing tee file becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TeeOpen {
    /// Emptied, once the command runs.
    Truncate,
    /// Kept; what comes is appended.
    Append,
}

/// What a failed target means for the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TeeFailure {
    /// Nothing.
    Tell,
    /// 125, if the command itself ended well.
    Fail,
}

impl Tee {
    pub(super) fn new(cli: &Cli, machine: &Machine) -> Result<Tee, Error> {
        let flags = &cli.copies;
        if flags.tee.len() > MOST_TARGETS {
            return Err(Error::usage("--tee", format!("at most {MOST_TARGETS} targets")));
        }
        // Also without a copy: a flag that cannot be is a mistake.
        Text::of_copies(cli, machine, None, None)?;
        Ok(Tee {
            copies: flags
                .tee
                .iter()
                .map(|word| CopyTo::new(word, cli, machine))
                .collect::<Result<_, _>>()?,
            failure: if flags.tee_strict { TeeFailure::Fail } else { TeeFailure::Tell },
            output_error: flags.tee_output_error,
        })
    }

    /// Whether one of the two output streams is copied somewhere and the other is not.
    pub fn splits_streams(&self) -> bool {
        self.copies.iter().any(|copy| copy.text.streams != Streams::Both)
    }
}

impl CopyTo {
    fn new(word: &OsStr, cli: &Cli, machine: &Machine) -> Result<CopyTo, Error> {
        let flags = &cli.copies;
        let (name, keys) = copy_keys::divide(word)?;
        let refused = |why: &str| Err(Error::usage(format!("--tee {}", show(word)), why));
        let is_elsewhere = ["tcp:", "unix:", "journal:"]
            .iter()
            .any(|scheme| name.as_bytes().starts_with(scheme.as_bytes()));
        if is_elsewhere && let Some(key) = copy_keys::unknown_key(name.as_bytes()) {
            return refused(&copy_keys::no_such_key(&key));
        }
        let target = Target::new(&name)?;
        let rotation = Rotation::new(&keys);
        if !matches!(target, Target::Path(_)) {
            if rotation.is_some() || keys.reopen || keys.append {
                return refused(
                    "append, rotate, every, keep, total, compress and reopen are for files",
                );
            }
        } else if keys.wait.is_some() && (rotation.is_some() || keys.reopen) {
            return refused("a file is written to its end: wait is for what may be away");
        }
        if keys.restart.is_some() && !matches!(target, Target::Command(_)) {
            return refused("restart is for commands");
        }
        if keys.spool.is_some() && !matches!(target, Target::Tcp(_) | Target::Unix(_)) {
            return refused("spool is for tcp: and unix:");
        }
        if let Some(rotation) = &rotation {
            rotation.check().map_err(|why| Error::usage(format!("--tee {}", show(word)), why))?;
        }
        Ok(CopyTo {
            target,
            text: Text::of_copies(cli, machine, keys.text.as_deref(), keys.streams.as_deref())?,
            open: match flags.tee_append || keys.append {
                true => TeeOpen::Append,
                false => TeeOpen::Truncate,
            },
            on_full: keys.full.unwrap_or(flags.tee_full),
            rotation,
            moved: if keys.reopen { Moved::Reopened } else { Moved::Followed },
            wait: keys.wait.map_or(WAIT, |wait| wait.max(SHORTEST_WAIT)),
            restart: keys.restart.unwrap_or_default(),
            spool: keys
                .spool
                .map(|(directory, max)| SpoolAt { directory, max: max.unwrap_or(SPOOL) }),
        })
    }
}

impl CopyTo {
    /// Whether its keys are for a regular file of our own.
    pub fn needs_file(&self) -> bool {
        self.rotation.is_some() || self.moved == Moved::Reopened
    }
}

fn show(word: &OsStr) -> String {
    word.to_string_lossy().into_owned()
}

impl Rotation {
    /// What the keys say of it, if they say anything.
    fn new(keys: &Keys) -> Option<Rotation> {
        let rotation = Rotation {
            size: keys.rotate,
            every: keys.every,
            keep: keys.keep,
            total: keys.total,
            compress: keys.compress,
        };
        let none = Rotation { size: None, every: None, keep: None, total: None, compress: None };
        (rotation != none).then_some(rotation)
    }

    fn check(&self) -> Result<(), &'static str> {
        match (self.size, self.every, self.total) {
            (None, None, _) => Err("keep, total and compress need rotate or every"),
            (Some(size), _, Some(total)) if total < size => Err("total is less than rotate"),
            _ => Ok(()),
        }
    }
}

/// What sun_path holds (unix(7)), with the zero at its end.
const LONGEST_SOCKET_PATH: usize = 108;

/// The number in a name such as /dev/fd/3. Such a file is not opened anew by that path: that fails for sockets, and gives
/// files a second position, or empties them.
fn descriptor(name: &str) -> Option<&str> {
    match name {
        "/dev/stdin" => Some("0"),
        "/dev/stdout" => Some("1"),
        "/dev/stderr" => Some("2"),
        _ => name.strip_prefix("/dev/fd/").or_else(|| name.strip_prefix("/proc/self/fd/")),
    }
}

/// A file that reports go into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A file, FIFO or device of this name.
    Path(OsString),
    /// An fd that nproxy has inherited, and the name by which it was called.
    Inherited(i32, String),
}

impl Destination {
    /// `option` is the flag that names it.
    pub(super) fn new(name: &OsStr, option: &str) -> Result<Destination, Error> {
        let text = name.to_string_lossy();
        if name.is_empty() {
            return Err(Error::usage(option, "an empty name"));
        }
        match descriptor(&text).map(str::parse) {
            None => Ok(Destination::Path(name.to_owned())),
            Some(Ok(number)) => Ok(Destination::Inherited(number, text.into_owned())),
            Some(Err(_)) => {
                Err(Error::usage(format!("{option} {text}"), "not the number of an fd"))
            }
        }
    }

    /// What it was called.
    pub fn name(&self) -> String {
        match self {
            Destination::Path(name) => name.to_string_lossy().into_owned(),
            Destination::Inherited(_, name) => name.clone(),
        }
    }
}

impl Target {
    pub(super) fn new(name: &OsStr) -> Result<Target, Error> {
        let bytes = name.as_encoded_bytes();
        if bytes.is_empty() {
            return Err(Error::usage("--tee", "an empty name"));
        }
        let text = name.to_str().unwrap_or_default();
        if let Some(number) = descriptor(text) {
            return match number.parse() {
                Ok(number) => Ok(Target::Inherited(number, text.to_owned())),
                Err(_) => Err(Error::usage(format!("--tee {text}"), "not the number of an fd")),
            };
        }
        if let Some(command) = bytes.strip_prefix(b"|") {
            return match command.trim_ascii().is_empty() {
                true => Err(Error::usage(format!("--tee {text}"), "expected |COMMAND")),
                false => Ok(Target::Command(OsStr::from_bytes(command).to_owned())),
            };
        }
        if let Some(name) = text.strip_prefix("journal:") {
            return match name.is_empty() || name.contains('\n') {
                true => Err(Error::usage(format!("--tee {text}"), "expected journal:IDENT")),
                false => Ok(Target::Journal(name.to_owned())),
            };
        }
        if let Some(path) = bytes.strip_prefix(b"unix:") {
            return match path.len() {
                0 => Err(Error::usage(format!("--tee {text}"), "expected unix:PATH")),
                1..LONGEST_SOCKET_PATH => Ok(Target::Unix(OsStr::from_bytes(path).to_owned())),
                _ => Err(Error::usage(
                    format!("--tee {}", name.to_string_lossy()),
                    "a socket's path has at most 107 bytes",
                )),
            };
        }
        // Told apart by its bytes: an address that is no text is a bad address, not the name of a file.
        if bytes.starts_with(b"tcp:") {
            let address = text.strip_prefix("tcp:").unwrap_or_default();
            return match address.rsplit_once(':') {
                Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                    Ok(Target::Tcp(address.to_owned()))
                }
                _ => {
                    let tried = format!("--tee {}", name.to_string_lossy());
                    Err(Error::usage(tried, "expected tcp:HOST:PORT"))
                }
            };
        }
        Ok(Target::Path(name.to_owned()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Path(path) => write!(f, "{}", path.to_string_lossy()),
            Target::Inherited(_, name) => write!(f, "{name}"),
            Target::Unix(path) => write!(f, "unix:{}", path.to_string_lossy()),
            Target::Tcp(address) => write!(f, "tcp:{address}"),
            Target::Command(command) => write!(f, "|{}", command.to_string_lossy()),
            Target::Journal(name) => write!(f, "journal:{name}"),
        }
    }
}
