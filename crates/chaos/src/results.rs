//! Reads the whole results topic with the bare Kafka client: each partition from its beginning to its end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::audit::Announced;
use crate::wire::Message;

const TOPIC: &str = "order.results";
/// All partitions are read within this time.
const READ: Duration = Duration::from_secs(60);
/// Longest wait for one answer of the broker.
const ASK: Duration = Duration::from_secs(10);

/// Everything that was announced. What the topic held before this call is read; what cannot be read is an error.
pub(crate) fn announcements(brokers: &str, partitions: u32) -> anyhow::Result<Vec<Announced>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        // The client wants a group's name; nothing is ever committed.
        .set("group.id", "auditor")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set_log_level(RDKafkaLogLevel::Critical)
        .create()?;
    let mut left = ends(&consumer, partitions)?;
    let mut from = TopicPartitionList::new();
    for partition in left.keys() {
        from.add_partition_offset(TOPIC, *partition, Offset::Offset(0))?;
    }
    consumer.assign(&from)?;
    let (begun, mut announced) = (Instant::now(), Vec::new());
    while !left.is_empty() {
        ensure!(begun.elapsed() < READ, "{} of {partitions} partitions of {TOPIC} could not be read", left.len());
        // A broker that went away for a moment is an error here, and the client reads on.
        let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let Some(end) = left.get(&record.partition()) else { continue };
        announced.extend(record.payload().and_then(read));
        if record.offset() + 1 >= *end {
            left.remove(&record.partition());
        }
    }
    Ok(announced)
}

/// Where each partition ends that holds anything.
fn ends(consumer: &BaseConsumer, partitions: u32) -> anyhow::Result<BTreeMap<i32, i64>> {
    let mut ends = BTreeMap::new();
    for partition in 0..i32::try_from(partitions)? {
        let asked = consumer.fetch_watermarks(TOPIC, partition, ASK);
        let (begin, end) = asked.with_context(|| format!("ask where partition {partition} of {TOPIC} ends"))?;
        ensure!(begin == 0, "partition {partition} of {TOPIC} begins at {begin}: what lay before is lost");
        if end > 0 {
            ends.insert(partition, end);
        }
    }
    Ok(ends)
}

/// `saga.v1.SagaResult`; none for a notice, which ends nothing, and for what is no record at all.
fn read(payload: &[u8]) -> Option<Announced> {
    let message = Message::read(payload).ok().filter(|message| message.number(1) == 1)?;
    let completed = message.bytes(4).is_some();
    if !completed && message.bytes(5).is_none() {
        return None;
    }
    let ordinal = message.message(3).ok()??;
    let starter = ordinal.message(1).ok()??;
    let name = format!("{}@{}", starter.text(1).ok()?, crate::audit::hex(starter.bytes(2)?));
    let lane = u32::try_from(ordinal.number(2)).ok()?;
    let saga = message.bytes(2)?.try_into().ok()?;
    Some(Announced { saga, ordinal: (name, lane, ordinal.number(3)), completed })
}
