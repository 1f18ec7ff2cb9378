//! Words of the program before this one that still work: `--pty` without a value, `--no-pty`, and values of variables.

use std::ffi::OsString;

use clap::{Arg, Command};

/// What `--pty` may be followed by.
const PTY_MODES: [&str; 3] = ["auto", "always", "never"];

/// The same words as they are written today. Only options are looked at: what follows them is the command's.
pub(super) fn translated(definition: &Command, words: Vec<OsString>) -> Vec<OsString> {
    let mut translated = Vec::with_capacity(words.len());
    let mut words = words.into_iter().peekable();
    translated.extend(words.next());
    while let Some(word) = words.next_if(is_option) {
        match word.to_str().unwrap_or_default() {
            "--no-pty" => translated.push("--pty=never".into()),
            "--pty" => {
                let value = words.next_if(|next| PTY_MODES.iter().any(|mode| next == *mode));
                let value = value.unwrap_or_else(|| "always".into());
                let mut word = OsString::from("--pty=");
                word.push(value);
                translated.push(word);
            }
            name => {
                let has_value = takes_next_word(definition, name);
                translated.push(word);
                if has_value {
                    translated.extend(words.next());
                }
            }
        }
    }
    translated.extend(words);
    translated
}

fn is_option(word: &OsString) -> bool {
    word.as_encoded_bytes().starts_with(b"-") && word != "--" && word != "-"
}

/// Whether the word after this option is its value.
fn takes_next_word(definition: &Command, name: &str) -> bool {
    let long = name.strip_prefix("--");
    let is_it = |arg: &&Arg| match long {
        Some(long) => arg.get_long() == Some(long),
        None => arg.get_short().is_some_and(|short| name.ends_with(short)),
    };
    let takes_value = |arg: &Arg| arg.get_action().takes_values() && !arg.is_require_equals_set();
    definition.get_arguments().find(is_it).is_some_and(takes_value)
}

/// What variables say that means less today than it did, one line each.
pub fn old_values() -> Vec<String> {
    let monitor = std::env::var("NPROXY_MONITOR").unwrap_or_default();
    match monitor.as_str() {
        "split" | "array" => {
            vec![format!(
                "NPROXY_MONITOR={monitor}: the same as auto (nothing wraps JavaScript's {monitor})"
            )]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Detail};

    fn words(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect();
        let words = translated(&Cli::definition(Detail::Full), words);
        words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn pty_without_a_value() {
        assert_eq!(words("nproxy --pty vim"), "nproxy --pty=always vim");
        assert_eq!(words("nproxy --pty never vim"), "nproxy --pty=never vim");
        assert_eq!(words("nproxy --pty auto -- auto"), "nproxy --pty=auto -- auto");
        assert_eq!(words("nproxy --pty -- never"), "nproxy --pty=always -- never");
        assert_eq!(words("nproxy -q --no-pty x"), "nproxy -q --pty=never x");
        assert_eq!(words("nproxy --pty=always x"), "nproxy --pty=always x");
        assert_eq!(words("nproxy --pty"), "nproxy --pty=always");
    }

    #[test]
    fn what_is_the_commands_stays() {
        assert_eq!(words("nproxy script --pty x"), "nproxy script --pty x");
        assert_eq!(words("nproxy -- --no-pty"), "nproxy -- --no-pty");
        assert_eq!(words("nproxy --tee --pty --no-pty x"), "nproxy --tee --pty --pty=never x");
        assert_eq!(words("nproxy --stats --pty x"), "nproxy --stats --pty=always x");
    }
}
