//! One connection to the cluster. It is never repaired: when it breaks, it is dropped with everything that was queued
//! on it, and the caller makes a new one. A client that reconnected by itself would send the rest of an old window
//! ahead of what was lost with the old connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, Event, ServerError, Subscriber};
use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::config::Config;

/// How long a question to the JetStream API may take.
const QUESTION: Duration = Duration::from_secs(3);

/// A dead peer is noticed after three of these.
const PING: Duration = Duration::from_secs(5);

/// Longer than any connection's runtime lives after the connection is lost.
const NEVER: Duration = Duration::from_secs(86_400);

/// What the server says without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    /// The connection is lost.
    Broken(String),
    /// The server does not let us publish or subscribe; the text says what.
    Denied(String),
}

/// A connection, with an inbox for acknowledgements.
pub(crate) struct Link {
    /// The client.
    pub(crate) client: Client,
    /// Acknowledgements come to this prefix, followed by a dot and anything.
    pub(crate) inbox: String,
    /// They arrive here.
    pub(crate) acks: Subscriber,
    /// What the server says of itself.
    pub(crate) words: Words,
    /// Counts how often a window was sent, so that late answers to an earlier try are not mistaken.
    pub(crate) tries: u64,
}

/// Events of a connection that matter.
pub(crate) struct Words {
    events: UnboundedReceiver<Event>,
    last: Option<String>,
    /// We may not hear acknowledgements; the server has said so once and will not again.
    pub(crate) deaf: Option<String>,
}

impl Words {
    /// Waits for the next event that matters.
    pub(crate) async fn next(&mut self) -> Word {
        loop {
            match self.events.recv().await {
                Some(Event::ServerError(ServerError::Other(text))) if is_denial(&text) => {
                    if text.to_ascii_lowercase().contains("for subscription") {
                        self.deaf = Some(text.clone());
                    }
                    return Word::Denied(text);
                }
                Some(Event::ServerError(error)) => self.last = Some(error.to_string()),
                Some(Event::Disconnected | Event::Closed) | None => {
                    let why = self.last.take().unwrap_or_else(|| "the connection is lost".into());
                    return Word::Broken(why);
                }
                Some(_) => {}
            }
        }
    }
}

fn is_denial(text: &str) -> bool {
    text.to_ascii_lowercase().contains("permissions violation")
}

impl Link {
    /// Connects to the first server that answers.
    pub(crate) async fn connect(config: &Config) -> Result<Self, String> {
        let (sender, events) = unbounded_channel();
        let connected = Arc::new(AtomicBool::new(false));
        let was_connected = Arc::clone(&connected);
        let options = config
            .connect_options()
            .map_err(|failure| failure.to_string())?
            .ping_interval(PING)
            .reconnect_delay_callback(move |_| {
                if was_connected.load(Ordering::Relaxed) { NEVER } else { Duration::ZERO }
            })
            .event_callback(move |event| {
                let _ = sender.send(event);
                std::future::ready(())
            });
        let client = options.connect(config.servers()).await.map_err(|e| chain(&e))?;
        connected.store(true, Ordering::Relaxed);
        let inbox = client.new_inbox();
        let acks = client.subscribe(format!("{inbox}.*")).await.map_err(|e| chain(&e))?;
        Ok(Link { client, inbox, acks, words: Words { events, last: None, deaf: None }, tries: 0 })
    }

    /// Asks the JetStream API. None if there is no answer, for whatever reason; not everybody may ask.
    pub(crate) async fn ask(&mut self, subject: String, question: Bytes) -> Option<Bytes> {
        let answer = tokio::time::timeout(QUESTION, self.client.request(subject.clone(), question));
        tokio::pin!(answer);
        loop {
            tokio::select! {
                answer = &mut answer => return Some(answer.ok()?.ok()?.payload),
                word = self.words.next() => match word {
                    Word::Denied(text) if text.contains(&subject) => return None,
                    Word::Denied(_) => {}
                    Word::Broken(_) => return None,
                }
            }
        }
    }

    /// Bytes of headers and payload together that the server takes.
    pub(crate) fn max_payload(&self) -> usize {
        self.client.max_payload()
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
