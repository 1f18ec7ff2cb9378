//! Settings for another command: states that a shell cannot, or not reliably, set before it starts a program.

use std::error::Error;
use std::ffi::{CString, OsString};
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigHandler, SigSet};
use nix::unistd::{close, dup2_stderr, dup2_stdin, dup2_stdout, execvp, setsid};

use crate::Outcome;
use crate::flow::borrow;
use crate::witness::{set_disposition, signal_named};

/// How long `connect` waits for somebody who listens.
const PATIENCE: Duration = Duration::from_secs(20);

/// Applies the settings in their order, then becomes the command.
pub(crate) fn with(arguments: Vec<OsString>) -> Outcome {
    let end = arguments.iter().position(|word| word == "--").ok_or("-- is missing")?;
    for setting in &arguments[..end] {
        let setting = setting.to_string_lossy();
        let (name, value) = setting.split_once('=').unwrap_or((&setting, ""));
        apply(name, value).map_err(|error| format!("{setting}: {error}"))?;
    }
    become_command(&arguments[end + 1..])
}

fn apply(name: &str, value: &str) -> Result<(), Box<dyn Error>> {
    match name {
        "close" => close(value.parse::<i32>()?)?,
        "nonblock" => {
            let fd = borrow(value.parse()?);
            let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
            fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        "ignore" => set_disposition(signal_named(value)?, SigHandler::SigIgn)?,
        "default" => set_disposition(signal_named(value)?, SigHandler::SigDfl)?,
        "block" => {
            let mut set = SigSet::empty();
            set.add(signal_named(value)?);
            set.thread_block()?;
        }
        "refuse" => crate::refuse::apply(value)?,
        "subreaper" => nix::sys::prctl::set_child_subreaper(true)?,
        "setsid" => {
            setsid()?;
        }
        // A session leader without a terminal gets the first one that it opens as its controlling terminal.
        "tty" => {
            setsid()?;
            let terminal = OpenOptions::new().read(true).write(true).open(value)?;
            dup2_stdin(&terminal)?;
            dup2_stdout(&terminal)?;
            dup2_stderr(&terminal)?;
        }
        _ => return Err("no such setting".into()),
    }
    Ok(())
}

pub(crate) fn connect(arguments: Vec<OsString>) -> Outcome {
    let path = arguments.first().ok_or("a path is missing")?;
    let deadline = Instant::now() + PATIENCE;
    let stream = loop {
        match UnixStream::connect(path) {
            // The other side is not listening yet.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            connected => break connected?,
        }
    };
    on_socket(&stream, &arguments[1..])
}

pub(crate) fn listen(arguments: Vec<OsString>) -> Outcome {
    let path = arguments.first().ok_or("a path is missing")?;
    let listener = UnixListener::bind(path)?;
    let (stream, _) = listener.accept()?;
    drop(listener);
    fs::remove_file(path)?;
    on_socket(&stream, &arguments[1..])
}

fn on_socket(stream: impl AsFd, command: &[OsString]) -> Outcome {
    dup2_stdin(&stream)?;
    dup2_stdout(&stream)?;
    become_command(command)
}

/// exec by libc: std's `exec` would reset SIGPIPE and the signal mask on the way.
fn become_command(command: &[OsString]) -> Outcome {
    let words: Vec<CString> = command
        .iter()
        .map(|word| CString::new(word.clone().into_vec()))
        .collect::<Result<_, _>>()?;
    let program = words.first().ok_or("a command is missing")?;
    execvp(program, &words)
        .map_err(|errno| format!("exec {}: {errno}", program.to_string_lossy()))?;
    Ok(0)
}
