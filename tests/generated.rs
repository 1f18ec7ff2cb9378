//! The man page, the completion scripts and the option table come from `src/cli.rs`: these tests fail when
//! a file in `doc/` says something else. `NPROXY_WRITE_DOC=1 cargo test --test generated` writes them.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use clap::{Arg, CommandFactory};
use nproxy::cli::Cli;

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
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).unwrap();
    check("nproxy.1", &page);
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
        "# Options\n\nMade from `src/cli.rs`. A flag wins over its variable.\n\n\
         | option | values | default | variable | meaning |\n| --- | --- | --- | --- | --- |\n",
    );
    let command = Cli::command();
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_positional()) {
        let cells = [option(arg), values(arg), default(arg), variable(arg), meaning(arg)];
        writeln!(table, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | ")).unwrap();
    }
    check("options.md", table.as_bytes());
}

fn option(arg: &Arg) -> String {
    let long = arg.get_long().map(|long| format!("`--{long}`"));
    let short = arg.get_short().map(|short| format!("`-{short}`"));
    long.into_iter().chain(short).collect::<Vec<_>>().join(", ")
}

fn values(arg: &Arg) -> String {
    if !arg.get_action().takes_values() {
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
    if !arg.get_action().takes_values() {
        return String::new();
    }
    let values = arg.get_default_values().iter().map(|value| value.to_string_lossy());
    values.collect::<Vec<_>>().join(",")
}

fn variable(arg: &Arg) -> String {
    arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default()
}

fn meaning(arg: &Arg) -> String {
    arg.get_help().map(|help| help.to_string().replace('\n', " ")).unwrap_or_default()
}
