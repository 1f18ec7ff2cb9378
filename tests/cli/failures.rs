//! What can go wrong around nproxy: kernels that refuse, disks that are full, descriptors that are closed or do not
//! block. One clear line, the right status, and no loss of what was already written.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tempfile::tempdir;

use crate::capture::Capture;
use crate::ends::{SINKS, Sink, expect_payload};
use crate::harness::{
    Engine, Launch, need, nproxy_path, on_both_engines, payload_bytes, payload_digest,
    strace_works, time_limit,
};
use crate::payload::Digest;
use crate::proc;

/// `strace -e inject=FAULT nproxy`, the child left alone.
fn with_fault(fault: &str) -> Launch {
    Launch::program("strace")
        .args(["-o", "/dev/null", "-e", &format!("inject={fault}")])
        .arg(nproxy_path())
}

#[test]
fn refused_io_uring_falls_back() {
    if !strace_works() {
        return;
    }
    let directory = tempdir().expect("directory");
    for errno in ["ENOSYS", "EPERM", "ENOMEM"] {
        let fault = format!("io_uring_setup:error={errno}");
        for sink in SINKS {
            let run = with_fault(&fault)
                .words("--stats=json peer write")
                .arg(payload_bytes().to_string())
                .arg("64K");
            let run = expect_payload(run, sink, directory.path());
            run.expect(run.stats()["engine"] == "epoll", "the other engine took over");
        }
        let (source, pipe) = std::io::pipe().expect("pipe");
        let writer = crate::ends::payload_writer(pipe);
        expect_payload(
            with_fault(&fault).arg("--stats=json").stdin(source),
            Sink::File,
            directory.path(),
        );
        writer.finish().expect_code(0);
        // auto says it under -v only; uring by name is not to be had.
        with_fault(&fault)
            .words("echo x")
            .finish()
            .expect_code(0)
            .expect_silent()
            .expect_output("x\n");
        with_fault(&fault)
            .words("-v echo x")
            .finish()
            .expect_code(0)
            .expect_output("x\n")
            .expect_one_line(&["epoll"]);
        let refused = with_fault(&fault).words("--engine=uring echo x").finish();
        refused.expect_code(125).expect_output("").expect_one_line(&["uring"]);
    }
}

/// A ring that is there, but without the operations or the registrations that nproxy would like.
#[test]
fn refused_registrations_do_not_matter() {
    if !strace_works() || !crate::harness::Engine::Uring.available() {
        return;
    }
    for errno in ["EINVAL", "ENOMEM", "EPERM"] {
        let run = with_fault(&format!("io_uring_register:error={errno}"))
            .words("peer write")
            .arg(payload_bytes().to_string())
            .arg("64K")
            .finish();
        run.expect_code(0).expect_silent().expect_stdout(payload_digest());
    }
}

on_both_engines![
    no_pipe_to_be_had,
    few_descriptors,
    full_device,
    full_disk,
    closed_stdout,
    closed_stderr_and_stdin,
    descriptors_that_do_not_block,
    descriptors_that_block,
    stdin_that_cannot_be_read,
];

fn no_pipe_to_be_had(engine: Engine) {
    if !strace_works() {
        return;
    }
    let run = with_fault("pipe2:error=EMFILE")
        .args(["--engine", engine.name()])
        .words("echo hi")
        .finish();
    run.expect_code(125).expect_output("").expect_one_line(&["pipe", "Too many open files"]);
    run.expect(run.left.is_empty(), "no child is left");
    // Whichever pipe it is that fails: all or nothing.
    for nth in 2..=8 {
        let launch = with_fault(&format!("pipe2:error=EMFILE:when={nth}+"))
            .args(["--engine", engine.name()]);
        all_or_nothing(launch, Sink::File);
    }
}

/// The same without strace, and for every kind of descriptor: fewer and fewer are allowed.
fn few_descriptors(engine: Engine) {
    for allowed in 3..20 {
        let script = format!("ulimit -n {allowed}; exec nproxy \"$@\"");
        let launch = || {
            Launch::program("bash")
                .args(["-c", &script, "bash"])
                .env("NPROXY_ENGINE", engine.name())
        };
        all_or_nothing(launch(), Sink::File);
        all_or_nothing(launch(), Sink::Pipe);
    }
}

fn full_device(engine: Engine) {
    let directory = tempdir().expect("directory");
    let script = "nproxy echo x > /dev/full; echo $?";
    let run = Launch::shell(engine, script).directory(directory.path()).finish();
    run.expect_output("125\n").expect_one_line(&["No space left on device"]);
    // The child's own failure stays what it is.
    let run = Launch::shell(engine, "nproxy sh -c 'echo x; exit 3' > /dev/full; echo $?").finish();
    run.expect_output("3\n").expect_one_line(&["No space left on device"]);
    let run = Launch::shell(engine, "echo x | nproxy > /dev/full; echo $?").finish();
    run.expect_output("125\n").expect_one_line(&["No space left on device"]);
    // A writer of much meets a closed pipe soon, and whatever it makes of that is no success.
    let script = format!("nproxy peer write {} 64K > /dev/full; echo $?", payload_bytes());
    let run = Launch::shell(engine, &script).finish();
    run.expect_one_line(&["No space left on device"])
        .expect(run.stdout.text() != "0\n", "no success");
    // The other stream is not touched by it.
    let run =
        Launch::shell(engine, "nproxy sh -c 'echo x; sleep 0.1; echo y >&2' > /dev/full; echo $?")
            .finish();
    run.expect_output("125\n").expect(run.stderr.text().contains("y\n"), "stderr went on");
}

/// A disk that fills up keeps everything up to its last byte.
fn full_disk(engine: Engine) {
    if !need(&["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]) {
        return;
    }
    let directory = tempdir().expect("directory");
    let expected = Digest::of_payload(4 << 20, 1);
    for (redirect, filter) in [(">", false), (">>", false), (">", true), (">>", true)] {
        let command = if filter {
            "peer write 8M 64K 2>/dev/null | nproxy"
        } else {
            "nproxy peer write 8M 64K"
        };
        // The mount hides what is below; the status goes out through a descriptor from before.
        let script = format!(
            "exec 3>status; mount -t tmpfs -o size=4m none . && cd $PWD || exit
             {command} {redirect} out 3>&-; echo $? >&3; peer read < out"
        );
        let run = Launch::program("unshare")
            .args(["-rm", "bash", "-c", &script])
            .env("NPROXY_ENGINE", engine.name())
            .directory(directory.path())
            .finish();
        run.expect_code(0).expect_one_line(&["No space left on device"]);
        run.expect(
            fs::read_to_string(directory.path().join("status")).is_ok_and(|status| status != "0\n"),
            "no success",
        );
        run.expect_output(&format!("{expected}\n"));
    }
}

/// Nobody listens on stdout: the child gets a pipe all the same, as others would open a file in its place.
fn closed_stdout(engine: Engine) {
    let run = Launch::shell(engine, "nproxy echo x >&-; echo $?").finish();
    run.expect_output("125\n").expect_one_line(&["stdout"]);
    Launch::shell(engine, "nproxy true >&-; echo $?").finish().expect_output("0\n").expect_silent();
    Launch::shell(engine, "nproxy sh -c 'echo x; exit 4' >&-; echo $?")
        .finish()
        .expect_output("4\n")
        .expect_one_line(&["stdout"]);
    Launch::shell(engine, "echo x | nproxy >&-; echo $?")
        .finish()
        .expect_output("125\n")
        .expect_one_line(&["stdout"]);
    let run = Launch::shell(engine, "nproxy bash -c 'peer fds >&2' >&-").finish();
    run.expect(run.stderr.text().starts_with("0 /dev/null\n1 pipe:["), "the child has a pipe");
    // What the child opens does not land on descriptor 1 by chance, nor does anything of nproxy's.
    let run = Launch::shell(engine, "nproxy sh -c 'echo x >&2' >&-; echo $?").finish();
    run.expect_output("0\n").expect(run.stderr.text() == "x\n", "stderr is not stdout's");
}

fn closed_stderr_and_stdin(engine: Engine) {
    Launch::shell(engine, "nproxy echo x 2>&-; echo $?").finish().expect_output("x\n0\n");
    Launch::shell(engine, "nproxy sh -c 'echo x >&2' 2>&-; echo $?")
        .finish()
        .expect_output("125\n");
    Launch::shell(engine, "nproxy true >&- 2>&- <&-; echo $?").finish().expect_output("0\n");
    Launch::shell(engine, "nproxy echo x <&-; echo $?")
        .finish()
        .expect_output("x\n0\n")
        .expect_silent();
    // A child of a closed stdin has it closed, too.
    let run = Launch::shell(engine, "nproxy peer fds <&-").finish();
    run.expect_code(0).expect(run.stdout.text().starts_with("1 pipe:["), "no descriptor 0");
    let filter = Launch::shell(engine, "nproxy <&-; echo $?").finish();
    filter
        .expect(filter.stdout.text() != "0\n", "nothing to read from")
        .expect_one_line(&["stdin"]);
}

/// Descriptors that came with O_NONBLOCK: no spin while they are not ready, no loss, and the flag as it was.
fn descriptors_that_do_not_block(engine: Engine) {
    let bytes = payload_bytes().to_string();
    for socket in [false, true] {
        let pair = || -> (OwnedFd, OwnedFd) {
            if socket {
                let (ours, theirs) = UnixStream::pair().expect("socketpair");
                (ours.into(), theirs.into())
            } else {
                let (reader, writer) = std::io::pipe().expect("pipe");
                (reader.into(), writer.into())
            }
        };
        let (reader, writer) = pair();
        let kept = writer.try_clone().expect("dup");
        set_nonblocking(&kept);
        let run = Launch::nproxy(engine)
            .words("peer write")
            .arg(&bytes)
            .arg("64K")
            .stdout(writer)
            .start();
        let child = proc::only_child(run.pid());
        proc::until_blocked_in_write(child);
        crate::cli::readers::expect_no_cpu(&run);
        assert!(is_nonblocking(&kept), "the flag is as it was");
        let arrived = Capture::of(reader);
        run.finish().expect_code(0).expect_silent();
        assert!(is_nonblocking(&kept), "the flag is as it was");
        drop(kept);
        let arrived = arrived.finish(std::time::Instant::now() + time_limit()).expect("the end");
        assert_eq!(arrived.digest, payload_digest(), "socket: {socket}");
    }

    for flags in [&[][..], &["--stdin=relay", "cat"]] {
        let (source, mut writer) = std::io::pipe().expect("pipe");
        let kept = source.try_clone().expect("dup");
        set_nonblocking(&kept);
        let run = Launch::nproxy(engine).args(flags).stdin(source).start();
        writer.write_all(b"first\n").expect("line");
        run.stdout.as_ref().expect("captured").wait_for("first\n", 1);
        crate::cli::readers::expect_no_cpu(&run);
        writer.write_all(b"second\n").expect("line");
        run.stdout.as_ref().expect("captured").wait_for("second\n", 1);
        assert!(is_nonblocking(&kept), "the flag is as it was");
        drop(writer);
        run.finish().expect_code(0).expect_silent().expect_output("first\nsecond\n");
    }
}

/// The other way about: what blocks goes on blocking, whoever shares it.
fn descriptors_that_block(engine: Engine) {
    let (reader, writer) = std::io::pipe().expect("pipe");
    let (source, theirs) = std::io::pipe().expect("pipe");
    let (kept_writer, kept_source) =
        (writer.try_clone().expect("dup"), source.try_clone().expect("dup"));
    let run =
        Launch::nproxy(engine).words("--stdin=relay cat").stdin(source).stdout(writer).start();
    let mut theirs = theirs;
    theirs.write_all(b"line\n").expect("line");
    let arrived = Capture::of(reader);
    arrived.wait_for("line\n", 1);
    assert!(!is_nonblocking(&kept_writer) && !is_nonblocking(&kept_source), "during the run");
    drop(theirs);
    run.finish().expect_code(0).expect_silent();
    assert!(!is_nonblocking(&kept_writer) && !is_nonblocking(&kept_source), "after the run");
}

/// A directory as stdin, a file that is open for writing only: errors of reading, said in one line.
fn stdin_that_cannot_be_read(engine: Engine) {
    let directory = tempdir().expect("directory");
    for (redirect, why) in [("< .", "Is a directory"), ("0> write-only", "Bad file ")] {
        let run = Launch::shell(engine, &format!("nproxy {redirect}; echo $?"))
            .directory(directory.path())
            .finish();
        run.expect_output("125\n").expect_one_line(&[why]);
    }
}

/// The relay works to the last byte, or nothing ran and one line says why.
#[track_caller]
fn all_or_nothing(launch: Launch, sink: Sink) {
    let directory = tempdir().expect("directory");
    let (end, arrival) = sink.open(directory.path());
    let run = launch.words("peer write 2M 64K").stdout(end).finish();
    let arrived = arrival.digest(&run);
    run.expect(run.left.is_empty(), "no child is left");
    match run.status.code() {
        Some(0) => {
            run.expect_silent()
                .expect(arrived == Some(Digest::of_payload(2 << 20, 1)), "every byte");
        }
        // The loader needs descriptors before nproxy's first instruction.
        Some(127) if run.stderr.text().contains("loading shared libraries") => {}
        _ => {
            run.expect_code(125).expect_one_line(&["Too many open files"]);
            run.expect(arrived.is_some_and(|arrived| arrived.bytes == 0), "nothing ran");
        }
    }
}

#[track_caller]
fn flags(fd: impl AsFd) -> OFlag {
    OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).expect("F_GETFL"))
}

fn set_nonblocking(fd: impl AsFd) {
    fcntl(&fd, FcntlArg::F_SETFL(flags(&fd) | OFlag::O_NONBLOCK)).expect("F_SETFL");
}

fn is_nonblocking(fd: impl AsFd) -> bool {
    flags(fd).contains(OFlag::O_NONBLOCK)
}
