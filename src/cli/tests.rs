//! What is read, what is refused, and what the help says.

use super::*;
use crate::cli::choices::{PtyMode, StatsFormat, TextMode};

fn read(line: &[&str]) -> Result<Cli, Request> {
    Cli::parse_words(["nproxy"].iter().chain(line).map(OsString::from).collect())
}

fn parse(line: &[&str]) -> Cli {
    read(line).expect("parse")
}

fn refusal(line: &[&str]) -> String {
    match read(line) {
        Err(Request::Refuse(why)) => why,
        other => panic!("{line:?}: {other:?}"),
    }
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

/// Whoever adds an option has to say whether a command inherits its variable.
#[test]
fn every_variable_is_of_one_run_or_a_habit() {
    let definition = Cli::definition(Detail::Full);
    let own = definition.get_arguments().filter_map(Arg::get_env);
    let own = own.map(|name| name.to_string_lossy().into_owned());
    // What is not called so is no invention of nproxy, and is passed on as it is.
    let mut own: Vec<_> = own.filter(|name| name.starts_with("NPROXY_")).collect();
    let mut listed: Vec<_> =
        manual::OF_ONE_RUN.iter().chain(&manual::HABITS).map(|name| name.to_string()).collect();
    own.sort();
    listed.sort();
    assert_eq!(own, listed);
}

#[test]
fn an_optional_value_needs_its_equals_sign() {
    let why = refusal(&["--stats", "json", "x"]);
    assert!(why.contains("did you mean --stats=json?"), "{why}");
    let why = refusal(&["-q", "--progress", "always"]);
    assert!(why.contains("did you mean --progress=always?"), "{why}");
    let cli = parse(&["--stats", "--", "json"]);
    assert_eq!((cli.observe.stats, cli.command), (Some(StatsFormat::Text), vec!["json".into()]));
    assert_eq!(parse(&["--stats", "-q", "json"]).command, ["json"]);
    assert_eq!(parse(&["--stats", "make", "json"]).command, ["make", "json"]);
    assert_eq!(parse(&["--stats=json", "x"]).observe.stats, Some(StatsFormat::Json));
}

#[test]
fn the_last_of_a_flag_counts() {
    let cli = parse(&["--pty=never", "-q", "-q", "--pty=always", "--tee-append", "--tee-append"]);
    assert_eq!((cli.run.pty, cli.quiet, cli.copies.tee_append), (PtyMode::Always, true, true));
    let cli = parse(&["--text=strip-ansi,transform", "--text", "passthrough"]);
    assert_eq!(cli.text.text, [TextMode::Passthrough]);
    assert_eq!(parse(&["--status", "--status=7"]).observe.status, Some(Some(7)));
    let cli = parse(&["-q", "-vv"]);
    assert_eq!((cli.quiet, cli.verbose), (false, 2));
    assert!(parse(&["-v", "-q"]).quiet);
    let cli = parse(&["--tee=a", "-v", "--rlimit=as=1", "--tee=b", "-v", "--rlimit=cpu=1"]);
    assert_eq!((cli.copies.tee.len(), cli.memory.rlimit.len(), cli.verbose), (2, 2, 2));
}

#[test]
fn a_refusal_names_the_option_and_what_was_expected() {
    for (line, parts) in [
        (&["--coalesce", "-5"][..], ["--coalesce", "`auto`, `off` or a number"]),
        (&["--pipe-size=lots"], ["--pipe-size", "a size such as 64K or 1M"]),
        (&["--attention=1e3"], ["--attention", "a size such as 64K or 1M"]),
        (&["--linger=soon"], ["--linger", "a time such as 200ms or 5s"]),
        (&["--tex=strip-ansi"], ["--tex", "'--text'"]),
        (&["--status=some"], ["--status", "expected the PID of an nproxy"]),
        (&["--memlog=often"], ["--memlog", "expected a number of seconds"]),
    ] {
        let why = refusal(line);
        assert!(parts.iter().all(|part| why.contains(part)), "{line:?}: {why}");
        assert_eq!(why.lines().count(), 1);
    }
    let why = refusal(&["--bogus", "--", "true"]);
    assert_eq!(why, "unexpected argument '--bogus' found (see nproxy --help)");
}

/// Every duration and size to its limits is read or refused, and nothing panics.
#[test]
fn values_to_their_limits() {
    let figures = "0 -1 1 1.5 1e3 1e99 9223372036854775807 9300000000000000000 18446744073709551615 \
        99999999999999999999999 NaN inf ५";
    let figures: Vec<&str> = figures.split(' ').chain(["", " ", "1 000"]).collect();
    let units = ["", "s", "ms", "ns", "y", "B", "K", "T", "E", "EiB", "%", "s 9999999999y"];
    let definition = Cli::definition(Detail::Full);
    let valued = definition
        .get_arguments()
        .filter(|arg| arg.get_action().takes_values() && arg.get_possible_values().is_empty());
    for flag in valued.filter_map(Arg::get_long) {
        for (figure, unit) in figures.iter().flat_map(|f| units.map(|u| (f, u))) {
            let word = format!("--{flag}={figure}{unit}");
            if let Ok(cli) = read(&[&word, "true"]) {
                let stdin = crate::config::StdinIs::Stream;
                let _ = crate::config::Config::new(cli, stdin, &crate::config::Machine::default());
            }
        }
    }
}

#[test]
fn the_summary_fits_two_screens_and_names_what_is_usual() {
    let text = Cli::help(Detail::Summary);
    assert!(text.lines().count() <= 70, "{} lines", text.lines().count());
    for flag in ["--tee ", "--text ", "--stats", "--memory-max ", "--pty ", "-q, ", "--help"] {
        assert!(text.contains(flag), "{flag} in {text}");
    }
    let wide = text.lines().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None);
}

#[test]
fn the_help_names_every_option_and_its_variable() {
    let text = Cli::help(Detail::Full);
    let definition = Cli::definition(Detail::Full);
    for arg in definition.get_arguments().filter(|arg| !arg.is_hide_set()) {
        assert!(arg.get_help_heading().is_some() || arg.is_positional(), "{arg:?}");
        if let Some(long) = arg.get_long() {
            assert!(text.contains(&format!("--{long}")), "{long}");
        }
        if let Some(variable) = arg.get_env() {
            assert!(text.contains(&*variable.to_string_lossy()), "{variable:?}");
        }
    }
}

/// What was taken from a variable is told with its name; what is set and empty was not said.
#[test]
fn a_variable_at_fault_is_named() {
    // The tests of this program share its environment: nobody else reads this one.
    let words = |line: &str| line.split(' ').map(Into::into).collect::<Vec<OsString>>();
    let definition = Cli::definition(Detail::Full);
    let fault = |line: &str| {
        let error = Cli::definition(Detail::Full)
            .mut_arg("tick", |arg| arg.env("PATH"))
            .try_get_matches_from(words(line))
            .expect_err(line);
        let definition = definition.clone().mut_arg("tick", |arg| arg.env("PATH"));
        given::variable_at_fault(&definition, &words(line), &error)
    };
    assert_eq!(fault("nproxy true"), Some("PATH".to_owned()));
    assert_eq!(fault("nproxy --tick=x true"), None);
    assert_eq!(fault("nproxy --tick x true"), None);
    assert_eq!(fault("nproxy --no-such true"), None);
}

/// clap says only that there is one.
#[test]
fn a_value_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStringExt;

    let definition = Cli::definition(Detail::Full);
    let odd = |before: &str| OsString::from_vec([before.as_bytes(), b"\xe9"].concat());
    let named = |words: Vec<OsString>| given::not_text(&definition, &words);
    let word = |word: &str| OsString::from(word);
    assert_eq!(named(vec![word("nproxy"), odd("--prefix=")]), Some("--prefix".to_owned()));
    let words = vec![word("nproxy"), word("-q"), word("--prefix"), odd(""), word("true")];
    assert_eq!(named(words), Some("--prefix".to_owned()));
    let words = vec![word("nproxy"), odd("--prefix="), word("true")];
    let Err(Request::Refuse(why)) = Cli::parse_words(words) else { panic!("read") };
    assert!(why.starts_with("--prefix: ") && why.contains("UTF-8"), "{why}");
}

#[test]
fn help_is_asked_for_in_front_of_the_command_only() {
    let asked = |line: &str| {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        asks_for_help(&words)
    };
    assert_eq!(asked("nproxy -q --help"), Some(Detail::Full));
    assert_eq!(asked("nproxy -qh"), Some(Detail::Summary));
    assert_eq!(asked("nproxy --tee log --help ls"), Some(Detail::Full));
    assert_eq!(asked("nproxy -q ls --help"), None);
    assert_eq!(asked("nproxy -- --help"), None);
}

#[test]
fn a_list_that_was_divided_is_no_command() {
    for line in ["--text strip-ansi transform", "--text=strip-ansi transform true"] {
        let Err(Request::Refuse(why)) = read(&line.split(' ').collect::<Vec<_>>()) else {
            panic!("{line}")
        };
        assert!(why.contains("did you mean --text=strip-ansi,transform?"), "{why}");
    }
    for line in ["--text strip-ansi -- transform", "--text strip-ansi transformer"] {
        parse(&line.split(' ').collect::<Vec<_>>());
    }
}
