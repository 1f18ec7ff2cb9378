//! The live line of `--progress`. Pure: figures in, one line out.

use std::collections::VecDeque;
use std::time::Duration;

use super::columns::{fitting, width};
use crate::units::{clock, harmless, size};

/// The present rate is taken over this time.
const WINDOW: Duration = Duration::from_secs(1);

/// Columns of the bar at most.
const BAR: usize = 30;

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    #[default]
    Bytes,
    /// Lines that have ended.
    Lines,
}

impl Unit {
    fn amount(self, count: f64) -> String {
        match self {
            Unit::Bytes => size(count),
            Unit::Lines => format!("{count:.0} lines"),
        }
    }

    /// A rate, and the columns for it.
    fn rate(self, count: f64) -> String {
        match self {
            Unit::Bytes => format!("{:>10}/s", size(count)),
            Unit::Lines => format!("{count:>10.0} lines/s"),
        }
    }
}

/// What the line is made from.
#[derive(Debug)]
pub struct Line {
    unit: Unit,
    /// What stands in front.
    name: String,
    /// What there will be at the end, where that is known.
    total: Option<u64>,
    /// At each sample its time, and what had been read by then: the last second of it.
    samples: VecDeque<(Duration, u64)>,
}

impl Line {
    /// A line for a run that will read `total` in all.
    pub fn new(total: Option<u64>, unit: Unit, name: Option<&str>) -> Line {
        let name = name.map_or(String::new(), |name| format!("{}: ", harmless(name)));
        Line { unit, name, total, samples: VecDeque::from([(Duration::ZERO, 0)]) }
    }

    /// The line after `elapsed`, when `count` has been read, in at most `columns` columns. `state` is what
    /// else there is to say.
    pub fn at(
        &mut self,
        elapsed: Duration,
        count: u64,
        state: Option<String>,
        columns: usize,
    ) -> String {
        let now = self.sample(elapsed, count);
        let average = count as f64 / elapsed.as_secs_f64().max(1e-3);
        let mut line = format!(
            "{}{:>9} {:>8}  {}  average {}",
            self.name,
            self.unit.amount(count as f64),
            clock(elapsed.as_secs_f64()),
            self.unit.rate(now),
            self.unit.rate(average),
        );
        if let Some(total) = self.total {
            let tail = goal(count, total, average);
            let room = columns.saturating_sub(width(&line) + tail.len() + 6);
            if room >= 8 {
                line.push_str(&bar(count, total, room.min(BAR)));
            }
            line.push_str(&tail);
        }
        if let Some(state) = state {
            line.push_str("  ");
            line.push_str(&state);
        }
        fitting(&line, columns).to_owned()
    }
}

impl Line {
    /// Takes note of where the run is, and returns its rate over the last second.
    fn sample(&mut self, elapsed: Duration, bytes: u64) -> f64 {
        self.samples.push_back((elapsed, bytes));
        while self.samples.get(1).is_some_and(|(at, _)| *at + WINDOW <= elapsed) {
            self.samples.pop_front();
        }
        let (since, before) = self.samples.front().copied().unwrap_or_default();
        let window = elapsed.saturating_sub(since).as_secs_f64();
        bytes.saturating_sub(before) as f64 / window.max(1e-3)
    }
}

/// Percentage and the time that is left at the average rate.
fn goal(bytes: u64, total: u64, average: f64) -> String {
    if bytes > total {
        // Who named the size was wrong: there is no telling how much more will come.
        return "  beyond the size given".to_owned();
    }
    let percent = bytes as f64 / total.max(1) as f64 * 100.0;
    let percent = if total == 0 { 100.0 } else { percent };
    match (bytes, average) {
        // 100 % is for when it is all there.
        _ if bytes == total => "  100 %".to_owned(),
        (0, _) => format!("  {percent:>3.0} %"),
        _ => {
            let left = (total - bytes) as f64 / average;
            format!("  {:>3.0} %  {} left", percent.min(99.0).floor(), clock(left.ceil()))
        }
    }
}

fn bar(bytes: u64, total: u64, columns: usize) -> String {
    let done = (bytes.min(total) as u128 * columns as u128 / u128::from(total.max(1))) as usize;
    format!("  [{}{}]", "=".repeat(done), " ".repeat(columns - done))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn without_a_size_there_is_no_percentage() {
        let mut line = Line::new(None, Unit::Bytes, None);
        line.at(Duration::from_secs(1), 50 * MIB, None, 80);
        let text = line.at(Duration::from_secs(2), 200 * MIB, None, 80);
        assert_eq!(text, "  200 MiB     0:02     150 MiB/s  average    100 MiB/s");
    }

    #[test]
    fn with_a_size_there_is_a_goal() {
        let mut line = Line::new(Some(400 * MIB), Unit::Bytes, None);
        let text = line.at(Duration::from_secs(2), 100 * MIB, None, 120);
        assert!(text.ends_with("]   25 %  0:06 left"), "{text}");
        let filled = text.chars().filter(|character| *character == '=').count();
        assert_eq!(filled, 30 / 4);
        assert!(line.at(Duration::from_secs(9), 400 * MIB, None, 120).ends_with("  100 %"));
        let almost = line.at(Duration::from_secs(9), 400 * MIB - 1, None, 120);
        assert!(almost.contains(" 99 %"), "{almost}");
        let beyond = line.at(Duration::from_secs(9), 401 * MIB, None, 120);
        assert!(beyond.ends_with("beyond the size given"));
        assert!(
            Line::new(Some(0), Unit::Bytes, None)
                .at(Duration::from_secs(1), 0, None, 80)
                .ends_with("100 %")
        );
    }

    #[test]
    fn lines_may_be_counted_and_the_line_may_have_a_name() {
        let mut line = Line::new(Some(1000), Unit::Lines, Some("log\u{7}"));
        let text = line.at(Duration::from_secs(2), 500, None, 60);
        assert!(text.starts_with("log\\u{7}: 500 lines     0:02         250 lines/s"), "{text}");
        assert!(line.at(Duration::from_secs(2), 500, None, 120).contains(" 50 %"));
    }

    #[test]
    fn it_fits_the_screen() {
        for columns in 0..140 {
            let mut line = Line::new(Some(1000 * MIB), Unit::Bytes, None);
            let text = line.at(Duration::from_secs(200_000), 10 * MIB, None, columns);
            assert!(text.chars().count() <= columns, "{columns}: {text}");
        }
    }

    #[test]
    fn the_line_does_not_jump() {
        let mut line = Line::new(Some(1 << 40), Unit::Bytes, None);
        let ends = (1..60).map(|tick: u32| {
            line.at(Duration::from_secs(1) * tick, u64::from(tick) * 99 * MIB, None, 200)
                .find("average")
        });
        let mut ends: Vec<_> = ends.collect();
        ends.dedup();
        assert_eq!(ends.len(), 1);
    }
}
