//! Output that is held back until it is known how the command ends.
//!
//! ```text
//!   relays of the stream ──▶ pipe ──▶ a file without a name        while it is hidden
//!                              │            └──▶ stdout, stderr    then what is in the file,
//!                              └───────────────▶ stdout, stderr    and after it what still comes
//! ```
//!
//! Each arrow is a relay; one of a stream follows the other, so nothing is lost, doubled or overtaken. A disk that is full
//! ends the hiding: what it did not take is still in the pipe.

use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::config::Verbosity;
use crate::error::Error;
use crate::notice;
use crate::process::fds;
use crate::relay::{End, Endpoint, Relay, Role, Route, Stream};
use crate::ring::Ring;

/// The streams that are held back.
#[derive(Debug, Default)]
pub(crate) struct Held {
    streams: Vec<HeldStream>,
    hiding: Hiding,
    /// While the run is planned: the end of the pipe that was made last.
    last: Option<Endpoint>,
}

/// Whether output is still to be hidden.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Hiding {
    #[default]
    Lasts,
    Over,
}

/// Where output is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere that anything else goes.
    Own,
    /// Where the stream before it is shown: they share a file, and so keep their order as far as it is known.
    SameAsBefore,
}

/// One stream, and how far it has come.
#[derive(Debug)]
struct HeldStream {
    stream: Stream,
    file: File,
    /// The end of the pipe from which it is held, and where it is to be shown; until the relay that needs them last.
    pipe: Option<Endpoint>,
    sink: Option<Endpoint>,
    step: Step,
    /// The relay that works on it now.
    relay: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Into the file.
    Hiding,
    /// From the file to where it belongs.
    Showing,
    /// From the pipe to where it belongs, or nowhere any more.
    Passing,
}

impl Held {
    /// Whether something is hidden.
    pub(crate) fn is_hiding(&self) -> bool {
        self.hiding == Hiding::Lasts && !self.is_empty()
    }

    /// Whether nothing was to be held back.
    pub(crate) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Holds back what would go into `sink`. The end of the pipe to fill instead, and the route from there into the file, if
    /// that is not the one that was made before for the same place; nothing if there can be no file, which is said: output
    /// is shown then as it comes.
    ///
    /// # Errors
    /// If there are no more pipes.
    pub(crate) fn hold(
        &mut self,
        stream: Stream,
        sink: &Endpoint,
        place: Place,
    ) -> Result<Option<(Endpoint, Option<Route>)>, Error> {
        if let (Place::SameAsBefore, Some(pipe)) = (place, &self.last) {
            return Ok(Some((pipe.clone(), None)));
        }
        // An empty variable counts as not set.
        let named = std::env::var_os("TMPDIR").filter(|name| !name.is_empty());
        let directory = named.map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
        let opened = nameless_file(&directory).and_then(|file| Ok((file.try_clone()?, file)));
        let (file, filled) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let tried = format!("hold output in {}", directory.display());
                notice::error(&format!("{}; it is shown as it comes", Error::os(tried, error)));
                self.hiding = Hiding::Over;
                return Ok(None);
            }
        };
        let (reader, writer) = fds::new_pipe(stream.name())?;
        let source = fds::source_end(reader, stream)?;
        let route = Route {
            stream,
            role: Role::Held,
            source: source.clone(),
            sink: fds::source_end(OwnedFd::from(filled), stream)?.with_own_position(),
            source_name: format!("the pipe to {}", directory.display()),
            sink_name: format!("a file in {}", directory.display()),
            text: None,
            rate: None,
            copies: Vec::new(),
            beyond: None,
            instead: None,
        };
        self.streams.push(HeldStream {
            stream,
            file,
            pipe: Some(source),
            sink: Some(sink.clone()),
            step: Step::Hiding,
            relay: usize::MAX,
        });
        let pipe = fds::sink_end(writer, stream)?;
        self.last = Some(pipe.clone());
        Ok(Some((pipe, Some(route))))
    }

    /// The relays have been made.
    pub(crate) fn begin(&mut self, relays: &[Relay]) {
        self.last = None;
        let mut held = relays.iter().enumerate().filter(|(_, relay)| relay.role() == Role::Held);
        for stream in &mut self.streams {
            stream.relay = held.next().map_or(usize::MAX, |(number, _)| number);
        }
    }

    /// What was hidden is to be shown, and what comes from now on.
    pub(crate) fn end_hiding(&mut self) {
        self.hiding = Hiding::Over;
    }

    /// Whether a relay fills a file. That it cannot go on is told here, and no failure of its stream.
    pub(crate) fn is_filled_by(&self, relay: usize) -> bool {
        self.streams.iter().any(|stream| stream.relay == relay && stream.step == Step::Hiding)
    }

    /// Does what can be done now. The routes for which relays are to be added now, in this order.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub(crate) fn turn(
        &mut self,
        relays: &mut [Relay],
        verbosity: Verbosity,
        ring: &mut Ring,
    ) -> io::Result<Vec<Route>> {
        let failed = self.streams.iter().filter_map(|stream| stream.trouble(relays)).next();
        if let Some(error) = failed.filter(|_| self.hiding == Hiding::Lasts) {
            notice::notice(verbosity, &format!("hold output: {error}; it is shown from here on"));
            self.hiding = Hiding::Over;
        }
        let mut routes = Vec::new();
        if self.hiding == Hiding::Lasts {
            return Ok(routes);
        }
        for stream in &mut self.streams {
            let number = relays.len() + routes.len();
            if let Some(route) = stream.turn(relays, ring)? {
                stream.relay = number;
                routes.push(route);
            }
        }
        Ok(routes)
    }
}

impl HeldStream {
    /// Why the file takes no more, if it does not.
    fn trouble<'r>(&self, relays: &'r [Relay]) -> Option<&'r Error> {
        match relays.get(self.relay)?.ended()? {
            End::Failed(error) if self.step == Step::Hiding => Some(error),
            _ => None,
        }
    }

    /// The next route, if the relay on the one before has ended.
    fn turn(&mut self, relays: &mut [Relay], ring: &mut Ring) -> io::Result<Option<Route>> {
        let Some(relay) = relays.get_mut(self.relay) else { return Ok(None) };
        let route = match (self.step, relay.ended()) {
            (Step::Hiding, None) => {
                // Taken back between two transfers: one that is under way would be lost sight of.
                if relay.is_silent() {
                    relay.leave(ring)?;
                }
                None
            }
            (Step::Hiding, Some(_)) => {
                self.step = Step::Showing;
                self.file_to_show()?
            }
            (Step::Showing, None) | (Step::Passing, _) => None,
            (Step::Showing, Some(end)) => {
                let goes_on = matches!(end, End::Delivered);
                self.step = Step::Passing;
                // Where nobody reads any more, whoever fills the pipe is to learn it.
                self.pipe.take().zip(self.sink.take()).filter(|_| goes_on)
            }
        };
        Ok(route.map(|(source, sink)| self.route(source, sink)))
    }

    fn file_to_show(&mut self) -> io::Result<Option<(Endpoint, Endpoint)>> {
        self.file.rewind()?;
        let file = Endpoint::new(self.file.as_fd().try_clone_to_owned()?)?;
        Ok(self.sink.clone().map(|sink| (file, sink)))
    }

    fn route(&self, source: Endpoint, sink: Endpoint) -> Route {
        Route {
            stream: self.stream,
            role: Role::Held,
            source,
            sink,
            source_name: "held output".to_owned(),
            sink_name: self.stream.name().to_owned(),
            text: None,
            rate: None,
            copies: Vec::new(),
            beyond: None,
            instead: None,
        }
    }
}

/// Opens a file that goes away with its last descriptor, readable by nobody else.
fn nameless_file(directory: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).mode(0o600);
    let nameless = options.clone().custom_flags(libc::O_TMPFILE).open(directory);
    match nameless.as_ref().map_err(io::Error::raw_os_error) {
        // Some filesystems know no such files (open(2), O_TMPFILE).
        Err(Some(libc::EOPNOTSUPP | libc::EISDIR)) => {}
        _ => return nameless,
    }
    let mut name = 0;
    loop {
        let path = directory.join(format!(".nproxy.{}.{name}", std::process::id()));
        match options.create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && name < 1000 => name += 1,
            opened => {
                let file = opened?;
                std::fs::remove_file(path)?;
                return Ok(file);
            }
        }
    }
}
