//! Witnesses: what a child of nproxy was given, and how it ends.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, raise, signal};
use nix::sys::signalfd::SignalFd;

use crate::Outcome;

/// `TERM` and `SIGTERM` alike.
pub(crate) fn signal_named(name: &str) -> Result<Signal, Errno> {
    let name = name.strip_prefix("SIG").unwrap_or(name);
    format!("SIG{name}").parse()
}

/// One line per open descriptor: number and target. The descriptor that does the listing is left out.
pub(crate) fn fds() -> Outcome {
    let own = format!("/proc/{}/fd", std::process::id());
    let mut lines = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let target = fs::read_link(entry.path()).unwrap_or_default();
        if target.as_os_str() != own.as_str() {
            lines.push((entry.file_name().to_string_lossy().parse::<i32>()?, target));
        }
    }
    lines.sort();
    for (fd, target) in lines {
        writeln!(io::stdout(), "{fd} {}", target.display())?;
    }
    Ok(0)
}

pub(crate) fn dispositions() -> Outcome {
    for line in fs::read_to_string("/proc/self/status")?.lines() {
        if line.starts_with("SigBlk") || line.starts_with("SigIgn") || line.starts_with("SigCgt") {
            writeln!(io::stdout(), "{line}")?;
        }
    }
    Ok(0)
}

/// The size of the pipe that is stdout.
pub(crate) fn pipe_size() -> Outcome {
    writeln!(io::stdout(), "{}", fcntl(io::stdout(), FcntlArg::F_GETPIPE_SZ)?)?;
    Ok(0)
}

/// Prints `ready PID`, then one line per signal: its name and who sent it. Every signal is blocked and read from a
/// descriptor, so none is lost between two lines and a stop signal does not stop.
pub(crate) fn signals(arguments: Vec<OsString>) -> Outcome {
    let end = arguments
        .first()
        .map_or(Ok(Signal::SIGUSR2), |word| signal_named(&word.to_string_lossy()))?;
    let all = SigSet::all();
    all.thread_block()?;
    let incoming = SignalFd::new(&all)?;
    writeln!(io::stdout(), "ready {}", std::process::id())?;
    while let Some(info) = incoming.read_signal()? {
        let signal = Signal::try_from(info.ssi_signo as i32).ok();
        let name =
            signal.map_or(info.ssi_signo.to_string(), |signal| signal.as_str()[3..].to_owned());
        // SI_USER, SI_QUEUE and SI_TKILL are zero or below; the kernel's own, terminals included, are above.
        let sender = if info.ssi_code <= 0 {
            format!("process {}", info.ssi_pid)
        } else {
            "kernel".to_owned()
        };
        writeln!(io::stdout(), "{name} {sender}")?;
        if signal == Some(end) {
            return Ok(0);
        }
    }
    Ok(1)
}

pub(crate) fn die(arguments: Vec<OsString>) -> Outcome {
    let signal = signal_named(&arguments.first().ok_or("a signal is missing")?.to_string_lossy())?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    if !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
        set_disposition(signal, SigHandler::SigDfl)?;
    }
    SigSet::all().thread_unblock()?;
    raise(signal)?;
    Err("still alive".into())
}

/// Sets a disposition that is no handler.
#[allow(
    unsafe_code,
    reason = "dispositions are what the tests are about, and there is no safe call"
)]
pub(crate) fn set_disposition(which: Signal, disposition: SigHandler) -> Result<(), Errno> {
    assert!(matches!(disposition, SigHandler::SigDfl | SigHandler::SigIgn));
    // SAFETY: no handler is installed, so nothing runs in signal context.
    unsafe { signal(which, disposition) }.map(drop)
}
