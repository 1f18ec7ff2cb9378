//! The messages that are on their way: a few consecutive pieces of one segment, each acknowledged or not.

use std::time::Instant;

use async_nats::HeaderMap;

use crate::cut::{End, Piece};

/// Tells the server that it has seen a message before.
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// On a message that does not end with its line: the next one, or nothing, continues it.
const LINE: &str = "Nproxy-Line";

/// What the stream answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The stream's sequence number of the message.
    pub(crate) sequence: u64,
    /// The stream had it already.
    pub(crate) duplicate: bool,
}

/// One message.
#[derive(Debug)]
pub(crate) struct Message {
    /// What is sent.
    pub(crate) piece: Piece,
    /// Its identity, the same whenever it is sent.
    pub(crate) id: String,
    /// The acknowledgement.
    pub(crate) stored: Option<Stored>,
    /// How often it has been handed to the client.
    pub(crate) sent: u32,
}

impl Message {
    /// A message that has not been sent yet. `segment` identifies the segment among all of all machines.
    pub(crate) fn new(segment: &str, piece: Piece) -> Self {
        let id = format!("{segment}:{}+{}", piece.offset, piece.len());
        Message { piece, id, stored: None, sent: 0 }
    }

    /// The headers that go with it.
    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(MESSAGE_ID, self.id.as_str());
        if self.piece.end == End::Open {
            headers.insert(LINE, "open");
        }
        headers
    }
}

/// Messages in the order of the segment. Only what is acknowledged from the front on counts.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// The messages.
    pub(crate) messages: Vec<Message>,
    /// When the first of them was sent for the first time.
    pub(crate) since: Option<Instant>,
}

impl Window {
    /// Nothing is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Takes what is acknowledged off the front.
    pub(crate) fn take_stored(&mut self) -> Vec<(Message, Stored)> {
        let count = self.messages.iter().take_while(|m| m.stored.is_some()).count();
        let stored = self
            .messages
            .drain(..count)
            .filter_map(|message| message.stored.map(|stored| (message, stored)))
            .collect();
        if self.messages.is_empty() {
            self.since = None;
        }
        stored
    }

    /// Marks every message whose identity `is_stored` finds as acknowledged.
    pub(crate) fn mark(&mut self, is_stored: impl Fn(&str) -> Option<u64>) {
        for message in self.messages.iter_mut().filter(|m| m.stored.is_none()) {
            if let Some(sequence) = is_stored(&message.id) {
                message.stored = Some(Stored { sequence, duplicate: true });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn window(count: u64) -> Window {
        let piece = |offset| Piece { offset, payload: Bytes::from_static(b"x"), end: End::Line };
        let messages = (0..count).map(|n| Message::new("s", piece(n * 2))).collect();
        Window { messages, since: Some(Instant::now()) }
    }

    #[test]
    fn only_what_is_acknowledged_from_the_front_on_counts() {
        let mut window = window(4);
        for n in [1, 3] {
            window.messages[n].stored = Some(Stored { sequence: 1, duplicate: false });
        }
        assert!(window.take_stored().is_empty());
        window.messages[0].stored = Some(Stored { sequence: 2, duplicate: false });
        assert_eq!(window.take_stored().len(), 2);
        assert!(window.since.is_some());
        window.mark(|id| (id == "s:4+2").then_some(9));
        assert_eq!(window.take_stored().len(), 2);
        assert!(window.is_empty() && window.since.is_none());
    }
}
