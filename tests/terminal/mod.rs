//! The whole program at a terminal, with a terminal of its own for the command: what a person sees and types.
//!
//! Every test runs on both engines, waits for what it expects to see, and is bounded in time.

// A terminal without a shell: nproxy leads its session.
pub(crate) mod console;

// The terminal is as it was, whatever ended the run.
mod modes;
// Stop, foreground, background, under an interactive shell.
mod jobs;
// nproxy before, in and behind a pipe at a terminal; and a terminal for a command that has none.
mod pipelines;
// Every byte, both ways; the last ones of a writer that ends at once.
mod bytes;
// Keys, passwords, pasted text, sizes, Ctrl-S, and nothing to do.
mod keys;
// Whole screens beside those of the bare program, through tmux.
mod screens;
// The same for more programs: what draws, asks, or passes raw keys on.
mod programs;
// Beside the bare command, on one terminal with others.
mod as_bare;
