//! Observation on the built nproxy: reports against the truth, events, the status socket, the live line, crash reports,
//! and the tools around them. Every test that touches the relay runs on both engines.

// The schemas of all reports, each test of which holds its reports against them.
pub(crate) mod schema;
// --stats and --stats-file: the figures, and the schema that describes them.
mod stats;
// --events: what is told, and that nobody waits for it.
mod events;
// The status socket and --status.
mod status;
// --progress.
mod progress;
// --crash-dump.
mod crash;
// scripts/: psd, monitor-status.sh, nproxy-run.sh, install.
mod scripts;
// The commands of doc/recipes.md.
mod recipes;
