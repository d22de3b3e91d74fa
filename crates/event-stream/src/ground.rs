//! What a consumer stands on: the topic that its stored positions belong to. Another topic of the same name, or
//! partitions that nobody has planned for, halt lanes instead of being taken for the old ones.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use saga_core::ids::Lane;

use crate::error::{HaltReason, StreamError};
use crate::inquiry::Inquiry;

/// Pause before a broker that has not answered is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// The topic as the owner of the positions knows it. Cheap to clone; clones see the same.
#[derive(Clone, Debug)]
pub struct Ground {
    partitions: Option<u32>,
    id: Option<Arc<str>>,
    changed: Arc<Mutex<Option<HaltReason>>>,
    /// The last assignment of lanes for which the id has been looked at.
    verified: Arc<tokio::sync::Mutex<u64>>,
}

impl Ground {
    /// Where a service keeps the id of the topic that its positions belong to.
    pub fn key(topic: &str) -> String {
        format!("topic:{topic}")
    }

    /// Anything goes: for consumers that store no positions.
    pub fn unchecked() -> Self {
        Self { partitions: None, id: None, changed: Arc::default(), verified: Arc::default() }
    }

    /// The settings say `partitions`, and the positions belong to the topic with this id (`None`: the brokers give none).
    pub fn new(partitions: u32, id: Option<&str>) -> Self {
        let id = id.map(Into::into);
        Self { partitions: Some(partitions), id, changed: Arc::default(), verified: Arc::default() }
    }

    /// Looks at the topic's id once for each assignment of lanes (they are counted from 1), however many lanes it has.
    /// Does not return before a broker has answered.
    pub(crate) async fn verify(&self, inquiry: &Arc<Inquiry>, topic: &str, assignment: u64) {
        let mut verified = self.verified.lock().await;
        while self.is_checked() && *verified < assignment {
            match self.look(inquiry, topic).await {
                Ok(_) => *verified = assignment,
                Err(error) => {
                    tracing::debug!(topic, %error, "the topic's id is not known yet");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Asks a broker whether the topic is still the one that the positions belong to. Says why all its lanes must halt,
    /// if they must: once they must, they always must.
    pub(crate) async fn look(&self, inquiry: &Arc<Inquiry>, topic: &str) -> Result<Option<HaltReason>, StreamError> {
        if !self.is_checked() {
            return Ok(self.changed());
        }
        Ok(self.found(topic, inquiry.topic_id().await?.as_deref()))
    }

    /// Whether the topic's id should be looked at.
    fn is_checked(&self) -> bool {
        self.id.is_some() && self.changed().is_none()
    }

    /// Why all lanes must halt, if somebody has found that they must.
    pub(crate) fn changed(&self) -> Option<HaltReason> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn found(&self, topic: &str, id: Option<&str>) -> Option<HaltReason> {
        let (known, found) = (self.id.as_deref()?, id?);
        if known == found {
            return None;
        }
        let reason = HaltReason::TopicChanged(format!("{topic} was made anew: its id is {found}, not {known}"));
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.clone());
        Some(reason)
    }

    /// Why this lane must not be worked on.
    pub(crate) fn refuses(&self, topic: &str, lane: Lane) -> Option<HaltReason> {
        if let Some(reason) = self.changed() {
            return Some(reason);
        }
        let partitions = self.partitions.filter(|partitions| lane.0 >= *partitions)?;
        Some(HaltReason::TopicChanged(format!("{topic} has more partitions than the {partitions} of the settings")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_id_halts_all_lanes_and_more_partitions_the_new_ones() {
        let ground = Ground::new(4, Some("a"));
        assert_eq!(ground.refuses("t", Lane(3)), None);
        assert!(matches!(ground.refuses("t", Lane(4)), Some(HaltReason::TopicChanged(_))));
        assert_eq!(ground.found("t", Some("a")), None);
        assert_eq!(ground.found("t", None), None, "a broker that does not tell proves nothing");
        assert!(ground.is_checked() && ground.found("t", Some("b")).is_some());
        assert!(!ground.is_checked() && ground.clone().refuses("t", Lane(0)).is_some());
    }

    #[test]
    fn without_knowledge_nothing_is_refused() {
        assert_eq!(Ground::unchecked().refuses("t", Lane(1_000)), None);
        let without_ids = Ground::new(4, None);
        assert!(!without_ids.is_checked());
        assert_eq!((without_ids.found("t", Some("b")), without_ids.refuses("t", Lane(0))), (None, None));
    }
}
