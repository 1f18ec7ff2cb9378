//! Sending a window and collecting what the stream answers.

use std::time::Duration;

use async_nats::{HeaderMap, PublishErrorKind, StatusCode};
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use crate::link::{Link, Word};
use crate::window::{Stored, Window};

/// The API's error for a message above the stream's max_msg_size.
const TOO_LARGE: u32 = 10054;

/// Why a window, or the part of it behind what was acknowledged, is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The connection is lost.
    Broken(String),
    /// An acknowledgement did not come in time.
    Late,
    /// Nobody listens on the subject: no stream, or one without a leader.
    NoStream,
    /// We may not.
    Denied(String),
    /// A message is larger than server or stream take.
    TooLarge,
    /// The stream refuses it: full, sealed, no resources.
    Stream {
        /// The API's own number.
        code: u32,
        /// The API's own words.
        text: String,
    },
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    stream: std::borrow::Cow<'a, str>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

/// Where and how a window is published.
pub(crate) struct Publisher<'a> {
    /// The connection.
    pub(crate) link: &'a mut Link,
    /// The subject of every message.
    pub(crate) subject: &'a str,
    /// How long the next acknowledgement may take.
    pub(crate) timeout: Duration,
}

impl Publisher<'_> {
    /// Sends every message of `window` that is not acknowledged, in order and at once, and waits for all answers. Messages that
    /// were stored are marked so even if others were refused. Returns the name of the stream.
    pub(crate) async fn together(&mut self, window: &mut Window) -> Result<String, Refusal> {
        self.link.tries += 1;
        let mut waiting = 0;
        for (index, message) in window.messages.iter_mut().enumerate() {
            if message.stored.is_none() {
                self.send(index, message.headers(), message.piece.payload.clone()).await?;
                message.sent += 1;
                waiting += 1;
            }
        }
        let mut refused = None;
        let mut stream = String::new();
        while waiting > 0 {
            let (index, answer) = self.answer().await?;
            let Some(message) = window.messages.get_mut(index) else { continue };
            waiting -= 1;
            match answer.and_then(|answer| of_a_stream(answer, 0)) {
                Ok((name, stored)) => {
                    message.stored = Some(stored);
                    stream = name;
                }
                Err(refusal) => refused = refused.or(Some(refusal)),
            }
        }
        refused.map_or(Ok(stream), Err)
    }

    /// Sends one message after the other, each when the one before is acknowledged: nothing is stored behind one that
    /// was refused.
    pub(crate) async fn singly(&mut self, window: &mut Window) -> Result<String, Refusal> {
        let mut stream = String::new();
        for index in 0..window.messages.len() {
            let message = &mut window.messages[index];
            if message.stored.is_some() {
                continue;
            }
            self.link.tries += 1;
            self.send(index, message.headers(), message.piece.payload.clone()).await?;
            message.sent += 1;
            let (_, answer) = self.answer().await?;
            let (name, stored) = answer.and_then(|answer| of_a_stream(answer, 0))?;
            message.stored = Some(stored);
            stream = name;
        }
        Ok(stream)
    }

    /// Sends the whole of `window` as one unit (ADR-50): the stream stores all of it in a row, or nothing.
    pub(crate) async fn as_one(&mut self, window: &mut Window) -> Result<String, Refusal> {
        self.link.tries += 1;
        let unit =
            format!("{}-{}", self.link.inbox.rsplit('.').next().unwrap_or(""), self.link.tries);
        let last = window.messages.len() - 1;
        for (index, message) in window.messages.iter_mut().enumerate() {
            let mut headers = message.headers();
            headers.insert("Nats-Batch-Id", unit.as_str());
            headers.insert("Nats-Batch-Sequence", (index + 1).to_string().as_str());
            if index == last {
                headers.insert("Nats-Batch-Commit", "1");
            }
            self.send(index, headers, message.piece.payload.clone()).await?;
            message.sent += 1;
        }
        loop {
            // All but the last are answered by nothing or by an error that ends the unit.
            let (index, answer) = self.answer().await?;
            let answer = answer?;
            if index == last {
                return stored_as_one(window, answer);
            }
        }
    }

    async fn send(
        &mut self,
        index: usize,
        headers: HeaderMap,
        payload: bytes::Bytes,
    ) -> Result<(), Refusal> {
        let reply = format!("{}.{}-{index}", self.link.inbox, self.link.tries);
        let sent = self.link.client.publish_with_reply_and_headers(
            self.subject.to_owned(),
            reply,
            headers,
            payload,
        );
        match tokio::time::timeout(self.timeout, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                Err(Refusal::TooLarge)
            }
            Ok(Err(error)) => Err(Refusal::Broken(error.to_string())),
            Err(_) => Err(Refusal::Late),
        }
    }

    /// The next answer to this try: which message it is for, and what it says.
    async fn answer(&mut self) -> Result<(usize, Result<(String, Stored), Refusal>), Refusal> {
        let deadline = Instant::now() + self.timeout;
        if let Some(text) = &self.link.words.deaf {
            return Err(Refusal::Denied(text.clone()));
        }
        loop {
            let message = tokio::select! {
                message = self.link.acks.next() => message,
                word = self.link.words.next() => match word {
                    Word::Broken(why) => return Err(Refusal::Broken(why)),
                    Word::Denied(text)
                        if text.contains(self.subject) || text.contains(&self.link.inbox) =>
                    {
                        return Err(Refusal::Denied(text));
                    }
                    Word::Denied(_) => continue,
                },
                () = sleep_until(deadline) => return Err(Refusal::Late),
            };
            let Some(message) = message else {
                return Err(Refusal::Broken("the connection is closed".into()));
            };
            let token = message.subject.rsplit('.').next().unwrap_or("");
            let Some((tries, index)) = token.split_once('-') else { continue };
            let (Ok(tries), Ok(index)) = (tries.parse::<u64>(), index.parse::<usize>()) else {
                continue;
            };
            if tries == self.link.tries {
                return Ok((index, read(message.status, &message.payload)));
            }
        }
    }
}

/// An answer of somebody who is no stream is no acknowledgement. A stream counts from 1, and has stored `ahead` messages
/// ahead of the one that it answers.
fn of_a_stream(answer: (String, Stored), ahead: u64) -> Result<(String, Stored), Refusal> {
    if answer.1.sequence > ahead {
        return Ok(answer);
    }
    Err(Refusal::Stream { code: 0, text: "an answer that no stream gives".to_owned() })
}

/// Marks all of `window` as stored in a row, which `answer` to its last message says. Returns the name of the stream.
fn stored_as_one(window: &mut Window, answer: (String, Stored)) -> Result<String, Refusal> {
    let ahead = window.messages.len().saturating_sub(1) as u64;
    let (name, stored) = of_a_stream(answer, ahead)?;
    let sequences = stored.sequence - ahead..=stored.sequence;
    for (message, sequence) in window.messages.iter_mut().zip(sequences) {
        message.stored = Some(Stored { sequence, ..stored });
    }
    Ok(name)
}

/// What an acknowledgement says. An empty one is for a message inside a unit.
fn read(status: Option<StatusCode>, payload: &[u8]) -> Result<(String, Stored), Refusal> {
    if status == Some(StatusCode::NO_RESPONDERS) {
        return Err(Refusal::NoStream);
    }
    if payload.is_empty() {
        return Ok((String::new(), Stored { sequence: 0, duplicate: false }));
    }
    let answer: Answer = serde_json::from_slice(payload).map_err(|e| Refusal::Stream {
        code: 0,
        text: format!("an answer that makes no sense: {e}"),
    })?;
    match answer.error {
        Some(error) if error.err_code == TOO_LARGE => Err(Refusal::TooLarge),
        Some(error) => Err(Refusal::Stream { code: error.err_code, text: error.description }),
        None => {
            let stored = Stored { sequence: answer.seq, duplicate: answer.duplicate };
            Ok((answer.stream.into_owned(), stored))
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::cut::{End, Piece};
    use crate::window::Message;

    #[test]
    fn answers_are_told_apart() {
        let ok = read(None, br#"{"stream":"LOGS","seq":7,"duplicate":true}"#);
        assert_eq!(ok, Ok(("LOGS".into(), Stored { sequence: 7, duplicate: true })));
        let full = br#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"L","seq":0}"#;
        let text = "maximum messages exceeded".to_owned();
        assert_eq!(read(None, full), Err(Refusal::Stream { code: 10077, text }));
        assert_eq!(read(Some(StatusCode::NO_RESPONDERS), b""), Err(Refusal::NoStream));
        let large = br#"{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"}}"#;
        assert_eq!(read(None, large), Err(Refusal::TooLarge));
        assert!(matches!(read(None, b"+ACK"), Err(Refusal::Stream { code: 0, .. })));
    }

    #[test]
    fn a_unit_is_stored_in_a_row_and_only_by_a_stream() {
        let piece = |offset| Piece { offset, payload: Bytes::from_static(b"x"), end: End::Line };
        let messages = (0..3).map(|n| Message::new("s", piece(n * 2))).collect();
        let mut window = Window { messages, since: None };
        let answer = |sequence| ("LOGS".to_owned(), Stored { sequence, duplicate: false });
        // An empty answer or that of somebody else; and three messages cannot end at 1 or 2.
        for sequence in 0..3 {
            let refused = stored_as_one(&mut window, answer(sequence));
            assert!(matches!(refused, Err(Refusal::Stream { code: 0, .. })), "{sequence}");
            assert!(window.messages.iter().all(|m| m.stored.is_none()), "{sequence}");
        }
        for last in [3, 900, u64::MAX] {
            assert_eq!(stored_as_one(&mut window, answer(last)), Ok("LOGS".to_owned()));
            let stored: Vec<u64> =
                window.messages.iter().filter_map(|m| m.stored).map(|s| s.sequence).collect();
            assert_eq!(stored, [last - 2, last - 1, last]);
        }
    }

    #[test]
    fn an_answer_without_a_sequence_number_is_no_acknowledgement() {
        let answer = read(None, b"{}").expect("an answer");
        assert!(of_a_stream(answer, 0).is_err());
        let answer = read(None, br#"{"stream":"LOGS","seq":1}"#).expect("an answer");
        assert!(of_a_stream(answer, 0).is_ok());
    }
}
