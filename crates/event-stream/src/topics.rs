//! Topics as they must be: made where they are missing, checked at every start.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;

use crate::error::StreamError;
use crate::settings::KafkaSettings;

/// How long one question to the broker may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// New topics are known to every part of a broker a moment after they were made.
const VISIBLE_DEADLINE: Duration = Duration::from_secs(20);
/// Pause between two looks for new topics.
const VISIBLE_LOOK: Duration = Duration::from_millis(50);

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

/// Checks that the topics exist with the partition count, `cleanup.policy=delete` and the timestamp type.
pub async fn check_topics(settings: &KafkaSettings, topics: &[TopicSpec]) -> Result<(), StreamError> {
    let topics = topics.to_vec();
    with_admin(settings, move |admin, runtime| check(&admin, &topics, runtime)).await
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
    let topics = topics.to_vec();
    with_admin(settings, move |admin, runtime| {
        let bounds = (retention_bytes.to_string(), segment_bytes.to_string());
        let mut new = Vec::new();
        for topic in &topics {
            let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
            let mut wanted = NewTopic::new(&topic.name, partitions, TopicReplication::Fixed(i32::from(replication)))
                .set("cleanup.policy", "delete")
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
        check(&admin, &topics, runtime)
    })
    .await
}

/// Runs `work`, which blocks, with an admin client off the runtime.
async fn with_admin(
    settings: &KafkaSettings,
    work: impl FnOnce(Admin, &tokio::runtime::Handle) -> Result<(), StreamError> + Send + 'static,
) -> Result<(), StreamError> {
    let config = settings.admin();
    let runtime = tokio::runtime::Handle::current();
    let done = tokio::task::spawn_blocking(move || {
        let admin = config.create().map_err(|error| StreamError::kafka("make the admin client", error))?;
        work(admin, &runtime)
    });
    done.await.unwrap_or_else(|error| Err(StreamError::kafka("check the topics", error)))
}

fn check(admin: &Admin, topics: &[TopicSpec], runtime: &tokio::runtime::Handle) -> Result<(), StreamError> {
    let mut complaints = Vec::new();
    let mut present = Vec::new();
    for topic in topics {
        match partitions(admin, &topic.name)? {
            None => complaints.push(format!("{} does not exist", topic.name)),
            Some(count) if count != topic.partitions as usize => {
                complaints.push(format!("{} has {count} partitions, not {}", topic.name, topic.partitions));
            }
            Some(_) => present.push(topic),
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
            complaints.extend(complaints_about(topic, &config));
        }
    }
    if complaints.is_empty() { Ok(()) } else { Err(StreamError::Topics(complaints)) }
}

fn complaints_about(topic: &TopicSpec, config: &ConfigResource) -> Vec<String> {
    let values: HashMap<&str, Option<&str>> =
        config.entries.iter().map(|entry| (entry.name.as_str(), entry.value.as_deref())).collect();
    let mut wanted = vec![("cleanup.policy", "delete")];
    if topic.log_append_time {
        wanted.push(("message.timestamp.type", "LogAppendTime"));
    }
    let differing = wanted.into_iter().filter_map(|(name, wanted)| {
        let found = values.get(name).copied().flatten().unwrap_or_default();
        (found != wanted).then(|| format!("{} has {name}={found}, not {wanted}", topic.name))
    });
    differing.collect()
}

/// How many partitions the topic has; `None` when it does not exist.
fn partitions(admin: &Admin, topic: &str) -> Result<Option<usize>, StreamError> {
    let metadata = admin
        .inner()
        .fetch_metadata(Some(topic), ANSWER_DEADLINE)
        .map_err(|error| StreamError::kafka("read the topics' partitions", error))?;
    let Some(found) = metadata.topics().first() else { return Ok(None) };
    match found.error() {
        None => Ok(Some(found.partitions().len())),
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Ok(None),
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
