//! Flags that were given and do nothing in this run: what was meant by them will not happen, so it is said.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::Target;
use crate::cli::choices::{ProgressMode, TextMode};
use crate::cli::{Cli, copy_keys};
use crate::relay::Stream;

/// Flags that need something, whether it is there, and how its absence is told.
struct Need {
    flags: &'static [&'static str],
    is_met: fn(&Cli) -> bool,
    otherwise: &'static str,
}

const NEEDS: [Need; 8] = [
    Need {
        flags: &[
            "tee-append",
            "tee-text",
            "tee-streams",
            "tee-full",
            "tee-strict",
            "tee-output-error",
        ],
        is_met: |cli| !cli.copies.tee.is_empty(),
        otherwise: "without --tee",
    },
    Need {
        flags: &["text-streams"],
        is_met: |cli| !cli.text.text.is_empty() || cli.text.ask_for_prefix(),
        otherwise: "without --text",
    },
    Need {
        flags: &["timestamp", "timestamp-mode", "prefix", "line-numbers"],
        is_met: |cli| has_mode(cli, is_transform) || nothing_asks(cli),
        otherwise: "without transform among the text modes",
    },
    // This one asks for nothing by itself: it says what zone a timestamp is in, where there is one.
    Need {
        flags: &["local-time"],
        is_met: |cli| has_mode(cli, is_transform) || nothing_asks(cli) && cli.text.ask_for_prefix(),
        otherwise: "without transform among the text modes",
    },
    Need {
        flags: &["c1"],
        is_met: |cli| has_mode(cli, reads_controls),
        otherwise: "without strip-ansi or screen among the text modes",
    },
    Need {
        flags: &["size", "progress-name", "progress-lines", "progress-interval"],
        is_met: |cli| cli.observe.progress.is_some_and(|when| when != ProgressMode::Never),
        otherwise: "without --progress",
    },
    Need {
        flags: &["status-format"],
        is_met: |cli| cli.observe.status.is_some(),
        otherwise: "without --status",
    },
    Need {
        flags: &[
            "pty",
            "stdin",
            "linger",
            "only-on-failure",
            "signal-exit",
            "group",
            "memory-max",
            "memory-high",
            "rlimit",
            "monitor",
            "attention",
            "pressure",
            "critical",
            "emergency",
            "tick",
            "gate",
            "degrade",
            "memlog",
            "banner",
            "node",
            "crash-dump",
        ],
        is_met: |cli| !cli.command.is_empty(),
        otherwise: "without a command",
    },
];

/// Questions that are answered instead of a run, and the only flags that mean something beside them.
const QUESTIONS: [(&str, &[&str]); 2] =
    [("completions", &[]), ("status", &["status-format", "quiet", "verbose"])];

/// Refuses what was asked for beside a question: there is no run in which it could happen.
///
/// # Errors
/// One line that names it.
pub fn refuse_beside_question(cli: &Cli) -> Result<(), String> {
    let Some((question, beside)) = QUESTIONS.iter().find(|(flag, _)| cli.given.contains(flag))
    else {
        return Ok(());
    };
    let useless = cli.given.iter().filter(|flag| flag != question && !beside.contains(flag));
    let mut useless: Vec<String> = useless.map(|flag| format!("--{flag}")).collect();
    useless.extend(cli.command.first().map(|word| word.to_string_lossy().into_owned()));
    match useless.len() {
        0 => Ok(()),
        1 => Err(format!("{} has no effect with --{question}: nothing is run", useless[0])),
        _ => {
            Err(format!("{} have no effect with --{question}: nothing is run", useless.join(", ")))
        }
    }
}

/// What to say of the flags, one line each.
pub(super) fn remarks(cli: &Cli) -> Vec<String> {
    let mut remarks = Vec::new();
    for need in NEEDS.iter().filter(|need| !(need.is_met)(cli)) {
        let given = need.flags.iter().filter(|flag| cli.given.contains(flag));
        let given: Vec<String> = given.map(|flag| format!("--{flag}")).collect();
        match given.len() {
            0 => {}
            1 => remarks.push(format!("{} has no effect {}", given[0], need.otherwise)),
            _ => remarks.push(format!("{} have no effect {}", given.join(", "), need.otherwise)),
        }
    }
    if cli.command.is_empty() {
        remarks.extend(without_stdout(cli));
    }
    if cli.given.contains("tee") && cli.copies.tee.iter().any(|target| target == "-") {
        remarks.push("--tee -: copies to a file named `-` (--tee ./- means the same)".to_owned());
    }
    if cli.given.contains("tee") {
        remarks.extend(cli.copies.tee.iter().filter_map(|word| doubtful_name(word)));
    }
    remarks
}

/// What to say of a filter, which has no stderr, where only that is asked for.
fn without_stdout(cli: &Cli) -> Vec<String> {
    let lacks = |streams: &[Stream]| !streams.contains(&Stream::Stdout);
    let mut remarks = Vec::new();
    if cli.given.contains("text-streams") && lacks(&cli.text.text_streams) {
        remarks.push("--text-streams=stderr: without a command there is only stdout".to_owned());
    }
    let copied = |streams: Option<Vec<Stream>>| streams.unwrap_or(cli.copies.tee_streams.clone());
    if cli.given.contains("tee") && cli.copies.keys().any(|keys| lacks(&copied(keys.streams))) {
        let why = "nothing is copied: without a command there is only stdout";
        remarks.push(format!("--tee with stderr only: {why}"));
    }
    remarks
}

/// What to say of a file's name that looks as if something else was meant.
fn doubtful_name(word: &OsStr) -> Option<String> {
    let (name, _) = copy_keys::divide(word).ok()?;
    if !matches!(Target::new(&name), Ok(Target::Path(_))) {
        return None;
    }
    let shown = name.to_string_lossy();
    let why = match (copy_keys::unknown_key(name.as_bytes()), shown.split_once(':')) {
        (Some(key), _) if copy_keys::is_like_a_key(&key) => format!("{key}= is no key"),
        (_, Some((scheme, _)))
            if scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_lowercase()) =>
        {
            format!("{scheme}: is none of tcp:, unix: and journal:")
        }
        _ => return None,
    };
    Some(format!("--tee {shown}: copies to a file of that name ({why})"))
}

/// Whether the text modes of the output, or of copies that there are, have what is looked for.
fn has_mode(cli: &Cli, looked_for: fn(&[TextMode]) -> bool) -> bool {
    looked_for(&cli.text.text) || cli.copies.modes().any(|modes| looked_for(&modes))
}

/// Whether neither --text nor a copy settles where a prefix goes, so that flags about it ask for one.
fn nothing_asks(cli: &Cli) -> bool {
    cli.text.text.is_empty() && !cli.copies.modes().any(|modes| is_transform(&modes))
}

fn reads_controls(modes: &[TextMode]) -> bool {
    modes.iter().any(|mode| matches!(mode, TextMode::StripAnsi | TextMode::Screen))
}

fn is_transform(modes: &[TextMode]) -> bool {
    modes.contains(&TextMode::Transform)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Detail;

    fn said(line: &str) -> Vec<String> {
        let words = format!("nproxy {line}");
        remarks(&Cli::parse_words(words.split(' ').map(Into::into).collect()).expect("parse"))
    }

    #[test]
    fn what_does_nothing_is_named() {
        for (line, flag) in [
            ("--tee-text=strip-ansi true", "--tee-text"),
            ("--tee-full=drop true", "--tee-full"),
            ("--size=5 true", "--size"),
            ("--progress=never --size=5 true", "--size"),
            ("--status-format=json true", "--status-format"),
            ("--text=strip-ansi --timestamp=%H true", "--timestamp"),
            ("--tee-text=transform --line-numbers true", "--tee-text"),
            ("--tee=log,text=strip-ansi --text=strip-ansi --prefix=x true", "--prefix"),
            ("--line-numbers --text-streams=stderr", "--text-streams"),
            ("--tee=log --tee-streams=stderr", "--tee with stderr only: nothing is copied"),
            ("--tee=log,streams=stderr", "--tee with stderr only: nothing is copied"),
            ("--text-streams=stderr true", "--text-streams"),
            ("--local-time true", "--local-time"),
            ("--local-time --text=strip-ansi true", "--local-time"),
            ("--c1=control true", "--c1"),
            ("--c1=control --text=transform true", "--c1"),
            ("--c1=control --tee-text=screen true", "--c1"),
            ("--pty=always", "--pty"),
            ("--attention=5M --gate=off", "--attention, --gate have no effect"),
            ("--tee - true", "--tee -"),
            (
                "--tee log,rotat=1M true",
                "--tee log,rotat=1M: copies to a file of that name (rotat=",
            ),
            ("--tee udp:host:5 true", "--tee udp:host:5: copies to a file of that name (udp:"),
        ] {
            assert!(
                said(line).iter().any(|text| text.starts_with(flag)),
                "{line}: {:?}",
                said(line)
            );
        }
    }

    #[test]
    fn what_does_something_is_not() {
        for line in [
            "--tee=log --tee-text=strip-ansi --tee-append true",
            "--tee=log --tee-text=transform --line-numbers true",
            "--timestamp=%H --text-streams=stdout true",
            "--local-time --timestamp=%H true",
            "--local-time --line-numbers true",
            "--local-time --text=transform true",
            "--local-time --tee=log --tee-text=transform true",
            "--local-time --tee=log,text=transform true",
            "--prefix=x --text=strip-ansi --tee=log,text=transform true",
            "--c1=control --tee=log,text=strip-ansi true",
            "--line-numbers --text-streams=stdout",
            "--c1=control --text=screen true",
            "--c1=control --tee=log --tee-text=strip-ansi true",
            "--progress --size=5 true",
            "--status --status-format=json",
            "--tee ./- true",
            "--tee a,b true",
            "--tee ./log,Rotat=1M true",
            "--tee ./year=2024,month=05.log true",
            "--tee c:log --tee tcp:localhost:5 true",
            "--monitor=off --attention=5M --pty=always true",
        ] {
            assert_eq!(said(line), [""; 0], "{line}");
        }
    }

    #[test]
    fn nothing_is_run_beside_a_question() {
        let asked = |line: &str| {
            let words = format!("nproxy {line}").split(' ').map(Into::into).collect();
            refuse_beside_question(&Cli::parse_words(words).expect("parse"))
        };
        for line in ["true", "--tee=x true", "--status", "--status=5 -v --status-format=json"] {
            assert_eq!(asked(line), Ok(()), "{line}");
        }
        assert_eq!(asked("--completions=bash"), Ok(()));
        for (line, useless) in [
            ("--status --tee=x", "--tee has"),
            ("--tee=x --status --pty=never", "--tee, --pty have"),
            ("--status --completions=bash", "--status has"),
            ("--completions=bash --stats", "--stats has"),
            ("--completions=bash true", "true has"),
        ] {
            let said = asked(line).unwrap_err();
            assert!(said.starts_with(useless), "{line}: {said}");
        }
    }

    #[test]
    fn only_flags_that_exist_are_looked_for() {
        let definition = Cli::definition(Detail::Full);
        let questions = QUESTIONS.iter().flat_map(|(flag, beside)| beside.iter().chain([flag]));
        for flag in NEEDS.iter().flat_map(|need| need.flags).chain(questions) {
            assert!(definition.get_arguments().any(|arg| arg.get_long() == Some(flag)), "{flag}");
        }
    }
}
