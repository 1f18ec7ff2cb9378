//! Copies: the extra destinations of the streams, fed by tee(2).

pub(crate) mod open;
pub(crate) mod socket;
