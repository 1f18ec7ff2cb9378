//! Connections that programs under test make, waited for like everything else: not for ever.

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::harness::patience::{self, Patience};
use crate::harness::time_limit;

/// How often it is looked whether the programs get anywhere, in milliseconds.
const LOOK: u16 = 1000;

/// A listener whose next connection can be waited for within bounds.
pub(crate) trait Accept: AsFd {
    type Stream;

    fn accepted(&self) -> std::io::Result<Self::Stream>;

    /// The next connection; fails if none comes, and the programs of this test get nowhere.
    #[track_caller]
    fn connection(&self) -> Self::Stream {
        // A thread that only listens does not know the programs of its test.
        let limit = match patience::follows_any() {
            true => time_limit() / 2,
            false => time_limit() * patience::LIMITS,
        };
        let mut patience = Patience::new(limit);
        loop {
            let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(LOOK)).expect("poll") > 0 {
                return self.accepted().expect("accept");
            }
            if !patience.lasts() {
                panic!("nobody connects; what runs: {:#?}", patience::running());
            }
        }
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    fn accepted(&self) -> std::io::Result<TcpStream> {
        self.accept().map(|(stream, _)| stream)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    fn accepted(&self) -> std::io::Result<UnixStream> {
        self.accept().map(|(stream, _)| stream)
    }
}
