//! Shipping one path: connections come and go, the feed stays.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::sleep;

use crate::cli::Atomic;
use crate::config::{Config, Until};
use crate::cut::Rule;
use crate::directory::directory_of;
use crate::feed::{Feed, Next};
use crate::link::{Link, Word};
use crate::notice::{Failure, Trouble, say};
use crate::pause::Pauses;
use crate::publish::{Publisher, Refusal};
use crate::stats::{Counters, add};
use crate::stream::{Facts, Lookup, look_up, stored_since};
use crate::watch::DirectoryWatch;

/// Bytes of a message that its headers may take.
const HEADERS: usize = 512;

/// Below this a limit on messages makes no sense.
const SMALLEST: usize = 64;

/// A stream's memory for identities where it could not be asked: JetStream's default.
const DUPLICATES: Duration = Duration::from_secs(120);

/// The directory is looked at so often even if nothing is said of it; network filesystems say nothing.
const LOOK: Duration = Duration::from_secs(1);

/// However slow the cluster is, an acknowledgement is not waited for longer.
const LONGEST_ACK: Duration = Duration::from_secs(60);

/// Ships one path.
pub(crate) struct Shipper {
    config: Arc<Config>,
    subject: String,
    counters: Arc<Counters>,
    feed: Feed,
    watch: DirectoryWatch,
    facts: Facts,
    trouble: Trouble,
    pauses: Pauses,
    ack_timeout: Duration,
    /// A payload that was refused as too large although nobody told of a limit.
    refused_size: Option<usize>,
    last_success: Instant,
    /// The largest payload that was stored, while nobody tells how large it may be.
    largest: usize,
    /// Something was refused; one by one until all goes again.
    careful: bool,
    asked: Instant,
    /// How long ago the run before may have sent something of which it saw no acknowledgement.
    unsure: Option<Duration>,
}

/// How a connection, or all of it, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// All is shipped.
    Over,
    /// A signal came first.
    Stopped,
    /// Nothing has succeeded for too long.
    GaveUp,
    /// The connection is lost; another one may do better.
    Broken,
}

/// What to do after a step on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Go on.
    On,
    /// Go on, but ask for the stream first: something was refused.
    Ask,
    /// Leave the connection.
    Leave(Ended),
}

type Stop = watch::Receiver<bool>;

impl Shipper {
    /// Takes the cursor of `path`; a second shipper of the same path fails.
    pub(crate) fn new(
        config: Arc<Config>,
        path: &Path,
        counters: Arc<Counters>,
    ) -> Result<Self, Failure> {
        let feed = Feed::new(&config, path, Arc::clone(&counters))?;
        let record = &feed.backlog.ledger.record;
        let unsure = record.begun.then(|| {
            let written = UNIX_EPOCH + Duration::from_secs(record.written);
            SystemTime::now().duration_since(written).unwrap_or_default()
        });
        Ok(Shipper {
            subject: config.subject(path),
            watch: DirectoryWatch::new(directory_of(path)),
            ack_timeout: config.ack_timeout,
            config,
            counters,
            feed,
            facts: Facts::default(),
            trouble: Trouble::default(),
            pauses: Pauses::new(),
            refused_size: None,
            largest: 0,
            careful: false,
            asked: Instant::now(),
            last_success: Instant::now(),
            unsure,
        })
    }

    /// The figures of this path.
    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Ships until all is done, a signal comes or patience ends. True if nothing is missing in the stream; what only a
    /// signal ends may have something left to ship.
    pub(crate) fn run(&mut self, mut stop: Stop) -> Result<bool, Failure> {
        let ended = loop {
            if self.feed.is_empty() {
                break Ended::Over;
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|e| Failure::new("start the runtime", e))?;
            // The client's tasks, and what is queued on them, end with the runtime.
            let ended = runtime.block_on(self.connection(&mut stop));
            self.counters.connected.store(0, Ordering::Relaxed);
            self.feed.backlog.ledger.save_if_due();
            if ended != Ended::Broken {
                break ended;
            }
        };
        // Twice: what was finished last is deleted once that is written down.
        let _ = self.feed.look();
        self.feed.backlog.ledger.save();
        self.feed.measure_lag();
        let too_early = matches!(self.config.until, Until::Shipped { .. })
            && self.counters.lag_bytes.load(Ordering::Relaxed) > 0;
        let why = match ended {
            Ended::GaveUp => Some(self.trouble.reason().unwrap_or("nothing succeeds")),
            Ended::Stopped if too_early => Some("interrupted"),
            Ended::Stopped | Ended::Over | Ended::Broken => None,
        };
        if let Some(why) = why {
            self.feed.leave_behind(why);
        }
        Ok(why.is_none() && self.counters.gaps.load(Ordering::Relaxed) == 0)
    }

    /// One connection, from the attempt to its end.
    async fn connection(&mut self, stop: &mut Stop) -> Ended {
        let link = tokio::select! {
            link = Link::connect(&self.config) => link,
            _ = stop.wait_for(|stop| *stop) => return Ended::Stopped,
        };
        let mut link = match link {
            Ok(link) => link,
            Err(why) => {
                let servers = self.config.servers().join(",");
                return self
                    .retry(stop, format!("connect to {servers}: {why}"), Ended::Broken)
                    .await;
            }
        };
        add(&self.counters.connections, 1);
        self.counters.connected.store(1, Ordering::Relaxed);
        let mut step = Step::Ask;
        loop {
            step = match step {
                // First: a signal that comes when all is shipped interrupts nothing.
                Step::Leave(ended) => return ended,
                Step::On | Step::Ask if *stop.borrow() => return Ended::Stopped,
                Step::On => self.step(&mut link, stop).await,
                Step::Ask => self.ask(&mut link, stop).await,
            };
        }
    }

    /// Asks for the stream, and for what it holds if that is not sure.
    async fn ask(&mut self, link: &mut Link, stop: &mut Stop) -> Step {
        self.asked = Instant::now();
        match look_up(link, &self.subject).await {
            Lookup::Facts(facts) => {
                self.facts = facts;
                self.feed.backlog.ledger.begin_at(self.facts.last);
            }
            Lookup::None => {
                let why = no_stream(&self.subject);
                return match self.retry(stop, why, Ended::Broken).await {
                    Ended::Broken => Step::Ask,
                    ended => Step::Leave(ended),
                };
            }
        }
        self.settle(link).await;
        Step::On
    }

    /// After a long outage the stream may hold what it no longer remembers as seen: then it is looked up.
    async fn settle(&mut self, link: &mut Link) {
        let memory = self.facts.duplicates.unwrap_or(DUPLICATES);
        let resent = self.feed.window.since.map(|since| since.elapsed());
        let age = self.unsure.take().into_iter().chain(resent).max().unwrap_or_default();
        if age < memory / 2 {
            return;
        }
        let sequence = self.feed.backlog.ledger.record.sequence;
        let held = match self.facts.name.clone() {
            Some(stream) => stored_since(link, &stream, &self.subject, sequence).await,
            None => None,
        };
        match held {
            Some(held) => self.feed.held(held),
            None if age >= memory => say(&format!(
                "{}: {:.0} s without an acknowledgement are longer than the {:.0} s that the stream remembers, and it \
                 does not tell what it holds: up to {} messages may be stored twice",
                self.subject,
                age.as_secs_f64(),
                memory.as_secs_f64(),
                self.config.window
            )),
            None => {}
        }
    }

    /// Sends a window, or waits for one.
    async fn step(&mut self, link: &mut Link, stop: &mut Stop) -> Step {
        if self.facts.may_refuse && self.asked.elapsed() >= LOOK {
            return Step::Ask;
        }
        let rule = match self.rule(link) {
            Ok(rule) => rule,
            Err(why) => return self.again(stop, why).await,
        };
        match self.feed.next(rule) {
            Ok(Next::Done) => Step::Leave(Ended::Over),
            Ok(Next::Window) => self.send(link, stop).await,
            Ok(Next::Wait) => self.wait(link, stop).await,
            Err(error) => self.again(stop, format!("read the segments: {error}")).await,
        }
    }

    /// How messages are cut for this server and stream.
    fn rule(&self, link: &Link) -> Result<Rule, String> {
        let most = link.max_payload().min(self.facts.max_message.unwrap_or(usize::MAX));
        let limit = most.saturating_sub(HEADERS).min(self.refused_size.unwrap_or(usize::MAX));
        if limit < SMALLEST {
            return Err(format!(
                "publish to {}: messages of {most} bytes are too small",
                self.subject
            ));
        }
        Ok(Rule { limit, batch: self.config.batch.map(|batch| batch.min(limit)) })
    }

    async fn send(&mut self, link: &mut Link, stop: &mut Stop) -> Step {
        let window = &mut self.feed.window;
        let again = window.messages.iter().filter(|m| m.sent > 0 && m.stored.is_none()).count();
        add(&self.counters.resends, again as u64);
        window.since.get_or_insert_with(Instant::now);
        let mut publisher = Publisher { link, subject: &self.subject, timeout: self.ack_timeout };
        let largest = window.messages.iter().map(|m| m.piece.payload.len()).max().unwrap_or(0);
        let as_one = self.facts.atomic
            && self.config.atomic == Atomic::Auto
            && window.messages.len() > 1
            && window.messages.iter().all(|m| m.stored.is_none());
        let may_be_too_large = self.facts.name.is_none() && largest > self.largest;
        let result = if as_one {
            match publisher.as_one(window).await {
                // It holds the unit already, or has no room, or takes no more units now: one by one says which.
                Err(Refusal::Stream { .. } | Refusal::TooLarge) => publisher.singly(window).await,
                other => other,
            }
        } else if self.careful || self.facts.may_refuse || may_be_too_large {
            publisher.singly(window).await
        } else {
            publisher.together(window).await
        };
        self.careful = result.is_err();
        if result.is_ok() {
            self.largest = self.largest.max(largest);
        }
        if self.feed.advance() > 0 {
            self.last_success = Instant::now();
            self.pauses.reset();
        }
        match result {
            Ok(stream) => {
                self.feed.backlog.ledger.record.stream = stream;
                // Slowly: a cluster that was slow a moment ago would only be left and found again.
                self.ack_timeout = (self.ack_timeout * 9 / 10).max(self.config.ack_timeout);
                self.trouble.over(&format!("publish to {}", self.subject));
                Step::On
            }
            Err(refusal) => self.refused(refusal, stop).await,
        }
    }

    async fn refused(&mut self, refusal: Refusal, stop: &mut Stop) -> Step {
        let subject = &self.subject;
        let why = match refusal {
            Refusal::Broken(why) => {
                let why = format!("publish to {subject}: {why}");
                return Step::Leave(self.retry(stop, why, Ended::Broken).await);
            }
            Refusal::Late => {
                let seconds = self.ack_timeout.as_secs_f64();
                let why = format!("publish to {subject}: no acknowledgement within {seconds:.0} s");
                self.ack_timeout = (self.ack_timeout * 2).min(LONGEST_ACK);
                return Step::Leave(self.retry(stop, why, Ended::Broken).await);
            }
            Refusal::TooLarge if self.refused_size == Some(SMALLEST) => {
                format!("publish to {subject}: messages of {SMALLEST} bytes are too large")
            }
            Refusal::TooLarge => {
                let largest = self.feed.window.messages.iter().map(|m| m.piece.payload.len()).max();
                self.refused_size = Some((largest.unwrap_or(0) / 2).max(SMALLEST));
                self.feed.cut_anew();
                return Step::Ask;
            }
            Refusal::NoStream => no_stream(subject),
            Refusal::Denied(text) => format!("publish to {subject}: {text}"),
            Refusal::Stream { code, text } => {
                format!("publish to {subject}: the stream refuses it: {text} ({code})")
            }
        };
        match self.again(stop, why).await {
            Step::On => Step::Ask,
            step => step,
        }
    }

    /// Tells of a trouble, pauses, and goes on with the same connection.
    async fn again(&mut self, stop: &mut Stop, why: String) -> Step {
        match self.retry(stop, why, Ended::Broken).await {
            Ended::Broken => Step::On,
            ended => Step::Leave(ended),
        }
    }

    /// Tells of a trouble and pauses. `otherwise` unless that is the end of all.
    async fn retry(&mut self, stop: &mut Stop, why: String, otherwise: Ended) -> Ended {
        self.trouble.met(why);
        // Segments that come and go meanwhile are to be known.
        let _ = self.feed.look();
        self.feed.backlog.ledger.save_if_due();
        if self.is_out_of_patience() {
            return Ended::GaveUp;
        }
        tokio::select! {
            () = sleep(self.pauses.grow()) => otherwise,
            _ = stop.wait_for(|stop| *stop) => Ended::Stopped,
        }
    }

    fn is_out_of_patience(&self) -> bool {
        match self.config.until {
            Until::Shipped { patience } => self.last_success.elapsed() >= patience,
            Until::Signal => false,
        }
    }

    /// Waits until there may be something to ship.
    async fn wait(&mut self, link: &mut Link, stop: &mut Stop) -> Step {
        self.trouble.over(&format!("publish to {}", self.subject));
        self.feed.backlog.ledger.save();
        if self.is_out_of_patience() {
            self.trouble.met("the last segment is finished, but somebody still has it open".into());
            return Step::Leave(Ended::GaveUp);
        }
        let word = tokio::select! {
            () = self.watch.changed() => return Step::On,
            () = sleep(LOOK) => return Step::On,
            _ = stop.wait_for(|stop| *stop) => return Step::Leave(Ended::Stopped),
            word = link.words.next() => word,
        };
        match word {
            Word::Denied(_) => Step::On,
            Word::Broken(why) => {
                let why = format!("connection to the cluster: {why}");
                Step::Leave(self.retry(stop, why, Ended::Broken).await)
            }
        }
    }
}

fn no_stream(subject: &str) -> String {
    format!("publish to {subject}: no stream takes this subject, or it has no leader")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    /// Whether a run over `text` counts as complete that a signal ends before it has shipped anything.
    fn complete(how: &str, text: &str) -> bool {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        std::fs::write(&path, text).expect("write");
        let name = path.display().to_string();
        let words = ["nproxy-ship", &name, "--to", "nats://127.0.0.1:1", "--subject", "s", how];
        let config = Arc::new(Config::new(Cli::parse_from(words)).expect("a configuration"));
        let (_stop, stopped) = watch::channel(true);
        Shipper::new(config, &path, Arc::new(Counters::new(&path)))
            .expect("a cursor")
            .run(stopped)
            .expect("a runtime")
    }

    #[test]
    fn a_signal_is_no_success_while_something_is_left_that_was_to_be_shipped() {
        assert!(!complete("--once", "a line\n"));
        assert!(complete("--once", ""), "nothing is left");
        assert!(complete("--follow", "a line\n"), "nothing else ends it");
    }
}
