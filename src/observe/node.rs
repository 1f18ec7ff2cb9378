//! The V8 heaps of a command's Node processes, as the status and the report at the end tell them.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};

use crate::units::{bytes, harmless, size};

/// The Node processes of a running command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Times that V8 was about to reach a heap's limit, in all processes so far.
    pub near_limits: u64,
    /// Each process.
    pub heaps: Vec<HeapStatus>,
}

/// The heap of one process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HeapStatus {
    /// The process.
    pub pid: u32,
    /// `monitoring`, `attention`, `pressure`, `critical` or `emergency`.
    pub stage: String,
    /// In use, garbage included.
    pub used_bytes: u64,
    /// What the last full collection found alive.
    pub live_bytes: u64,
    /// What V8 allows.
    pub limit_bytes: u64,
    /// Kept outside of the heap by objects in it.
    pub external_bytes: u64,
    /// Times that V8 was about to reach the limit.
    pub near_limits: u64,
}

/// What became of the Node processes of a command.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct NodeReport {
    /// How many there were.
    pub processes: u64,
    /// The most that a heap needed after a full collection.
    pub peak_live_bytes: u64,
    /// The highest stage that the heaps brought about.
    pub highest_stage: &'static str,
    /// Times that V8 was about to reach a limit.
    pub near_limits: u64,
    /// Collections asked for because memory was short, each process counted.
    pub collections_asked: u64,
}

impl NodeReport {
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.processes;
        let processes = if count == 1 { "process" } else { "processes" };
        write!(f, "node: {count} {processes}")?;
        // Before the first full collection nothing is known of what is alive.
        if self.peak_live_bytes > 0 {
            write!(f, ", at most {} of heap alive in one", bytes(self.peak_live_bytes))?;
        }
        if self.near_limits > 0 {
            write!(f, ", V8 at its limit: {}", self.near_limits)?;
        }
        if self.collections_asked > 0 {
            write!(f, ", collections asked for: {}", self.collections_asked)?;
        }
        writeln!(f)
    }
}

/// The heaps of several sessions as a table; nothing if there are none.
pub(super) fn text<'s>(sessions: impl Iterator<Item = (u32, &'s NodeStatus)>) -> String {
    let mut table = String::new();
    for (session, node) in sessions {
        for heap in &node.heaps {
            if table.is_empty() {
                let heads = ["PID", "NODE", "HEAP", "ALIVE", "LIMIT", "EXTERNAL"];
                let [pid, node, heap, alive, limit, external] = heads;
                let _ = writeln!(
                    table,
                    "\n{pid:>8}{node:>9}{heap:>11}{alive:>11}{limit:>11}{external:>11}  STAGE"
                );
            }
            let figure = |count: u64| size(count as f64);
            let at_limit = match heap.near_limits {
                0 => String::new(),
                count => format!(" (V8 at its limit: {count})"),
            };
            let _ = writeln!(
                table,
                "{session:>8}{:>9}{:>11}{:>11}{:>11}{:>11}  {}{at_limit}",
                heap.pid,
                figure(heap.used_bytes),
                figure(heap.live_bytes),
                figure(heap.limit_bytes),
                figure(heap.external_bytes),
                harmless(&heap.stage),
            );
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_heap_has_a_line() {
        let heap = HeapStatus {
            pid: 7,
            stage: "critical".into(),
            used_bytes: 50 << 20,
            live_bytes: 47 << 20,
            limit_bytes: 64 << 20,
            external_bytes: 0,
            near_limits: 1,
        };
        let status = NodeStatus { near_limits: 1, heaps: vec![heap.clone(), heap] };
        let table = text([(3, &status)].into_iter());
        assert_eq!(table.lines().count(), 4, "{table}");
        assert!(table.contains("47 MiB") && table.contains("critical (V8 at its limit: 1)"));
        assert!(
            text([(3, &NodeStatus { near_limits: 0, heaps: Vec::new() })].into_iter()).is_empty()
        );
    }
}
