//! Which pipes a run needs: the ends that the child gets, and the relays between the others.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Instant;

use crate::config::{Output, PtyMode, StdinMode, Wrap};
use crate::error::Error;
use crate::process::fds::{new_pipe, own, same_file, sink_end, source_end};
use crate::process::spawn::ChildStreams;
use crate::process::startup;
use crate::relay::{Endpoint, Feed, Kind, Relay, Role, Route, Stream, TextWork};
use crate::terminal::{Keys, Opened};
use crate::text::newline::Newlines;

/// stdin to stdout.
///
/// # Errors
/// What the system says of either.
pub(crate) fn for_filter(
    output: &Output,
    feeds: &[Feed],
    started: Instant,
) -> Result<Vec<Route>, Error> {
    let source = source_end(own(0, Stream::Stdin)?, Stream::Stdin)?;
    let sink = sink_end(own(1, Stream::Stdout)?, Stream::Stdout)?;
    if source.feeds_on(&sink) {
        return Err(Error::usage("copy stdin to stdout", "both are the same file"));
    }
    Planner::new(output, Stream::Stdout, feeds, started).plan(source, "stdin".into(), sink)
}

/// Refuses a copy into the file that is being read: it would be emptied, or grow for ever.
///
/// # Errors
/// One that names the copy.
pub(crate) fn refuse_copy_onto_source(streams: &[Route], copies: &[Route]) -> Result<(), Error> {
    let sources =
        || streams.iter().filter(|route| route.role.is_first()).map(|route| &route.source);
    match copies.iter().find(|copy| sources().any(|source| source.is_same_file(&copy.sink))) {
        Some(copy) => {
            Err(Error::usage(format!("copy to {}", copy.sink_name), "it is what stdin reads"))
        }
        None => Ok(()),
    }
}

/// What a command needs.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Its ends.
    pub(crate) child: ChildStreams,
    /// What has to be relayed.
    pub(crate) routes: Vec<Route>,
    /// Its terminal, if it gets one of its own.
    pub(crate) terminal: Option<Opened>,
    /// How lines end in what fills the copies.
    pub(crate) newlines: Newlines,
}

/// The child's streams, and what has to be relayed.
///
/// # Errors
/// When a pipe or pty cannot be made, or what the system says of our own streams.
pub(crate) fn for_child(
    wrap: &Wrap,
    output: &Output,
    terminal: Option<Opened>,
    feeds: &[Feed],
    started: Instant,
) -> Result<Plan, Error> {
    let stdout = own(1, Stream::Stdout)?;
    let stderr = own(2, Stream::Stderr)?;
    let mut builder = Builder {
        output,
        wrap,
        feeds,
        started,
        terminal,
        routes: Vec::with_capacity(3),
        newlines: Newlines::AsTheyAre,
    };
    let stderr_joins = builder.stderr_joins_stdout(&stderr);
    let child_stdout = builder.stdout(sink_end(stdout, Stream::Stdout)?)?;
    let child_stderr = match stderr_joins {
        // One pipe, or pty, for both keeps their order exactly as the child made it.
        true => {
            child_stdout.try_clone().map_err(|error| Error::os("make a pipe for stderr", error))?
        }
        false => builder.stderr(stderr)?,
    };
    let child_stdin = builder.stdin()?;
    let child = ChildStreams {
        stdin_closed: child_stdin.is_none() && startup::was_closed(0),
        stdin: child_stdin,
        stdout: child_stdout,
        stderr: child_stderr,
    };
    let Builder { routes, terminal, newlines, .. } = builder;
    Ok(Plan { child, routes, terminal, newlines })
}

/// A plan in the making: one stream after another.
struct Builder<'c> {
    output: &'c Output,
    wrap: &'c Wrap,
    feeds: &'c [Feed],
    started: Instant,
    terminal: Option<Opened>,
    routes: Vec<Route>,
    /// How lines end in what fills the copies. A copy fed by a terminal and a pipe counts as the terminal's: which
    /// byte came from where is not known there.
    newlines: Newlines,
}

impl Builder<'_> {
    /// Whether our stderr is the terminal that the child's stands for.
    fn is_same_screen(&self, stderr: &OwnedFd) -> bool {
        self.terminal.as_ref().is_some_and(|opened| opened.stands_for(stderr))
    }

    /// Whether the child's stderr is the same pipe, or pty, as its stdout: ours are one file, and nobody asked for
    /// them apart.
    fn stderr_joins_stdout(&self, stderr: &OwnedFd) -> bool {
        let apart = self.output.splits_streams();
        let closed = startup::was_closed(1) || startup::was_closed(2);
        !apart && !closed && (self.is_same_screen(stderr) || same_file())
    }

    /// Relays one of the child's output streams.
    fn relay_output(
        &mut self,
        stream: Stream,
        source: Endpoint,
        newlines: Newlines,
        sink: Endpoint,
    ) -> Result<(), Error> {
        if newlines == Newlines::OfATerminal && self.output.tee.text.streams.include(stream) {
            self.newlines = newlines;
        }
        let planner = Planner::new(self.output, stream, self.feeds, self.started);
        let name = format!("the child's {}", stream.name());
        self.routes.extend(planner.plan(source, name, sink)?);
        Ok(())
    }

    /// Relays one of the child's output streams through a pipe. Returns the child's end.
    fn output_pipe(&mut self, stream: Stream, sink: Endpoint) -> Result<OwnedFd, Error> {
        let (reader, writer) = new_pipe(stream.name())?;
        let source = source_end(reader, stream)?;
        self.relay_output(stream, source, Newlines::AsTheyAre, sink)?;
        Ok(writer)
    }

    fn stdout(&mut self, sink: Endpoint) -> Result<OwnedFd, Error> {
        match &self.terminal {
            Some(opened) => {
                let (leader, newlines) = (opened.leader(), opened.newlines());
                let follower = opened.follower()?;
                self.relay_output(Stream::Stdout, leader, newlines, sink)?;
                Ok(follower)
            }
            None => self.output_pipe(Stream::Stdout, sink),
        }
    }

    fn stderr(&mut self, stderr: OwnedFd) -> Result<OwnedFd, Error> {
        let same_screen = self.is_same_screen(&stderr);
        let sink = sink_end(stderr, Stream::Stderr)?;
        match &mut self.terminal {
            Some(opened) if same_screen || self.wrap.pty == PtyMode::Always => {
                let (leader, newlines, follower) = opened.open_side(sink.kind())?;
                self.relay_output(Stream::Stderr, leader, newlines, sink)?;
                Ok(follower)
            }
            _ => self.output_pipe(Stream::Stderr, sink),
        }
    }

    fn relay_input(&mut self, source: Endpoint, sink: Endpoint) {
        self.routes.push(Route {
            stream: Stream::Stdin,
            role: Role::Only,
            source,
            sink,
            source_name: "stdin".into(),
            sink_name: "the child's stdin".into(),
            text: None,
            rate: None,
            copies: Vec::new(),
        });
    }

    /// The child's stdin, `None` for ours as it is; and the keys of our terminal, if they have to be relayed.
    fn stdin(&mut self) -> Result<Option<OwnedFd>, Error> {
        let our_stdin = || source_end(own(0, Stream::Stdin)?, Stream::Stdin);
        let keys = self.terminal.as_ref().map(|opened| opened.terminal.keys());
        let end = match (self.wrap.stdin, &self.terminal, keys) {
            (_, Some(opened), Some(Keys::WhenOurs)) => Some(opened.follower()?),
            (StdinMode::Relay, Some(opened), Some(Keys::Elsewhere)) => {
                let (leader, follower) = (opened.leader(), opened.follower()?);
                self.relay_input(our_stdin()?, leader);
                Some(follower)
            }
            (StdinMode::Inherit, ..) => None,
            (StdinMode::Null, ..) => {
                let null = File::open("/dev/null");
                Some(null.map_err(|error| Error::os("open /dev/null", error))?.into())
            }
            (StdinMode::Relay, ..) => {
                let (reader, writer) = new_pipe(Stream::Stdin.name())?;
                self.relay_input(our_stdin()?, sink_end(writer, Stream::Stdin)?);
                Some(reader)
            }
        };
        if let Some(opened) = &self.terminal
            && let Some(screen) = opened.terminal.screen_end()
            && keys != Some(Keys::Elsewhere)
        {
            self.relay_input(screen.clone(), opened.leader());
        }
        Ok(end)
    }
}

/// What has to happen to one output stream between its source and its sink.
struct Planner<'c> {
    output: &'c Output,
    stream: Stream,
    feeds: &'c [Feed],
    started: Instant,
}

impl<'c> Planner<'c> {
    fn new(output: &'c Output, stream: Stream, feeds: &'c [Feed], started: Instant) -> Planner<'c> {
        let feeds = if output.tee.text.streams.include(stream) { feeds } else { &[] };
        Planner { output, stream, feeds, started }
    }

    /// One relay does everything, if the ends allow it. Otherwise the work is divided: copies are fed
    /// between two pipes, and text work or a sink that cannot be spliced into comes after them.
    fn plan(
        &self,
        source: Endpoint,
        source_name: String,
        sink: Endpoint,
    ) -> Result<Vec<Route>, Error> {
        let text = match self.output.text.streams.include(self.stream) {
            true => self.output.text.modes(sink.kind().into(), self.stream),
            false => None,
        };
        let text = text.map(|modes| TextWork { modes, started: self.started });
        let copies = || self.feeds.to_vec();

        let mut works = Vec::with_capacity(1);
        if self.feeds.is_empty() {
            works.push(Work { text, copies: Vec::new() });
        } else {
            if source.kind() != Kind::Pipe {
                works.push(Work { text: None, copies: Vec::new() });
            }
            if text.is_none() && Relay::takes_copies(&sink) {
                works.push(Work { text, copies: copies() });
            } else {
                works.push(Work { text: None, copies: copies() });
                works.push(Work { text, copies: Vec::new() });
            }
        }
        self.join(works, source, source_name, sink)
    }

    /// Puts a pipe between each work and the next.
    fn join(
        &self,
        works: Vec<Work>,
        mut source: Endpoint,
        mut source_name: String,
        sink: Endpoint,
    ) -> Result<Vec<Route>, Error> {
        let name = self.stream.name();
        let last = works.len() - 1;
        let mut routes = Vec::with_capacity(works.len());
        for (index, work) in works.into_iter().enumerate() {
            let role = match (index == 0, index == last) {
                (true, true) => Role::Only,
                (true, false) => Role::First,
                (false, false) => Role::Middle,
                (false, true) => Role::Last,
            };
            let inner = format!("the pipe to {name}");
            let (next_source, own_sink, sink_name) = if index == last {
                (None, sink.clone(), name.to_owned())
            } else {
                let (reader, writer) = new_pipe(name)?;
                let next = source_end(reader, self.stream)?;
                (Some(next), sink_end(writer, self.stream)?, inner.clone())
            };
            routes.push(Route {
                stream: self.stream,
                role,
                source,
                sink: own_sink,
                source_name,
                sink_name,
                text: work.text,
                rate: self.output.limit_rate.filter(|_| role.is_first()),
                copies: work.copies,
            });
            match next_source {
                Some(next) => (source, source_name) = (next, inner),
                None => break,
            }
        }
        Ok(routes)
    }
}

/// The work of one relay among those of a stream.
struct Work {
    text: Option<TextWork>,
    copies: Vec<Feed>,
}
