//! The command's process: its start, its signals, its stops and its end.

pub(crate) mod aside;
pub(crate) mod child;
pub(crate) mod exit;
pub(crate) mod fds;
pub(crate) mod heap_page;
pub(crate) mod interruption;
pub(crate) mod limits;
pub(crate) mod monitor;
pub(crate) mod node;
mod orphans;
pub(crate) mod procfs;
pub(crate) mod prompt;
pub(crate) mod signals;
pub(crate) mod silence;
pub(crate) mod spawn;
pub(crate) mod startup;
mod vfork;
pub(crate) mod waiting;
