//! What happens while no output comes: a heartbeat, and the end of a command that has been silent for too long.
//! Pure: time is handed in.

use std::time::{Duration, Instant};

use crate::config::Silence as Limits;

/// How long a command may take to end after SIGTERM.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// How often is checked what was asked to end.
const CHECK: Duration = Duration::from_millis(100);

/// What the loop sees of the command's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// So many bytes have come in all, and none waits to be read.
    Quiet(u64),
    /// Bytes wait: if they stay where they are, that is the reader's doing.
    Waiting,
    /// The command is stopped, and that is no silence.
    Stopped,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// A line that says how long nothing has come.
    Heartbeat(Duration),
    /// The command is to be asked to end.
    Terminate,
    /// What is left of it is to be killed.
    Kill,
}

/// How far the end of a silent command has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    Asked(Instant),
    Killed(Instant),
}

/// Watches for silence.
#[derive(Debug)]
pub(crate) struct SilenceWatch {
    limits: Limits,
    /// Bytes that had come when the silence began.
    bytes: u64,
    since: Instant,
    next_beat: Option<Instant>,
    ending: Ending,
}

impl SilenceWatch {
    pub(crate) fn new(limits: Limits, now: Instant) -> SilenceWatch {
        let next_beat = limits.heartbeat.map(|every| now + every);
        SilenceWatch { limits, bytes: 0, since: now, next_beat, ending: Ending::No }
    }

    /// Takes note of what has come, and says what is due now.
    pub(crate) fn update(&mut self, output: Output, now: Instant) -> Option<Due> {
        match (self.ending, output) {
            (Ending::Asked(at), _) => {
                let over = now >= at + GRACE;
                if over {
                    self.ending = Ending::Killed(now);
                }
                return over.then_some(Due::Kill);
            }
            (Ending::Killed(_), _) => return None,
            (Ending::No, Output::Quiet(bytes)) if bytes == self.bytes => {}
            (Ending::No, output) => {
                if let Output::Quiet(bytes) = output {
                    self.bytes = bytes;
                }
                self.restart(now);
                return None;
            }
        }
        let silent = now.saturating_duration_since(self.since);
        if self.limits.timeout.is_some_and(|timeout| silent >= timeout) {
            self.ending = Ending::Asked(now);
            return Some(Due::Terminate);
        }
        if self.next_beat.is_some_and(|at| now >= at) {
            self.next_beat = self.limits.heartbeat.map(|every| now + every);
            return Some(Due::Heartbeat(silent));
        }
        None
    }

    /// When the next thing falls due, if nothing comes before.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        match self.ending {
            Ending::No => {
                let timeout = self.limits.timeout.map(|timeout| self.since + timeout);
                timeout.into_iter().chain(self.next_beat).min()
            }
            Ending::Asked(_) | Ending::Killed(_) => self.is_waiting(now).then(|| now + CHECK),
        }
    }

    /// The command was stopped or continued: silence counts from now.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.since = now;
        self.next_beat = self.limits.heartbeat.map(|every| now + every);
    }

    /// The longest silence that is allowed.
    pub(crate) fn limit(&self) -> Duration {
        self.limits.timeout.unwrap_or(Duration::MAX)
    }

    /// Whether there is nothing to watch.
    pub(crate) fn is_idle(&self) -> bool {
        self.limits.timeout.is_none() && self.limits.heartbeat.is_none()
    }

    /// Whether the command has been silent for too long.
    pub(crate) fn is_over(&self) -> bool {
        self.ending != Ending::No
    }

    /// Whether what was asked to end may still do so. What was killed has to get a processor for that, or an answer from
    /// a disk.
    pub(crate) fn is_waiting(&self, now: Instant) -> bool {
        match self.ending {
            Ending::No => false,
            Ending::Asked(_) => true,
            Ending::Killed(at) => now < at + GRACE,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn watch(timeout: u32, heartbeat: u32, now: Instant) -> SilenceWatch {
        let time = |seconds: u32| (seconds > 0).then(|| SECOND * seconds);
        SilenceWatch::new(Limits { timeout: time(timeout), heartbeat: time(heartbeat) }, now)
    }

    #[test]
    fn a_silent_command_is_asked_and_then_killed() {
        let start = Instant::now();
        let at = |seconds: u32| start + SECOND * seconds;
        let mut watch = watch(5, 2, start);
        let quiet = Output::Quiet(0);
        assert_eq!(watch.deadline(start), Some(at(2)));
        assert_eq!(watch.update(quiet, at(2)), Some(Due::Heartbeat(SECOND * 2)));
        assert_eq!(watch.update(Output::Quiet(7), at(3)), None);
        assert_eq!(watch.update(Output::Quiet(7), at(5)), Some(Due::Heartbeat(SECOND * 2)));
        assert_eq!(watch.deadline(at(5)), Some(at(7)));
        assert_eq!(watch.update(Output::Stopped, at(60)), None);
        assert_eq!(watch.update(Output::Quiet(7), at(61)), None, "a stop is no silence");
        assert_eq!(watch.update(Output::Waiting, at(64)), None, "nor is a slow reader");
        assert_eq!(watch.update(Output::Quiet(7), at(69)), Some(Due::Terminate));
        assert!(watch.is_over() && watch.is_waiting(at(69)));
        assert_eq!(watch.update(Output::Quiet(9), at(78)), None);
        assert_eq!(watch.update(Output::Quiet(9), at(79)), Some(Due::Kill));
        assert!(
            watch.is_waiting(at(88)) && !watch.is_waiting(at(89)),
            "who was killed has its time"
        );
        assert_eq!((watch.update(Output::Quiet(9), at(99)), watch.deadline(at(99))), (None, None));
    }

    proptest! {
        /// Whatever comes when, a command that is never silent for the limit is never asked to end, and no two
        /// heartbeats are closer than was asked for.
        #[test]
        fn only_silence_counts(gaps in prop::collection::vec((0u64..5000, any::<bool>()), 1..100)) {
            let mut now = Instant::now();
            let mut watch = watch(5, 2, now);
            let (mut bytes, mut quiet_since, mut last_beat) = (0, now, None::<Instant>);
            for (gap, comes) in gaps {
                now += Duration::from_millis(gap);
                bytes += u64::from(comes);
                let due = watch.update(Output::Quiet(bytes), now);
                if comes {
                    quiet_since = now;
                }
                match due {
                    Some(Due::Terminate) => {
                        prop_assert!(now - quiet_since >= SECOND * 5);
                        return Ok(());
                    }
                    Some(Due::Heartbeat(_)) => {
                        prop_assert!(last_beat.is_none_or(|last| now - last >= SECOND * 2));
                        last_beat = Some(now);
                    }
                    Some(Due::Kill) => prop_assert!(false, "nobody was asked before"),
                    None => prop_assert!(now - quiet_since < SECOND * 5 || comes),
                }
            }
        }
    }
}
