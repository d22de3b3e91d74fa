//! Reads whole topics with the bare Kafka client: what was announced, and what was set aside.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use stack::POISON;

use crate::audit::Announced;
use crate::wire::Message;

const RESULTS: &str = "order.results";
const QUARANTINE: &str = "saga.quarantine";
/// A topic is read within this time.
const READ: Duration = Duration::from_secs(60);
/// Longest wait for one answer of the broker.
const ASK: Duration = Duration::from_secs(10);

/// Everything that was announced.
pub(crate) fn announcements(brokers: &str) -> anyhow::Result<Vec<Announced>> {
    let records = records(brokers, RESULTS)?;
    let read = records.iter().map(|payload| result(payload).with_context(|| format!("a record of {RESULTS}")));
    Ok(read.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// How many records of each topic lie in the quarantine; one that was set aside twice counts once.
pub(crate) fn set_aside(brokers: &str) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut places = BTreeSet::new();
    for payload in records(brokers, QUARANTINE)? {
        places.insert(place(&payload).with_context(|| format!("a record of {QUARANTINE}"))?);
    }
    let mut counts = BTreeMap::new();
    for (topic, _, _) in places {
        *counts.entry(topic).or_default() += 1;
    }
    Ok(counts)
}

/// All records that the topic held before this call, each partition from its beginning; what cannot be read is an error.
fn records(brokers: &str, topic: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        // The client wants a group's name; nothing is ever committed.
        .set("group.id", "auditor")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set_log_level(RDKafkaLogLevel::Critical)
        .create()?;
    let mut left = ends(&consumer, topic)?;
    let mut from = TopicPartitionList::new();
    for partition in left.keys() {
        from.add_partition_offset(topic, *partition, Offset::Offset(0))?;
    }
    consumer.assign(&from)?;
    let (begun, mut records) = (Instant::now(), Vec::new());
    while !left.is_empty() {
        ensure!(begun.elapsed() < READ, "{} partitions of {topic} could not be read to their end", left.len());
        // A broker that went away for a moment is an error here, and the client reads on.
        let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let Some(end) = left.get(&record.partition()) else { continue };
        if record.offset() < *end {
            records.push(record.payload().unwrap_or_default().to_vec());
        }
        if record.offset() + 1 >= *end {
            left.remove(&record.partition());
        }
    }
    Ok(records)
}

/// Where each partition ends that holds anything.
fn ends(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<BTreeMap<i32, i64>> {
    let metadata = consumer.fetch_metadata(Some(topic), ASK).with_context(|| format!("ask about {topic}"))?;
    let partitions = metadata.topics().iter().find(|found| found.name() == topic).map_or(0, |t| t.partitions().len());
    ensure!(partitions > 0, "{topic} has no partitions");
    let mut ends = BTreeMap::new();
    for partition in 0..i32::try_from(partitions)? {
        let asked = consumer.fetch_watermarks(topic, partition, ASK);
        let (begin, end) = asked.with_context(|| format!("ask where partition {partition} of {topic} ends"))?;
        ensure!(begin == 0, "partition {partition} of {topic} begins at {begin}: what lay before is lost");
        if end > 0 {
            ends.insert(partition, end);
        }
    }
    Ok(ends)
}

/// `saga.v1.SagaResult`; none for a notice, which ends nothing, and for what the campaign has appended.
fn result(payload: &[u8]) -> anyhow::Result<Option<Announced>> {
    if payload == POISON {
        return Ok(None);
    }
    let message = Message::read(payload)?;
    ensure!(message.number(1) == 1, "it has format {}", message.number(1));
    let completed = match [4, 5, 7].map(|outcome| message.bytes(outcome).is_some()) {
        [true, false, false] => true,
        [false, true, false] => false,
        [false, false, true] => return Ok(None),
        found => bail!("it has no outcome, or several: {found:?}"),
    };
    let ordinal = message.message(3)?.context("it has no ordinal")?;
    let starter = ordinal.message(1)?.context("its ordinal has no starter")?;
    let store = starter.bytes(2).context("its starter has no store")?;
    let name = format!("{}@{}", starter.text(1)?, crate::audit::hex(store));
    let lane = u32::try_from(ordinal.number(2))?;
    let saga = message.bytes(2).context("it has no saga")?.try_into()?;
    Ok(Some(Announced { saga, ordinal: (name, lane, ordinal.number(3)), completed }))
}

/// Topic, partition and offset of a `saga.v1.Quarantined`.
fn place(payload: &[u8]) -> anyhow::Result<(String, u64, u64)> {
    let message = Message::read(payload)?;
    ensure!(message.number(1) == 1, "it has format {}", message.number(1));
    let topic = message.text(2)?;
    ensure!(!topic.is_empty(), "it names no topic");
    Ok((topic, message.number(3), message.number(4)))
}

#[cfg(test)]
mod tests {
    use proto::Wire as _;
    use saga_core::ids::{Lane, Ordinal, SagaId, Starter, TraceContext};
    use saga_core::record::{Refusal, ResultRecord, SagaOutcome, SagaResult, UndoCause, UndoNotice};
    use uuid::Uuid;

    use super::*;

    fn ordinal() -> Ordinal {
        let starter = Starter { name: "order".to_owned(), store: Uuid::from_u128(0x0a) };
        Ordinal { starter, lane: Lane(7), sequence: 9 }
    }

    fn ended(outcome: SagaOutcome) -> Vec<u8> {
        let saga = SagaId(Uuid::from_u128(3));
        let result = SagaResult { saga, ordinal: ordinal(), outcome, trace: TraceContext::default() };
        ResultRecord::Ended(result).encode().to_vec()
    }

    /// The readers share no code with the services, so they are held against what the services write.
    #[test]
    fn what_the_services_write_is_read() {
        let saga = *Uuid::from_u128(3).as_bytes();
        let name = format!("order@{}", crate::audit::hex(Uuid::from_u128(0x0a).as_bytes()));
        let announced = |completed| Some(Announced { saga, ordinal: (name.clone(), 7, 9), completed });
        assert_eq!(result(&ended(SagaOutcome::Completed)).unwrap(), announced(true));
        let refusal = Refusal { code: "no".to_owned(), reason: "because".to_owned() };
        let undone = SagaOutcome::Undone { cause: UndoCause::Refused, step: None, refusal };
        assert_eq!(result(&ended(undone)).unwrap(), announced(false));
        let notice =
            UndoNotice { saga: SagaId(Uuid::from_u128(3)), ordinal: ordinal(), trace: TraceContext::default() };
        assert_eq!(result(&ResultRecord::Undoing(notice).encode()).unwrap(), None);
        assert_eq!(result(POISON).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let whole = ended(SagaOutcome::Completed);
        let other_format = [&[0x08, 0x02], &whole[2..]].concat();
        for broken in [&whole[..whole.len() / 2], &other_format, b"", b"\xff\xff other"] {
            assert!(result(broken).is_err(), "{broken:?}");
        }
        assert!(place(b"").is_err() && place(&other_format).is_err());
    }
}
