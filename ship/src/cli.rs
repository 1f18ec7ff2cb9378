//! What can be said on the command line, as it was said. `config` gives it a meaning.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Ship the segments that `nproxy --tee PATH,rotate=…` writes into a NATS JetStream stream.
///
/// A line is a message. Nothing is forgotten before the cluster has acknowledged it, and what was sent twice is
/// refused by the cluster as a duplicate.
#[derive(Debug, Parser)]
#[command(name = "nproxy-ship", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// The paths that were given to --tee: finished segments are PATH.TIME, PATH.TIME.gz or PATH.TIME.zst
    #[arg(required = true, value_name = "SEGMENTS")]
    pub(crate) segments: Vec<PathBuf>,

    /// The servers, as nats://HOST:PORT or tls://HOST:PORT, separated by commas
    #[arg(
        long,
        value_name = "URL[,URL…]",
        env = "NPROXY_SHIP_TO",
        value_delimiter = ',',
        required = true
    )]
    pub(crate) to: Vec<String>,

    /// The subject of every message; {host} is this machine's name and {name} the file name of SEGMENTS,
    /// with their dots as dashes
    #[arg(long, env = "NPROXY_SHIP_SUBJECT", required = true)]
    pub(crate) subject: String,

    /// Ship what is there and leave
    #[arg(long, conflicts_with = "follow")]
    pub(crate) once: bool,

    /// Go on with what is written later (the default)
    #[arg(long)]
    pub(crate) follow: bool,

    /// Keep segments that have been shipped; without it they are deleted
    #[arg(long)]
    pub(crate) keep: bool,

    /// Join lines up to this size into one message
    #[arg(long, value_name = "SIZE")]
    pub(crate) batch: Option<String>,

    /// Messages in flight at once; with 1 the order holds whatever the cluster does
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) window: u16,

    /// Whether a window is published as one unit where the stream allows atomic publishing
    #[arg(long, value_enum, default_value_t = Atomic::Auto)]
    pub(crate) atomic: Atomic,

    /// How long an acknowledgement may take before the connection is given up
    #[arg(long, value_name = "TIME", default_value = "5s")]
    pub(crate) ack_timeout: humantime::Duration,

    /// With --once: how long to try without any success before what is left stays behind
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub(crate) patience: humantime::Duration,

    /// Where it is written down what has been shipped (default: .NAME.ship beside the segments)
    #[arg(long, value_name = "FILE")]
    pub(crate) cursor: Option<PathBuf>,

    /// A credentials file (user JWT and key)
    #[arg(long, value_name = "FILE", env = "NPROXY_SHIP_CREDS")]
    pub(crate) creds: Option<PathBuf>,

    /// User name; the password comes from --password-file or NPROXY_SHIP_PASSWORD
    #[arg(long, value_name = "NAME", env = "NPROXY_SHIP_USER")]
    pub(crate) user: Option<String>,

    /// A file that holds the password
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,

    /// A file that holds the token (or NPROXY_SHIP_TOKEN)
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// A file that holds an nkey seed
    #[arg(long, value_name = "FILE")]
    pub(crate) nkey_file: Option<PathBuf>,

    /// Refuse a connection without TLS
    #[arg(long)]
    pub(crate) tls: bool,

    /// Begin with TLS, before the server's first word
    #[arg(long)]
    pub(crate) tls_first: bool,

    /// Certificates of the authorities that are trusted, in PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,

    /// Our certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The key of our certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Figures on stderr: at the end, or every TIME and at the end
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "0s")]
    pub(crate) stats: Option<humantime::Duration>,

    /// Figures for node_exporter's textfile collector, renewed every 10 s
    #[arg(long, value_name = "FILE", env = "NPROXY_SHIP_METRICS")]
    pub(crate) metrics: Option<PathBuf>,
}

/// Whether windows may be published atomically.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Atomic {
    /// Where the stream allows it.
    Auto,
    /// Never.
    Off,
}
