//! What the fd at either end of a relay is, and what can be done with it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use nix::sys::stat::{SFlag, fstat, major, minor};
use nix::sys::termios::{LocalFlags, SpecialCharacterIndices, tcgetattr};
use nix::unistd::{Whence, lseek};

use crate::ring::Fd;
use crate::text::newline::Newlines;

/// The device that is opened for the leader of a new pty (Documentation/admin-guide/devices.txt).
const PTMX: (u64, u64) = (5, 2);

/// What an fd refers to, as far as moving bytes is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A pipe or FIFO: splices to and from anything.
    Pipe,
    /// A stream socket.
    Socket,
    /// A socket that keeps records apart (SEQPACKET, DGRAM): one read gives one, and one write makes one.
    Records,
    /// A terminal.
    Terminal,
    /// The leader of a pty of ours, with the child at the other end.
    Leader,
    /// A regular file, whose position others may share.
    File,
    /// `/dev/null`: takes anything, gives nothing.
    Null,
    /// Some other device; whether it can be spliced shows when it is tried.
    Other,
}

/// Who moves the position of a regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Others may have the same open file, or append to it: only write(2) gets along with them.
    Shared,
    /// Nobody but us: it may be spliced into.
    Own,
}

/// One end of a relay.
#[derive(Clone, Debug)]
pub struct Endpoint {
    fd: Fd,
    kind: Kind,
    position: Position,
    /// O_NONBLOCK was set before we came: the kernel answers EAGAIN where it would wait.
    nonblocking: bool,
    packets: Option<Newlines>,
    /// Of a terminal that was opened anew without blocking: the description that we were given, if that does block.
    blocking: Option<Fd>,
}

impl Endpoint {
    /// Finds out what `fd` is.
    ///
    /// # Errors
    /// What fstat(2) or fcntl(2) says; EBADF if it is not open.
    pub fn new(fd: OwnedFd) -> Result<Endpoint, Errno> {
        let stat = fstat(&fd)?;
        let kind = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFIFO => Kind::Pipe,
            SFlag::S_IFSOCK => match getsockopt(&fd, sockopt::SockType) {
                Ok(SockType::SeqPacket | SockType::Datagram) => Kind::Records,
                _ => Kind::Socket,
            },
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFCHR if nix::unistd::isatty(&fd).unwrap_or(false) => Kind::Terminal,
            SFlag::S_IFCHR if (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3) => Kind::Null,
            _ => Kind::Other,
        };
        let nonblocking = flags(&fd)?.contains(OFlag::O_NONBLOCK);
        Ok(Endpoint {
            fd: Rc::new(fd),
            kind,
            position: Position::Shared,
            nonblocking,
            packets: None,
            blocking: None,
        })
    }

    /// The same, for an fd about to be read from. A socket that listens never says that it cannot be read, if it is polled.
    ///
    /// # Errors
    /// As [`Endpoint::new`], and ENOTCONN.
    pub fn source(fd: OwnedFd) -> Result<Endpoint, Errno> {
        match getsockopt(&fd, sockopt::AcceptConn) {
            Ok(true) => Err(Errno::ENOTCONN),
            _ => Endpoint::new(fd),
        }
    }

    /// The same, for an fd about to be written to. A terminal is opened anew without blocking: a
    /// write that waits for a paused terminal (Ctrl-S) would hold up the whole loop, and O_NONBLOCK on
    /// the description that we inherited would reach every other program on that terminal.
    ///
    /// # Errors
    /// As [`Endpoint::new`].
    pub fn sink(fd: OwnedFd) -> Result<Endpoint, Errno> {
        let endpoint = Endpoint::new(fd)?;
        if endpoint.kind != Kind::Terminal {
            return Ok(endpoint);
        }
        match endpoint.open_anew() {
            Ok(own) => {
                let blocking = (!endpoint.nonblocking).then_some(endpoint.fd);
                let fd = Rc::new(own.into());
                Ok(Endpoint { fd, nonblocking: true, blocking, ..endpoint })
            }
            Err(_) => Ok(endpoint),
        }
    }

    /// A description of our own of what this is, to be written to without blocking.
    ///
    /// # Errors
    /// What open(2) says, and ENXIO for the leader of a pty: by its name it would be another pty's.
    pub fn open_anew(&self) -> std::io::Result<File> {
        let device = fstat(&self.fd)?.st_rdev;
        if self.kind == Kind::Terminal && (major(device), minor(device)) == PTMX {
            return Err(Errno::ENXIO.into());
        }
        File::options()
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// The leader of a pty of ours, opened without blocking. It must not go through [`Endpoint::sink`]: opened
    /// anew by its name it would be another pty. `packets` says that it is in packet mode (TIOCPKT in
    /// ioctl_tty(2)), and how the lines end that come from it at first.
    pub fn leader(fd: OwnedFd, packets: Option<Newlines>) -> Endpoint {
        Endpoint {
            fd: Rc::new(fd),
            kind: Kind::Leader,
            position: Position::Shared,
            nonblocking: true,
            packets,
            blocking: None,
        }
    }

    /// What has to be typed at the other end of a pty for its reader to see the end of input: the VEOF character
    /// (termios(3)), twice after the beginning of a line, which the first one only sends off. Nothing if the
    /// reader takes bytes as they are.
    pub(super) fn end_of_input(&self, last: Option<u8>) -> Vec<u8> {
        const VEOF: usize = SpecialCharacterIndices::VEOF as usize;
        match tcgetattr(&self.fd) {
            Ok(modes) if modes.local_flags.contains(LocalFlags::ICANON) => {
                let line_is_open = last.is_some_and(|last| last != b'\n');
                vec![modes.control_chars[VEOF]; if line_is_open { 2 } else { 1 }]
            }
            _ => Vec::new(),
        }
    }

    /// The same, for a file that we have opened and nobody else writes through.
    pub fn with_own_position(self) -> Endpoint {
        Endpoint { position: Position::Own, ..self }
    }

    /// If each read is a packet: how the lines in it end.
    pub(super) fn packets(&self) -> Option<Newlines> {
        self.packets
    }

    /// Who moves its position, if it is a regular file.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The fd, shared with operations in flight.
    pub fn fd(&self) -> &Fd {
        &self.fd
    }

    /// Whether bytes written to `sink` would come back as input here: both are one regular file, and its bytes would
    /// be appended to it or written behind the place where they are read.
    pub fn feeds_on(&self, sink: &Endpoint) -> bool {
        if self.kind != Kind::File || sink.kind != Kind::File {
            return false;
        }
        let (Ok(from), Ok(to)) = (fstat(&self.fd), fstat(&sink.fd)) else { return false };
        if (from.st_dev, from.st_ino) != (to.st_dev, to.st_ino) {
            return false;
        }
        let position = |fd| lseek(fd, 0, Whence::SeekCur).unwrap_or(0);
        let written_at = if sink.appends() { to.st_size } else { position(&sink.fd) };
        position(&self.fd) < written_at
    }

    /// Whether what is written goes to the end of the file (O_APPEND).
    pub(super) fn appends(&self) -> bool {
        flags(&self.fd).is_ok_and(|flags| flags.contains(OFlag::O_APPEND))
    }

    /// Whether both are the same regular file.
    pub fn is_same_file(&self, other: &Endpoint) -> bool {
        let (Ok(one), Ok(two)) = (fstat(&self.fd), fstat(&other.fd)) else { return false };
        self.kind == Kind::File && (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino)
    }

    /// Whether what is written here goes where our stderr goes, as after `2>&1` and on one terminal.
    pub fn is_stderr(&self) -> bool {
        let (Ok(one), Ok(two)) = (fstat(&self.fd), fstat(std::io::stderr())) else { return false };
        (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino)
    }

    /// Closes it, if nothing else holds it.
    ///
    /// # Errors
    /// What close(2) says of a regular file: bytes that were taken before may have been lost.
    pub(super) fn close(self) -> Result<(), Errno> {
        match (self.kind, Rc::try_unwrap(self.fd)) {
            (Kind::File, Ok(fd)) => nix::unistd::close(fd),
            _ => Ok(()),
        }
    }

    /// What it refers to.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A terminal's fd for writes that wait for room. The kernel lets nobody else in between the parts of such a write, and
    /// only of such a write: one that does not wait ends where the terminal is full.
    pub(super) fn blocking(&self) -> Option<&Fd> {
        self.blocking.as_ref()
    }

    /// Whether operations on it answer EAGAIN instead of waiting.
    pub fn is_nonblocking(&self) -> bool {
        self.nonblocking
    }

    /// Someone set O_NONBLOCK on the description after we had looked: on the one that we wait at too, if that is the same.
    pub(super) fn turned_nonblocking(&mut self) {
        self.nonblocking = true;
        let is_set = |fd: &mut Fd| flags(fd).is_ok_and(|flags| flags.contains(OFlag::O_NONBLOCK));
        self.blocking.take_if(is_set);
    }

    /// Whether it is open for reading.
    pub(super) fn can_be_read(&self) -> bool {
        self.access().is_ok_and(|access| access != OFlag::O_WRONLY)
    }

    /// Whether it is open for writing.
    pub(super) fn can_be_written(&self) -> bool {
        self.access().is_ok_and(|access| access != OFlag::O_RDONLY)
    }

    fn access(&self) -> Result<OFlag, Errno> {
        Ok(flags(&self.fd)? & OFlag::O_ACCMODE)
    }

    /// What is left to read of a regular file, in bytes.
    pub fn size_left(&self) -> Option<u64> {
        if self.kind != Kind::File {
            return None;
        }
        let size = fstat(&self.fd).ok()?.st_size;
        let position = lseek(&self.fd, 0, Whence::SeekCur).ok()?;
        u64::try_from(size - position).ok()
    }

    /// Whether bytes wait to be read at this moment.
    pub fn has_input(&self) -> bool {
        self.is(PollFlags::POLLIN)
    }

    /// Whether nobody has its other end open.
    pub(super) fn is_hung_up(&self) -> bool {
        self.is(PollFlags::POLLHUP)
    }

    /// Whether nothing is left to be read and nothing more can come.
    pub(super) fn has_ended(&self) -> bool {
        self.is_hung_up() && !self.has_input()
    }

    /// Whether a read would come back at once: with bytes, or with the end of the stream.
    pub fn is_readable(&self) -> bool {
        self.is(PollFlags::POLLIN) || self.is(PollFlags::POLLHUP)
    }

    /// Whether it takes bytes at this moment: a pipe does if it has a free page.
    pub fn has_room(&self) -> bool {
        self.is(PollFlags::POLLOUT)
    }

    fn is(&self, event: PollFlags) -> bool {
        let mut fds = [PollFd::new(self.fd.as_fd(), event)];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(_) => fds[0].revents().is_some_and(|events| events.contains(event)),
            Err(_) => false,
        }
    }

    /// Whether whoever writes to this end's other side has to wait: a pipe has no free page, a pty holds bytes. What
    /// cannot be asked is taken not to be full.
    pub fn is_full(&self) -> bool {
        match self.kind {
            // Only a writing end can be asked. It is ours for this moment, and nobody's end of file is lost by that.
            Kind::Pipe => {
                let writer = File::options()
                    .write(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .open(format!("/proc/self/fd/{}", self.fd.as_raw_fd()));
                writer.is_ok_and(|writer| {
                    let mut fds = [PollFd::new(writer.as_fd(), PollFlags::POLLOUT)];
                    poll(&mut fds, PollTimeout::ZERO) == Ok(0)
                })
            }
            Kind::Leader => self.has_input(),
            _ => false,
        }
    }

    /// Makes a pipe hold about so many bytes. Nothing happens where it is no pipe, holds more at this moment, or has
    /// that size already.
    pub fn resize(&self, bytes: u32) {
        if self.kind == Kind::Pipe && fcntl(&self.fd, FcntlArg::F_GETPIPE_SZ) != Ok(bytes as i32) {
            let _ = fcntl(&self.fd, FcntlArg::F_SETPIPE_SZ(bytes as i32));
        }
    }

    /// Grows a pipe to `bytes` if it is smaller. Beyond pipe-max-size the kernel refuses, and it grows to what that usually is;
    /// beyond the user's share of pipe memory it stays as it is (pipe(7)).
    ///
    /// Returns the pipe's size in bytes, `None` for anything but a pipe.
    pub fn grow(&self, bytes: Option<u32>) -> Option<u32> {
        if self.kind != Kind::Pipe {
            return None;
        }
        let size = fcntl(&self.fd, FcntlArg::F_GETPIPE_SZ).ok()?;
        let wanted = bytes.map_or(size, |bytes| bytes as i32);
        let size = if wanted > size {
            let grown = |size| fcntl(&self.fd, FcntlArg::F_SETPIPE_SZ(size));
            let within = wanted.min(PIPE_MAX_SIZE).max(size);
            grown(wanted).or_else(|_| grown(within)).unwrap_or(size)
        } else {
            size
        };
        u32::try_from(size).ok()
    }
}

/// What /proc/sys/fs/pipe-max-size is unless somebody has changed it, in bytes.
const PIPE_MAX_SIZE: i32 = 1 << 20;

fn flags(fd: &OwnedFd) -> Result<OFlag, Errno> {
    Ok(OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?))
}
