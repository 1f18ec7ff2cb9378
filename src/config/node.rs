//! What the flags for Node.js mean.

use std::ffi::OsString;

use crate::cli::NodeFlags;
use crate::error::Error;

/// What Node processes are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePreload {
    /// Nothing that they have not got already: if NODE_OPTIONS names the preload, it is told where to write.
    AsItIs,
    /// The preload, and what V8 may keep of the old generation, in MiB.
    Given(Option<u32>),
}

impl NodePreload {
    /// # Errors
    /// If what V8 may keep is no number. The variable is known to other tools too, and nothing to a run without --node.
    pub(super) fn new(flags: &NodeFlags) -> Result<NodePreload, Error> {
        if !flags.node {
            return Ok(NodePreload::AsItIs);
        }
        let read = |text: &OsString| {
            let refused = || Error::usage("NODE_OPT_MAX_OLD", "expected a number of MiB");
            text.to_str().and_then(|text| text.parse().ok()).ok_or_else(refused)
        };
        flags.node_max_old.as_ref().map(read).transpose().map(NodePreload::Given)
    }
}
