//! From segments to windows: which messages come next, and what follows from their acknowledgement.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::backlog::{Backlog, GONE};
use crate::config::{Config, Until};
use crate::cut::{Piece, Rule};
use crate::notice::{Failure, say};
use crate::reader::Reader;
use crate::segment::{SegmentId, origin};
use crate::stats::{Counters, add, now_ms};
use crate::window::{Message, Window};
use crate::writers;

/// What there is to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The window holds something.
    Window,
    /// Nothing now.
    Wait,
    /// Nothing any more.
    Done,
}

/// What the end of what can be read means.
enum AtEnd {
    /// More has come meanwhile.
    More,
    /// A last line without an end.
    Rest(Piece),
    /// The segment is over.
    Finished,
    /// More may come.
    Wait,
    /// What was there at the start is shipped.
    Enough,
}

/// The messages of one path, in order.
pub(crate) struct Feed {
    path: PathBuf,
    /// What there is, and what has been shipped of it.
    pub(crate) backlog: Backlog,
    /// What is on its way.
    pub(crate) window: Window,
    counters: Arc<Counters>,
    origin: String,
    reader: Option<Reader>,
    /// With --once: what was there at the start, and how much of it.
    targets: Option<HashMap<SegmentId, u64>>,
    count: usize,
    /// Messages that the stream was found to hold although no acknowledgement had come.
    held: HashMap<String, u64>,
}

impl Feed {
    /// Takes the cursor of `path`; a second shipper of the same path fails.
    pub(crate) fn new(
        config: &Config,
        path: &Path,
        counters: Arc<Counters>,
    ) -> Result<Self, Failure> {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let cursor = config.cursor(path);
        let mut feed = Feed {
            origin: origin(
                &host.to_string_lossy(),
                &config.subject(path),
                &absolute.to_string_lossy(),
            ),
            backlog: Backlog::open(path, &cursor, config.shipped, Arc::clone(&counters))?,
            path: path.to_owned(),
            window: Window::default(),
            counters,
            reader: None,
            targets: None,
            count: config.window,
            held: HashMap::new(),
        };
        feed.counters.caught_up.store(now_ms(), Ordering::Relaxed);
        let mut looked = feed.backlog.look(None);
        if looked.is_ok() && feed.backlog.is_waiting() {
            // Something is missing, or was renamed while we looked.
            std::thread::sleep(GONE);
            looked = feed.backlog.look(None);
        }
        if matches!(config.until, Until::Shipped { .. }) {
            looked.map_err(|e| Failure::new(format!("look for {}", path.display()), e))?;
            let targets = feed.backlog.unshipped();
            if targets.is_empty() {
                say(&format!("look for {}: there is nothing to ship", path.display()));
            }
            feed.targets = Some(targets);
        }
        Ok(feed)
    }

    /// Whether nothing was there at the start, and nothing else is wanted.
    pub(crate) fn is_empty(&self) -> bool {
        self.targets.as_ref().is_some_and(HashMap::is_empty)
    }

    /// Looks at the directory, so that segments that come and go are known, and measures the lag.
    pub(crate) fn look(&mut self) -> io::Result<()> {
        let looked = self.backlog.look(self.reader.as_ref().map(|reader| &reader.id));
        self.measure_lag();
        looked
    }

    /// Bytes that wait.
    pub(crate) fn measure_lag(&self) {
        let open = self.reader.as_ref().and_then(|r| r.lag().map(|lag| (&r.id, lag)));
        self.backlog.measure_lag(open);
    }

    /// Fills the window if it is empty.
    pub(crate) fn next(&mut self, rule: Rule) -> io::Result<Next> {
        loop {
            if !self.window.is_empty() {
                return Ok(Next::Window);
            }
            self.backlog.look_if_due(self.reader.as_ref().map(|reader| &reader.id))?;
            if self.reader.is_none() {
                match self.open()? {
                    Next::Window => {}
                    other => return Ok(other),
                }
            }
            let Some(reader) = &mut self.reader else { return Ok(Next::Wait) };
            let mut planned = self.backlog.ledger.record.planned.clone();
            let pieces = match reader.pieces(rule, self.count, &mut planned) {
                Ok(pieces) => pieces,
                Err(error) => {
                    let id = reader.id.clone();
                    self.reader = None;
                    self.backlog.lose(&id, &error);
                    continue;
                }
            };
            if !pieces.is_empty() {
                self.load(pieces, rule, rule.batch.is_some());
                continue;
            }
            match self.at_end()? {
                AtEnd::More => {}
                AtEnd::Rest(piece) => self.load(vec![piece], rule, true),
                AtEnd::Finished => self.finish(),
                AtEnd::Wait => {
                    self.caught_up();
                    return Ok(Next::Wait);
                }
                AtEnd::Enough => return Ok(Next::Done),
            }
        }
    }

    /// Opens the oldest segment that is not shipped. `Window` means that there is one to read from.
    fn open(&mut self) -> io::Result<Next> {
        let Some((known, found)) = self.backlog.next() else {
            self.caught_up();
            return Ok(if self.targets.is_some() { Next::Done } else { Next::Wait });
        };
        let limit = match &self.targets {
            None => None,
            Some(targets) => match targets.get(&known.id) {
                None => return Ok(Next::Done),
                Some(size) => found.stem.is_none().then_some(*size),
            },
        };
        match Reader::open(&known, &found, limit) {
            Ok(reader) => self.reader = Some(reader),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.look()?;
                return Ok(Next::Wait);
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData && known.offset > 0 => {
                self.backlog.changed(&known.id);
                return self.open();
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(error) => {
                self.backlog.lose(&known.id, &error);
                return self.open();
            }
        }
        Ok(Next::Window)
    }

    /// Puts `pieces` into the window. What could be cut otherwise by the next run is written down first: the same
    /// bytes must go out under the same identity.
    fn load(&mut self, pieces: Vec<Piece>, rule: Rule, plan: bool) {
        let Some(reader) = &mut self.reader else { return };
        for piece in &pieces {
            if reader.begins_long_line(piece) && piece.payload.len() >= rule.limit {
                add(&self.counters.long_lines, 1);
                say(&format!(
                    "{}: the line at byte {} is longer than a message may be and goes in pieces of {}",
                    self.backlog.name(&reader.id),
                    piece.offset,
                    rule.limit
                ));
            }
        }
        let lengths: Vec<usize> =
            pieces.iter().map(|p| usize::try_from(p.len()).unwrap_or(usize::MAX)).collect();
        if plan {
            self.backlog.ledger.plan(lengths);
        } else if !self.backlog.ledger.record.planned.is_empty() {
            self.backlog.ledger.record.planned = lengths;
        }
        let segment = match reader.generation {
            0 => format!("{}-{}", self.origin, reader.id),
            n => format!("{}-{}.{n}", self.origin, reader.id),
        };
        self.window.messages =
            pieces.into_iter().map(|piece| Message::new(&segment, piece)).collect();
        if !self.held.is_empty() {
            self.window.mark(|id| self.held.get(id).copied());
            if self.window.messages.iter().all(|m| m.stored.is_none()) {
                self.held = HashMap::new();
            }
        }
    }

    /// Nothing complete can be read any more: is that all?
    fn at_end(&mut self) -> io::Result<AtEnd> {
        let Some(reader) = &mut self.reader else { return Ok(AtEnd::Wait) };
        let Some(file) = reader.plain() else {
            return Ok(reader.rest().map_or(AtEnd::Finished, AtEnd::Rest));
        };
        self.backlog.look(Some(&reader.id))?;
        let current = self.backlog.is_current(&reader.id);
        if current && self.targets.is_none() {
            return Ok(AtEnd::Wait);
        }
        if current && reader.pending() == 0 {
            return Ok(AtEnd::Enough);
        }
        if !writers::gone(file) {
            return Ok(if current { AtEnd::Enough } else { AtEnd::Wait });
        }
        // The last bytes may have come between our last look and the writer's end.
        reader.lift_limit();
        if reader.read()? > 0 {
            return Ok(AtEnd::More);
        }
        Ok(match reader.rest() {
            Some(piece) => AtEnd::Rest(piece),
            None if current => AtEnd::Enough,
            None => AtEnd::Finished,
        })
    }

    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.backlog.finish(&reader.id);
            self.backlog.ledger.save();
        }
    }

    /// Everything that was written until now has been read, and all that was read is acknowledged.
    fn caught_up(&self) {
        self.counters.caught_up.store(now_ms(), Ordering::Relaxed);
        self.measure_lag();
    }

    /// Takes what is acknowledged off the window's front. Returns how many messages that were.
    pub(crate) fn advance(&mut self) -> usize {
        let stored = self.window.take_stored();
        let count = stored.len();
        let Some(reader) = &mut self.reader else { return count };
        for (message, answer) in &stored {
            let counters = &self.counters;
            add(if answer.duplicate { &counters.duplicates } else { &counters.published }, 1);
            add(&counters.bytes, message.piece.len());
            let behind = !answer.duplicate && answer.sequence < self.backlog.ledger.record.sequence;
            add(&counters.out_of_order, u64::from(behind));
            let prefix = reader.acknowledged(&message.piece);
            self.backlog.ledger.acknowledged(&reader.id, prefix, answer.sequence);
        }
        if count > 0 {
            self.backlog.ledger.save_if_due();
        }
        count
    }

    /// What the stream holds already. Its messages are not sent again.
    pub(crate) fn held(&mut self, held: HashMap<String, u64>) {
        self.window.mark(|id| held.get(id).copied());
        self.held = held;
        self.advance();
    }

    /// Forgets how the window was cut; what is not acknowledged is read anew.
    pub(crate) fn cut_anew(&mut self) {
        self.advance();
        self.window = Window::default();
        self.backlog.ledger.record.planned.clear();
        if self.reader.as_mut().is_some_and(|reader| !reader.rewind()) {
            self.reader = None;
        }
    }

    /// A line about what stays behind.
    pub(crate) fn leave_behind(&self, why: &str) {
        let left = self.counters.lag_bytes.load(Ordering::Relaxed);
        say(&format!("{}: {left} bytes stay behind: {why}", self.path.display()));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;
    use crate::window::Stored;

    const RULE: Rule = Rule { limit: 1000, batch: None };

    /// More bytes than their compressed form has, by far.
    fn text() -> String {
        (0..3000).map(|n| format!("line {n} of a text that can be made much smaller\n")).collect()
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).expect("compress");
        encoder.finish().expect("compress")
    }

    /// A pass over the segments of `log` in `dir`, a message at a time.
    fn feed(dir: &Path) -> Feed {
        let path = dir.join("log");
        let name = path.display().to_string();
        let server = ["--to", "nats://127.0.0.1:1", "--subject", "s"];
        let words = ["nproxy-ship", &name, "--once", "--window", "1"].into_iter().chain(server);
        let config = Config::new(Cli::parse_from(words)).expect("a configuration");
        Feed::new(&config, &path, Arc::new(Counters::new(&path))).expect("a cursor")
    }

    /// Has messages stored until `enough` bytes are, or nothing comes any more.
    fn ship(feed: &mut Feed, enough: u64) {
        let mut sequence = 0;
        while feed.counters.bytes.load(Ordering::Relaxed) < enough
            && feed.next(RULE).expect("read") == Next::Window
        {
            sequence += 1;
            feed.window.messages[0].stored = Some(Stored { sequence, duplicate: false });
            feed.advance();
        }
        feed.backlog.ledger.save();
    }

    /// Segments that were lost, and their bytes as far as known.
    fn gaps(feed: &Feed) -> (u64, u64) {
        let counters = &feed.counters;
        (counters.gaps.load(Ordering::Relaxed), counters.gap_bytes.load(Ordering::Relaxed))
    }

    #[test]
    fn a_compressed_segment_that_cannot_be_read_to_its_end_is_a_gap() {
        let whole = gzip(&text());
        for (length, expected) in [(whole.len(), 0), (whole.len() / 2, 1), (0, 1)] {
            let dir = tempfile::tempdir().expect("a directory");
            std::fs::write(dir.path().join("log.1.gz"), &whole[..length]).expect("write");
            let mut feed = feed(dir.path());
            ship(&mut feed, u64::MAX);
            assert_eq!(gaps(&feed), (expected, 0), "{length} bytes");
            // More bytes of content were shipped than the file has.
            let shipped = feed.counters.bytes.load(Ordering::Relaxed);
            assert!(length == 0 || shipped > length as u64, "{shipped} of {length} bytes");
        }
    }

    #[test]
    fn a_compressed_segment_that_is_removed_half_shipped_is_a_gap_and_lags_until_then() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("log.1.gz");
        let compressed = gzip(&text());
        std::fs::write(&file, &compressed).expect("write");
        let mut before = feed(dir.path());
        ship(&mut before, compressed.len() as u64 + 1);
        before.measure_lag();
        assert_eq!(before.counters.lag_bytes.load(Ordering::Relaxed), compressed.len() as u64);
        drop(before);
        std::fs::remove_file(&file).expect("remove");
        assert_eq!(gaps(&feed(dir.path())), (1, 0));
    }

    #[test]
    fn a_plain_segment_that_is_removed_is_a_gap_if_it_was_not_all_shipped() {
        let text = text();
        let length = text.len() as u64;
        let first = text.find('\n').expect("a line") as u64 + 1;
        for (enough, expected) in [(1, (1, length - first)), (length, (0, 0))] {
            let dir = tempfile::tempdir().expect("a directory");
            let file = dir.path().join("log");
            std::fs::write(&file, &text).expect("write");
            let mut before = feed(dir.path());
            ship(&mut before, enough);
            drop(before);
            std::fs::remove_file(&file).expect("remove");
            assert_eq!(gaps(&feed(dir.path())), expected);
        }
    }

    #[test]
    fn what_a_segment_grew_by_before_it_was_seen_compressed_is_not_taken_for_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let (current, finished) = (dir.path().join("log"), dir.path().join("log.1.gz"));
        std::fs::write(&current, text()).expect("write");
        let mut before = feed(dir.path());
        ship(&mut before, u64::MAX);
        drop(before);
        // While nobody looks, it grows, is finished and compressed.
        std::fs::write(&finished, gzip(&(text() + "more\n"))).expect("write");
        std::fs::remove_file(&current).expect("remove");
        let mut after = feed(dir.path());
        assert_eq!(gaps(&after), (0, 0), "it is known again");
        std::fs::remove_file(&finished).expect("remove");
        after.look().expect("look");
        std::thread::sleep(GONE);
        after.look().expect("look");
        assert_eq!(gaps(&after), (1, 0));
    }
}
