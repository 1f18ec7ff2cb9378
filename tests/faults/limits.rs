//! What there is none of, or too little: processes, descriptors, system calls, answers of the kernel.

use std::fs;
use std::io::Read;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use tempfile::tempdir;

use crate::harness::accept::Accept as _;
use crate::harness::{Engine, Launch, digest_of_file, need, on_both_engines, strace_works};
use crate::payload::{Digest, Hasher};
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

/// So do copies into commands and sockets, also where the peer has closed and a new connection gets the rest.
#[test]
fn splice_is_forbidden_for_copies_that_threads_write() {
    let (whole, bytes) = (Digest::of_payload(8 << 20, 1), 8 << 20);
    for errno in ["EPERM", "ENOSYS"] {
        for calls in ["io_uring_setup+splice+tee", "splice", "tee", "splice+tee"] {
            let directory = tempdir().expect("directory");
            let listener = UnixListener::bind(directory.path().join("socket")).expect("bind");
            let peer = std::thread::spawn(move || {
                // The first connection says nothing more after the first kilobytes, and goes.
                let mut first = listener.connection();
                let mut got = vec![0; 4000];
                first.read_exact(&mut got).expect("read");
                first.shutdown(Shutdown::Write).expect("shutdown");
                let mut rest = Vec::new();
                first.read_to_end(&mut rest).expect("read");
                got.extend(rest);
                got
            });
            let run = Launch::program("peer")
                .args(["with", &format!("refuse={errno}:{calls}"), "--", "nproxy"])
                .args(["--tee=|cat > got", "--tee=unix:socket", "--"])
                .args(["peer", "write", &bytes.to_string(), "64K"])
                .directory(directory.path())
                .finish();
            run.expect_code(0).expect_stdout(whole).expect_silent();
            let arrived = peer.join().expect("the peer");
            let mut hasher = Hasher::default();
            hasher.update(&arrived);
            assert_eq!(hasher.digest(), whole, "{errno} {calls}");
            let got = crate::harness::digest_of_file(&directory.path().join("got"), 0);
            assert_eq!(got, whole, "{errno} {calls}");
        }
    }
}

/// What a command that is started again had not taken, the next one gets, also without splice(2).
#[test]
fn restarted_command_where_splice_is_forbidden() {
    let directory = tempdir().expect("directory");
    let copy = "--tee=|read -r line || exit 0; echo \"$line\" >> lines; exit 1,restart=on-failure";
    let script = "for n in 1 2 3; do echo $n; until grep -qx $n lines 2>/dev/null; do sleep 0.02; done; done";
    let run = Launch::program("peer")
        .args(["with", "refuse=EPERM:splice+tee", "--", "nproxy", copy, "sh", "-c", script])
        .directory(directory.path())
        .finish();
    run.expect_code(0).expect_output("1\n2\n3\n");
    let lines = fs::read_to_string(directory.path().join("lines")).expect("lines");
    assert_eq!(lines, "1\n2\n3\n");
}

/// A FIFO whose reader comes late gets its bytes without splice(2) too.
#[test]
fn late_fifo_where_splice_is_forbidden() {
    let directory = tempdir().expect("directory");
    let script = "mkfifo fifo; (until [ -e go ]; do sleep 0.05; done; exec cat fifo > got) &
        nproxy --tee fifo,full=drop sh -c 'echo early; : > go; until [ -s got ]; do sleep 0.05; done; seq 9000'; wait";
    let run = Launch::program("peer")
        .args(["with", "refuse=EPERM:splice+tee", "--", "bash", "-c", script])
        .directory(directory.path())
        .finish();
    run.expect_code(0);
    run.expect(!run.stderr.text().contains("not permitted"), "nothing fails");
    run.expect_stdout(digest_of_file(&directory.path().join("got"), 0));
}

/// A command is started again where there is no /proc to open its pipe by; what lies in it is lost then.
#[test]
fn restarted_command_without_proc() {
    if !need(&["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/proc"]) {
        return;
    }
    let directory = tempdir().expect("directory");
    let script = "mount -t tmpfs none /proc && exec nproxy --tee '|echo run >> runs; exit 1,restart=on-failure' \
        sh -c 'until [ \"$(cat runs 2>/dev/null | wc -l)\" -ge 2 ]; do echo line; sleep 0.02; done'";
    let run = Launch::program("unshare")
        .args(["-rm", "sh", "-c", script])
        .directory(directory.path())
        .finish();
    run.expect_code(0);
    run.expect(run.stderr.text().contains("started again"), "it is started again");
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

/// Somebody asks for the status while no descriptor is left: that waits, costs next to nothing, and is answered once there
/// is one again.
fn status_without_descriptors(engine: Engine) {
    let runtime = tempdir().expect("directory");
    let run = Launch::nproxy(engine)
        .words("--monitor=off -- cat")
        .stdin(std::process::Stdio::piped())
        .env("NPROXY_RUNTIME_DIR", runtime.path())
        .start();
    let pid = run.pid();
    let socket = runtime.path().join("nproxy").join(format!("{pid}.sock"));
    proc::until("the socket", || socket.exists().then_some(()));
    proc::until("rest", || proc::sleeps(pid).then_some(()));
    let set_limit = |limit: usize| {
        let limit = format!("--nofile={limit}:4096");
        let set = Launch::program("prlimit").args(["--pid", &pid.to_string(), &limit]).finish();
        set.expect_code(0);
    };
    // No number below the first free one may be given away.
    let open = proc::descriptors(pid);
    let free = (0..).find(|number| open.iter().all(|(fd, _)| fd != number)).expect("a number");
    set_limit(free as usize);
    let mut client = UnixStream::connect(&socket).expect("connect");
    client.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
    let before = proc::cpu_time(pid);
    let mut answer = String::new();
    let heard = client.read_to_string(&mut answer);
    let spent = proc::cpu_time(pid).saturating_sub(before);
    assert!(heard.is_err() && answer.is_empty(), "an answer without a descriptor: {answer}");
    // Two seconds of spinning are as much of a processor as the machine has to give; twenty tries are nothing.
    assert!(spent < Duration::from_millis(200), "{spent:?} while nobody could be answered");
    set_limit(4096);
    client.set_read_timeout(None).expect("timeout");
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains(&format!("\"pid\":{pid}")), "{answer}");
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
