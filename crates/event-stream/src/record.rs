//! Records as they are read and written.

use std::sync::Arc;

use bytes::Bytes;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};
use saga_core::ids::Lane;

/// Longest value, in bytes, that every producer and every broker takes as they come: with its headers it stays below the
/// producer's `message.max.bytes` (1 000 000) and the broker's (1 048 588). A record that is refused for its size never
/// becomes smaller: whoever makes one checks first.
pub const MAX_PAYLOAD_BYTES: usize = 900_000;

/// One record as it was read.
#[derive(Clone, Debug)]
pub struct Record {
    /// Offset in the lane's partition.
    pub offset: i64,
    /// Log-append time, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The value.
    pub payload: Bytes,
    /// Headers, in order.
    pub headers: Vec<(String, Bytes)>,
}

/// One record to be written.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub lane: Lane,
    /// The value; at most [`MAX_PAYLOAD_BYTES`].
    pub payload: Bytes,
    /// Headers, in order.
    pub headers: Vec<(&'static str, String)>,
}

impl Record {
    pub(crate) fn read(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned(), Bytes::copy_from_slice(header.value.unwrap_or_default())))
                .collect()
        });
        Self {
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
            payload: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
            headers,
        }
    }

    /// What it weighs in a queue, roughly, in bytes.
    pub(crate) fn weight_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        size_of::<Self>() + self.payload.len() + headers
    }
}

impl Outgoing {
    pub(crate) fn kafka_headers(&self) -> Option<OwnedHeaders> {
        if self.headers.is_empty() {
            return None;
        }
        let headers = OwnedHeaders::new_with_capacity(self.headers.len());
        Some(
            self.headers
                .iter()
                .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value.as_bytes()) })),
        )
    }
}
