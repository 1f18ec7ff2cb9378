//! The extra destinations of a run: opened before anything starts, emptied only once the child runs.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nix::unistd::ftruncate;

use super::socket::Peers;
use crate::config::{Target, Tee, TeeOpen};
use crate::error::Error;
use crate::process::fds;
use crate::relay::{Endpoint, Feed, Kind, OnFull, Role, Route, Stream, TextWork};

/// What the streams are copied into.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// The pipes that the streams' relays fill, in the order of the targets.
    pub(crate) feeds: Vec<Feed>,
    /// The relays from those pipes to the targets, in the same order.
    pub(crate) routes: Vec<Route>,
    /// Files to be emptied when the run has begun.
    pub(crate) to_empty: Vec<OwnedFd>,
    /// Whom they are connected to.
    pub(crate) peers: Peers,
}

impl Copies {
    /// Opens every target.
    ///
    /// # Errors
    /// One that names the target that could not be opened.
    pub(crate) fn open(tee: &Tee, started: Instant) -> Result<Copies, Error> {
        let mut copies = Copies::default();
        for (index, target) in tee.targets.iter().enumerate() {
            let name = target.to_string();
            let tried = |error| Error::os(format!("--tee: cannot open {name}"), error);
            let fd = copies.open_target(index, target, tee).map_err(tried)?;
            let mut sink = Endpoint::sink(fd).map_err(|errno| tried(errno.into()))?;
            let opened_by_us = matches!(target, Target::Path(_));
            if sink.kind() == Kind::File && opened_by_us && tee.open == TeeOpen::Truncate {
                copies.to_empty.push(sink.fd().as_fd().try_clone_to_owned().map_err(tried)?);
                sink = sink.with_own_position();
            }
            let modes = tee.text.modes(sink.kind().into(), tee.text.streams.first());
            let text = modes.map(|modes| TextWork { modes, started });
            let (reader, writer) = fds::new_pipe(&name)?;
            let end = |fd| Endpoint::new(fd).map_err(|errno| tried(errno.into()));
            let pipe = end(writer)?;
            copies.feeds.push(Feed { pipe, on_full: tee.on_full });
            copies.routes.push(Route {
                stream: Stream::Stdout,
                role: Role::Copy,
                source: end(reader)?,
                sink,
                source_name: format!("the pipe to {name}"),
                sink_name: name.clone(),
                text,
                rate: None,
                copies: Vec::new(),
            });
        }
        Ok(copies)
    }

    /// Empties the files: what is to be written into them runs.
    ///
    /// # Errors
    /// One that names no file: they were all opened for writing a moment ago.
    pub(crate) fn empty_files(to_empty: Vec<OwnedFd>) -> Result<(), Error> {
        let mut files = to_empty.iter();
        files
            .try_for_each(|file| ftruncate(file, 0))
            .map_err(|errno| Error::os("empty a tee file", errno))
    }

    /// The sockets do not block: a splice that waits for its peer would keep the pipe before it locked, and
    /// whoever touches that pipe, the child by way of tee(2), could not even be killed meanwhile.
    fn open_target(&mut self, index: usize, target: &Target, tee: &Tee) -> io::Result<OwnedFd> {
        match target {
            // Opening a FIFO waits for its reader, as `tee FIFO` does, unless nothing may hold the run up. Mode 0666
            // less the umask.
            Target::Path(path) => {
                let mut options = File::options();
                options.write(true).create(true).append(tee.open == TeeOpen::Append);
                let waits = match tee.on_full {
                    OnFull::Block => 0,
                    OnFull::Drop => libc::O_NONBLOCK,
                };
                Ok(options.custom_flags(libc::O_NOCTTY | waits).open(path)?.into())
            }
            Target::Inherited(number, _) => fds::inherited(*number),
            Target::Unix(path) => {
                let socket = UnixStream::connect(path)?;
                socket.set_nonblocking(true)?;
                self.peers.add_unix(index, socket.try_clone()?);
                Ok(socket.into())
            }
            Target::Tcp(address) => {
                let socket = TcpStream::connect(address)?;
                socket.set_nonblocking(true)?;
                self.peers.add_tcp(index, socket.try_clone()?);
                Ok(socket.into())
            }
        }
    }
}
