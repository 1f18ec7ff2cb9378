//! Adaptive coalescing: how long a busy stream waits before its next transfer, so that fewer and larger
//! transfers run.
//!
//! Each transfer costs the same however little it moves, and takes the lock of the pipe that the
//! producer is writing into. While transfers come close together and move little of what the pipe holds,
//! a short wait lets more gather: as long as the stream takes to fill three quarters of a pipe, no longer
//! than the limit. A pipe that is quite full would make the producer wait. Waiting has to pay, or it ends
//! and is tried again ever more rarely. It pays if transfers become clearly larger (those of a slow writer
//! of lines do not) and the stream no slower (a ping-pong, or any producer that waits for its consumer,
//! becomes so). Both are judged over a few transfers together, because any single one may have waited for
//! a processor. The first byte after silence never waits.
//! Pure: time is handed in.

use std::time::{Duration, Instant};

/// Transfers further apart than this are no stream to be coalesced.
const BUSY: Duration = Duration::from_millis(1);
/// A wait shorter than this gathers less than it costs.
const SHORTEST: Duration = Duration::from_micros(10);
/// How much of what a pipe holds a transfer is to find.
const FILL: f64 = 0.75;
/// How many transfers with a wait are judged together.
const TRIAL: u32 = 8;
/// How many transfers pass without a wait before one is tried; doubles up to the second figure each time
/// that waiting did not pay.
const REST: u32 = 32;
const LONGEST_REST: u32 = 4096;

/// The pace of one relay.
#[derive(Debug)]
pub struct Pace {
    /// The longest wait allowed; zero switches coalescing off.
    limit: Duration,
    /// The wait before the next transfer, while the stream stays busy.
    wait: Duration,
    /// How long the present or next rest is, in transfers.
    rest: u32,
    standing: Standing,
    /// Transfers since waiting began, ended or was last judged.
    window: Window,
    /// The last rest: what waiting has to beat.
    free: Window,
    last: Option<Instant>,
}

/// What is known of the present wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It has not been judged.
    Trial,
    /// It has paid.
    Proven,
    /// It had paid before, and did not the last time: somebody may just have had to wait for a processor.
    Doubted,
}

/// Transfers that are judged together.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    transfers: u32,
    bytes: u64,
    time: Duration,
}

impl Window {
    fn add(&mut self, moved: u32, gap: Duration) {
        self.transfers += 1;
        self.bytes += u64::from(moved);
        self.time += gap;
    }

    /// Mean size of a transfer, in bytes.
    fn mean(&self) -> u64 {
        self.bytes / u64::from(self.transfers.max(1))
    }

    /// Bytes per second.
    fn rate(&self) -> f64 {
        self.bytes as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

impl Pace {
    /// A pace that never adds more than `limit`.
    pub fn new(limit: Duration) -> Pace {
        Pace {
            limit,
            wait: Duration::ZERO,
            rest: REST,
            standing: Standing::Trial,
            window: Window::default(),
            free: Window::default(),
            last: None,
        }
    }

    /// Takes note of a transfer that moved `moved` bytes of at most `capacity` and completed `now`.
    /// Returns how long to wait before the next is submitted; zero means at once.
    pub fn after(&mut self, moved: u32, capacity: u32, now: Instant) -> Duration {
        let gap = self.last.replace(now).map(|last| now.saturating_duration_since(last));
        // What the transfer took beyond the wait that we made ourselves.
        let Some(gap) = gap.filter(|gap| *gap <= BUSY + self.wait) else {
            self.change(Duration::ZERO);
            return Duration::ZERO;
        };
        self.window.add(moved, gap);
        if self.wait.is_zero() {
            if self.window.transfers >= self.rest {
                let wait = self.first_wait(capacity);
                self.change(wait);
            }
        } else if self.window.transfers >= TRIAL
            || self.standing == Standing::Trial && self.is_hopeless()
        {
            let wait = self.next_wait(capacity);
            self.change(wait);
        }
        self.wait
    }

    fn change(&mut self, wait: Duration) {
        if wait.is_zero() {
            self.standing = Standing::Trial;
        }
        self.wait = wait;
        self.window = Window::default();
    }

    /// After a rest: the wait to try.
    fn first_wait(&mut self, capacity: u32) -> Duration {
        self.free = self.window;
        let missing = FILL * f64::from(capacity) - self.free.mean() as f64;
        self.allowed(missing.max(0.0) / self.free.rate().max(1.0))
    }

    /// After some transfers with a wait: how long the next ones are, if it paid.
    fn next_wait(&mut self, capacity: u32) -> Duration {
        if !self.brings_more() || self.window.rate() < self.free.rate() * 0.75 {
            if self.standing == Standing::Proven {
                self.standing = Standing::Doubted;
                return self.wait;
            }
            self.rest = (self.rest * 2).min(LONGEST_REST);
            return Duration::ZERO;
        }
        self.standing = Standing::Proven;
        self.rest = REST;
        let wanted = FILL * f64::from(capacity) / self.window.mean() as f64;
        self.allowed(self.wait.as_secs_f64() * wanted.clamp(0.5, 2.0))
    }

    fn brings_more(&self) -> bool {
        self.window.mean() >= self.free.mean() + self.free.mean() / 4
    }

    /// One look at a ping-pong is enough: every wait of a trial would be felt by whoever plays it.
    fn is_hopeless(&self) -> bool {
        !self.brings_more() && self.window.rate() < self.free.rate() / 2.0
    }

    fn allowed(&self, seconds: f64) -> Duration {
        let wait = Duration::from_secs_f64(seconds.min(1.0)).min(self.limit);
        if wait < SHORTEST { Duration::ZERO } else { wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: u32 = 1 << 20;
    const LIMIT: Duration = Duration::from_micros(200);

    /// A stream whose transfers take 10 µs, and that delivers what `bytes` says of the time that passed
    /// between two of them. Returns the waits, one for each transfer.
    fn run(pace: &mut Pace, transfers: usize, bytes: impl Fn(Duration) -> u32) -> Vec<Duration> {
        pace.last = None;
        run_on(pace, transfers, bytes)
    }

    /// The same, without a pause before it.
    fn run_on(pace: &mut Pace, transfers: usize, bytes: impl Fn(Duration) -> u32) -> Vec<Duration> {
        let mut now = pace.last.unwrap_or_else(Instant::now);
        let mut wait = pace.wait;
        let mut waits = Vec::new();
        for _ in 0..transfers {
            let passed = wait + Duration::from_micros(10);
            now += passed;
            wait = pace.after(bytes(passed), PIPE, now);
            waits.push(wait);
        }
        waits
    }

    fn waited(waits: &[Duration]) -> usize {
        waits.iter().filter(|wait| !wait.is_zero()).count()
    }

    /// A producer of 3 GB/s.
    fn steady(passed: Duration) -> u32 {
        (passed.as_micros() as u32 * 3000).min(PIPE)
    }

    #[test]
    fn a_steady_stream_is_coalesced_within_the_limit() {
        let waits = run(&mut Pace::new(LIMIT), 200, steady);
        assert!(waits.iter().all(|wait| *wait <= LIMIT));
        let settled = &waits[2 * REST as usize..];
        assert!(settled.iter().all(|wait| *wait >= Duration::from_micros(100)), "{waits:?}");
    }

    #[test]
    fn a_wait_gathers_most_of_a_pipe_and_no_more() {
        let long = Duration::from_millis(100);
        let waits = run(&mut Pace::new(long), 400, steady);
        let last = *waits.last().expect("400 of them");
        let gathered = steady(last + Duration::from_micros(10));
        assert!((PIPE / 10 * 6..PIPE / 10 * 9).contains(&gathered), "{gathered} bytes in {last:?}");
    }

    #[test]
    fn a_ping_pong_is_left_alone() {
        let waits = run(&mut Pace::new(LIMIT), 10_000, |_| 64);
        assert!(waited(&waits) < 20, "waited {} times", waited(&waits));
    }

    /// The producer of large blocks that waits for an answer: waiting makes it slower, not larger.
    #[test]
    fn requests_are_left_alone() {
        let waits = run(&mut Pace::new(LIMIT), 10_000, |_| 128 << 10);
        assert!(waited(&waits) < 20, "waited {} times", waited(&waits));
    }

    /// 2000 lines a second: no wait that is allowed would ever gather two.
    #[test]
    fn lines_that_come_apart_are_not_delayed() {
        let mut pace = Pace::new(LIMIT);
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..10_000 {
            now += Duration::from_micros(500);
            waits.push(pace.after(80, PIPE, now));
        }
        assert!(waited(&waits) < 100, "waited {} times", waited(&waits));
    }

    #[test]
    fn one_late_transfer_does_not_end_the_pace() {
        let mut pace = Pace::new(LIMIT);
        run(&mut pace, 100, steady);
        let mut now = pace.last.expect("it has begun");
        for late in [0, 0, 300, 0, 0, 0, 0, 0, 0, 0, 0, 0] {
            let passed = pace.wait + Duration::from_micros(10 + late);
            now += passed;
            pace.after(steady(passed), PIPE, now);
        }
        assert!(!pace.wait.is_zero());
    }

    /// The relay was not given a processor, or the producer was not: one such transfer says nothing.
    #[test]
    fn one_small_and_late_transfer_does_not_end_what_has_paid() {
        let mut pace = Pace::new(LIMIT);
        run(&mut pace, 100, steady);
        assert_eq!(pace.standing, Standing::Proven);
        let late = pace.last.expect("it has begun") + pace.wait + Duration::from_micros(500);
        assert!(!pace.after(64 << 10, PIPE, late).is_zero());
    }

    /// A producer that has turned into one that waits for answers is noticed all the same.
    #[test]
    fn a_wait_that_no_longer_pays_ends() {
        let mut pace = Pace::new(LIMIT);
        run(&mut pace, 100, steady);
        let waits = run_on(&mut pace, 200, |_| 64);
        assert!(waited(&waits) <= 2 * TRIAL as usize + 2, "waited {} times", waited(&waits));
    }

    #[test]
    fn a_full_pipe_needs_no_wait() {
        let waits = run(&mut Pace::new(LIMIT), 100, |_| PIPE);
        assert!(waits.iter().all(Duration::is_zero));
    }

    #[test]
    fn the_first_byte_after_silence_goes_at_once() {
        let mut pace = Pace::new(LIMIT);
        run(&mut pace, 100, steady);
        let later = Instant::now() + Duration::from_secs(10);
        assert_eq!(pace.after(100, PIPE, later), Duration::ZERO);
    }

    #[test]
    fn zero_switches_it_off() {
        let waits = run(&mut Pace::new(Duration::ZERO), 100, steady);
        assert!(waits.iter().all(Duration::is_zero));
    }
}
