//! What the child gets beside its streams: variables, and, before it executes its program, its cgroup and its resource limits.

use std::ffi::OsString;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::resource::setrlimit;
use nix::unistd::write;

use crate::memory::limit::Rlimit;

/// What spawning reports when the cgroup could not be entered; no step of it fails so by itself.
pub(crate) const NOT_ENTERED: Errno = Errno::EBADE;
/// The same for a resource limit.
pub(crate) const NOT_LIMITED: Errno = Errno::EBADR;

/// Cgroup, limits and variables of a child to be.
#[derive(Debug, Default)]
pub(crate) struct Confinement {
    /// `cgroup.procs` of its group, opened with our rights: those count, not the child's (cgroups(7)).
    pub(crate) entrance: Option<OwnedFd>,
    pub(crate) rlimits: Vec<Rlimit>,
    /// Variables with other values than nproxy has itself.
    pub(crate) variables: Vec<(OsString, OsString)>,
}

impl Confinement {
    /// Takes effect on this process. Runs in the child, in our memory: system calls only.
    ///
    /// # Errors
    /// [`NOT_ENTERED`] or [`NOT_LIMITED`].
    pub(crate) fn apply(&self) -> Result<(), Errno> {
        if let Some(entrance) = &self.entrance {
            // "0" is whoever writes it.
            write(entrance, b"0").map_err(|_| NOT_ENTERED)?;
        }
        for limit in &self.rlimits {
            setrlimit(limit.resource, limit.soft, limit.hard).map_err(|_| NOT_LIMITED)?;
        }
        Ok(())
    }
}
