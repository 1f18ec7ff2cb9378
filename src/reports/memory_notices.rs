//! What is said to the user about the command's memory, and how often. Pure: time is handed in.
//!
//! A figure that swings around a threshold must not fill the screen. A line comes at most once a second and
//! [`PER_MINUTE`] times a minute; what is held back is shown later as one line, the newest. Only a stage that is higher
//! than any before is shown at once: there are four of them in a run.

use std::collections::VecDeque;
use std::time::Duration;

use crate::memory::policy::{Changes, GateChange, Outcome, Room, Stage, StageChange, Try};
use crate::units::bytes;

const APART: Duration = Duration::from_secs(1);
const PER_MINUTE: usize = 6;
const MINUTE: Duration = Duration::from_secs(60);

/// What a line is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    pub(crate) changes: Changes,
    pub(crate) resident: u64,
    /// Where the stage begins that was entered.
    pub(crate) threshold: u64,
    pub(crate) room: Option<Room>,
    /// What was asked for by `--text` is off.
    pub(crate) text_is_off: bool,
}

/// A line about memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    /// For its colour; `None` if it is about the gate alone.
    pub(crate) stage: Option<Stage>,
    /// It says whether output is held back.
    tells_of_gate: bool,
}

/// The escape sequence of a stage's colour.
pub(crate) fn colour(stage: Stage) -> Option<&'static str> {
    match stage {
        Stage::Monitoring => None,
        Stage::Attention => Some("\x1b[33m"),
        Stage::Pressure => Some("\x1b[31m"),
        Stage::Critical => Some("\x1b[34m"),
        Stage::Emergency => Some("\x1b[35m"),
    }
}

/// Lines that were shown and that wait to be.
#[derive(Debug)]
pub(crate) struct MemoryNotices {
    highest: Stage,
    shown: VecDeque<Duration>,
    waiting: Option<Line>,
    /// Lines that a newer one has replaced.
    replaced: u32,
    /// Whether output is held back, and whether that is what was shown last of it.
    is_held: bool,
    told_held: bool,
}

impl MemoryNotices {
    pub(crate) fn new() -> MemoryNotices {
        MemoryNotices {
            highest: Stage::Monitoring,
            shown: VecDeque::new(),
            waiting: None,
            replaced: 0,
            is_held: false,
            told_held: false,
        }
    }

    /// Takes in what has changed, and returns the line to be shown now, if any.
    pub(crate) fn changed(&mut self, situation: Situation, at: Duration) -> Option<Line> {
        let highest = situation.changes.stage.map_or(self.highest, |stage| stage.to);
        let at_once = highest > self.highest;
        self.highest = self.highest.max(highest);
        if let Some(change) = situation.changes.gate {
            self.is_held = change == GateChange::Closed;
        }
        if let Some(line) = line(situation) {
            self.replaced += u32::from(self.waiting.is_some());
            self.waiting = Some(line);
        }
        if at_once { self.show(at) } else { self.due(at) }
    }

    /// The line that may be shown now.
    pub(crate) fn due(&mut self, at: Duration) -> Option<Line> {
        while self.shown.front().is_some_and(|then| at.saturating_sub(*then) >= MINUTE) {
            self.shown.pop_front();
        }
        let too_soon = self.shown.back().is_some_and(|last| at.saturating_sub(*last) < APART);
        if too_soon || self.shown.len() >= PER_MINUTE { None } else { self.show(at) }
    }

    fn show(&mut self, at: Duration) -> Option<Line> {
        let mut line = self.waiting.take()?;
        self.shown.push_back(at);
        if line.tells_of_gate {
            self.told_held = self.is_held;
        } else if self.told_held && !self.is_held {
            // The line that said so was replaced by this one.
            line.text.push_str(": output goes on");
            self.told_held = false;
        }
        match std::mem::take(&mut self.replaced) {
            0 => {}
            1 => line.text.push_str(" (and one change before)"),
            more => line.text.push_str(&format!(" (and {more} changes before)")),
        }
        Some(line)
    }
}

fn line(situation: Situation) -> Option<Line> {
    let stage = situation.changes.stage.map(|change| {
        let mut words = stage_words(change, situation);
        if situation.text_is_off && change.from < Stage::Pressure {
            words.push_str(", --text is off (--degrade=never: stays on)");
        }
        words
    });
    let gate = situation.changes.gate.and_then(gate_words);
    let tells_of_gate = gate.is_some();
    let text = match (stage, gate) {
        (None, None) => return None,
        (Some(stage), None) => format!("memory: {stage}"),
        (Some(stage), Some(gate)) => format!("memory: {stage}: {gate}"),
        (None, Some(gate)) => format!("memory: {gate} ({} in use)", bytes(situation.resident)),
    };
    let stage = situation.changes.stage.map(|stage| stage.to);
    Some(Line { text, stage, tells_of_gate })
}

fn stage_words(StageChange { from, to }: StageChange, situation: Situation) -> String {
    let resident = bytes(situation.resident);
    if to < from {
        return format!("{to} again, falling ({resident} in use)");
    }
    match situation.room {
        Some(room) if to == Stage::Emergency && situation.resident < situation.threshold => {
            let (left, limit) = (bytes(room.left), bytes(room.limit));
            format!("{to}, {left} of {limit} left ({resident} in use)")
        }
        _ if situation.resident < situation.threshold => {
            format!("{to}, the kernel reports stalls for want of memory ({resident} in use)")
        }
        _ => format!("{to} from {} ({resident} in use)", bytes(situation.threshold)),
    }
}

/// A try that was cut short says nothing that the stage does not say.
fn gate_words(change: GateChange) -> Option<String> {
    let Try { outcome, held, .. } = match change {
        GateChange::Closed => {
            return Some("output is held back to lower it (--gate=off: never)".to_owned());
        }
        GateChange::Opened(end) => end,
    };
    let held = held.as_secs_f64();
    match outcome {
        Outcome::Helped => Some(format!("output goes on, {held:.1} s held back helped")),
        Outcome::NoFall => Some(format!("output goes on, {held:.1} s held back changed nothing")),
        Outcome::Grew => Some("output goes on, held back it grew".to_owned()),
        Outcome::Idle => Some(format!("output goes on, none came after {held:.1} s held back")),
        Outcome::Cut => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn moved(from: Stage, to: Stage) -> Situation {
        let changes = Changes { stage: Some(StageChange { from, to }), gate: None };
        let (resident, threshold) = (110 * MIB, 100 * MIB);
        Situation { changes, resident, threshold, room: None, text_is_off: false }
    }

    fn text(line: Option<Line>) -> String {
        line.map_or(String::new(), |line| line.text)
    }

    #[test]
    fn rising_falling_and_what_is_done() {
        let mut notices = MemoryNotices::new();
        let closed = |mut situation: Situation| {
            situation.changes.gate = Some(GateChange::Closed);
            situation
        };
        let rising = closed(moved(Stage::Pressure, Stage::Critical));
        assert_eq!(
            text(notices.changed(rising, Duration::ZERO)),
            "memory: critical from 100 MiB (110 MiB in use): output is held back to lower it (--gate=off: never)"
        );
        let end = Try { outcome: Outcome::NoFall, held: Duration::from_millis(2200), gained: 0 };
        let changes = Changes { stage: None, gate: Some(GateChange::Opened(end)) };
        assert_eq!(
            text(notices.changed(Situation { changes, ..rising }, Duration::from_secs(2))),
            "memory: output goes on, 2.2 s held back changed nothing (110 MiB in use)"
        );
        let falling = moved(Stage::Critical, Stage::Pressure);
        assert_eq!(
            text(notices.changed(falling, Duration::from_secs(4))),
            "memory: pressure again, falling (110 MiB in use)"
        );
        let room = Some(Room { left: 40 * MIB, limit: 400 * MIB });
        let full =
            Situation { room, threshold: 320 * MIB, ..moved(Stage::Pressure, Stage::Emergency) };
        assert_eq!(
            text(notices.changed(full, Duration::from_secs(6))),
            "memory: emergency, 40 MiB of 400 MiB left (110 MiB in use)"
        );
    }

    #[test]
    fn who_was_told_that_output_is_held_back_is_told_that_it_goes_on() {
        let mut notices = MemoryNotices::new();
        let mut told = |from, to, gate, millis| {
            let situation = moved(from, to);
            let changes = Changes { gate, ..situation.changes };
            let line =
                notices.changed(Situation { changes, ..situation }, Duration::from_millis(millis));
            text(line)
        };
        let end = Try { outcome: Outcome::NoFall, held: Duration::from_millis(400), gained: 0 };
        let (closed, opened) = (Some(GateChange::Closed), Some(GateChange::Opened(end)));
        let (pressure, critical, emergency) = (Stage::Pressure, Stage::Critical, Stage::Emergency);
        assert!(told(pressure, critical, closed, 0).contains("held back"));
        assert_eq!(told(critical, pressure, opened, 400), "", "too soon");
        let line = told(critical, emergency, None, 500);
        assert!(line.ends_with("output goes on (and one change before)"), "{line}");
        let line = told(emergency, critical, None, 5000);
        assert!(!line.contains("output"), "{line}");
    }

    #[test]
    fn that_text_modes_are_off_is_told_once() {
        let mut notices = MemoryNotices::new();
        let mut told = |from, to, second| {
            let situation = Situation { text_is_off: true, ..moved(from, to) };
            text(notices.changed(situation, Duration::from_secs(second))).contains("--text is off")
        };
        assert!(told(Stage::Attention, Stage::Pressure, 0));
        assert!(!told(Stage::Pressure, Stage::Critical, 2));
    }

    #[test]
    fn each_new_height_is_told_at_once() {
        let mut notices = MemoryNotices::new();
        for pair in Stage::ALL.windows(2) {
            assert!(notices.changed(moved(pair[0], pair[1]), Duration::ZERO).is_some());
        }
    }

    #[test]
    fn a_figure_that_swings_gets_a_line_a_second_and_few_a_minute() {
        let mut notices = MemoryNotices::new();
        let (up, down) = (
            moved(Stage::Monitoring, Stage::Attention),
            moved(Stage::Attention, Stage::Monitoring),
        );
        let mut shown: Vec<u64> = Vec::new();
        for step in 0..1200 {
            let swing = if step % 2 == 0 { up } else { down };
            if notices.changed(swing, Duration::from_millis(step * 50)).is_some() {
                shown.push(step * 50);
            }
        }
        assert_eq!(shown.len(), PER_MINUTE);
        assert!(shown.windows(2).all(|pair| pair[1] - pair[0] >= 1000), "{shown:?}");
        let last = notices.due(Duration::from_secs(60));
        assert!(
            text(last).contains("monitoring again"),
            "how it ended is told when there is room for it"
        );
    }
}
