//! What the flags mean: one validated [`Config`]. No system calls.

mod memory;
mod observe;

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use crate::cli::{
    Cli, EngineName, PtyName, SignalExitName, StdinName, StreamName, TeeFullName, TextName,
    TimestampModeName,
};
use crate::error::Error;
use crate::relay::{OnFull, Stream};
use crate::ring::Engine;
use crate::text::Modes;
use crate::text::newline::Newlines;
use crate::text::strip::CursorVisibility;
use crate::text::transform::{LineNumbers, Prefix, StampMode};

pub use memory::{Banner, Memory, Monitor};
pub use observe::{
    ControlMode, Inquiry, Level, Observe, ProgressMode, Stats, StatsFormat, StatusFormat,
};

/// The largest pipe that F_SETPIPE_SZ can make, in bytes (fs/pipe.c: a power of two below 2³¹).
const LARGEST_PIPE: u64 = 1 << 30;

/// The most tee targets: a token of the ring has eight bits for the number of a relay, and the streams
/// need some themselves.
const MOST_TARGETS: usize = 200;

/// The longest wait of `--coalesce=auto`.
const COALESCE: Duration = Duration::from_micros(200);

/// Everything that a run has to know.
#[derive(Debug)]
pub struct Config {
    /// What to carry.
    pub job: Job,
    /// Which engine runs the operations.
    pub engine: EngineChoice,
    /// What pipes are grown to, in bytes; `None` leaves them as they are.
    pub pipe_size: Option<u32>,
    /// The longest that a busy stream waits for more bytes before its next transfer.
    pub coalesce: Duration,
    /// Text modes of the streams that nproxy delivers.
    pub text: Text,
    /// Where else the streams go.
    pub tee: Tee,
    /// How the command's memory is watched and limited.
    pub memory: Memory,
    /// What is recorded of the run, and where it is told.
    pub observe: Observe,
    /// How much is said on stderr.
    pub verbosity: Verbosity,
}

/// What to carry.
#[derive(Debug)]
pub enum Job {
    /// stdin to stdout.
    Filter,
    /// The streams of a command.
    Wrap(Wrap),
}

/// Text modes, and the streams that they are for.
#[derive(Clone, Debug)]
pub struct Text {
    /// What becomes of escape sequences.
    pub escapes: Escapes,
    /// What is put in front of each line.
    pub prefix: Option<Prefix>,
    /// For which streams.
    pub streams: Streams,
}

/// What becomes of escape sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escapes {
    /// They pass.
    Pass,
    /// They are removed.
    Strip,
}

/// Which of the child's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// stdout only.
    Stdout,
    /// stderr only.
    Stderr,
    /// Both.
    Both,
}

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

/// A command and how it is to be run.
#[derive(Debug)]
pub struct Wrap {
    /// The program, looked up in PATH.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// What it reads.
    pub stdin: StdinMode,
    /// Whether it gets a terminal.
    pub pty: Pty,
    /// How long a pipe is waited for that outlives the command.
    pub linger: Linger,
    /// What becomes of a death by signal.
    pub signal_exit: SignalExit,
    /// Who gets the signals that are sent to nproxy.
    pub forward_to: ForwardTo,
}

/// Which engine runs the operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// io_uring, or epoll if that is refused.
    Auto,
    /// This one or none.
    Named(Engine),
}

/// What the command gets as its stdin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StdinMode {
    /// Ours, as it is.
    Inherit,
    /// A pipe that we fill from ours.
    Relay,
    /// `/dev/null`.
    Null,
}

/// Whether the command gets a terminal of its own, a pty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pty {
    /// If our stdout is one, for those of its streams that are that terminal.
    Auto,
    /// Also where we have none.
    Always,
    /// It gets pipes.
    Never,
}

/// How long a pipe is waited for that outlives the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linger {
    /// Until it has been silent for so long.
    Silence(Duration),
    /// Until its last writer closes it.
    EndOfFile,
}

/// What becomes of a command's death by signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalExit {
    /// nproxy dies by the same signal.
    Raise,
    /// nproxy exits with 128 + the signal's number.
    Code,
}

/// Who gets the signals that are sent to nproxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardTo {
    /// The command's own process.
    Child,
    /// The process group that the command leads.
    Group,
}

/// How much is said on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    /// Errors and notices.
    Normal,
    /// Decisions too.
    Verbose,
    /// Every event.
    Debug,
}

/// Whether stdin is a terminal, which decides whether no command means "filter" or a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StdinIs {
    /// A person sits there.
    Terminal,
    /// A pipe, a file, anything with bytes in it.
    Stream,
}

impl Config {
    /// Makes sense of the flags.
    ///
    /// # Errors
    /// One line for what cannot be.
    pub fn new(cli: Cli, stdin_is: StdinIs) -> Result<Config, Error> {
        let verbosity = match (cli.quiet, cli.verbose, cli.debug) {
            (true, ..) => Verbosity::Quiet,
            (_, 2.., _) | (_, _, true) => Verbosity::Debug,
            (_, 1, _) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        };
        let engine = match cli.engine {
            EngineName::Auto => EngineChoice::Auto,
            EngineName::Uring => EngineChoice::Named(Engine::Uring),
            EngineName::Epoll => EngineChoice::Named(Engine::Epoll),
        };
        let pipe_size = match cli.pipe_size.0 {
            None => None,
            Some(bytes @ 1..=LARGEST_PIPE) => Some(bytes as u32),
            Some(_) => {
                let why = "a pipe holds between 1 byte and 1 GiB";
                return Err(Error::usage("--pipe-size", why));
            }
        };
        let text = Text::of_streams(&cli)?;
        let tee = Tee::new(&cli)?;
        let memory = Memory::new(&cli.memory)?;
        let observe = Observe::new(&cli.observe);
        let mut words = cli.command.into_iter();
        let job = match (words.next(), stdin_is) {
            (Some(program), _) => Job::Wrap(Wrap {
                program,
                arguments: words.collect(),
                stdin: match cli.stdin {
                    StdinName::Inherit => StdinMode::Inherit,
                    StdinName::Relay => StdinMode::Relay,
                    StdinName::Null => StdinMode::Null,
                },
                pty: match cli.pty {
                    PtyName::Auto => Pty::Auto,
                    PtyName::Always => Pty::Always,
                    PtyName::Never => Pty::Never,
                },
                linger: cli.linger.0.map_or(Linger::EndOfFile, Linger::Silence),
                signal_exit: match cli.signal_exit {
                    SignalExitName::Raise => SignalExit::Raise,
                    SignalExitName::Code => SignalExit::Code,
                },
                forward_to: if cli.group { ForwardTo::Group } else { ForwardTo::Child },
            }),
            (None, StdinIs::Stream) => Job::Filter,
            (None, StdinIs::Terminal) => {
                let why = "no command, and stdin is a terminal (see nproxy --help)";
                return Err(Error::usage("usage: nproxy [OPTIONS] [--] COMMAND", why));
            }
        };
        let coalesce = cli.coalesce.0.unwrap_or(COALESCE);
        Ok(Config { job, engine, pipe_size, coalesce, text, tee, memory, observe, verbosity })
    }
}

impl Text {
    /// What is done to the streams on their way to our own stdout and stderr.
    fn of_streams(cli: &Cli) -> Result<Text, Error> {
        let mut modes = cli.text.clone();
        // `--line-numbers` and the like ask for lines with a prefix, if nothing else says where.
        let prefixes = cli.timestamp.is_some() || cli.timestamp_mode.is_some() || cli.line_numbers;
        if prefixes && modes.is_empty() && !cli.tee_text.contains(&TextName::Transform) {
            modes.push(TextName::Transform);
        }
        Text::new("--text", &modes, &cli.text_streams, cli)
    }

    fn new(
        flag: &str,
        modes: &[TextName],
        streams: &[StreamName],
        cli: &Cli,
    ) -> Result<Text, Error> {
        let asked = |mode| modes.contains(&mode);
        if asked(TextName::Passthrough) && modes.len() > 1 {
            return Err(Error::usage(flag, "passthrough goes with no other mode"));
        }
        Ok(Text {
            escapes: if asked(TextName::StripAnsi) { Escapes::Strip } else { Escapes::Pass },
            prefix: if asked(TextName::Transform) { Some(prefix(cli)?) } else { None },
            streams: Streams::new(streams),
        })
    }

    /// The modes for one stream, `None` if there is nothing to do to it. `cursor` says what becomes of
    /// sequences that show or hide the cursor. How lines end is left as it is: that is the terminal's to say.
    pub fn modes(&self, cursor: CursorVisibility) -> Option<Modes> {
        let strip = (self.escapes == Escapes::Strip).then_some(cursor);
        let transform = self.prefix.clone();
        let newlines = Newlines::default();
        let any = strip.is_some() || transform.is_some();
        any.then_some(Modes { newlines, strip, transform })
    }

    /// Whether it does something to one of the two output streams and not to the other.
    pub fn splits_streams(&self) -> bool {
        self.streams != Streams::Both && self.modes(CursorVisibility::Removed).is_some()
    }
}

impl Streams {
    /// Whether `stream` is among them.
    pub fn include(self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self != Streams::Stderr,
            Stream::Stderr => self != Streams::Stdout,
            Stream::Stdin => false,
        }
    }

    fn new(names: &[StreamName]) -> Streams {
        match (names.contains(&StreamName::Stdout), names.contains(&StreamName::Stderr)) {
            (true, false) => Streams::Stdout,
            (false, true) => Streams::Stderr,
            _ => Streams::Both,
        }
    }
}

/// The line prefix that the timestamp flags describe.
fn prefix(cli: &Cli) -> Result<Prefix, Error> {
    let mode = match cli.timestamp_mode {
        None | Some(TimestampModeName::Wall) => StampMode::Wall,
        Some(TimestampModeName::Elapsed) => StampMode::Elapsed,
        Some(TimestampModeName::Delta) => StampMode::Delta,
    };
    let named = [&cli.text, &cli.tee_text].iter().any(|modes| modes.contains(&TextName::Transform));
    let format = match &cli.timestamp {
        Some(format) => Some(format.as_str()),
        // `--line-numbers` alone asks for numbers, not for the time.
        None if cli.line_numbers && !named && cli.timestamp_mode.is_none() => Some(""),
        None => None,
    };
    let numbers = if cli.line_numbers { LineNumbers::On } else { LineNumbers::Off };
    Prefix::new(mode, format, numbers)
        .map_err(|error| Error::usage("--timestamp", error.to_string()))
}

impl Tee {
    fn new(cli: &Cli) -> Result<Tee, Error> {
        if cli.tee.len() > MOST_TARGETS {
            return Err(Error::usage("--tee", format!("at most {MOST_TARGETS} targets")));
        }
        let targets = cli.tee.iter().map(Target::new).collect::<Result<_, _>>()?;
        Ok(Tee {
            targets,
            text: Text::new("--tee-text", &cli.tee_text, &cli.tee_streams, cli)?,
            open: if cli.tee_append { TeeOpen::Append } else { TeeOpen::Truncate },
            on_full: match cli.tee_full {
                TeeFullName::Block => OnFull::Block,
                TeeFullName::Drop => OnFull::Drop,
            },
            failure: if cli.tee_strict { TeeFailure::Fail } else { TeeFailure::Tell },
        })
    }

    /// Whether one of the two output streams is copied and the other is not.
    pub fn splits_streams(&self) -> bool {
        self.text.streams != Streams::Both && !self.targets.is_empty()
    }
}

impl Target {
    fn new(name: &OsString) -> Result<Target, Error> {
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
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Target::Unix(path.into()));
        }
        if let Some(address) = text.strip_prefix("tcp:") {
            return match address.rsplit_once(':') {
                Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                    Ok(Target::Tcp(address.to_owned()))
                }
                _ => Err(Error::usage(format!("--tee {text}"), "expected tcp:HOST:PORT")),
            };
        }
        Ok(Target::Path(name.clone()))
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
