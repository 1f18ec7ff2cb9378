//! The report at the end of a run: where it goes.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use super::figures::Figures;
use crate::config::{Destination, Level, Stats, StatsFormat};
use crate::error::Error;
use crate::notice;
use crate::observe::report::{MemoryReport, Report};
use crate::process::exit::Exit;
use crate::process::fds;

/// The file for the report. One that is opened is emptied only when there is something to put in its place.
///
/// # Errors
/// One that names the file. A FIFO needs its reader by now: the signals that would end a wait for one are ours
/// already.
pub(crate) fn open_file(place: &Destination) -> Result<File, Error> {
    let file = match place {
        Destination::Inherited(number, _) => fds::inherited(*number).map(File::from),
        Destination::Path(path) => {
            let mut options = File::options();
            options.write(true).create(true).truncate(false);
            options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
        }
    };
    file.map_err(|error| Error::os(format!("--stats-file: cannot open {}", place.name()), error))
}

/// Writes the report into `file`, or to stderr if there is none.
pub(crate) fn write(
    stats: &Stats,
    file: Option<File>,
    figures: &Figures,
    exit: Exit,
    observe: Level,
    memory: Option<MemoryReport>,
) {
    let streams = figures.streams.iter().map(|live| live.report.clone()).collect();
    let mut report = Report::new(figures.run(exit, observe), streams, figures.copies.clone());
    if let Some(memory) = memory {
        report.add_memory(memory);
    }
    let text = match stats.format {
        StatsFormat::Json => report.json(),
        StatsFormat::Text => report.to_string(),
    };
    let Some(file) = file else { return notice::raw(&text) };
    let written = match &stats.file {
        Some(Destination::Inherited(..)) => add(file, &text),
        _ => replace(file, &text),
    };
    if let Err(error) = written {
        let name = stats.file.as_ref().map(Destination::name);
        let tried = format!("write to {}", name.unwrap_or_default());
        notice::error(&Error::os(tried, error));
    }
}

fn replace(file: File, text: &str) -> io::Result<()> {
    // A device or pipe has no length to set.
    let _ = file.set_len(0);
    add(file, text)
}

fn add(mut file: File, text: &str) -> io::Result<()> {
    file.write_all(format!("{}\n", text.trim_end()).as_bytes())
}
