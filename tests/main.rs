//! The whole-program tests: the built nproxy among real pipes, files, sockets, terminals and signals. One program,
//! because five that each link the same libraries take five times as long to build; a suite is a module, and its name
//! selects it: `cargo test --test suites cli::`, `cargo test --test suites terminal::keys`.
//!
//! Every test that touches the relay runs on both engines. NPROXY_TEST_MIB sets the payload (default 32; a thorough run
//! uses 4096), NPROXY_BIN another nproxy, NPROXY_REQUIRE_ALL=1 makes a skipped test a failed one. `cargo test` builds the
//! peer, an example, beside it; `cargo test --test suites` does not: `cargo build --examples` first.

// The machinery: starting and judging programs, reading their output, looking at processes, terminals and ends.
mod harness;
// The payload and coloured text, as the peer makes them.
mod peer;
// The slow parser that the filter's own tests are judged by.
#[path = "../src/text/strip/reference.rs"]
mod reference;

use harness::{capture, ends, outcome, proc};
use peer::{coloured, payload};

// Bytes, statuses, signals, failures, text modes, copies: everything that needs no terminal of the command's own.
mod cli;
// Copies that last: keys of one copy, segments, commands, collectors that go away.
mod copies;
// The command at a terminal of its own: what a person sees and types.
mod terminal;
// The memory guard: stages, gate, trees of processes.
mod memory;
// Reports, events, the status socket, the live line, crash reports, and the scripts.
mod observe;
// Node processes: the preload by itself, and the heaps that nproxy watches. Skipped where there is no Node.
mod node;
// What fails around nproxy, by kind.
mod faults;
