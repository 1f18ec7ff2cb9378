//! The man page, the completion scripts and the option table come from `src/cli`: these tests fail when
//! a file in `doc/` says something else. `NPROXY_WRITE_DOC=1 cargo test --test generated` writes them.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use clap::Arg;
use nproxy::cli::{Cli, Detail, manual};

fn check(name: &str, made: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("doc").join(name);
    if std::env::var_os("NPROXY_WRITE_DOC").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, made).unwrap();
    }
    let kept = fs::read(&path).unwrap_or_default();
    assert!(
        kept == made,
        "doc/{name} is out of date: run NPROXY_WRITE_DOC=1 cargo test --test generated"
    );
}

#[test]
fn man_page() {
    let definition = Cli::definition(Detail::Full);
    let man = clap_mangen::Man::new(definition.clone());
    let part = |render: &dyn Fn(&mut Vec<u8>) -> std::io::Result<()>| {
        let mut text = Vec::new();
        render(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    };
    let mut page = part(&|text| man.render_title(text));
    page += &part(&|text| man.render_name_section(text));
    page += &part(&|text| man.render_synopsis_section(text));
    page += &part(&|text| man.render_description_section(text));
    page += &options_section(&definition);
    page += &definitions("EXIT STATUS", &manual::EXIT_STATUS);
    page += ".SH ENVIRONMENT\nEach option names its variable above; the option wins.\n";
    page += &definitions("", &manual::VARIABLES);
    writeln!(page, ".PP\n{}", roff(&manual::inheritance())).unwrap();
    page += &definitions("FILES", &manual::FILES);
    page += ".SH EXAMPLES\n";
    for (command, meaning) in manual::EXAMPLES {
        writeln!(page, ".PP\n{}\n.PP\n.RS 4\n.nf\n{}\n.fi\n.RE", roff(meaning), roff(command))
            .unwrap();
    }
    writeln!(page, ".SH SEE ALSO\n{}", roff(manual::SEE_ALSO)).unwrap();
    check("nproxy.1", page.as_bytes());
}

/// The options, under the headings of the help.
fn options_section(definition: &clap::Command) -> String {
    let mut text = format!(".SH OPTIONS\n{}\n", roff(manual::OPTIONS));
    let mut heading = None;
    for arg in definition.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_positional()) {
        if heading != arg.get_help_heading() {
            heading = arg.get_help_heading();
            writeln!(text, ".SS \"{}\"", heading.unwrap_or_default()).unwrap();
        }
        writeln!(text, ".TP\n{}", usage(arg)).unwrap();
        let help = arg.get_long_help().or(arg.get_help()).unwrap().to_string();
        let paragraphs = help.split("\n\n").map(roff).collect::<Vec<_>>();
        writeln!(text, "{}", paragraphs.join("\n.IP\n")).unwrap();
        let values = arg.get_possible_values();
        if values.iter().any(|value| value.get_help().is_some()) && takes_values(arg) {
            text.push_str(".RS\n");
            for value in values {
                let help = value.get_help().map(|help| help.to_string()).unwrap_or_default();
                writeln!(text, ".TP\n\\fB{}\\fR\n{}", roff(value.get_name()), roff(&help)).unwrap();
            }
            text.push_str(".RE\n");
        }
        let facts = [("Default", default(arg)), ("Variable", variable(arg).replace('`', ""))];
        let facts = facts.iter().filter(|(_, what)| !what.is_empty());
        let facts: Vec<String> = facts.map(|(name, what)| format!("{name}: {what}.")).collect();
        if !facts.is_empty() {
            writeln!(text, ".IP\n{}", roff(&facts.join(" "))).unwrap();
        }
    }
    text
}

/// How an option is written.
fn usage(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| format!("\\fB\\-{short}\\fR"));
    let long = arg.get_long().map(|long| format!("\\fB\\-\\-{}\\fR", roff(long)));
    let names = short.into_iter().chain(long).collect::<Vec<_>>().join(", ");
    if !takes_values(arg) {
        return names;
    }
    let value = format!("\\fI{}\\fR", roff(&arg.get_value_names().unwrap_or_default().join(" ")));
    let optional = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
    match (optional, arg.is_require_equals_set()) {
        (true, true) => format!("{names}[={value}]"),
        (true, false) => format!("{names} [{value}]"),
        _ => format!("{names} {value}"),
    }
}

fn takes_values(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

/// A section of terms, each with its meaning.
fn definitions(section: &str, terms: &[(&str, &str)]) -> String {
    let mut text = String::new();
    if !section.is_empty() {
        writeln!(text, ".SH \"{section}\"").unwrap();
    }
    for (term, meaning) in terms {
        writeln!(text, ".TP\n\\fB{}\\fR\n{}", roff(term), roff(meaning)).unwrap();
    }
    text
}

/// Text with what is special to roff escaped.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    match escaped.starts_with('.') {
        true => format!("\\&{escaped}"),
        false => escaped,
    }
}

#[test]
fn completions() {
    use clap_complete::Shell::{Bash, Fish, Zsh};
    for (shell, name) in [(Bash, "nproxy.bash"), (Zsh, "_nproxy"), (Fish, "nproxy.fish")] {
        check(&format!("completions/{name}"), &Cli::completion_script(shell));
    }
}

#[test]
fn option_table() {
    let mut table = String::from(
        "# Options\n\nMade from `src/cli`. A flag wins over its variable. Of a flag that is given twice the last one counts; `--tee`, `--rlimit` and \
         `-v` add up.\n",
    );
    let command = Cli::definition(Detail::Full);
    let mut heading = None;
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_positional()) {
        if heading != arg.get_help_heading() {
            heading = arg.get_help_heading();
            write!(table, "\n## {}\n\n", heading.unwrap_or_default()).unwrap();
            table += "| option | values | default | variable | meaning |\n| --- | --- | --- | --- | --- |\n";
        }
        let cells = [option(arg), values(arg), default(arg), variable(arg), meaning(arg)];
        writeln!(table, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | ")).unwrap();
    }
    writeln!(table, "\n## Variables\n\n{}", manual::inheritance()).unwrap();
    check("options.md", table.as_bytes());
}

fn option(arg: &Arg) -> String {
    let long = arg.get_long().map(|long| format!("`--{long}`"));
    let short = arg.get_short().map(|short| format!("`-{short}`"));
    long.into_iter().chain(short).collect::<Vec<_>>().join(", ")
}

fn values(arg: &Arg) -> String {
    if !takes_values(arg) {
        return String::new();
    }
    let possible = arg.get_possible_values();
    let names = possible.iter().map(|value| format!("`{}`", value.get_name()));
    match names.collect::<Vec<_>>() {
        names if names.is_empty() => {
            let names = arg.get_value_names().unwrap_or_default();
            names.iter().map(|name| format!("{name}")).collect::<Vec<_>>().join(" ")
        }
        names => names.join(", "),
    }
}

fn default(arg: &Arg) -> String {
    if !takes_values(arg) {
        return String::new();
    }
    let values = arg.get_default_values().iter().map(|value| value.to_string_lossy());
    values.collect::<Vec<_>>().join(",")
}

fn variable(arg: &Arg) -> String {
    arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default()
}

/// The whole help text in one cell.
fn meaning(arg: &Arg) -> String {
    let text = arg.get_long_help().or(arg.get_help()).map(|help| help.to_string());
    let paragraphs = text.unwrap_or_default();
    let paragraphs = paragraphs.split("\n\n").map(|text| text.replace('\n', " "));
    let sentences =
        paragraphs.map(|text| if text.ends_with(['.', ':']) { text } else { text + "." });
    sentences.collect::<Vec<_>>().join(" ")
}
