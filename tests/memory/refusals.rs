//! What makes no sense is refused in one line, and nothing is started.

use crate::harness::{Engine, Launch};

#[track_caller]
fn refused(flags: &str, parts: &[&str]) {
    let finished = Launch::nproxy(Engine::Epoll).words(flags).words("-- echo started").finish();
    finished.expect_code(125).expect_one_line(parts);
    finished.expect(finished.stdout.digest.bytes == 0, "expected nothing started");
}

#[test]
fn thresholds_out_of_order() {
    refused("--attention=2G --pressure=1G", &["--attention", "--pressure"]);
    refused("--attention=2G --emergency=1G", &["--attention", "--emergency"]);
}

#[test]
fn zero_and_absurd_sizes() {
    for size in ["0", "0M", "5X", "-1", "many", "99999999E"] {
        refused(&format!("--critical={size}"), &["--critical"]);
        refused(&format!("--memory-max={size}"), &["--memory-max"]);
    }
}

#[test]
fn rlimits_that_cannot_be() {
    refused("--rlimit=nofile", &["--rlimit", "NAME=SOFT"]);
    refused("--rlimit=files=1", &["--rlimit", "nofile"]);
    refused("--rlimit=nofile=1:999999999999", &["--rlimit"]);
}

#[test]
fn rlimits_reach_the_command() {
    let run = Launch::nproxy(Engine::Epoll).words("--rlimit=nofile=77:99 --rlimit=core=0 -- sh -c");
    let finished = run.arg("ulimit -Sn; ulimit -Hn; ulimit -Sc").finish();
    finished.expect_code(0).expect_output("77\n99\n0\n");
}

#[test]
fn a_limit_without_cgroup_v2_names_the_way_out() {
    let unified = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let controllers = unified
        .lines()
        .filter(|line| line.contains(" - cgroup2 "))
        .filter_map(|line| line.split(' ').nth(4))
        .filter_map(|mount| std::fs::read_to_string(format!("{mount}/cgroup.controllers")).ok());
    if controllers.into_iter().any(|text| text.contains("memory")) {
        // The virtual machine tests that, delegated and not.
        return;
    }
    refused("--memory-high=100M", &["--memory-high", "systemd-run --user --scope", "MemoryHigh"]);
    refused("--memory-max=100M", &["--memory-max", "systemd-run --user --scope", "MemoryMax"]);
}
