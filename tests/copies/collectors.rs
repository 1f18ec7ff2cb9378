//! Collectors that are absent at the start, close in mid-run, come back, and talk.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use tempfile::tempdir;

use super::network::{self, FAR_MACHINE, has_networks};
use crate::capture::waiting_bytes;
use crate::harness::accept::{Accept as _, free_address};
use crate::harness::{Engine, Launch, on_both_engines, payload_bytes, payload_digest};
use crate::proc;

on_both_engines![
    absent_at_the_start,
    one_that_closes_is_connected_again,
    one_that_closes_behind_a_slow_link_is_connected_again,
    one_that_is_long_gone_at_the_end_has_taken_all,
    nobody_is_its_own_collector,
    one_that_answers_is_read,
    one_that_reads_slowly_is_waited_for,
    one_that_closes_unread_at_the_end_is_told,
    one_that_closes_unread_before_is_told,
    one_that_has_said_its_end_and_closes_unread_is_told,
    one_that_takes_and_leaves_is_not_hurried,
    one_that_never_comes_is_left,
    a_name_that_cannot_be_resolved_is_an_error,
];

fn absent_at_the_start(engine: Engine) {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("socket");
    let run = Launch::nproxy(engine)
        .arg(format!("--tee=unix:{}", path.display()))
        .args(["peer", "write", &payload_bytes().to_string(), "64K"])
        .start();
    run.stderr.as_ref().expect("captured").wait_for("tried again", 1);
    let listener = UnixListener::bind(&path).expect("bind");
    let mut peer = listener.connection();
    assert_eq!(crate::capture::digest(&mut peer), payload_digest());
    let run = run.finish();
    run.expect_code(0).expect_stdout(payload_digest());
    run.expect_message(&["unix:", "connected"]);
}

/// Nothing of what is written while it is away is lost.
fn one_that_closes_is_connected_again(engine: Engine) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let script = "for n in 1 2 3 4 5; do echo $n; read -r go; done; echo end";
    let (reader, mut go) = std::io::pipe().expect("pipe");
    let run = Launch::nproxy(engine)
        .arg("--tee-strict")
        .arg(format!("--tee=tcp:{address}"))
        .args(["sh", "-c", script])
        .stdin(reader)
        .start();
    for number in 1..=5 {
        let mut peer = listener.connection();
        let mut line = [0; 2];
        peer.read_exact(&mut line).expect("line");
        assert_eq!(line, format!("{number}\n").as_bytes());
        close(peer);
        go.write_all(b"go\n").expect("write");
    }
    let mut peer = listener.connection();
    let mut rest = String::new();
    peer.read_to_string(&mut rest).expect("rest");
    assert_eq!(rest, "end\n");
    let run = run.finish();
    run.expect_code(0).expect_output("1\n2\n3\n4\n5\nend\n");
    run.expect(!run.stderr.text().contains("not written"), "nothing counts as lost");
}

/// The peer's refusal of the first byte takes as long as the link is down, and all the time nothing counts as delivered.
fn one_that_closes_behind_a_slow_link_is_connected_again(engine: Engine) {
    if !has_networks(&[&["python3", "--version"], &["ss", "-V"]]) {
        return;
    }
    let script = r#"
        mkfifo go; exec 3<>go
        nsenter -t "$far" -n python3 -c "
import socket
server = socket.create_server(('10.0.0.2', 5140))
first = server.accept()[0]
open('first', 'wb').write(first.recv(4))
first.close()
second = server.accept()[0].makefile('rb')
open('second', 'wb').write(second.read())
" &
        collector=$!
        nproxy --tee-strict --tee tcp:10.0.0.2:5140,wait=60s -- sh -c 'echo one; read -r word <&3; echo two; read -r word <&3; echo three' >out 2>said &
        nproxy=$!
        state() { ss -tni dst 10.0.0.2; }
        until state | grep -q CLOSE-WAIT || ! kill -0 "$nproxy"; do sleep .01; done
        ip link set near down
        echo >&3
        until state | grep -q 'backoff:[2-9]' || ! kill -0 "$nproxy"; do sleep .01; done
        ip link set near up
        echo >&3
        wait "$nproxy"; status=$?
        wait "$collector"
        cat said >&2
        kill "$far"
        cat first second
        exit "$status"
    "#;
    let directory = tempdir().expect("directory");
    let script = format!("{FAR_MACHINE}{script}");
    let run = network::run(engine, directory.path(), &script);
    run.expect_code(0).expect_output("one\ntwo\nthree\n");
}

/// One that has taken everything and closed may be so long gone at the end of the run that its kernel knows the connection no
/// more, and resets it.
fn one_that_is_long_gone_at_the_end_has_taken_all(engine: Engine) {
    if !has_networks(&[&["python3", "--version"], &["ss", "-V"]]) {
        return;
    }
    let script = r#"
        ip link set lo up
        echo 1 >/proc/sys/net/ipv4/tcp_fin_timeout
        mkfifo go; exec 3<>go
        python3 -c "
import socket
server = socket.create_server(('127.0.0.1', 5140))
open('listens', 'w').close()
peer = server.accept()[0]
print(peer.recv(4).decode(), end='', flush=True)
peer.close()
" &
        collector=$!
        until [ -e listens ]; do sleep .01; done
        nproxy --tee-strict --tee tcp:127.0.0.1:5140 -- sh -c 'echo one; read -r word <&3' &
        nproxy=$!
        wait "$collector"
        until ss -tan | grep -q CLOSE-WAIT || ! kill -0 "$nproxy"; do sleep .01; done
        while ss -tan | grep -q FIN-WAIT; do sleep .1; done
        echo >&3
        wait "$nproxy"
    "#;
    let directory = tempdir().expect("directory");
    let run = network::run(engine, directory.path(), script);
    run.expect_code(0).expect_output("one\none\n").expect_silent();
}

/// The kernel may give our end the very port at which nobody listens, and connect it to itself.
fn nobody_is_its_own_collector(engine: Engine) {
    if !has_networks(&[]) {
        return;
    }
    let script = "ip link set lo up
        echo 40000 40000 >/proc/sys/net/ipv4/ip_local_port_range || exit 9
        nproxy --tee-strict --tee tcp:127.0.0.1:40000,wait=1s -- echo x";
    let directory = tempdir().expect("directory");
    let run = network::run(engine, directory.path(), script);
    run.expect_code(125).expect_output("x\n").expect_message(&["Connection refused"]);
}

/// Closes a connection, and waits until the other side's kernel knows, and nobody has it open any more.
fn close(peer: TcpStream) {
    let ends = ports(&peer);
    peer.shutdown(Shutdown::Write).expect("shutdown");
    proc::until("an answer to our end", || (tcp_state(ends) != "04").then_some(()));
    drop(peer);
    until_closed(ends);
}

fn ports(peer: &TcpStream) -> [u16; 2] {
    [peer.local_addr(), peer.peer_addr()].map(|end| end.expect("address").port())
}

/// Another test's thread may be about to start a program, which has all our descriptors until then.
fn until_closed(ends: [u16; 2]) {
    // What no file stands for any more has inode 0.
    let is_open = || tcp_connection(ends).is_some_and(|fields| fields[9] != "0");
    proc::until("the connection to be closed", || (!is_open()).then_some(()));
}

/// The state of the connection between two ports of this machine: 04 is FIN-WAIT-1, where the end is not answered yet.
fn tcp_state(ends: [u16; 2]) -> String {
    tcp_connection(ends).expect("the connection")[3].clone()
}

/// The line of the system's table.
fn tcp_connection(ends: [u16; 2]) -> Option<Vec<String>> {
    let all = std::fs::read_to_string("/proc/net/tcp").expect("table");
    let ends = ends.map(|port| format!(":{port:04X}"));
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut lines = all.lines().map(fields);
    lines.find(|line| line[1].ends_with(&ends[0]) && line[2].ends_with(&ends[1]))
}

/// A peer that echoes everything would stop reading in the end.
fn one_that_answers_is_read(engine: Engine) {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).expect("bind");
    let echo = std::thread::spawn(move || {
        let peer = listener.connection();
        let (mut from, mut to) = (&peer, &peer);
        let mut bytes = vec![0; 65536];
        let mut total = 0;
        loop {
            match from.read(&mut bytes) {
                Ok(0) => return total,
                // After the last byte: answers that came too late have not been read.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return total,
                read => {
                    let len = read.expect("read");
                    total += len as u64;
                    // The last answers come when all has been read, and nobody need be there any more.
                    match to.write_all(&bytes[..len]) {
                        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                        result => result.expect("write"),
                    }
                }
            }
        }
    });
    let run = Launch::nproxy(engine)
        .arg(format!("--tee=unix:{}", path.display()))
        .args(["peer", "write", &payload_bytes().to_string(), "64K"])
        .finish();
    run.expect_code(0).expect_stdout(payload_digest());
    run.expect(run.stderr.text().is_empty(), "nothing is said");
    assert_eq!(echo.join().expect("echo"), payload_bytes());
}

fn one_that_never_comes_is_left(engine: Engine) {
    for (flags, status) in [("", 0), ("--tee-strict", 125)] {
        let run = Launch::nproxy(engine)
            .words(flags)
            .arg(format!("--tee=tcp:{},wait=300ms", free_address()))
            .words("echo x")
            .finish();
        run.expect_code(status).expect_output("x\n");
        run.expect_message(&["Connection refused"]);
        run.expect_message(&["2 bytes were not written there"]);
    }
}

fn a_name_that_cannot_be_resolved_is_an_error(engine: Engine) {
    let run = Launch::nproxy(engine).words("--tee tcp:no.such.host.invalid:9 echo x").finish();
    run.expect_code(125).expect_output("").expect_one_line(&["tcp:no.such.host.invalid:9"]);
}

/// One that takes little at a time gets the time that it needs.
fn one_that_reads_slowly_is_waited_for(engine: Engine) {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).expect("bind");
    let (reader, mut go) = std::io::pipe().expect("pipe");
    let run = Launch::nproxy(engine)
        .arg("--tee-strict")
        .arg(format!("--tee=unix:{},wait=3s", path.display()))
        .args(["sh", "-c", "for n in 1 2 3 4 5 6 7 8 9; do echo $n; read -r go; done"])
        .stdin(reader)
        .start();
    let mut peer = listener.connection();
    // Each line is sent by itself: only whole pieces leave the socket's queue.
    for number in 1..=9 {
        expect_waiting(&peer, 2 * number);
        go.write_all(b"\n").expect("write");
    }
    let mut lines = String::new();
    for _ in 1..=9 {
        std::thread::sleep(Duration::from_millis(500));
        let mut line = [0; 2];
        peer.read_exact(&mut line).expect("line");
        lines.push_str(std::str::from_utf8(&line).expect("text"));
    }
    peer.read_to_string(&mut lines).expect("end");
    assert_eq!(lines, "1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    run.finish().expect_code(0).expect_silent();
}

/// Waits until so many bytes lie in a socket unread.
fn expect_waiting(peer: &impl AsFd, bytes: usize) {
    let socket = peer.as_fd().try_clone_to_owned().expect("clone");
    proc::until_or(
        &format!("{bytes} bytes in the socket"),
        || (waiting_bytes(&socket) == bytes).then_some(()),
        || waiting_bytes(&socket).to_string(),
    );
}

/// What it was sent and has not read is lost, although the copy had got rid of all.
fn one_that_closes_unread_at_the_end_is_told(engine: Engine) {
    for (flags, status) in [("", 0), ("--tee-strict", 125)] {
        let directory = tempdir().expect("directory");
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).expect("bind");
        let run = Launch::nproxy(engine)
            .words(flags)
            .arg(format!("--tee=unix:{}", path.display()))
            .words("echo x")
            .start();
        let peer = listener.connection();
        proc::until("no more to come", || {
            let ended = PollFlags::from_bits_retain(nix::libc::POLLRDHUP);
            let mut fds = [PollFd::new(peer.as_fd(), ended)];
            (poll(&mut fds, PollTimeout::ZERO) == Ok(1)).then_some(())
        });
        drop(peer);
        let run = run.finish();
        run.expect_code(status).expect_output("x\n");
        run.expect_message(&["write to unix:", "Connection reset by peer"]);
    }
}

/// And so it is if another connection gets what comes later.
fn one_that_closes_unread_before_is_told(engine: Engine) {
    for (flags, status) in [("", 0), ("--tee-strict", 125)] {
        let directory = tempdir().expect("directory");
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).expect("bind");
        let (reader, mut go) = std::io::pipe().expect("pipe");
        let run = Launch::nproxy(engine)
            .words(flags)
            .arg(format!("--tee=unix:{}", path.display()))
            .args(["sh", "-c", "echo one; read -r go; echo two"])
            .stdin(reader)
            .start();
        let peer = listener.connection();
        expect_waiting(&peer, 4);
        drop(peer);
        let mut peer = listener.connection();
        go.write_all(b"\n").expect("write");
        let mut rest = String::new();
        peer.read_to_string(&mut rest).expect("rest");
        assert_eq!(rest, "two\n");
        let run = run.finish();
        run.expect_code(status).expect_output("one\ntwo\n");
        run.expect_message(&["write to unix:", "Connection reset by peer; it is tried again"]);
        run.expect_message(&["unix:", "a connection was reset"]);
    }
}

/// TCP calls a reset by another name once the peer has said that it says no more.
fn one_that_has_said_its_end_and_closes_unread_is_told(engine: Engine) {
    for (flags, status) in [("", 0), ("--tee-strict", 125)] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let (reader, mut go) = std::io::pipe().expect("pipe");
        let script = "echo one; read -r go; echo two; read -r go; echo three";
        let run = Launch::nproxy(engine)
            .words(flags)
            .arg(format!("--tee=tcp:{address}"))
            .args(["sh", "-c", script])
            .stdin(reader)
            .start();
        let mut peer = listener.connection();
        let mut line = [0; 4];
        peer.read_exact(&mut line).expect("line");
        peer.shutdown(Shutdown::Write).expect("shutdown");
        go.write_all(b"\n").expect("write");
        // The first byte has shown that it reads.
        expect_waiting(&peer, 4);
        let ends = ports(&peer);
        drop(peer);
        until_closed(ends);
        let mut peer = listener.connection();
        go.write_all(b"\n").expect("write");
        let mut rest = String::new();
        peer.read_to_string(&mut rest).expect("rest");
        assert_eq!(rest, "three\n");
        let run = run.finish();
        run.expect_code(status).expect_output("one\ntwo\nthree\n");
        run.expect_message(&["tcp:", "a connection was reset"]);
    }
}

/// A balancer whose servers are gone accepts, takes what comes, and closes.
fn one_that_takes_and_leaves_is_not_hurried(engine: Engine) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let run = Launch::nproxy(engine)
        .arg(format!("--tee=tcp:{address},full=drop"))
        .args(["--", "yes"])
        .stdout(std::fs::File::create("/dev/null").expect("null"))
        .start();
    let (mut connections, since) = (0, Instant::now());
    while connections < 5 || since.elapsed() < Duration::from_secs(1) {
        let mut peer = listener.connection();
        peer.read_exact(&mut [0]).expect("a byte");
        drop(peer);
        connections += 1;
    }
    // One that was begun before the first look is one more.
    let most = since.elapsed().as_millis() / 100 + 2;
    assert!(connections <= most, "{connections} connections in {:?}", since.elapsed());
    run.signal(Signal::SIGTERM);
    run.finish().expect_signal(Signal::SIGTERM);
}
