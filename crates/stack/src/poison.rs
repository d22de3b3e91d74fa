//! Records that no service can do anything with, appended to topics on purpose.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use event_stream::{KafkaSettings, Lane, Outgoing, Publisher};

/// What is appended: a protobuf message that breaks off, with no format.
pub const POISON: &[u8] = b"\xff\xff poison";

/// Appends such records.
pub struct Poisoner {
    publisher: Publisher,
}

impl Poisoner {
    /// Through the brokers `host:port,…`; what is not acknowledged within `patience` is an error.
    pub fn new(brokers: &str, patience: Duration) -> anyhow::Result<Self> {
        let settings = KafkaSettings { message_timeout: patience, ..KafkaSettings::new(brokers, "poisoner") };
        Ok(Self { publisher: Publisher::new(&settings)? })
    }

    /// Appends bytes that are no record to each of these lanes; returns when all are acknowledged.
    pub async fn append(&self, topic: &str, lanes: impl IntoIterator<Item = u32>) -> anyhow::Result<()> {
        self.append_all(topic, lanes, &Bytes::from_static(POISON)).await
    }

    /// Appends this to each of these lanes; returns when all are acknowledged.
    pub async fn append_all(
        &self,
        topic: &str,
        lanes: impl IntoIterator<Item = u32>,
        payload: &Bytes,
    ) -> anyhow::Result<()> {
        let record =
            |lane| Outgoing { topic: topic.into(), lane: Lane(lane), payload: payload.clone(), headers: Vec::new() };
        let receipt = self.publisher.send(lanes.into_iter().map(record).collect()).await;
        let acknowledged = async { anyhow::Ok(receipt?.await?) };
        acknowledged.await.with_context(|| format!("append to {topic}"))
    }
}
