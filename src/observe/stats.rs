//! What is counted of a stream beyond its bytes: how large transfers were, how far apart, how fast it moved
//! and what it waited for.
//!
//! Pure: times and sizes are handed in. Memory is fixed: two histograms of 36 KiB at most for each stream
//! that moved anything, and a few words.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Two significant digits: a quantile is told to one percent.
const DIGITS: u8 = 2;
/// The largest transfer told apart, in bytes: no pipe is larger (fs/pipe.c).
const LARGEST: u64 = 1 << 31;
/// The longest silence told apart: an hour, in nanoseconds.
const LONGEST: u64 = 3_600_000_000_000;

/// What is counted of one stream.
#[derive(Debug)]
pub struct StreamStats {
    /// Size of each transfer, in bytes.
    pub sizes: Distribution,
    /// Time between one transfer and the next, in nanoseconds.
    pub gaps: Distribution,
    /// Bytes delivered in the last second.
    pub rate: Rate,
    /// What it waited for.
    pub waits: Waits,
    last: Option<Duration>,
}

impl Default for StreamStats {
    fn default() -> StreamStats {
        StreamStats {
            sizes: Distribution::new(LARGEST),
            gaps: Distribution::new(LONGEST),
            rate: Rate::default(),
            waits: Waits::default(),
            last: None,
        }
    }
}

impl StreamStats {
    /// Counts a transfer of `size` bytes that completed `at`.
    pub fn transfer(&mut self, at: Duration, size: u64) {
        self.sizes.record(size);
        if let Some(last) = self.last.replace(at) {
            self.gaps.record(nanoseconds(at.saturating_sub(last)));
        }
    }
}

/// Time that a stream spent waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// For bytes to come.
    pub writer: Duration,
    /// For room to put them.
    pub reader: Duration,
    /// For a copy to take them.
    pub copies: Duration,
}

/// How often each value occurred, to two significant digits.
#[derive(Debug)]
pub struct Distribution {
    highest: u64,
    /// Made with the first value: most streams of a short run never have one.
    histogram: Option<Histogram<u64>>,
    minimum: u64,
    maximum: u64,
    sum: u128,
}

impl Distribution {
    fn new(highest: u64) -> Distribution {
        Distribution { highest, histogram: None, minimum: u64::MAX, maximum: 0, sum: 0 }
    }

    fn record(&mut self, value: u64) {
        if self.histogram.is_none() {
            self.histogram = Histogram::new_with_bounds(1, self.highest, DIGITS).ok();
        }
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record(value);
        }
        self.minimum = self.minimum.min(value);
        self.maximum = self.maximum.max(value);
        self.sum += u128::from(value);
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, Histogram::len)
    }

    /// The figures of the distribution, `None` if it is empty. Minimum, mean and maximum are exact.
    pub fn figures(&self) -> Option<Figures> {
        let histogram = self.histogram.as_ref()?;
        // The lower end of the bucket: sizes are mostly whole pages, which begin one.
        let quantile = |at| {
            let value = histogram.lowest_equivalent(histogram.value_at_quantile(at));
            value.clamp(self.minimum, self.maximum)
        };
        Some(Figures {
            count: histogram.len(),
            minimum: self.minimum,
            mean: self.sum as f64 / histogram.len() as f64,
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            maximum: self.maximum,
        })
    }
}

/// A distribution, summed up; in the unit of its values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// How many values there were.
    pub count: u64,
    /// The smallest.
    pub minimum: u64,
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: u64,
    /// Nine of ten are no larger.
    pub p90: u64,
    /// Ninety-nine of a hundred are no larger.
    pub p99: u64,
    /// The largest.
    pub maximum: u64,
}

/// Slots of the window over which the present rate is taken.
const SLOTS: usize = 10;
/// The time that one slot stands for.
const SLOT: Duration = Duration::from_millis(100);

/// Bytes of the last second, in slots of 100 ms.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    slots: [u64; SLOTS],
    /// Number of the slot that was written last, counted from the start of the run.
    newest: u64,
}

impl Rate {
    /// Counts `bytes` that were delivered `at`.
    pub fn add(&mut self, at: Duration, bytes: u64) {
        self.advance(at);
        self.slots[self.newest as usize % SLOTS] += bytes;
    }

    fn advance(&mut self, at: Duration) {
        let slot = (at.as_millis() / SLOT.as_millis()) as u64;
        for passed in self.newest + 1..=slot.min(self.newest + SLOTS as u64) {
            self.slots[passed as usize % SLOTS] = 0;
        }
        self.newest = self.newest.max(slot);
    }

    /// Bytes per second over the last second of a run that has lasted for `at`.
    pub fn per_second(mut self, at: Duration) -> f64 {
        self.advance(at);
        // The newest slot has only begun; the window reaches back over nine full ones.
        let begun = at.saturating_sub(SLOT * (self.newest as u32));
        let window = at.min(SLOT * (SLOTS as u32 - 1) + begun);
        self.slots.iter().sum::<u64>() as f64 / window.as_secs_f64().max(1e-3)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn every_transfer_is_counted_once() {
        let mut stats = StreamStats::default();
        for index in 0..1000u32 {
            stats.transfer(MS * index, u64::from(index % 10 + 1) * 1000);
        }
        let sizes = stats.sizes.figures().unwrap();
        assert_eq!((sizes.count, sizes.minimum, sizes.maximum), (1000, 1000, 10_000));
        assert_eq!(sizes.mean, 5500.0);
        assert!((4950..=5050).contains(&sizes.p50), "{sizes:?}");
        assert!((8910..=9090).contains(&sizes.p90), "{sizes:?}");
        let gaps = stats.gaps.figures().unwrap();
        assert_eq!((gaps.count, gaps.minimum, gaps.maximum), (999, 1_000_000, 1_000_000));
        assert_eq!(gaps.p99, 1_000_000);
        stats.transfer(MS * 1001, 4096);
        (0..5000).for_each(|_| stats.transfer(MS * 1001, 4096));
        assert_eq!(stats.sizes.figures().unwrap().p50, 4096);
    }

    #[test]
    fn what_is_beyond_the_bounds_still_counts() {
        let mut stats = StreamStats::default();
        stats.transfer(Duration::ZERO, 1 << 40);
        stats.transfer(Duration::from_secs(100_000), 1);
        assert_eq!(stats.sizes.count(), 2);
        assert_eq!(stats.sizes.figures().unwrap().maximum, 1 << 40);
        assert_eq!(stats.gaps.count(), 1);
        assert!(StreamStats::default().sizes.figures().is_none());
    }

    #[test]
    fn the_histograms_stay_small() {
        let mut stats = StreamStats::default();
        stats.transfer(Duration::ZERO, 1);
        stats.transfer(MS, 1);
        let buckets = |of: &Distribution| of.histogram.as_ref().unwrap().distinct_values();
        assert!(buckets(&stats.sizes) * 8 <= 36 << 10, "{}", buckets(&stats.sizes));
        assert!(buckets(&stats.gaps) * 8 <= 36 << 10, "{}", buckets(&stats.gaps));
    }

    #[test]
    fn the_present_rate_follows_the_stream() {
        let mut rate = Rate::default();
        for tick in 0..500u32 {
            rate.add(MS * 10 * tick, 10_000);
        }
        let now = MS * 4999;
        let steady = rate.per_second(now);
        assert!((980_000.0..=1_020_000.0).contains(&steady), "{steady}");
        let half = rate.per_second(now + MS * 500);
        assert!((300_000.0..=600_000.0).contains(&half), "{half}");
        assert_eq!(rate.per_second(now + MS * 1100), 0.0);
        assert_eq!(rate.per_second(now + Duration::from_secs(1 << 30)), 0.0);
    }

    #[test]
    fn a_run_shorter_than_the_window_has_a_rate_too() {
        let mut rate = Rate::default();
        rate.add(MS * 20, 1000);
        assert_eq!(rate.per_second(MS * 250), 4000.0);
    }
}
