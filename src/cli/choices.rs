//! The choices that a flag offers. The same type says the same thing in the configuration and in the module
//! that acts on it; what such a module defines itself gets its names here.

use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::memory::policy::{Degrade, GateMode};
use crate::observe::Level;
use crate::relay::{OnFull, Stream};
use crate::ring::Engine;
use crate::text::strip::C1;
use crate::text::transform::StampMode;

/// Which engine runs the operations: `--engine`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// io_uring, or epoll if that is refused.
    #[default]
    Auto,
    /// This one or none.
    Named(Engine),
}

/// What pipes are grown to: `--pipe-size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipeSize {
    /// As large as pays, and no more than memory allows.
    Auto,
    /// As they are.
    Keep,
    /// So many bytes.
    Bytes(u32),
}

impl PipeSize {
    /// What pipes are grown to, in bytes, where memory is limited to so many; `None` leaves them as they are.
    ///
    /// What waits in a pipe is charged to the group of the command that wrote it, and a stream may have two pipes full.
    pub fn within(self, memory: impl FnOnce() -> u64) -> Option<u32> {
        match self {
            PipeSize::Keep => None,
            PipeSize::Bytes(bytes) => Some(bytes),
            PipeSize::Auto => {
                let share = (memory() / PIPE_PART).min(AUTO_PIPE) as u32;
                let size = share.checked_ilog2().map(|exponent| 1 << exponent);
                size.filter(|size| *size > USUAL_PIPE)
            }
        }
    }
}

/// The size of `--pipe-size=auto`, the share of limited memory that one pipe may take, one part in so many, and the size that a
/// pipe has (pipe(7)), in bytes.
const AUTO_PIPE: u64 = 1 << 20;
const PIPE_PART: u64 = 128;
const USUAL_PIPE: u32 = 65536;

/// Whether the command gets a terminal of its own, a pty: `--pty`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PtyMode {
    /// If stdout or stderr is a terminal, for those of the command's streams that are one
    #[default]
    Auto,
    /// In any case, so that programs flush each line and keep their colours
    #[value(aliases = ["1", "true", "yes", "on"])]
    Always,
    /// The command gets pipes
    #[value(aliases = ["0", "false", "no", "off"])]
    Never,
}

/// What the command gets as its stdin: `--stdin`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum StdinMode {
    /// The command reads nproxy's stdin itself
    #[default]
    Inherit,
    /// The command reads a pipe that nproxy fills from its own stdin
    Relay,
    /// The command reads /dev/null
    Null,
}

/// What becomes of a command's death by signal: `--signal-exit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SignalExit {
    /// nproxy dies by the same signal
    #[default]
    Raise,
    /// nproxy exits with 128 + the number of the signal
    Code,
}

/// How long a pipe is waited for that outlives the command: `--linger`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linger {
    /// Until it has been silent for so long.
    Silence(Duration),
    /// Until its last writer closes it.
    EndOfFile,
}

/// What is done to text: `--text`, `--tee-text`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TextMode {
    /// Nothing; goes with no other mode (`off` means the same)
    #[value(alias = "off")]
    Passthrough,
    /// Escape sequences (colours, cursor movements, titles) are removed
    StripAnsi,
    /// Lines are what the screen showed at last: progress that redraws itself leaves how it ended
    Screen,
    /// Each line gets a prefix, by default a timestamp
    Transform,
}

/// What becomes of the copies when stdout or stderr fails, or its reader leaves: `--tee-output-error`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputError {
    /// The copies end with the output, and one that cannot be opened is an error
    #[default]
    Exit,
    /// The copies are completed, and one that cannot be opened is left out
    Warn,
}

/// What finished segments are compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// By gzip(1).
    Gzip,
    /// By zstd(1).
    Zstd,
}

/// Whether a command that a copy goes into is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Restart {
    /// It is not.
    #[default]
    Never,
    /// If it ends while there may be more for it.
    OnFailure,
}

/// Whose memory counts: `--monitor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum MonitorMode {
    /// The cgroup, if --memory-high or --memory-max makes one, or else the tree
    #[default]
    #[value(aliases = ["split", "array"])]
    Auto,
    /// Nobody's: memory is not watched
    Off,
    /// The command's own process
    #[value(name = "rss")]
    Process,
    /// The command and all processes that it started
    Tree,
    /// All processes of the cgroup that the command is in
    Cgroup,
}

/// When there is a progress line: `--progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// If stderr is a terminal that the command does not write to
    Auto,
    /// Wherever stderr goes
    Always,
    /// Not at all
    #[default]
    Never,
}

/// How the statistics are written: `--stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatsFormat {
    /// A table to read
    Text,
    /// One JSON object
    Json,
}

/// How `--status` writes its list: `--status-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum StatusFormat {
    /// A table to read
    #[default]
    Text,
    /// One JSON object
    Json,
    /// Metrics in the text format of Prometheus
    Prometheus,
}

/// Gives the values of a type their names on the command line, and a sentence for the help.
macro_rules! named {
    ($type:ty: $($value:expr => $name:literal, $help:literal;)+) => {
        impl ValueEnum for $type {
            fn value_variants<'a>() -> &'a [Self] {
                &[$($value),+]
            }

            fn to_possible_value(&self) -> Option<PossibleValue> {
                $(if *self == $value {
                    return Some(PossibleValue::new($name).help($help));
                })+
                None
            }
        }
    };
}

named! { EngineChoice:
    EngineChoice::Auto => "auto", "io_uring where it is allowed, else epoll";
    EngineChoice::Named(Engine::Uring) => "uring", "io_uring or nothing";
    EngineChoice::Named(Engine::Epoll) => "epoll", "Readiness and non-blocking system calls";
}

named! { Stream:
    Stream::Stdout => "stdout", "The command's stdout, or the stream of a filter";
    Stream::Stderr => "stderr", "The command's stderr";
}

named! { StampMode:
    StampMode::Wall => "wall", "The time of day, in UTC or, with --local-time, in the local zone";
    StampMode::Elapsed => "elapsed", "The time since the start";
    StampMode::Delta => "delta", "The time since the line before";
}

named! { C1:
    C1::Text => "text", "Text of another encoding";
    C1::Control => "control", "Controls in one byte, where UTF-8 does not account for them";
}

named! { OnFull:
    OnFull::Block => "block", "Everything waits for the copy, and so does the command";
    OnFull::Drop => "drop", "The copy loses bytes; the gap is marked in it and counted";
}

named! { GateMode:
    GateMode::Auto => "auto", "Tried in the critical stage, and given up where it does not help";
    GateMode::Off => "off", "Never";
}

named! { Degrade:
    Degrade::Auto => "auto", "From the pressure stage on";
    Degrade::Never => "never", "Never";
}

named! { Level:
    Level::Full => "full", "Sizes, times and waits, and the last 1024 transfers one by one";
    Level::Summary => "summary", "Sizes, times and waits, and the last 128 transfers one by one";
    Level::Off => "off", "Totals only";
}
