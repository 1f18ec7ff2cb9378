//! Connections that programs under test make, waited for like everything else: not for ever.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU16, Ordering};

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

/// An address at which nobody listens, and nobody else will: on a host number of its own, because a port that was given back
/// on 127.0.0.1 may be given to anybody.
pub(crate) fn free_address() -> SocketAddr {
    static HOSTS: AtomicU16 = AtomicU16::new(1);
    let [high, low] = HOSTS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let process = u8::try_from(std::process::id() % 64).expect("less than 64");
    let host = Ipv4Addr::new(127, 64 + process, high, low);
    TcpListener::bind((host, 0)).and_then(|free| free.local_addr()).expect("a free address")
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
