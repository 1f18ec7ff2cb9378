//! A copy in a command: sh runs it with the copy as its stdin.
//!
//! It has a process group of its own, so what a key does to the command that nproxy wraps is not done to it too: it ends
//! when its input does. It may end before, and well: then it has had enough. What it was given and has not read it has missed,
//! and so it has what comes later, whichever of the two ends is seen first.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::carrier::{Carrier, Over};
use super::intake::{Intake, Unread, is};
use super::pause::Pause;
use super::writer::Work;
use crate::config::Restart;
use crate::error::Error;
use crate::notice;
use crate::process::aside::{self, Waited};
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
    child: Waited,
    /// Readable when it has ended.
    pidfd: OwnedFd,
    since: Instant,
}

/// The pipe that the command reads from. What one run has not read the next one gets.
#[derive(Debug)]
struct Stdin {
    /// Until all has been written.
    writer: Option<OwnedFd>,
    /// While no run has it.
    reader: Option<OwnedFd>,
}

impl Stdin {
    fn new() -> io::Result<Stdin> {
        let (reader, writer) = std::io::pipe()?;
        Ok(Stdin { reader: Some(reader.into()), writer: Some(writer.into()) })
    }

    /// The end for a run. As long as there is more to write it is the only one, because only so EPIPE tells that nobody
    /// reads any more.
    fn hand_over(&mut self) -> io::Result<OwnedFd> {
        match (self.reader.take(), &self.writer) {
            (Some(reader), Some(_)) => Ok(reader),
            (Some(reader), None) => {
                let end = reader.try_clone();
                self.reader = Some(reader);
                end
            }
            // What the run before has left could not be kept.
            (None, _) => {
                let (reader, writer) = std::io::pipe()?;
                self.writer = Some(writer.into());
                Ok(reader.into())
            }
        }
    }

    /// A run takes no more: what it leaves can be read by us from here on. If that is `all`, it is shown the end of its
    /// input.
    fn take_back(&mut self, all: bool) {
        if let (None, Some(writer)) = (&self.reader, &self.writer) {
            self.reader = open_anew(writer, File::options().read(true));
        }
        if all {
            self.writer = None;
        }
    }

    /// Bytes in it that no run has read.
    fn unread(&self) -> u64 {
        let end = self.reader.as_ref().or(self.writer.as_ref());
        end.map_or(0, |end| unread(end.as_raw_fd()))
    }

    /// Bytes in it that nobody will read, now that the run is over: a process that it has left behind may do so.
    fn left(&mut self) -> u64 {
        match self.unread() {
            0 => 0,
            _ if self.is_read_by_others() => 0,
            left => left,
        }
    }

    /// Only a writer is told that nobody can read any more, and only while we cannot either.
    fn is_read_by_others(&mut self) -> bool {
        let Some(reader) = self.reader.take() else { return false };
        let writer = match &self.writer {
            Some(writer) => writer.try_clone().ok(),
            None => open_anew(&reader, File::options().write(true)),
        };
        let Some(writer) = writer else {
            self.reader = Some(reader);
            return false;
        };
        drop(reader);
        let is_read = !is(writer.as_fd(), PollFlags::POLLERR);
        self.reader = open_anew(&writer, File::options().read(true));
        is_read
    }
}

/// Opens a pipe by the name that it has as long as it has an end. Without /proc it has none.
fn open_anew(end: &OwnedFd, options: &OpenOptions) -> Option<OwnedFd> {
    let name = format!("/proc/self/fd/{}", end.as_raw_fd());
    options.open(name).ok().map(OwnedFd::from)
}

impl CommandCopy {
    pub(crate) fn new(command: OsString, restart: Restart, wait: Duration) -> CommandCopy {
        CommandCopy { command, restart, wait }
    }

    fn start(&self, stdin: OwnedFd) -> io::Result<Run> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).stdin(stdin);
        // Whatever it prints belongs on the screen, or nowhere: our stdout is the command's.
        command.stdout(io::stderr().as_fd().try_clone_to_owned()?);
        let child = aside::start(&mut command)?;
        let pidfd = pidfd_open(nix::unistd::Pid::from_raw(child.id() as i32))?;
        Ok(Run { child, pidfd, since: Instant::now() })
    }

    /// Starts the command, feeds it, and waits for its end. How that came, its status, and when it was started.
    fn serve(
        &self,
        stdin: &mut Stdin,
        carrier: &mut Carrier,
        intake: &Intake,
    ) -> Result<(Over, ExitStatus, Instant), Error> {
        let tried = |error: io::Error| Error::os(format!("run {}", intake.name), error);
        let mut run = stdin.hand_over().and_then(|end| self.start(end)).map_err(tried)?;
        let fed = match &stdin.writer {
            Some(writer) => carrier.feed(intake, writer.as_fd()),
            None => Ok(Over::Input),
        };
        stdin.take_back(fed != Ok(Over::Sink));
        let over = fed.map_err(|errno| Error::os(format!("write to {}", intake.name), errno))?;
        let status = self.end(&mut run, stdin, over, intake).map_err(tried)?;
        Ok((over, status, run.since))
    }

    /// Serves the copy until it has ended, again and again if the command is to be started again.
    fn serve_all(&self, stdin: &mut Stdin, intake: &Intake) -> Result<(), Error> {
        let (mut pause, mut carrier) = (Pause::new(), Carrier::default());
        let mut before = 0;
        loop {
            let (over, status, since) = self.serve(stdin, &mut carrier, intake)?;
            // What a failed one has left the next one gets, whoever else might read it.
            let left = if status.success() { stdin.left() } else { stdin.unread() };
            let again = self.restart == Restart::OnFailure;
            let may_end = over != Over::Sink || carrier.is_over(intake) || !again;
            if status.success() && left == 0 && may_end {
                // It has had enough. Whether anything comes that it misses shows later.
                return Ok(());
            }
            let failed = || Err(Error::usage(intake.name.clone(), show(status, left)));
            if !again || left == 0 && carrier.is_over(intake) {
                return failed();
            }
            if over == Over::Input && left < before {
                intake.beyond.advance();
                pause = Pause::new();
            }
            before = left;
            if stdin.reader.is_none() {
                intake.beyond.lose(left);
                stdin.writer = None;
            }
            if since.elapsed() > SETTLED {
                pause = Pause::new();
            }
            if !intake.stop.is_asked() {
                let how = show(status, left);
                let text = format!("{} ended early, {how}; started again", intake.name);
                notice::notice(intake.verbosity, &text);
                pause.wait(intake);
            }
            if intake.stop.is_asked() {
                return failed();
            }
        }
    }

    /// Waits for its end; one that is asked to leave, or neither reads nor ends in time, gets SIGTERM.
    fn end(
        &self,
        run: &mut Run,
        stdin: &Stdin,
        over: Over,
        intake: &Intake,
    ) -> io::Result<ExitStatus> {
        let (mut until, mut unread) = (Instant::now() + self.wait, Unread::default());
        loop {
            if let Some(status) = run.child.try_wait()? {
                return Ok(status);
            }
            let left = stdin.unread();
            if unread.note(left, intake) {
                until = Instant::now() + self.wait;
            }
            if intake.stop.is_asked() || Instant::now() >= until {
                break;
            }
            let look = if left > 0 { until.min(intake.look_again()) } else { until };
            intake.wait([Some((run.pidfd.as_fd(), PollFlags::POLLIN))], Some(look));
        }
        if intake.stop.is_hurried() && over == Over::Input {
            // It has all of it, and can end without us.
            return Ok(ExitStatus::from_raw(0));
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
        let stdin = Stdin::new().map_err(|error| Error::os(format!("run {}", intake.name), error));
        let mut stdin = stdin?;
        let served = self.serve_all(&mut stdin, &intake);
        if served.is_err() {
            // Nobody will read it any more.
            intake.beyond.lose(stdin.unread());
        }
        served
    }
}

/// How a command has ended, in words.
fn show(status: ExitStatus, left: u64) -> String {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    };
    match left {
        0 => how,
        left => format!("{how}, {left} bytes unread"),
    }
}
