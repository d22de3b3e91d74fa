//! How long sagas wait for company, and on which lane they go: pure policy, time arrives as an argument.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use saga_core::ids::{Lane, SagaId};

/// Most sagas in one window: one EXEC, one produce request. Larger ones gain nothing measurable and delay the first.
pub const WINDOW_SAGAS: usize = 64;

/// How long a window is open, as a part of what a saga takes from there to its end. Half of it costs a request a third
/// of its time and fills every batch on the way; less makes batches small, small ones make sagas dear, and sagas slow.
const WAIT_PER_SAGA: f64 = 0.5;

/// The longest a window is ever open. A system that is slow for once stays so if its windows do not grow with it: each
/// costs it all the hops, whatever it holds.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// Least weight of one more saga in the mean of what they take.
const PACE_WEIGHT: f64 = 1.0 / 512.0;

/// Where sagas are few each weighs more, so that the mean forgets within some of this.
const PACE_WINDOW_S: f64 = 5.0;

/// Most weight of one saga: after a quiet time the first one does not stand for all.
const MAX_PACE_WEIGHT: f64 = 0.1;

/// Time constant of the measured rate: long enough to be steady, short enough to follow a load that starts.
const RATE_WINDOW_S: f64 = 1.0;

/// A lane whose oldest pending saga is older than this is avoided: something along it stands still.
pub const SLOW_AFTER: Duration = Duration::from_secs(1);

/// An avoided lane is tried again with one saga each time this has passed.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Starts per second, as an exponentially fading mean.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    per_s: f64,
    at: Option<Instant>,
}

impl Rate {
    /// Counts starts that arrived now.
    pub fn arrived(&mut self, count: usize, now: Instant) {
        self.per_s = self.per_second(now) + count as f64 / RATE_WINDOW_S;
        self.at = Some(now);
    }

    /// The rate as it is now.
    pub fn per_second(&self, now: Instant) -> f64 {
        let Some(at) = self.at else { return 0.0 };
        let passed_s = now.saturating_duration_since(at).as_secs_f64();
        self.per_s * (-passed_s / RATE_WINDOW_S).exp()
    }
}

/// What sagas take from the EXEC of their window to the EXEC of their result, as a mean that follows the last of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    mean_s: f64,
    at: Option<Instant>,
}

impl Pace {
    /// A saga has ended now.
    pub fn ended(&mut self, took: Duration, now: Instant) {
        // One that stood still for long says nothing about the others.
        let took_s = took.min(MAX_WAIT.div_f64(WAIT_PER_SAGA)).as_secs_f64();
        let passed_s = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        let weight = (1.0 - (-passed_s / PACE_WINDOW_S).exp()).clamp(PACE_WEIGHT, MAX_PACE_WEIGHT);
        self.mean_s += (took_s - self.mean_s) * weight;
        self.at = Some(now);
    }

    /// How long a window stays open when so many starts come per second; zero: send what is there.
    pub fn open_for(self, starts_per_s: f64) -> Duration {
        let wait_s = self.mean_s * WAIT_PER_SAGA;
        let is_company_expected = starts_per_s * wait_s >= 1.0;
        if is_company_expected { Duration::from_secs_f64(wait_s) } else { Duration::ZERO }
    }
}

/// How a lane that is owned and loaded is doing. Lanes that are halted or not loaded are not candidates at all:
/// their results would not come home to this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Sagas come back.
    Good,
    /// Its oldest pending saga is older than [`SLOW_AFTER`].
    Slow,
}

/// Whether the sagas of a window stay together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// All of them go on one lane, so every hop gets them in one batch.
    Window,
    /// Each goes on the lane that its id hashes to. For measuring only: what staying together is worth.
    Hashed,
}

/// Where the members of one window go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The lane of the window.
    pub lane: Lane,
    /// A slow lane that is to be tried with one saga.
    pub probe: Option<Lane>,
}

/// Picks the lanes of the windows: the healthy ones in turn.
#[derive(Debug, Default)]
pub struct Chooser {
    last: Option<Lane>,
    /// When each slow lane was found slow or last tried.
    tried: BTreeMap<Lane, Instant>,
}

impl Chooser {
    /// The next window's lanes; `lanes` ascending. `None` when there is no candidate.
    pub fn choose(&mut self, lanes: &[(Lane, Health)], now: Instant) -> Option<Choice> {
        let is_slow = |lane: &Lane| {
            lanes.binary_search_by_key(lane, |(other, _)| *other).is_ok_and(|at| lanes[at].1 == Health::Slow)
        };
        self.tried.retain(|lane, _| is_slow(lane));
        let Some(lane) = self.next_in_turn(lanes, Some(Health::Good)) else {
            let lane = self.next_in_turn(lanes, None)?;
            self.last = Some(lane);
            return Some(Choice { lane, probe: None });
        };
        self.last = Some(lane);
        Some(Choice { lane, probe: self.due_probe(lanes, now) })
    }

    fn next_in_turn(&self, lanes: &[(Lane, Health)], wanted: Option<Health>) -> Option<Lane> {
        let fits = |health: Health| wanted.is_none_or(|wanted| wanted == health);
        let split = self.last.map_or(0, |last| lanes.partition_point(|(lane, _)| *lane <= last));
        let (before, after) = lanes.split_at(split);
        after.iter().chain(before).find(|(_, health)| fits(*health)).map(|(lane, _)| *lane)
    }

    fn due_probe(&mut self, lanes: &[(Lane, Health)], now: Instant) -> Option<Lane> {
        let mut probe = None;
        for (lane, _) in lanes.iter().filter(|(_, health)| *health == Health::Slow) {
            let tried = self.tried.entry(*lane).or_insert(now);
            if probe.is_none() && now.saturating_duration_since(*tried) >= PROBE_INTERVAL {
                *tried = now;
                probe = Some(*lane);
            }
        }
        probe
    }
}

/// The lanes that sagas are hashed to: the healthy ones, or all when none is.
#[derive(Debug)]
pub struct Hashed {
    lanes: Vec<Lane>,
}

impl Hashed {
    /// The same candidates as [`Chooser::choose`] has.
    pub fn new(lanes: &[(Lane, Health)]) -> Self {
        let is_any_good = lanes.iter().any(|(_, health)| *health == Health::Good);
        let fits = |health: Health| !is_any_good || health == Health::Good;
        Self { lanes: lanes.iter().filter(|(_, health)| fits(*health)).map(|(lane, _)| *lane).collect() }
    }

    /// The lane of this saga; `None` when there is no candidate.
    pub fn lane(&self, saga: SagaId) -> Option<Lane> {
        // The same in every process of the same build, and an id begins with the time: its bits alone are no hash.
        let mut hasher = DefaultHasher::new();
        saga.hash(&mut hasher);
        let place = hasher.finish().checked_rem(self.lanes.len() as u64)?;
        self.lanes.get(usize::try_from(place).ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn all_good(count: u32) -> Vec<(Lane, Health)> {
        (0..count).map(|lane| (Lane(lane), Health::Good)).collect()
    }

    fn pace_after(sagas: u32, took: Duration, now: Instant) -> Pace {
        let mut pace = Pace::default();
        (0..sagas).for_each(|_| pace.ended(took, now));
        pace
    }

    #[test]
    fn a_window_waits_half_a_saga_if_company_is_expected() {
        let ms = Duration::from_millis;
        for (took, starts_per_s, wait) in [
            (ms(20), 0.0, ms(0)),
            (ms(20), 90.0, ms(0)),
            (ms(20), 110.0, ms(10)),
            (ms(20), 1e9, ms(10)),
            (ms(100), 30.0, ms(50)),
            (ms(150), 1e3, ms(75)),
            (ms(30_000), 1e3, MAX_WAIT),
        ] {
            let open = pace_after(5_000, took, Instant::now()).open_for(starts_per_s);
            assert!(open.abs_diff(wait) < ms(1), "{took:?}, {starts_per_s}/s: {open:?}");
        }
        assert_eq!(Pace::default().open_for(1e9), Duration::ZERO, "nothing is known yet");
    }

    #[test]
    fn one_saga_that_stood_still_hardly_matters() {
        let (ms, now) = (Duration::from_millis, Instant::now());
        for (quiet, most) in [(ms(0), ms(12)), (ms(60_000), ms(60))] {
            let mut pace = pace_after(5_000, ms(20), now);
            pace.ended(ms(3_600_000), now + quiet);
            assert!(pace.open_for(1e3) < most, "{quiet:?}: {:?}", pace.open_for(1e3));
        }
    }

    #[test]
    fn a_few_sagas_each_second_are_enough_to_forget_a_slow_time() {
        let ms = Duration::from_millis;
        let begin = Instant::now();
        let mut pace = pace_after(5_000, ms(3_000), begin);
        assert!(pace.open_for(10.0).abs_diff(MAX_WAIT) < ms(1));
        (0..150).for_each(|saga| pace.ended(ms(40), begin + ms(100 * saga)));
        assert!(pace.open_for(1e3) < ms(50), "after 15 seconds: {:?}", pace.open_for(1e3));
    }

    #[test]
    fn the_rate_follows_the_load_and_fades() {
        let begin = Instant::now();
        let mut rate = Rate::default();
        for step in 0..5_000_u64 {
            rate.arrived(1, begin + Duration::from_millis(2 * step));
        }
        let end = begin + Duration::from_secs(10);
        assert!((rate.per_second(end) - 500.0).abs() < 10.0, "{}", rate.per_second(end));
        assert!(rate.per_second(end + Duration::from_secs(5)) < 5.0);
    }

    #[test]
    fn healthy_lanes_are_used_evenly() {
        let lanes = all_good(7);
        let mut chooser = Chooser::default();
        let mut used = BTreeMap::new();
        for _ in 0..70 {
            let choice = chooser.choose(&lanes, Instant::now()).unwrap();
            *used.entry(choice.lane).or_insert(0) += 1;
        }
        assert!(used.len() == 7 && used.values().all(|count| *count == 10), "{used:?}");
    }

    #[test]
    fn a_slow_lane_is_skipped_and_tried_once_per_second() {
        let mut lanes = all_good(3);
        lanes[1].1 = Health::Slow;
        let begin = Instant::now();
        let mut chooser = Chooser::default();
        let mut probes = Vec::new();
        for step in 0..300 {
            let now = begin + Duration::from_millis(step * 10);
            let choice = chooser.choose(&lanes, now).unwrap();
            assert_ne!(choice.lane, Lane(1));
            probes.extend(choice.probe);
        }
        assert_eq!(probes, vec![Lane(1); 2], "three seconds, the first of them without a try");
        lanes[1].1 = Health::Good;
        let used: Vec<_> = (0..3).map(|_| chooser.choose(&lanes, begin).unwrap().lane).collect();
        assert!(used.contains(&Lane(1)));
    }

    #[test]
    fn when_all_are_slow_all_are_used() {
        let lanes: Vec<_> = (0..4).map(|lane| (Lane(lane), Health::Slow)).collect();
        let mut chooser = Chooser::default();
        let used: Vec<_> = (0..4).map(|_| chooser.choose(&lanes, Instant::now()).unwrap().lane.0).collect();
        assert_eq!(used, [0, 1, 2, 3]);
        assert_eq!(chooser.choose(&[], Instant::now()), None);
    }

    #[test]
    fn hashed_sagas_spread_over_the_healthy_lanes_and_each_keeps_its_own() {
        let mut lanes = all_good(8);
        lanes[3].1 = Health::Slow;
        let hashed = Hashed::new(&lanes);
        let mut used = BTreeMap::new();
        for number in 0..7_000 {
            let saga = SagaId(Uuid::from_u128(number));
            let lane = hashed.lane(saga).unwrap();
            assert_eq!(Hashed::new(&lanes).lane(saga), Some(lane));
            *used.entry(lane).or_insert(0) += 1;
        }
        assert!(used.len() == 7 && !used.contains_key(&Lane(3)), "{used:?}");
        assert!(used.values().all(|count| (800..1_200).contains(count)), "{used:?}");
        let slow = Hashed::new(&[(Lane(5), Health::Slow)]);
        assert_eq!(slow.lane(SagaId(Uuid::nil())), Some(Lane(5)), "when all are slow all are used");
        assert_eq!(Hashed::new(&[]).lane(SagaId(Uuid::nil())), None);
    }
}
