//! What the flags of the copies mean together.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use super::text::{Machine, Streams, Text};
use crate::cli::Cli;
use crate::error::Error;
use crate::relay::OnFull;

/// The most tee targets: a token of the ring has eight bits for the number of a relay, and the streams
/// need some themselves.
const MOST_TARGETS: usize = 200;

/// Copies of the streams.
#[derive(Debug)]
pub struct Tee {
    /// Where to.
    pub targets: Vec<Target>,
    /// What is done to them, and which streams go there.
    pub text: Text,
    /// What an existing file becomes.
    pub open: TeeOpen,
    /// What happens when a target cannot keep up.
    pub on_full: OnFull,
    /// What a failed target means for the exit status.
    pub failure: TeeFailure,
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
        Ok(Tee {
            targets: flags.tee.iter().map(|word| Target::new(word)).collect::<Result<_, _>>()?,
            text: Text::of_copies(cli, machine)?,
            open: if flags.tee_append { TeeOpen::Append } else { TeeOpen::Truncate },
            on_full: flags.tee_full,
            failure: if flags.tee_strict { TeeFailure::Fail } else { TeeFailure::Tell },
        })
    }

    /// Whether one of the two output streams is copied and the other is not.
    pub fn splits_streams(&self) -> bool {
        self.text.streams != Streams::Both && !self.targets.is_empty()
    }
}

impl Target {
    fn new(name: &OsStr) -> Result<Target, Error> {
        let bytes = name.as_encoded_bytes();
        if bytes.is_empty() {
            return Err(Error::usage("--tee", "an empty name"));
        }
        let text = name.to_str().unwrap_or_default();
        // Not opened anew by that path: that fails for sockets, and gives files a second position, or
        // empties them.
        let number = match text {
            "/dev/stdin" => Some("0"),
            "/dev/stdout" => Some("1"),
            "/dev/stderr" => Some("2"),
            _ => text.strip_prefix("/dev/fd/").or_else(|| text.strip_prefix("/proc/self/fd/")),
        };
        if let Some(number) = number {
            return match number.parse() {
                Ok(number) => Ok(Target::Inherited(number, text.to_owned())),
                Err(_) => Err(Error::usage(format!("--tee {text}"), "not the number of an fd")),
            };
        }
        if let Some(path) = bytes.strip_prefix(b"unix:") {
            return Ok(Target::Unix(OsStr::from_bytes(path).to_owned()));
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
        }
    }
}
