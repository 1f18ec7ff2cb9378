//! Which pipes a run needs: the ends that the child gets, and the relays between the others.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};

use super::child::ChildStreams;
use super::startup;
use super::terminal::{Keys, Opened};
use crate::config::{Config, Pty, StdinMode, Wrap};
use crate::error::Error;
use crate::relay::{Course, Endpoint, Kind, Leg, Place, Relay, Stream, TextWork};
use crate::text::newline::Newlines;
use crate::text::strip::CursorVisibility;

/// stdin to stdout.
///
/// # Errors
/// What the system says of either.
pub(super) fn for_filter(
    config: &Config,
    feeds: &[Leg],
    started: Instant,
) -> Result<Vec<Course>, Error> {
    let source = source_end(own(0, Stream::Stdin)?, Stream::Stdin)?;
    let sink = sink_end(own(1, Stream::Stdout)?, Stream::Stdout)?;
    Way::new(config, Stream::Stdout, feeds, started).lay(source, "stdin".into(), sink)
}

/// What a command needs.
#[derive(Debug)]
pub(super) struct Plan {
    /// Its ends.
    pub(super) child: ChildStreams,
    /// What has to be relayed.
    pub(super) courses: Vec<Course>,
    /// Its terminal, if it gets one of its own.
    pub(super) terminal: Option<Opened>,
    /// How lines end in what fills the legs.
    pub(super) newlines: Newlines,
}

/// The child's streams, and what has to be relayed.
///
/// # Errors
/// When a pipe or pty cannot be made, or what the system says of our own streams.
pub(super) fn for_child(
    config: &Config,
    wrap: &Wrap,
    feeds: &[Leg],
    started: Instant,
) -> Result<Plan, Error> {
    let mut terminal = Opened::open(config, wrap)?;
    let mut courses = Vec::with_capacity(3);
    let stdout = own(1, Stream::Stdout)?;
    let stderr = own(2, Stream::Stderr)?;
    let apart = config.text.splits_streams() || config.tee.splits_streams();
    let closed = startup::was_closed(1) || startup::was_closed(2);
    let same_screen = terminal.as_ref().is_some_and(|opened| opened.stands_for(&stderr));
    let one_file = !closed && (same_screen || same_file());

    // A leg fed by a terminal and a pipe counts as the terminal's: which byte came from where is not known there.
    let mut newlines = Newlines::AsTheyAre;
    let mut relay_output = |stream: Stream, source: Endpoint, made: Newlines, sink: Endpoint| {
        if made == Newlines::OfATerminal && config.tee.text.streams.include(stream) {
            newlines = made;
        }
        let way = Way::new(config, stream, feeds, started);
        let name = format!("the child's {}", stream.name());
        courses.extend(way.lay(source, name, sink)?);
        Ok(())
    };
    let sink = sink_end(stdout, Stream::Stdout)?;
    let child_stdout = match &terminal {
        Some(opened) => {
            relay_output(Stream::Stdout, opened.leader(), opened.newlines(), sink)?;
            opened.follower()?
        }
        None => {
            let (reader, writer) = new_pipe(Stream::Stdout.name())?;
            let source = source_end(reader, Stream::Stdout)?;
            relay_output(Stream::Stdout, source, Newlines::AsTheyAre, sink)?;
            writer
        }
    };
    let child_stderr = if one_file && !apart {
        // One pipe, or pty, for both keeps their order exactly as the child made it.
        child_stdout.try_clone().map_err(|error| Error::os("make a pipe for stderr", error))?
    } else {
        let sink = sink_end(stderr, Stream::Stderr)?;
        match &mut terminal {
            Some(opened) if same_screen || wrap.pty == Pty::Always => {
                let (leader, made, follower) = opened.open_side(sink.kind())?;
                relay_output(Stream::Stderr, leader, made, sink)?;
                follower
            }
            _ => {
                let (reader, writer) = new_pipe(Stream::Stderr.name())?;
                let source = source_end(reader, Stream::Stderr)?;
                relay_output(Stream::Stderr, source, Newlines::AsTheyAre, sink)?;
                writer
            }
        }
    };
    let mut relay_input = |source: Endpoint, sink: Endpoint| {
        courses.push(Course {
            stream: Stream::Stdin,
            place: Place::Only,
            source,
            sink,
            source_name: "stdin".into(),
            sink_name: "the child's stdin".into(),
            text: None,
            legs: Vec::new(),
        });
    };
    let keys = terminal.as_ref().map(|opened| opened.terminal.keys());
    let child_stdin = match (wrap.stdin, &terminal, keys) {
        (_, Some(opened), Some(Keys::WhenOurs)) => Some(opened.follower()?),
        (StdinMode::Relay, Some(opened), Some(Keys::Elsewhere)) => {
            relay_input(source_end(own(0, Stream::Stdin)?, Stream::Stdin)?, opened.leader());
            Some(opened.follower()?)
        }
        (StdinMode::Inherit, ..) => None,
        (StdinMode::Null, ..) => {
            let null = File::open("/dev/null");
            Some(null.map_err(|error| Error::os("open /dev/null", error))?.into())
        }
        (StdinMode::Relay, ..) => {
            let (reader, writer) = new_pipe(Stream::Stdin.name())?;
            let sink = sink_end(writer, Stream::Stdin)?;
            relay_input(source_end(own(0, Stream::Stdin)?, Stream::Stdin)?, sink);
            Some(reader)
        }
    };
    if let Some(opened) = &terminal
        && let Some(screen) = opened.terminal.screen_end()
        && keys != Some(Keys::Elsewhere)
    {
        relay_input(screen.clone(), opened.leader());
    }
    let child = ChildStreams {
        stdin_closed: child_stdin.is_none() && startup::was_closed(0),
        stdin: child_stdin,
        stdout: child_stdout,
        stderr: child_stderr,
    };
    Ok(Plan { child, courses, terminal, newlines })
}

/// What has to happen to one output stream between its source and its sink.
struct Way<'c> {
    config: &'c Config,
    stream: Stream,
    feeds: &'c [Leg],
    started: Instant,
}

impl<'c> Way<'c> {
    fn new(config: &'c Config, stream: Stream, feeds: &'c [Leg], started: Instant) -> Way<'c> {
        let feeds = if config.tee.text.streams.include(stream) { feeds } else { &[] };
        Way { config, stream, feeds, started }
    }

    /// One relay does everything, if the ends allow it. Otherwise the work is divided: legs are fed
    /// between two pipes, and text work or a sink that cannot be spliced into comes after them.
    fn lay(
        &self,
        source: Endpoint,
        source_name: String,
        sink: Endpoint,
    ) -> Result<Vec<Course>, Error> {
        let cursor = match sink.kind() {
            Kind::Terminal => CursorVisibility::Kept,
            _ => CursorVisibility::Removed,
        };
        let text = match self.config.text.streams.include(self.stream) {
            true => self.config.text.modes(cursor),
            false => None,
        };
        let text = text.map(|modes| TextWork { modes, started: self.started });
        let legs = || self.feeds.to_vec();

        let mut stages = Vec::with_capacity(1);
        if self.feeds.is_empty() {
            stages.push(Stage { text, legs: Vec::new() });
        } else {
            if source.kind() != Kind::Pipe {
                stages.push(Stage { text: None, legs: Vec::new() });
            }
            if text.is_none() && Relay::takes_legs(&sink) {
                stages.push(Stage { text, legs: legs() });
            } else {
                stages.push(Stage { text: None, legs: legs() });
                stages.push(Stage { text, legs: Vec::new() });
            }
        }
        self.join(stages, source, source_name, sink)
    }

    /// Puts a pipe between each stage and the next.
    fn join(
        &self,
        stages: Vec<Stage>,
        mut source: Endpoint,
        mut source_name: String,
        sink: Endpoint,
    ) -> Result<Vec<Course>, Error> {
        let name = self.stream.name();
        let last = stages.len() - 1;
        let mut courses = Vec::with_capacity(stages.len());
        for (index, stage) in stages.into_iter().enumerate() {
            let place = match (index == 0, index == last) {
                (true, true) => Place::Only,
                (true, false) => Place::First,
                (false, false) => Place::Middle,
                (false, true) => Place::Last,
            };
            let inner = format!("the pipe to {name}");
            let (next_source, own_sink, sink_name) = if index == last {
                (None, sink.clone(), name.to_owned())
            } else {
                let (reader, writer) = new_pipe(name)?;
                let next = source_end(reader, self.stream)?;
                (Some(next), sink_end(writer, self.stream)?, inner.clone())
            };
            courses.push(Course {
                stream: self.stream,
                place,
                source,
                sink: own_sink,
                source_name,
                sink_name,
                text: stage.text,
                legs: stage.legs,
            });
            match next_source {
                Some(next) => (source, source_name) = (next, inner),
                None => break,
            }
        }
        Ok(courses)
    }
}

/// The work of one relay among those of a stream.
struct Stage {
    text: Option<TextWork>,
    legs: Vec<Leg>,
}

/// Lets go of our own stdin and stdout: the relays have theirs, and who closes them has to close the
/// last copy. The numbers stay taken, so that no file opened later becomes "stdout". stderr is kept
/// for messages.
pub(super) fn release_standard_fds() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(&null);
        let _ = nix::unistd::dup2_stdout(&null);
    }
}

/// A pipe of our own, close-on-exec at both ends: reader, writer.
///
/// # Errors
/// One that says what the pipe was for.
pub(super) fn new_pipe(purpose: &str) -> Result<(OwnedFd, OwnedFd), Error> {
    let tried = |error| Error::os(format!("make a pipe for {purpose}"), error);
    let (reader, writer) = io::pipe().map_err(tried)?;
    Ok((reader.into(), writer.into()))
}

/// A close-on-exec duplicate of an fd that nproxy was started with.
///
/// # Errors
/// EBADF if there is none of that number. What is open but close-on-exec did not come through exec(2):
/// it is something that we have opened ourselves by now.
pub(super) fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only asks for the flags of a number, open or not.
    let flags = Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    let was_closed = usize::try_from(number).is_ok_and(|fd| fd < 3 && startup::was_closed(fd));
    if was_closed || flags & libc::FD_CLOEXEC != 0 {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: F_DUPFD_CLOEXEC takes any number and refuses one that is not open.
    let fd = Errno::result(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the kernel just made this fd for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn source_end(fd: OwnedFd, stream: Stream) -> Result<Endpoint, Error> {
    Endpoint::new(fd).map_err(|errno| examine(stream, errno))
}

fn sink_end(fd: OwnedFd, stream: Stream) -> Result<Endpoint, Error> {
    Endpoint::sink(fd).map_err(|errno| examine(stream, errno))
}

fn examine(stream: Stream, errno: Errno) -> Error {
    Error::os(format!("examine {}", stream.name()), errno)
}

/// A close-on-exec duplicate of one of our three streams. For one that was closed when we started it
/// is an fd that refuses with EBADF what is asked of it, as a closed one would: the failure is then
/// met, and told, when there are bytes to carry.
fn own(number: usize, stream: Stream) -> Result<OwnedFd, Error> {
    let tried = |error| Error::os(format!("use {}", stream.name()), error);
    if startup::was_closed(number) {
        let reads = number == 0;
        let wrong_way = File::options().read(!reads).write(reads).open("/dev/null");
        return wrong_way.map(OwnedFd::from).map_err(tried);
    }
    let stdio = (io::stdin(), io::stdout(), io::stderr());
    let fd: BorrowedFd<'_> = match number {
        0 => stdio.0.as_fd(),
        1 => stdio.1.as_fd(),
        _ => stdio.2.as_fd(),
    };
    fd.try_clone_to_owned().map_err(tried)
}

/// Whether stdout and stderr are one and the same open file, as after `2>&1`.
fn same_file() -> bool {
    let (Ok(stdout), Ok(stderr)) = (fstat(io::stdout()), fstat(io::stderr())) else { return false };
    if (stdout.st_dev, stdout.st_ino) != (stderr.st_dev, stderr.st_ino) {
        return false;
    }
    let regular = SFlag::from_bits_truncate(stdout.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
    // A pipe or terminal opened twice is still one queue; a regular file opened twice has two
    // positions, unless both append.
    !regular || same_description() || (appends(io::stdout()) && appends(io::stderr()))
}

fn same_description() -> bool {
    const KCMP_FILE: libc::c_int = 0;
    let pid = std::process::id();
    // SAFETY: kcmp(2) takes numbers only. Where it is forbidden the answer is "no", not a wrong "yes".
    unsafe { libc::syscall(libc::SYS_kcmp, pid, pid, KCMP_FILE, 1, 2) == 0 }
}

fn appends(fd: impl AsFd) -> bool {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map(OFlag::from_bits_truncate);
    flags.is_ok_and(|flags| flags.contains(OFlag::O_APPEND))
}
