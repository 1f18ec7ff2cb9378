//! Copies that last: keys of one copy, segments, commands, collectors that go away.

// What is said of one copy, and what is refused.
mod keys;
// Files that are finished and begun anew: where they end, how many stay, compression, others' renaming.
mod segments;
// Kills at any moment: the segments are a prefix of the input.
mod kills;
// Disks that take nothing for a while.
mod slow;
// Commands as copies.
mod commands;
// Networks of a test's own, and a link that can be cut.
mod network;
// Collectors that are absent, close, come back, and talk.
mod collectors;
// The journal's protocol.
mod journal;
// Sixteen copies of every kind at once.
mod sixteen;
// Failures of the output and of single copies, and what goes on.
mod going_on;
// Collectors with a spool: away, back, killed, and runs that are killed.
mod spool;
