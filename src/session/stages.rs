//! What observation learns of the child's memory: the stage, the gate, and how they came about.
//!
//! Under pressure the first thing to go is what is recorded of the transfers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Session;
use super::watch::Watch;
use crate::config::Level;
use crate::memory::Account;
use crate::memory::policy::{Effects, Flow, Observation, Stage};
use crate::observe::events::Event;
use crate::observe::status::MemoryStatus;

/// Samples that are remembered for a crash report.
const REMEMBERED: usize = 128;

/// What the guard knows after a sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) account: Account,
    pub(super) resident: u64,
    pub(super) stage: Stage,
    pub(super) effects: Effects,
}

/// What is known of the child's memory.
#[derive(Debug, Default)]
pub(super) struct Stages {
    last: Option<Look>,
    /// The last samples, oldest first.
    samples: VecDeque<Sample>,
    /// How long the gate was closed, not counting the present time.
    closed: Duration,
    closed_since: Option<Instant>,
}

/// One look at the child's memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Since the start.
    pub(super) at: Duration,
    /// Bytes.
    pub(super) resident: u64,
    pub(super) stage: Stage,
}

impl Stages {
    /// How long the gate has been closed, all in all.
    pub(super) fn gated(&self, now: Instant) -> Duration {
        let present = self.closed_since.map(|since| now.saturating_duration_since(since));
        self.closed + present.unwrap_or_default()
    }

    /// The last samples, oldest first.
    pub(super) fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter()
    }

    /// How things stand; `None` if nothing has been sampled.
    pub(super) fn status(&self) -> Option<MemoryStatus> {
        let look = self.last?;
        Some(MemoryStatus {
            stage: look.stage.name().to_owned(),
            gate: gate_name(look.effects.flow).to_owned(),
            resident_bytes: look.resident,
            peak_bytes: look.account.peak,
            stage_changes: look.account.changes,
        })
    }

    /// The stage and the gate in a few words, if they are worth any.
    pub(super) fn words(&self) -> Option<String> {
        let look = self.last.filter(|look| look.stage != Stage::Monitoring)?;
        Some(match look.effects.flow {
            Flow::Open => look.stage.name().to_owned(),
            flow => format!("{}, gate {}", look.stage, gate_name(flow)),
        })
    }

    fn remember(&mut self, look: Look, at: Duration) {
        if self.samples.len() == REMEMBERED {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { at, resident: look.resident, stage: look.stage });
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
}

impl Session<'_> {
    /// Takes note of a sample that was taken in this turn, and records only what its stage allows.
    pub(super) fn follow_memory(&mut self, watch: &Watch<'_>, now: Instant) {
        let stages = &mut self.observation.stages;
        let known = stages.last.map(|look| look.account.samples);
        let Some(look) = watch.look().filter(|look| known.unwrap_or(0) != look.account.samples)
        else {
            return;
        };
        stages.remember(look, now.saturating_duration_since(self.started));
        stages.set_gate(look.effects.flow, now);
        let before = stages.last.replace(look);
        let stage_before = before.map_or(Stage::Monitoring, |look| look.stage);
        let gate_before = before.map_or(Flow::Open, |look| look.effects.flow);
        if stage_before != look.stage {
            let (from, to) = (stage_before.name(), look.stage.name());
            self.tell_event(&Event::Stage { from, to, resident_bytes: look.resident });
        }
        if gate_before != look.effects.flow {
            self.tell_event(&Event::Gate { gate: gate_name(look.effects.flow) });
        }
        let allowed = match look.effects.observation {
            Observation::Full => Level::Full,
            Observation::Summary => Level::Summary,
            Observation::Off => Level::Off,
        };
        self.observation.limit(allowed);
    }

    /// The child is gone: its memory weighs on nothing any more.
    pub(super) fn memory_is_over(&mut self, now: Instant) {
        self.observation.stages.set_gate(Flow::Open, now);
        self.observation.limit(Level::Full);
    }
}

/// How a flow is called in events and reports.
fn gate_name(flow: Flow) -> &'static str {
    match flow {
        Flow::Open => "open",
        Flow::Bounded => "bounded",
        Flow::Trickle => "closed",
        Flow::Drain => "draining",
    }
}
