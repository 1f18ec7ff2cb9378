//! Copies: the extra destinations of the streams, fed by tee(2); and output that is held back in a file.

mod carrier;
mod collector;
mod command;
pub(crate) mod held;
mod intake;
mod journal;
mod late_fifo;
pub(crate) mod open;
mod pause;
mod presence;
mod segments;
mod shared;
mod socket;
mod spool;
pub(crate) mod writer;
