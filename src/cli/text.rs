//! Flags of the text modes.

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};

use super::choices::TextMode;
use crate::relay::Stream;
use crate::text::strip::C1;
use crate::text::transform::StampMode;

/// What is done to the text of the streams.
#[derive(Debug, Args)]
#[command(next_help_heading = "Text")]
pub struct TextFlags {
    /// Edit the output: strip-ansi, screen, transform
    ///
    /// A comma-separated list: `strip-ansi` removes colours and other escape sequences, `screen` leaves the lines that
    /// the screen showed at last, `transform` puts a timestamp in front of each line. `screen` holds the lines that the
    /// command may still redraw, as many as its terminal has (24 without one), and leaves what goes to a terminal as
    /// it is. Copies have a list of their own, --tee-text.
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
    /// %3f stands for milliseconds; %.S, %.s and %.T have microseconds, as ts(1) has them. The default is
    /// `[%Y-%m-%dT%H:%M:%S.%3fZ] `, in UTC. In elapsed times of a day and more the days are put before the hour: `1d 02:03:04`. Without
    /// --text this asks for `transform` of the output, unless a copy has `transform` already; copies get it only by
    /// --tee-text=transform or text=transform.
    #[arg(long, value_name = "FORMAT", env = "NPROXY_TIMESTAMP")]
    pub timestamp: Option<String>,

    /// What the timestamps show: wall, elapsed or delta
    ///
    /// The time of day, the time since the start, or the time since the line before.
    #[arg(long, value_enum, value_name = "MODE", env = "NPROXY_TIMESTAMP_MODE")]
    pub timestamp_mode: Option<StampMode>,

    /// Timestamps in the local time zone instead of UTC
    ///
    /// The default format then ends with the offset from UTC. The zone is that of TZ, or else of /etc/localtime.
    #[arg(
        long,
        value_parser = FalseyValueParser::new(),
        hide_short_help = true,
        env = "NPROXY_LOCAL_TIME"
    )]
    pub local_time: bool,

    /// Put a text such as `{stream}: ` before each line
    ///
    /// `{stream}`, `{pid}`, `{host}` and `{command}` stand for stdout or stderr, the command's process, this machine and
    /// the program; braces are doubled to stand for themselves. A copy of both streams has no `{stream}`: ask for one of them
    /// (`--tee FILE,streams=stdout`). The text comes after the timestamp, if there is one.
    /// A line that one stream leaves unfinished is continued by what the other writes, as without nproxy. It asks for
    /// `transform` as --timestamp does.
    #[arg(long, value_name = "TEXT", env = "NPROXY_PREFIX")]
    pub prefix: Option<String>,

    /// What raw bytes from 0x80 to 0x9F are: text or control
    ///
    /// They are letters of another encoding than UTF-8, as a terminal in UTF-8 takes them, or the 8-bit controls of
    /// ECMA-48, which begin and end escape sequences. For strip-ansi and screen.
    #[arg(
        long,
        value_enum,
        value_name = "WHAT",
        default_value = "text",
        hide_short_help = true,
        env = "NPROXY_C1"
    )]
    pub c1: C1,

    /// Number the lines, each stream's by themselves
    ///
    /// It asks for `transform` as --timestamp does.
    #[arg(long, value_parser = FalseyValueParser::new(), env = "NPROXY_LINE_NUMBERS")]
    pub line_numbers: bool,
}

impl TextFlags {
    /// Whether a flag is about what stands in front of a line, so that there has to be something.
    pub fn ask_for_prefix(&self) -> bool {
        self.timestamp.is_some()
            || self.timestamp_mode.is_some()
            || self.prefix.is_some()
            || self.line_numbers
    }
}
