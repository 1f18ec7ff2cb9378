//! Copies: the extra destinations of the streams, fed by tee(2); and output that is held back in a file.

mod collector;
mod command;
pub(crate) mod held;
mod intake;
mod journal;
pub(crate) mod open;
mod pause;
mod segments;
mod shared;
pub(crate) mod writer;
