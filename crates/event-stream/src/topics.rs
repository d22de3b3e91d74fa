//! Topics as they must be: made where they are missing, checked at every start.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::{Client, ClientContext, DefaultClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;

use crate::error::StreamError;
use crate::patience::patiently;
use crate::settings::KafkaSettings;

/// How long one question to the broker may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// New topics are known to every part of a broker a moment after they were made.
const VISIBLE_DEADLINE: Duration = Duration::from_secs(20);
/// A broker that lags behind the others does not know a new topic, or its settings, for a moment.
const LAG_DEADLINE: Duration = Duration::from_secs(5);
/// Pause between two looks for new topics.
const VISIBLE_LOOK: Duration = Duration::from_millis(50);

/// Longest name of a topic.
const MAX_NAME_BYTES: usize = 249;

/// A broker that is there answers within this; one that starts does not, and is asked again.
const METADATA_DEADLINE: Duration = Duration::from_secs(3);

type Admin = AdminClient<DefaultClientContext>;

/// A topic as it must be.
#[derive(Clone, Debug)]
pub struct TopicSpec {
    /// Name.
    pub name: String,
    /// Partitions (lanes).
    pub partitions: u32,
    /// Whether `message.timestamp.type=LogAppendTime` is required.
    pub log_append_time: bool,
}

/// How new topics are stored. What exists must have the same number of copies; how much of it is kept may differ.
#[derive(Clone, Debug)]
pub struct TopicStorage {
    /// Copies of every partition, each on a broker of its own.
    pub replication: u16,
    /// Copies that must have a record before it counts as written.
    pub min_insync: u16,
    /// Bytes that a partition keeps at most (and a segment more).
    pub retention_bytes: u64,
    /// Bytes of a segment; Kafka deletes whole segments only.
    pub segment_bytes: u64,
}

/// Checks that the topics exist with the partition count, `cleanup.policy=delete` and the timestamp type. Who starts asks this:
/// it is asked again for up to 90 s, until a broker answers.
pub async fn check_topics(settings: &KafkaSettings, topics: &[TopicSpec]) -> Result<(), StreamError> {
    let (brokers, topics) = (settings.brokers.clone(), topics.to_vec());
    let is_away = |error: &StreamError| !matches!(error, StreamError::Topics(_));
    let ask = move |admin: Admin, runtime: &tokio::runtime::Handle| {
        patiently(&brokers, is_away, || check(&admin, &topics, None, runtime))
    };
    with_admin(settings, ask).await
}

/// The id that the cluster has given the topic, which a topic that is made anew does not keep; `None` from a broker that
/// gives none. Who starts asks this: it is asked again for up to 90 s, until a broker answers.
pub async fn topic_id(settings: &KafkaSettings, topic: &str) -> Result<Option<String>, StreamError> {
    let (brokers, topic) = (settings.brokers.clone(), topic.to_owned());
    let ask = move |admin: Admin, _: &tokio::runtime::Handle| {
        let id = patiently(&brokers, |_| true, || crate::topic_id::topic_id(admin.inner(), &topic, ANSWER_DEADLINE));
        id.map_err(|error| StreamError::kafka("read the topic's id", error))
    };
    with_admin(settings, ask).await
}

/// Waits until this many brokers have joined the cluster and says how many there are.
pub async fn wait_for_brokers(settings: &KafkaSettings, count: u16, deadline: Duration) -> Result<u16, StreamError> {
    with_admin(settings, move |admin, _| {
        let end = std::time::Instant::now() + deadline;
        loop {
            let found = admin.inner().fetch_metadata(None, METADATA_DEADLINE);
            let brokers = found.as_ref().map_or(0, |metadata| metadata.brokers().len());
            if brokers >= usize::from(count) && brokers > 0 {
                return Ok(u16::try_from(brokers).unwrap_or(u16::MAX));
            }
            if std::time::Instant::now() >= end {
                let operation = "wait for the brokers";
                return Err(match found {
                    Ok(_) => StreamError::kafka(operation, format!("{brokers} of {count} are there")),
                    Err(error) => StreamError::kafka(operation, error),
                });
            }
            if let Err(error) = found {
                tracing::warn!(%error, "no broker answers yet");
            }
            std::thread::sleep(VISIBLE_LOOK);
        }
    })
    .await
}

/// Makes the topics that are missing (retention bounded by `retention_bytes` and `segment_bytes` per partition),
/// then checks all of them.
pub async fn make_topics(
    settings: &KafkaSettings,
    topics: &[TopicSpec],
    replication: u16,
    retention_bytes: u64,
    segment_bytes: u64,
) -> Result<(), StreamError> {
    let storage = TopicStorage { replication, min_insync: 1, retention_bytes, segment_bytes };
    ensure_topics(settings, topics, storage).await
}

/// Makes the topics that are missing and checks all of them, the number of their copies too.
pub async fn ensure_topics(
    settings: &KafkaSettings,
    topics: &[TopicSpec],
    storage: TopicStorage,
) -> Result<(), StreamError> {
    let topics = topics.to_vec();
    with_admin(settings, move |admin, runtime| {
        let bounds = (storage.retention_bytes.to_string(), storage.segment_bytes.to_string());
        let min_insync = storage.min_insync.to_string();
        let mut new = Vec::new();
        for topic in &topics {
            let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
            let mut wanted =
                NewTopic::new(&topic.name, partitions, TopicReplication::Fixed(i32::from(storage.replication)))
                    .set("cleanup.policy", "delete")
                    .set("min.insync.replicas", &min_insync)
                    // By size, not by time: a stack that was stopped a week ago still finds its records.
                    .set("retention.ms", "-1")
                    .set("retention.bytes", &bounds.0)
                    .set("segment.bytes", &bounds.1);
            if topic.log_append_time {
                wanted = wanted.set("message.timestamp.type", "LogAppendTime");
            }
            new.push(wanted);
        }
        let made = runtime
            .block_on(admin.create_topics(&new, &AdminOptions::new().operation_timeout(Some(ANSWER_DEADLINE))))
            .map_err(|error| StreamError::kafka("make the topics", error))?;
        for outcome in made {
            match outcome {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    return Err(StreamError::kafka("make the topics", format!("{topic}: {code}")));
                }
            }
        }
        wait_until_visible(&admin, &topics);
        check(&admin, &topics, Some(&storage), runtime)
    })
    .await
}

/// Runs `work`, which blocks, with an admin client off the runtime.
async fn with_admin<T: Send + 'static>(
    settings: &KafkaSettings,
    work: impl FnOnce(Admin, &tokio::runtime::Handle) -> Result<T, StreamError> + Send + 'static,
) -> Result<T, StreamError> {
    let config = settings.admin();
    let runtime = tokio::runtime::Handle::current();
    let done = tokio::task::spawn_blocking(move || {
        let admin = config.create().map_err(|error| StreamError::kafka("make the admin client", error))?;
        work(admin, &runtime)
    });
    done.await.unwrap_or_else(|error| Err(StreamError::kafka("check the topics", error)))
}

/// With `storage` the number of copies is checked too.
fn check(
    admin: &Admin,
    topics: &[TopicSpec],
    storage: Option<&TopicStorage>,
    runtime: &tokio::runtime::Handle,
) -> Result<(), StreamError> {
    let end = std::time::Instant::now() + LAG_DEADLINE;
    loop {
        let Look { complaints, unknown } = look(admin, topics, storage, runtime)?;
        if complaints.is_empty() {
            return Ok(());
        }
        if !unknown || std::time::Instant::now() >= end {
            return Err(StreamError::Topics(complaints));
        }
        std::thread::sleep(VISIBLE_LOOK);
    }
}

/// What one look at the topics found.
struct Look {
    complaints: Vec<String>,
    /// Whether the broker that was asked did not know one of them.
    unknown: bool,
}

fn look(
    admin: &Admin,
    topics: &[TopicSpec],
    storage: Option<&TopicStorage>,
    runtime: &tokio::runtime::Handle,
) -> Result<Look, StreamError> {
    let mut complaints = Vec::new();
    let mut present = Vec::new();
    let mut unknown = false;
    for topic in topics {
        match found(admin.inner(), &topic.name, ANSWER_DEADLINE)? {
            None => {
                unknown = true;
                complaints.push(format!("{} does not exist", topic.name));
            }
            Some(found) if found.partitions != topic.partitions as usize => {
                let (name, wanted) = (&topic.name, topic.partitions);
                complaints.push(format!("{name} has {} partitions, not {wanted}", found.partitions));
            }
            Some(found) => {
                if let Some(wanted) = storage.map(|storage| usize::from(storage.replication))
                    && found.copies != wanted
                {
                    complaints.push(format!("{} is kept on {} brokers, not {wanted}", topic.name, found.copies));
                }
                present.push(topic);
            }
        }
    }
    let resources: Vec<_> = present.iter().map(|topic| ResourceSpecifier::Topic(&topic.name)).collect();
    if !resources.is_empty() {
        let options = AdminOptions::new().request_timeout(Some(ANSWER_DEADLINE));
        let described = runtime
            .block_on(admin.describe_configs(&resources, &options))
            .map_err(|error| StreamError::kafka("read the topics' settings", error))?;
        for (topic, config) in present.iter().zip(described) {
            let config = config.map_err(|code| StreamError::kafka("read the topics' settings", code))?;
            // rdkafka drops the reason why a topic has none.
            if config.entries.is_empty() {
                unknown = true;
                let reason = "it does not know the topic, or DescribeConfigs is not allowed";
                complaints.push(format!("a broker told no settings of {}: {reason}", topic.name));
                continue;
            }
            complaints.extend(complaints_about(topic, storage, &config));
        }
    }
    Ok(Look { complaints, unknown })
}

fn complaints_about(topic: &TopicSpec, storage: Option<&TopicStorage>, config: &ConfigResource) -> Vec<String> {
    let values: HashMap<&str, Option<&str>> =
        config.entries.iter().map(|entry| (entry.name.as_str(), entry.value.as_deref())).collect();
    let mut wanted = vec![("cleanup.policy", "delete".to_owned())];
    if topic.log_append_time {
        wanted.push(("message.timestamp.type", "LogAppendTime".to_owned()));
    }
    wanted.extend(storage.map(|storage| ("min.insync.replicas", storage.min_insync.to_string())));
    let differing = wanted.into_iter().filter_map(|(name, wanted)| {
        let found = values.get(name).copied().flatten().unwrap_or_default();
        (found != wanted).then(|| format!("{} has {name}={found}, not {wanted}", topic.name))
    });
    differing.collect()
}

/// A topic as it is.
pub(crate) struct Found {
    pub(crate) partitions: usize,
    /// Fewest copies of a partition.
    copies: usize,
}

/// Whether a topic may be called so.
pub(crate) fn is_legal_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(legal) && name != "." && name != ".."
}

/// `None` when the topic does not exist.
pub(crate) fn found<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    deadline: Duration,
) -> Result<Option<Found>, StreamError> {
    let metadata = client
        .fetch_metadata(Some(topic), deadline)
        .map_err(|error| StreamError::kafka("read the topics' partitions", error))?;
    let Some(found) = metadata.topics().first() else { return Ok(None) };
    match found.error() {
        None => {
            let copies = found.partitions().iter().map(|partition| partition.replicas().len()).min();
            Ok(Some(Found { partitions: found.partitions().len(), copies: copies.unwrap_or(0) }))
        }
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Ok(None),
        Some(
            error @ (RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION),
        ) => Err(StreamError::Topics(vec![format!("{topic}: {}", RDKafkaErrorCode::from(error))])),
        Some(error) => Err(StreamError::kafka("read the topics' partitions", RDKafkaErrorCode::from(error))),
    }
}

fn wait_until_visible(admin: &Admin, topics: &[TopicSpec]) {
    let end = std::time::Instant::now() + VISIBLE_DEADLINE;
    let visible = |topic: &TopicSpec| {
        let Ok(metadata) = admin.inner().fetch_metadata(Some(&topic.name), ANSWER_DEADLINE) else { return false };
        let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
        !partitions.is_empty() && partitions.iter().all(|partition| partition.leader() >= 0)
    };
    while !topics.iter().all(visible) && std::time::Instant::now() < end {
        std::thread::sleep(VISIBLE_LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::is_legal_name;

    #[test]
    fn names_that_no_topic_can_have() {
        for name in ["saga.inbox", "a", "A_b-9.results", &"x".repeat(249)] {
            assert!(is_legal_name(name), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "käse", "nul\0", &"x".repeat(250)] {
            assert!(!is_legal_name(name), "{name}");
        }
    }
}
