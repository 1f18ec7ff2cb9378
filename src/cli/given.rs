//! What was really said, beyond what it comes to: which flags were given, and slips of the hand.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
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

/// Where a flag stands on the command line, if it does; the last time.
pub(super) fn place(matches: &ArgMatches, flag: &str) -> Option<usize> {
    let is_given = matches.value_source(flag) == Some(ValueSource::CommandLine);
    is_given.then(|| matches.indices_of(flag)?.next_back()).flatten()
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
    if let Some(mistake) = divided_list(definition, &words[..=before], value) {
        return Some(mistake);
    }
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

/// `--text strip-ansi transform`, where one list was meant: its second value would be taken for the command.
fn divided_list(definition: &Command, before: &[OsString], value: &str) -> Option<String> {
    let mut before = before.iter().rev().map(|word| word.to_str());
    let last = before.next()??;
    let (flag, first) = match last.strip_prefix("--").and_then(|word| word.split_once('=')) {
        Some((flag, first)) => (flag, first),
        None => (before.next()??.strip_prefix("--")?, last),
    };
    let arg = definition.get_arguments().find(|arg| arg.get_long() == Some(flag))?;
    let is_value = |word| arg.get_possible_values().iter().any(|one| one.matches(word, false));
    let is_list = arg.get_value_delimiter().is_some();
    let is_meant =
        is_list && is_value(value) && first.split(',').all(is_value) && !is_program(value);
    is_meant.then(|| {
        format!(
            "--{flag} {first} {value}: did you mean --{flag}={first},{value}? (to run a command of that name: -- {value})"
        )
    })
}

/// Whether a shell would find a program of this name; `screen` is one on some machines.
fn is_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

/// The option or variable whose value is no UTF-8, of which clap only says that there is one.
pub(super) fn not_text(definition: &Command, words: &[OsString]) -> Option<String> {
    let name = |word: &OsString| {
        let text = word.to_string_lossy();
        let name = text.split('=').next().filter(|name| name.starts_with("--"));
        name.map(str::to_owned)
    };
    let mut before = None;
    for word in words.iter().skip(1).take_while(|word| *word != "--") {
        if word.to_str().is_none() && name(word).or(before.clone()).is_some() {
            return name(word).or(before);
        }
        before = name(word);
    }
    let variables = definition.get_arguments().filter_map(Arg::get_env);
    let mut wrong = variables.filter(|variable| {
        std::env::var_os(variable).is_some_and(|value| value.to_str().is_none())
    });
    wrong.next().map(|variable| variable.to_string_lossy().into_owned())
}

/// The variable that the value comes from which was refused, if it was not said on the command line.
pub(super) fn variable_at_fault(
    definition: &Command,
    words: &[OsString],
    error: &clap::Error,
) -> Option<String> {
    if error.kind() == ErrorKind::InvalidUtf8 {
        return not_text(definition, words);
    }
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = named.split([' ', '=', '[']).next()?;
    let long = flag.strip_prefix("--")?;
    let arg = definition.get_arguments().find(|arg| arg.get_long() == Some(long))?;
    let variable = arg.get_env().filter(|name| std::env::var_os(name).is_some())?;
    let is_flag = |word: &OsString| {
        let rest = word.as_encoded_bytes().strip_prefix(flag.as_bytes());
        rest.is_some_and(|rest| rest.first().is_none_or(|next| *next == b'='))
    };
    let mut own = words.iter().take_while(|word| *word != "--");
    (!own.any(is_flag)).then(|| variable.to_string_lossy().into_owned())
}
