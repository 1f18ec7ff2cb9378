//! The command line: flags and environment, nothing else.
//!
//! The help text, the man page and the shell completions all come from this definition. What the flags
//! mean together is decided in `config.rs`.

#[path = "cli/memory.rs"]
mod memory;
#[path = "cli/observe.rs"]
mod observe;

use std::ffi::OsString;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Parser, ValueEnum};

pub use memory::{DegradeName, GateName, MemoryFlags, MonitorName};
pub use observe::{ObserveFlags, ObserveName, ProgressName, StatsName, StatusFormatName};

/// What was said on the command line and in `NPROXY_…` variables; a flag wins over its variable.
#[derive(Debug, Parser)]
#[command(
    name = "nproxy",
    version,
    about = "Carry another program's bytes without touching them",
    long_about = "Carry another program's bytes without touching them.\n\n\
        With a command, nproxy runs it and relays its stdout and stderr; without one it stands in a \
        pipeline and relays stdin to stdout. The bytes move inside the kernel. Signals and the exit \
        status pass through as if nproxy were not there.",
    after_long_help = "EXIT STATUS\n  \
        The command's own; if a signal killed it, nproxy dies by the same signal.\n  \
        125  nproxy itself failed, or bytes could not be delivered\n  \
        126  the command was found but cannot be executed\n  \
        127  the command was not found",
    override_usage = "nproxy [OPTIONS] [--] COMMAND [ARGUMENT]...\n       producer | nproxy [OPTIONS] | consumer",
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Cli {
    /// How operations run: io_uring, or epoll where io_uring is not allowed
    #[arg(long, value_enum, default_value_t, env = "NPROXY_ENGINE", hide_env = true)]
    pub engine: EngineName,

    /// Grow pipes to this size, or keep them as they are
    #[arg(long, value_name = "SIZE|keep", default_value = "1M", value_parser = pipe_size, env = "NPROXY_PIPE_SIZE", hide_env = true)]
    pub pipe_size: PipeSize,

    /// The longest that a busy stream waits for more bytes, in microseconds; `auto` is 200, `off` is 0
    #[arg(long, value_name = "MICROSECONDS|auto|off", default_value = "auto", value_parser = coalesce, env = "NPROXY_COALESCE", hide_env = true)]
    pub coalesce: CoalesceTime,

    /// Whether the command gets a terminal: if stdout is one, in any case, or only pipes
    #[arg(long, value_enum, default_value_t, env = "NPROXY_PTY", hide_env = true)]
    pub pty: PtyName,

    /// What the command gets as stdin: ours, a relayed copy of it, or nothing
    #[arg(long, value_enum, default_value_t, env = "NPROXY_STDIN", hide_env = true)]
    pub stdin: StdinName,

    /// Silence after which a pipe that outlives the command is left, or `eof` to wait for its end
    #[arg(long, value_name = "TIME|eof", default_value = "200ms", value_parser = linger, env = "NPROXY_LINGER", hide_env = true)]
    pub linger: LingerTime,

    /// When a signal killed the command: die by it too, or exit with 128 + its number
    #[arg(long, value_enum, default_value_t, env = "NPROXY_SIGNAL_EXIT", hide_env = true)]
    pub signal_exit: SignalExitName,

    /// Run the command in a process group of its own, and forward signals to that group
    #[arg(long, value_parser = FalseyValueParser::new(), env = "NPROXY_GROUP", hide_env = true)]
    pub group: bool,

    /// What is done to the text of a stream: `strip-ansi` removes escape sequences, `transform` puts a
    /// timestamp in front of each line
    #[arg(
        long,
        value_enum,
        value_name = "MODES",
        value_delimiter = ',',
        env = "NPROXY_TEXT",
        hide_env = true
    )]
    pub text: Vec<TextName>,

    /// Which streams the text modes are for
    #[arg(long, value_enum, value_name = "STREAMS", value_delimiter = ',', default_values = ["stdout", "stderr"], env = "NPROXY_TEXT_STREAMS", hide_env = true)]
    pub text_streams: Vec<StreamName>,

    /// Format of the timestamps, as in strftime(3), with %3f for milliseconds
    #[arg(long, value_name = "FORMAT", env = "NPROXY_TIMESTAMP", hide_env = true)]
    pub timestamp: Option<String>,

    /// What the timestamps tell: the time of day, the time since the start, or since the line before
    #[arg(long, value_enum, value_name = "MODE", env = "NPROXY_TIMESTAMP_MODE", hide_env = true)]
    pub timestamp_mode: Option<TimestampModeName>,

    /// Number the lines
    #[arg(long, value_parser = FalseyValueParser::new(), env = "NPROXY_LINE_NUMBERS", hide_env = true)]
    pub line_numbers: bool,

    /// Copy the streams to a file, a FIFO, `/dev/fd/N`, `unix:PATH` or `tcp:HOST:PORT`; repeatable
    #[arg(long, value_name = "FILE", env = "NPROXY_TEE", hide_env = true)]
    pub tee: Vec<OsString>,

    /// Append to tee files instead of emptying them
    #[arg(long, value_parser = FalseyValueParser::new(), env = "NPROXY_TEE_APPEND", hide_env = true)]
    pub tee_append: bool,

    /// Text modes for what goes to the tee files
    #[arg(
        long,
        value_enum,
        value_name = "MODES",
        value_delimiter = ',',
        env = "NPROXY_TEE_TEXT",
        hide_env = true
    )]
    pub tee_text: Vec<TextName>,

    /// Which streams go to the tee files
    #[arg(long, value_enum, value_name = "STREAMS", value_delimiter = ',', default_values = ["stdout", "stderr"], env = "NPROXY_TEE_STREAMS", hide_env = true)]
    pub tee_streams: Vec<StreamName>,

    /// When a tee file cannot keep up: hold everything up, or drop bytes there and mark the gap
    #[arg(long, value_enum, default_value_t, env = "NPROXY_TEE_FULL", hide_env = true)]
    pub tee_full: TeeFullName,

    /// Exit with 125 if a copy is not complete
    #[arg(long, value_parser = FalseyValueParser::new(), env = "NPROXY_TEE_STRICT", hide_env = true)]
    pub tee_strict: bool,

    /// The memory guard
    #[command(flatten)]
    pub memory: MemoryFlags,

    /// Observation
    #[command(flatten)]
    pub observe: ObserveFlags,

    /// Only errors on stderr, no notices
    #[arg(short, long, value_parser = FalseyValueParser::new(), env = "NPROXY_QUIET", hide_env = true)]
    pub quiet: bool,

    /// Say what is being decided; twice for more (NPROXY_DEBUG=1 is the same as -vv)
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,

    /// As -vv
    #[arg(long, hide = true, value_parser = FalseyValueParser::new(), env = "NPROXY_DEBUG", hide_env = true)]
    pub debug: bool,

    /// Print the completion script for a shell and leave
    #[arg(long, value_enum, value_name = "SHELL")]
    pub completions: Option<clap_complete::Shell>,

    /// The command to run, with its arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `--engine`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    /// io_uring if it is allowed, else epoll
    #[default]
    Auto,
    /// io_uring or nothing
    Uring,
    /// Readiness and non-blocking system calls
    Epoll,
}

/// `--pty`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PtyName {
    /// A terminal if stdout is one
    #[default]
    Auto,
    /// A terminal in any case, so that programs flush lines and keep their colours
    Always,
    /// Pipes
    Never,
}

/// `--stdin`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum StdinName {
    /// The command reads our stdin itself
    #[default]
    Inherit,
    /// A pipe that nproxy fills from its stdin
    Relay,
    /// /dev/null
    Null,
}

/// `--signal-exit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SignalExitName {
    /// Die by the same signal
    #[default]
    Raise,
    /// Exit with 128 + the signal's number
    Code,
}

/// `--text`, `--tee-text`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TextName {
    /// Nothing is touched
    #[value(alias = "off")]
    Passthrough,
    /// Escape sequences are removed
    StripAnsi,
    /// Lines get a prefix
    Transform,
}

/// `--text-streams`, `--tee-streams`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StreamName {
    /// The command's stdout, or the stream of a filter
    Stdout,
    /// The command's stderr
    Stderr,
}

/// `--timestamp-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TimestampModeName {
    /// The time of day, in UTC
    Wall,
    /// Since the start
    Elapsed,
    /// Since the line before
    Delta,
}

/// `--tee-full`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TeeFullName {
    /// The command waits
    #[default]
    Block,
    /// Bytes are dropped there
    Drop,
}

/// `--pipe-size`: bytes, or `None` for `keep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipeSize(pub Option<u64>);

/// `--linger`: a time of silence, or `None` for `eof`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LingerTime(pub Option<Duration>);

/// `--coalesce`: a time, or `None` for `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoalesceTime(pub Option<Duration>);

impl Cli {
    /// Reads the process's arguments and environment.
    ///
    /// # Errors
    /// One line that names what is wrong; help and version come back as [`Request::Print`].
    pub fn from_env() -> Result<Cli, Request> {
        Cli::try_parse().map_err(|error| {
            use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
            match error.kind() {
                DisplayHelp | DisplayVersion => Request::Print(error.render().to_string()),
                _ => Request::Refuse(one_line(&error.render().to_string())),
            }
        })
    }

    /// The completion script for a shell.
    pub fn completion_script(shell: clap_complete::Shell) -> Vec<u8> {
        let mut command = <Cli as clap::CommandFactory>::command();
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, "nproxy", &mut script);
        script
    }
}

/// What the command line asks for instead of a run.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Print this text (help, version) on stdout and leave with 0.
    Print(String),
    /// Say this on stderr and leave with 125.
    Refuse(String),
}

/// clap explains in paragraphs; a script's log wants the first one, on one line.
fn one_line(message: &str) -> String {
    let paragraph = message.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    format!("{} (see nproxy --help)", words.join(" "))
}

fn pipe_size(text: &str) -> Result<PipeSize, String> {
    if text == "keep" {
        return Ok(PipeSize(None));
    }
    let bytes = parse_size::Config::new().with_binary().parse_size(text);
    bytes.map(|bytes| PipeSize(Some(bytes))).map_err(|error| error.to_string())
}

fn coalesce(text: &str) -> Result<CoalesceTime, String> {
    /// Ten seconds in microseconds: more would look like a hang.
    const LONGEST: u64 = 10_000_000;
    match text {
        "auto" => return Ok(CoalesceTime(None)),
        "off" => return Ok(CoalesceTime(Some(Duration::ZERO))),
        _ => {}
    }
    match text.parse() {
        Ok(micros @ 0..=LONGEST) => Ok(CoalesceTime(Some(Duration::from_micros(micros)))),
        Ok(_) => Err("at most 10000000".to_owned()),
        Err(_) => Err("expected `auto`, `off` or a number of microseconds".to_owned()),
    }
}

fn linger(text: &str) -> Result<LingerTime, String> {
    if text == "eof" {
        return Ok(LingerTime(None));
    }
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    Ok(LingerTime(Some(time)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Cli {
        Cli::try_parse_from([&["nproxy"], line].concat()).expect("parse")
    }

    #[test]
    fn options_end_at_the_first_word_that_is_none() {
        let cli = parse(&["-q", "make", "-v", "--", "--engine=none"]);
        assert_eq!(cli.command, ["make", "-v", "--", "--engine=none"]);
        assert_eq!((cli.quiet, cli.verbose), (true, 0));
        let cli = parse(&["-v", "--", "--odd-name", "--", "-q"]);
        assert_eq!(cli.command, ["--odd-name", "--", "-q"]);
        assert_eq!((cli.quiet, cli.verbose), (false, 1));
    }

    #[test]
    fn an_optional_value_needs_its_equals_sign() {
        let cli = parse(&["--stats", "json"]);
        assert_eq!((cli.observe.stats, cli.command), (Some(StatsName::Text), vec!["json".into()]));
        assert_eq!(parse(&["--stats=json", "x"]).observe.stats, Some(StatsName::Json));
    }

    #[test]
    fn sizes_and_times() {
        assert_eq!(pipe_size("64K"), Ok(PipeSize(Some(65536))));
        assert_eq!(pipe_size("1MiB"), Ok(PipeSize(Some(1 << 20))));
        assert_eq!(pipe_size("keep"), Ok(PipeSize(None)));
        assert_eq!(linger("eof"), Ok(LingerTime(None)));
        assert_eq!(linger("1s 500ms"), Ok(LingerTime(Some(Duration::from_millis(1500)))));
        assert!(pipe_size("much").is_err() && linger("soon").is_err());
    }
}
