//! The extra destinations of a run: opened before anything starts, changed only once the command runs.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use super::collector::Collector;
use super::command::CommandCopy;
use super::journal;
use super::late_fifo::LateFifo;
use super::segments::Segments;
use super::shared::SharedFile;
use super::socket::Address;
use super::spool::Spool;
use super::writer::{Work, Writers};
use crate::config::{CopyTo, Escapes, OutputError, Target, Tee, TeeOpen, Verbosity};
use crate::error::Error;
use crate::notice;
use crate::process::fds;
use crate::relay::{Endpoint, Feed, Kind, OnFull, Role, Route, Stream, StringEnd, TextWork};

/// What the streams are copied into.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// The pipes that the streams' relays fill, in the order of the targets.
    pub(crate) feeds: Vec<Feed>,
    /// The relays from those pipes to the targets, or to the pipes of the threads that write them, in the same order.
    pub(crate) routes: Vec<Route>,
    /// Those threads.
    pub(crate) writers: Writers,
    /// Regular files among the targets, by name.
    pub(crate) files: Vec<(String, Endpoint)>,
    /// How long the end of the run waits for each copy while it takes nothing; a file is waited for.
    pub(crate) waits: Vec<Option<Duration>>,
}

/// A target that is open.
enum Opened {
    /// It does not hold up the loop: the relay writes it.
    Sink(Endpoint),
    /// A thread writes it.
    Work(Box<dyn Work>),
}

impl Copies {
    /// Opens every target. With `--tee-output-error=warn` one that cannot be opened is told and left out.
    ///
    /// # Errors
    /// One that names the target that could not be opened.
    pub(crate) fn open(tee: &Tee, verbosity: Verbosity, started: Instant) -> Result<Copies, Error> {
        let mut copies = Copies::default();
        for copy in &tee.copies {
            match (copies.add(copy, verbosity, started), tee.output_error) {
                (Err(error), OutputError::Warn) => notice::error(&error),
                (result, _) => result?,
            }
        }
        Ok(copies)
    }

    fn add(&mut self, copy: &CopyTo, verbosity: Verbosity, started: Instant) -> Result<(), Error> {
        let name = copy.target.to_string();
        let tried = |error| Error::os(format!("--tee: cannot open {name}"), error);
        let number = self.routes.len();
        tell_of_wait(copy, &name, verbosity);
        let opened = self.open_target(copy, &name).map_err(tried)?;
        let waits = match (&opened, copy.on_full) {
            (_, OnFull::Drop) => Some(copy.wait),
            (Opened::Sink(sink), _) if sink.kind() == Kind::Pipe => Some(copy.wait),
            (Opened::Sink(_), _) => None,
            (Opened::Work(_), _) if is_file(&copy.target) => None,
            (Opened::Work(_), _) => Some(copy.wait),
        };
        // What stands behind a thread is no terminal.
        let sink_is = match &opened {
            Opened::Sink(sink) => sink.kind(),
            Opened::Work(_) => Kind::File,
        };
        let sink_is = sink_is.into();
        let (sink, beyond) = match opened {
            Opened::Sink(sink) => (sink, None),
            Opened::Work(work) => {
                let (reader, writer) = fds::new_pipe(&name)?;
                // As large as the relay makes its own end: one call for both.
                let books = self.writers.add(number, &name, reader, work, waits, verbosity);
                let sink = Endpoint::new(writer).map_err(|errno| tried(errno.into()))?;
                (sink, Some(books.map_err(tried)?))
            }
        };
        let modes = copy.text.modes(sink_is, copy.text.streams.first());
        let text = modes.map(|modes| TextWork { modes, started });
        let (reader, writer) = fds::new_pipe(&name)?;
        let end = |fd| Endpoint::new(fd).map_err(|errno| tried(errno.into()));
        let pipe = end(writer)?;
        let string_end = match copy.text.escapes {
            Escapes::Strip | Escapes::Screen => StringEnd::Written,
            Escapes::Pass => StringEnd::Left,
        };
        let streams = copy.text.streams.list();
        let (on_full, threaded) = (copy.on_full, beyond.is_some());
        self.feeds.push(Feed { copy: number, streams, pipe, on_full, string_end, threaded });
        self.waits.push(waits);
        self.routes.push(Route {
            stream: Stream::Stdout,
            role: Role::Copy,
            source: end(reader)?,
            sink,
            source_name: format!("the pipe to {name}"),
            sink_name: name.clone(),
            text,
            copies: Vec::new(),
            rate: None,
            beyond,
            instead: None,
        });
        Ok(())
    }

    fn open_target(&mut self, copy: &CopyTo, name: &str) -> io::Result<Opened> {
        match &copy.target {
            Target::Path(path) => self.open_path(Path::new(path), copy, name),
            Target::Command(command) => {
                let work = CommandCopy::new(command.clone(), copy.restart, copy.wait);
                Ok(Opened::Work(Box::new(work)))
            }
            Target::Unix(path) => self.open_address(Address::Unix(path.into()), copy),
            Target::Tcp(address) => self.open_address(Address::resolve(address)?, copy),
            Target::Journal(name) => {
                Ok(collector(Address::Unix(journal::SOCKET.into()), journal::header(name)))
            }
            Target::Inherited(number, _) => {
                let fd = fds::inherited(*number)?;
                match Endpoint::sink(fd.try_clone()?)? {
                    file if file.kind() == Kind::File => {
                        self.files.push((name.to_owned(), file));
                        Ok(Opened::Work(Box::new(SharedFile::new(File::from(fd)))))
                    }
                    sink => Ok(Opened::Sink(sink)),
                }
            }
        }
    }

    fn open_address(&mut self, address: Address, copy: &CopyTo) -> io::Result<Opened> {
        let Some(at) = &copy.spool else { return Ok(collector(address, Vec::new())) };
        let directory = Path::new(&at.directory);
        let spool = Spool::open(directory, at.max, address).map_err(|error| {
            let why = Error::os(format!("spool {}", directory.display()), error);
            io::Error::other(why.to_string())
        })?;
        let name = directory.display().to_string();
        self.files.push((name, Endpoint::new(spool.file().as_fd().try_clone_to_owned()?)?));
        Ok(Opened::Work(Box::new(spool)))
    }

    /// Opening a FIFO waits for its reader, as `tee FIFO` does, unless nothing may hold the run up: then a thread waits.
    fn open_path(&mut self, path: &Path, copy: &CopyTo, name: &str) -> io::Result<Opened> {
        let waits = match copy.on_full {
            OnFull::Block => 0,
            OnFull::Drop => libc::O_NONBLOCK,
        };
        let segments = copy.needs_file();
        // Others may append there too, unless it is finished and begun anew: then it has one writer.
        let shared = copy.open == TeeOpen::Append && copy.rotation.is_none();
        let mut options = File::options();
        options.write(true).create(true).truncate(false).append(shared);
        options.custom_flags(libc::O_NOCTTY | waits);
        // Reading is only for the last byte of a segment, and need not be allowed.
        let file = match segments {
            true => options.clone().read(true).open(path).or_else(|_| options.open(path)),
            false => options.open(path),
        };
        let file = match file {
            // What the open of a FIFO says that may not wait (fifo(7)); sockets and devices say it too.
            Err(error)
                if waits != 0
                    && error.raw_os_error() == Some(libc::ENXIO)
                    && path.metadata()?.file_type().is_fifo() =>
            {
                return Ok(Opened::Work(Box::new(LateFifo::new(path.into()))));
            }
            file => file?,
        };
        if !file.metadata()?.is_file() {
            if segments {
                return Err(io::Error::other("rotate, every and reopen are for regular files"));
            }
            return Ok(Opened::Sink(Endpoint::sink(OwnedFd::from(file))?));
        }
        let endpoint = Endpoint::new(file.as_fd().try_clone_to_owned()?)?;
        self.files.push((name.to_owned(), endpoint));
        if shared {
            return Ok(Opened::Work(Box::new(SharedFile::at(path, file, copy.moved)?)));
        }
        let work = Segments::new(path, file, copy.open, copy.rotation.clone(), copy.moved)?;
        Ok(Opened::Work(Box::new(work)))
    }
}

fn collector(address: Address, greeting: Vec<u8>) -> Opened {
    Opened::Work(Box::new(Collector::new(address, greeting)))
}

/// Opening a FIFO waits until somebody else has opened it: says so, unless nothing may hold the run up.
fn tell_of_wait(copy: &CopyTo, name: &str, verbosity: Verbosity) {
    let Target::Path(path) = &copy.target else { return };
    let is_fifo = Path::new(path).metadata().is_ok_and(|found| found.file_type().is_fifo());
    if is_fifo && copy.on_full == OnFull::Block {
        let text = "nothing starts before it has a reader (full=drop: at once)";
        notice::decision(verbosity, &format!("{name} is a FIFO: {text}"));
    }
}

fn is_file(target: &Target) -> bool {
    matches!(target, Target::Path(_) | Target::Inherited(..))
}
