//! How a program ended, and the checks that fail with everything that is known about the run.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::capture::Captured;
use crate::payload::Digest;

/// How a program ended. The `expect_` checks return it, so that they chain, and fail with everything that is known.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Captured,
    pub(crate) stderr: Captured,
    pub(crate) elapsed: Duration,
    /// Processes of this run that were still there when it ended.
    pub(crate) left: Vec<i32>,
    pub(crate) what: String,
}

impl Finished {
    #[track_caller]
    pub(crate) fn fail(&self, why: &str) -> ! {
        panic!(
            "{why}\n  {}\n  {} in {:?}\n  stdout: {}\n  stderr: {}",
            self.what, self.status, self.elapsed, self.stdout, self.stderr
        );
    }

    #[track_caller]
    pub(crate) fn expect(&self, holds: bool, why: &str) -> &Finished {
        if !holds {
            self.fail(why);
        }
        self
    }

    #[track_caller]
    pub(crate) fn expect_code(&self, code: i32) -> &Finished {
        self.expect(self.status.code() == Some(code), &format!("expected exit status {code}"))
    }

    #[track_caller]
    pub(crate) fn expect_signal(&self, signal: Signal) -> &Finished {
        self.expect(
            self.status.signal() == Some(signal as i32),
            &format!("expected death by {signal}"),
        )
    }

    #[track_caller]
    pub(crate) fn expect_stdout(&self, digest: Digest) -> &Finished {
        self.expect(self.stdout.digest == digest, &format!("expected on stdout {digest}"))
    }

    #[track_caller]
    pub(crate) fn expect_output(&self, text: &str) -> &Finished {
        self.expect(self.stdout.text() == text, &format!("expected on stdout {text:?}"))
    }

    #[track_caller]
    pub(crate) fn expect_silent(&self) -> &Finished {
        self.expect(self.stderr.digest.bytes == 0, "expected nothing on stderr")
    }

    /// stderr is one line of nproxy's, `nproxy: what was tried: why`, and holds each of `parts`.
    #[track_caller]
    pub(crate) fn expect_one_line(&self, parts: &[&str]) -> &Finished {
        let text = self.stderr.text();
        let one = text.starts_with("nproxy: ") && text.ends_with('\n') && text.lines().count() == 1;
        self.expect(one, "expected one line of nproxy's on stderr");
        for part in parts {
            self.expect(text.contains(part), &format!("expected {part:?} in the message"));
        }
        self
    }

    /// The statistics that `--stats=json` left as the only thing on stderr.
    #[track_caller]
    pub(crate) fn stats(&self) -> serde_json::Value {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(&self.stderr.text());
        parsed.unwrap_or_else(|error| {
            self.fail(&format!("expected one JSON object on stderr: {error}"))
        })
    }

    /// A number of one stream's statistics.
    #[track_caller]
    pub(crate) fn stat(&self, stream: &str, field: &str) -> u64 {
        let stats = self.stats();
        let streams = stats["streams"].as_array().map(Vec::as_slice).unwrap_or_default();
        let found = streams
            .iter()
            .find(|entry| entry["stream"] == stream)
            .and_then(|entry| entry[field].as_u64());
        found.unwrap_or_else(|| {
            self.fail(&format!("expected streams[{stream}].{field} in the statistics"))
        })
    }

    /// The statistics on the last line of stderr, after whatever messages there are.
    #[track_caller]
    pub(crate) fn trailing_stats(&self) -> serde_json::Value {
        let text = self.stderr.text();
        let last = text.lines().last().unwrap_or_default();
        serde_json::from_str(last)
            .unwrap_or_else(|error| self.fail(&format!("expected JSON as the last line: {error}")))
    }

    /// The one message of nproxy's that came before the statistics holds each of `parts`.
    #[track_caller]
    pub(crate) fn expect_message(&self, parts: &[&str]) -> &Finished {
        let text = self.stderr.text();
        let errors: Vec<_> = text.lines().filter(|line| line.starts_with("nproxy: ")).collect();
        let told = errors.iter().filter(|line| parts.iter().all(|part| line.contains(part)));
        self.expect(told.count() == 1, &format!("expected one message with {parts:?}"))
    }

    /// A number of one leg's statistics.
    #[track_caller]
    pub(crate) fn leg(&self, name: impl std::fmt::Display, field: &str) -> u64 {
        let (stats, name) = (self.trailing_stats(), name.to_string());
        let copies = stats["copies"].as_array().map(Vec::as_slice).unwrap_or_default();
        let found =
            copies.iter().find(|leg| leg["name"] == name).and_then(|leg| leg[field].as_u64());
        found.unwrap_or_else(|| {
            self.fail(&format!("expected copies[{name}].{field} in the statistics"))
        })
    }
}
