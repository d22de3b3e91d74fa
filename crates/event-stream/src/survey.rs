//! Reading a whole topic once, outside any group: for people who look, not for services that work.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};
use saga_core::ids::Lane;

use crate::error::StreamError;
use crate::record::Record;
use crate::settings::KafkaSettings;

/// How long one look for the next record may take; it bounds how late the deadline is noticed.
const POLL_TIME: Duration = Duration::from_millis(200);

/// What lies in a topic.
#[derive(Debug, Default)]
pub struct Survey {
    /// The records with their lanes; those of a lane in order.
    pub records: Vec<(Lane, Record)>,
    /// Whether the reading ended at `most` records, before the ends of the lanes.
    pub is_cut: bool,
}

/// Reads up to `most` records of all lanes from their beginnings to their ends. Joins no group and commits nothing.
pub async fn survey(
    settings: &KafkaSettings,
    topic: &str,
    most: usize,
    deadline: Duration,
) -> Result<Survey, StreamError> {
    let (settings, topic) = (settings.clone(), topic.to_owned());
    let read = tokio::task::spawn_blocking(move || read(&settings, &topic, most, deadline));
    read.await.map_err(|error| StreamError::kafka("read a topic", error))?
}

fn read(settings: &KafkaSettings, topic: &str, most: usize, deadline: Duration) -> Result<Survey, StreamError> {
    let end = Instant::now() + deadline;
    let client = |error: KafkaError| StreamError::kafka("read a topic", error);
    let consumer: BaseConsumer = settings.fetcher("survey").create().map_err(client)?;
    let metadata = consumer.fetch_metadata(Some(topic), deadline).map_err(client)?;
    let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id());
    let mut open: BTreeSet<i32> = partitions.collect();
    if open.is_empty() {
        return Err(StreamError::kafka("read a topic", format!("there is no topic {topic}")));
    }
    let mut list = TopicPartitionList::new();
    for partition in &open {
        list.add_partition_offset(topic, *partition, Offset::Beginning).map_err(client)?;
    }
    consumer.assign(&list).map_err(client)?;
    let mut survey = Survey::default();
    while !open.is_empty() {
        match consumer.poll(POLL_TIME) {
            Some(Ok(message)) => {
                let Ok(lane) = u32::try_from(message.partition()) else { continue };
                survey.records.push((Lane(lane), Record::read(&message)));
                if survey.records.len() == most {
                    survey.is_cut = true;
                    return Ok(survey);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) => tracing::debug!(%error, topic, "survey"),
            None => {}
        }
        if Instant::now() > end {
            let missing = open.len();
            return Err(StreamError::kafka(
                "read a topic",
                format!("{missing} lanes of {topic} were not read in time"),
            ));
        }
    }
    Ok(survey)
}
