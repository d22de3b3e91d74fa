//! How old the open sagas of a lane are, and for how long its floors have stood still: counted now and then, for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use saga_core::ids::Starter;
use saga_core::lane::LaneState;

/// Pause between two counts of one lane: each looks at every open saga.
const SCAN_PAUSE: Duration = Duration::from_secs(5);

/// Names of the ages, as metrics have them.
pub const AGES: [&str; 4] = ["below-1s", "1s-10s", "10s-60s", "above-60s"];

/// Where one age ends and the next begins, milliseconds.
const BOUNDS_MS: [i64; 3] = [1_000, 10_000, 60_000];

/// What was counted last in one lane.
#[derive(Debug, Default)]
pub struct Ages {
    /// Open sagas by the time since their start.
    pub open: [AtomicU64; AGES.len()],
    /// Those that need a person, by the time since they do.
    pub attention: [AtomicU64; AGES.len()],
    /// Longest time for which a floor has stood still with sagas above it, milliseconds.
    pub floor_ms: AtomicU64,
}

/// Counts one lane.
pub(crate) struct AgeScan {
    next: Instant,
    /// The last count was not all zeros.
    shows_any: bool,
    floors: BTreeMap<Starter, (u64, Instant)>,
}

impl AgeScan {
    pub(crate) fn new(now: Instant) -> Self {
        Self { next: now, shows_any: false, floors: BTreeMap::new() }
    }

    /// When to count again.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Whether the last count has left anything to be seen.
    pub(crate) fn shows_any(&self) -> bool {
        self.shows_any
    }

    /// Counts if it is time. `log_ms` is the log's time now.
    pub(crate) fn scan(&mut self, state: &LaneState, log_ms: i64, now: Instant, ages: &Ages) {
        if now < self.next {
            return;
        }
        self.next = now + SCAN_PAUSE;
        let (mut open, mut attention) = ([0; AGES.len()], [0; AGES.len()]);
        for saga in state.sagas().values() {
            open[place(log_ms.saturating_sub(saga.started_ms))] += 1;
            if let Some(since) = saga.attention {
                attention[place(log_ms.saturating_sub(since.since_ms))] += 1;
            }
        }
        for (counts, shown) in [(open, &ages.open), (attention, &ages.attention)] {
            shown.iter().zip(counts).for_each(|(shown, count)| shown.store(count, Ordering::Relaxed));
        }
        let still = self.longest_still(state, now);
        self.shows_any = open.iter().sum::<u64>() > 0 || !self.floors.is_empty();
        ages.floor_ms.store(u64::try_from(still.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A floor with nothing above it stands still because there is nothing to do.
    fn longest_still(&mut self, state: &LaneState, now: Instant) -> Duration {
        let mut before = std::mem::take(&mut self.floors);
        for (starter, known) in state.starters().iter().filter(|(_, known)| known.has_above_floor()) {
            let floor = known.ended.below();
            let since = before.remove(starter).filter(|(stood, _)| *stood == floor).map_or(now, |(_, since)| since);
            self.floors.insert(starter.clone(), (floor, since));
        }
        let since = self.floors.values().map(|(_, since)| *since).min();
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

fn place(age_ms: i64) -> usize {
    BOUNDS_MS.iter().take_while(|bound| age_ms >= **bound).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_their_place() {
        assert_eq!([-5, 999, 1_000, 9_999, 60_000, i64::MAX].map(place), [0, 0, 1, 1, 3, 3]);
    }
}
