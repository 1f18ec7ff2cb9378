//! Flags of the text modes.

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};

use super::choices::TextMode;
use crate::relay::Stream;
use crate::text::transform::StampMode;

/// What is done to the text of the streams.
#[derive(Debug, Args)]
#[command(next_help_heading = "Text")]
pub struct TextFlags {
    /// Edit the output: strip-ansi, transform, or both
    ///
    /// A comma-separated list: `strip-ansi` removes colours and other escape sequences, `transform` puts a
    /// timestamp in front of each line. Copies have a list of their own, --tee-text.
    #[arg(
        long,
        value_enum,
        value_name = "MODES",
        value_delimiter = ',',
        action = ArgAction::Set,
        num_args = 1,
        env = "NPROXY_TEXT"
    )]
    pub text: Vec<TextMode>,

    /// Which streams --text edits
    #[arg(
        long,
        value_enum,
        value_name = "STREAMS",
        value_delimiter = ',',
        action = ArgAction::Set,
        num_args = 1,
        default_value = "stdout,stderr",
        hide_short_help = true,
        env = "NPROXY_TEXT_STREAMS"
    )]
    pub text_streams: Vec<Stream>,

    /// Format of the timestamps, as in strftime(3)
    ///
    /// %3f stands for milliseconds. The default is `[%Y-%m-%dT%H:%M:%S.%3fZ] `, in UTC. Asks for `transform`
    /// where neither --text nor --tee-text says anything.
    #[arg(long, value_name = "FORMAT", env = "NPROXY_TIMESTAMP")]
    pub timestamp: Option<String>,

    /// What the timestamps show: wall, elapsed or delta
    ///
    /// The time of day, the time since the start, or the time since the line before.
    #[arg(long, value_enum, value_name = "MODE", env = "NPROXY_TIMESTAMP_MODE")]
    pub timestamp_mode: Option<StampMode>,

    /// Number the lines
    #[arg(long, value_parser = FalseyValueParser::new(), env = "NPROXY_LINE_NUMBERS")]
    pub line_numbers: bool,
}
