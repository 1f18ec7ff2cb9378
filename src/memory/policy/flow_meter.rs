//! How output flows and memory grows with it.

use super::{Sample, TRICKLE, TRICKLE_EVERY};

/// Growth counts as such from one part in so many of memory over [`MEMORY_OF_FLOW`].
const GROWTH_PART: f64 = 64.0;

/// How far back growth and output are remembered, in seconds: their weight falls to 1/e in this time.
const MEMORY_OF_FLOW: f64 = 0.5;

/// In less than so many seconds a burst is no speed.
const SHORT_SPAN: f64 = 0.2;

/// Less output than so many bytes says nothing of what comes with it.
const ENOUGH_OUTPUT: f64 = 1048576.0;

/// How far back it is remembered what came with output, in seconds. What a try has to bring down has to have come so.
const MEMORY_OF_GROWTH: f64 = 10.0;
const CAME_PART: f64 = 16.0;

/// How memory grows while output flows, over the last moments.
#[derive(Clone, Debug, Default)]
pub(super) struct FlowMeter {
    /// Seconds, bytes of output, and bytes that memory grew by while output flowed.
    span: f64,
    output: f64,
    grown: f64,
    /// The same growth over a longer time, and without what went.
    came: f64,
    /// Of that longer time, the fastest growth and the fastest output, in bytes per second, and the most that memory grew by
    /// for each byte of output.
    fastest: f64,
    fastest_output: f64,
    most_for_a_byte: f64,
}

impl FlowMeter {
    pub(super) fn follow(&mut self, last: Sample, now: Sample) {
        let step = now.at.saturating_sub(last.at).as_secs_f64();
        let flowed = self.is_flowing();
        let kept = (-step / MEMORY_OF_FLOW).exp();
        self.span = self.span * kept + step;
        let moved = now.output.saturating_sub(last.output) as f64;
        self.output = self.output * kept + moved;
        self.grown *= kept;
        self.came *= (-step / MEMORY_OF_GROWTH).exp();
        match (flowed, self.is_flowing()) {
            (true, true) => {
                let grown = now.resident as f64 - last.resident as f64;
                self.grown += grown;
                self.came += grown.max(0.0);
            }
            // The silence before says nothing of how fast it is now. What grew in this time may have been read in.
            (false, true) => (self.span, self.output, self.grown) = (step, moved, 0.0),
            _ => {}
        }
        let kept = (-step / MEMORY_OF_GROWTH).exp();
        let span = self.span.max(SHORT_SPAN);
        self.fastest = (self.fastest * kept).max(self.grown.max(0.0) / span);
        self.fastest_output = (self.fastest_output * kept).max(self.output / span);
        let for_a_byte = if self.output > ENOUGH_OUTPUT { self.ratio() } else { 0.0 };
        self.most_for_a_byte = (self.most_for_a_byte * kept).max(for_a_byte);
    }

    /// Nothing is known any more of the last moments: the gate has changed how output flows.
    pub(super) fn begin_anew(&mut self) {
        *self = FlowMeter { span: 0.0, output: 0.0, grown: 0.0, ..self.clone() };
    }

    /// Whether output has been followed for long enough to tell its speed.
    pub(super) fn is_known(&self) -> bool {
        self.span >= SHORT_SPAN
    }

    /// Whether more comes than a closed gate would admit.
    pub(super) fn is_flowing(&self) -> bool {
        self.output > f64::from(TRICKLE) * self.span / TRICKLE_EVERY.as_secs_f64()
    }

    /// Whether memory grows, and so much of it has come with output that holding that back could matter.
    pub(super) fn grows(&self, resident: u64) -> bool {
        let resident = resident as f64;
        self.grown > resident / GROWTH_PART && self.came > resident / CAME_PART
    }

    /// Bytes that memory grows by for each byte of output.
    pub(super) fn ratio(&self) -> f64 {
        self.grown.max(0.0) / self.output.max(1.0)
    }

    /// Bytes of output per second.
    pub(super) fn rate(&self) -> f64 {
        self.output / self.span.max(SHORT_SPAN)
    }

    /// Bytes per second that memory grows by.
    pub(super) fn growth(&self) -> f64 {
        self.grown.max(0.0) / self.span.max(SHORT_SPAN)
    }

    /// The most bytes per second that it may grow by, from what was lately seen. Where as much goes as comes, memory stands
    /// still, and grows as fast as ever once it has been held back.
    pub(super) fn fastest(&self) -> f64 {
        self.fastest.max(self.fastest_output * self.most_for_a_byte)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Source;
    use super::*;

    const MIB: u64 = 1 << 20;

    /// After so many seconds of silence: 100 MB/s for 0.3 s, all of which stays in memory.
    fn after_silence(seconds: u64) -> FlowMeter {
        let mut meter = FlowMeter::default();
        let sample = |millis: u64| {
            let output = millis.saturating_sub(seconds * 1000) * MIB / 10;
            let at = Duration::from_millis(millis);
            let resident = 200 * MIB + output;
            Sample { at, resident, source: Source::Waiting, output, room: None, narrowest: None }
        };
        for millis in (10..=seconds * 1000 + 300).step_by(10) {
            meter.follow(sample(millis - 10), sample(millis));
        }
        meter
    }

    #[test]
    fn silence_before_is_no_part_of_the_speed() {
        for seconds in [0, 1, 10, 100] {
            let meter = after_silence(seconds);
            for found in [meter.rate(), meter.growth(), meter.fastest()] {
                let share = found / (100 * MIB) as f64;
                assert!((0.9..1.1).contains(&share), "{seconds} s: {share}");
            }
        }
    }
}
