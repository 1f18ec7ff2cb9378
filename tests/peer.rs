//! What the peer writes, as the tests know it: the same files are modules of both.

pub(crate) mod coloured;
pub(crate) mod payload;
