//! The memory guard of a process without nproxy around it: the same samples, stages and thresholds, told on stderr.

use std::time::{Duration, Instant};

use nproxy::config::{Banner, Config, MonitorMode, Verbosity};
use nproxy::memory::heap::{HeapGuard, described};
use nproxy::memory::heap_page::{Collection, Page};
use nproxy::memory::limit::{self, Limits};
use nproxy::memory::policy::collection::Collector;
use nproxy::memory::policy::{GateMode, Settings, Source, Stage, StageChange, Thresholds};
use nproxy::memory::sample::Scope;
use nproxy::memory::{Bounds, Guard, Output};
use nproxy::units::bytes;

use crate::notice::Notices;

/// How soon a line that could not be said is tried again.
const SAY_AGAIN: Duration = Duration::from_millis(250);

/// Watches this process.
pub(crate) struct Watch {
    guard: Guard,
    heaps: HeapGuard<'static>,
    collector: Collector,
    notices: Notices,
    started: Instant,
    log_every: Option<Duration>,
    next_log: Option<Instant>,
    stage: Stage,
}

impl Watch {
    /// The watch that `config` asks for; `None` if it asks for none.
    pub(crate) fn new(config: &Config, page: Page<'static>, now: Instant) -> Option<Watch> {
        let memory = &config.memory;
        let scope = match memory.monitor {
            MonitorMode::Off => return None,
            MonitorMode::Auto | MonitorMode::Process => Scope::Process,
            MonitorMode::Tree => Scope::Tree,
            MonitorMode::Cgroup => Scope::Cgroup(limit::own_group()?),
        };
        let ceiling = limit::ceiling(Limits::default());
        let thresholds = Thresholds::new(memory.named, ceiling).ok()?;
        // There is no relay that a gate could hold.
        let settings = Settings { gate: GateMode::Off, ..memory.settings };
        let bounds = Bounds { named: memory.named, ceiling };
        let mut notices = Notices::new(config.verbosity == Verbosity::Quiet);
        if memory.banner == Banner::Shown {
            let from = Stage::ALL[1..].iter().map(|stage| bytes(thresholds.of(*stage)));
            let from = from.collect::<Vec<_>>().join(", ");
            let pid = std::process::id();
            let text = format!("node {pid}: memory: stages from {from} of {}", bytes(ceiling));
            notices.say(&text);
        }
        let guard = Guard::new(scope, std::process::id(), bounds, settings, now);
        Some(Watch {
            guard,
            heaps: HeapGuard::new(page),
            collector: Collector::default(),
            notices,
            started: now,
            log_every: memory.log_every,
            next_log: memory.log_every.and_then(|every| now.checked_add(every)),
            stage: Stage::Monitoring,
        })
    }

    /// When it has to look again.
    pub(crate) fn due(&self, now: Instant) -> Instant {
        let again = self.notices.is_holding().then(|| now + SAY_AGAIN);
        let due = self.guard.due();
        [again, self.next_log].into_iter().flatten().fold(due, Instant::min)
    }

    /// Looks, tells what has changed, and says what to collect.
    pub(crate) fn turn(&mut self, now: Instant) -> Option<Collection> {
        self.notices.flush();
        let mut collection = None;
        if now >= self.guard.due() {
            let at = now.saturating_duration_since(self.started);
            let output = Output { source: Source::Empty, bytes: 0 };
            if let Some(StageChange { to, .. }) = self.guard.sample(output, now).stage {
                self.tell(to);
            }
            if let Some(change) = self.heaps.sample(at) {
                self.notices.say_of(change.to, &described(&change));
            }
            self.stage = self.guard.stage().max(self.heaps.stage());
            let place = Stage::ALL.iter().position(|stage| *stage == self.stage);
            self.heaps.page().set_stage(place.unwrap_or(0));
            collection = self.collector.sample(self.guard.stage(), self.guard.resident(), at);
        }
        self.log(now);
        collection
    }

    fn tell(&mut self, to: Stage) {
        let resident = bytes(self.guard.resident());
        let text = match to {
            Stage::Monitoring => format!("memory: {to} ({resident} in use)"),
            _ => {
                let from = bytes(self.guard.thresholds().of(to));
                format!("memory: {to} from {from} ({resident} in use)")
            }
        };
        self.notices.say_of(to, &text);
    }

    fn log(&mut self, now: Instant) {
        let (Some(due), Some(every)) = (self.next_log, self.log_every) else { return };
        if now < due {
            return;
        }
        self.next_log = now.checked_add(every);
        let resident = bytes(self.guard.resident());
        let peak = bytes(self.guard.account().peak);
        let mut text = format!("memory: {resident}, peak {peak}, {}", self.stage);
        for heap in self.heaps.heaps() {
            let (used, live) = (bytes(heap.used), bytes(heap.live));
            let (limit, external) = (bytes(heap.limit), bytes(heap.external));
            let heap = format!("; heap {used} used, {live} alive of {limit}, external {external}");
            text.push_str(&heap);
        }
        self.notices.say(&text);
    }

    /// The process is about to end: says what can still be said.
    pub(crate) fn end(&mut self) {
        self.notices.flush();
    }
}
