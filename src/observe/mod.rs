//! What is known of a run without looking at a byte of it: sizes, times, counts.
//!
//! Everything here is given plain values; who calls them when is the session's affair.

mod columns;
pub mod events;
pub mod history;
pub mod node;
pub mod progress;
pub mod prometheus;
pub mod report;
pub mod stats;
pub mod status;

pub use history::Level;
