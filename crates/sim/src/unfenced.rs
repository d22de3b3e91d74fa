//! A mistake of starters: results are applied whatever position is stored.

use proto::Wire;
use redis_txn::{Transaction, Unread, View};
use saga_core::ids::Lane;
use saga_core::starter::StarterLane;
use starter::apply::{BatchOutcome, ResultBatch};
use starter::keys::lane_key;

use crate::shop::Shop;

/// A batch that pretends to find the position that it expects.
pub struct Unfenced {
    batch: ResultBatch<Shop>,
    lane: Lane,
}

impl Unfenced {
    /// Wraps a batch.
    pub fn new(batch: ResultBatch<Shop>, lane: Lane) -> Self {
        Self { batch, lane }
    }
}

impl Transaction for Unfenced {
    type Outcome = BatchOutcome;

    fn keys(&self, keys: &mut Vec<String>) {
        self.batch.keys(keys);
    }

    fn covered_keys(&self, keys: &mut Vec<String>) {
        self.batch.covered_keys(keys);
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<BatchOutcome, Unread> {
        let key = lane_key(self.lane);
        if let Some(Ok(mut lane)) = view.get(&key)?.map(|bytes| StarterLane::decode(&bytes)) {
            lane.results_next = self.batch.expected;
            view.set(key, lane.encode());
        }
        self.batch.apply(view)
    }
}
