//! Flags of the copies.

use std::ffi::OsString;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};

use super::choices::{OutputError, TextMode};
use super::copy_keys::{self, Keys};
use crate::relay::{OnFull, Stream};

/// Where else the streams go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Copies")]
pub struct CopyFlags {
    /// Copy the output to a file, FIFO, socket, |COMMAND
    ///
    /// TARGET is the path of a file, FIFO or device, `/dev/fd/N` for an open descriptor, `unix:PATH` or
    /// `tcp:HOST:PORT` for a collector to connect to, `|COMMAND` for a command that sh runs with the copy as its stdin,
    /// or `journal:IDENT` for the systemd journal. A file is emptied first. The option may be given several times; the
    /// variable names one target.
    ///
    /// Keys after the target hold for this copy only and override the --tee-… options: `append`, `text=MODES`
    /// and `streams=stdout+stderr` (joined by +), `full=block|drop`. A comma is part of the name unless a key follows.
    ///
    /// Segments: `rotate=SIZE` and `every=TIME` finish the file at the end of a line and begin the next one. The current
    /// file is PATH, finished ones are PATH.TIME; an existing file becomes one of them, unless `append` is said.
    /// `keep=N` finished ones stay, or as many as make `total=SIZE` with the current one; `compress=gzip|zstd` runs
    /// that program on each; without it they stay as they are. `reopen` opens PATH again when others have renamed or removed the file.
    ///
    /// Collectors, commands and FIFOs: `wait=TIME` is how long the end of the run waits for one that takes nothing (10s, at least 200ms);
    /// `restart=on-failure` starts a command again that ends early. A collector that is absent or goes away is connected
    /// again when it is back; until then `full` says whether everything waits for it. With `spool=DIR[:MAX]` (tcp: and unix:) the
    /// copy goes through files in DIR, which must exist and serves one run at a time: the collector may be away while MAX
    /// bytes wait (1G), then `full` decides. After a lost connection the last 16 MiB that were sent are sent again, more if the
    /// collector's system may hold more, from the start of a line. What is left at the end stays in DIR, and the next run
    /// with it sends it first.
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
    /// output itself never loses a byte. With `drop` the run does not wait for the reader of a FIFO at its start; at its
    /// end, if there are bytes for it, as long as `wait` says.
    #[arg(
        long,
        value_enum,
        value_name = "ACTION",
        default_value = "block",
        env = "NPROXY_TEE_FULL"
    )]
    pub tee_full: OnFull,

    /// If the output fails: exit, or warn and complete the copies
    ///
    /// What becomes of the copies when stdout or stderr cannot be written any more, in the spirit of tee -p. With `warn`
    /// the command goes on and its copies are completed, and a copy that cannot be opened is left out, with a
    /// message.
    #[arg(
        long,
        value_enum,
        value_name = "ACTION",
        default_value = "exit",
        hide_short_help = true,
        env = "NPROXY_TEE_OUTPUT_ERROR"
    )]
    pub tee_output_error: OutputError,

    /// Exit with 125 if a copy is not complete
    #[arg(long, value_parser = FalseyValueParser::new(), env = "NPROXY_TEE_STRICT")]
    pub tee_strict: bool,
}

impl CopyFlags {
    /// The text modes of each copy: its own, or those of all.
    pub fn modes(&self) -> impl Iterator<Item = Vec<TextMode>> {
        self.keys().map(|keys| keys.text.unwrap_or_else(|| self.tee_text.clone()))
    }

    /// What is said of each copy. Words that cannot be are refused elsewhere.
    pub fn keys(&self) -> impl Iterator<Item = Keys> {
        self.tee.iter().filter_map(|word| Some(copy_keys::divide(word).ok()?.1))
    }
}
