//! Networks of a test's own, and a machine at the other end of a link that can be cut.

use std::path::Path;

use crate::harness::{Engine, Launch, need};
use crate::outcome::Finished;

/// The beginning of a script: by the link `near` 10.0.0.1, which is here, is connected to 10.0.0.2, which is in the network of the
/// process `$far`. The script has to end that process.
pub(super) const FAR_MACHINE: &str = r#"
    unshare -n sleep 600 & far=$!
    own=$(readlink /proc/self/ns/net)
    until there=$(readlink "/proc/$far/ns/net") && [ "$there" != "$own" ]; do :; done
    ip link add near type veth peer name far netns "$far"
    ip addr add 10.0.0.1/24 dev near; ip link set near up
    nsenter -t "$far" -n sh -c 'ip addr add 10.0.0.2/24 dev far; ip link set far up'
"#;

/// Whether such networks, and these programs, are to be had.
pub(super) fn has_networks(programs: &[&[&str]]) -> bool {
    let link = ["ip", "link", "add", "near", "type", "veth", "peer", "name", "far"];
    let unshare: Vec<_> = ["unshare", "-rn"].into_iter().chain(link).collect();
    need(&unshare)
        && need(&["nsenter", "--version"])
        && programs.iter().all(|program| need(program))
}

/// Runs a script of bash's in a network of its own.
pub(super) fn run(engine: Engine, directory: &Path, script: &str) -> Finished {
    Launch::program("unshare")
        .args(["-rn", "bash", "-c", script])
        .env("NPROXY_ENGINE", engine.name())
        .directory(directory)
        .finish()
}
