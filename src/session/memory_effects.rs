//! What the stages of memory do to the relays, and what the relays show of the command's output.

use std::time::Instant;

use crate::memory::Output;
use crate::memory::policy::{BOUNDED, Flow, Source, TRICKLE, TRICKLE_EVERY, TextModes};
use crate::relay::{self, Endpoint, Relay, Role, Stream, TextSwitch, Trickle};

/// Whether the gate stands before this relay: what takes the child's output from it.
fn is_gated(relay: &Relay) -> bool {
    relay.role().is_first() && relay.stream() != Stream::Stdin
}

/// What the gate holds back, and what has come through it. The pipes are asked only while it is closed.
pub(super) fn output(relays: &[Relay], closed: bool) -> Output {
    let gated = || relays.iter().filter(|relay| is_gated(relay));
    let sources = || gated().filter(|_| closed).filter_map(Relay::source);
    let source = if sources().any(Endpoint::is_full) {
        Source::Full
    } else if sources().any(Endpoint::has_input) {
        Source::Waiting
    } else {
        Source::Empty
    };
    Output { source, bytes: gated().map(|relay| relay.counters().taken).sum() }
}

/// Makes the pipes that the gate holds so small, or as large as they were: a command that is held back feels it at
/// once only if little goes into its pipe.
pub(super) fn resize(relays: &[Relay], bytes: Option<u32>) {
    for relay in relays.iter().filter(|relay| is_gated(relay)) {
        let Some(source) = relay.source() else { continue };
        let usual = relay.pipe_size();
        if let Some(wanted) = bytes.map_or(usual, |bytes| usual.map(|usual| usual.min(bytes))) {
            source.resize(wanted);
        }
    }
}

/// Whether there are text modes that give way.
pub(super) fn have_text(relays: &[Relay]) -> bool {
    relays.iter().any(|relay| relay.role() != Role::Copy && relay.has_text_modes())
}

/// Lets the relays do what the policy allows.
pub(super) fn spread(flow: Flow, text: TextModes, relays: &mut [Relay], now: Instant) {
    let flow = match flow {
        Flow::Open => relay::Flow::Open,
        Flow::Bounded => relay::Flow::Bounded(BOUNDED),
        Flow::Trickle => relay::Flow::Trickle(Trickle { bytes: TRICKLE, every: TRICKLE_EVERY }),
        Flow::Drain => relay::Flow::Drain,
        Flow::Limited(rate) => relay::Flow::Limited(rate),
    };
    let text = match text {
        TextModes::AsAsked => TextSwitch::On,
        TextModes::Off => TextSwitch::Off,
    };
    for relay in relays {
        if is_gated(relay) {
            relay.set_flow(flow, now);
        }
        // A log keeps what was asked for it.
        if relay.role() != Role::Copy {
            relay.set_text(text);
        }
    }
}
