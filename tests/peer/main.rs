//! The peer: everything that the tests and benches put beside nproxy, in one program with one role per run.
//!
//! It starts without Rust's own start-up, which would open /dev/null on a closed descriptor 0, 1 or 2 and ignore
//! SIGPIPE: a witness must see what it was given, and a writer must die of a closed pipe as `cat` does.

#![no_main]

mod coloured;
#[path = "../../benches/corpora.rs"]
mod corpora;
mod flow;
mod fuse;
mod memory;
mod pages;
mod payload;
mod pingpong;
mod refuse;
mod runtime;
mod setting;
mod terminal;
mod witness;

use std::error::Error;
use std::ffi::OsString;
use std::io::Write;

/// What a role returns: the exit status, or why it could not do its work.
type Outcome = Result<i32, Box<dyn Error>>;

const USAGE: &str = "\
usage: peer ROLE ...

streams
  write BYTES BLOCK [SEED] [--hold]    seeded bytes to stdout, BLOCK bytes per write or `random`;
                                       --hold: then wait for the end of stdin
  text BYTES BLOCK [plain]             coloured text of about BYTES, or the same without its escape sequences
  write-both BYTES                     BYTES to stdout (seed 1) and to stderr (seed 2), interleaved
  read [BLOCK] [--delay MS]            read stdin to its end, MS between reads, print count and hash
  hash BYTES [SEED]                    print what `read` prints for that payload
  repeat BYTES BLOCK                   one BLOCK written again and again: a writer whose bytes cost nothing to make
  discard [BLOCK]                      read stdin to its end and look at nothing
  corpus NAME BYTES                    text for filters: dense, plain, utf8, build-log, redrawn or lines
  pingpong ROUNDS COMMAND...           64-byte round trips through a relay; print p50 and p99
  tokio-copy                           stdin to stdout by tokio::io::copy_buf, both pipes
  tokio-uring-copy                     stdin to stdout by tokio-uring's read and write
pages
  vmsplice-page PAGES                  vmsplice pages to stdout; change them at a line on stdin
  vmsplice-write BYTES                 BYTES to stdout by vmsplice
  splice-read                          stdin to /dev/null by splice, print the count
  splice-loop                          stdin to stdout by blocking splice, the yardstick
memory
  grow TO PER-SECOND MS TAIL-MS        grow while writing coloured lines, keep it for MS, let it go, write on
  hold SIZE BYTES [MS [BEFORE-MS]]     hold SIZE, wait for BEFORE-MS, write BYTES, sleep for MS
  queue BASE PER-SECOND MS             queue what stdout does not take; print the longest queue
  gather BYTES PER-SECOND              write so much and keep all of it
  window BASE MS [KEEP [PER-SECOND]]   write for MS, keep the output of a second or KEEP ms; print the most of that
witnesses
  fds                                  open descriptors and what they are
  dispositions                         blocked and ignored signals
  pipe-size                            the size of the pipe that is stdout
  signals [END]                        print each signal that arrives; leave at END (default USR2)
  exit STATUS                          leave with STATUS
  die SIGNAL                           die by SIGNAL, without a core file
settings
  with SETTING... -- COMMAND...        close=FD nonblock=FD ignore=SIG block=SIG default=SIG tty=PATH setsid
                                       refuse=ERRNO:CALL+CALL subreaper
  fuse DIR BYTES SIZE COMMAND...       COMMAND beside a filesystem at DIR: source has BYTES and says SIZE, sink fails at
                                       close, slow takes nothing before ./go exists
  terminal COMMAND...                  COMMAND on a terminal: keys from stdin, the screen to stdout
  connect PATH COMMAND...              COMMAND with stdin and stdout on a Unix socket
  listen PATH COMMAND...               the same, for the first that connects
sizes take K, M and G
";

#[allow(unsafe_code, reason = "a C main is the only way past Rust's start-up")]
// SAFETY: the symbol is the one the C start-up calls, once, with the C signature; std's arguments are set up by
// glibc's initialisation, before it.
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next().unwrap_or_default();
    let outcome = run(&role.to_string_lossy(), arguments.collect());
    // Nothing flushes it after a C main.
    let flushed = std::io::stdout().flush();
    match outcome.and_then(|status| Ok(flushed.map(|()| status)?)) {
        Ok(status) => status,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "peer {}: {error}", role.display());
            9
        }
    }
}

fn run(role: &str, arguments: Vec<OsString>) -> Outcome {
    match role {
        "write" => flow::write(arguments),
        "text" => flow::write_text(arguments),
        "write-both" => flow::write_both(arguments),
        "read" => flow::read(arguments),
        "hash" => flow::hash(arguments),
        "grow" => memory::grow(arguments),
        "resize" => memory::resize(arguments),
        "hold" => memory::hold(arguments),
        "queue" => memory::queue(arguments),
        "gather" => memory::gather(arguments),
        "window" => memory::window(arguments),
        "repeat" => flow::repeat(arguments),
        "discard" => flow::discard(arguments),
        "corpus" => flow::corpus(arguments),
        "pingpong" => pingpong::run(arguments),
        "vmsplice-page" => pages::change_after_splice(arguments),
        "vmsplice-write" => pages::write(arguments),
        "splice-read" => pages::read(),
        "splice-loop" => pages::relay(),
        "tokio-copy" => runtime::tokio(),
        "tokio-uring-copy" => runtime::tokio_uring(),
        "fds" => witness::fds(),
        "dispositions" => witness::dispositions(),
        "pipe-size" => witness::pipe_size(),
        "signals" => witness::signals(arguments),
        "exit" => Ok(number(arguments.first())? as i32),
        "die" => witness::die(arguments),
        "with" => setting::with(arguments),
        "terminal" => terminal::terminal(arguments),
        "fuse" => fuse::serve(arguments),
        "connect" => setting::connect(arguments),
        "listen" => setting::listen(arguments),
        _ => {
            eprint!("{USAGE}");
            Ok(2)
        }
    }
}

/// A byte count or other number, with an optional K, M or G (powers of 1024).
fn number(word: Option<&OsString>) -> Result<u64, Box<dyn Error>> {
    let word = word.ok_or("a number is missing")?.to_str().ok_or("not a number")?;
    let (digits, shift) = match word.as_bytes().last() {
        Some(b'K') => (&word[..word.len() - 1], 10),
        Some(b'M') => (&word[..word.len() - 1], 20),
        Some(b'G') => (&word[..word.len() - 1], 30),
        _ => (word, 0),
    };
    Ok(digits.parse::<u64>().map_err(|error| format!("{word}: {error}"))? << shift)
}
