//! Which fault comes when: pure, a function of the seed and of what can be struck.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use stack::READ_TOPICS;

/// Records that are no records, one for each of the first lanes.
pub const POISON_LANES: u32 = 5;
/// A pause of a process, milliseconds. Most are longer than the session timeout of a group member.
const PAUSE_MS: Range<u64> = 2_000..12_000;
/// A long pause, milliseconds: longer than a producer tries to deliver, and than a client waits for its answer.
const LONG_PAUSE_MS: Range<u64> = 12_000..60_000;
/// Of so many pauses in a long campaign, one is long.
const LONG_PAUSE_OF: u32 = 6;
/// How long a killed process stays away, milliseconds.
const AWAY_MS: Range<u64> = 200..4_000;
/// How long a store answers `-OOM`, milliseconds.
const FULL_MS: Range<u64> = 500..3_000;
/// How long one more replica runs, milliseconds: it gets lanes after a second or two.
const GUEST_MS: Range<u64> = 5_000..12_000;
/// How long no byte passes between a service and a server, milliseconds.
const SEVERED_MS: Range<u64> = 1_000..10_000;
/// How long every byte between them is late, milliseconds.
const SLOW_MS: Range<u64> = 3_000..12_000;
/// By how much, milliseconds.
const DELAY_MS: Range<i64> = 20..400;
/// How long connections are reset, milliseconds.
const RESET_MS: Range<u64> = 1..2_000;
/// How long a clock is off, milliseconds: a process notices within a second.
const CLOCK_MS: Range<u64> = 3_000..10_000;
/// By how much, seconds: less and more than the timeouts. Not more, because every jump has its way back: while a thread of
/// librdkafka waits, a clock that is set back makes it wait longer by so much.
const JUMPS_S: [i64; 4] = [-20, -2, 2, 45];
/// Quiet time after a fault has healed, milliseconds.
const QUIET_MS: Range<u64> = 3_000..8_000;
/// Quiet time after a kill, milliseconds: so that there is something to measure once it should be over.
const QUIET_AFTER_KILL_MS: Range<u64> = 7_000..11_000;
/// Of so many faults, one comes as a pair.
const PAIR_OF: u32 = 4;
/// From this length on a campaign has long pauses.
const LONG_CAMPAIGN: Duration = Duration::from_secs(10 * 60);

/// What is done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL, and started again.
    Kill,
    /// SIGSTOP, and SIGCONT.
    Pause,
    /// SIGTERM, and started again: a rebalance, and back.
    Drain,
    /// One more replica is started, and ended by SIGTERM: a rebalance, and back.
    Scale,
    /// The clock of one process jumps, and back.
    Clock,
    /// All connections of a Redis are closed.
    Cut,
    /// A Redis answers writes with `-OOM`.
    Full,
    /// Between one process and a server no byte passes, and nobody is told.
    Sever,
    /// Between one process and a server every byte is late.
    Slow,
    /// Between one process and a server all connections are reset, and new ones too.
    Reset,
    /// Bytes that are no record are appended to a topic, in [`POISON_LANES`] lanes.
    Poison,
}

/// What is struck, and how.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Strike {
    /// What is done.
    pub kind: Kind,
    /// To what kind of thing: a service, a server, a topic, or the way between a service and a server.
    pub role: String,
    /// To which one: a process of the stack by name, a topic, or a way.
    pub target: String,
    /// How long it lasts.
    pub lasts: Duration,
    /// How much: milliseconds of delay, seconds of a clock; else 0.
    pub amount: i64,
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Drain => "drain",
            Self::Scale => "scale",
            Self::Clock => "clock",
            Self::Cut => "cut",
            Self::Full => "full",
            Self::Sever => "sever",
            Self::Slow => "slow",
            Self::Reset => "reset",
            Self::Poison => "poison",
        })
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} for {} ms", self.kind, self.target, self.lasts.as_millis())?;
        match self.kind {
            Kind::Slow => write!(out, ", {} ms late", self.amount),
            Kind::Clock => write!(out, ", off by {:+} s", self.amount),
            _ => Ok(()),
        }
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

/// A strike and when it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Struck {
    /// Number of the fault that it was part of.
    pub fault: usize,
    /// Milliseconds since the campaign began.
    pub at_ms: u64,
    /// When the target was healed or started again.
    pub healed_ms: u64,
    /// Which.
    pub strike: Strike,
}

/// Services with replicas.
pub const REPLICATED: [&str; 4] = ["orchestrator", "order-svc", "stock-svc", "payment-svc"];
/// Stores.
pub(crate) const STORES: [&str; 4] = ["redis-order", "redis-stock", "redis-payment", "redis-orchestrator"];
/// Servers to which a service has a way of its own that can be struck.
pub const SERVERS: [&str; 2] = ["redis", "kafka"];
/// The gateways.
pub const GATEWAY: &str = "gateway";
/// The brokers.
pub const KAFKA: &str = "kafka";

/// The replica of a service whose ways can be struck.
pub fn on_detour(service: &str) -> String {
    format!("{service}-1")
}

/// The replica of a service whose clock can jump.
pub fn with_clock(service: &str) -> String {
    format!("{service}-2")
}

/// What can be struck.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// Replicas of each service, and gateways.
    pub replicas: u32,
    /// Brokers.
    pub brokers: u32,
    /// Whether clocks can jump: it needs libfaketime and a second replica.
    pub has_clocks: bool,
    /// How long the campaign is.
    pub lasts: Duration,
}

impl Field {
    /// All kinds of faults on all roles.
    pub fn everything(&self) -> Vec<(Kind, String)> {
        let both = |kinds: &[Kind], roles: &[&str]| -> Vec<(Kind, String)> {
            roles.iter().flat_map(|role| kinds.iter().map(|kind| (*kind, (*role).to_owned()))).collect()
        };
        let mut all = both(&[Kind::Kill, Kind::Pause, Kind::Drain, Kind::Scale], &REPLICATED);
        if self.has_clocks {
            all.extend(both(&[Kind::Clock], &REPLICATED));
        }
        all.extend(both(&[Kind::Kill, Kind::Pause, Kind::Cut, Kind::Full], &STORES));
        all.extend(both(&[Kind::Kill, Kind::Pause], &[GATEWAY, KAFKA]));
        all.extend(both(&[Kind::Drain], &[GATEWAY]));
        for service in REPLICATED {
            let ways = SERVERS.map(|server| format!("{service} to {server}"));
            all.extend(both(&[Kind::Sever, Kind::Slow, Kind::Reset], &ways.each_ref().map(String::as_str)));
        }
        all.extend(both(&[Kind::Poison], &READ_TOPICS));
        all
    }
}

/// Endless faults: every kind on every role once, in random order, then again in another order.
pub struct Plan {
    random: SmallRng,
    field: Field,
    bag: Vec<(Kind, String)>,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64, field: Field) -> Self {
        Self { random: SmallRng::seed_from_u64(seed), field, bag: Vec::new() }
    }

    fn draw(&mut self) -> (Kind, String) {
        if self.bag.is_empty() {
            self.bag = self.field.everything();
            self.bag.shuffle(&mut self.random);
        }
        self.bag.pop().unwrap_or((Kind::Kill, REPLICATED[0].to_owned()))
    }

    fn strike(&mut self, kind: Kind, role: String) -> Strike {
        let target = match kind {
            Kind::Clock => with_clock(&role),
            Kind::Scale => format!("{role}-{}", self.field.replicas + 1),
            Kind::Sever | Kind::Slow | Kind::Reset => role.replacen(' ', "-1 ", 1),
            _ if REPLICATED.contains(&role.as_str()) => self.one_of(&role, self.field.replicas),
            // The first one has no number.
            _ if role == GATEWAY => match self.random.random_range(1..=self.field.replicas) {
                1 => role.clone(),
                nth => format!("{role}-{nth}"),
            },
            _ if role == KAFKA && self.field.brokers > 1 => self.one_of(&role, self.field.brokers),
            _ => role.clone(),
        };
        let lasts = match kind {
            Kind::Kill | Kind::Drain => AWAY_MS,
            Kind::Pause if self.has_long_pause() => LONG_PAUSE_MS,
            Kind::Pause => PAUSE_MS,
            Kind::Scale => GUEST_MS,
            Kind::Clock => CLOCK_MS,
            Kind::Full => FULL_MS,
            Kind::Sever => SEVERED_MS,
            Kind::Slow => SLOW_MS,
            Kind::Reset => RESET_MS,
            Kind::Cut | Kind::Poison => 0..1,
        };
        let amount = match kind {
            Kind::Clock => JUMPS_S.choose(&mut self.random).copied().unwrap_or_default(),
            Kind::Slow => self.random.random_range(DELAY_MS),
            _ => 0,
        };
        let lasts = Duration::from_millis(self.random.random_range(lasts));
        Strike { kind, role, target, lasts, amount }
    }

    fn one_of(&mut self, role: &str, count: u32) -> String {
        format!("{role}-{}", self.random.random_range(1..=count))
    }

    fn has_long_pause(&mut self) -> bool {
        self.field.lasts >= LONG_CAMPAIGN && self.random.random_ratio(1, LONG_PAUSE_OF)
    }
}

impl Iterator for Plan {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        let (kind, role) = self.draw();
        let mut strikes = vec![self.strike(kind, role)];
        // Every kill of the bag comes alone: only then can it be judged how soon checkouts succeed again.
        if strikes[0].kind != Kind::Kill && self.random.random_ratio(1, PAIR_OF) {
            // The second comes from everything, not from the bag: so pairs take nothing away from the count of each.
            let mut others = self.field.everything();
            others.retain(|(_, role)| *role != strikes[0].role);
            if let Some((kind, role)) = others.choose(&mut self.random).cloned() {
                strikes.push(self.strike(kind, role));
            }
        }
        let is_kill = strikes.iter().any(|strike| strike.kind == Kind::Kill);
        let quiet = if is_kill { QUIET_AFTER_KILL_MS } else { QUIET_MS };
        Some(Fault { strikes, quiet: Duration::from_millis(self.random.random_range(quiet)) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const FIELD: Field = Field { replicas: 3, brokers: 1, has_clocks: true, lasts: Duration::from_secs(1_800) };

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        let plan = |seed| Plan::new(seed, FIELD).take(50).collect::<Vec<_>>();
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn every_kind_strikes_every_role_as_often() {
        let all = FIELD.everything();
        let mut counts: BTreeMap<(Kind, String), u32> = BTreeMap::new();
        for fault in Plan::new(1, FIELD).take(all.len() * 2) {
            let first = &fault.strikes[0];
            *counts.entry((first.kind, first.role.clone())).or_default() += 1;
            assert!(fault.strikes.len() <= 2);
            assert!(fault.strikes.windows(2).all(|pair| pair[0].role != pair[1].role && pair[0].kind != Kind::Kill));
        }
        assert_eq!(counts.len(), all.len());
        assert!(counts.values().all(|count| *count == 2), "{counts:?}");
    }

    #[test]
    fn half_an_hour_has_every_kind_on_every_role_twice() {
        let wanted = FIELD.everything().len() * 2;
        for seed in 1..=20 {
            let faults = Plan::new(seed, FIELD).take(wanted);
            let length: Duration = faults
                .map(|fault| fault.quiet + fault.strikes.iter().map(|strike| strike.lasts).max().unwrap_or_default())
                .sum();
            assert!(length < FIELD.lasts, "seed {seed}: {length:?}");
        }
    }

    #[test]
    fn targets_are_names_of_the_stack() {
        let mut plan = Plan::new(1, Field { brokers: 3, ..FIELD });
        let mut target = |kind, role: &str| plan.strike(kind, role.to_owned()).target;
        assert_eq!(target(Kind::Sever, "stock-svc to kafka"), "stock-svc-1 to kafka");
        assert_eq!(target(Kind::Scale, "order-svc"), "order-svc-4");
        assert_eq!(target(Kind::Clock, "order-svc"), "order-svc-2");
        assert_eq!(target(Kind::Full, "redis-stock"), "redis-stock");
        let gateways: BTreeSet<String> = (0..100).map(|_| target(Kind::Drain, GATEWAY)).collect();
        assert_eq!(gateways, ["gateway", "gateway-2", "gateway-3"].map(str::to_owned).into());
        assert!(["kafka-1", "kafka-2", "kafka-3"].contains(&target(Kind::Kill, KAFKA).as_str()));
    }
}
