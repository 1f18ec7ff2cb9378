//! A copy in a command: sh runs it with the copy as its stdin.
//!
//! It has a process group of its own, so what a key does to the command that nproxy wraps is not done to it too: it ends
//! when its input does.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::carrier::Carrier;
use super::intake::{Intake, Taken};
use super::pause::Pause;
use super::writer::Work;
use crate::config::Restart;
use crate::error::Error;
use crate::notice;
use crate::process::aside::aside;
use crate::process::child::pidfd_open;
use crate::ring::unread;

/// How long a command that has run counts as one that works, so that its next failure is its first.
const SETTLED: Duration = Duration::from_secs(10);

/// Such a copy.
#[derive(Debug)]
pub(crate) struct CommandCopy {
    command: OsString,
    restart: Restart,
    /// How long its end is waited for once its input has ended.
    wait: Duration,
}

/// One run of the command.
#[derive(Debug)]
struct Run {
    child: Child,
    /// Readable when it has ended.
    pidfd: OwnedFd,
    stdin: Option<OwnedFd>,
    since: Instant,
}

/// Why a run of the command takes no more.
enum Over {
    /// The copy has ended.
    Input,
    /// It has closed its stdin, or ended.
    Command,
    /// What is left is left.
    Asked,
}

impl CommandCopy {
    pub(crate) fn new(command: OsString, restart: Restart, wait: Duration) -> CommandCopy {
        CommandCopy { command, restart, wait }
    }

    /// Starts the command with the two ends of a pipe: what it reads from, and what is written to.
    fn start(&self, reader: OwnedFd, writer: OwnedFd) -> io::Result<Run> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).stdin(reader);
        // Whatever it prints belongs on the screen, or nowhere: our stdout is the command's.
        command.stdout(io::stderr().as_fd().try_clone_to_owned()?);
        let child = aside(&mut command).spawn()?;
        let pidfd = pidfd_open(nix::unistd::Pid::from_raw(child.id() as i32))?;
        Ok(Run { child, pidfd, stdin: Some(writer), since: Instant::now() })
    }

    /// Fills the command's stdin until it takes no more or there is no more.
    fn feed(run: &Run, carrier: &mut Carrier, intake: &Intake) -> Result<Over, Errno> {
        let Some(stdin) = &run.stdin else { return Ok(Over::Command) };
        loop {
            if intake.stop.is_asked() {
                return Ok(Over::Asked);
            }
            match carrier.carry(intake, stdin.as_fd()) {
                Ok(Taken::Bytes(bytes)) => intake.beyond.wrote(bytes as u64),
                Ok(Taken::End) => return Ok(Over::Input),
                Err(Errno::EPIPE) => return Ok(Over::Command),
                Err(errno) => return Err(errno),
                Ok(Taken::Nothing) => {
                    // Whichever it is that makes it wait.
                    let wanted = match carrier.has_bytes(intake) {
                        true => [None, Some((stdin.as_fd(), PollFlags::POLLOUT))],
                        false => [intake.input(), Some((stdin.as_fd(), PollFlags::empty()))],
                    };
                    let [_, sink] = intake.wait(wanted, None);
                    if sink.contains(PollFlags::POLLERR) {
                        return Ok(Over::Command);
                    }
                }
            }
        }
    }

    /// Waits for its end; one that is asked to leave, or does not end in time, gets SIGTERM.
    fn end(&self, run: &mut Run, intake: &Intake) -> io::Result<ExitStatus> {
        let until = Instant::now() + self.wait;
        loop {
            if let Some(status) = run.child.try_wait()? {
                return Ok(status);
            }
            if intake.stop.is_asked() || Instant::now() >= until {
                break;
            }
            intake.wait([Some((run.pidfd.as_fd(), PollFlags::POLLIN))], Some(until));
        }
        let group = nix::unistd::Pid::from_raw(run.child.id() as i32);
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGTERM);
        let text = format!("{}: it has not ended, and was sent SIGTERM", intake.name);
        notice::notice(intake.verbosity, &text);
        // It is not waited for: what does not end on TERM may never end.
        run.child.try_wait()?.ok_or_else(|| io::Error::other("it has not ended"))
    }
}

impl Work for CommandCopy {
    fn run(self: Box<Self>, intake: Intake) -> Result<(), Error> {
        let tried = |error: io::Error| Error::os(format!("run {}", intake.name), error);
        let (mut pause, mut carrier) = (Pause::new(), Carrier::default());
        let (reader, writer) = std::io::pipe().map_err(tried)?;
        let (mut reader, mut writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
        loop {
            let mut run = self.start(reader, writer).map_err(tried)?;
            let over = CommandCopy::feed(&run, &mut carrier, &intake)
                .map_err(|errno| Error::os(format!("write to {}", intake.name), errno))?;
            // What it has left in its pipe stays there as long as one end is open.
            let unread_by_it = run.stdin.take().filter(|_| matches!(over, Over::Command));
            let status = self.end(&mut run, &intake).map_err(tried)?;
            match (over, self.restart, unread_by_it) {
                (Over::Input | Over::Asked, ..) if status.success() => return Ok(()),
                (Over::Command, Restart::OnFailure, Some(pipe))
                    if !intake.stop.is_asked() && !carrier.is_over(&intake) =>
                {
                    // The next one goes on where this one has stopped reading.
                    reader = read_end(&pipe).map_err(tried)?;
                    writer = pipe;
                    if run.since.elapsed() > SETTLED {
                        pause = Pause::new();
                    }
                    let text =
                        format!("{} ended early, {}; started again", intake.name, show(status));
                    notice::notice(intake.verbosity, &text);
                    pause.wait(&intake);
                }
                (.., pipe) => {
                    let left = pipe.map_or(0, |pipe| unread(pipe.as_raw_fd()));
                    intake.beyond.lose(left);
                    return Err(Error::usage(intake.name.clone(), show(status)));
                }
            }
        }
    }
}

/// A new end to read from of a pipe that nobody reads any more.
fn read_end(pipe: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(File::open(format!("/proc/self/fd/{}", pipe.as_raw_fd()))?.into())
}

/// How a command has ended, in words.
fn show(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}
