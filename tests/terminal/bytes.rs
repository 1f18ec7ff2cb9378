//! Every byte through the child's terminal, both ways.

use std::io::Write;

use crate::harness::{Engine, on_both_engines, payload_bytes};
use crate::terminal::console::Console;

on_both_engines![both_ways, last_bytes_of_a_writer_that_ends, a_screen_that_nobody_reads];

/// Raw at both ends, `head` gives back what it gets. NPROXY_TEST_MIB sets how much, as everywhere.
fn both_ways(engine: Engine) {
    let bytes = payload_bytes();
    let script = format!("stty raw -echo; echo ready; head -c {bytes}");
    let console = Console::nproxy_raw(engine, &["sh", "-c", &script]);
    console.screen.wait_for("ready\n", 1);
    let mut keys = console.keys.try_clone().expect("dup");
    let block: Vec<u8> = (0..1 << 20).map(|at: u32| (at * 7 + (at >> 8) * 31) as u8).collect();
    let mut expected = crate::payload::Hasher::default();
    expected.update(b"ready\n");
    let mut left = bytes;
    while left > 0 {
        let part = &block[..block.len().min(left as usize)];
        expected.update(part);
        keys.write_all(part).expect("keys");
        left -= part.len() as u64;
    }
    console.screen.wait_for_bytes(bytes + 6);
    assert_eq!(console.screen.so_far().digest, expected.digest());
    console.run.finish().expect_code(0);
}

/// Nothing is lost when the writer's end follows at once, however often that is tried.
fn last_bytes_of_a_writer_that_ends(engine: Engine) {
    for round in 0..60 {
        let bytes = 1 + round * 997;
        let count = bytes.to_string();
        let console = Console::nproxy_raw(engine, &["head", "-c", &count, "/dev/zero"]);
        console.screen.wait_for_bytes(bytes);
        let screen = console.screen;
        console.run.finish().expect_code(0);
        assert_eq!(screen.so_far().digest.bytes, bytes);
    }
}

/// A screen that takes no more holds the child up, not nproxy: its signals still arrive.
fn a_screen_that_nobody_reads(engine: Engine) {
    use nix::sys::signal::{Signal, kill};
    let (leader, path) = crate::harness::terminal::open_leader();
    let running = crate::harness::Launch::program(crate::harness::peer_path())
        .arg("with")
        .arg(format!("tty={path}"))
        .args(["--", "nproxy", "--engine", engine.name(), "yes"])
        .in_our_group()
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .start();
    let writer = running.process("yes");
    crate::proc::until_blocked_in_write(writer);
    kill(nix::unistd::Pid::from_raw(running.pid()), Signal::SIGTERM).expect("alive");
    crate::proc::until("the child's end", || (crate::proc::state(writer) == 'X').then_some(()));
    drop(leader);
    running.finish();
}
