//! When participants are told which sagas have ended.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use saga_core::ended::EndedSequences;
use saga_core::ids::Starter;
use saga_core::record::Floor;

/// Least time between two floors of a lane: participants forget in bulk, so they need to hear of it rarely.
pub const FLOOR_INTERVAL: Duration = Duration::from_secs(1);
/// How long a raised floor waits for commands that it can travel with; a record that travels alone costs its
/// participant a batch of its own.
pub const FLOOR_PATIENCE: Duration = Duration::from_secs(1);

/// A floor is told when a checkpoint has raised it: with the next commands if the last floor is long enough ago, alone
/// if none come. So the last one is told too, once the lane has fallen silent.
#[derive(Debug, Default)]
pub struct FloorSchedule {
    stored: BTreeMap<Starter, EndedSequences>,
    told: BTreeMap<Starter, EndedSequences>,
    raised_at: Option<Instant>,
    told_at: Option<Instant>,
}

impl FloorSchedule {
    /// Starts with the floors that a takeover has just told.
    pub fn told(floors: &[Floor], now: Instant) -> Self {
        let told: BTreeMap<_, _> = floors.iter().map(|floor| (floor.starter.clone(), floor.ended.clone())).collect();
        Self { stored: told.clone(), told, raised_at: None, told_at: Some(now) }
    }

    /// A checkpoint with these ended sequences has been written.
    pub fn stored(&mut self, ended: BTreeMap<Starter, EndedSequences>, now: Instant) {
        self.stored = ended;
        let default = EndedSequences::default();
        let is_news =
            |(starter, ended): (&Starter, &EndedSequences)| self.told.get(starter).unwrap_or(&default) != ended;
        if self.raised_at.is_none() && self.stored.iter().any(is_news) {
            self.raised_at = Some(now);
        }
    }

    /// Whether a raised floor may travel with commands that go now.
    pub fn may_ride(&self, now: Instant) -> bool {
        self.raised_at.is_some() && self.told_at.is_none_or(|told| told + FLOOR_INTERVAL <= now)
    }

    /// When a raised floor goes alone.
    pub fn alone_at(&self) -> Option<Instant> {
        let raised = self.raised_at?;
        let after_last = self.told_at.map_or(raised, |told| told + FLOOR_INTERVAL);
        Some(after_last.max(raised + FLOOR_PATIENCE))
    }

    /// The floors to tell now; from here on they count as told.
    pub fn take(&mut self, now: Instant) -> Vec<Floor> {
        let mut floors = Vec::new();
        for (starter, ended) in &self.stored {
            let is_told = self.told.get(starter) == Some(ended) || *ended == EndedSequences::default();
            if !is_told {
                floors.push(Floor { starter: starter.clone(), ended: ended.clone() });
                self.told.insert(starter.clone(), ended.clone());
            }
        }
        self.raised_at = None;
        self.told_at = Some(now);
        floors
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn starter() -> Starter {
        Starter { name: "order".to_owned(), store: Uuid::nil() }
    }

    fn ended(below: u64) -> BTreeMap<Starter, EndedSequences> {
        BTreeMap::from([(starter(), EndedSequences::new(below, []))])
    }

    #[test]
    fn a_raised_floor_rides_or_goes_alone_later() {
        let start = Instant::now();
        let mut floors = FloorSchedule::told(&[], start);
        floors.stored(ended(0), start);
        assert_eq!((floors.may_ride(start + FLOOR_INTERVAL), floors.alone_at()), (false, None));

        let raised = start + Duration::from_millis(300);
        floors.stored(ended(5), raised);
        assert!(!floors.may_ride(raised), "the last floor is too recent");
        assert!(floors.may_ride(start + FLOOR_INTERVAL));
        assert_eq!(floors.alone_at(), Some(raised + FLOOR_PATIENCE));
        // A later checkpoint does not push the time back.
        floors.stored(ended(6), raised + Duration::from_millis(500));
        assert_eq!(floors.alone_at(), Some(raised + FLOOR_PATIENCE));

        let told = floors.take(raised + FLOOR_PATIENCE);
        assert_eq!(told, [Floor { starter: starter(), ended: EndedSequences::new(6, []) }]);
        assert_eq!(floors.alone_at(), None);
        floors.stored(ended(6), raised + FLOOR_PATIENCE * 3);
        assert!(!floors.may_ride(raised + FLOOR_PATIENCE * 9), "nothing was raised");
    }

    #[test]
    fn ranges_above_the_floor_are_news_too() {
        let start = Instant::now();
        let mut floors = FloorSchedule::told(&[], start);
        let above = BTreeMap::from([(starter(), EndedSequences::new(0, [(4, 9)]))]);
        floors.stored(above, start);
        assert_eq!(floors.take(start).len(), 1);
        assert!(floors.take(start).is_empty());
    }

    #[test]
    fn what_a_takeover_told_is_not_told_again() {
        let start = Instant::now();
        let told = [Floor { starter: starter(), ended: EndedSequences::new(7, []) }];
        let mut floors = FloorSchedule::told(&told, start);
        floors.stored(ended(7), start);
        assert_eq!(floors.alone_at(), None);
    }
}
