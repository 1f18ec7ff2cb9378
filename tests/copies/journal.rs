//! A copy in the systemd journal: journald's side of the protocol, in a mount namespace with a /run of its own.

use std::io::{BufRead, BufReader};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use tempfile::tempdir;

use crate::capture::{digest, waiting_bytes};
use crate::harness::accept::Accept as _;
use crate::harness::{Engine, Launch, need, on_both_engines, payload_bytes};
use crate::payload::Digest;
use crate::proc;

on_both_engines![every_line_arrives, one_that_is_not_there];

/// A shell that puts `run` of its directory in the place of /run, and then runs `script`.
pub(super) fn with_own_run(engine: Engine, script: &str) -> Option<Launch> {
    if !need(&["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/run"]) {
        return None;
    }
    let script = format!("mount --bind run /run && {script}");
    let launch = Launch::program("unshare").args(["-rm", "bash", "-c", &script]);
    Some(launch.env("NPROXY_ENGINE", engine.name()))
}

/// Where journald listens, as seen from outside.
pub(super) fn listen(directory: &Path) -> UnixListener {
    let place = directory.join("run/systemd/journal");
    std::fs::create_dir_all(&place).expect("directories");
    UnixListener::bind(place.join("stdout")).expect("bind")
}

/// The header of a connection; the rest is the copy. As journald does, it says that it will say nothing.
pub(super) fn accept(listener: &UnixListener) -> (Vec<String>, BufReader<UnixStream>) {
    let stream = listener.connection();
    stream.shutdown(Shutdown::Write).expect("shutdown");
    let mut stream = BufReader::new(stream);
    let header = (0..7).map(|_| {
        let mut line = String::new();
        stream.read_line(&mut line).expect("header");
        line
    });
    (header.collect(), stream)
}

/// And nothing counts as lost because journald has not read it yet when nproxy has nothing more to do.
fn every_line_arrives(engine: Engine) {
    for bytes in [40_000, payload_bytes()] {
        let directory = tempdir().expect("directory");
        let listener = listen(directory.path());
        let script = format!("exec nproxy --stats=json --tee journal:app peer write {bytes} 64K");
        let Some(launch) = with_own_run(engine, &script) else { return };
        let run = launch.directory(directory.path()).start();
        let (header, mut stream) = accept(&listener);
        assert_eq!(header.concat(), "app\n\n6\n0\n0\n0\n0\n");
        if bytes < payload_bytes() {
            let socket = OwnedFd::from(stream.get_ref().try_clone().expect("clone"));
            proc::until("all of it to lie in the socket", || {
                (waiting_bytes(&socket) + stream.buffer().len() >= bytes as usize).then_some(())
            });
        }
        let whole = Digest::of_payload(bytes, 1);
        assert_eq!(digest(&mut stream), whole);
        drop(stream);
        let run = run.finish();
        run.expect_code(0).expect_stdout(whole);
        run.expect(run.leg("journal:app", "bytes") == bytes, "all is counted");
        run.expect(run.leg("journal:app", "lost_bytes") == 0, "nothing is lost");
    }
}

/// The command is run all the same.
fn one_that_is_not_there(engine: Engine) {
    let directory = tempdir().expect("directory");
    std::fs::create_dir(directory.path().join("run")).expect("directory");
    let script = "exec nproxy --tee journal:app,wait=100ms echo x";
    let Some(launch) = with_own_run(engine, script) else { return };
    let run = launch.directory(directory.path()).finish();
    run.expect_code(0).expect_output("x\n");
    run.expect_message(&["journal:app", "No such file"]);
    run.expect_message(&["journal:app: 2 bytes were not written there"]);
}
