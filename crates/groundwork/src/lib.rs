//! What a service of lanes stands on: a store that is its own and forgets nothing, topics as they must be, and where its
//! lanes' positions belong. All of it is there and right, or the service does not begin.
//!
//! Deliberately not in it: what a service does with them, its ports, and its membership in the group.

use anyhow::Context as _;
use event_stream::{Ground, KafkaSettings, StreamError, TopicSpec, check_past, check_topics, topic_id};
use redis_txn::{CheckError, RedisArgs, Store};
use service_kit::process::BadConfiguration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What must be there.
#[derive(Clone, Debug)]
pub struct Needs<'a> {
    /// What the service is called; also its group, and the owner of its store.
    pub service: &'a str,
    /// This replica.
    pub instance: &'a str,
    /// Its store.
    pub redis: &'a RedisArgs,
    /// Its brokers.
    pub kafka: &'a KafkaSettings,
    /// All topics that it reads or writes.
    pub topics: &'a [TopicSpec],
    /// The one of them whose lanes it owns.
    pub lanes: &'a TopicSpec,
}

/// What is there.
pub struct Groundwork {
    /// The store.
    pub store: Store,
    /// The id of its data set.
    pub store_id: Uuid,
    /// The topic that the lanes' positions belong to: the one that they began with.
    pub ground: Ground,
}

/// Asks for all of it, each question for up to 90 s if nobody answers. `None`: `shutdown` was cancelled meanwhile, and there is
/// nothing to drain.
///
/// # Errors
/// [`BadConfiguration`] for what only a person can change; a store or a broker that does not answer; a store that was lost.
pub async fn lay(needs: Needs<'_>, shutdown: &CancellationToken) -> anyhow::Result<Option<Groundwork>> {
    shutdown.run_until_cancelled(needs.met()).await.transpose()
}

impl Needs<'_> {
    async fn met(self) -> anyhow::Result<Groundwork> {
        let Self { service, lanes, kafka, .. } = self;
        kafka.check().map_err(refused)?;
        let store = Store::connect(self.redis.settings(service, self.instance)?).await.context("connect to Redis")?;
        store.check(self.redis.allow_unsafe_fsync).await.map_err(unusable)?;
        check_topics(kafka, self.topics).await.map_err(refused).context("check the topics")?;
        if store.is_new().await? {
            let past = check_past(kafka, service, &lanes.name, lanes.partitions).await;
            if store.is_new().await? {
                past?;
            }
        }
        // The last question to Kafka: a service that does not start claims nothing.
        let topic_id = topic_id(kafka, &lanes.name).await?;
        let store_id = store.claim(service).await.map_err(unusable)?;
        let ground = ground(&store, lanes, topic_id).await?;
        Ok(Groundwork { store, store_id, ground })
    }
}

async fn ground(store: &Store, lanes: &TopicSpec, topic_id: Option<String>) -> anyhow::Result<Ground> {
    let Some(id) = topic_id else { return Ok(Ground::new(lanes.partitions, None)) };
    let known = store.remember(&Ground::key(&lanes.name), &id).await;
    let known = known.with_context(|| format!("read which {} the positions belong to", lanes.name))?;
    Ok(Ground::new(lanes.partitions, Some(&known)))
}

fn refused(error: StreamError) -> anyhow::Error {
    match error {
        StreamError::Topics(_) | StreamError::Settings(_) => BadConfiguration(error.to_string()).into(),
        error => error.into(),
    }
}

fn unusable(error: CheckError) -> anyhow::Error {
    match error {
        CheckError::Unsafe(_) => BadConfiguration(error.to_string()).into(),
        CheckError::Store(_) => anyhow::Error::new(error).context("check Redis"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Settings {
        #[command(flatten)]
        redis: RedisArgs,
    }

    /// It would wait for 90 s.
    #[tokio::test]
    async fn who_is_to_end_does_not_wait_for_a_store_that_is_away() {
        let settings = Settings::try_parse_from(["service", "--redis", "127.0.0.1:1"]).unwrap();
        let lanes = TopicSpec { name: "lanes".to_owned(), partitions: 1, log_append_time: false };
        let kafka = KafkaSettings::new("127.0.0.1:1", "test");
        let needs = Needs {
            service: "test",
            instance: "",
            redis: &settings.redis,
            kafka: &kafka,
            topics: std::slice::from_ref(&lanes),
            lanes: &lanes,
        };
        let shutdown = CancellationToken::new();
        let (laid, ()) = tokio::join!(lay(needs, &shutdown), async { shutdown.cancel() });
        assert!(laid.unwrap().is_none());
    }

    #[test]
    fn what_a_person_must_change_is_bad_configuration_and_silence_is_not() {
        let is_configuration = |error| refused(error).downcast_ref::<BadConfiguration>().is_some();
        let silence = StreamError::Kafka { operation: "ask", cause: "nobody answers".to_owned() };
        assert!(!is_configuration(silence));
        assert!(is_configuration(StreamError::Topics(vec!["lanes does not exist".to_owned()])));
        assert!(is_configuration(StreamError::Settings("too many".to_owned())));
    }
}
