//! What there is none of, or too little: processes, descriptors, system calls, answers of the kernel.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tempfile::tempdir;

use crate::harness::{Engine, Launch, need, on_both_engines, strace_works};
use crate::payload::Digest;
use crate::proc;

on_both_engines![
    child_that_nobody_can_wait_for,
    order_that_cannot_be_sent,
    status_without_descriptors
];

/// Whatever the user's process limit: every byte arrives, on epoll where io_uring would get too few workers, or one
/// line says that the command could not be started.
#[test]
fn process_limit() {
    let whole = Digest::of_payload(4 << 20, 1);
    let directory = tempdir().expect("directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("mode");
    // Nobody else's processes count.
    let somebody = (40_000 + std::process::id() % 20_000).to_string();
    for user in ["0", &somebody] {
        for limit in [0, 1, 2, 3, 4, 5, 6, 7, 9, 12, 20, 200] {
            // Root is not held to its limit, but its kernel workers are.
            if user != "0" && limit < 3 {
                continue;
            }
            let limited =
                format!("prlimit --nproc={limit}:{limit} setpriv --reuid={user} --clear-groups");
            if !need(&[
                "prlimit",
                "--nproc=200:200",
                "setpriv",
                "--reuid=65534",
                "--clear-groups",
                "true",
            ]) {
                return;
            }
            for flags in ["", "--stdin=relay --tee /dev/null --tee log"] {
                let _ = fs::remove_file(directory.path().join("log"));
                let (reader, writer) = std::io::pipe().expect("pipe");
                let feeder = Launch::peer("write").words("4M 64K").stdout(writer).start();
                let mut words = limited.split(' ');
                let run = Launch::program(words.next().expect("a word"))
                    .args(words)
                    .arg("nproxy")
                    .words(flags)
                    .words(if flags.is_empty() { "" } else { "cat" })
                    .directory(directory.path())
                    .env("NPROXY_RUNTIME_DIR", directory.path())
                    .stdin(reader)
                    .finish();
                drop(feeder);
                match run.status.code() {
                    Some(0) => {
                        run.expect_stdout(whole);
                    }
                    _ => {
                        run.expect_code(125).expect_one_line(&["temporarily unavailable"]);
                    }
                }
            }
        }
    }
}

/// A container that forbids io_uring, splice(2) and tee(2), by EPERM or by ENOSYS: read and write do.
#[test]
fn splice_is_forbidden() {
    let whole = Digest::of_payload(8 << 20, 1);
    for errno in ["EPERM", "ENOSYS"] {
        for calls in [
            "io_uring_setup+splice+tee",
            "io_uring_setup+splice",
            "io_uring_setup+tee",
            "io_uring_setup+splice+tee+pwritev2+pidfd_open+epoll_pwait2+kcmp+close_range",
        ] {
            for command in [
                "peer write 8M 64K | nproxy | peer read",
                "peer write 8M 64K | nproxy > a; peer read < a",
                "nproxy peer write 8M random | peer read",
                "nproxy --stdin=relay cat < <(peer write 8M 64K) | peer read",
                "peer write 8M 64K | nproxy --tee a --tee b | peer read; peer read < a; peer read < b",
                "nproxy --tee a --tee-text=strip-ansi --tee /dev/null peer write 8M 64K | peer read",
                "nproxy --tee a --tee-full=drop peer write 8M 64K | peer read",
            ] {
                let directory = tempdir().expect("directory");
                let run = Launch::program("peer")
                    .args(["with", &format!("refuse={errno}:{calls}"), "--", "bash", "-c", command])
                    .directory(directory.path())
                    .finish();
                let reads = command.matches("peer read").count();
                run.expect_output(&format!("{whole}\n").repeat(reads));
                // A copy that may lose bytes loses some on a busy machine, and says so.
                match command.contains("full=drop") && run.stderr.digest.bytes > 0 {
                    true => run.expect_one_line(&["a: ", "bytes were not written there"]),
                    false => run.expect_silent(),
                };
            }
        }
    }
}

/// A copy that may lose bytes does so between whole writes, with a mark for the gap, also without tee(2).
#[test]
fn slow_copy_where_tee_is_forbidden() {
    let directory = tempdir().expect("directory");
    let script = "mkfifo slow; sleep 60 < slow & exec 3<>slow
        nproxy --tee slow --tee-full=drop --stats=json peer write 8M 64K | peer read; kill $!";
    let run = Launch::program("peer")
        .args(["with", "refuse=EPERM:io_uring_setup+splice+tee", "--", "bash", "-c", script])
        .directory(directory.path())
        .finish();
    run.expect_output(&format!("{}\n", Digest::of_payload(8 << 20, 1)));
    run.expect_message(&["bytes were not written there"]);
}

/// wait4(2) says ECHILD: nobody will ever know how the child ended.
fn child_that_nobody_can_wait_for(engine: Engine) {
    if !strace_works() {
        return;
    }
    for flags in ["", "--pty=always"] {
        let run = Launch::program("strace")
            .args(["-f", "-o", "/dev/null", "-e", "inject=wait4:error=ECHILD", "nproxy"])
            .words(flags)
            .words("--linger=0ms true")
            .env("NPROXY_ENGINE", engine.name())
            .finish();
        run.expect_code(125);
        run.expect(run.stderr.text().starts_with("nproxy: "), "it is told");
    }
}

/// The order to start the child cannot be sent to the monitor process, or its report cannot be sent back.
fn order_that_cannot_be_sent(engine: Engine) {
    if !strace_works() {
        return;
    }
    for follow in ["-D", "-f"] {
        let run = Launch::program("strace")
            .args([follow, "-o", "/dev/null", "-e", "inject=sendto:error=ENOBUFS", "nproxy"])
            .words("--pty=always --no-control true")
            .env("NPROXY_ENGINE", engine.name())
            .finish();
        run.expect_code(125).expect_one_line(&["monitor process"]);
    }
}

/// Somebody asks for the status while no descriptor is left: that waits, and costs next to nothing.
fn status_without_descriptors(engine: Engine) {
    let runtime = tempdir().expect("directory");
    let run = Launch::nproxy(engine)
        .words("-- cat")
        .stdin(std::process::Stdio::piped())
        .env("NPROXY_RUNTIME_DIR", runtime.path())
        .start();
    let socket = runtime.path().join("nproxy").join(format!("{}.sock", run.pid()));
    proc::until("the socket", || socket.exists().then_some(()));
    let open = proc::descriptors(run.pid()).len();
    let limit = format!("--nofile={open}:4096");
    let lowered =
        Launch::program("prlimit").args(["--pid", &run.pid().to_string(), &limit]).finish();
    lowered.expect_code(0);
    // Fds above the limit stay; the lowest free one lies within it only if there is a gap.
    let mut client = UnixStream::connect(&socket).expect("connect");
    client.set_read_timeout(Some(Duration::from_secs(1))).expect("timeout");
    let before = proc::time_wanted(run.pid());
    let mut answer = String::new();
    let heard = std::io::Read::read_to_string(&mut client, &mut answer);
    let spent = proc::time_wanted(run.pid()) - before;
    // A second of spinning is a second; ten tries are nothing.
    assert!(heard.is_ok() || spent < Duration::from_millis(300), "{spent:?} while {heard:?}");
    let _ = client.write_all(b"");
}

/// With many copies the ring's queue is submitted in the middle of a turn; refused there, the run ends all the same.
#[test]
fn refused_io_uring_enter() {
    if !strace_works() || !Engine::Uring.available() {
        return;
    }
    for nth in [3, 4, 5, 6, 8, 12] {
        for errno in ["ENOMEM", "EBADF", "EINTR", "EBUSY", "EAGAIN"] {
            let directory = tempdir().expect("directory");
            let fault = format!("inject=io_uring_enter:error={errno}:when={nth}");
            let mut launch = Launch::program("strace").args([
                "-o",
                "/dev/null",
                "-e",
                &fault,
                "nproxy",
                "--engine=uring",
            ]);
            for copy in 0..14 {
                launch = launch.arg("--tee").arg(format!("copy{copy}"));
            }
            let run = launch.words("peer write 2M 64K").directory(directory.path()).finish();
            let whole = Digest::of_payload(2 << 20, 1);
            match run.status.code() {
                Some(0) => {
                    run.expect_stdout(whole);
                    for copy in 0..14 {
                        let copy = directory.path().join(format!("copy{copy}"));
                        let arrived = crate::harness::digest_of_file(&copy, 0);
                        run.expect(arrived == whole, "every copy is whole");
                    }
                }
                _ => {
                    run.expect_code(125);
                    run.expect(run.stderr.text().starts_with("nproxy: "), "it is told");
                }
            }
        }
    }
}
