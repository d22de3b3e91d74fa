//! Which fault comes when: pure, a function of the seed.

use std::fmt;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

/// Shortest and longest pause, milliseconds. The longest is well above the session timeout of a group member.
const PAUSE_MS: (u64, u64) = (2_000, 12_000);
/// How long a killed process stays away, milliseconds.
const AWAY_MS: (u64, u64) = (200, 4_000);
/// How long a store answers `-OOM`, milliseconds.
const FULL_MS: (u64, u64) = (500, 3_000);
/// Quiet time after a fault has healed, milliseconds.
const QUIET_MS: (u64, u64) = (3_000, 8_000);
/// Of so many faults, one comes as a pair.
const PAIR_OF: u32 = 4;

/// What is done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL, and started again.
    Kill,
    /// SIGSTOP, and SIGCONT.
    Pause,
    /// SIGTERM, and started again: a rebalance, and back.
    Drain,
    /// All connections of a Redis are closed.
    Cut,
    /// A Redis answers writes with `-OOM`.
    Full,
    /// Bytes that are no record are appended to a topic.
    Poison,
}

/// What is struck: a process of the stack by name, or a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Strike {
    /// What is done.
    pub kind: Kind,
    /// To what.
    pub target: String,
    /// How long it lasts.
    pub lasts: Duration,
}

impl Strike {
    /// The role of the target: its name without the number of the replica.
    pub fn role(&self) -> &str {
        match self.target.rsplit_once('-') {
            Some((role, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => role,
            _ => &self.target,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Drain => "drain",
            Self::Cut => "cut",
            Self::Full => "full",
            Self::Poison => "poison",
        })
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} for {} ms", self.kind, self.target, self.lasts.as_millis())
    }
}

/// One moment of the plan: one strike, or two at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Struck together.
    pub strikes: Vec<Strike>,
    /// Nothing is struck for so long afterwards.
    pub quiet: Duration,
}

/// Services with replicas.
const REPLICATED: [&str; 4] = ["orchestrator", "order-svc", "stock-svc", "payment-svc"];
/// Stores.
const STORES: [&str; 4] = ["redis-order", "redis-stock", "redis-payment", "redis-orchestrator"];
/// Topics that services read.
const TOPICS: [&str; 4] = ["saga.inbox", "stock.commands", "payment.commands", "order.results"];

/// Endless faults: every kind on every role once, in random order, then again in another order.
pub struct Plan {
    random: SmallRng,
    replicas: u32,
    bag: Vec<(Kind, &'static str)>,
}

impl Plan {
    /// The plan of a seed for a stack with so many replicas of each service.
    pub fn new(seed: u64, replicas: u32) -> Self {
        Self { random: SmallRng::seed_from_u64(seed), replicas, bag: Vec::new() }
    }

    /// All kinds of faults on all roles.
    pub fn everything() -> Vec<(Kind, &'static str)> {
        let services =
            REPLICATED.iter().flat_map(|role| [Kind::Kill, Kind::Pause, Kind::Drain].map(|kind| (kind, *role)));
        let stores =
            STORES.iter().flat_map(|role| [Kind::Kill, Kind::Pause, Kind::Cut, Kind::Full].map(|kind| (kind, *role)));
        let others = [(Kind::Kill, "gateway"), (Kind::Pause, "gateway"), (Kind::Kill, "kafka"), (Kind::Pause, "kafka")];
        let topics = TOPICS.iter().map(|topic| (Kind::Poison, *topic));
        services.chain(stores).chain(others).chain(topics).collect()
    }

    fn draw(&mut self) -> (Kind, &'static str) {
        if self.bag.is_empty() {
            self.bag = Self::everything();
            self.bag.shuffle(&mut self.random);
        }
        self.bag.pop().unwrap_or((Kind::Kill, REPLICATED[0]))
    }

    fn strike(&mut self, (kind, role): (Kind, &'static str)) -> Strike {
        let target = if REPLICATED.contains(&role) {
            format!("{role}-{}", self.random.random_range(1..=self.replicas))
        } else {
            role.to_owned()
        };
        let (shortest, longest) = match kind {
            Kind::Kill | Kind::Drain => AWAY_MS,
            Kind::Pause => PAUSE_MS,
            Kind::Full => FULL_MS,
            Kind::Cut | Kind::Poison => (0, 1),
        };
        Strike { kind, target, lasts: Duration::from_millis(self.random.random_range(shortest..longest)) }
    }
}

impl Iterator for Plan {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        let drawn = self.draw();
        let mut strikes = vec![self.strike(drawn)];
        if self.random.random_ratio(1, PAIR_OF) {
            // The second comes from everything, not from the bag: so pairs take nothing away from the count of each.
            let others: Vec<_> = Self::everything().into_iter().filter(|(_, role)| *role != drawn.1).collect();
            if let Some(other) = others.choose(&mut self.random).copied() {
                strikes.push(self.strike(other));
            }
        }
        let quiet = Duration::from_millis(self.random.random_range(QUIET_MS.0..QUIET_MS.1));
        Some(Fault { strikes, quiet })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        let plan = |seed| Plan::new(seed, 3).take(50).collect::<Vec<_>>();
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn every_kind_strikes_every_role_as_often() {
        let all = Plan::everything();
        let mut counts: BTreeMap<(Kind, String), u32> = BTreeMap::new();
        for fault in Plan::new(1, 3).take(all.len() * 2) {
            let first = &fault.strikes[0];
            *counts.entry((first.kind, first.role().to_owned())).or_default() += 1;
            assert!(fault.strikes.len() <= 2);
            assert!(fault.strikes.windows(2).all(|pair| pair[0].role() != pair[1].role()));
        }
        assert_eq!(counts.len(), all.len());
        assert!(counts.values().all(|count| *count == 2), "{counts:?}");
    }

    #[test]
    fn roles_have_no_number() {
        let role = |target: &str| {
            Strike { kind: Kind::Kill, target: target.to_owned(), lasts: Duration::ZERO }.role().to_owned()
        };
        assert_eq!((role("order-svc-3").as_str(), role("redis-stock").as_str()), ("order-svc", "redis-stock"));
    }
}
