//! Killed with -9 at any moment, in the middle of a rotation too: the segments are a prefix of the input.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::tempdir;

use super::segments::{all_of, numbers};
use crate::harness::{Engine, Launch, on_both_engines};

on_both_engines![a_killed_run_leaves_a_prefix];

/// NPROXY_TEST_KILLS, 12 by default, for each engine.
fn kills() -> u64 {
    std::env::var("NPROXY_TEST_KILLS").map_or(12, |count| count.parse().expect("a number"))
}

fn a_killed_run_leaves_a_prefix(engine: Engine) {
    const LAST: u32 = 3_000_000;
    let all = numbers(LAST);
    let mut seed: u64 = std::process::id().into();
    for turn in 0..kills() {
        let directory = tempdir().expect("directory");
        // A small segment, so that many a kill falls into a rotation.
        let run = Launch::nproxy(engine)
            .arg(if turn % 2 == 0 {
                "--tee=log,rotate=16K,keep=100000"
            } else {
                "--tee=log,rotate=1M"
            })
            .args(["seq", "1", &LAST.to_string()])
            .directory(directory.path())
            .stdout(fs::File::create("/dev/null").expect("null"))
            .start();
        let started = Instant::now();
        // xorshift: another moment each time.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let moment: u64 = seed % 150_000;
        while started.elapsed() < Duration::from_micros(moment) {
            std::thread::yield_now();
        }
        run.signal(Signal::SIGKILL);
        let run = run.finish();
        let written = all_of(directory.path());
        run.expect(
            all.starts_with(&written),
            &format!("{} bytes after {moment} µs are no prefix", written.len()),
        );
    }
}
