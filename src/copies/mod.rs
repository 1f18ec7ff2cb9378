//! Copies: the extra destinations of the streams, fed by tee(2); and output that is held back in a file.

pub(crate) mod held;
pub(crate) mod open;
pub(crate) mod socket;
