//! The gate: never shut for good, opened where it does harm, and good for something.

use std::time::Duration;

use crate::harness::{Engine, Launch, on_both_engines};
use crate::outcome::Finished;
use crate::proc;

on_both_engines!(
    a_child_that_stays_large_finishes_at_the_trickle,
    gate_off_lets_everything_through,
    emergency_lets_everything_through,
    a_child_that_queues_its_output_opens_the_gate,
    a_blocked_producer_stays_small_and_idle,
);

fn memory(finished: &Finished, field: &str) -> u64 {
    let text = finished.stderr.text();
    let json = text.lines().find(|line| line.starts_with('{')).unwrap_or_default();
    let stats: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    stats["memory"][field].as_u64().unwrap_or_else(|| finished.fail(&format!("no memory.{field}")))
}

/// 5 MiB at 640 KiB a second, less what was in flight when the gate closed and what the pipe holds at the end.
fn a_child_that_stays_large_finishes_at_the_trickle(engine: Engine) {
    let flags = "--critical=50M --emergency=8G --stats=json -- peer hold 100M 5M 0 500";
    let finished = Launch::nproxy(engine).words(flags).finish();
    finished.expect_code(0);
    finished.expect(finished.stdout.digest.bytes == 5 << 20, "expected every byte");
    finished.expect(memory(&finished, "gate_closed") == 1, "expected a closed gate");
    let (least, most) = (Duration::from_millis(4500), Duration::from_millis(12000));
    let took = finished.elapsed;
    finished.expect(least < took && took < most, "expected the pace of the trickle");
}

fn gate_off_lets_everything_through(engine: Engine) {
    let flags = "--gate=off --critical=50M --emergency=8G --stats=json -- peer hold 100M 40M 0 500";
    let finished = Launch::nproxy(engine).words(flags).finish();
    finished.expect_code(0);
    finished.expect(finished.stdout.digest.bytes == 40 << 20, "expected every byte");
    finished.expect(memory(&finished, "gate_closed") == 0, "expected an open gate");
}

fn emergency_lets_everything_through(engine: Engine) {
    let flags = "--critical=40M --emergency=50M --stats=json -- peer hold 100M 40M 0 500";
    let finished = Launch::nproxy(engine).words(flags).finish();
    finished.expect_code(0);
    finished.expect(finished.elapsed < Duration::from_secs(20), "expected no trickle");
    finished.expect(finished.stdout.digest.bytes == 40 << 20, "expected every byte");
}

/// 20 MiB a second on top of 60: held closed for all of the three seconds, the gate would let 58 MiB gather.
fn a_child_that_queues_its_output_opens_the_gate(engine: Engine) {
    let flags = "--critical=50M --emergency=8G --stats=json -- peer queue 60M 20M 3000";
    let finished = Launch::nproxy(engine).words(flags).finish();
    finished.expect_code(0);
    finished.expect(memory(&finished, "gate_harmful") == 1, "expected the gate judged harmful");
    let text = finished.stderr.text();
    let queued = text.split("queued ").nth(1).and_then(|rest| rest.split(' ').next());
    let queued: u64 = queued.and_then(|word| word.parse().ok()).unwrap_or(u64::MAX);
    finished.expect(queued < 45 << 20, "expected a queue shorter than with the gate closed");
}

fn a_blocked_producer_stays_small_and_idle(engine: Engine) {
    let flags = "--critical=50M --emergency=8G -- peer window 60M 3000";
    let run = Launch::nproxy(engine).words(flags).start();
    let peer = run.process("peer window");
    let name = format!("/proc/{}/comm", run.pid());
    proc::until("the gate to close", || {
        (std::fs::read_to_string(&name).ok()? == "nproxy:critical\n").then_some(())
    });
    let before = proc::cpu_time(peer);
    let finished = run.finish();
    finished.expect_code(0);
    let text = finished.stderr.text();
    let figures = text.split("kept ").nth(1).unwrap_or_default();
    let mut words = figures.split_ascii_whitespace();
    let kept: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(u64::MAX);
    let cpu: u64 = words.nth(3).and_then(|word| word.parse().ok()).unwrap_or(u64::MAX);
    // Mostly what was written before the gate closed: unhindered it is a gigabyte and more.
    finished.expect(kept < 512 << 20, "expected little to be kept");
    let cpu = Duration::from_micros(cpu).saturating_sub(before);
    finished.expect(cpu < Duration::from_millis(300), "expected a blocked producer to be idle");
}
