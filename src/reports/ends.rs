//! What the user is told of how a stream or a copy ended.

use nix::errno::Errno;

use crate::config::Verbosity;
use crate::error::Error;
use crate::notice;
use crate::process::procfs::Holder;
use crate::relay::{End, Relay, Role};

/// What the user should know of how a relay ended. What was abandoned is named at the end of the run, together with
/// other streams that the same process holds.
pub(crate) fn show(relay: &Relay, end: &End, verbosity: Verbosity) {
    match (end, relay.role()) {
        (End::Failed(error), _) => notice::error(error),
        // Why its thread takes no more, that says itself.
        (End::ReaderLeft | End::Closed, Role::Copy) if relay.beyond().is_some() => {}
        (End::ReaderLeft | End::Closed, Role::Copy) => {
            let tried = format!("write to {}", relay.sink_name());
            notice::error(&Error::os(tried, Errno::EPIPE));
        }
        (End::Abandoned, _) => {}
        (End::Delivered | End::ReaderLeft | End::Closed | End::Stopped, _) => {
            notice::event(verbosity, &format!("{}: {end}", relay.stream().name()));
        }
    }
}

/// Names the process that holds streams which were therefore left.
pub(crate) fn show_abandoned(holder: Option<&Holder>, streams: &[&str], verbosity: Verbosity) {
    let holds = match holder.is_some_and(Holder::has_gone) {
        true => "held",
        false => "holds",
    };
    let holder = match holder {
        Some(holder) => format!("pid {} ({})", holder.pid, holder.command),
        None => "another process".to_owned(),
    };
    let streams = streams.join(" and ");
    let text =
        format!("leave {streams}: {holder} {holds} on to it (--linger=eof waits for the end)");
    notice::notice(verbosity, &text);
}
