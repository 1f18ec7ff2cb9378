//! Node processes: what the preload does by itself, and what nproxy makes of their V8 heaps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{Engine, Launch, need, nproxy_path, on_both_engines};
use crate::observe::schema::all_fit;
use crate::proc;

on_both_engines!(
    every_stage_of_a_heap_is_told_before_v8_gives_up,
    ten_processes_are_each_in_the_status,
    more_processes_than_slots_one_after_the_other,
    garbage_is_collected_when_memory_is_short,
    text_modes_are_done_once,
);

/// Whether Node is here, and the addon built for it.
fn ready() -> bool {
    static BUILT: OnceLock<bool> = OnceLock::new();
    need(&["node", "-e", "process.exit(parseInt(process.versions.node) >= 18 ? 0 : 1)"])
        && *BUILT.get_or_init(|| {
            let built = Command::new(env!("CARGO"))
                .args(["build", "--quiet", "--package", "nproxy-node"])
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status();
            assert!(built.is_ok_and(|status| status.success()), "build the addon");
            true
        })
}

fn node_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("node")
}

/// The addon that has just been built, whatever other builds lie about.
fn addon() -> PathBuf {
    let own = std::env::current_exe().expect("own path");
    let target = own.parent().and_then(Path::parent).expect("target directory");
    target.join("libnproxy_node.so")
}

/// `nproxy --node`, with the addon of this build.
fn nproxy_node(engine: Engine) -> Launch {
    Launch::nproxy(engine).arg("--node").env("NPROXY_NODE_ADDON", addon())
}

/// Keeps what it makes, a little at a time.
const HOG: &str = "
    const kept = [];
    const step = () => {
        for (let i = 0; i < 2000; i++) kept.push({ a: i, b: 'x' + i, c: [i] });
        setTimeout(step, 1);
    };
    step();
";

#[test]
fn the_preload_changes_nothing_that_plain_node_does() {
    if !ready() {
        return;
    }
    let run = Launch::program("node")
        .arg(node_directory().join("test/check.js"))
        .env("NPROXY_NODE_ADDON", addon())
        .limit(Duration::from_secs(600))
        .finish();
    let wrong = run.stdout.text();
    run.expect(run.status.success(), &wrong);
}

fn every_stage_of_a_heap_is_told_before_v8_gives_up(engine: Engine) {
    if !ready() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (crashes, events) = (directory.path().join("crashes"), directory.path().join("events"));
    let stats = directory.path().join("stats");
    let run = nproxy_node(engine)
        .arg("--crash-dump")
        .arg(&crashes)
        .arg("--events")
        .arg(&events)
        .arg("--stats=json")
        .arg("--stats-file")
        .arg(&stats)
        .args(["node", "--max-old-space-size=64", "-e", HOG])
        .finish();
    run.expect_signal(Signal::SIGABRT);
    let text = run.stderr.text();
    let places = ["attention", "pressure", "critical", "emergency", "FATAL ERROR"]
        .map(|word| text.find(word).unwrap_or_else(|| panic!("no {word} in {text}")));
    // V8 takes large steps, so one line may name several stages.
    let fatal = places[4];
    run.expect(places.iter().all(|place| *place <= fatal), "all stages before the end");
    run.expect(places[0] < places[3], "attention before emergency");
    run.expect(text.contains("the V8 heap is at its limit of 64 MiB: emergency"), "its own line");

    let events = fs::read_to_string(events).unwrap();
    let events: Vec<Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    all_fit("events", &events);
    let heap: Vec<_> = events.iter().filter(|event| event["event"] == "heap").collect();
    assert_eq!(heap.last().expect("heap events")["to"], "emergency", "{heap:?}");

    let stats: Value = serde_json::from_str(&fs::read_to_string(stats).unwrap()).unwrap();
    all_fit("stats", [&stats]);
    let node = &stats["memory"]["node"];
    assert_eq!((&node["processes"], &node["near_limits"]), (&1.into(), &1.into()), "{node}");
    assert_eq!(node["highest_stage"], "emergency");

    let report = fs::read_dir(&crashes).unwrap().next().expect("a report").unwrap().path();
    let report: Value = serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap();
    all_fit("crash", [&report]);
    let history = report["heap_history"].as_array().expect("a history");
    let live = |sample: &Value| sample["live_bytes"].as_u64().unwrap();
    assert!(history.len() > 3, "{history:?}");
    assert!(live(history.last().unwrap()) > 50 << 20, "{history:?}");
    assert!(history.iter().any(|sample| sample["near_limits"] == 1), "{history:?}");
}

/// `-q` is for the preload too.
#[test]
fn a_quiet_run_has_a_quiet_preload() {
    if !ready() {
        return;
    }
    let run = nproxy_node(Engine::Epoll)
        .args(["-q", "node", "--max-old-space-size=64", "-e", HOG])
        .finish();
    run.expect_signal(Signal::SIGABRT);
    let text = run.stderr.text();
    run.expect(text.contains("FATAL ERROR") && !text.contains("nproxy: "), "V8 alone speaks");
}

/// The heaps that a session's status tells of.
fn heaps(runtime: &Path) -> Vec<u64> {
    let status = Launch::program(nproxy_path())
        .args(["--status", "--status-format=json"])
        .env("NPROXY_RUNTIME_DIR", runtime)
        .finish();
    let status: Value = serde_json::from_str(&status.stdout.text()).unwrap();
    all_fit("status", [&status]);
    let heaps = status["sessions"][0]["memory"]["node"]["heaps"].as_array();
    let pids = heaps.into_iter().flatten().map(|heap| heap["pid"].as_u64().unwrap());
    pids.collect()
}

fn ten_processes_are_each_in_the_status(engine: Engine) {
    if !ready() {
        return;
    }
    let runtime = tempfile::tempdir().unwrap();
    let script =
        "for i in 1 2 3 4 5 6 7 8 9 10; do node -e 'setInterval(() => {}, 1000)' & done; wait";
    let run = nproxy_node(engine)
        .args(["sh", "-c", script])
        .env("NPROXY_RUNTIME_DIR", runtime.path())
        .start();
    let all =
        proc::until("ten heaps", || Some(heaps(runtime.path())).filter(|all| all.len() == 10));
    for format in ["text", "prometheus"] {
        let status = Launch::program(nproxy_path())
            .arg("--status")
            .arg(format!("--status-format={format}"))
            .env("NPROXY_RUNTIME_DIR", runtime.path())
            .finish();
        let text = status.stdout.text();
        for pid in &all {
            status.expect(text.contains(&pid.to_string()), &format!("{pid} as {format}"));
        }
    }
    // One that is killed cannot say so.
    kill(Pid::from_raw(all[3] as i32), Signal::SIGKILL).expect("kill");
    proc::until("nine heaps", || {
        Some(heaps(runtime.path())).filter(|rest| rest.len() == 9 && !rest.contains(&all[3]))
    });
    run.signal(Signal::SIGKILL);
    proc::until("the page to be gone", || {
        let held = proc::descriptors(run.pid());
        held.is_empty().then_some(())
    });
}

fn more_processes_than_slots_one_after_the_other(engine: Engine) {
    if !ready() {
        return;
    }
    // Under NPROXY_DEBUG the preload would say that it has found no slot.
    let script = "
        i=0
        while [ $i -lt 70 ]; do NPROXY_DEBUG=1 node -e 0; i=$((i + 1)); done
        NPROXY_DEBUG=1 exec node -e 'setTimeout(() => {}, 600)'
    ";
    let run = nproxy_node(engine)
        .arg("--stats=json")
        .args(["sh", "-c", script])
        .limit(Duration::from_secs(180))
        .finish();
    run.expect_code(0);
    let node = &run.stats()["memory"]["node"];
    run.expect(node["processes"].as_u64() >= Some(1), "the last one, which is there for longer");
    run.expect(node["peak_live_bytes"].is_u64(), "figures");
}

fn garbage_is_collected_when_memory_is_short(engine: Engine) {
    if !ready() {
        return;
    }
    // Garbage that V8 sees no reason to collect, in a loop that never yields.
    let script = "
        let kept = [];
        for (let i = 0; i < 300; i++) kept.push(new Array(131072).fill(i));
        kept = null;
        const before = process.memoryUsage().rss;
        const until = Date.now() + 30000;
        let least = before;
        while (Date.now() < until && least > before / 2) {
            for (let i = 0; i < 1e6; i++);
            least = Math.min(least, process.memoryUsage().rss);
        }
        console.log(least <= before / 2 ? 'collected' : `${before} ${least}`);
    ";
    let run = nproxy_node(engine)
        .words("--attention=50M --pressure=80M --critical=100M -q")
        .args(["node", "-e", script])
        .finish();
    run.expect_code(0).expect_output("collected\n").expect_silent();
}

/// A preload that somebody has in NODE_OPTIONS leaves the text to the nproxy around it, `--node` or not.
fn text_modes_are_done_once(engine: Engine) {
    if !ready() {
        return;
    }
    let preload = node_directory().join("nproxy.js");
    for flags in ["", "--node"] {
        let run = Launch::nproxy(engine)
            .words(flags)
            .args(["node", "-e", "console.log('line')"])
            .env("NODE_OPTIONS", format!("-r \"{}\"", preload.display()))
            .env("NPROXY_NODE_ADDON", addon())
            .env("NPROXY_TEXT", "transform")
            .env("NPROXY_TIMESTAMP", "> ")
            .finish();
        run.expect_code(0).expect_output("> line\n").expect_silent();
    }
}

#[test]
fn what_node_options_held_is_kept() {
    if !ready() {
        return;
    }
    let print = "console.log(process.env.NODE_OPTIONS)";
    let run = nproxy_node(Engine::Epoll)
        .args(["node", "-e", print])
        .env("NODE_OPTIONS", "--no-warnings")
        .env("NODE_OPT_MAX_OLD", "300")
        .finish();
    let text = run.expect_code(0).stdout.text();
    let (before, after) = text.trim_end().split_once(" --require ").expect("a --require");
    assert_eq!(before, "--no-warnings");
    assert!(after.trim_matches('"').ends_with("nproxy.js --max-old-space-size=300"), "{after}");
    let limit = nproxy_node(Engine::Epoll)
        .args(["node", "-p", "require('v8').getHeapStatistics().heap_size_limit / 2 ** 20 < 800"])
        .env("NODE_OPT_MAX_OLD", "300")
        .finish();
    limit.expect_code(0).expect_output("true\n");
}

#[test]
fn where_node_would_refuse_it_nothing_is_loaded() {
    if !ready() {
        return;
    }
    let run = nproxy_node(Engine::Epoll).words("node --no-addons -p 1+1").finish();
    run.expect_code(0).expect_output("2\n").expect_message(&["--node", "--no-addons"]);
    let run =
        nproxy_node(Engine::Epoll).words("node -p 1+1").env("NODE_OPTIONS", "--no-addons").finish();
    run.expect_code(0).expect_output("2\n").expect_message(&["--node", "--no-addons"]);
}
