//! The reports from figures that nobody has measured: no session, no command.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde_json::Value;

use super::crash::{self, Evidence};
use super::figures::{self, Figures};
use super::recorder::{Before, Recorder};
use super::stages::{MemorySnapshot, Stages, allowed_level};
use super::stats;
use crate::config::{Destination, Level, Stats, StatsFormat, Unit};
use crate::memory::Account;
use crate::memory::policy::{Changes, Effects, Flow, Observation, Stage, TextModes};
use crate::observe::report::CopyReport;
use crate::observe::status::Subject;
use crate::process::exit::Exit;
use crate::relay::{Endpoint, Relay, Role, Route, Stream};
use crate::ring::{Engine, Ring, Workers};

fn some_figures() -> Figures {
    Figures {
        subject: Subject { pid: 7, child: Some(8), command: vec!["make".into(), "-j8".into()] },
        engine: "epoll",
        elapsed: Duration::from_millis(2500),
        system_calls: 99,
        streams: Vec::new(),
        copies: vec![CopyReport {
            name: "log".into(),
            bytes: 5,
            lost_bytes: 2,
            resent_bytes: 0,
            spooled_bytes: 0,
        }],
        memory: None,
    }
}

fn snapshot(flow: Flow, resident: u64) -> MemorySnapshot {
    let effects =
        Effects { observation: Observation::Summary, history: 128, text: TextModes::Off, flow };
    let account = Account::default();
    MemorySnapshot {
        account,
        resident,
        stage: Stage::Critical,
        effects,
        changes: Changes::default(),
        heaps: None,
        heap_change: None,
    }
}

#[test]
fn a_status_is_the_figures_of_the_moment() {
    let json: Value = serde_json::from_str(&some_figures().status().json()).expect("JSON");
    assert_eq!((&json["pid"], &json["child"]), (&7.into(), &8.into()));
    assert_eq!(json["command"], serde_json::json!(["make", "-j8"]));
    assert_eq!((&json["engine"], &json["uptime_seconds"]), (&"epoll".into(), &2.5.into()));
    assert_eq!(json["copies"][0]["lost_bytes"], 2);
    assert!(json.get("memory").is_none());
}

#[test]
fn statistics_replace_what_the_file_held() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("stats");
    fs::write(&path, "x".repeat(100_000)).expect("an old report");
    let place = Destination::Path(path.clone().into());
    let wanted = Stats { format: StatsFormat::Json, file: Some(place.clone()) };
    let file = stats::open_file(&place).expect("the file");
    assert_eq!(fs::metadata(&path).expect("the old report").len(), 100_000);
    let exit = Exit::Signal(libc::SIGTERM);
    stats::write(&wanted, Some(file), &some_figures(), exit, Level::Full, None);
    let json: Value =
        serde_json::from_str(&fs::read_to_string(&path).expect("the report")).expect("JSON");
    assert_eq!((&json["exit_status"], &json["system_calls"]), (&143.into(), &99.into()));
}

#[test]
fn a_crash_report_is_for_abnormal_deaths_only() {
    let directory = tempfile::tempdir().expect("directory");
    let reports = directory.path().join("reports");
    let started = Instant::now();
    let recorder = Recorder::new(Level::Full, started);
    let mut stages = Stages::default();
    stages.sampled(snapshot(Flow::Open, 4096), Duration::from_millis(10), started);
    let figures = some_figures();
    let report = |exit| {
        let (figures, recorder, stages) = (&figures, &recorder, &stages);
        let evidence = Evidence {
            exit,
            figures,
            recorder,
            stages,
            memory: None,
            oom_kills: 1,
            heap_records: &[],
        };
        crash::report(reports.as_os_str(), evidence).expect("a directory to write in")
    };
    for asked_for in [Exit::Status(0), Exit::Status(139), Exit::Signal(libc::SIGTERM)] {
        assert_eq!(report(asked_for), None);
    }
    assert!(!reports.exists(), "nothing was made for those");
    let path = report(Exit::Signal(libc::SIGSEGV)).expect("a report");
    let json: Value = serde_json::from_slice(&fs::read(path).expect("the report")).expect("JSON");
    assert_eq!((&json["signal_name"], &json["exit_status"]), (&"SIGSEGV".into(), &139.into()));
    assert_eq!(json["memory_history"][0]["resident_bytes"], 4096);
    assert_eq!((&json["session"]["pid"], &json["oom_kills"]), (&7.into(), &1.into()));
}

#[test]
fn a_crash_directory_is_checked_before_the_run() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("file");
    fs::write(&file, "").expect("a file");
    let check = |path: &Path| {
        crash::check_directory(path).map_err(|error| error.raw_os_error().map(Errno::from_raw))
    };
    let new = directory.path().join("new");
    assert_eq!(check(&new), Ok(()));
    assert!(!new.exists(), "nothing is left behind");
    assert_eq!(check(directory.path()), Ok(()));
    assert_eq!(check(&file), Err(Some(Errno::ENOTDIR)));
    assert_eq!(check(&file.join("below")), Err(Some(Errno::ENOTDIR)));
    assert_eq!(check(&directory.path().join("a/b")), Err(Some(Errno::ENOENT)));
    // To root every mode allows everything; what the kernel makes up takes no file all the same.
    assert!(check(Path::new("/proc/self/none")).is_err() && check(Path::new("/proc")).is_err());
    assert_eq!(fs::read_dir(directory.path()).expect("directory").count(), 1, "only the file");
}

#[test]
fn the_time_behind_a_closed_gate_adds_up() {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let mut stages = Stages::default();
    assert_eq!(stages.status().map(|status| status.gate), None);
    for (millis, flow, change) in [
        (0, Flow::Open, None),
        (100, Flow::Trickle, Some("closed")),
        (200, Flow::Trickle, None),
        (400, Flow::Drain, Some("draining")),
        (500, Flow::Trickle, Some("closed")),
    ] {
        let changed = stages.sampled(snapshot(flow, 1), Duration::from_millis(millis), at(millis));
        assert_eq!(changed.map(|change| change.0), change, "at {millis}");
    }
    assert_eq!(stages.gated(at(600)), Duration::from_millis(400));
    stages.command_ended(at(600));
    assert_eq!(stages.gated(at(9000)), Duration::from_millis(400));
    assert_eq!(stages.samples().count(), 5);
    assert_eq!(allowed_level(snapshot(Flow::Open, 1).effects), Level::Summary);
}

/// A relay between two pipes that has carried `bytes`, recorded as it went.
fn recorded(bytes: usize, level: Level) -> (Vec<Relay>, Recorder, u64) {
    let (from, source) = std::io::pipe().expect("a pipe");
    let (sink, to) = std::io::pipe().expect("a pipe");
    std::thread::spawn(move || std::io::Write::write_all(&mut &source, &vec![b'x'; bytes]));
    let drained = std::thread::spawn(move || std::io::copy(&mut &sink, &mut std::io::sink()));
    let mut ring = Ring::open(Engine::Epoll, Workers { most: 3, needed: true }).expect("a ring");
    let end = |fd: OwnedFd| Endpoint::new(fd).expect("an open pipe");
    let route = Route {
        stream: Stream::Stdout,
        role: Role::Only,
        source: end(from.into()),
        sink: end(to.into()),
        source_name: "source".into(),
        sink_name: "sink".into(),
        text: None,
        rate: None,
        copies: Vec::new(),
        beyond: None,
        instead: None,
    };
    let mut relay = Relay::new(0, route, None, Duration::ZERO, &mut ring).expect("a relay");
    let (mut recorder, mut delivered) = (Recorder::new(level, Instant::now()), 0);
    while relay.ended().is_none() {
        let now = Instant::now();
        relay.on_time(&mut ring, now).expect("the ring");
        relay.advance(&mut ring, now).expect("the ring");
        ring.wait(Some(Duration::from_secs(60))).expect("the ring");
        while let Some(completion) = ring.next_completion() {
            let before = Before::new(&completion, &relay);
            relay.complete(completion, &mut ring, Instant::now()).expect("the ring");
            let delivery = recorder.completed(before, &relay, Instant::now());
            delivered += delivery.map_or(0, |delivery| u64::from(delivery.size));
        }
    }
    drop(ring);
    drained.join().expect("the reader").expect("read");
    (vec![relay], recorder, delivered)
}

#[test]
fn what_is_recorded_adds_up_to_what_was_delivered() {
    const BYTES: usize = 3 << 20;
    let (relays, recorder, delivered) = recorded(BYTES, Level::Full);
    assert_eq!((figures::read(&relays, Unit::Bytes), delivered), (BYTES as u64, BYTES as u64));
    let elapsed = Duration::from_secs(2);
    let streams = figures::streams(&relays, &recorder, &Stages::default(), elapsed, Instant::now());
    let [stream] = &streams[..] else { panic!("one stream, not {streams:?}") };
    let ended = stream.ended.as_deref();
    assert_eq!((stream.report.bytes, ended), (BYTES as u64, Some("delivered")));
    assert_eq!(stream.report.bytes_per_second, BYTES as f64 / 2.0);
    let recorded = stream.report.recorded.as_ref().expect("what was recorded");
    let sizes = recorded.transfer_bytes.expect("transfers");
    assert_eq!(sizes.count, stream.report.operations);
    assert_eq!(recorder.history().map(|record| u64::from(record.size)).sum::<u64>(), BYTES as u64);
    assert!(figures::copies(&relays).is_empty());
}

#[test]
fn nothing_is_recorded_if_nothing_was_asked_for() {
    let (relays, recorder, delivered) = recorded(1 << 20, Level::Off);
    assert_eq!((delivered, recorder.history().count()), (0, 0));
    let streams = figures::streams(
        &relays,
        &recorder,
        &Stages::default(),
        Duration::from_secs(1),
        Instant::now(),
    );
    assert_eq!(streams[0].report.bytes, 1 << 20, "counting costs nothing");
    assert!(streams[0].report.recorded.is_none());
}
