//! What needs no terminal of the command's own: every kind of source and sink, every way to end, and the copies.

// Every byte arrives, once and in order: all sources, all sinks, all write sizes, both streams.
mod bytes;
// The pages themselves move, and no system call carries payload.
mod zero_copy;
// Exit statuses, deaths by signal, and nproxy's own 125, 126, 127.
mod status;
// What is the command line's: options, words left alone, environment, standard descriptors.
mod command_line;
// Readers that leave, and readers that sleep; memory and CPU meanwhile.
pub(crate) mod readers;
// Lingering, end of streams, threads, descriptors, and nothing left behind.
mod lifetime;
// Signals from elsewhere, dispositions, stop and continue.
mod signals;
// Signals that are meant for nproxy itself.
mod interruption;
// The same at a real terminal, under an interactive shell.
mod job_control;
// Kernels that refuse, disks that are full, descriptors that are closed or do not block.
mod failures;
// Text modes: what is stripped, what is put in front of lines, and when it appears.
mod text;
// Silence that is noticed, and a limit on the rate.
mod silence;
// Lines as the screen showed them at last, and where lines say they come from.
mod screen;
// Several writers into one pipe.
mod whole_lines;
// Output that is shown only if the command fails.
mod held;
// Real programs' colours, at a terminal and in a file.
mod colours;
// Legs: every kind of target, clean logs, shared logs, and what a reader of the log sees while the command runs.
pub(crate) mod tee;
// Legs that take nothing for a while, or for ever.
mod tee_stall;
// Legs that break or were never there, and what the main path and the user notice of it.
mod tee_trouble;
// What goes to the command besides its streams.
mod inherited;
