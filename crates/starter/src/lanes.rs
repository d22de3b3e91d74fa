//! What this process knows of the lanes it owns: which take starts, and which sagas are pending in them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use saga_core::ids::{Lane, SagaId};
use saga_core::starter::StarterLane;

use crate::window::{Choice, Chooser, Hashed, Health, Pace, SLOW_AFTER, WINDOW_SAGAS};

/// A lane with this many pending sagas takes no more: by then something has stood still for long, and what is
/// pending is held in memory.
const MAX_PENDING_PER_LANE: usize = 4_096;

/// How often a lane looks for sagas that have been pending for long. Each is started once more: this heals what no other
/// mechanism has, such as a window whose process died between EXEC and send while the lane stayed here.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Most sweeps from one such start to the next.
const MAX_SWEEPS_BETWEEN: u64 = 8;

/// One pending saga, as far as its result needs it.
#[derive(Clone, Debug)]
pub struct Open {
    /// The saga.
    pub saga: SagaId,
    /// What it is about.
    pub subject: Arc<str>,
    /// Since when this process knows of it.
    pub since: Instant,
    /// Whether Kafka has acknowledged its start to this process.
    pub is_delivered: bool,
}

/// One time of serving a lane, from its load to its loss. Who begins something in one and ends it in the next has
/// missed what happened between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure(u64);

struct LaneState {
    tenure: Tenure,
    loaded: bool,
    open: BTreeMap<u64, Open>,
}

#[derive(Default)]
struct Table {
    lanes: BTreeMap<Lane, LaneState>,
    tenures: u64,
    chooser: Chooser,
    pace: Pace,
    /// Those of the last choice; kept, so that a choice allocates nothing.
    candidates: Vec<(Lane, Health)>,
}

/// The owned lanes; shared by the windows (which add sagas) and the result loops (which take them out).
#[derive(Default)]
pub struct Lanes {
    table: Mutex<Table>,
}

impl Lanes {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change is one insert or remove: nothing is left half done by a panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A result loop has begun to load the lane.
    pub fn enter(&self, lane: Lane) {
        let Table { lanes, tenures, .. } = &mut *self.table();
        *tenures += 1;
        let state = LaneState { tenure: Tenure(*tenures), loaded: false, open: BTreeMap::new() };
        lanes.insert(lane, state);
    }

    /// The present time of serving this lane.
    pub fn tenure(&self, lane: Lane) -> Option<Tenure> {
        self.table().lanes.get(&lane).map(|state| state.tenure)
    }

    /// The lane takes starts from now on.
    pub fn loaded(&self, lane: Lane) {
        if let Some(state) = self.table().lanes.get_mut(&lane) {
            state.loaded = true;
        }
    }

    /// The result loop of the lane has ended.
    pub fn leave(&self, lane: Lane) {
        self.table().lanes.remove(&lane);
    }

    /// Where the next window goes; `None` when no loaded lane has room.
    pub fn choose(&self, now: Instant) -> Option<Choice> {
        let Table { lanes, chooser, candidates, .. } = &mut *self.table();
        candidates.clear();
        candidates.extend(lanes.iter().filter_map(|(lane, state)| Some((*lane, health(state, now)?))));
        chooser.choose(candidates, now)
    }

    /// Whether there are loaded lanes: if there are and none is chosen, all of them are full.
    pub fn are_loaded(&self) -> bool {
        self.table().lanes.values().any(|state| state.loaded)
    }

    /// Whether sagas come back from any lane.
    pub fn has_good(&self, now: Instant) -> bool {
        self.table().lanes.values().any(|state| health(state, now) == Some(Health::Good))
    }

    /// The candidates of the last choice, for sagas that do not stay together.
    pub fn hashed(&self) -> Hashed {
        Hashed::new(&self.table().candidates)
    }

    /// Remembers a saga that became pending in this tenure. False when the lane has been lost since, even if it has come
    /// back: another process may have ended the saga meanwhile, and nobody here was told.
    pub fn remember(&self, lane: Lane, tenure: Option<Tenure>, sequence: u64, open: Open) -> bool {
        match self.table().lanes.get_mut(&lane) {
            Some(state) if Some(state.tenure) == tenure => {
                state.open.insert(sequence, open);
                true
            }
            Some(_) | None => false,
        }
    }

    /// What is remembered of a pending saga.
    pub fn recall(&self, lane: Lane, sequence: u64) -> Option<Open> {
        self.table().lanes.get(&lane)?.open.get(&sequence).cloned()
    }

    /// Forgets sagas that have ended, and remembers how long they took.
    pub fn forget(&self, lane: Lane, sequences: impl Iterator<Item = u64>, now: Instant) {
        let Table { lanes, pace, .. } = &mut *self.table();
        if let Some(state) = lanes.get_mut(&lane) {
            for open in sequences.filter_map(|sequence| state.open.remove(&sequence)) {
                pace.ended(now.saturating_duration_since(open.since), now);
            }
        }
    }

    /// What sagas take at present.
    pub fn pace(&self) -> Pace {
        self.table().pace
    }

    /// Forgets sagas that the store says have ended: a window may have remembered one after its result.
    pub fn prune(&self, lane: Lane, stored: &StarterLane) {
        if let Some(state) = self.table().lanes.get_mut(&lane) {
            state.open.retain(|sequence, _| !stored.ended.contains(*sequence));
        }
    }

    /// Whether a sweep that comes by now is to start a pending saga once more. One that is not remembered always.
    pub fn is_due(&self, lane: Lane, sequence: u64, now: Instant) -> bool {
        self.recall(lane, sequence).is_none_or(|open| {
            let age = now.saturating_duration_since(open.since);
            if open.is_delivered { is_due_at(age) } else { age >= SWEEP_INTERVAL }
        })
    }

    /// The starts of these sagas are in the log.
    pub fn delivered(&self, lane: Lane, sequences: impl IntoIterator<Item = u64>) {
        if let Some(state) = self.table().lanes.get_mut(&lane) {
            for sequence in sequences {
                if let Some(open) = state.open.get_mut(&sequence) {
                    open.is_delivered = true;
                }
            }
        }
    }

    /// How many sagas are pending in all lanes.
    pub fn pending(&self) -> usize {
        self.table().lanes.values().map(|state| state.open.len()).sum()
    }

    /// Since when the oldest of them is known.
    pub fn oldest(&self) -> Option<Instant> {
        // Sequences are handed out in the order of time, so the first of a lane is its oldest.
        self.table().lanes.values().filter_map(|state| state.open.values().next()).map(|open| open.since).min()
    }
}

/// A start that was delivered is sent again in fewer and fewer sweeps: one that the orchestrator cannot stand costs its lane
/// three tries each time.
fn is_due_at(age: Duration) -> bool {
    let sweeps = age.as_secs() / SWEEP_INTERVAL.as_secs();
    sweeps.is_power_of_two() || (sweeps > 0 && sweeps.is_multiple_of(MAX_SWEEPS_BETWEEN))
}

/// `None`: no candidate.
fn health(state: &LaneState, now: Instant) -> Option<Health> {
    if !state.loaded || state.open.len() + WINDOW_SAGAS > MAX_PENDING_PER_LANE {
        return None;
    }
    // Sequences are handed out in the order of time, so the first is the oldest.
    let oldest = state.open.values().next().map(|open| now.saturating_duration_since(open.since));
    Some(if oldest.is_some_and(|age| age > SLOW_AFTER) { Health::Slow } else { Health::Good })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn open(since: Instant) -> Open {
        Open { saga: SagaId(Uuid::nil()), subject: "x".into(), since, is_delivered: false }
    }

    #[test]
    fn only_loaded_lanes_with_room_take_starts() {
        let now = Instant::now();
        let lanes = Lanes::default();
        assert!(lanes.choose(now).is_none());
        lanes.enter(Lane(3));
        assert!(lanes.choose(now).is_none() && !lanes.are_loaded(), "not loaded");
        lanes.loaded(Lane(3));
        assert_eq!(lanes.choose(now).unwrap().lane, Lane(3));
        let tenure = lanes.tenure(Lane(3));
        for sequence in 0..MAX_PENDING_PER_LANE as u64 {
            assert!(lanes.remember(Lane(3), tenure, sequence, open(now)));
        }
        assert!(lanes.choose(now).is_none() && lanes.are_loaded(), "full");
        lanes.forget(Lane(3), 0..100, now);
        assert!(lanes.choose(now).is_some());
        lanes.leave(Lane(3));
        assert!(lanes.choose(now).is_none() && !lanes.remember(Lane(3), tenure, 0, open(now)));
    }

    #[test]
    fn what_began_before_the_lane_was_lost_is_not_taken_up_when_it_is_back() {
        let now = Instant::now();
        let lanes = Lanes::default();
        lanes.enter(Lane(3));
        let before = lanes.tenure(Lane(3));
        lanes.leave(Lane(3));
        assert_eq!(lanes.tenure(Lane(3)), None);
        lanes.enter(Lane(3));
        assert!(!lanes.remember(Lane(3), before, 0, open(now)));
        assert!(lanes.remember(Lane(3), lanes.tenure(Lane(3)), 0, open(now)));
        assert!(!lanes.remember(Lane(4), None, 0, open(now)), "never served");
    }

    #[test]
    fn a_saga_that_stays_pending_is_started_again_less_and_less() {
        let sweeps = 0..=40;
        let due = sweeps.filter(|sweep| is_due_at(SWEEP_INTERVAL * *sweep + Duration::from_secs(7)));
        assert_eq!(due.collect::<Vec<_>>(), [1, 2, 4, 8, 16, 24, 32, 40]);
        let (lanes, now) = (Lanes::default(), Instant::now());
        assert!(lanes.is_due(Lane(0), 0, now), "nobody here knows when it was started");
        lanes.enter(Lane(0));
        lanes.remember(Lane(0), lanes.tenure(Lane(0)), 0, open(now));
        assert!(!lanes.is_due(Lane(0), 0, now) && lanes.is_due(Lane(0), 0, now + SWEEP_INTERVAL));
        let third = now + SWEEP_INTERVAL * 3;
        assert!(lanes.is_due(Lane(0), 0, third), "it may never have arrived");
        lanes.delivered(Lane(0), [0, 1]);
        assert!(!lanes.is_due(Lane(0), 0, third) && lanes.is_due(Lane(0), 0, now + SWEEP_INTERVAL * 4));
    }

    #[test]
    fn a_lane_with_an_old_saga_is_avoided() {
        let begin = Instant::now();
        let now = begin + SLOW_AFTER + Duration::from_millis(1);
        let lanes = Lanes::default();
        for lane in [Lane(0), Lane(1)] {
            lanes.enter(lane);
            lanes.loaded(lane);
        }
        lanes.remember(Lane(0), lanes.tenure(Lane(0)), 0, open(begin));
        for _ in 0..4 {
            assert_eq!(lanes.choose(now).unwrap().lane, Lane(1));
        }
        lanes.forget(Lane(0), 0..1, now);
        assert_eq!(lanes.choose(now).unwrap().lane, Lane(0));
    }
}
