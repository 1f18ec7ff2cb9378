//! What makes no sense is refused in one line, and nothing is started.

use crate::harness::{Engine, Launch, need};

#[track_caller]
fn refused(flags: &str, parts: &[&str]) {
    refuses(Launch::nproxy(Engine::Epoll).words(flags), parts);
}

#[track_caller]
fn refuses(nproxy: Launch, parts: &[&str]) {
    let finished = nproxy.words("-- echo started").finish();
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

/// Where the kernel offers such groups they are hidden, in a mount namespace of nproxy's own: what happens with them is
/// tested in the virtual machine, delegated and not.
#[test]
fn a_limit_without_cgroup_v2_names_the_way_out() {
    if !need(&["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]) {
        return;
    }
    let hide = "for mount in $(sed -n 's/^[^ ]* [^ ]* [^ ]* [^ ]* \\([^ ]*\\) .* - cgroup2 .*/\\1/p' \
                /proc/self/mountinfo); do mount -t tmpfs none $mount || exit 1; done; exec \"$@\"";
    for (flag, property) in [("--memory-high", "MemoryHigh"), ("--memory-max", "MemoryMax")] {
        let nproxy = Launch::program("unshare").args(["-rm", "sh", "-c", hide, "sh", "nproxy"]);
        let parts = [flag, "no cgroup v2", "systemd-run --user --scope", property];
        refuses(nproxy.arg(format!("{flag}=100M")), &parts);
    }
}
