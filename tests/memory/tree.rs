//! Whose memory counts.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{Engine, Launch, need};
use crate::outcome::Finished;
use crate::proc;

fn notice(finished: &Finished, stage: &str) -> bool {
    finished.stderr.text().contains(&format!("nproxy: memory: {stage}"))
}

/// The best of several, for other tests use the same processors.
#[test]
fn a_grandchild_is_seen_within_200_ms() {
    const SOON: Duration = Duration::from_millis(200);
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        fastest = fastest.min(time_until_seen());
        if fastest < SOON {
            return;
        }
    }
    panic!("seen after {fastest:?}");
}

/// The stage shows in nproxy's name: from when the memory is there until then.
fn time_until_seen() -> Duration {
    let script = "sh -c 'peer hold 300M 6 60000; :'; sleep 60";
    let flags = "--pressure=200M --critical=8G --emergency=9G -- sh -c";
    let mut run = Launch::nproxy(Engine::Epoll).words(flags).arg(script).start();
    let peer = run.process("peer hold");
    let nproxy = run.pid();
    let large = proc::until("300 MiB", || (proc::resident(peer) >= 300 << 20).then(Instant::now));
    proc::until("the stage", || {
        let name = std::fs::read_to_string(format!("/proc/{nproxy}/comm")).unwrap_or_default();
        (name == "nproxy:pressure\n").then_some(())
    });
    let took = large.elapsed();
    run.signal(nix::sys::signal::Signal::SIGTERM);
    drop(run.stdout.take());
    took
}

#[test]
fn an_orphan_counts() {
    // Its parent is gone before anyone looks.
    let script =
        "sh -c 'peer hold 120M 64K 4000 >held &'; until [ -s held ]; do sleep 0.05; done; sleep 3";
    let directory = tempfile::tempdir().expect("a directory");
    let flags = "--linger=eof --pressure=100M --critical=8G --emergency=9G -- sh -c";
    let nproxy = Launch::nproxy(Engine::Epoll).words(flags).arg(script);
    let finished = nproxy.directory(directory.path()).finish();
    finished.expect_code(0);
    finished.expect(notice(&finished, "pressure"), "expected the orphan to be seen");
}

#[test]
fn rss_is_the_childs_own() {
    let script = "peer hold 120M 0 500; :";
    let flags =
        "--monitor=rss --attention=60M --pressure=100M --critical=8G --emergency=9G -- sh -c";
    let finished = Launch::nproxy(Engine::Epoll).words(flags).arg(script).finish();
    finished.expect_code(0);
    finished.expect(!notice(&finished, "attention"), "expected the shell's own memory only");
}

/// Fifty processes at the fastest period; processor time, so that others on the machine do not count. Where /proc is slow,
/// what five looks at each of them take on top.
#[test]
fn fifty_processes_cost_less_than_a_hundredth() {
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 \
                  33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50; do sleep 3 & done; wait";
    // So close to a threshold that the period is the shortest.
    let flags =
        "--stats=json --attention=8K --pressure=8K --critical=100G --emergency=100G -- sh -c";
    let finished = Launch::nproxy(Engine::Epoll).words(flags).arg(script).finish();
    finished.expect_code(0);
    let text = finished.stderr.text();
    let json = text.lines().find(|line| line.starts_with('{')).unwrap_or_default();
    let stats: serde_json::Value = serde_json::from_str(json).expect("statistics");
    let cost = stats["memory"]["sampling_seconds"].as_f64().unwrap_or(1.0);
    let looks = 5.0 * 50.0 * seconds_of_a_look();
    let allowed = finished.elapsed.as_secs_f64() / 100.0 + looks;
    finished.expect(cost < allowed, &format!("expected less than 1 % and {looks} s"));
}

/// What it takes on this machine to read the files of a process that are read near a threshold, for the first time.
fn seconds_of_a_look() -> f64 {
    const PROCESSES: u32 = 20;
    let mut taken = Duration::ZERO;
    for _ in 0..PROCESSES {
        let mut other = Command::new("sleep").arg("60").spawn().expect("sleep");
        let files = ["stat", "statm", "smaps_rollup"];
        let before = Instant::now();
        for file in files.map(|name| format!("/proc/{}/{name}", other.id())) {
            std::fs::read(&file).expect(&file);
        }
        taken += before.elapsed();
        other.kill().expect("kill");
        other.wait().expect("wait");
    }
    (taken / PROCESSES).as_secs_f64()
}

/// A variable of 60 MB in a shell, and five subshells that have it too, by copy on write.
#[test]
fn what_forks_share_counts_once() {
    let script = "x=$(head -c 60000000 /dev/zero | tr '\\0' x); for i in 1 2 3 4 5; do (sleep 1.5; :) & done; wait";
    let flags =
        "--stats=json --attention=100M --pressure=250M --critical=8G --emergency=9G -- sh -c";
    let finished = Launch::nproxy(Engine::Epoll).words(flags).arg(script).finish();
    finished.expect_code(0);
    let peak = finished.trailing_stats()["memory"]["peak_bytes"].as_u64().unwrap_or(0);
    // The shell may have the text twice while it reads it.
    finished.expect((50 << 20..220 << 20).contains(&peak), &format!("{peak} bytes at most"));
}

/// Pages that forks had in common are each one's own once it has written to them.
#[test]
fn what_forks_share_no_more_counts_again() {
    if !need(&["python3", "-c", ""]) {
        return;
    }
    let script = "
import os, time
shared = bytearray(60 << 20)
def touch(what):
    for at in range(0, len(shared), 4096): shared[at] = what
touch(1)
for worker in range(4):
    if os.fork() == 0:
        time.sleep(1)
        touch(2)
        time.sleep(6)
        os._exit(0)
for worker in range(4): os.wait()
";
    let flags =
        "--stats=json --attention=100M --pressure=5G --critical=8G --emergency=9G -- python3 -c";
    let finished = Launch::nproxy(Engine::Epoll).words(flags).arg(script).finish();
    finished.expect_code(0);
    let peak = finished.trailing_stats()["memory"]["peak_bytes"].as_u64().unwrap_or(0);
    finished.expect((290 << 20..400 << 20).contains(&peak), &format!("{peak} bytes at most"));
}

/// A name that ends in the middle of a character is no text, and still the process counts.
#[test]
fn a_process_counts_whatever_its_name() {
    let script = "name=xxxxxxxxxxxxxx\u{e9}; printf '#!/bin/sh\\npeer hold 120M 0 1500\\n:\\n' >$name; \
                  chmod +x $name; ./$name; :";
    let directory = tempfile::tempdir().expect("a directory");
    let flags = "--pressure=100M --critical=8G --emergency=9G -- sh -c";
    let nproxy = Launch::nproxy(Engine::Epoll).words(flags).arg(script);
    let finished = nproxy.directory(directory.path()).finish();
    finished.expect_code(0);
    finished.expect(notice(&finished, "pressure"), "expected the process to be seen");
}

/// With hardly a descriptor left, none of the processes is lost.
#[test]
fn few_descriptors_are_enough() {
    let script = "ulimit -n 32; exec nproxy --memlog=1 -- bash -c \
        'for i in {1..60}; do sleep 600 & done; until grep -q \"in 6[1-9] processes\" told; do sleep .1; done; kill $(jobs -p)' \
        2>told";
    let directory = tempfile::tempdir().expect("a directory");
    Launch::shell(Engine::Epoll, script).directory(directory.path()).finish().expect_code(0);
}
