//! The figures of running sessions: as each session tells them of itself, and as `nproxy --status` shows them.
//!
//! What a session says of itself holds words from a command line, so nothing of it reaches a terminal
//! unescaped.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::columns;
use super::node::{self, NodeStatus};
use super::report::{CopyReport, StreamReport};
use crate::units::{clock, harmless, size};

/// One running session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Who it is.
    #[serde(flatten)]
    pub subject: Subject,
    /// The engine that runs the operations.
    pub engine: String,
    /// Since the start.
    pub uptime_seconds: f64,
    /// Of the command; absent where nothing is watched, or has been yet.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory: Option<MemoryStatus>,
    /// Each stream.
    pub streams: Vec<LiveStream>,
    /// Each copy.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub copies: Vec<CopyReport>,
}

/// The memory of a running command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// `monitoring`, `attention`, `pressure`, `critical` or `emergency`.
    pub stage: String,
    /// `open`, `bounded`, `closed`, `draining` or `limited`.
    pub gate: String,
    /// Resident memory of all that is watched, at the last sample.
    pub resident_bytes: u64,
    /// The most that was seen.
    pub peak_bytes: u64,
    /// How often the stage has changed.
    pub stage_changes: u64,
    /// The heaps of its Node processes; absent without --node.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<NodeStatus>,
    /// How often the gate has closed: the tries to lower memory by holding output back.
    #[serde(default)]
    pub gate_closed: u64,
    /// In how many of them memory fell, and by how much all in all.
    #[serde(default)]
    pub gate_helped: u64,
    /// In bytes.
    #[serde(default)]
    pub gate_gained_bytes: u64,
    /// How long output waited in tries that are over.
    #[serde(default)]
    pub gate_held_seconds: f64,
}

/// Whose streams are relayed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// nproxy's own process.
    pub pid: u32,
    /// The command's process; absent for a filter.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub child: Option<u32>,
    /// The command and its arguments; empty for a filter.
    pub command: Vec<String>,
}

/// A stream while the session runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LiveStream {
    /// Its figures.
    #[serde(flatten)]
    pub report: StreamReport,
    /// What it waits for at this moment: `writer`, `reader` or `copy`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waits_for: Option<String>,
    /// How it ended, if it has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<String>,
}

impl SessionStatus {
    /// As one line of JSON.
    pub fn json(&self) -> String {
        // Numbers and strings only: there is nothing that could fail to serialize.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Delivered, all streams from the command together.
    fn bytes(&self) -> u64 {
        self.outward().map(|stream| stream.bytes).sum()
    }

    /// Bytes per second, over the last second where that is recorded.
    fn rate(&self) -> f64 {
        let rates = self.outward().map(|stream| match &stream.recorded {
            Some(recorded) => recorded.recent_bytes_per_second,
            None => stream.bytes_per_second,
        });
        rates.sum()
    }

    fn outward(&self) -> impl Iterator<Item = &StreamReport> {
        self.streams.iter().map(|live| &live.report).filter(|stream| stream.stream != "stdin")
    }

    /// What its streams wait for, in one word.
    fn waits_for(&self) -> &str {
        let open = || self.streams.iter().filter(|live| live.ended.is_none());
        let waits = |who: &str| open().any(|live| live.waits_for.as_deref() == Some(who));
        match () {
            () if waits("copy") => "copy",
            () if waits("reader") => "reader",
            () if waits("writer") => "writer",
            () => "-",
        }
    }
}

/// How much of a command line is told, in bytes: an answer has to fit into a socket, and a line of events into its
/// buffer.
const LONGEST_COMMAND: usize = 16 << 10;

impl Subject {
    /// A command that has not been started, or a filter. Of a very long command line the beginning is kept, and `…`
    /// stands for the rest.
    pub fn new(pid: u32, words: Vec<String>) -> Subject {
        let mut command: Vec<String> = Vec::with_capacity(words.len().min(64));
        let mut left = LONGEST_COMMAND;
        for mut word in words {
            let cut = word.len() > left;
            word.truncate(word.floor_char_boundary(left));
            // A word takes some room of its own in every report.
            left = left.saturating_sub(word.len() + 3);
            if cut {
                word.push('…');
            }
            command.push(word);
            if cut {
                break;
            }
        }
        Subject { pid, child: None, command }
    }

    /// The command as one line that is safe to show.
    pub fn title(&self) -> String {
        match self.command.is_empty() {
            true => "(filter)".to_owned(),
            false => harmless(&self.command.join(" ")),
        }
    }
}

/// All sessions as one JSON object.
pub fn json(sessions: &[SessionStatus]) -> String {
    #[derive(Serialize)]
    struct All<'a> {
        sessions: &'a [SessionStatus],
    }
    serde_json::to_string(&All { sessions }).unwrap_or_default() + "\n"
}

/// All sessions as a table: no column is wider than what stands in it, and none says nothing. On a `screen` of so
/// many columns the commands are cut, so that each has its line.
pub fn text(sessions: &[SessionStatus], screen: Option<usize>) -> String {
    if sessions.is_empty() {
        return "no sessions\n".to_owned();
    }
    let heads =
        ["PID", "UPTIME", "MOVED", "RATE", "MEMORY", "STAGE", "OUTPUT", "WAITS FOR", "COMMAND"];
    let rows: Vec<_> = sessions.iter().map(row).collect();
    let widest = |column: usize| {
        let cells = rows.iter().map(|row| columns::width(&row[column]));
        cells.max().unwrap_or(0).max(heads[column].len())
    };
    // Where no output is held back, or no memory is watched, there is nothing to see.
    let is_shown = |column: usize| match column {
        STAGE => rows.iter().any(|row| row[STAGE] != "-"),
        OUTPUT => rows.iter().any(|row| !["-", "open"].contains(&row[OUTPUT].as_str())),
        _ => true,
    };
    let mut table = String::new();
    for row in [heads.map(str::to_owned)].iter().chain(&rows) {
        for (column, cell) in row.iter().enumerate().filter(|(column, _)| is_shown(*column)) {
            let blanks = columns::padding(cell, widest(column));
            let _ = match column {
                LAST => {
                    let before = columns::width(table.rsplit('\n').next().unwrap_or_default());
                    let room = screen.map_or(usize::MAX, |screen| screen.saturating_sub(before));
                    writeln!(table, "{}", columns::cut(cell, room.max(heads[LAST].len())))
                }
                // Numbers end where those above and below them end.
                0..STAGE => write!(table, "{blanks}{cell}  "),
                _ => write!(table, "{cell}{blanks}  "),
            };
        }
    }
    let nodes = sessions
        .iter()
        .filter_map(|session| Some((session.subject.pid, session.memory.as_ref()?.node.as_ref()?)));
    table + &node::text(nodes)
}

/// Columns of the table.
const STAGE: usize = 5;
const OUTPUT: usize = 6;
const LAST: usize = 8;

fn row(session: &SessionStatus) -> [String; LAST + 1] {
    let memory =
        |pick: fn(&MemoryStatus) -> String| session.memory.as_ref().map_or("-".to_owned(), pick);
    [
        session.subject.pid.to_string(),
        clock(session.uptime_seconds),
        size(session.bytes() as f64),
        format!("{}/s", size(session.rate())),
        memory(|memory| size(memory.resident_bytes as f64)),
        memory(|memory| harmless(&memory.stage)),
        memory(|memory| harmless(&memory.gate)),
        session.waits_for().to_owned(),
        session.subject.title(),
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::relay::{Counters, Stream};

    pub(in crate::observe) fn session(command: &[&str]) -> SessionStatus {
        let counters = Counters { bytes: 3 << 20, operations: 7, ..Counters::default() };
        let second = std::time::Duration::from_secs(1);
        let report = StreamReport::new(Stream::Stdout, counters, [counters].into_iter(), second);
        SessionStatus {
            subject: Subject {
                pid: 42,
                child: Some(43),
                command: command.iter().map(|word| (*word).to_owned()).collect(),
            },
            engine: "epoll".into(),
            uptime_seconds: 61.0,
            memory: Some(MemoryStatus {
                stage: "critical".into(),
                gate: "closed".into(),
                resident_bytes: 1 << 20,
                peak_bytes: 2 << 20,
                stage_changes: 3,
                node: None,
                gate_closed: 2,
                gate_helped: 1,
                gate_gained_bytes: 1 << 20,
                gate_held_seconds: 2.5,
            }),
            streams: vec![LiveStream { report, waits_for: Some("reader".into()), ended: None }],
            copies: vec![CopyReport {
                name: "a\"b".into(),
                bytes: 1,
                lost_bytes: 2,
                resent_bytes: 0,
                spooled_bytes: 0,
            }],
        }
    }

    #[test]
    fn what_a_session_says_comes_back_as_it_was() {
        let said = session(&["make", "-j8"]).json();
        let heard: SessionStatus = serde_json::from_str(&said).unwrap();
        assert_eq!(heard.json(), said);
        let all: serde_json::Value = serde_json::from_str(&json(&[heard])).unwrap();
        assert_eq!(all["sessions"][0]["streams"][0]["bytes"], 3 << 20);
        assert_eq!(json(&[]), "{\"sessions\":[]}\n");
    }

    #[test]
    fn a_command_cannot_draw_on_the_terminal() {
        let sessions = [session(&["printf", "\x1b[2J\r\n"])];
        let table = text(&sessions, None);
        assert!(!table.contains('\x1b') && !table.contains('\r'));
        assert_eq!(table.lines().count(), 2);
        assert!(table.contains("3 MiB") && table.contains("reader") && table.contains("1:01"));
        assert!(text(&[session(&[])], None).contains("(filter)"));
    }

    #[test]
    fn the_table_has_no_empty_column() {
        let closed = session(&["make"]);
        assert!(text(std::slice::from_ref(&closed), None).contains("OUTPUT"));
        let mut open = closed.clone();
        open.memory.as_mut().unwrap().gate = "open".into();
        assert!(!text(&[open.clone()], None).contains("OUTPUT"));
        let filter = SessionStatus { memory: None, ..open.clone() };
        assert!(!text(std::slice::from_ref(&filter), None).contains("STAGE"));
        let table = text(&[open, filter], None);
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    }

    #[test]
    fn a_stream_that_waits_for_a_copy_says_so() {
        let mut waiting = session(&["make"]);
        waiting.streams[0].waits_for = Some("copy".into());
        assert!(text(&[waiting], None).contains("  copy  "));
    }

    #[test]
    fn a_narrow_screen_cuts_commands_only() {
        let long = ["make", "all of what a long command line may say, and then a few words more"];
        let of = |columns| text(&[session(&long)], Some(columns));
        assert!(of(80).lines().all(|line| line.chars().count() <= 80), "{}", of(80));
        assert!(of(80).contains("make all of w…"), "{}", of(80));
        assert_eq!(of(500), text(&[session(&long)], None));
        assert!(of(10).contains("  1 MiB  ") && of(10).contains("make a…"), "{}", of(10));
        assert_eq!(text(&[], Some(80)), "no sessions\n");
    }
}
