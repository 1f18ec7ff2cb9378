//! Writers and readers that move pages instead of bytes: what shows, from outside, whether a relay copies.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::{self, IoSlice, Write};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice, vmsplice};

use crate::flow::borrow;
use crate::{Outcome, number};

const PAGE: usize = 4096;
const LENGTH: usize = 1 << 20;

/// Page-aligned memory inside a larger allocation.
struct Pages {
    memory: Vec<u8>,
    offset: usize,
    length: usize,
}

impl Pages {
    fn new(length: usize, fill: u8) -> Pages {
        let memory = vec![fill; length + PAGE];
        let offset = memory.as_ptr().align_offset(PAGE);
        Pages { memory, offset, length }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.offset..self.offset + self.length]
    }
}

/// vmsplices pages of `A` to stdout; at a line on stdin makes them `B`, says so on stderr, and stays till stdin ends.
/// Whoever holds the pages themselves then reads `B`; whoever holds a copy reads `A`.
pub(crate) fn change_after_splice(arguments: Vec<OsString>) -> Outcome {
    let mut pages = Pages::new(number(arguments.first())? as usize * PAGE, b'A');
    black_box(pages.bytes());
    send(pages.bytes())?;

    io::stdin().read_line(&mut String::new())?;
    pages.bytes().fill(b'B');
    // The kernel reads this memory behind the compiler's back.
    black_box(pages.bytes());
    writeln!(io::stderr(), "changed")?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(0)
}

pub(crate) fn write(arguments: Vec<OsString>) -> Outcome {
    let mut left = number(arguments.first())?;
    // A pipe that holds the whole buffer lets one call hand it over; a refusal only makes the calls smaller.
    let _ = fcntl(borrow(1), FcntlArg::F_SETPIPE_SZ(LENGTH as i32));
    let mut pages = Pages::new(LENGTH, b'v');
    while left > 0 {
        let length = left.min(LENGTH as u64);
        send(&pages.bytes()[..length as usize])?;
        left -= length;
    }
    Ok(0)
}

fn send(mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match vmsplice(borrow(1), &[IoSlice::new(bytes)], SpliceFFlags::empty()) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

pub(crate) fn read() -> Outcome {
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    let bytes = relay_to(&null)?;
    writeln!(io::stdout(), "{bytes} bytes")?;
    Ok(0)
}

pub(crate) fn relay() -> Outcome {
    let _ = fcntl(borrow(0), FcntlArg::F_SETPIPE_SZ(LENGTH as i32));
    let _ = fcntl(borrow(1), FcntlArg::F_SETPIPE_SZ(LENGTH as i32));
    relay_to(borrow(1))?;
    Ok(0)
}

fn relay_to(sink: impl std::os::fd::AsFd) -> Result<u64, Errno> {
    let mut bytes = 0;
    loop {
        match splice(borrow(0), None, &sink, None, LENGTH, SpliceFFlags::SPLICE_F_MOVE) {
            Ok(0) => return Ok(bytes),
            Ok(length) => bytes += length as u64,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
