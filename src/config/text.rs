//! What the flags of the text modes mean together.

use crate::cli::Cli;
use crate::cli::choices::TextMode;
use crate::error::Error;
use crate::relay::Stream;
use crate::text::newline::Newlines;
use crate::text::strip::{C1, CursorVisibility};
use crate::text::transform::{LineNumbers, Prefix};
use crate::text::{self, Modes};

/// Text modes, and the streams that they are for.
#[derive(Clone, Debug)]
pub struct Text {
    /// What becomes of escape sequences.
    pub escapes: Escapes,
    /// What is put in front of each line.
    pub prefix: Option<Prefix>,
    /// For which streams.
    pub streams: Streams,
}

/// What becomes of escape sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escapes {
    /// They pass.
    Pass,
    /// They are removed.
    Strip,
}

/// Which of the child's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// stdout only.
    Stdout,
    /// stderr only.
    Stderr,
    /// Both.
    Both,
}

impl Text {
    /// What is done to the streams on their way to our own stdout and stderr.
    pub(super) fn of_streams(cli: &Cli) -> Result<Text, Error> {
        let flags = &cli.text;
        let mut modes = flags.text.clone();
        // `--line-numbers` and the like ask for lines with a prefix, if nothing else says where.
        let prefixes =
            flags.timestamp.is_some() || flags.timestamp_mode.is_some() || flags.line_numbers;
        if prefixes && modes.is_empty() && !cli.copies.tee_text.contains(&TextMode::Transform) {
            modes.push(TextMode::Transform);
        }
        Text::new("--text", &modes, &flags.text_streams, cli)
    }

    /// What is done to the copies, and which streams they are of.
    pub(super) fn of_copies(cli: &Cli) -> Result<Text, Error> {
        let flags = &cli.copies;
        Text::new("--tee-text", &flags.tee_text, &flags.tee_streams, cli)
    }

    fn new(flag: &str, modes: &[TextMode], streams: &[Stream], cli: &Cli) -> Result<Text, Error> {
        let asked = |mode| modes.contains(&mode);
        if asked(TextMode::Passthrough) && modes.iter().any(|mode| *mode != TextMode::Passthrough) {
            return Err(Error::usage(flag, "passthrough goes with no other mode"));
        }
        Ok(Text {
            escapes: if asked(TextMode::StripAnsi) { Escapes::Strip } else { Escapes::Pass },
            prefix: if asked(TextMode::Transform) { Some(prefix(cli)?) } else { None },
            streams: Streams::new(streams),
        })
    }

    /// The modes for one stream, `None` if there is nothing to do to it. `cursor` says what becomes of
    /// sequences that show or hide the cursor. How lines end is left as it is: that is the terminal's to say.
    pub fn modes(&self, cursor: CursorVisibility) -> Option<Modes> {
        let escapes = match self.escapes {
            Escapes::Pass => text::Escapes::Pass,
            Escapes::Strip => text::Escapes::Strip { cursor, c1: C1::Text },
        };
        let transform = self.prefix.clone();
        let newlines = Newlines::default();
        let any = escapes != text::Escapes::Pass || transform.is_some();
        any.then_some(Modes { newlines, escapes, transform })
    }

    /// Whether it does something to one of the two output streams and not to the other.
    pub fn splits_streams(&self) -> bool {
        self.streams != Streams::Both && self.modes(CursorVisibility::Removed).is_some()
    }
}

impl Streams {
    /// Whether `stream` is among them.
    pub fn include(self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self != Streams::Stderr,
            Stream::Stderr => self != Streams::Stdout,
            Stream::Stdin => false,
        }
    }

    fn new(streams: &[Stream]) -> Streams {
        match (streams.contains(&Stream::Stdout), streams.contains(&Stream::Stderr)) {
            (true, false) => Streams::Stdout,
            (false, true) => Streams::Stderr,
            _ => Streams::Both,
        }
    }
}

/// The line prefix that the timestamp flags describe.
fn prefix(cli: &Cli) -> Result<Prefix, Error> {
    let flags = &cli.text;
    let mode = flags.timestamp_mode.unwrap_or_default();
    let lists = [&flags.text, &cli.copies.tee_text];
    let named = lists.iter().any(|modes| modes.contains(&TextMode::Transform));
    let format = match &flags.timestamp {
        Some(format) => Some(format.as_str()),
        // `--line-numbers` alone asks for numbers, not for the time.
        None if flags.line_numbers && !named && flags.timestamp_mode.is_none() => Some(""),
        None => None,
    };
    let numbers = if flags.line_numbers { LineNumbers::On } else { LineNumbers::Off };
    Prefix::new(mode, format, numbers)
        .map_err(|error| Error::usage("--timestamp", error.to_string()))
}
