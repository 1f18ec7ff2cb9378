//! Flags that say how the command is run.

use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::choices::{Linger, PtyMode, SignalExit, StdinMode};
use super::values::{interval, some_time};
use crate::units::read_time;

/// How the command is run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Command and terminal")]
pub struct RunFlags {
    /// Give the command a terminal: auto, always or never
    ///
    /// A command that writes to a terminal flushes each line and shows colours; one that writes to a pipe usually
    /// does not.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, env = "NPROXY_PTY")]
    pub pty: PtyMode,

    /// What the command reads: inherit, relay or null
    ///
    /// What is relayed to a command at a terminal of its own passes that terminal as if it were typed: control characters
    /// act, and of a line of more than 4095 bytes the rest is lost. `--pty=never` passes every byte.
    #[arg(long, value_enum, value_name = "SOURCE", default_value_t, env = "NPROXY_STDIN")]
    pub stdin: StdinMode,

    /// How long to wait for processes that are left over
    ///
    /// After the command exits, stop waiting for leftover processes once the pipe has been silent this long. `eof`
    /// waits until all of them have closed it.
    #[arg(long, value_name = "TIME|eof", default_value = "200ms", value_parser = linger, env = "NPROXY_LINGER")]
    pub linger: Linger,

    /// End a command that prints nothing for this long
    ///
    /// It gets SIGTERM, with all that it has started, and SIGKILL ten seconds later; nproxy exits with 124. Time in which
    /// it is stopped, or its output is not read, does not count. Without a command nproxy takes nothing more, and ends with
    /// 124 too.
    #[arg(long, value_name = "TIME", value_parser = some_time, env = "NPROXY_IDLE_TIMEOUT")]
    pub idle_timeout: Option<Duration>,

    /// Print a line this often while nothing comes
    ///
    /// It names the command, how long it has run and been silent, and the memory that it uses.
    #[arg(long, value_name = "TIME", value_parser = interval, env = "NPROXY_HEARTBEAT")]
    pub heartbeat: Option<Duration>,

    /// Show output only if the command fails
    ///
    /// Until then it lies in a file without a name in $TMPDIR or /tmp. It is shown, in its order, if the command ends
    /// with another status than 0 or by a signal. If the command asks for input at the terminal, or the disk is full,
    /// it is shown at once and the rest passes as it comes. Copies and reports get everything as always.
    #[arg(long, value_parser = FalseyValueParser::new(), env = "NPROXY_ONLY_ON_FAILURE")]
    pub only_on_failure: bool,

    /// After death by a signal: raise it, or exit 128+N
    ///
    /// Whether nproxy then dies by the same signal or exits with 128 + its number, as a shell would.
    #[arg(long, value_enum, value_name = "HOW", default_value_t, env = "NPROXY_SIGNAL_EXIT")]
    pub signal_exit: SignalExit,

    /// Run the command in a process group of its own and forward signals to the whole group
    #[arg(long, value_parser = FalseyValueParser::new(), hide_short_help = true, env = "NPROXY_GROUP")]
    pub group: bool,
}

fn linger(text: &str) -> Result<Linger, String> {
    match text {
        "eof" => Ok(Linger::EndOfFile),
        _ => match read_time(text) {
            Ok(time) => Ok(Linger::Silence(time)),
            Err(why) => Err(format!("{why}, or `eof`")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_linger() {
        assert_eq!(linger("eof"), Ok(Linger::EndOfFile));
        assert_eq!(linger("1s 500ms"), Ok(Linger::Silence(Duration::from_millis(1500))));
        assert!(linger("soon").is_err() && linger("-1s").is_err());
        assert!(linger("9300000000000000000s").is_ok());
    }
}
