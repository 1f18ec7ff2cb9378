//! What the flags for Node.js mean.

use crate::cli::NodeFlags;

/// What Node processes are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePreload {
    /// Nothing that they have not got already: if NODE_OPTIONS names the preload, it is told where to write.
    AsItIs,
    /// The preload, and what V8 may keep of the old generation, in MiB.
    Given(Option<u32>),
}

impl NodePreload {
    pub(super) fn new(flags: &NodeFlags) -> NodePreload {
        if flags.node { NodePreload::Given(flags.node_max_old) } else { NodePreload::AsItIs }
    }
}
