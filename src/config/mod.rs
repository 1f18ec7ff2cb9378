//! What the flags mean: one validated [`Config`]. No system calls.

mod copies;
mod effect;
mod memory;
mod node;
mod observe;
mod text;

use std::ffi::OsString;
use std::time::Duration;

use crate::cli::{Cli, RunFlags, manual};
use crate::error::Error;

pub use crate::cli::choices::{Compression, Restart};
pub use crate::cli::choices::{
    EngineChoice, Linger, MonitorMode, OutputError, PipeSize, ProgressMode, PtyMode, SignalExit,
    StatsFormat, StatusFormat, StdinMode,
};
pub use crate::observe::Level;
pub use copies::{CopyTo, Destination, Moved, Rotation, Target, Tee, TeeFailure, TeeOpen};
pub use effect::refuse_beside_question;
pub use memory::{Banner, Memory};
pub use node::NodePreload;
pub use observe::{ControlMode, Observe, ProgressLine, Stats, StatusRequest, Unit};
pub use text::{Escapes, Machine, SinkIs, Streams, Text};

/// Everything that a run has to know, in one part for each who needs it.
#[derive(Debug)]
pub struct Config {
    /// What to carry.
    pub job: Job,
    /// How bytes are moved.
    pub transfer: Transfer,
    /// What becomes of the output.
    pub output: Output,
    /// What happens while nothing comes.
    pub silence: Silence,
    /// How the command's memory is watched and limited.
    pub memory: Memory,
    /// What is recorded of the run, and where it is told.
    pub observe: Observe,
    /// How much is said on stderr.
    pub verbosity: Verbosity,
    /// Flags without effect, one line each.
    pub remarks: Vec<String>,
    /// Variables that nobody inherits whom nproxy starts: they were meant for this run alone.
    pub withheld: &'static [&'static str],
}

/// What happens while no output comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// After this long the command is ended.
    pub timeout: Option<Duration>,
    /// A line is printed this often.
    pub heartbeat: Option<Duration>,
}

/// How bytes are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Which engine runs the operations.
    pub engine: EngineChoice,
    /// What pipes are grown to.
    pub pipe_size: PipeSize,
    /// The longest that a busy stream waits for more bytes before its next transfer.
    pub coalesce: Duration,
}

/// What becomes of the output.
#[derive(Debug)]
pub struct Output {
    /// Text modes of the streams that nproxy delivers.
    pub text: Text,
    /// Where else the streams go.
    pub tee: Tee,
    /// Bytes a second that each stream is limited to.
    pub limit_rate: Option<u64>,
    /// Whether its lines are counted, whatever is done to them.
    pub counts: Unit,
    /// When it is shown.
    pub visibility: Visibility,
}

/// When output is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// As it comes.
    Always,
    /// Once the command has failed.
    OnFailure,
}

/// What to carry.
#[derive(Debug)]
pub enum Job {
    /// stdin to stdout.
    Filter,
    /// The streams of a command.
    Wrap(Wrap),
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
    pub pty: PtyMode,
    /// How long a pipe is waited for that outlives the command.
    pub linger: Linger,
    /// What becomes of a death by signal.
    pub signal_exit: SignalExit,
    /// Who gets the signals that are sent to nproxy.
    pub forward_to: ForwardTo,
    /// What Node processes are given.
    pub node: NodePreload,
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
    pub fn new(cli: Cli, stdin_is: StdinIs, machine: &Machine) -> Result<Config, Error> {
        let observe = Observe::new(&cli.observe, &cli.given)?;
        let output = Output {
            text: Text::of_streams(&cli, machine)?,
            tee: Tee::new(&cli, machine)?,
            limit_rate: cli.engine.limit_rate,
            counts: match observe.progress.counts_lines() {
                true => Unit::Lines,
                false => Unit::Bytes,
            },
            visibility: match cli.run.only_on_failure {
                true => Visibility::OnFailure,
                false => Visibility::Always,
            },
        };
        let transfer = Transfer {
            engine: cli.engine.engine,
            pipe_size: cli.engine.pipe_size,
            coalesce: cli.engine.coalesce.longest(machine.processors),
        };
        let memory = Memory::new(&cli.memory)?;
        let remarks = effect::remarks(&cli);
        let verbosity = Verbosity::new(&cli);
        let silence = Silence { timeout: cli.run.idle_timeout, heartbeat: cli.run.heartbeat };
        let mut words = cli.command.into_iter();
        let job = match (words.next(), stdin_is) {
            (Some(program), _) => {
                let node = NodePreload::new(&cli.node)?;
                Job::Wrap(Wrap::new(program, words.collect(), &cli.run, node))
            }
            (None, StdinIs::Stream) => Job::Filter,
            (None, StdinIs::Terminal) => {
                let why = "no command, and stdin is a terminal (see nproxy --help)";
                return Err(Error::usage("usage: nproxy [OPTIONS] [--] COMMAND", why));
            }
        };
        let withheld = &manual::OF_ONE_RUN;
        Ok(Config { job, transfer, silence, output, memory, observe, verbosity, remarks, withheld })
    }
}

impl Job {
    /// The command and its arguments, as they can be shown; empty for a filter.
    pub fn words(&self) -> Vec<String> {
        match self {
            Job::Filter => Vec::new(),
            Job::Wrap(wrap) => {
                let words = std::iter::once(&wrap.program).chain(&wrap.arguments);
                words.map(|word| word.to_string_lossy().into_owned()).collect()
            }
        }
    }
}

impl Output {
    /// Whether something is done to one of the two output streams and not to the other.
    pub fn splits_streams(&self) -> bool {
        self.text.splits_streams() || self.tee.splits_streams()
    }
}

impl Wrap {
    fn new(
        program: OsString,
        arguments: Vec<OsString>,
        flags: &RunFlags,
        node: NodePreload,
    ) -> Wrap {
        Wrap {
            program,
            arguments,
            stdin: flags.stdin,
            pty: flags.pty,
            linger: flags.linger,
            signal_exit: flags.signal_exit,
            forward_to: if flags.group { ForwardTo::Group } else { ForwardTo::Child },
            node,
        }
    }
}

impl Verbosity {
    fn new(cli: &Cli) -> Verbosity {
        match (cli.quiet, cli.verbose, cli.debug) {
            (true, ..) => Verbosity::Quiet,
            (_, 2.., _) | (_, _, true) => Verbosity::Debug,
            (_, 1, _) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        }
    }
}
