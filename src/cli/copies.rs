//! Flags of the copies.

use std::ffi::OsString;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};

use super::choices::TextMode;
use crate::relay::{OnFull, Stream};

/// Where else the streams go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Copies")]
pub struct CopyFlags {
    /// Copy the output to a file, FIFO or socket; repeatable
    ///
    /// TARGET is the path of a file, FIFO or device, or `/dev/fd/N` for an open descriptor, `unix:PATH` or
    /// `tcp:HOST:PORT` for a socket to connect to. A file is emptied first. The option may be given several
    /// times; the variable names one target.
    #[arg(long, value_name = "TARGET", env = "NPROXY_TEE")]
    pub tee: Vec<OsString>,

    /// Append to the files instead of emptying them
    #[arg(long, value_parser = FalseyValueParser::new(), env = "NPROXY_TEE_APPEND")]
    pub tee_append: bool,

    /// Edit the text of the copies: the modes of --text
    ///
    /// Without this option copies hold the command's own bytes, whatever --text does to the output.
    #[arg(
        long,
        value_enum,
        value_name = "MODES",
        value_delimiter = ',',
        action = ArgAction::Set,
        num_args = 1,
        env = "NPROXY_TEE_TEXT"
    )]
    pub tee_text: Vec<TextMode>,

    /// Which streams are copied
    #[arg(
        long,
        value_enum,
        value_name = "STREAMS",
        value_delimiter = ',',
        action = ArgAction::Set,
        num_args = 1,
        default_value = "stdout,stderr",
        hide_short_help = true,
        env = "NPROXY_TEE_STREAMS"
    )]
    pub tee_streams: Vec<Stream>,

    /// If a copy is too slow: block (wait) or drop bytes
    ///
    /// What to do when a copy cannot keep up: let everything wait for it, or drop bytes from this copy only. The
    /// output itself never loses a byte.
    #[arg(
        long,
        value_enum,
        value_name = "ACTION",
        default_value = "block",
        env = "NPROXY_TEE_FULL"
    )]
    pub tee_full: OnFull,

    /// Exit with 125 if a copy is not complete
    #[arg(long, value_parser = FalseyValueParser::new(), env = "NPROXY_TEE_STRICT")]
    pub tee_strict: bool,
}
