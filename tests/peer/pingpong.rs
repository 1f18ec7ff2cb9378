//! Round trips of 64 bytes through a relay: what an interactive user of it would feel.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::{Outcome, number};

/// Rounds that are played before any is counted.
const WARM_UP: u64 = 100;

/// Starts the relay with pipes at both ends and prints `p50 NS p99 NS` over the rounds.
pub(crate) fn run(arguments: Vec<OsString>) -> Outcome {
    let rounds = number(arguments.first())?;
    let command = arguments.get(1).ok_or("the relay's command is missing")?;
    let mut relay = Command::new(command)
        .args(&arguments[2..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut to = relay.stdin.take().ok_or("no stdin")?;
    let mut from = relay.stdout.take().ok_or("no stdout")?;

    let mut times = Vec::new();
    for round in 0..WARM_UP + rounds {
        let mut ball = [0; 64];
        ball[..8].copy_from_slice(&round.to_le_bytes());
        let start = Instant::now();
        to.write_all(&ball)?;
        let mut back = [0; 64];
        from.read_exact(&mut back)?;
        let time = start.elapsed();
        if back != ball {
            return Err("the relay returned other bytes".into());
        }
        if round >= WARM_UP {
            times.push(time.as_nanos());
        }
    }
    drop(to);
    let status = relay.wait()?;
    if !status.success() {
        return Err(format!("the relay ended with {status}").into());
    }
    times.sort_unstable();
    let part = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    writeln!(io::stdout(), "p50 {} ns p99 {} ns", part(50), part(99))?;
    Ok(0)
}
