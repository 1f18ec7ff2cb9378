//! Relays as two asynchronous runtimes make them, from stdin to stdout: what people write when they do not splice.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::net::unix::pipe;

use crate::Outcome;

/// Bytes that are read at a time, by both.
const BUFFER: usize = 64 << 10;

fn ends() -> io::Result<[OwnedFd; 2]> {
    Ok([io::stdin().as_fd().try_clone_to_owned()?, io::stdout().as_fd().try_clone_to_owned()?])
}

/// `tokio::io::copy` over epoll, between two pipes.
pub(crate) fn tokio() -> Outcome {
    let [source, sink] = ends()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let source = pipe::Receiver::from_owned_fd(source)?;
        let mut sink = pipe::Sender::from_owned_fd(sink)?;
        let mut source = tokio::io::BufReader::with_capacity(BUFFER, source);
        tokio::io::copy_buf(&mut source, &mut sink).await
    })?;
    Ok(0)
}

/// Read and write on tokio-uring, which has no splice.
pub(crate) fn tokio_uring() -> Outcome {
    let [source, sink] = ends()?.map(File::from);
    tokio_uring::start(async {
        let source = tokio_uring::fs::File::from_std(source);
        let sink = tokio_uring::fs::File::from_std(sink);
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            // A pipe has no position: the offset says nothing.
            let (read, filled) = source.read_at(buffer, 0).await;
            if read? == 0 {
                return Ok(0);
            }
            let (written, emptied) = sink.write_all_at(filled, 0).await;
            written?;
            buffer = emptied;
            buffer.clear();
        }
    })
}
