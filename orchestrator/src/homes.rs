//! Whether the topics that starters want their results in are there. Their names come with the starts: one that names no
//! topic must not keep a lane from sending anything else.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use event_stream::{Lane, Publisher, StreamError};

/// A topic that was missing may be there after this time; until then nobody is asked again.
const MISSING_FOR: Duration = Duration::from_secs(10);
/// Looks for a topic before it counts as missing: a broker that has just started may not know all of them.
const LOOKS: u32 = 3;
/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
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
                let found = look(publisher, topic, lane).await?;
                self.remember(topic, found, Instant::now());
                found
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

    fn remember(&self, topic: &str, partitions: u32, since: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_NAMES && !known.contains_key(topic) {
            known.clear();
        }
        known.insert(topic.to_owned(), Known { partitions, since });
    }
}

async fn look(publisher: &Publisher, topic: &str, lane: Lane) -> Result<u32, StreamError> {
    let mut partitions = 0;
    for look in 1..=LOOKS {
        partitions = publisher.partitions(topic).await?.unwrap_or(0);
        if partitions > lane.0 || look == LOOKS {
            break;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_asked_for_again_after_a_while() {
        let (homes, now) = (Homes::default(), Instant::now());
        assert_eq!(homes.recall("a", Lane(0), now), None);
        homes.remember("a", 0, now);
        assert_eq!(homes.recall("a", Lane(0), now), Some(0));
        assert_eq!(homes.recall("a", Lane(0), now + MISSING_FOR), None);
        homes.remember("a", 4, now);
        assert_eq!(homes.recall("a", Lane(3), now + MISSING_FOR * 100), Some(4));
        assert_eq!(homes.recall("a", Lane(4), now + MISSING_FOR), None, "partitions may be added");
    }

    #[test]
    fn names_are_bounded() {
        let homes = Homes::default();
        (0..=MAX_NAMES).for_each(|name| homes.remember(&name.to_string(), 1, Instant::now()));
        assert!(homes.known.lock().unwrap().len() <= MAX_NAMES);
    }
}
