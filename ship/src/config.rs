//! What the command line means, checked.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::ConnectOptions;

use crate::cli::{Atomic, Cli};
use crate::notice::Failure;

/// Bytes that a window holds at most, so that memory does not depend on the length of lines. One message may be larger.
pub(crate) const WINDOW_BYTES: usize = 4 << 20;

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// Everything that is there has been shipped, or nothing has succeeded for so long.
    Shipped {
        /// How long to try without any success.
        patience: Duration,
    },
    /// A signal comes.
    Signal,
}

/// What becomes of a shipped segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shipped {
    /// It is deleted.
    Delete,
    /// It stays.
    Keep,
}

/// How we say who we are. Secrets are read from files and variables only: `ps` shows the command line to everybody.
#[derive(Clone)]
pub(crate) enum Identity {
    /// Not at all.
    None,
    /// Name and password.
    User(String, String),
    /// A token.
    Token(String),
    /// An nkey seed.
    Nkey(String),
    /// The text of a credentials file.
    Credentials(String),
}

/// TLS as it was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tls {
    required: bool,
    first: bool,
    authorities: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
}

/// One run.
pub(crate) struct Config {
    /// The paths as nproxy got them.
    pub(crate) paths: Vec<PathBuf>,
    servers: Vec<String>,
    subject: String,
    /// When to stop.
    pub(crate) until: Until,
    /// What becomes of shipped segments.
    pub(crate) shipped: Shipped,
    /// Bytes up to which lines are joined, if they are.
    pub(crate) batch: Option<usize>,
    /// Messages in flight at most.
    pub(crate) window: usize,
    /// Whether windows may be published atomically.
    pub(crate) atomic: Atomic,
    /// How long an acknowledgement may take.
    pub(crate) ack_timeout: Duration,
    cursor: Option<PathBuf>,
    identity: Identity,
    tls: Tls,
    /// Figures on stderr: `Some(0)` at the end only, else also every so often.
    pub(crate) stats: Option<Duration>,
    /// Where the figures for Prometheus go.
    pub(crate) metrics: Option<PathBuf>,
}

impl Config {
    /// Checks what was said.
    pub(crate) fn new(cli: Cli) -> Result<Self, Failure> {
        if cli.cursor.is_some() && cli.segments.len() > 1 {
            return Err(Failure::new(
                "--cursor",
                "it names one file, and there are several SEGMENTS",
            ));
        }
        for path in &cli.segments {
            if path.file_name().is_none() {
                return Err(Failure::new(path.display().to_string(), "this is no file name"));
            }
        }
        let batch = cli.batch.as_deref().map(|text| size("--batch", text)).transpose()?;
        let config = Config {
            identity: identity(&cli)?,
            servers: servers(&cli.to)?,
            until: if cli.once {
                Until::Shipped { patience: cli.patience.into() }
            } else {
                Until::Signal
            },
            shipped: if cli.keep { Shipped::Keep } else { Shipped::Delete },
            tls: Tls {
                required: cli.tls,
                first: cli.tls_first,
                authorities: cli.tls_ca,
                certificate: cli.tls_cert.zip(cli.tls_key),
            },
            paths: cli.segments,
            subject: cli.subject,
            batch,
            window: cli.window.into(),
            atomic: cli.atomic,
            ack_timeout: cli.ack_timeout.into(),
            cursor: cli.cursor,
            stats: cli.stats.map(Into::into),
            metrics: cli.metrics,
        };
        for path in &config.paths {
            check_subject(&config.subject(path))?;
        }
        Ok(config)
    }

    /// The subject of what `path` holds.
    pub(crate) fn subject(&self, path: &Path) -> String {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let name = path.file_name().unwrap_or_default();
        self.subject
            .replace("{host}", &token(&host))
            .replace("{name}", &token(&name.to_os_string()))
    }

    /// The file that says what of `path` has been shipped.
    pub(crate) fn cursor(&self, path: &Path) -> PathBuf {
        self.cursor.clone().unwrap_or_else(|| {
            let mut name = OsString::from(".");
            name.push(path.file_name().unwrap_or_default());
            name.push(".ship");
            path.with_file_name(name)
        })
    }

    /// The servers, for messages and for the client.
    pub(crate) fn servers(&self) -> &[String] {
        &self.servers
    }

    /// Options of a new connection.
    pub(crate) fn connect_options(&self) -> Result<ConnectOptions, Failure> {
        let mut options = match self.identity.clone() {
            Identity::None => ConnectOptions::new(),
            Identity::User(name, password) => {
                ConnectOptions::with_user_and_password(name, password)
            }
            Identity::Token(token) => ConnectOptions::with_token(token),
            Identity::Nkey(seed) => ConnectOptions::with_nkey(seed),
            // The last line of a file may be the one that ends the key: it is only found with its newline.
            Identity::Credentials(text) => ConnectOptions::with_credentials(&(text + "\n"))
                .map_err(|e| Failure::new("read the credentials", e))?,
        };
        options = options.name("nproxy-ship").require_tls(self.tls.required);
        if self.tls.first {
            options = options.tls_first();
        }
        if let Some(path) = &self.tls.authorities {
            options = options.add_root_certificates(path.clone());
        }
        if let Some((certificate, key)) = &self.tls.certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        Ok(options)
    }
}

fn size(option: &str, text: &str) -> Result<usize, Failure> {
    let bytes = parse_size::Config::new()
        .with_binary()
        .parse_size(text)
        .map_err(|e| Failure::new(format!("{option} {text}"), e))?;
    match usize::try_from(bytes) {
        Ok(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(Failure::new(format!("{option} {text}"), "a size above 0 is needed")),
    }
}

/// A URL with a password in it is refused: `ps` would show it.
fn servers(urls: &[String]) -> Result<Vec<String>, Failure> {
    for url in urls {
        if url.contains('@') {
            return Err(Failure::new(
                "--to",
                "names and secrets do not belong into a URL; use --user, --token-file or --creds",
            ));
        }
        url.parse::<async_nats::ServerAddr>()
            .map_err(|e| Failure::new(format!("--to {url}"), e))?;
    }
    Ok(urls.to_vec())
}

fn identity(cli: &Cli) -> Result<Identity, Failure> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path)
            .map(|text| text.trim_end_matches(['\n', '\r']).to_owned())
            .map_err(|e| Failure::new(format!("read {}", path.display()), e))
    };
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut found = Vec::new();
    if let Some(path) = &cli.creds {
        found.push(Identity::Credentials(read(path)?));
    }
    if let Some(path) = &cli.nkey_file {
        found.push(Identity::Nkey(read(path)?));
    }
    let token = cli.token_file.as_ref().map(read).transpose()?;
    if let Some(token) = token.or_else(|| variable("NPROXY_SHIP_TOKEN")) {
        found.push(Identity::Token(token));
    }
    if let Some(user) = &cli.user {
        let password = cli.password_file.as_ref().map(read).transpose()?;
        match password.or_else(|| variable("NPROXY_SHIP_PASSWORD")) {
            Some(password) => found.push(Identity::User(user.clone(), password)),
            None => {
                return Err(Failure::new("--user", "no --password-file, no NPROXY_SHIP_PASSWORD"));
            }
        }
    }
    match found.len() {
        0 => Ok(Identity::None),
        1 => Ok(found.remove(0)),
        _ => Err(Failure::new(
            "log in",
            "more than one of credentials, nkey, token and user is given",
        )),
    }
}

/// A name as one token of a subject.
fn token(name: &OsString) -> String {
    name.to_string_lossy()
        .chars()
        .map(|c| if c == '.' || c == '*' || c == '>' || c.is_whitespace() { '-' } else { c })
        .collect()
}

fn check_subject(subject: &str) -> Result<(), Failure> {
    let bad = subject.is_empty()
        || subject.split('.').any(|token| token.is_empty() || token == "*" || token == ">")
        || subject.contains(|c: char| c.is_whitespace() || c.is_control());
    if bad {
        return Err(Failure::new(
            format!("--subject {subject:?}"),
            "a subject is words joined by dots, without blanks and wildcards",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_with_blanks_wildcards_or_empty_tokens_are_refused() {
        for good in ["logs", "logs.host-1.app", "$JS.x"] {
            assert!(check_subject(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "a..b", "a.", "a b", "a.*", "a.>", "a\n"] {
            assert!(check_subject(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_becomes_one_token() {
        assert_eq!(token(&OsString::from("db1.example.org")), "db1-example-org");
        assert_eq!(token(&OsString::from("a *>b")), "a---b");
    }

    #[test]
    fn a_url_with_a_secret_is_refused() {
        assert!(servers(&["nats://me:secret@host:4222".into()]).is_err());
        assert!(servers(&["nats://host:4222".into(), "tls://[::1]:1".into()]).is_ok());
        assert!(servers(&["http://host".into()]).is_err());
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(size("--batch", "64K").ok(), Some(64 << 10));
        assert!(size("--batch", "0").is_err());
        assert!(size("--batch", "x").is_err());
    }
}
