//! What the JetStream API tells of the stream behind our subject, as far as we may ask.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::link::Link;

/// The API's error for "no message".
const NO_MESSAGE: u64 = 10037;

/// Questions at most when it is looked up what a stream holds; a subject shared by many sources has no end.
const LOOKUPS: usize = 100_000;

/// With less room than this, in messages or bytes, a stream that refuses what is new may be full at any moment.
const ROOM: (u64, u64) = (200_000, 128 << 20);

/// A stream's settings that matter to us. Where we may not ask, what holds for any stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Its name.
    pub(crate) name: Option<String>,
    /// How long it remembers message identities.
    pub(crate) duplicates: Option<Duration>,
    /// Bytes of a message at most.
    pub(crate) max_message: Option<usize>,
    /// Whether it takes several messages as one unit.
    pub(crate) atomic: bool,
    /// Whether it refuses what is new when it is full, and soon may be.
    pub(crate) may_refuse: bool,
    /// Sequence number of its newest message.
    pub(crate) last: Option<u64>,
}

/// Whether there is a stream for a subject.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// There is, or nobody told.
    Facts(Facts),
    /// The cluster says that there is none.
    None,
}

/// Asks for the stream behind `subject`.
pub(crate) async fn look_up(link: &mut Link, subject: &str) -> Lookup {
    let question = json!({ "subject": subject }).to_string();
    let Some(names) = ask(link, "STREAM.NAMES".into(), question).await else {
        return Lookup::Facts(Facts::default());
    };
    if names.get("error").is_some() {
        return Lookup::Facts(Facts::default());
    }
    let Some(name) = names["streams"].get(0).and_then(Value::as_str) else {
        return Lookup::None;
    };
    let mut facts = Facts { name: Some(name.to_owned()), ..Facts::default() };
    if let Some(info) = ask(link, format!("STREAM.INFO.{name}"), String::new()).await {
        let config = &info["config"];
        facts.duplicates = config["duplicate_window"].as_u64().map(Duration::from_nanos);
        facts.max_message = config["max_msg_size"]
            .as_i64()
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| *n > 0);
        facts.may_refuse = may_refuse(config, &info["state"]);
        facts.last = info["state"]["last_seq"].as_u64();
        facts.atomic = config["allow_atomic"].as_bool().unwrap_or(false);
    }
    Lookup::Facts(facts)
}

fn may_refuse(config: &Value, state: &Value) -> bool {
    let near = |limit: &str, used: &str, room: u64| {
        let limit = config[limit].as_u64().filter(|limit| *limit > 0);
        limit.is_some_and(|limit| limit.saturating_sub(state[used].as_u64().unwrap_or(0)) < room)
    };
    config["discard"] == "new"
        && (near("max_msgs", "messages", ROOM.0)
            || near("max_bytes", "bytes", ROOM.1)
            || config["discard_new_per_subject"].as_bool().unwrap_or(false))
}

/// Identities and sequence numbers of what `stream` holds of `subject` behind `sequence`. None if it cannot be told.
pub(crate) async fn stored_since(
    link: &mut Link,
    stream: &str,
    subject: &str,
    sequence: u64,
) -> Option<HashMap<String, u64>> {
    let mut stored = HashMap::new();
    let mut from = sequence + 1;
    for _ in 0..LOOKUPS {
        let question = json!({ "seq": from, "next_by_subj": subject }).to_string();
        let answer = ask(link, format!("STREAM.MSG.GET.{stream}"), question).await?;
        if let Some(error) = answer.get("error") {
            return (error["err_code"].as_u64() == Some(NO_MESSAGE)).then_some(stored);
        }
        let found = answer["message"]["seq"].as_u64()?;
        if let Some(id) = answer["message"]["hdrs"].as_str().and_then(message_id) {
            stored.insert(id, found);
        }
        from = found + 1;
    }
    None
}

/// The identity in a block of headers as the API gives it, in base64.
fn message_id(headers: &str) -> Option<String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(headers).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Nats-Msg-Id:")).map(|id| id.trim().to_owned())
}

async fn ask(link: &mut Link, what: String, question: String) -> Option<Value> {
    let answer = link.ask(format!("$JS.API.{what}"), Bytes::from(question)).await?;
    serde_json::from_slice(&answer).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stream_that_discards_what_is_new_refuses() {
        let state = json!({ "messages": 900_000, "bytes": 5 });
        for (config, expected) in [
            (json!({ "discard": "old", "max_msgs": 900_001 }), false),
            (json!({ "discard": "new", "max_msgs": 900_001 }), true),
            (json!({ "discard": "new", "max_msgs": 2_000_000, "max_bytes": -1 }), false),
            (json!({ "discard": "new", "max_msgs": -1, "max_bytes": 1000 }), true),
            (json!({ "discard": "new", "discard_new_per_subject": true }), true),
        ] {
            assert_eq!(may_refuse(&config, &state), expected, "{config}");
        }
    }

    #[test]
    fn the_identity_is_found_among_other_headers() {
        let block = "NATS/1.0\r\nNproxy-Line: open\r\nNats-Msg-Id: a-b:0+5\r\n\r\n";
        let encoded = base64::engine::general_purpose::STANDARD.encode(block);
        assert_eq!(message_id(&encoded).as_deref(), Some("a-b:0+5"));
        assert_eq!(message_id("no base64!"), None);
    }
}
