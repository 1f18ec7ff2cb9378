//! What was really said, beyond what it comes to: which flags were given, and slips of the hand.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

/// The flags that stand on the command line, by their long names. What comes from variables does not
/// count: those are habits, and a habit may be without effect on one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given(Vec<String>);

impl Given {
    pub(super) fn new(definition: &Command, matches: &ArgMatches) -> Given {
        let given = definition.get_arguments().filter(|arg| {
            matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
        });
        Given(given.filter_map(Arg::get_long).map(str::to_owned).collect())
    }

    /// Whether the flag of this name, without its dashes, is among them.
    pub fn contains(&self, flag: &str) -> bool {
        self.0.iter().any(|given| given == flag)
    }

    /// All of them, in the order in which help shows them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// `--stats json`, where `--stats=json` was meant: a value that would be taken for the command. A command
/// of that name can be run behind `--`.
pub(super) fn separated_value(
    definition: &Command,
    words: &[OsString],
    command: &[OsString],
) -> Option<String> {
    let value = command.first()?.to_str()?;
    let before = words.len().checked_sub(command.len() + 1)?;
    let flag = words.get(before)?.to_str()?.strip_prefix("--")?;
    let arg = definition.get_arguments().find(|arg| arg.get_long() == Some(flag))?;
    let is_meant = arg.is_require_equals_set()
        && arg.get_possible_values().iter().any(|possible| possible.matches(value, false));
    is_meant.then(|| {
        format!(
            "--{flag} {value}: did you mean --{flag}={value}? (to run a command of that name: --{flag} -- {value})"
        )
    })
}
