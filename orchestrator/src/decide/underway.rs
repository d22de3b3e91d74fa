//! What was appended to the own inbox and has not been read back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Keeps the same record from being appended again while it is on its way. Memory only: after a takeover everything
/// that is due is appended once more, and the fold ignores what it has had.
#[derive(Debug)]
pub struct Underway<K> {
    sent: BTreeMap<K, Instant>,
    retry_after: Duration,
    limit: usize,
}

impl<K: Ord + Clone> Underway<K> {
    /// At most `limit` records on their way; one that has not come back after `retry_after` may be sent again.
    pub fn new(retry_after: Duration, limit: usize) -> Self {
        Self { sent: BTreeMap::new(), retry_after, limit }
    }

    /// Whether to append this record now; if so it counts as on its way.
    pub fn admit(&mut self, key: &K, now: Instant) -> bool {
        match self.sent.get(key) {
            Some(sent) if now < *sent + self.retry_after => return false,
            None if self.sent.len() >= self.limit => return false,
            Some(_) | None => {}
        }
        self.sent.insert(key.clone(), now);
        true
    }

    /// The record has been read back.
    pub fn returned(&mut self, key: &K) {
        self.sent.remove(key);
    }

    /// How many are on their way.
    pub fn len(&self) -> usize {
        self.sent.len()
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_on_its_way_is_not_sent_again_until_it_is_overdue() {
        let start = Instant::now();
        let mut underway = Underway::new(Duration::from_secs(5), 2);
        assert!(underway.admit(&"a", start));
        assert!(!underway.admit(&"a", start + Duration::from_millis(4_999)));
        assert!(underway.admit(&"a", start + Duration::from_secs(5)));
        assert!(!underway.admit(&"a", start + Duration::from_secs(6)));
        // Read back early: it may be sent again at once.
        underway.returned(&"a");
        assert!(underway.admit(&"a", start + Duration::from_secs(6)));
    }

    #[test]
    fn the_number_on_their_way_is_bounded() {
        let start = Instant::now();
        let mut underway = Underway::new(Duration::from_secs(5), 2);
        assert!(underway.admit(&1, start) && underway.admit(&2, start));
        assert!(!underway.admit(&3, start));
        underway.returned(&1);
        assert!(underway.admit(&3, start));
        assert_eq!(underway.len(), 2);
    }
}
