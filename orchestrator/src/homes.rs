//! Whether the topics that starters want their results in are there. Their names come with the starts: one that names no
//! topic must not keep a lane from sending anything else.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use event_stream::{Lane, Publisher, StreamError};

/// A topic that was missing may be there after this time; until then nobody is asked again.
const MISSING_FOR: Duration = Duration::from_secs(10);
/// How long a topic is looked for at first: a broker that lags behind the others does not know a new one for a while. One
/// that is known to be missing gets one look each time, so that it costs the lanes little.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// Missing names after which no further one is waited for: somebody makes names up.
const MAX_WAITED_FOR: usize = 4;
/// Names that are remembered; starts name few.
const MAX_NAMES: usize = 256;

/// What this process knows of results topics.
#[derive(Debug, Default)]
pub struct Homes {
    known: Mutex<BTreeMap<String, Known>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// 0 for a topic that is not there.
    partitions: u32,
    since: Instant,
}

impl Homes {
    /// Why the lane cannot send to this topic; `None` if it can.
    ///
    /// # Errors
    /// No broker has answered.
    pub async fn refusal(&self, publisher: &Publisher, topic: &str, lane: Lane) -> Result<Option<String>, StreamError> {
        let partitions = match self.recall(topic, lane, Instant::now()) {
            Some(partitions) => partitions,
            None => {
                let found = look(publisher, topic, lane, self.patience(topic)).await?;
                self.remember(topic, found, Instant::now())
            }
        };
        Ok(match partitions {
            0 => Some(format!("there is no topic {topic:?}, which its starter's name asks for")),
            partitions if partitions <= lane.0 => Some(format!("topic {topic} has {partitions} partitions only")),
            _ => None,
        })
    }

    /// A topic that is there stays there, and never has fewer partitions.
    fn recall(&self, topic: &str, lane: Lane, now: Instant) -> Option<u32> {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner).get(topic)?;
        (known.partitions > lane.0 || now < known.since + MISSING_FOR).then_some(known.partitions)
    }

    fn patience(&self, topic: &str) -> Duration {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = known.values().filter(|known| known.partitions == 0).count();
        let is_waited_for = !known.contains_key(topic) && missing < MAX_WAITED_FOR;
        if is_waited_for { FIRST_LOOK } else { Duration::ZERO }
    }

    /// What is known then: a broker that lags may answer less than another one has answered before.
    fn remember(&self, topic: &str, partitions: u32, since: Instant) -> u32 {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_NAMES && !known.contains_key(topic) {
            known.clear();
        }
        let known = known.entry(topic.to_owned()).or_insert(Known { partitions, since });
        *known = Known { partitions: partitions.max(known.partitions), since };
        known.partitions
    }
}

async fn look(publisher: &Publisher, topic: &str, lane: Lane, patience: Duration) -> Result<u32, StreamError> {
    let end = Instant::now() + patience;
    loop {
        let partitions = publisher.partitions(topic).await?.unwrap_or(0);
        if partitions > lane.0 || Instant::now() >= end {
            return Ok(partitions);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_asked_for_again_after_a_while() {
        let (homes, now) = (Homes::default(), Instant::now());
        assert_eq!((homes.recall("a", Lane(0), now), homes.patience("a")), (None, FIRST_LOOK));
        homes.remember("a", 0, now);
        assert_eq!(homes.recall("a", Lane(0), now), Some(0));
        assert_eq!((homes.recall("a", Lane(0), now + MISSING_FOR), homes.patience("a")), (None, Duration::ZERO));
        homes.remember("a", 4, now);
        assert_eq!(homes.recall("a", Lane(3), now + MISSING_FOR * 100), Some(4));
        assert_eq!(homes.recall("a", Lane(4), now + MISSING_FOR), None, "partitions may be added");
        assert_eq!(homes.remember("a", 0, now), 4, "a broker that does not know it yet");
    }

    #[test]
    fn made_up_names_are_not_waited_for_one_by_one() {
        let (homes, now) = (Homes::default(), Instant::now());
        homes.remember("here", 4, now);
        let waited = (0..100).map(|name: u32| name.to_string()).filter(|name| {
            let waits = homes.patience(name) > Duration::ZERO;
            homes.remember(name, 0, now);
            waits
        });
        assert_eq!(waited.count(), MAX_WAITED_FOR);
    }

    #[test]
    fn names_are_bounded() {
        let homes = Homes::default();
        for name in 0..=MAX_NAMES {
            homes.remember(&name.to_string(), 1, Instant::now());
        }
        assert!(homes.known.lock().unwrap().len() <= MAX_NAMES);
    }
}
