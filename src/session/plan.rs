//! Which pipes a run needs: the ends that the child gets, and the relays between the others.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Instant;

use crate::config::{Output, OutputError, PtyMode, StdinMode, Unit, Verbosity, Visibility, Wrap};
use crate::copies::held::{Held, Place};
use crate::error::Error;
use crate::notice;
use crate::process::fds::{new_pipe, own, same_file, sink_end, source_end};
use crate::process::spawn::ChildStreams;
use crate::process::startup;
use crate::relay::{Endpoint, Feed, Kind, Relay, Role, Route, Stream, TextWork};
use crate::terminal::{Terminal, is_terminal, open_side};
use crate::text::Modes;

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
pub(crate) fn refuse_copy_onto_source(
    streams: &[Route],
    files: &[(String, Endpoint)],
) -> Result<(), Error> {
    let sources =
        || streams.iter().filter(|route| route.role.is_first()).map(|route| &route.source);
    match files.iter().find(|(_, file)| sources().any(|source| source.is_same_file(file))) {
        Some((name, _)) => Err(Error::usage(format!("copy to {name}"), "it is what stdin reads")),
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
    pub(crate) terminal: Option<Terminal>,
    /// Ends of single ptys, to be held until the command has ended.
    pub(crate) followers: Vec<OwnedFd>,
    /// What is not shown yet.
    pub(crate) held: Held,
}

/// The child's streams, and what has to be relayed.
///
/// # Errors
/// When a pipe or pty cannot be made, or what the system says of our own streams.
pub(crate) fn for_child(
    wrap: &Wrap,
    verbosity: Verbosity,
    output: &Output,
    terminal: Option<Terminal>,
    feeds: &[Feed],
    started: Instant,
) -> Result<Plan, Error> {
    let stdout = own(1, Stream::Stdout)?;
    let stderr = own(2, Stream::Stderr)?;
    let mut builder = Builder {
        output,
        wrap,
        verbosity,
        feeds,
        started,
        terminal,
        routes: Vec::with_capacity(3),
        followers: Vec::new(),
        held: Held::default(),
    };
    let stderr_joins = builder.stderr_joins_stdout();
    let child_stdout = builder.output(Stream::Stdout, stdout)?;
    let child_stderr = match stderr_joins {
        // One pipe, or pty, for both keeps their order exactly as the child made it.
        true => {
            child_stdout.try_clone().map_err(|error| Error::os("make a pipe for stderr", error))?
        }
        false => builder.output(Stream::Stderr, stderr)?,
    };
    let child_stdin = builder.stdin()?;
    let child = ChildStreams {
        stdin_closed: child_stdin.is_none() && startup::was_closed(0),
        stdin: child_stdin,
        stdout: child_stdout,
        stderr: child_stderr,
    };
    let Builder { routes, terminal, followers, held, .. } = builder;
    Ok(Plan { child, routes, terminal, followers, held })
}

/// A plan in the making: one stream after another.
struct Builder<'c> {
    output: &'c Output,
    wrap: &'c Wrap,
    verbosity: Verbosity,
    feeds: &'c [Feed],
    started: Instant,
    terminal: Option<Terminal>,
    routes: Vec<Route>,
    followers: Vec<OwnedFd>,
    held: Held,
}

impl Builder<'_> {
    /// Whether one of our own fds is the terminal that the child's stands for.
    fn is_screen(&self, fd: usize) -> bool {
        self.terminal.as_ref().is_some_and(|terminal| terminal.stands_for(fd))
    }

    /// Whether the child's stderr is the same pipe, or pty, as its stdout: ours are one file, and nobody asked for
    /// them apart.
    fn stderr_joins_stdout(&self) -> bool {
        let apart = self.output.splits_streams();
        let closed = startup::was_closed(1) || startup::was_closed(2);
        !apart && !closed && (self.is_screen(1) && self.is_screen(2) || same_file())
    }

    /// Whether our stderr is where our stdout is.
    fn place_of_stderr(&self) -> Place {
        let closed = startup::was_closed(1) || startup::was_closed(2);
        match !closed && same_file() {
            true => Place::SameAsBefore,
            false => Place::Own,
        }
    }

    /// Relays one of the child's output streams, as what ours is: through its terminal, through a pty for this stream
    /// alone if ours is another terminal, or through a pipe. Returns the child's end.
    fn output(&mut self, stream: Stream, ours: OwnedFd) -> Result<OwnedFd, Error> {
        let number = if stream == Stream::Stderr { 2 } else { 1 };
        let sink = sink_end(ours, stream)?;
        let carries = |terminal: &&Terminal| terminal.carrier() == stream;
        let (source, end) = if let Some(terminal) = self.terminal.as_ref().filter(carries)
            && let Some(leader) = terminal.leader()
        {
            (leader.clone(), terminal.follower()?)
        } else if let Some(side) = self.side(number, &sink)? {
            side
        } else {
            let (reader, writer) = new_pipe(stream.name())?;
            (source_end(reader, stream)?, writer)
        };
        let planner = Planner::new(self.output, stream, self.feeds, self.started);
        let name = format!("the child's {}", stream.name());
        let held = match self.output.visibility {
            Visibility::Always => None,
            Visibility::OnFailure => {
                let place =
                    if stream == Stream::Stderr { self.place_of_stderr() } else { Place::Own };
                self.held.hold(stream, &sink, place)?
            }
        };
        match held {
            None => self.routes.extend(planner.plan(source, name, sink)?),
            Some((pipe, route)) => {
                let planner = planner.shown_on(sink.kind());
                self.routes.extend(planner.plan(source, name, pipe)?);
                self.routes.extend(route);
            }
        }
        Ok(end)
    }

    /// A pty for one of the child's output streams alone, if it is to have one: the end to read from, and the child's.
    fn side(
        &mut self,
        number: usize,
        sink: &Endpoint,
    ) -> Result<Option<(Endpoint, OwnedFd)>, Error> {
        let opened = match self.wrap.pty {
            PtyMode::Always => open_side(self.terminal.as_mut(), sink)?,
            PtyMode::Auto if is_terminal(number) => match open_side(self.terminal.as_mut(), sink) {
                Ok(opened) => opened,
                Err(error) => {
                    notice::decision(self.verbosity, &format!("{error}; going on with pipes"));
                    return Ok(None);
                }
            },
            PtyMode::Auto | PtyMode::Never => return Ok(None),
        };
        let held = opened.1.try_clone().map_err(|error| Error::os("open a pty", error))?;
        self.followers.push(held);
        Ok(Some(opened))
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
            beyond: None,
            instead: None,
        });
    }

    /// The child's stdin; `None` for ours as it is.
    fn stdin(&mut self) -> Result<Option<OwnedFd>, Error> {
        let our_stdin = || source_end(own(0, Stream::Stdin)?, Stream::Stdin);
        let terminal = self.terminal.as_ref();
        Ok(match (self.wrap.stdin, terminal) {
            (StdinMode::Inherit | StdinMode::Relay, Some(terminal)) if terminal.stands_for(0) => {
                Some(terminal.follower()?)
            }
            (StdinMode::Inherit, _) => None,
            (StdinMode::Null, _) => {
                let null = File::open("/dev/null");
                Some(null.map_err(|error| Error::os("open /dev/null", error))?.into())
            }
            (StdinMode::Relay, Some(terminal)) if terminal.is_fed() => {
                let (leader, follower) = (terminal.leader().cloned(), terminal.follower()?);
                if let Some(leader) = leader {
                    self.relay_input(our_stdin()?, leader);
                }
                Some(follower)
            }
            (StdinMode::Relay, _) => {
                let (reader, writer) = new_pipe(Stream::Stdin.name())?;
                self.relay_input(our_stdin()?, sink_end(writer, Stream::Stdin)?);
                Some(reader)
            }
        })
    }
}

/// What has to happen to one output stream between its source and its sink.
struct Planner<'c> {
    output: &'c Output,
    stream: Stream,
    feeds: Vec<Feed>,
    started: Instant,
    /// Where it will be seen, if that is not its sink.
    shown_on: Option<Kind>,
}

impl<'c> Planner<'c> {
    fn new(output: &'c Output, stream: Stream, feeds: &[Feed], started: Instant) -> Planner<'c> {
        let feeds = feeds.iter().filter(|feed| feed.streams.contains(&stream)).cloned().collect();
        Planner { output, stream, feeds, started, shown_on: None }
    }

    /// For what is held back before it is shown.
    fn shown_on(self, kind: Kind) -> Planner<'c> {
        Planner { shown_on: Some(kind), ..self }
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
            true => {
                let shown_on = self.shown_on.unwrap_or(sink.kind());
                self.output.text.modes(shown_on.into(), self.stream)
            }
            false => None,
        };
        let text = text.or((self.output.counts == Unit::Lines).then(Modes::default));
        let text = text.map(|modes| TextWork { modes, started: self.started });
        let copies = || self.feeds.clone();

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

    /// Where the stream goes when its own sink takes no more, if its copies are to be completed.
    fn instead(&self) -> Result<Option<Endpoint>, Error> {
        if self.output.tee.output_error == OutputError::Exit || self.feeds.is_empty() {
            return Ok(None);
        }
        let null = File::options().write(true).open("/dev/null");
        let null = null.map_err(|error| Error::os("open /dev/null", error))?;
        sink_end(null.into(), self.stream).map(Some)
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
                beyond: None,
                instead: if index == last { self.instead()? } else { None },
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
