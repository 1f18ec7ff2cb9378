//! The memory guard at work: samples when they are due, and applies what a stage means to the relays, the
//! process's title and the user's terminal.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

use super::memory_effects::{have_text, output, resize, spread};
use super::nodes::NodeWatch;
use crate::config::{Banner, Memory, MonitorMode, Verbosity, Wrap};
use crate::error::Error;
use crate::memory::group::Group;
use crate::memory::limit::{self, ChildGroup, Events};
use crate::memory::policy::heap::HeapChange;
use crate::memory::policy::{
    Changes, FASTEST, Flow, GateChange, SMALL_PIPE, Stage, StageChange, TextModes, Thresholds,
};
use crate::memory::sample::Scope;
use crate::memory::{Account, Bounds, Guard, heap, stall};
use crate::notice;
use crate::observe::report::MemoryReport;
use crate::process::exit::Exit;
use crate::process::limits::Confinement;
use crate::process::node::{self, Preload};
use crate::relay::Relay;
use crate::reports::MemoryEnd;
use crate::reports::memory_notices::{self, Line, MemoryNotices, Situation};
use crate::reports::stages::MemorySnapshot;
use crate::reports::title::Title;
use crate::ring::polled::Polled;
use crate::ring::{Operation, Ring};
use crate::units::bytes;

/// Watches and limits the child's memory.
#[derive(Debug)]
pub(crate) struct MemoryWatch<'c> {
    settings: &'c Memory,
    verbosity: Verbosity,
    wrap: &'c Wrap,
    engine: &'static str,
    group: Option<ChildGroup>,
    /// `None` if nothing is watched.
    scope: Option<Scope>,
    beginning: Beginning,
    /// From the beginning on.
    guard: Option<Guard>,
    /// Ours from the first change of stage on; until then ps shows how nproxy was called.
    title: Option<Title>,
    notices: MemoryNotices,
    /// Polled for stalls and for events of the child's group; in flight or to be armed.
    stalls: Polled,
    events: Polled,
    next_log: Option<Instant>,
    /// What Node processes are given; its page is what `nodes` reads.
    preload: Option<Preload>,
    nodes: Option<NodeWatch>,
    /// The machine's count when the watch began.
    oom_kills: Option<u64>,
    coloured: bool,
}

/// When the watch begins. What it has to read first would take as long as a short command, so that has none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    /// There is no child yet.
    NoChild,
    /// The child with this number will be looked at then.
    Due(u32, Instant),
    Over,
}

impl<'c> MemoryWatch<'c> {
    /// Makes the child's cgroup, if a limit asks for one, and settles what is watched.
    ///
    /// # Errors
    /// When there can be no such group, or `--monitor=cgroup` finds none: nothing has been started by then.
    pub(crate) fn new(
        settings: &'c Memory,
        wrap: &'c Wrap,
        verbosity: Verbosity,
    ) -> Result<MemoryWatch<'c>, Error> {
        let group = ChildGroup::new(settings.limits)?;
        let own = || group.as_ref().map(ChildGroup::group);
        let scope = match settings.monitor {
            MonitorMode::Off => None,
            MonitorMode::Process => Some(Scope::Process),
            MonitorMode::Tree => Some(Scope::Tree),
            MonitorMode::Auto => Some(own().map_or(Scope::Tree, Scope::Cgroup)),
            MonitorMode::Cgroup => {
                let group = own().or_else(limit::own_group);
                let none = || Error::usage("--monitor=cgroup", "no memory cgroup to be read here");
                Some(Scope::Cgroup(group.ok_or_else(none)?))
            }
        };
        let tried = |error| Error::os("watch the cgroup of the child", error);
        let events = group.as_ref().map(ChildGroup::watch).transpose().map_err(tried)?;
        let coloured = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Ok(MemoryWatch {
            settings,
            verbosity,
            wrap,
            engine: "",
            group,
            scope,
            beginning: Beginning::NoChild,
            guard: None,
            title: None,
            notices: MemoryNotices::new(),
            stalls: Polled::No,
            events: Polled::new(events),
            next_log: None,
            preload: node::prepare(wrap, verbosity)?,
            nodes: None,
            oom_kills: None,
            coloured,
        })
    }

    /// What the child has to put on itself.
    ///
    /// # Errors
    /// When an fd cannot be duplicated.
    pub(crate) fn confinement(&self) -> Result<Confinement, Error> {
        let entrance = self.group.as_ref().map(ChildGroup::entrance).transpose();
        let entrance =
            entrance.map_err(|error| Error::os("open the cgroup of the child", error))?;
        let variables = self.preload.as_ref().map(|preload| preload.variables.clone());
        Ok(Confinement {
            entrance,
            rlimits: self.settings.rlimits.clone(),
            variables: variables.unwrap_or_default(),
        })
    }

    /// The child with number `pid` has been started. It is looked at after the shortest period, or at once where what is
    /// found then is to be told of.
    pub(crate) fn begin(&mut self, pid: u32, engine: &'static str, now: Instant) {
        self.engine = engine;
        self.beginning = Beginning::Due(pid, now + self.settings.settings.fastest.min(FASTEST));
        if self.scope.is_some() {
            self.next_log = self.settings.log_every.map(|every| now + every);
            let preload = self.preload.as_ref();
            self.nodes = preload.map(|preload| NodeWatch::new(preload.page.page(), now));
        }
        let told = self.settings.banner == Banner::Shown || self.verbosity == Verbosity::Debug;
        if told || self.nodes.is_some() {
            self.watch(pid, now);
        }
    }

    /// Begins to watch the child with number `pid`.
    fn watch(&mut self, pid: u32, now: Instant) {
        let memory = self.settings;
        self.beginning = Beginning::Over;
        self.oom_kills = limit::oom_kills();
        let Some(scope) = self.scope.take() else { return self.show_banner("not watched") };
        let ceiling = limit::ceiling(memory.limits);
        // The order of what was named has been checked with the flags.
        let Ok(thresholds) = Thresholds::new(memory.named, ceiling) else { return };
        let figures = Stage::ALL[1..].iter().map(|stage| bytes(thresholds.of(*stage)));
        let figures = figures.collect::<Vec<_>>().join(", ");
        let name = match &scope {
            Scope::Process => "process",
            Scope::Tree => "tree",
            Scope::Cgroup(Group::V2(_)) => "cgroup",
            Scope::Cgroup(Group::V1(_)) => "cgroup (version 1)",
        };
        self.show_banner(&format!("{name}, stages from {figures} of {}", bytes(ceiling)));
        let bounds = Bounds { named: memory.named, ceiling };
        self.guard = Some(Guard::new(scope, pid, bounds, memory.settings, now));
    }

    fn show_banner(&self, memory: &str) {
        let (program, engine) = (self.wrap.program.to_string_lossy(), self.engine);
        let text = format!("{program} on {engine}; memory: {memory}");
        match self.settings.banner {
            Banner::Shown => notice::notice(self.verbosity, &text),
            Banner::None => notice::event(self.verbosity, &text),
        }
    }

    /// Bytes in use at the last sample, if there was one.
    pub(crate) fn in_use(&self) -> Option<u64> {
        self.guard.as_ref().map(Guard::resident).filter(|bytes| *bytes > 0)
    }

    /// When the loop has to look at memory again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let nodes = self.nodes.as_ref().map(NodeWatch::due);
        let guard = match self.beginning {
            Beginning::Due(_, due) => Some(due),
            Beginning::NoChild | Beginning::Over => self.guard.as_ref().map(Guard::due),
        };
        let log = self.next_log.filter(|_| self.guard.is_some());
        guard.into_iter().chain(nodes).chain(log).min()
    }

    /// Keeps polled what tells of stalls and of the child's group.
    pub(crate) fn arm(&mut self, ring: &mut Ring) -> io::Result<()> {
        self.stalls.arm(Operation::MemoryStall, ring)?;
        self.events.arm(Operation::MemoryEvent, ring)
    }

    /// Tasks have stalled for want of memory.
    pub(crate) fn on_stall(&mut self, now: Instant) {
        self.stalls.completed();
        if let Some(guard) = &mut self.guard {
            notice::event(self.verbosity, &"memory stall");
            guard.stalled(now);
        }
    }

    /// The kernel has counted something in the child's group.
    pub(crate) fn on_event(&mut self) {
        self.events.completed();
        if let Some(group) = &self.group {
            // Looking makes the poll wait for the next.
            let events = group.events();
            notice::event(self.verbosity, &format!("{events:?}"));
        }
    }

    /// Takes a sample if one is due, and applies what it means. Returns what was found.
    pub(crate) fn turn(&mut self, relays: &mut [Relay], now: Instant) -> Option<MemorySnapshot> {
        if let Beginning::Due(pid, due) = self.beginning
            && due <= now
        {
            self.watch(pid, now);
        }
        let heap_change = self.nodes.as_mut().and_then(|nodes| nodes.turn(now));
        if let Some(change) = &heap_change {
            self.apply_heap(change, relays, now);
        }
        let guard = self.guard.as_mut()?;
        if now < guard.due() && heap_change.is_none() {
            self.log(now);
            return None;
        }
        let (closed, before) = (guard.is_gate_closed(), guard.effects().flow);
        let changes = guard.sample(output(relays, guard.asks_pipes()), now);
        let mut stage = guard.stage();
        if let Some(nodes) = &mut self.nodes {
            stage = stage.max(nodes.stage());
            nodes.memory_sampled(guard.stage(), guard.resident(), stage, now);
        }
        let effects = guard.effects();
        let snapshot = MemorySnapshot {
            account: guard.account(),
            resident: guard.resident(),
            stage,
            effects,
            changes,
            heaps: self.nodes.as_ref().map(NodeWatch::figures),
            heap_change,
        };
        if changes != Changes::default() {
            self.apply(changes, relays, now);
        } else if closed {
            // A pipe that held too much when the gate closed holds less by now.
            resize(relays, Some(SMALL_PIPE));
        } else if effects.flow != before {
            spread(effects.flow, effects.text, relays, now);
        }
        let text_is_off = effects.text == TextModes::Off && have_text(relays);
        self.tell(changes, text_is_off, now);
        self.log(now);
        Some(snapshot)
    }

    /// The heaps of Node processes have brought about another stage: what it allows counts beside memory's own.
    fn apply_heap(&mut self, change: &HeapChange, relays: &mut [Relay], now: Instant) {
        let Some(guard) = &mut self.guard else { return };
        guard.set_floor(change.to);
        let effects = guard.effects();
        spread(effects.flow, effects.text, relays, now);
        let colour = memory_notices::colour(change.to).filter(|_| self.coloured);
        notice::coloured(self.verbosity, &heap::described(change), colour);
        self.show_title();
    }

    /// Shows the higher of the two stages, memory's own and that of the heaps.
    fn show_title(&mut self) {
        let Some(guard) = &self.guard else { return };
        let title = self.title.get_or_insert_with(|| Title::new(&self.wrap.program));
        match self.nodes.as_ref().map_or(Stage::Monitoring, NodeWatch::stage) {
            heaps if heaps > guard.stage() => title.show(heaps, "heap"),
            _ => title.show(guard.stage(), &bytes(guard.thresholds().of(guard.stage()))),
        }
    }

    fn apply(&mut self, changes: Changes, relays: &mut [Relay], now: Instant) {
        let Some(guard) = &self.guard else { return };
        let effects = guard.effects();
        spread(effects.flow, effects.text, relays, now);
        match changes.gate {
            Some(GateChange::Closed) => resize(relays, Some(SMALL_PIPE)),
            Some(GateChange::Opened(_)) => resize(relays, None),
            None => {}
        }
        let Some(StageChange { from, .. }) = changes.stage else { return };
        self.show_title();
        if from == Stage::Monitoring && matches!(self.stalls, Polled::No) {
            let own = self.group.as_ref().and_then(|group| stall::trigger(&group.pressure_file()));
            let machine = || stall::trigger(Path::new(stall::MACHINE));
            self.stalls = Polled::new(own.or_else(machine));
        }
    }

    /// Tells the user what has changed, or what there was no room to tell before.
    fn tell(&mut self, changes: Changes, text_is_off: bool, now: Instant) {
        let Some(guard) = &self.guard else { return };
        let at = guard.elapsed(now);
        let situation = Situation {
            changes,
            resident: guard.resident(),
            threshold: guard.thresholds().of(guard.stage()),
            room: guard.room(),
            text_is_off,
        };
        if let Some(Line { text, stage, .. }) = self.notices.changed(situation, at) {
            let colour = stage.and_then(memory_notices::colour).filter(|_| self.coloured);
            notice::coloured(self.verbosity, &text, colour);
        }
    }

    fn log(&mut self, now: Instant) {
        let (Some(due), Some(guard)) = (self.next_log, &self.guard) else { return };
        if now < due {
            return;
        }
        let every = self.settings.log_every.unwrap_or(Duration::MAX);
        self.next_log = now.checked_add(every);
        let (stage, resident) = (guard.stage(), bytes(guard.resident()));
        let peak = bytes(guard.account().peak);
        let of = match guard.processes() {
            0 => String::new(),
            1 => " in 1 process".to_owned(),
            many => format!(" in {many} processes"),
        };
        let heaps = self.nodes.as_ref().map_or(String::new(), NodeWatch::words);
        let text = format!("memory: {resident}{of}, peak {peak}, {stage}{heaps}");
        notice::notice(self.verbosity, &text);
    }

    /// The child is gone, and its memory with it: what is left of its output goes as the user asked.
    pub(crate) fn command_ended(&mut self, exit: Exit, relays: &mut [Relay], now: Instant) {
        if let Some(change) = self.nodes.as_mut().and_then(|nodes| nodes.command_ended(now)) {
            self.apply_heap(&change, relays, now);
        }
        spread(Flow::Open, TextModes::AsAsked, relays, now);
        self.next_log = None;
        let program = self.wrap.program.to_string_lossy();
        // What the machine, or a group above, had no room for is not this limit's doing.
        let reached = self.group.as_ref().is_some_and(|group| group.events().max > 0);
        let limit = self.settings.limits.max.filter(|_| reached).map(bytes);
        let at = limit.map_or(String::new(), |limit| format!(" at --memory-max {limit}"));
        // The machine's count is worth reading only where it could explain something.
        let suspect = self.group.is_some() || exit == Exit::Signal(libc::SIGKILL);
        match (exit, if suspect { self.killed() } else { 0 }) {
            (_, 0) => {}
            (Exit::Signal(libc::SIGKILL), _) if self.group.is_some() => {
                notice::error(&format!("run {program}: ended by the OOM killer{at}"));
            }
            (Exit::Signal(libc::SIGKILL), _) => {
                notice::error(&format!(
                    "run {program}: ended by the machine's OOM killer, it seems"
                ));
            }
            (_, killed) if self.group.is_some() => {
                let text =
                    format!("run {program}: the OOM killer ended {killed} of its processes{at}");
                notice::notice(self.verbosity, &text);
            }
            _ => {}
        }
        if let Some(title) = &mut self.title {
            title.show(Stage::Monitoring, "");
        }
        self.retire();
    }

    /// No more samples; the books stay.
    fn retire(&mut self) {
        self.stalls = Polled::No;
        self.events = Polled::No;
    }

    /// How many processes the OOM killer ended: in the child's group, or else on this machine meanwhile.
    fn killed(&self) -> u64 {
        match (&self.group, self.oom_kills) {
            (Some(group), _) => group.events().oom_kill,
            (None, Some(before)) => limit::oom_kills().map_or(0, |now| now.saturating_sub(before)),
            (None, None) => 0,
        }
    }

    /// What is known of the command's memory once it has ended.
    pub(crate) fn end(&self, exit: Exit) -> MemoryEnd {
        MemoryEnd {
            report: self.report(),
            // To a command that ended well, nothing was done.
            oom_kills: if exit == Exit::Status(0) { 0 } else { self.killed() },
            heap_records: self.nodes.as_ref().map_or_else(Vec::new, NodeWatch::records),
        }
    }

    /// Removes the child's cgroup; whoever has outlived the child is under no limit of ours any more.
    pub(crate) fn leave_group(&mut self) {
        self.group = None;
    }

    /// The books, for the report.
    fn report(&self) -> Option<MemoryReport> {
        let account = match &self.guard {
            Some(guard) => guard.account(),
            // It was over before the watch began.
            None if self.scope.is_some() => Account::default(),
            None => return None,
        };
        let events = self.group.as_ref().map_or(Events::default(), ChildGroup::events);
        // The kernel's own figure counts page cache too: for a command that was over before it could be looked at.
        let group_peak = || self.group.as_ref().and_then(ChildGroup::peak).unwrap_or(0);
        let peak_bytes = if account.samples == 0 { group_peak() } else { account.peak };
        Some(MemoryReport {
            peak_bytes,
            highest_stage: account.highest.unwrap_or(Stage::Monitoring).name(),
            stage_changes: account.changes,
            gate_closed: account.gate_closed,
            gate_harmful: account.gate_harmful,
            gate_helped: account.gate_helped,
            gate_gained_bytes: account.gate_gained,
            gate_held_seconds: account.gate_held.as_secs_f64(),
            samples: account.samples,
            sampling_seconds: account.sampling.as_secs_f64(),
            high_events: events.high,
            max_events: events.max,
            oom_kills: events.oom_kill,
            node: self.nodes.as_ref().map(NodeWatch::report),
        })
    }
}
