//! The memory guard on the built nproxy: children that grow, that stay large, that queue their own output.
//!
//! Thresholds are scaled down by flags; times are bounds, not measurements, but for those that the trickle gives.
//! cgroup v2 is tested in a virtual machine, by scripts/vm-test.

// Stages in order, text modes off and on, titles, notices, and the switches for each.
mod stages;
// The gate: its trickle, its harm, what it spares.
mod gate;
// Process trees, orphans, and what looking at them costs.
mod tree;
// What is refused, and how.
mod refusals;
