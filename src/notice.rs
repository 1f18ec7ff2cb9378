//! Lines for the person at the shell: on stderr, one write each, never on stdout.
//!
//! They name programs, arguments and files, in which anything may stand: control characters are shown, not sent.

use std::fmt::Display;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::Verbosity;
use crate::units::harmless;

/// Says that something failed. Nothing silences it.
pub(crate) fn error(error: &dyn Display) {
    line(error);
}

/// Says something that the user will want to know, unless `-q`.
pub(crate) fn notice(verbosity: Verbosity, text: &dyn Display) {
    if verbosity >= Verbosity::Normal {
        line(text);
    }
}

/// The same in a colour, given as its escape sequence.
pub(crate) fn coloured(verbosity: Verbosity, text: &str, colour: Option<&str>) {
    match colour {
        Some(colour) if verbosity >= Verbosity::Normal => {
            print(format!("{colour}nproxy: {}\x1b[0m", harmless(text)));
        }
        _ => notice(verbosity, &text),
    }
}

/// Explains a decision, under `-v`.
pub(crate) fn decision(verbosity: Verbosity, text: &dyn Display) {
    if verbosity >= Verbosity::Verbose {
        line(text);
    }
}

/// Names an event, under `-v -v`.
pub(crate) fn event(verbosity: Verbosity, text: &dyn Display) {
    if verbosity >= Verbosity::Debug {
        line(text);
    }
}

/// Prints a report as it is.
pub(crate) fn raw(text: &str) {
    print(text.trim_end().to_owned());
}

/// Lines that wait, and how many more there were than are kept. `None`: they are printed at once.
///
/// A static, because the screen is one for the whole process.
static HELD: Mutex<Option<(Vec<String>, usize)>> = Mutex::new(None);

/// How many lines wait at most.
const MOST_HELD: usize = 32;

/// From here on lines wait: stderr is a screen that a program draws on.
pub(crate) fn hold() {
    if let Ok(mut held) = HELD.lock() {
        held.get_or_insert_default();
    }
}

/// Whether lines wait.
pub(crate) fn is_held() -> bool {
    HELD.lock().is_ok_and(|held| held.is_some())
}

/// The screen is ours again: prints what has waited.
pub(crate) fn release() {
    let Some((lines, more)) = HELD.lock().ok().and_then(|mut held| held.take()) else { return };
    lines.into_iter().for_each(print);
    if more > 0 {
        line(&format!("and {more} more messages while the screen was in use"));
    }
}

/// Whether the last that a stream has sent to where our stderr goes was no whole line.
static LINE_IS_OPEN: AtomicBool = AtomicBool::new(false);

/// A stream goes where our stderr goes, and this is the last byte that it has sent there.
pub(crate) fn stream_sent(last: u8) {
    LINE_IS_OPEN.store(last != b'\n', Ordering::Relaxed);
}

/// What has to stand in front of a line of ours: a newline, if a stream has left its own unfinished.
pub(crate) fn line_start() -> &'static str {
    match LINE_IS_OPEN.swap(false, Ordering::Relaxed) {
        true => "\n",
        false => "",
    }
}

fn line(text: &dyn Display) {
    print(format!("nproxy: {}", harmless(&text.to_string())));
}

/// Prints lines without their last newline, or keeps them until the screen is ours.
fn print(mut text: String) {
    if let Ok(mut held) = HELD.lock()
        && let Some((lines, more)) = held.as_mut()
    {
        match lines.len() < MOST_HELD {
            true => lines.push(text),
            false => *more += 1,
        }
        return;
    }
    text.insert_str(0, line_start());
    text.push('\n');
    // One write, so that lines of several processes stay whole. A stderr that is gone cannot be told.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
