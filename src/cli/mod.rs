//! The command line: flags and environment, nothing else.
//!
//! The help text, the man page and the shell completions all come from this definition. What the flags
//! mean together is decided in `config`. A new flag is one field in the group that it belongs to; its
//! documentation is its help: the first paragraph is its line in `-h`, all of it stands in `--help` and in
//! the man page.

pub mod choices;
mod copies;
pub mod copy_keys;
mod engine;
mod given;
pub mod manual;
mod memory;
mod node;
mod observe;
mod old_words;
mod run;
mod text;
mod values;

#[cfg(test)]
mod tests;

use std::ffi::OsString;

use clap::builder::{FalseyValueParser, Resettable};
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches, Parser};

pub use copies::CopyFlags;
pub use engine::EngineFlags;
pub use given::Given;
pub use memory::MemoryFlags;
pub use node::NodeFlags;
pub use observe::ObserveFlags;
pub use old_words::old_values;
pub use run::RunFlags;
pub use text::TextFlags;

/// What was said on the command line and in `NPROXY_…` variables; a flag wins over its variable.
#[derive(Debug, Parser)]
#[command(
    name = "nproxy",
    version,
    about = "Relay the bytes of a command or a pipeline without touching them",
    long_about = manual::DESCRIPTION,
    override_usage = "nproxy [OPTIONS] [--] COMMAND [ARGUMENT]...\n       producer | nproxy [OPTIONS] | consumer",
    disable_help_flag = true,
    disable_version_flag = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Cli {
    /// Copies
    #[command(flatten)]
    pub copies: CopyFlags,

    /// Text
    #[command(flatten)]
    pub text: TextFlags,

    /// The command and its terminal
    #[command(flatten)]
    pub run: RunFlags,

    /// The memory guard
    #[command(flatten)]
    pub memory: MemoryFlags,

    /// Node.js
    #[command(flatten)]
    pub node: NodeFlags,

    /// Statistics and reports
    #[command(flatten)]
    pub observe: ObserveFlags,

    /// How bytes are moved
    #[command(flatten)]
    pub engine: EngineFlags,

    /// Print only errors on stderr, no notices
    #[arg(short, long, help_heading = GENERAL, value_parser = FalseyValueParser::new(), env = "NPROXY_QUIET")]
    pub quiet: bool,

    /// Explain on stderr what is decided; twice for more
    ///
    /// -v names decisions that are not the usual ones, such as epoll in place of io_uring; -vv names the engine and the
    /// thresholds at the start, and events. NPROXY_DEBUG=1 is the same as -vv.
    #[arg(short, long, help_heading = GENERAL, action = ArgAction::Count)]
    pub verbose: u8,

    /// The same as -vv
    #[arg(long, hide = true, value_parser = FalseyValueParser::new(), env = "NPROXY_DEBUG")]
    pub debug: bool,

    /// Print the completion script for a shell and exit
    #[arg(long, help_heading = GENERAL, value_enum, value_name = "SHELL", hide_short_help = true)]
    pub completions: Option<clap_complete::Shell>,

    /// Print this summary of the usual options and exit
    #[arg(short = 'h', help_heading = GENERAL)]
    pub summary: bool,

    /// Print all options, their values and variables, and exit
    #[arg(long = "help", help_heading = GENERAL)]
    pub help: bool,

    /// Print the version and exit
    #[arg(short = 'V', long, help_heading = GENERAL, action = ArgAction::Version)]
    version: Option<bool>,

    /// The command to run, with its arguments
    ///
    /// Options end where the command begins; everything from there on is the command's. Without a command
    /// nproxy relays its stdin to its stdout.
    #[arg(trailing_var_arg = true, value_name = "COMMAND", help_heading = None::<&str>, hide_short_help = true)]
    pub command: Vec<OsString>,

    /// Which flags were given.
    #[arg(skip)]
    pub given: Given,
}

/// The heading of what concerns nproxy as a program.
const GENERAL: &str = "General";

/// How much of the definition is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// One line for each of the usual options, as `-h` shows them.
    Summary,
    /// Everything.
    Full,
}

/// What the command line asks for instead of a run.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Print this text (help, version) on stdout and leave with 0.
    Print(String),
    /// Say this on stderr and leave with 125.
    Refuse(String),
}

impl Cli {
    /// Reads the process's arguments and environment.
    ///
    /// # Errors
    /// One line that names what is wrong; help and version come back as [`Request::Print`].
    pub fn from_env() -> Result<Cli, Request> {
        Cli::parse_words(std::env::args_os().collect())
    }

    /// Reads a command line, the program's own name first.
    ///
    /// # Errors
    /// As [`Cli::from_env`].
    pub fn parse_words(words: Vec<OsString>) -> Result<Cli, Request> {
        let refused = |error: clap::Error| {
            use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
            match error.kind() {
                DisplayHelp | DisplayVersion => Request::Print(error.render().to_string()),
                _ => Request::Refuse(one_line(&error.render().to_string())),
            }
        };
        let mut definition = Cli::definition(Detail::Full).mut_args(without_empty_variable);
        let words = old_words::translated(&definition, words);
        let matches = definition.try_get_matches_from_mut(&words);
        let matches = matches.map_err(|error| {
            let variable = given::variable_at_fault(&Cli::definition(Detail::Full), &words, &error);
            if let (Some(_), Some(detail)) = (&variable, asks_for_help(&words)) {
                return Request::Print(Cli::help(detail));
            }
            match (refused(error), variable) {
                (Request::Refuse(why), Some(variable)) => {
                    Request::Refuse(format!("{variable}: {why}"))
                }
                (request, _) => request,
            }
        })?;
        let mut cli = Cli::from_arg_matches(&matches).map_err(refused)?;
        match (cli.summary, cli.help) {
            (true, _) => return Err(Request::Print(Cli::help(Detail::Summary))),
            (_, true) => return Err(Request::Print(Cli::help(Detail::Full))),
            _ => {}
        }
        if let Some(mistake) = given::separated_value(&definition, &words, &cli.command) {
            return Err(Request::Refuse(mistake));
        }
        cli.given = Given::new(&definition, &matches);
        // The last of the two counts, and either of them more than a variable.
        let verbose = given::place(&matches, "verbose").max(given::place(&matches, "debug"));
        match (given::place(&matches, "quiet"), verbose) {
            (quiet, Some(verbose)) if quiet.is_none_or(|quiet| quiet < verbose) => {
                cli.quiet = false
            }
            (Some(_), _) => (cli.verbose, cli.debug) = (0, false),
            _ => {}
        }
        Ok(cli)
    }

    /// The definition, shown in so much detail. Of a flag that is given twice the last one counts.
    pub fn definition(detail: Detail) -> Command {
        Cli::command().args_override_self(true).mut_args(|arg| {
            let takes_values = arg.get_action().takes_values();
            let arg = match detail {
                Detail::Full => arg.hide_env_values(true),
                Detail::Summary if takes_values => {
                    arg.hide_possible_values(true).hide_default_value(true).hide_env(true)
                }
                Detail::Summary => arg.hide_env(true),
            };
            match takes_values && !arg.is_positional() {
                // A negative number is a bad value, not an unknown flag.
                true => arg.allow_negative_numbers(true),
                false => arg,
            }
        })
    }

    /// The text of `-h` and of `--help`.
    fn help(detail: Detail) -> String {
        let command = Cli::definition(detail);
        let styled = match detail {
            Detail::Summary => command.after_help(manual::SUMMARY_END).render_help(),
            Detail::Full => command.after_help(manual::help_end()).render_long_help(),
        };
        styled.to_string()
    }

    /// The completion script for a shell.
    pub fn completion_script(shell: clap_complete::Shell) -> Vec<u8> {
        let mut command = Cli::definition(Detail::Full);
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, "nproxy", &mut script);
        script
    }
}

/// Whether one of the words in front of the command asks for help, and for how much.
fn asks_for_help(words: &[OsString]) -> Option<Detail> {
    let without_variables = |arg: Arg| arg.env(Resettable::Reset);
    let definition = Cli::definition(Detail::Full).mut_args(without_variables);
    let matches = definition.try_get_matches_from(words).ok()?;
    match (matches.get_flag("summary"), matches.get_flag("help")) {
        (true, _) => Some(Detail::Summary),
        (_, true) => Some(Detail::Full),
        _ => None,
    }
}

/// A variable that is set and empty says nothing: a script that passes on what may not be there sets it so. An empty
/// timestamp is one.
fn without_empty_variable(arg: Arg) -> Arg {
    if arg.get_id() == "timestamp" {
        return arg;
    }
    let is_empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    if is_empty { arg.env(Resettable::Reset) } else { arg }
}

/// Variables of this process whose names begin like those of nproxy and say nothing to it.
pub fn unknown_variables() -> Vec<String> {
    let command = Cli::definition(Detail::Full);
    let is_known = |name: &str| {
        let mut own = command.get_arguments().filter_map(Arg::get_env);
        own.any(|own| own == name)
            || manual::VARIABLES.iter().any(|(other, _)| *other == name)
            || manual::OF_THE_PRELOAD.contains(&name)
    };
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let mut unknown: Vec<String> =
        names.filter(|name| name.starts_with("NPROXY_") && !is_known(name)).collect();
    // Those are for the test suites, and nproxy is run by them.
    unknown.retain(|name| !name.starts_with("NPROXY_TEST_"));
    unknown.sort();
    unknown
}

/// clap explains in paragraphs; a script's log wants one line: the first of them, and the tip if there is one.
fn one_line(message: &str) -> String {
    let joined = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut paragraphs = message.trim_start_matches("error: ").split("\n\n").map(joined);
    let what = paragraphs.next().unwrap_or_default();
    let tips = paragraphs.find_map(|text| text.strip_prefix("tip: ").map(str::to_owned));
    // How a word that looks like a flag becomes the command's name is nothing that a mistyped flag asks for.
    let is_of_use = |tip: &&str| !tip.starts_with("to pass ");
    match tips.as_deref().and_then(|tips| tips.split(" tip: ").find(is_of_use)) {
        Some(tip) => format!("{what}: {tip} (see nproxy --help)"),
        None => format!("{what} (see nproxy --help)"),
    }
}
