//! What has been shipped, as figures: for people on stderr, for Prometheus in a file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::Config;
use crate::notice::say;

/// How often the file for Prometheus is renewed.
const RENEW: Duration = Duration::from_secs(10);

/// Figures of one path, counted by its thread and read by the reporter.
pub(crate) struct Counters {
    path: String,
    /// Messages that the stream acknowledged and had not had before.
    pub(crate) published: AtomicU64,
    /// Bytes of segments that the stream acknowledged, duplicates included.
    pub(crate) bytes: AtomicU64,
    /// Messages that the stream had already.
    pub(crate) duplicates: AtomicU64,
    /// Messages that were sent once more.
    pub(crate) resends: AtomicU64,
    /// Messages that the stream stored behind a later one.
    pub(crate) out_of_order: AtomicU64,
    /// Segments of which all has been acknowledged.
    pub(crate) segments: AtomicU64,
    /// Segments that were removed or unreadable before all of them was shipped.
    pub(crate) gaps: AtomicU64,
    /// Their bytes that were not shipped, where it is known how many.
    pub(crate) gap_bytes: AtomicU64,
    /// Lines that were sent in pieces.
    pub(crate) long_lines: AtomicU64,
    /// Connections that were made.
    pub(crate) connections: AtomicU64,
    /// 1 while connected.
    pub(crate) connected: AtomicU64,
    /// Bytes on disk that are not acknowledged.
    pub(crate) lag_bytes: AtomicU64,
    /// Milliseconds since 1970 up to which everything that had been written is acknowledged.
    pub(crate) caught_up: AtomicU64,
}

impl Counters {
    /// All zero.
    pub(crate) fn new(path: &Path) -> Self {
        Counters {
            path: path.display().to_string(),
            published: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            resends: AtomicU64::new(0),
            out_of_order: AtomicU64::new(0),
            segments: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            gap_bytes: AtomicU64::new(0),
            long_lines: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            connected: AtomicU64::new(0),
            lag_bytes: AtomicU64::new(0),
            caught_up: AtomicU64::new(0),
        }
    }

    /// Seconds since everything that had been written was acknowledged; 0 while nothing waits.
    fn lag_seconds(&self, now_ms: u64) -> f64 {
        if self.lag_bytes.load(Ordering::Relaxed) == 0 {
            return 0.0;
        }
        Duration::from_millis(now_ms.saturating_sub(self.caught_up.load(Ordering::Relaxed)))
            .as_secs_f64()
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Tells the figures of all paths.
pub(crate) struct Reporter {
    counters: Vec<Arc<Counters>>,
    stats: Option<Duration>,
    metrics: Option<PathBuf>,
}

impl Reporter {
    /// A reporter as the command line asked for.
    pub(crate) fn new(config: &Config, counters: Vec<Arc<Counters>>) -> Self {
        Reporter { counters, stats: config.stats, metrics: config.metrics.clone() }
    }

    /// Returns when it is time to report.
    pub(crate) async fn pause(&self) {
        let stats = self.stats.filter(|every| !every.is_zero());
        let metrics = self.metrics.as_ref().map(|_| RENEW);
        match [stats, metrics].into_iter().flatten().min() {
            Some(every) => tokio::time::sleep(every).await,
            None => std::future::pending().await,
        }
    }

    /// Tells how it goes.
    pub(crate) fn report(&self) {
        if self.stats.is_some_and(|every| !every.is_zero()) {
            self.say();
        }
        self.write();
    }

    /// Tells how it went.
    pub(crate) fn finish(&self) {
        if self.stats.is_some() {
            self.say();
        }
        self.write();
    }

    fn say(&self) {
        for counters in &self.counters {
            let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            say(&format!(
                "{}: published={} bytes={} duplicates={} resends={} out_of_order={} segments={} gaps={} \
                 gap_bytes={} long_lines={} connections={} lag_bytes={} lag_seconds={:.1}",
                counters.path,
                get(&counters.published),
                get(&counters.bytes),
                get(&counters.duplicates),
                get(&counters.resends),
                get(&counters.out_of_order),
                get(&counters.segments),
                get(&counters.gaps),
                get(&counters.gap_bytes),
                get(&counters.long_lines),
                get(&counters.connections),
                get(&counters.lag_bytes),
                counters.lag_seconds(now_ms()),
            ));
        }
    }

    /// The collector must never see half a file, so it is replaced as a whole.
    fn write(&self) {
        let Some(path) = &self.metrics else { return };
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let text = exposition(&self.counters, now_ms());
        let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path));
        if let Err(error) = written {
            say(&format!("write {}: {error}", path.display()));
        }
    }
}

/// A figure's name, kind, meaning and place.
type Family = (&'static str, &'static str, &'static str, fn(&Counters) -> &AtomicU64);

const FAMILIES: &[Family] = &[
    ("published_total", "counter", "Messages stored by the stream.", |c| &c.published),
    ("acknowledged_bytes_total", "counter", "Bytes of segments acknowledged.", |c| &c.bytes),
    ("duplicates_total", "counter", "Messages that the stream had already.", |c| &c.duplicates),
    ("resends_total", "counter", "Messages sent once more.", |c| &c.resends),
    ("out_of_order_total", "counter", "Messages stored behind a later one.", |c| &c.out_of_order),
    ("segments_total", "counter", "Segments shipped completely.", |c| &c.segments),
    ("gaps_total", "counter", "Segments gone before they were shipped.", |c| &c.gaps),
    ("gap_bytes_total", "counter", "Bytes gone before they were shipped, as far as known.", |c| {
        &c.gap_bytes
    }),
    ("long_lines_total", "counter", "Lines sent in pieces.", |c| &c.long_lines),
    ("connections_total", "counter", "Connections made.", |c| &c.connections),
    ("connected", "gauge", "Whether there is a connection.", |c| &c.connected),
    ("lag_bytes", "gauge", "Bytes on disk that are not acknowledged.", |c| &c.lag_bytes),
];

fn exposition(counters: &[Arc<Counters>], now_ms: u64) -> String {
    let mut text = String::new();
    let label =
        |c: &Counters| c.path.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    for (name, kind, help, get) in FAMILIES {
        let _ =
            writeln!(text, "# HELP nproxy_ship_{name} {help}\n# TYPE nproxy_ship_{name} {kind}");
        for counters in counters {
            let value = get(counters).load(Ordering::Relaxed);
            let _ = writeln!(text, "nproxy_ship_{name}{{path=\"{}\"}} {value}", label(counters));
        }
    }
    let _ = writeln!(
        text,
        "# HELP nproxy_ship_lag_seconds Seconds since all that was written was acknowledged.\n\
         # TYPE nproxy_ship_lag_seconds gauge"
    );
    for counters in counters {
        let seconds = counters.lag_seconds(now_ms);
        let _ = writeln!(text, "nproxy_ship_lag_seconds{{path=\"{}\"}} {seconds}", label(counters));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposition_has_every_family_once_and_escapes_names() {
        let counters = Counters::new(Path::new("/a\"b"));
        add(&counters.published, 3);
        add(&counters.lag_bytes, 5);
        counters.caught_up.store(1000, Ordering::Relaxed);
        let text = exposition(&[Arc::new(counters)], 3500);
        assert!(text.contains("nproxy_ship_published_total{path=\"/a\\\"b\"} 3\n"), "{text}");
        assert!(text.contains("nproxy_ship_lag_seconds{path=\"/a\\\"b\"} 2.5\n"), "{text}");
        assert_eq!(text.matches("# TYPE ").count(), FAMILIES.len() + 1);
    }

    #[test]
    fn the_dashboard_asks_for_families_that_exist() {
        let text = exposition(&[], 0);
        let dashboard = include_str!("../../doc/grafana-dashboard.json");
        let names: Vec<&str> = dashboard
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("nproxy_ship_"))
            .collect();
        assert!(names.len() > 8, "{names:?}");
        for name in names {
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        }
    }
}
