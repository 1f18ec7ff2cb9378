//! The gate: never shut for good, opened where it does harm, and good for something.

use std::time::Duration;

use crate::harness::{Engine, Launch, on_both_engines};
use crate::outcome::Finished;
use crate::proc;

on_both_engines!(
    memory_that_is_there_costs_nothing,
    memory_that_only_gathers_costs_one_try,
    gate_off_lets_everything_through,
    emergency_lets_everything_through,
    a_child_that_could_queue_is_left_alone,
    a_blocked_producer_stays_small_and_idle,
);

fn memory(finished: &Finished, field: &str) -> u64 {
    let text = finished.stderr.text();
    let json = text.lines().find(|line| line.starts_with('{')).unwrap_or_default();
    let stats: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    stats["memory"][field].as_u64().unwrap_or_else(|| finished.fail(&format!("no memory.{field}")))
}

/// At the trickle it would take a minute.
fn memory_that_is_there_costs_nothing(engine: Engine) {
    let flags = "--critical=50M --emergency=8G --stats=json -- peer hold 100M 40M 0 500";
    let finished = Launch::nproxy(engine).words(flags).finish();
    finished.expect_code(0);
    finished.expect(finished.stdout.digest.bytes == 40 << 20, "expected every byte");
    finished.expect(memory(&finished, "gate_closed") == 0, "expected an open gate");
}

/// It grows while it writes, as memory that the gate could lower does, but nothing of it goes.
fn memory_that_only_gathers_costs_one_try(engine: Engine) {
    let flags = "--critical=50M --emergency=8G --stats=json -- peer gather 250M 50M";
    let finished = Launch::nproxy(engine).words(flags).finish();
    finished.expect_code(0);
    finished.expect(finished.stdout.digest.bytes == 250 << 20, "expected every byte");
    finished.expect(memory(&finished, "gate_closed") == 1, "expected one try");
    finished.expect(memory(&finished, "gate_helped") == 0, "expected it to bring nothing");
    let text = finished.stderr.text();
    for notice in
        ["output is held back to lower it (--gate=off: never)", "held back changed nothing"]
    {
        finished.expect(text.contains(notice), "expected a notice of what is done");
    }
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

/// 20 MiB a second on top of 60, and what is not taken is queued: held closed for all of the three seconds, the gate
/// would let 58 MiB gather.
fn a_child_that_could_queue_is_left_alone(engine: Engine) {
    let flags = "--critical=50M --emergency=8G --stats=json -- peer queue 60M 20M 3000";
    let finished = Launch::nproxy(engine).words(flags).finish();
    finished.expect_code(0);
    // Its memory is steady but for what a busy machine lets gather.
    finished.expect(memory(&finished, "gate_closed") <= 1, "expected an open gate");
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
    // One that tries again and again takes all three seconds; to fill memory takes some time too.
    finished.expect(cpu < Duration::from_secs(1), "expected a blocked producer to be idle");
}
