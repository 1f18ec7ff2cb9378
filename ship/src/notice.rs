//! What is said on stderr: one line each, `nproxy-ship: what was tried: why`.

use std::fmt;
use std::io::Write as _;

/// Writes one line to stderr. That stderr may be gone is no reason to stop shipping.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "nproxy-ship: {}", line.replace(['\n', '\r'], " "));
}

/// Something that ends the program: what was tried, and why it failed.
#[derive(Debug)]
pub(crate) struct Failure {
    tried: String,
    why: String,
}

impl Failure {
    /// A failure of `tried` ("open /var/log/x") because of `why`.
    pub(crate) fn new(tried: impl Into<String>, why: impl fmt::Display) -> Self {
        Failure { tried: tried.into(), why: why.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.tried, self.why)
    }
}

/// A trouble that lasts: told when it begins or changes its reason, once a minute, and when it is over.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    now: Option<Lasting>,
}

#[derive(Debug)]
struct Lasting {
    reason: String,
    since: std::time::Instant,
    told: std::time::Instant,
}

impl Trouble {
    /// Tells of `reason` unless it has been told less than a minute ago.
    pub(crate) fn met(&mut self, reason: String) {
        let now = std::time::Instant::now();
        let since = self.now.as_ref().map_or(now, |lasting| lasting.since);
        if let Some(lasting) = &self.now
            && lasting.reason == reason
            && lasting.told.elapsed().as_secs() < 60
        {
            return;
        }
        say(&format!("{reason}; trying again"));
        self.now = Some(Lasting { reason, since, told: now });
    }

    /// Tells that it goes on, if there was trouble.
    pub(crate) fn over(&mut self, what: &str) {
        if let Some(lasting) = self.now.take() {
            let seconds = lasting.since.elapsed().as_secs_f64();
            say(&format!("{what}: going on after {seconds:.1} s"));
        }
    }

    /// The reason of the trouble that lasts now.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.now.as_ref().map(|lasting| lasting.reason.as_str())
    }
}
