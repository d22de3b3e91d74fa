//! A mistake of starters: sequences counted in memory. The first window of a process reads the lane's counter, the later
//! ones go on from what the process remembers.

use proto::Wire;
use redis_txn::{Transaction, Unread, View};
use saga_core::ids::Lane;
use saga_core::starter::StarterLane;
use starter::keys::lane_key;
use starter::start::WindowOutcome;

use crate::shop::Answer;
use crate::window::ShopWindow;

/// A window that takes a sequence of two windows ago.
pub struct Remembering {
    window: ShopWindow,
    lane: Lane,
}

impl Remembering {
    /// Wraps a window.
    pub fn new(window: ShopWindow, lane: Lane) -> Self {
        Self { window, lane }
    }
}

impl Transaction for Remembering {
    type Outcome = WindowOutcome<Answer>;

    fn keys(&self, keys: &mut Vec<String>) {
        self.window.keys(keys);
    }

    fn covered_keys(&self, keys: &mut Vec<String>) {
        self.window.covered_keys(keys);
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<Self::Outcome, Unread> {
        let key = lane_key(self.lane);
        if let Some(Ok(mut lane)) = view.get(&key)?.map(|bytes| StarterLane::decode(&bytes)) {
            // What another process has counted meanwhile is not seen.
            if self.window.members.first().is_some_and(|member| member.saga.0.as_u128().is_multiple_of(3)) {
                lane.next_sequence = lane.next_sequence.saturating_sub(1);
                view.set(key, lane.encode());
            }
        }
        self.window.apply(view)
    }
}
