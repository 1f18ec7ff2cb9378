//! What the reports know of the child's memory: the stage, the gate, and how they came about.
//!
//! Under pressure the first thing to go is what is recorded of the transfers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::Level;
use crate::memory::Account;
use crate::memory::heap_page::Heap;
use crate::memory::policy::heap::{HeapChange, stage_of_heap};
use crate::memory::policy::{Changes, Effects, Flow, Observation, Stage};
use crate::observe::node::{HeapStatus, NodeStatus};
use crate::observe::status::MemoryStatus;

/// Samples that are remembered for a crash report.
const REMEMBERED: usize = 128;

/// What is known after a sample of the command's memory, and what that sample changed.
#[derive(Clone, Debug)]
pub(crate) struct MemorySnapshot {
    pub(crate) account: Account,
    pub(crate) resident: u64,
    pub(crate) stage: Stage,
    pub(crate) effects: Effects,
    pub(crate) changes: Changes,
    /// `None` if Node processes are not watched.
    pub(crate) heaps: Option<HeapFigures>,
    pub(crate) heap_change: Option<HeapChange>,
}

/// What is known of the heaps of Node processes.
#[derive(Clone, Debug)]
pub(crate) struct HeapFigures {
    pub(crate) heaps: Vec<Heap>,
    /// Times that V8 was about to reach a limit, in all processes so far.
    pub(crate) near_limits: u64,
}

/// How the gate is called once it has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GateChange(pub(crate) &'static str);

/// What is known of the child's memory.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    last: Option<MemorySnapshot>,
    /// The last samples, oldest first.
    samples: VecDeque<Sample>,
    /// How long the gate was closed, not counting the present time.
    closed: Duration,
    closed_since: Option<Instant>,
}

/// One sample of the child's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Since the start.
    pub(crate) at: Duration,
    /// Bytes.
    pub(crate) resident: u64,
    pub(crate) stage: Stage,
}

impl Stages {
    /// How long the gate has been closed, all in all.
    pub(crate) fn gated(&self, now: Instant) -> Duration {
        let present = self.closed_since.map(|since| now.saturating_duration_since(since));
        self.closed + present.unwrap_or_default()
    }

    /// The last samples, oldest first.
    pub(crate) fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter()
    }

    /// How things stand; `None` if nothing has been sampled.
    pub(crate) fn status(&self) -> Option<MemoryStatus> {
        let snapshot = self.last.as_ref()?;
        Some(MemoryStatus {
            stage: snapshot.stage.name().to_owned(),
            gate: gate_name(snapshot.effects.flow).to_owned(),
            resident_bytes: snapshot.resident,
            peak_bytes: snapshot.account.peak,
            stage_changes: snapshot.account.changes,
            node: snapshot.heaps.as_ref().map(HeapFigures::status),
            gate_closed: snapshot.account.gate_closed,
            gate_helped: snapshot.account.gate_helped,
            gate_gained_bytes: snapshot.account.gate_gained,
            gate_held_seconds: snapshot.account.gate_held.as_secs_f64(),
        })
    }

    /// The stage and the gate in a few words, if they are worth any.
    pub(crate) fn words(&self) -> Option<String> {
        let snapshot = self.last.as_ref().filter(|snapshot| snapshot.stage != Stage::Monitoring)?;
        Some(match snapshot.effects.flow {
            Flow::Open => snapshot.stage.name().to_owned(),
            flow => format!("{}, gate {}", snapshot.stage, gate_name(flow)),
        })
    }

    fn remember(&mut self, snapshot: &MemorySnapshot, at: Duration) {
        if self.samples.len() == REMEMBERED {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { at, resident: snapshot.resident, stage: snapshot.stage });
    }

    fn set_gate(&mut self, flow: Flow, now: Instant) {
        match (flow, self.closed_since) {
            (Flow::Trickle, None) => self.closed_since = Some(now),
            (Flow::Trickle, Some(_)) | (_, None) => {}
            (_, Some(_)) => {
                self.closed = self.gated(now);
                self.closed_since = None;
            }
        }
    }

    /// Takes note of a sample. Returns how the gate is called now, if that has changed.
    pub(crate) fn sampled(
        &mut self,
        snapshot: MemorySnapshot,
        at: Duration,
        now: Instant,
    ) -> Option<GateChange> {
        self.remember(&snapshot, at);
        self.set_gate(snapshot.effects.flow, now);
        let flow = snapshot.effects.flow;
        let before = self.last.replace(snapshot).map_or(Flow::Open, |last| last.effects.flow);
        (gate_name(before) != gate_name(flow)).then(|| GateChange(gate_name(flow)))
    }

    /// The command is gone, and its memory weighs on nothing any more.
    pub(crate) fn command_ended(&mut self, now: Instant) -> Option<GateChange> {
        self.set_gate(Flow::Open, now);
        let last = self.last.as_mut()?;
        let before = std::mem::replace(&mut last.effects.flow, Flow::Open);
        (gate_name(before) != gate_name(Flow::Open)).then(|| GateChange(gate_name(Flow::Open)))
    }
}

impl HeapFigures {
    fn status(&self) -> NodeStatus {
        let heaps = self.heaps.iter().map(|heap| HeapStatus {
            pid: heap.pid,
            stage: stage_of_heap(heap).name().to_owned(),
            used_bytes: heap.used,
            live_bytes: heap.live,
            limit_bytes: heap.limit,
            external_bytes: heap.external,
            near_limits: heap.near_limits,
        });
        NodeStatus { near_limits: self.near_limits, heaps: heaps.collect() }
    }
}

/// How much may be recorded of the transfers in this state of the memory.
pub(crate) fn allowed_level(effects: Effects) -> Level {
    match effects.observation {
        Observation::Full => Level::Full,
        Observation::Summary => Level::Summary,
        Observation::Off => Level::Off,
    }
}

/// How a flow is called in events and reports.
fn gate_name(flow: Flow) -> &'static str {
    match flow {
        Flow::Open => "open",
        Flow::Bounded => "bounded",
        Flow::Trickle => "closed",
        Flow::Drain => "draining",
        Flow::Limited(_) => "limited",
    }
}
