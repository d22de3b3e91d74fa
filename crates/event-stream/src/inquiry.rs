//! Questions to the broker about lanes: bounds of the log, offsets committed by the group. One call for many lanes, off
//! the runtime, through the group member's connection.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use saga_core::ids::Lane;
use tokio::sync::oneshot;

use crate::error::{HaltReason, LaneFault, StreamError};
use crate::member::MemberContext;
use crate::patience::patiently;
use crate::settings::KafkaSettings;
use crate::topic_id::topic_id;

/// How long one question may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// Lanes that start together ask together: the first waits this long for the others.
const COLLECT_TIME: Duration = Duration::from_millis(5);

type Member = BaseConsumer<MemberContext>;
type Asker = oneshot::Sender<Result<i64, LaneFault>>;

/// Asks through whichever consumer is the group member at the time.
pub(crate) struct Inquiry {
    topic: Arc<str>,
    member: Mutex<Weak<Member>>,
    new_lanes: Mutex<BTreeMap<Lane, Asker>>,
}

impl Inquiry {
    pub(crate) fn new(topic: Arc<str>) -> Self {
        Self { topic, member: Mutex::default(), new_lanes: Mutex::default() }
    }

    pub(crate) fn set_member(&self, member: &Arc<Member>) {
        *self.member.lock().expect("nothing panics while it holds the member") = Arc::downgrade(member);
    }

    /// Where a lane without a stored position starts: at 0, if nobody has ever worked on it; else it halts.
    pub(crate) async fn start_of_new_lane(self: &Arc<Self>, lane: Lane) -> Result<i64, LaneFault> {
        let (asker, answer) = oneshot::channel();
        let first = {
            let mut waiting = self.new_lanes.lock().expect("nothing panics while it holds the waiting lanes");
            waiting.insert(lane, asker);
            waiting.len() == 1
        };
        if first {
            let inquiry = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(COLLECT_TIME).await;
                inquiry.answer_new_lanes().await;
            });
        }
        answer.await.unwrap_or_else(|_| Err(LaneFault::Restart("the question about a new lane was dropped".into())))
    }

    /// First offset and end of the log of each lane.
    pub(crate) async fn bounds(self: &Arc<Self>, lanes: Vec<Lane>) -> Result<BTreeMap<Lane, (i64, i64)>, StreamError> {
        self.ask("read the bounds of the log", move |member, topic| {
            let low = log_offsets(member, topic, &lanes, Offset::Beginning)?;
            let high = log_offsets(member, topic, &lanes, Offset::End)?;
            Ok(low.into_iter().filter_map(|(lane, low)| Some((lane, (low, *high.get(&lane)?)))).collect())
        })
        .await
    }

    /// The end of the log of each lane.
    pub(crate) async fn ends(self: &Arc<Self>, lanes: Vec<Lane>) -> Result<BTreeMap<Lane, i64>, StreamError> {
        self.ask("read the ends of the log", move |member, topic| log_offsets(member, topic, &lanes, Offset::End)).await
    }

    /// The id of the topic as it is now.
    pub(crate) async fn topic_id(self: &Arc<Self>) -> Result<Option<String>, StreamError> {
        self.ask("read the topic's id", move |member, topic| topic_id(member.client(), topic, ANSWER_DEADLINE)).await
    }

    async fn answer_new_lanes(self: &Arc<Self>) {
        let askers =
            std::mem::take(&mut *self.new_lanes.lock().expect("nothing panics while it holds the waiting lanes"));
        let lanes: Vec<Lane> = askers.keys().copied().collect();
        let found = self
            .ask("look for a trace of new lanes", move |member, topic| {
                let committed = member.committed_offsets(list(topic, &lanes, Offset::Invalid), ANSWER_DEADLINE)?;
                Ok((offsets(&committed)?, log_offsets(member, topic, &lanes, Offset::Beginning)?))
            })
            .await;
        for (lane, asker) in askers {
            let answer = match &found {
                Ok((committed, low)) => judge_new_lane(committed.get(&lane).copied(), low.get(&lane).copied()),
                Err(error) => Err(LaneFault::Restart(error.to_string())),
            };
            // A lane that was revoked meanwhile does not listen any more.
            let _ = asker.send(answer);
        }
    }

    async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        operation: &'static str,
        question: impl FnOnce(&Member, &str) -> KafkaResult<T> + Send + 'static,
    ) -> Result<T, StreamError> {
        let inquiry = Arc::clone(self);
        let asked = tokio::task::spawn_blocking(move || {
            let member = inquiry.member.lock().expect("nothing panics while it holds the member").upgrade();
            match member {
                Some(member) => question(&member, &inquiry.topic).map_err(|error| StreamError::kafka(operation, error)),
                None => Err(StreamError::kafka(operation, "the process is no group member now")),
            }
        });
        asked.await.unwrap_or_else(|error| Err(StreamError::kafka(operation, error)))
    }
}

/// Refuses a new store if the group has committed positions of the topic: it has lost its data, and everything that it
/// would answer from there on would be false. Another replica may begin the group's past just now: ask whether the store
/// is still new before you believe the refusal. A store gets its id before anything is committed.
///
/// # Errors
/// [`StreamError::StoreLost`]; a broker that does not answer for 90 s (on a new cluster the group's coordinator is made
/// meanwhile).
pub async fn check_past(
    settings: &KafkaSettings,
    group: &str,
    topic: &str,
    partitions: u32,
) -> Result<(), StreamError> {
    let (config, brokers, asked) = (settings.fetcher(group), settings.brokers.clone(), topic.to_owned());
    let ask = move || -> KafkaResult<BTreeMap<Lane, i64>> {
        let consumer: BaseConsumer = config.create()?;
        let lanes: Vec<Lane> = (0..partitions).map(Lane).collect();
        let ask = || consumer.committed_offsets(list(&asked, &lanes, Offset::Invalid), ANSWER_DEADLINE);
        patiently(&brokers, |_| true, || ask().and_then(|committed| offsets(&committed)))
    };
    let operation = "ask what the group has committed";
    let asked = tokio::task::spawn_blocking(ask).await.map_err(|error| StreamError::kafka(operation, error))?;
    let committed = asked.map_err(|error| StreamError::kafka(operation, error))?;
    match committed.into_iter().find(|(_, offset)| *offset != 0) {
        None => Ok(()),
        Some((lane, offset)) => {
            let (group, topic, lane) = (group.to_owned(), topic.to_owned(), lane.0);
            Err(StreamError::StoreLost { group, topic, lane, offset })
        }
    }
}

/// Whether a lane without a stored position may begin at 0: only if its log begins there and its group has committed
/// nothing.
///
/// # Errors
/// Halts the lane if somebody has worked on it before; a restart if the broker did not tell.
pub fn judge_new_lane(committed: Option<i64>, low: Option<i64>) -> Result<i64, LaneFault> {
    // A committed 0 only says that somebody owned the lane and had nothing to read.
    match (committed.filter(|offset| *offset != 0), low) {
        (Some(offset), _) => {
            Err(HaltReason::MissingPosition(format!("the group has committed offset {offset}")).into())
        }
        (None, Some(0)) => Ok(0),
        (None, Some(low)) => Err(HaltReason::MissingPosition(format!("the log starts at {low}")).into()),
        (None, None) => Err(LaneFault::Restart("the broker did not tell where the log starts".into())),
    }
}

/// Asks for times with the two names that ListOffsets knows for the ends of a log: one request for all lanes, where
/// `fetch_watermarks` takes two for each.
fn log_offsets(member: &Member, topic: &str, lanes: &[Lane], end: Offset) -> KafkaResult<BTreeMap<Lane, i64>> {
    offsets(&member.offsets_for_times(list(topic, lanes, end), ANSWER_DEADLINE)?)
}

fn list(topic: &str, lanes: &[Lane], offset: Offset) -> TopicPartitionList {
    lanes.iter().map(|lane| (topic.to_owned(), lane.0.cast_signed(), offset)).collect()
}

/// The lanes that have an offset.
fn offsets(list: &TopicPartitionList) -> KafkaResult<BTreeMap<Lane, i64>> {
    let mut found = BTreeMap::new();
    for element in list.elements() {
        element.error()?;
        if let (Offset::Offset(offset), Ok(lane)) = (element.offset(), u32::try_from(element.partition())) {
            found.insert(Lane(lane), offset);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_untouched_lane_starts_without_a_position() {
        assert!(matches!(judge_new_lane(None, Some(0)), Ok(0)));
        assert!(matches!(judge_new_lane(Some(0), Some(0)), Ok(0)));
        let traces =
            [judge_new_lane(Some(0), Some(1)), judge_new_lane(Some(7), Some(0)), judge_new_lane(None, Some(3))];
        for trace in traces {
            assert!(matches!(trace, Err(LaneFault::Halt(HaltReason::MissingPosition(_)))));
        }
        assert!(matches!(judge_new_lane(None, None), Err(LaneFault::Restart(_))));
    }
}
