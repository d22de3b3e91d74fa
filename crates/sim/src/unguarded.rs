//! Results that are applied with something left out that the real transaction looks at first.

use proto::Wire;
use redis_txn::{Transaction, Unread, View};
use saga_core::ended::EndedSequences;
use saga_core::starter::StarterLane;
use starter::apply::{BatchOutcome, ResultBatch};
use starter::keys::lane_key;

use crate::shop::Shop;

/// What is looked at before a result is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The position of the lane.
    Position,
    /// The sequences that have ended.
    Ended,
}

/// A batch that finds in its lane what it expects.
pub struct Unguarded {
    /// The batch.
    pub batch: ResultBatch<Shop>,
    /// What is not looked at.
    pub off: Vec<Guard>,
}

impl Transaction for Unguarded {
    type Outcome = BatchOutcome;

    fn keys(&self, keys: &mut Vec<String>) {
        self.batch.keys(keys);
    }

    fn covered_keys(&self, keys: &mut Vec<String>) {
        self.batch.covered_keys(keys);
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<BatchOutcome, Unread> {
        let key = lane_key(self.batch.lane);
        let Some(stored) = read(view, &key)? else { return self.batch.apply(view) };
        let mut shown = stored.clone();
        if self.off.contains(&Guard::Position) {
            shown.results_next = self.batch.expected;
        }
        let hides_ended = self.off.contains(&Guard::Ended) && shown.results_next == self.batch.expected;
        if hides_ended {
            shown.ended = EndedSequences::default();
        }
        if shown != stored {
            view.set(key.clone(), shown.encode());
        }
        let outcome = self.batch.apply(view)?;
        // What was hidden has ended all the same.
        if let (true, Some(mut after)) = (hides_ended, read(view, &key)?) {
            after.ended.union(&stored.ended);
            view.set(key, after.encode());
        }
        Ok(outcome)
    }
}

fn read(view: &mut View<'_>, key: &str) -> Result<Option<StarterLane>, Unread> {
    Ok(view.get(key)?.and_then(|bytes| StarterLane::decode(&bytes).ok()))
}
