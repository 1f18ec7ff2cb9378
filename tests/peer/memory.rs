//! Children that use memory in ways that the memory guard has to judge.

use std::collections::VecDeque;
use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::write;

use crate::{Outcome, number};

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;

/// Memory that is there: a byte of each page is written.
fn resident(bytes: usize) -> Vec<u8> {
    let mut memory = vec![0; bytes];
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    memory
}

fn seconds(word: Option<&OsString>) -> Result<Duration, Box<dyn Error>> {
    Ok(Duration::from_millis(number(word)?))
}

/// TO PER-SECOND HOLD TAIL: grows steadily with a numbered, coloured line every 5 ms, keeps it for HOLD, lets it go,
/// and goes on writing lines for TAIL.
pub(crate) fn grow(arguments: Vec<OsString>) -> Outcome {
    let to = number(arguments.first())? as usize;
    let rate = number(arguments.get(1))? as f64;
    let (hold, tail) = (seconds(arguments.get(2))?, seconds(arguments.get(3))?);
    let start = Instant::now();
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    let mut full: Option<Instant> = None;
    let mut out = io::stdout();
    for line in 0u64.. {
        let wanted = (start.elapsed().as_secs_f64() * rate) as usize;
        while full.is_none() && blocks.len() * MIB < wanted.min(to) {
            blocks.push(resident(MIB));
        }
        if full.is_none() && blocks.len() * MIB >= to {
            full = Some(Instant::now());
        }
        match full.map(|since| since.elapsed()) {
            Some(since) if since >= hold + tail => break,
            Some(since) if since >= hold => blocks.clear(),
            _ => {}
        }
        write_torn(&mut out, line)?;
    }
    Ok(0)
}

/// Keeps as many MiB as the newest line of stdin says, and writes a numbered, coloured line every 5 ms until stdin ends.
pub(crate) fn resize(_: Vec<OsString>) -> Outcome {
    let (orders, ordered) = std::sync::mpsc::channel::<usize>();
    std::thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            let _ = line.parse().map(|mib| orders.send(mib));
        }
    });
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    let mut out = io::stdout();
    for line in 0u64.. {
        match ordered.try_recv() {
            Ok(mib) => blocks.resize_with(mib, || resident(MIB)),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => break,
        }
        write_torn(&mut out, line)?;
    }
    Ok(0)
}

/// A line, with its first sequence torn between two writes.
fn write_torn(out: &mut impl Write, line: u64) -> io::Result<()> {
    out.write_all(format!("line {line} \x1b[3").as_bytes())?;
    out.flush()?;
    std::thread::sleep(Duration::from_millis(5));
    out.write_all(b"1mred\x1b[0m\n")
}

/// RESIDENT BYTES [MS [BEFORE-MS]]: takes the memory, waits for BEFORE-MS, writes, and keeps the memory for MS.
pub(crate) fn hold(arguments: Vec<OsString>) -> Outcome {
    let memory = resident(number(arguments.first())? as usize);
    let bytes = number(arguments.get(1))? as usize;
    if arguments.len() > 3 {
        std::thread::sleep(seconds(arguments.get(3))?);
    }
    let block = vec![b'x'; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        left -= io::stdout().write(&block[..left.min(block.len())])?;
    }
    if arguments.len() > 2 {
        std::thread::sleep(seconds(arguments.get(2))?);
    }
    std::hint::black_box(memory);
    Ok(0)
}

/// BASE PER-SECOND MS: holds BASE, makes output for so long, and keeps what stdout does not take in a queue of its
/// own, as Node and asyncio programs do. Prints the largest resident size on stderr.
pub(crate) fn queue(arguments: Vec<OsString>) -> Outcome {
    let base = resident(number(arguments.first())? as usize);
    let rate = number(arguments.get(1))? as f64;
    let time = seconds(arguments.get(2))?;
    let stdout = io::stdout();
    let flags = OFlag::from_bits_truncate(fcntl(&stdout, FcntlArg::F_GETFL)?);
    fcntl(&stdout, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let start = Instant::now();
    let mut queue: VecDeque<Vec<u8>> = VecDeque::new();
    let (mut made, mut queued, mut most) = (0usize, 0usize, 0usize);
    loop {
        let elapsed = start.elapsed();
        while elapsed < time && (made as f64) < elapsed.as_secs_f64() * rate {
            queue.push_back(vec![b'q'; 64 << 10]);
            made += 64 << 10;
            queued += 64 << 10;
        }
        most = most.max(queued);
        while let Some(mut first) = queue.pop_front() {
            match write(&stdout, &first) {
                Ok(moved) if moved == first.len() => queued -= moved,
                answer => {
                    let moved = match answer {
                        Err(Errno::EAGAIN) => 0,
                        answer => answer?,
                    };
                    queued -= moved;
                    queue.push_front(first.split_off(moved));
                    break;
                }
            }
        }
        if elapsed >= time && queue.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    std::hint::black_box(base);
    eprintln!("queued {most} of {made}");
    Ok(0)
}

/// BASE MS [KEEP-MS [PER-SECOND]]: holds BASE, writes for so long, as fast as it may or so many bytes a second, and keeps
/// the output of the last second or of KEEP-MS. Prints the most that this was and the processor time it used, on stderr.
pub(crate) fn window(arguments: Vec<OsString>) -> Outcome {
    let base = resident(number(arguments.first())? as usize);
    let time = seconds(arguments.get(1))?;
    let keep = match arguments.get(2) {
        Some(_) => seconds(arguments.get(2))?,
        None => Duration::from_secs(1),
    };
    let rate = arguments.get(3).map(|_| number(arguments.get(3))).transpose()?;
    let start = Instant::now();
    let mut kept: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let (mut most, mut total) = (0, 0u64);
    while start.elapsed() < time {
        if rate.is_some_and(|rate| total > (start.elapsed().as_secs_f64() * rate as f64) as u64) {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let block = vec![b'w'; 64 << 10];
        io::stdout().write_all(&block)?;
        total += block.len() as u64;
        kept.push_back((Instant::now(), block));
        while kept.front().is_some_and(|(at, _)| at.elapsed() > keep) {
            kept.pop_front();
        }
        most = most.max(kept.len() * (64 << 10));
    }
    std::hint::black_box(base);
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let cpu = usage.user_time().tv_sec() * 1_000_000
        + usage.user_time().tv_usec()
        + usage.system_time().tv_sec() * 1_000_000
        + usage.system_time().tv_usec();
    eprintln!("kept {most} wrote {total} cpu_us {cpu}");
    Ok(0)
}

/// BYTES PER-SECOND: keeps all that it writes, until it is so much.
pub(crate) fn gather(arguments: Vec<OsString>) -> Outcome {
    let bytes = number(arguments.first())? as usize;
    let rate = number(arguments.get(1))? as f64;
    let start = Instant::now();
    let mut kept: Vec<Vec<u8>> = Vec::new();
    while kept.len() << 16 < bytes {
        let due = Duration::from_secs_f64((kept.len() << 16) as f64 / rate);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        let block = vec![b'g'; 64 << 10];
        io::stdout().write_all(&block)?;
        kept.push(block);
    }
    std::hint::black_box(kept);
    Ok(0)
}
