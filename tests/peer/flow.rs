//! Writers and readers of payload, by plain write(2) and read(2).

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::coloured::{Form, Text};
use crate::payload::{CHUNK, Digest, Hasher, Payload};
use crate::{Outcome, corpora, number};

/// How large the single writes are.
#[derive(Clone, Copy)]
enum Block {
    Fixed(usize),
    /// Between 1 byte and 128 KiB, so that a transfer rarely ends where a write did.
    Random,
}

const LARGEST_RANDOM_BLOCK: usize = 128 << 10;

impl Block {
    fn parse(word: Option<&OsString>) -> Result<Block, Box<dyn Error>> {
        if word.is_some_and(|word| word == "random") {
            return Ok(Block::Random);
        }
        match number(word)? {
            0 => Err("a block has at least one byte".into()),
            bytes => Ok(Block::Fixed(bytes as usize)),
        }
    }

    /// A buffer that holds whole blocks only.
    fn buffer(self) -> Vec<u8> {
        match self {
            Block::Fixed(bytes) => vec![0; bytes * (CHUNK / bytes).max(1)],
            Block::Random => vec![0; CHUNK],
        }
    }
}

/// Sizes for [`Block::Random`]: a payload of its own, read as numbers.
struct Sizes(Payload);

impl Sizes {
    fn next(&mut self) -> usize {
        let mut word = [0; 8];
        self.0.fill(&mut word);
        1 + (u64::from_le_bytes(word) as usize) % LARGEST_RANDOM_BLOCK
    }
}

pub(crate) fn write(arguments: Vec<OsString>) -> Outcome {
    let hold = arguments.iter().any(|word| word == "--hold");
    let plain: Vec<_> = arguments.iter().filter(|word| *word != "--hold").collect();
    let bytes = number(plain.first().copied())?;
    let block = Block::parse(plain.get(1).copied())?;
    let seed = if plain.len() > 2 { number(Some(plain[2]))? } else { 1 };

    let mut payload = Payload::new(bytes, seed);
    write_blocks(|buffer| payload.fill(buffer), block, seed ^ u64::MAX)?;
    if hold {
        io::copy(&mut io::stdin(), &mut io::sink())?;
    }
    Ok(0)
}

pub(crate) fn write_text(arguments: Vec<OsString>) -> Outcome {
    let plain = arguments.get(2).is_some_and(|word| word == "plain");
    let form = if plain { Form::Plain } else { Form::Coloured };
    let mut text = Text::new(number(arguments.first())?, form);
    write_blocks(|buffer| text.fill(buffer), Block::parse(arguments.get(1))?, 1)?;
    Ok(0)
}

/// Writes what `fill` gives until it gives nothing more.
fn write_blocks(
    mut fill: impl FnMut(&mut [u8]) -> usize,
    block: Block,
    seed: u64,
) -> Result<(), Box<dyn Error>> {
    let mut sizes = Sizes(Payload::new(u64::MAX, seed));
    let mut buffer = block.buffer();
    let mut written = 0;
    loop {
        let mut rest = match fill(&mut buffer) {
            0 => return Ok(()),
            length => &buffer[..length],
        };
        while !rest.is_empty() {
            let size = match block {
                Block::Fixed(size) => size,
                Block::Random => sizes.next(),
            };
            let (now, later) = rest.split_at(size.min(rest.len()));
            write_all(borrow(1), now)
                .map_err(|errno| format!("{errno:?} after {written} bytes"))?;
            written += now.len();
            rest = later;
        }
    }
}

pub(crate) fn write_both(arguments: Vec<OsString>) -> Outcome {
    let bytes = number(arguments.first())?;
    let mut streams = [(1, Payload::new(bytes, 1)), (2, Payload::new(bytes, 2))];
    let mut sizes = Sizes(Payload::new(u64::MAX, 3));
    let mut buffer = vec![0; LARGEST_RANDOM_BLOCK];
    loop {
        let mut ended = 0;
        for (fd, payload) in &mut streams {
            match payload.fill(&mut buffer[..sizes.next()]) {
                0 => ended += 1,
                length => write_all(borrow(*fd), &buffer[..length])?,
            }
        }
        if ended == streams.len() {
            return Ok(0);
        }
    }
}

pub(crate) fn read(arguments: Vec<OsString>) -> Outcome {
    let mut block = CHUNK;
    let mut delay = Duration::ZERO;
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--delay" {
            delay = Duration::from_millis(number(words.next())?);
        } else {
            block = number(Some(word))? as usize;
        }
    }

    let mut hasher = Hasher::default();
    let mut buffer = vec![0; block];
    let mut stdin = io::stdin().lock();
    loop {
        match stdin.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => hasher.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_for(borrow(0), PollFlags::POLLIN)?
            }
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(delay);
    }
    writeln!(io::stdout(), "{}", hasher.digest())?;
    Ok(0)
}

pub(crate) fn hash(arguments: Vec<OsString>) -> Outcome {
    let seed = if arguments.len() > 1 { number(arguments.get(1))? } else { 1 };
    writeln!(io::stdout(), "{}", Digest::of_payload(number(arguments.first())?, seed))?;
    Ok(0)
}

/// The writer of the benches: what it costs is its write(2) calls.
pub(crate) fn repeat(arguments: Vec<OsString>) -> Outcome {
    let mut left = number(arguments.first())?;
    let block = vec![b'r'; number(arguments.get(1))? as usize];
    if block.is_empty() {
        return Err("a block has at least one byte".into());
    }
    while left > 0 {
        let length = left.min(block.len() as u64);
        write_all(borrow(1), &block[..length as usize])?;
        left -= length;
    }
    Ok(0)
}

/// The reader of the benches: what it costs is its read(2) calls.
pub(crate) fn discard(arguments: Vec<OsString>) -> Outcome {
    let block = if arguments.is_empty() { CHUNK } else { number(arguments.first())? as usize };
    let mut buffer = vec![0; block];
    let mut bytes = 0;
    let mut stdin = io::stdin().lock();
    loop {
        // A buffer as large as std's own or larger is read into directly.
        match stdin.read(&mut buffer)? {
            0 => break,
            length => bytes += length as u64,
        }
    }
    writeln!(io::stdout(), "{bytes} bytes")?;
    Ok(0)
}

pub(crate) fn corpus(arguments: Vec<OsString>) -> Outcome {
    let make = match arguments.first().and_then(|name| name.to_str()) {
        Some("dense") => corpora::dense,
        Some("plain") => corpora::plain,
        Some("utf8") => corpora::utf8,
        Some("build-log") => corpora::build_log,
        Some("lines") => corpora::lines,
        Some("redrawn") => corpora::redrawn,
        _ => return Err("no such corpus".into()),
    };
    write_all(borrow(1), &make(number(arguments.get(1))? as usize))?;
    Ok(0)
}

/// Writes all of `bytes`, on a blocking descriptor or not.
pub(crate) fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match nix::unistd::write(fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EAGAIN) => wait_for(fd, PollFlags::POLLOUT)?,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn wait_for(fd: BorrowedFd<'_>, what: PollFlags) -> Result<(), Errno> {
    poll(&mut [PollFd::new(fd, what)], PollTimeout::NONE).map(drop)
}

/// One of the three descriptors that a program starts with.
#[allow(unsafe_code, reason = "std's handles buffer, and the peer writes in the sizes it was told")]
pub(crate) fn borrow(fd: i32) -> BorrowedFd<'static> {
    assert!((0..3).contains(&fd));
    // SAFETY: nothing in this program closes 0, 1 or 2 once a role runs; if one was closed from the start, using it
    // is EBADF, which is what the test wants to see.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
