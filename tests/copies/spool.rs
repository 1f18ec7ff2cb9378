//! Collectors that go away and lose nothing, because what is sent to them lies in a spool.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::{TempDir, tempdir};

use super::network::{self, FAR_MACHINE, has_networks};
use super::segments::numbers;
use crate::harness::accept::{Accept as _, free_address};
use crate::harness::{Engine, Launch, need, on_both_engines, payload_bytes, payload_digest};
use crate::outcome::Finished;
use crate::proc;

on_both_engines![
    every_byte_arrives,
    a_collector_that_comes_and_goes_gets_every_line,
    at_a_unix_socket_too,
    what_is_left_is_sent_first_by_the_next_run,
    an_unread_end_is_sent_again,
    a_killed_run_loses_nothing,
    a_spool_has_one_user,
    a_full_one_waits,
    a_full_one_drops,
    a_full_disk_is_waited_for,
    a_directory_that_cannot_be_is_refused,
    a_segment_that_others_remove_is_told,
    an_unfinished_line_is_ended,
    a_collector_that_is_gone_costs_nothing,
    a_link_that_was_cut_carries_on,
];

/// A directory for the spool, and an address at which nobody listens yet.
struct Place {
    directory: TempDir,
    address: std::net::SocketAddr,
}

impl Place {
    fn new() -> Place {
        Place { directory: tempdir().expect("directory"), address: free_address() }
    }

    /// `nproxy --tee=tcp:…,spool=…` with further keys.
    fn launch(&self, engine: Engine, keys: &str) -> Launch {
        let tee = format!("--tee=tcp:{},spool={}{keys}", self.address, self.path().display());
        Launch::nproxy(engine).arg("--stats=json").arg(tee)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn copy(&self) -> String {
        format!("tcp:{}", self.address)
    }

    /// A collector that begins to listen now, where others have before.
    fn listen(&self) -> TcpListener {
        proc::until("the address", || TcpListener::bind(self.address).ok())
    }

    /// What the spool holds.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).expect("directory");
        let names = entries.map(|entry| entry.expect("entry").file_name().into_string());
        names.map(|name| name.expect("text")).filter(|name| !name.starts_with('.')).collect()
    }

    fn expect_empty(&self) {
        assert_eq!(self.names(), Vec::<String>::new(), "nothing stays");
    }
}

fn collect(mut peer: impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    peer.read_to_end(&mut all).expect("read");
    all
}

fn spooled(run: &Finished, copy: &str) -> u64 {
    run.leg(copy, "spooled_bytes")
}

/// What has arrived over several connections, without what was sent again: each begins with a line that is known, or the
/// next one. Returns how many bytes came more than once.
fn join(all: &[u8], connections: &[Vec<u8>]) -> usize {
    let (mut reached, mut doubled) = (0, 0);
    for bytes in connections {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { continue };
        let first = &bytes[..=end];
        let at = match all.starts_with(first) {
            true => 0,
            false => {
                let mut line = b"\n".to_vec();
                line.extend(first);
                let found = memchr::memmem::find(all, &line);
                found.expect("a connection begins with a line") + 1
            }
        };
        assert!(at <= reached, "{} bytes are missing at {reached}", at - reached);
        assert!(all[at..].starts_with(bytes), "order is kept");
        doubled += (reached - at).min(bytes.len());
        reached = reached.max(at + bytes.len());
    }
    assert_eq!(reached, all.len(), "all has arrived");
    doubled
}

fn every_byte_arrives(engine: Engine) {
    let place = Place::new();
    let listener = place.listen();
    let run = place
        .launch(engine, "")
        .args(["peer", "write", &payload_bytes().to_string(), "64K"])
        .start();
    let mut peer = listener.connection();
    let got = crate::capture::digest(&mut peer);
    drop(peer);
    assert_eq!(got, payload_digest());
    let run = run.finish();
    run.expect_code(0).expect_stdout(payload_digest());
    run.expect(run.leg(place.copy(), "bytes") == payload_bytes(), "all is counted");
    run.expect(run.leg(place.copy(), "lost_bytes") == 0, "nothing is lost");
    place.expect_empty();
}

/// Reads what comes, up to so many bytes, and goes away with the rest unread.
fn read_some(peer: &mut impl Read, most: usize) -> Vec<u8> {
    let mut all = Vec::new();
    peer.take(most as u64).read_to_end(&mut all).expect("read");
    all
}

fn a_collector_that_comes_and_goes_gets_every_line(engine: Engine) {
    let place = Place::new();
    let all = numbers(3_000_000);
    let run = place
        .launch(engine, "")
        .words("seq 1 3000000")
        .stdout(fs::File::create("/dev/null").expect("null"))
        .start();
    let mut connections = Vec::new();
    // The last of them stays to the end.
    for turn in 0..=20 {
        let listener = place.listen();
        let mut peer = listener.connection();
        match turn {
            20 => connections.push(collect(&peer)),
            turn => connections.push(read_some(&mut peer, 777_777 * (1 + turn % 7))),
        }
    }
    let run = run.finish();
    run.expect_code(0);
    let doubled = join(&all, &connections);
    let resent = run.leg(place.copy(), "resent_bytes") as usize;
    run.expect(resent >= doubled, &format!("{resent} bytes were counted, {doubled} came twice"));
    run.expect(run.leg(place.copy(), "bytes") == all.len() as u64, "each byte counts once");
    place.expect_empty();
}

fn at_a_unix_socket_too(engine: Engine) {
    let directory = tempdir().expect("directory");
    let (path, spool) = (directory.path().join("socket"), directory.path().join("spool"));
    fs::create_dir(&spool).expect("directory");
    let all = numbers(1_000_000);
    let run = Launch::nproxy(engine)
        .arg(format!("--tee=unix:{},spool={}", path.display(), spool.display()))
        .words("seq 1 1000000")
        .stdout(fs::File::create("/dev/null").expect("null"))
        .start();
    let mut connections = Vec::new();
    for turn in 0..=5 {
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("bind");
        let mut peer = listener.connection();
        match turn {
            5 => connections.push(collect(&peer)),
            _ => connections.push(read_some(&mut peer, 1_000_000)),
        }
    }
    run.finish().expect_code(0);
    join(&all, &connections);
}

fn what_is_left_is_sent_first_by_the_next_run(engine: Engine) {
    let place = Place::new();
    for (from, to) in [(1, 300_000), (300_001, 2_000_000)] {
        let run = place
            .launch(engine, ",wait=100ms")
            .words(&format!("seq {from} {to}"))
            .stdout(fs::File::create("/dev/null").expect("null"))
            .finish();
        let all = numbers(to).len() as u64;
        run.expect_code(0).expect_message(&[&format!("{all} bytes stay in")]);
        run.expect(run.leg(place.copy(), "lost_bytes") == 0, "nothing is lost");
        run.expect(spooled(&run, &place.copy()) == all, "what is left is counted");
    }
    let listener = place.listen();
    let run = place
        .launch(engine, "")
        .words("seq 2000001 2000010")
        .stdout(fs::File::create("/dev/null").expect("null"))
        .start();
    let peer = listener.connection();
    let got = collect(&peer);
    // At once: one that does not close does not count as having read.
    drop(peer);
    assert!(got == numbers(2_000_010), "the earlier runs first");
    let run = run.finish();
    run.expect_code(0).expect_message(&["of an earlier run are sent first"]);
    place.expect_empty();
}

/// A collector that has not closed at the end may not have read: the next run sends it again.
fn an_unread_end_is_sent_again(engine: Engine) {
    let place = Place::new();
    let listener = place.listen();
    let run = place.launch(engine, ",wait=200ms").words("echo unread").finish();
    run.expect_code(0).expect_message(&["0 bytes stay in", "and 7 that were sent"]);
    let peer = listener.connection();
    assert_eq!(collect(&peer), b"unread\n");
    drop(peer);
    let run = place.launch(engine, "").words("echo more").start();
    let peer = listener.connection();
    assert_eq!(collect(&peer), b"unread\nmore\n");
    drop(peer);
    let run = run.finish();
    run.expect_code(0);
    run.expect(run.leg(place.copy(), "resent_bytes") == 7, "what came twice is counted");
}

/// kill -9 of nproxy at any moment, with the collector there or away.
fn a_killed_run_loses_nothing(engine: Engine) {
    let place = Place::new();
    let mut connections = Vec::new();
    let mut expected: Vec<Vec<u8>> = Vec::new();
    for turn in 0..6u64 {
        // Every other run has a collector.
        let listener = (turn % 2 == 1).then(|| place.listen());
        let first = 10_000_000 * (turn + 1);
        let size = || {
            let paths = place.names().into_iter().map(|name| place.path().join(name));
            paths.filter_map(|path| Some(fs::metadata(path).ok()?.len())).sum::<u64>()
        };
        let before = size();
        let script = format!("seq {first} {}; exec sleep 100", first + 5_000_000);
        let run = place
            .launch(engine, "")
            .args(["sh", "-c", &script])
            .stdout(fs::File::create("/dev/null").expect("null"))
            .start();
        let reading =
            listener.map(|listener| std::thread::spawn(move || collect(listener.connection())));
        let since = Instant::now();
        let moment = Duration::from_millis(17 * turn);
        // More than the newline that ends a torn line; with a collector what grows may be gone before it is seen.
        let child = proc::only_child(run.pid());
        let all_written = || proc::command_line(child).starts_with("sleep");
        let mut grown = false;
        proc::until("bytes in the spool, and a while", || {
            grown |= size() > before + 1 || all_written();
            (grown && since.elapsed() > moment).then_some(())
        });
        run.signal(Signal::SIGKILL);
        drop(run);
        // It may not have come to connect.
        drop(TcpStream::connect(place.address));
        connections.extend(reading.map(|reading| reading.join().expect("collector")));
        expected.push(format!("{first}\n").into_bytes());
    }
    let listener = place.listen();
    let run = place.launch(engine, "").words("echo end").start();
    let peer = listener.connection();
    connections.push(collect(&peer));
    drop(peer);
    run.finish().expect_code(0).expect_output("end\n");
    expect_runs_without_gaps(&connections, &expected);
    place.expect_empty();
}

/// Of each run a beginning has arrived, in order and without a gap, whatever came twice; the last line of one that was
/// killed may be torn.
fn expect_runs_without_gaps(connections: &[Vec<u8>], first_lines: &[Vec<u8>]) {
    let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).expect("text");
    let connections: Vec<String> = connections.iter().map(text).collect();
    let mut next: Vec<u64> = first_lines
        .iter()
        .map(|line| String::from_utf8_lossy(line).trim().parse().expect("a number"))
        .collect();
    let starts = next.clone();
    for line in connections.iter().flat_map(|text| text.lines()) {
        let Ok(number) = line.parse::<u64>() else { continue };
        let Some(run) = starts.iter().position(|start| number / 10_000_000 == start / 10_000_000)
        else {
            continue;
        };
        assert!(number <= next[run], "{} to {number} are missing", next[run]);
        next[run] = next[run].max(number + 1);
    }
    for (run, next) in next.iter().enumerate() {
        assert!(*next > starts[run], "run {run} has left something");
    }
    assert!(connections.last().is_some_and(|text| text.ends_with("\nend\n")));
}

fn a_spool_has_one_user(engine: Engine) {
    let place = Place::new();
    let first =
        place.launch(engine, "").words("sh").args(["-c", "echo one; exec sleep 100"]).start();
    let current = place.path().join("spool");
    proc::until("the first line", || (fs::read(&current).ok()? == b"one\n").then_some(()));
    let second = place.launch(engine, "").words("touch started").directory(place.path()).finish();
    second.expect_code(125).expect_one_line(&["spool", "in use by another nproxy"]);
    assert!(!place.path().join("started").exists());
    drop(first);
    // Nor by two copies of one run.
    let spool = place.path().display();
    let run = Launch::nproxy(engine)
        .arg(format!("--tee=tcp:127.0.0.1:1,spool={spool}"))
        .arg(format!("--tee=tcp:127.0.0.1:2,spool={spool}"))
        .words("echo x")
        .finish();
    run.expect_code(125).expect_one_line(&["in use by another nproxy"]);
}

/// Everything waits, and goes on once the collector is there.
fn a_full_one_waits(engine: Engine) {
    let place = Place::new();
    let run = place
        .launch(engine, ":2M")
        .args(["peer", "write", &payload_bytes().to_string(), "64K"])
        .start();
    run.stderr.as_ref().expect("captured").wait_for("it is full", 1);
    let size = fs::metadata(place.path().join("spool")).expect("spool").len();
    assert!(size <= 2 << 20, "{size}");
    let listener = place.listen();
    let mut peer = listener.connection();
    assert_eq!(crate::capture::digest(&mut peer), payload_digest());
    drop(peer);
    run.finish().expect_code(0).expect_stdout(payload_digest());
    place.expect_empty();
}

/// Nothing waits, and what has no room is counted.
fn a_full_one_drops(engine: Engine) {
    let place = Place::new();
    let run = place
        .launch(engine, ":2M,full=drop,wait=100ms")
        .args(["peer", "write", &payload_bytes().to_string(), "64K"])
        .finish();
    run.expect_code(0).expect_stdout(payload_digest());
    run.expect_message(&["bytes were not written there"]);
    let lost = run.leg(place.copy(), "lost_bytes");
    run.expect(lost > 0 && lost < payload_bytes(), "some are dropped");
    run.expect(spooled(&run, &place.copy()) == 2 << 20, "as much as may be is kept");
}

fn a_directory_that_cannot_be_is_refused(engine: Engine) {
    let place = Place::new();
    fs::write(place.path().join("file"), "").expect("write");
    fs::create_dir_all(place.path().join("odd/spool")).expect("directory");
    let cases = [
        ("nowhere", "No such file or directory"),
        ("file", "Not a directory"),
        ("odd", "spool"),
        // Not writable, whoever tests.
        ("/proc/self", "spool"),
        ("", "expected a value"),
    ];
    for (directory, why) in cases {
        let run = Launch::nproxy(engine)
            .arg(format!("--tee=tcp:{},spool={directory}", place.address))
            .words("touch started")
            .directory(place.path())
            .finish();
        run.expect_code(125).expect_output("").expect_one_line(&["spool", why]);
        assert!(!place.path().join("started").exists(), "nothing was started");
    }
    let run = Launch::nproxy(engine)
        .words("--tee log,spool=. touch started")
        .directory(place.path())
        .finish();
    run.expect_code(125).expect_one_line(&["spool is for tcp: and unix:"]);
}

fn a_segment_that_others_remove_is_told(engine: Engine) {
    let place = Place::new();
    let all = numbers(4_000_000);
    let run = place
        .launch(engine, ",wait=100ms")
        .words("seq 1 4000000")
        .stdout(fs::File::create("/dev/null").expect("null"))
        .finish();
    run.expect_code(0);
    let mut finished: Vec<String> = place.names();
    finished.retain(|name| name.starts_with("spool.2"));
    finished.sort();
    assert!(finished.len() >= 3, "{finished:?}");
    let listener = place.listen();
    // While the run has it in its list.
    let run = place.launch(engine, "").args(["sh", "-c", "read -r go; echo end"]);
    let (reader, go) = std::io::pipe().expect("pipe");
    let run = run.stdin(reader).start();
    run.stderr.as_ref().expect("captured").wait_for("are sent first", 1);
    let mut peer: TcpStream = listener.connection();
    let second = place.path().join(&finished[2]);
    let size = fs::metadata(&second).expect("segment").len() as usize;
    fs::remove_file(second).expect("remove");
    drop(go);
    let got = {
        let mut got = Vec::new();
        peer.read_to_end(&mut got).expect("read");
        got
    };
    drop(peer);
    let run = run.finish();
    run.expect_code(0).expect_message(&["a segment is gone, and", "bytes with it"]);
    run.expect(got.len() + size == all.len() + 4, "the rest has arrived");
}

/// Bytes without a newline at the end of a run do not become one line with the next run's.
fn an_unfinished_line_is_ended(engine: Engine) {
    let place = Place::new();
    let run = place.launch(engine, ",wait=100ms").words("printf one").finish();
    run.expect_code(0);
    let listener = place.listen();
    let run = place.launch(engine, "").words("printf two").start();
    let peer = listener.connection();
    assert_eq!(collect(&peer), b"one\ntwo");
    drop(peer);
    run.finish().expect_code(0);
    place.expect_empty();
}

/// One that has closed while nothing is to be sent is not asked again and again.
fn a_collector_that_is_gone_costs_nothing(engine: Engine) {
    let directory = tempdir().expect("directory");
    let path = directory.path().join("socket");
    let spool = directory.path().join("spool");
    fs::create_dir(&spool).expect("directory");
    for keys in [String::new(), format!(",spool={}", spool.display())] {
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("bind");
        let (reader, go) = std::io::pipe().expect("pipe");
        let run = Launch::nproxy(engine)
            .arg(format!("--tee=unix:{}{keys}", path.display()))
            .args(["sh", "-c", "echo one; read -r go; echo two"])
            .stdin(reader)
            .start();
        let mut peer = listener.connection();
        assert_eq!(read_some(&mut peer, 4), b"one\n");
        drop(peer);
        drop(listener);
        fs::remove_file(&path).expect("remove");
        run.stderr.as_ref().expect("captured").wait_for("tried again", 1);
        let used = || proc::cpu_time(run.pid());
        let (before, since) = (used(), Instant::now());
        proc::until("a second", || (since.elapsed() > Duration::from_secs(1)).then_some(()));
        let used = used().saturating_sub(before);
        assert!(used < Duration::from_millis(300), "{used:?} of processor time in a second{keys}");
        let listener = UnixListener::bind(&path).expect("bind");
        drop(go);
        let peer = listener.connection();
        let got = collect(&peer);
        assert!(got == b"two\n" || got == b"one\ntwo\n", "{:?}", String::from_utf8_lossy(&got));
        drop(peer);
        run.finish().expect_code(0);
    }
}

/// The collector's machine is gone, and back before TCP would try again: a new connection is made as soon as that is known.
fn a_link_that_was_cut_carries_on(engine: Engine) {
    if !has_networks(&[&["socat", "-V"]]) {
        return;
    }
    let script = r#"
        mkdir spool got; mkfifo go
        nsenter -t "$far" -n socat -u TCP-LISTEN:5140,fork,reuseaddr 'SYSTEM:cat >got/$SOCAT_PEERPORT' &
        collector=$!
        nproxy --tee tcp:10.0.0.2:5140,spool=spool,wait=60s -- \
            sh -c 'seq 1 1000; read -r word <go; seq 1001 300000' >/dev/null 2>said &
        nproxy=$!
        until [ "$(cat got/* 2>/dev/null | wc -l)" = 1000 ]; do sleep .1; done
        ip link set near down
        echo >go
        until grep -q 'timed out' said || ! kill -0 "$nproxy"; do sleep .1; done
        ip link set near up
        wait "$nproxy"; status=$?
        cat said >&2
        kill "$collector" "$far"
        exit "$status"
    "#;
    let directory = tempdir().expect("directory");
    let script = format!("{FAR_MACHINE}{script}");
    let run = network::run(engine, directory.path(), &script);
    run.expect_code(0);
    let entries = fs::read_dir(directory.path().join("got")).expect("directory");
    let mut connections: Vec<_> =
        entries.map(|entry| fs::read(entry.expect("entry").path()).expect("a file")).collect();
    connections.sort_by_key(Vec::len);
    run.expect(connections.len() >= 2, "another connection was made");
    join(&numbers(300_000), &connections);
}

/// Before the first byte, and where the next segment would begin: nothing is lost, and nothing counts as gone.
fn a_full_disk_is_waited_for(engine: Engine) {
    if !need(&["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/run"]) {
        return;
    }
    // No room for a byte; and none for another file: the directory, the filler, the cursor and the first segment are four.
    for (options, filler) in [("size=16m", "16m"), ("nr_inodes=4", "0")] {
        let place = Place::new();
        let script = format!(
            "mkdir spool && mount -t tmpfs -o {options} none spool && head -c {filler} /dev/zero > spool/.filler
             [ -e spool/.filler ] || exit 9
             nproxy --tee-strict --tee tcp:{},spool=spool,wait=60s seq 1 1500000 > /dev/null 2> said & nproxy=$!
             until grep -q 'No space left' said || ! kill -0 $nproxy; do sleep 0.02; done
             rm spool/.filler; touch free; wait $nproxy; status=$?; cat said >&2; exit $status",
            place.address
        );
        let run = Launch::program("unshare")
            .args(["-rm", "bash", "-c", &script])
            .env("NPROXY_ENGINE", engine.name())
            .directory(place.path())
            .start();
        proc::until("room", || place.path().join("free").exists().then_some(()));
        let listener = place.listen();
        let peer = listener.connection();
        assert!(collect(&peer) == numbers(1_500_000), "all has arrived, {options}");
        drop(peer);
        let run = run.finish();
        run.expect_code(0).expect_message(&["spool spool: No space left on device"]);
        run.expect(!run.stderr.text().contains("is gone"), "nothing counts as gone");
    }
}
