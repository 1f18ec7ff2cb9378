//! nproxy carries another program's bytes without touching them: it wraps a command or stands in a
//! pipeline, and moves the streams inside the kernel.
//!
//! ```text
//!     argv, environment ─▶ cli ─▶ config ─▶ session ───────────────▶ exit status
//!                                             │ plans the routes, runs the loop
//!                 ┌──────────────┬────────────┴──┬────────────────────┐
//!              process        terminal         ring                memory
//!                 │              │       (io_uring | epoll)   sample ─▶ policy
//!          command's stdout ──▶ relay: route ─▶ path ──▶ our stdout
//!                                 │ tee          │ sizes and times only
//!                                 └─▶ copies     └─▶ observe ─▶ reports
//! ```
//!
//! `doc/design.md` has this picture in full, and the reason for each decision.
//!
//! Three laws hold everywhere. No payload is stored: it is in kernel pipes or in one of a few fixed buffers
//! while it passes, and else only in the copies that were asked for and in the lines of a screen that may
//! still be redrawn. Backpressure is the kernel's: to slow the child, the next read is not submitted. And
//! what is extra gives way first: the main path is never refused.

pub mod cli;
pub mod config;
pub mod error;
pub mod memory;
pub mod observe;
pub mod relay;
pub mod ring;
pub mod text;
pub mod units;

mod copies;
mod notice;
mod process;
mod reports;
mod session;
mod terminal;

use std::io::{IsTerminal, Write};

use cli::{Cli, Request};
use config::{Config, Machine, StatusRequest, StdinIs, Verbosity};
use error::{Error, STATUS_FAILED};
use jiff::tz::TimeZone;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
pub use process::exit::Exit;
use reports::status_client;

/// Ends this process the way `exit` says.
pub fn leave(exit: Exit) -> ! {
    if let Exit::Signal(signal) = exit {
        process::signals::die_by(signal);
    }
    std::process::exit(exit.code().into())
}

/// Does what the command line asks for, and says how to leave.
pub fn run() -> Exit {
    let cli = match Cli::from_env() {
        Ok(cli) => cli,
        Err(Request::Print(text)) => return print(text.as_bytes()),
        Err(Request::Refuse(why)) => {
            notice::error(&why);
            return Exit::Status(STATUS_FAILED);
        }
    };
    if let Err(why) = config::refuse_beside_question(&cli) {
        notice::error(&why);
        return Exit::Status(STATUS_FAILED);
    }
    if let Some(shell) = cli.completions {
        return print(&Cli::completion_script(shell));
    }
    if let Some(request) = StatusRequest::new(&cli.observe) {
        return match status_client::ask_sessions(&request) {
            Ok(answer) => print(answer.as_bytes()),
            Err(error) => {
                notice::error(&error);
                Exit::Status(error.status())
            }
        };
    }
    let stdin = if std::io::stdin().is_terminal() { StdinIs::Terminal } else { StdinIs::Stream };
    let machine = machine(&cli);
    let exit = Config::new(cli, stdin, &machine).and_then(|config| {
        remark(&config);
        session::run(&config)
    });
    exit.unwrap_or_else(|error| {
        notice::error(&error);
        Exit::Status(error.status())
    })
}

/// What the options want to know of this machine.
fn machine(cli: &Cli) -> Machine {
    let zone = cli.text.local_time.then(TimeZone::system);
    let host = match &cli.text.prefix {
        Some(prefix) if prefix.contains("{host}") => nix::unistd::gethostname().ok(),
        _ => None,
    };
    let host = host.unwrap_or_default().to_string_lossy().into_owned();
    Machine { zone, host, processors: processors() }
}

/// How many processors this process may use.
fn processors() -> usize {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count()).filter(|processor| set.is_set(*processor).unwrap_or(false)).count()
}

/// Says what was asked for and will do nothing.
fn remark(config: &Config) {
    for text in &config.remarks {
        notice::notice(config.verbosity, text);
    }
    for text in cli::old_values() {
        notice::notice(config.verbosity, &text);
    }
    if config.verbosity >= Verbosity::Verbose {
        for name in cli::unknown_variables() {
            notice::decision(config.verbosity, &format!("{name}: no such variable of nproxy"));
        }
    }
}

fn print(text: &[u8]) -> Exit {
    match std::io::stdout().write_all(text) {
        Ok(()) => Exit::Status(0),
        Err(error) => {
            notice::error(&Error::os("write to stdout", error));
            Exit::Status(STATUS_FAILED)
        }
    }
}
