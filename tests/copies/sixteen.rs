//! Sixteen copies at once: two of every kind, one that works and one that fails in its own way.

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, channel};

use tempfile::tempdir;

use super::journal;
use crate::capture::digest;
use crate::harness::accept::Accept as _;
use crate::harness::{Engine, digest_of_file, on_both_engines, payload_bytes, payload_digest};
use crate::payload::Digest;

on_both_engines![every_kind_beside_one_that_fails];

/// The files of those that work.
const FILES: [&str; 5] = ["file", "app", "seg.got", "fifo.got", "command.got"];

/// What fails, and how it is told.
const FAILURES: [(&str, &str); 8] = [
    ("write to /dev/full", "No space left"),
    ("write to tiny/app", "No space left"),
    ("write to tiny/seg", "No space left"),
    ("write to leaves", "Broken pipe"),
    ("|head -c 10", "exit status 3"),
    ("unix:nowhere", "No such file"),
    ("tcp:", "it is tried again"),
    ("journal:bad", "it is tried again"),
];

fn every_kind_beside_one_that_fails(engine: Engine) {
    let directory = tempdir().expect("directory");
    let peers = Peers::new(directory.path());
    let script = format!(
        "mkdir tiny && mount -t tmpfs -o size=1m none tiny && mkfifo fifo leaves || exit 9
         cat fifo > fifo.got & head -c 1000 leaves > /dev/null &
         nproxy --tee file --tee app,append --tee seg,rotate=1M,keep=1000 --tee fifo \
            --tee '|cat > command.got' --tee unix:unix --tee tcp:{good} --tee journal:good \
            --tee /dev/full --tee tiny/app,append --tee tiny/seg,rotate=256K --tee leaves \
            --tee '|head -c 10 > /dev/null; exit 3' --tee unix:nowhere,full=drop,wait=100ms \
            --tee tcp:{bad},full=drop,wait=100ms --tee journal:bad,full=drop,wait=100ms \
            peer write {bytes} 64K
         status=$?; wait; cat seg.* seg > seg.got; exit $status",
        good = peers.good,
        bad = peers.bad,
        bytes = payload_bytes(),
    );
    let Some(launch) = journal::with_own_run(engine, &script) else { return };
    let run = launch.directory(directory.path()).finish();
    run.expect_code(0).expect_stdout(payload_digest());
    for name in FILES {
        assert_eq!(digest_of_file(&directory.path().join(name), 0), payload_digest(), "{name}");
    }
    for (kind, arrived) in peers.arrived {
        assert_eq!(arrived.recv().expect("a peer"), payload_digest(), "{kind}");
    }
    let said = run.stderr.text();
    for (what, why) in FAILURES {
        let told = said.lines().any(|line| line.contains(what) && line.contains(why));
        run.expect(told, &format!("{what}: {why}"));
    }
}

/// Those at the other ends of sockets.
struct Peers {
    good: std::net::SocketAddr,
    bad: std::net::SocketAddr,
    arrived: [(&'static str, Receiver<Digest>); 3],
}

impl Peers {
    fn new(directory: &std::path::Path) -> Peers {
        let unix = UnixListener::bind(directory.join("unix")).expect("bind");
        let [good, bad] = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").expect("bind"));
        let [good_at, bad_at] = [&good, &bad].map(|tcp| tcp.local_addr().expect("address"));
        let (to_unix, unix_arrived) = channel();
        std::thread::spawn(move || to_unix.send(digest(&mut unix.connection())));
        let (to_tcp, tcp_arrived) = channel();
        std::thread::spawn(move || to_tcp.send(digest(&mut good.connection())));
        // It takes a little, and is gone.
        std::thread::spawn(move || {
            let mut peer = bad.connection();
            drop(bad);
            peer.read_exact(&mut [0; 1000]).expect("read");
        });
        let (to_journal, journal_arrived) = channel();
        let listener = journal::listen(directory);
        std::thread::spawn(move || {
            loop {
                let (header, mut stream) = journal::accept(&listener);
                // The other one is always sent away.
                if header[0] == "good\n" {
                    let to_journal = to_journal.clone();
                    std::thread::spawn(move || to_journal.send(digest(&mut stream)));
                }
            }
        });
        let arrived = [("unix", unix_arrived), ("tcp", tcp_arrived), ("journal", journal_arrived)];
        Peers { good: good_at, bad: bad_at, arrived }
    }
}
