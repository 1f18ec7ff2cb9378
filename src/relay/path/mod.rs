//! The ways bytes take between two ends, and which one fits.

mod buffered;
pub(super) mod copy;
mod lines;
mod shared;
mod splice;
pub(super) mod switch;
mod tee;

use super::endpoint::{Endpoint, Kind, Position};
use super::route::TextWork;
use crate::error::Error;
use crate::ring::{Engine, Ring};
pub(super) use buffered::{BUFFER, Buffered};
use copy::CopyState;
pub(super) use shared::Shared;
pub(super) use splice::Direct;
use splice::{Brokered, Turns};
pub(super) use tee::Teed;

#[derive(Debug)]
pub(super) enum Path {
    /// One splice: at least one end is a pipe.
    Direct(Direct),
    /// One splice, after a tee for every copy.
    Teed(Teed),
    /// Reads and writes through a buffer, also into every copy: tee(2) or splice(2) is forbidden.
    Shared(Shared),
    /// Two splices with a broker pipe between them: neither end is a pipe, or the source's must not be
    /// locked while the sink blocks.
    Brokered(Brokered),
    /// Reads and writes through fixed buffers: one of the ends cannot be spliced.
    Buffered(Box<Buffered>),
}

impl Path {
    /// What is known of the copies that it feeds.
    pub(super) fn copies_mut(&mut self) -> &mut [CopyState] {
        match self {
            Path::Teed(path) => path.copies_mut(),
            Path::Shared(path) => path.copies_mut(),
            Path::Direct(_) | Path::Brokered(_) | Path::Buffered(_) => &mut [],
        }
    }

    pub(super) fn buffered(text: Option<TextWork>) -> Path {
        Path::Buffered(Box::new(Buffered::new(text)))
    }

    /// The path that needs neither splice(2) nor tee(2), in place of one that was refused them.
    pub(super) fn without_splice(self, ring: &mut Ring) -> Path {
        match self {
            Path::Teed(path) => Path::Shared(Shared::new(path.into_copies(), ring)),
            _ => Path::buffered(None),
        }
    }

    /// The best path between two ends when there is nothing to do but carry.
    pub(super) fn choose(
        from: Kind,
        to: Kind,
        sink: &Endpoint,
        pipe_size: Option<u32>,
        ring: &mut Ring,
    ) -> Result<Path, Error> {
        use Kind::{File, Leader, Null, Other, Pipe, Records, Socket, Terminal};
        Ok(match (from, to) {
            (Pipe, File) if sink.position() == Position::Own => Path::Direct(Direct::new()),
            // Written with write(2): see `ring::Op::write_file`.
            (_, File) => Path::buffered(None),
            // Splice cuts a record where the pipe is full, and makes several of one.
            (Records, _) | (_, Records) => Path::buffered(None),
            // The kernel copies at a terminal anyway, and splice would hold a worker while it waits.
            (Terminal | Leader, _) | (_, Terminal | Leader) => Path::buffered(None),
            // On 6.1 a splice into a socket blocks whatever its flags say.
            (_, Socket) if ring.engine() == Engine::Epoll => Path::buffered(None),
            // A splice into a socket that blocks keeps its pipe locked until the peer reads, and whoever
            // writes into that pipe cannot even be killed: it must be a pipe that only we write into.
            (Pipe, Socket) if !sink.is_nonblocking() => {
                Path::Brokered(Brokered::new(Turns::Alternate, pipe_size)?)
            }
            (Pipe, Pipe | Socket | Null | Other) => Path::Direct(Direct::new()),
            (File | Socket | Null | Other, Pipe) => Path::Direct(Direct::new()),
            (File | Socket | Null | Other, Socket) => {
                Path::Brokered(Brokered::new(Turns::Alternate, pipe_size)?)
            }
            (File | Socket | Null | Other, Null) => {
                Path::Brokered(Brokered::new(Turns::Overlap, pipe_size)?)
            }
            // Either may refuse, and a broker would then hold bytes that have to be read back.
            (File | Socket | Null | Other, Other) => Path::buffered(None),
        })
    }
}
