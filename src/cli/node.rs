//! Flags for Node.js.

use std::ffi::OsString;

use clap::Args;
use clap::builder::FalseyValueParser;

/// What is done for Node processes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Memory")]
pub struct NodeFlags {
    /// Watch the V8 heaps of Node.js processes too
    ///
    /// NODE_OPTIONS then has every Node process among the command and what it starts load nproxy.js. The stage is
    /// the higher one of the memory's and the heaps' (30, 50, 70 and 80 % of V8's limit), a line comes before V8 is
    /// out of memory, and garbage is collected when memory is short. See doc/node.md in share/doc/nproxy.
    #[arg(long, value_parser = FalseyValueParser::new(), env = "NPROXY_NODE")]
    pub node: bool,

    /// What V8 may keep, in MiB (--max-old-space-size), with --node
    #[arg(long, hide = true, value_name = "MIB", env = "NODE_OPT_MAX_OLD")]
    pub node_max_old: Option<OsString>,
}
