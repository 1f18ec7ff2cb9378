//! What the flags of the text modes mean together.

use std::path::Path;

use jiff::tz::TimeZone;

use crate::cli::Cli;
use crate::cli::choices::TextMode;
use crate::error::Error;
use crate::relay::{Kind, Stream};
use crate::text::screen::ScreenSize;
use crate::text::strip::{C1, CursorVisibility};
use crate::text::transform::{Label, LineNumbers, Prefix, Zone};

/// What is known of the machine that nproxy runs on.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The zone of local times, if they are asked for; else all are in UTC.
    pub zone: Option<TimeZone>,
    /// Its name, if that is to be shown.
    pub host: String,
    /// How many of its processors nproxy may use.
    pub processors: usize,
}
use crate::text::{self, Modes};

/// Text modes, and the streams that they are for.
#[derive(Clone, Debug)]
pub struct Text {
    /// What becomes of escape sequences.
    pub escapes: Escapes,
    /// What raw bytes from 0x80 to 0x9F are.
    pub c1: C1,
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
    /// They are obeyed: lines are what a screen showed at last.
    Screen,
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
    pub(super) fn of_streams(cli: &Cli, machine: &Machine) -> Result<Text, Error> {
        let flags = &cli.text;
        let mut modes = flags.text.clone();
        // `--line-numbers` and the like ask for lines with a prefix, if nothing else says where.
        if flags.ask_for_prefix() && modes.is_empty() && !a_copy_transforms(cli) {
            modes.push(TextMode::Transform);
        }
        Text::new("--text", &modes, &flags.text_streams, cli, machine)
    }

    /// What is done to a copy, and which streams it is of: what is said of this one, or else of all of them.
    pub(super) fn of_copies(
        cli: &Cli,
        machine: &Machine,
        modes: Option<&[TextMode]>,
        streams: Option<&[Stream]>,
    ) -> Result<Text, Error> {
        let flags = &cli.copies;
        let flag = if modes.is_some() { "--tee …,text=" } else { "--tee-text" };
        let (modes, streams) =
            (modes.unwrap_or(&flags.tee_text), streams.unwrap_or(&flags.tee_streams));
        let text = Text::new(flag, modes, streams, cli, machine)?;
        let mixed =
            text.streams == Streams::Both && !cli.command.is_empty() && !flags.tee.is_empty();
        if mixed && text.prefix.as_ref().is_some_and(Prefix::has_stream) {
            let why = "{stream} in a copy of both streams, which come as one (see --tee-streams)";
            return Err(Error::usage("--prefix", why));
        }
        Ok(text)
    }

    fn new(
        flag: &str,
        modes: &[TextMode],
        streams: &[Stream],
        cli: &Cli,
        machine: &Machine,
    ) -> Result<Text, Error> {
        let asked = |mode| modes.contains(&mode);
        if asked(TextMode::Passthrough) && modes.iter().any(|mode| *mode != TextMode::Passthrough) {
            return Err(Error::usage(flag, "passthrough goes with no other mode"));
        }
        Ok(Text {
            escapes: match (asked(TextMode::Screen), asked(TextMode::StripAnsi)) {
                (true, _) => Escapes::Screen,
                (false, true) => Escapes::Strip,
                (false, false) => Escapes::Pass,
            },
            c1: cli.text.c1,
            prefix: if asked(TextMode::Transform) { Some(prefix(cli, machine)?) } else { None },
            streams: Streams::new(streams),
        })
    }

    /// The modes for one stream, `None` if there is nothing to do to it. How lines end and how large a screen is are
    /// left open: that is the terminal's to say.
    pub fn modes(&self, sink: SinkIs, stream: Stream) -> Option<Modes> {
        let c1 = self.c1;
        let escapes = match (self.escapes, sink) {
            (Escapes::Pass, _) => text::Escapes::Pass,
            (Escapes::Strip, SinkIs::Terminal) => {
                text::Escapes::Strip { cursor: CursorVisibility::Kept, c1 }
            }
            (Escapes::Strip, SinkIs::Other) => {
                text::Escapes::Strip { cursor: CursorVisibility::Removed, c1 }
            }
            // It is a screen itself, and somebody may be waiting for a prompt there.
            (Escapes::Screen, SinkIs::Terminal) => text::Escapes::Pass,
            (Escapes::Screen, SinkIs::Other) => {
                text::Escapes::Screen { size: ScreenSize::default(), c1 }
            }
        };
        let mut transform = self.prefix.clone();
        if let Some(prefix) = &mut transform {
            prefix.set_stream(stream.name());
        }
        let any = escapes != text::Escapes::Pass || transform.is_some();
        any.then_some(Modes { escapes, transform })
    }

    /// Whether it does something to one of the two output streams and not, or not the same, to the other.
    pub fn splits_streams(&self) -> bool {
        let works = self.escapes != Escapes::Pass || self.prefix.is_some();
        (self.streams != Streams::Both && works)
            || self.prefix.as_ref().is_some_and(Prefix::has_stream)
    }
}

/// What a stream goes to, as far as text modes care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkIs {
    /// A terminal: sequences that show or hide the cursor stay, and it is the screen.
    Terminal,
    /// A file, a pipe, a socket.
    Other,
}

impl From<Kind> for SinkIs {
    fn from(kind: Kind) -> SinkIs {
        if kind == Kind::Terminal { SinkIs::Terminal } else { SinkIs::Other }
    }
}

impl Streams {
    /// The stream that it is, stdout if it is both.
    pub fn first(self) -> Stream {
        match self {
            Streams::Stdout | Streams::Both => Stream::Stdout,
            Streams::Stderr => Stream::Stderr,
        }
    }

    /// Whether `stream` is among them.
    pub fn include(self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self != Streams::Stderr,
            Stream::Stderr => self != Streams::Stdout,
            Stream::Stdin => false,
        }
    }

    /// Those that are included.
    pub fn list(self) -> &'static [Stream] {
        match self {
            Streams::Stdout => &[Stream::Stdout],
            Streams::Stderr => &[Stream::Stderr],
            Streams::Both => &[Stream::Stdout, Stream::Stderr],
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

/// Whether the lines of a copy have a prefix: then the flags that describe one may mean that copy alone.
fn a_copy_transforms(cli: &Cli) -> bool {
    cli.copies.modes().any(|modes| modes.contains(&TextMode::Transform))
}

/// The line prefix that the timestamp flags describe.
fn prefix(cli: &Cli, machine: &Machine) -> Result<Prefix, Error> {
    let flags = &cli.text;
    let mode = flags.timestamp_mode.unwrap_or_default();
    let named = flags.text.contains(&TextMode::Transform) || a_copy_transforms(cli);
    let format = match &flags.timestamp {
        Some(format) => Some(format.as_str()),
        // `--line-numbers` or `--prefix` alone ask for what they say, not for the time.
        None if (flags.line_numbers || flags.prefix.is_some())
            && !named
            && flags.timestamp_mode.is_none() =>
        {
            Some("")
        }
        None => None,
    };
    let numbers = if flags.line_numbers { LineNumbers::On } else { LineNumbers::Off };
    let zone = machine.zone.clone().map_or_else(Zone::default, Zone::from);
    let label = Label::parse(flags.prefix.as_deref().unwrap_or_default())
        .map_err(|error| Error::usage("--prefix", error.to_string()))?;
    let mut prefix = Prefix::new(mode, format, zone, numbers)
        .map_err(|error| Error::usage("--timestamp", error.to_string()))?
        .with_label(label);
    let program = cli.command.first().map(Path::new).and_then(Path::file_name);
    let program = program.map_or("nproxy".into(), |name| name.to_string_lossy());
    prefix.set_origin(&machine.host, &program);
    Ok(prefix)
}
