//! A limit on the bytes per second of one relay. Pure: time is handed in.

use std::time::{Duration, Instant};

/// What passes at once after a pause: so much time's worth of bytes, where that is more than a few.
const BURST: Duration = Duration::from_millis(100);

/// A transfer is not worth making for less than this much time's worth of bytes.
const SHARE: Duration = Duration::from_millis(10);

/// Lets through so many bytes a second on the average.
#[derive(Debug)]
pub(super) struct RateLimit {
    /// Bytes a second, more than none.
    rate: u64,
    /// The bytes that were taken are paid for up to this moment.
    paid: Option<Instant>,
}

impl RateLimit {
    /// `rate` is in bytes a second, and more than none.
    pub(super) fn new(rate: u64) -> RateLimit {
        RateLimit { rate: rate.max(1), paid: None }
    }

    /// Lets through so many bytes a second from here on.
    pub(super) fn at(self, rate: u64) -> RateLimit {
        RateLimit { rate: rate.max(1), ..self }
    }

    /// How many bytes may be taken now; none if it is better to wait.
    pub(super) fn admits(&mut self, now: Instant) -> u32 {
        let paid = *self.paid.get_or_insert(now);
        let paid = paid.max(now.checked_sub(self.burst()).unwrap_or(paid));
        self.paid = Some(paid);
        if now < paid + self.share() {
            return 0;
        }
        let bytes = (now - paid).as_nanos() * u128::from(self.rate) / 1_000_000_000;
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// So many bytes were taken.
    pub(super) fn took(&mut self, bytes: u32) {
        let paid_for = self.time_of(bytes.into());
        self.paid = self.paid.map(|paid| paid + paid_for);
    }

    /// When something may be taken again, if nothing may at `now`.
    pub(super) fn reopens(&self, now: Instant) -> Option<Instant> {
        self.paid.map(|paid| paid + self.share()).filter(|at| now < *at)
    }

    /// The time between two transfers at least: that of one byte, if the rate is very low.
    fn share(&self) -> Duration {
        SHARE.max(self.time_of(1))
    }

    /// What may be saved up: at a very low rate a whole byte, and what a late loop leaves over.
    fn burst(&self) -> Duration {
        BURST.max(self.time_of(1) + BURST - SHARE)
    }

    /// The time in which so many bytes may pass, rounded up.
    fn time_of(&self, bytes: u64) -> Duration {
        let nanos = (u128::from(bytes) * 1_000_000_000).div_ceil(self.rate.into());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However late the loop is and however little comes: never more than the rate and one burst, and with
        /// bytes always at hand nearly the rate.
        #[test]
        fn the_rate_is_kept(
            rate in prop_oneof![1u64..100, 1000u64..100_000, 1u64 << 20..1 << 31],
            turns in prop::collection::vec((0u64..30, any::<bool>()), 10..300),
        ) {
            let start = Instant::now();
            let mut limit = RateLimit::new(rate);
            let (mut now, mut total) = (start, 0u64);
            for (late, all) in turns {
                let most = limit.admits(now);
                if most > 0 {
                    let taken = if all { most } else { most / 2 };
                    limit.took(taken);
                    total += u64::from(taken);
                    prop_assert!(limit.admits(now) <= most - taken);
                }
                let next = limit.reopens(now).unwrap_or(now);
                prop_assert!(next - now <= SHARE.max(limit.time_of(1)) + BURST);
                now = next + Duration::from_millis(late);
            }
            let seconds = (now - start).as_secs_f64();
            let most = rate as f64 * (seconds + BURST.as_secs_f64()) + 1.0;
            prop_assert!(total as f64 <= most, "{total} of {most}");
        }

        /// With bytes always at hand, only what a late loop leaves unused is missing.
        #[test]
        fn the_rate_is_reached(
            rate in prop_oneof![1u64..1000, 1000u64..1 << 31],
            late in prop::collection::vec(0u64..80, 100),
        ) {
            let start = Instant::now();
            let mut limit = RateLimit::new(rate);
            let (mut now, mut total) = (start, 0u64);
            for late in late {
                let most = limit.admits(now);
                limit.took(most);
                total += u64::from(most);
                now = limit.reopens(now).unwrap_or(now) + Duration::from_millis(late);
            }
            // The last turn has taken nothing yet, and what is left of a byte is none.
            let least = rate as f64 * ((now - start).as_secs_f64() - 0.1) * 0.99 - 1.0;
            prop_assert!(total as f64 >= least, "{total} of {least}");
        }
    }

    #[test]
    fn a_pause_is_worth_one_burst() {
        let start = Instant::now();
        let mut limit = RateLimit::new(1_000_000);
        assert_eq!(limit.admits(start), 0, "a run begins without a burst");
        assert_eq!(limit.admits(start + Duration::from_secs(60)), 100_000);
    }
}
