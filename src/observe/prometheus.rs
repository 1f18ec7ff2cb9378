//! The figures of running sessions in the text format of Prometheus.

use std::fmt::Write;

use super::node::HeapStatus;
use super::report::{CopyReport, StreamReport};
use super::status::{MemoryStatus, SessionStatus};
use crate::memory::policy::Stage;
use crate::units::harmless;

/// One metric of Prometheus: its name, kind, meaning, and the figures of each session.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    figures: fn(&SessionStatus) -> Vec<(String, f64)>,
}

/// Every metric that is offered; names and label names are stable.
const METRICS: [Metric; 27] = [
    Metric {
        name: "nproxy_session_info",
        kind: "gauge",
        help: "A running session; always 1.",
        figures: |session| {
            let labels = format!(
                "engine=\"{}\",command=\"{}\"",
                escaped(&session.engine),
                escaped(&session.subject.title())
            );
            vec![(labels, 1.0)]
        },
    },
    Metric {
        name: "nproxy_uptime_seconds",
        kind: "gauge",
        help: "Time since the session started.",
        figures: |session| vec![(String::new(), session.uptime_seconds)],
    },
    Metric {
        name: "nproxy_memory_resident_bytes",
        kind: "gauge",
        help: "Resident memory of the command.",
        figures: |session| memory(session, |memory| memory.resident_bytes as f64),
    },
    Metric {
        name: "nproxy_memory_peak_bytes",
        kind: "gauge",
        help: "The most resident memory that was seen.",
        figures: |session| memory(session, |memory| memory.peak_bytes as f64),
    },
    Metric {
        name: "nproxy_memory_stage",
        kind: "gauge",
        help: "Memory stage: 0 monitoring, 1 attention, 2 pressure, 3 critical, 4 emergency.",
        figures: |session| {
            memory(session, |memory| {
                let known = Stage::ALL.iter().position(|stage| stage.name() == memory.stage);
                known.map_or(f64::NAN, |index| index as f64)
            })
        },
    },
    Metric {
        name: "nproxy_memory_stage_changes_total",
        kind: "counter",
        help: "How often the memory stage has changed.",
        figures: |session| memory(session, |memory| memory.stage_changes as f64),
    },
    Metric {
        name: "nproxy_node_heap_used_bytes",
        kind: "gauge",
        help: "V8 heap in use in a Node process, garbage included.",
        figures: |session| heaps(session, |heap| heap.used_bytes),
    },
    Metric {
        name: "nproxy_node_heap_live_bytes",
        kind: "gauge",
        help: "V8 heap that the last full collection found alive.",
        figures: |session| heaps(session, |heap| heap.live_bytes),
    },
    Metric {
        name: "nproxy_node_heap_limit_bytes",
        kind: "gauge",
        help: "What V8 allows for its heap.",
        figures: |session| heaps(session, |heap| heap.limit_bytes),
    },
    Metric {
        name: "nproxy_node_external_bytes",
        kind: "gauge",
        help: "Memory outside of the V8 heap that objects in it keep.",
        figures: |session| heaps(session, |heap| heap.external_bytes),
    },
    Metric {
        name: "nproxy_node_near_heap_limit_total",
        kind: "counter",
        help: "Times that V8 was about to reach the limit of its heap, in all Node processes.",
        figures: |session| {
            let node = session.memory.iter().filter_map(|memory| memory.node.as_ref());
            node.map(|node| (String::new(), node.near_limits as f64)).collect()
        },
    },
    Metric {
        name: "nproxy_gate_closed",
        kind: "gauge",
        help: "Whether the gate admits a trickle only.",
        figures: |session| memory(session, |memory| f64::from(u8::from(memory.gate == "closed"))),
    },
    Metric {
        name: "nproxy_gate_tries_total",
        kind: "counter",
        help: "How often output was held back to lower the command's memory.",
        figures: |session| memory(session, |memory| memory.gate_closed as f64),
    },
    Metric {
        name: "nproxy_gate_helped_total",
        kind: "counter",
        help: "In how many of these tries memory fell.",
        figures: |session| memory(session, |memory| memory.gate_helped as f64),
    },
    Metric {
        name: "nproxy_gate_gained_bytes_total",
        kind: "counter",
        help: "What memory fell by in these tries.",
        figures: |session| memory(session, |memory| memory.gate_gained_bytes as f64),
    },
    Metric {
        name: "nproxy_gate_held_seconds_total",
        kind: "counter",
        help: "How long output waited in tries that are over.",
        figures: |session| memory(session, |memory| memory.gate_held_seconds),
    },
    Metric {
        name: "nproxy_stream_bytes_total",
        kind: "counter",
        help: "Bytes delivered.",
        figures: |session| each(session, |stream| Some(stream.bytes as f64)),
    },
    Metric {
        name: "nproxy_stream_buffered_bytes_total",
        kind: "counter",
        help: "Bytes that passed through a buffer.",
        figures: |session| each(session, |stream| Some(stream.buffered_bytes as f64)),
    },
    Metric {
        name: "nproxy_stream_undelivered_bytes_total",
        kind: "counter",
        help: "Bytes that the sink refused.",
        figures: |session| each(session, |stream| Some(stream.undelivered_bytes as f64)),
    },
    Metric {
        name: "nproxy_stream_operations_total",
        kind: "counter",
        help: "Transfers that moved at least one byte.",
        figures: |session| each(session, |stream| Some(stream.operations as f64)),
    },
    Metric {
        name: "nproxy_stream_waited_for_writer_seconds_total",
        kind: "counter",
        help: "Time during which a transfer waited for bytes.",
        figures: |session| {
            each(session, |stream| Some(stream.recorded.as_ref()?.waited_for_writer_seconds))
        },
    },
    Metric {
        name: "nproxy_stream_waited_for_reader_seconds_total",
        kind: "counter",
        help: "Time during which a transfer waited for room.",
        figures: |session| {
            each(session, |stream| Some(stream.recorded.as_ref()?.waited_for_reader_seconds))
        },
    },
    Metric {
        name: "nproxy_stream_waited_for_copies_seconds_total",
        kind: "counter",
        help: "Time during which a transfer waited for a copy.",
        figures: |session| {
            each(session, |stream| Some(stream.recorded.as_ref()?.waited_for_copies_seconds))
        },
    },
    Metric {
        name: "nproxy_copy_bytes_total",
        kind: "counter",
        help: "Bytes delivered to a copy.",
        figures: |session| copies(session, |copy| copy.bytes),
    },
    Metric {
        name: "nproxy_copy_lost_bytes_total",
        kind: "counter",
        help: "Bytes that a copy did not get.",
        figures: |session| copies(session, |copy| copy.lost_bytes),
    },
    Metric {
        name: "nproxy_copy_resent_bytes_total",
        kind: "counter",
        help: "Bytes sent to a copy once more, after a lost connection.",
        figures: |session| copies(session, |copy| copy.resent_bytes),
    },
    Metric {
        name: "nproxy_copy_spooled_bytes",
        kind: "gauge",
        help: "Bytes in a copy's spool that were not sent yet.",
        figures: |session| copies(session, |copy| copy.spooled_bytes),
    },
];

fn memory(session: &SessionStatus, figure: fn(&MemoryStatus) -> f64) -> Vec<(String, f64)> {
    session.memory.iter().map(|memory| (String::new(), figure(memory))).collect()
}

fn heaps(session: &SessionStatus, figure: fn(&HeapStatus) -> u64) -> Vec<(String, f64)> {
    let heaps = session.memory.iter().filter_map(|memory| memory.node.as_ref());
    let heaps = heaps.flat_map(|node| &node.heaps);
    heaps.map(|heap| (format!("node=\"{}\"", heap.pid), figure(heap) as f64)).collect()
}

fn each(session: &SessionStatus, figure: fn(&StreamReport) -> Option<f64>) -> Vec<(String, f64)> {
    let streams = session.streams.iter().map(|live| &live.report);
    let labelled = streams.filter_map(|stream| {
        Some((format!("stream=\"{}\"", escaped(&stream.stream)), figure(stream)?))
    });
    labelled.collect()
}

fn copies(session: &SessionStatus, figure: fn(&CopyReport) -> u64) -> Vec<(String, f64)> {
    let numbered = session.copies.iter().enumerate();
    let labelled = numbered.map(|(index, copy)| {
        // The number keeps two copies of one name apart.
        let labels = format!("copy=\"{index}\",name=\"{}\"", escaped(&harmless(&copy.name)));
        (labels, figure(copy) as f64)
    });
    labelled.collect()
}

/// All sessions in the text format of Prometheus, version 0.0.4.
pub fn prometheus(sessions: &[SessionStatus]) -> String {
    let mut page = String::new();
    for metric in &METRICS {
        let Metric { name, kind, help, figures } = metric;
        let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for session in sessions {
            let pid = session.subject.pid;
            for (labels, value) in figures(session) {
                let comma = if labels.is_empty() { "" } else { "," };
                let _ = writeln!(page, "{name}{{pid=\"{pid}\"{comma}{labels}}} {value}");
            }
        }
    }
    page
}

/// A label's value: backslash, quote and line feed are escaped.
fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::status::tests::session;

    #[test]
    fn prometheus_has_one_block_for_each_metric() {
        let page = prometheus(&[session(&["a"]), session(&["say \"\\\""])]);
        let types = page.lines().filter(|line| line.starts_with("# TYPE nproxy_")).count();
        assert_eq!(types, METRICS.len());
        assert!(page.contains("nproxy_memory_stage{pid=\"42\"} 3\n"));
        assert!(page.contains("nproxy_gate_closed{pid=\"42\"} 1\n"));
        assert!(page.contains("nproxy_gate_tries_total{pid=\"42\"} 2\n"));
        assert!(page.contains("nproxy_gate_held_seconds_total{pid=\"42\"} 2.5\n"));
        assert!(page.contains("nproxy_stream_bytes_total{pid=\"42\",stream=\"stdout\"} 3145728\n"));
        assert!(page.contains(r#"command="say \"\\\"""#), "{page}");
        assert!(page.contains(r#"nproxy_copy_lost_bytes_total{pid="42",copy="0",name="a\"b"} 2"#));
    }
}
