//! How soon checkouts succeed again after a kill, and what those are told that it interrupts.
//!
//! Judged are kills that came alone, by the checkouts that were sent when it should be over and before the next fault, and,
//! when one of several replicas was killed, by those that were in flight.

use std::collections::BTreeMap;

use super::coverage::WHOLE;
use super::{Evidence, PassedOver, Rule, Told};
use crate::plan::{Field, GATEWAY, KAFKA, Kind, REPLICATED, STORES, Struck};

/// Checkouts succeed when they are sent so long after the kill of one of three replicas or gateways, milliseconds.
const REPLICA_MS: u64 = 5_000;
/// The same of one of three brokers.
const BROKER_MS: u64 = 10_000;
/// The same after a store is back.
const STORE_MS: u64 = 2_000;
/// By then a client knows that its connection to a killed gateway is gone.
const NOTICED_MS: u64 = 1_000;
/// Replicas, gateways and brokers of which one can be missed.
const ENOUGH: u32 = 3;
/// A checkout that was sent so long before the next fault and still had no answer has none because of this one.
const PATIENCE_MS: u64 = 5_000;

/// A checkout that takes so long feels the fault, milliseconds.
const LATE_MS: u64 = 1_000;

/// Checkouts sent between these moments succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise<'run> {
    /// The kill.
    pub struck: &'run Struck,
    /// From when on nothing was left of the faults before it.
    pub calm_ms: u64,
    /// When it should be over.
    pub from_ms: u64,
    /// When the next fault began, or the load ended.
    pub until_ms: u64,
}

/// How it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Checkouts that were decided.
    pub decided: u64,
    /// Checkouts that were not.
    pub undecided: u64,
}

/// The promises that a run can be held to.
pub fn promises(evidence: &Evidence) -> Vec<Promise<'_>> {
    let load_ended_ms = evidence.told.iter().map(|told| told.sent_ms).max().unwrap_or_default();
    let promise = |struck: &'_ Struck| -> Option<[u64; 3]> {
        let is_alone = evidence.struck.iter().filter(|other| other.fault == struck.fault).count() == 1;
        let from_ms = over_ms(struck, evidence.field).filter(|_| is_alone)?;
        let later = evidence.struck.iter().filter(|other| other.fault > struck.fault).map(|other| other.at_ms);
        let until_ms = later.min().unwrap_or(load_ended_ms);
        let earlier = evidence.struck.iter().filter(|other| other.fault < struck.fault);
        let calm_ms = earlier.map(|other| other.healed_ms + STORE_MS).max().unwrap_or_default();
        (from_ms < until_ms).then_some([calm_ms, from_ms, until_ms])
    };
    let promised = evidence.struck.iter().filter_map(|struck| Some((struck, promise(struck)?)));
    promised.map(|(struck, [calm_ms, from_ms, until_ms])| Promise { struck, calm_ms, from_ms, until_ms }).collect()
}

/// When a strike should no longer matter, if anything is promised of it.
fn over_ms(struck: &Struck, field: Field) -> Option<u64> {
    let role = struck.strike.role.as_str();
    match struck.strike.kind {
        Kind::Kill if (role == GATEWAY || REPLICATED.contains(&role)) && field.replicas >= ENOUGH => {
            Some(struck.at_ms + REPLICA_MS)
        }
        Kind::Kill if role == KAFKA && field.brokers >= ENOUGH => Some(struck.at_ms + BROKER_MS),
        Kind::Kill if role.starts_with("redis-") => Some(struck.healed_ms + STORE_MS),
        _ => None,
    }
}

impl Promise<'_> {
    fn concerns(&self, told: &Told) -> bool {
        self.was_sent_after(self.from_ms, told)
    }

    /// Whether it was sent from then on, and is not for the next fault to answer for.
    fn was_sent_after(&self, from_ms: u64, told: &Told) -> bool {
        let is_sent_then = (from_ms..self.until_ms).contains(&told.sent_ms);
        let is_waited_for = || told.done_ms < self.until_ms || self.until_ms - told.sent_ms >= PATIENCE_MS;
        is_sent_then && is_waited_for()
    }

    /// Checkouts that were sent in time and were not decided before the next fault.
    fn broken_by<'run>(&self, told: &'run [Told]) -> impl Iterator<Item = &'run Told> {
        let concerned = told.iter().filter(|told| self.concerns(told));
        concerned.filter(|told| !told.is_decided() || told.done_ms >= self.until_ms)
    }

    /// Counts.
    pub fn kept(&self, told: &[Told]) -> Kept {
        let all = told.iter().filter(|told| self.concerns(told)).count() as u64;
        let undecided = self.broken_by(told).count() as u64;
        Kept { decided: all - undecided, undecided }
    }

    /// How long the fault is felt: from the kill, or from when the killed store was back, until the last checkout was sent that
    /// took [`LATE_MS`] or was not decided.
    pub fn felt_ms(&self, told: &[Told]) -> u64 {
        let Struck { at_ms, healed_ms, strike, .. } = self.struck;
        let over_ms = if STORES.contains(&strike.role.as_str()) { *healed_ms } else { *at_ms };
        let is_late = |told: &&Told| !told.is_decided() || told.done_ms - told.sent_ms >= LATE_MS;
        let sent_then = told.iter().filter(|told| self.was_sent_after(over_ms, told));
        sent_then.filter(is_late).map(|told| told.sent_ms - over_ms).max().unwrap_or_default()
    }

    /// Those that were in flight at the kill, or were sent before it should have been over, and were answered before the next
    /// fault. Who was sent before the last fault was over may owe his answer to that one.
    pub fn in_flight<'run>(&self, told: &'run [Told]) -> impl Iterator<Item = &'run Told> {
        let (sent, answered) = (self.calm_ms..self.from_ms, self.struck.at_ms..self.until_ms);
        told.iter().filter(move |told| sent.contains(&told.sent_ms) && answered.contains(&told.done_ms))
    }
}

/// A replica can be missed, so nobody is told that the shop cannot take the request.
fn is_of_replica(struck: &Struck) -> bool {
    struck.strike.role == GATEWAY || REPLICATED.contains(&struck.strike.role.as_str())
}

/// Whether a request that a kill may have interrupted was told what holds, or that its outcome is not known yet. There are
/// fewer clients than the gateway lets in, so nobody is to be told 429. Who was connected to a gateway that is killed, or did not
/// know of it yet, is told nothing; which gateway it was nobody has noted.
fn is_fair(struck: &Struck, told: &Told) -> bool {
    let is_cut_off = || struck.strike.role == GATEWAY && told.sent_ms < struck.at_ms + NOTICED_MS;
    told.is_decided() || told.status == Some(504) || told.status.is_none() && is_cut_off()
}

/// Gateways that took no connection though they were there; and when that was first.
fn absent(evidence: &Evidence) -> BTreeMap<&str, u64> {
    let is_struck = |passed_over: &PassedOver| {
        let of_it = evidence.struck.iter().filter(|struck| struck.strike.target == passed_over.gateway);
        // A kill may come between the attempt and its end.
        of_it.into_iter().any(|struck| {
            passed_over.refused_ms >= struck.at_ms && passed_over.sent_ms <= struck.healed_ms + REPLICA_MS
        })
    };
    let mut absent = BTreeMap::new();
    for passed_over in evidence.passed_over.iter().filter(|passed_over| !is_struck(passed_over)) {
        absent.entry(passed_over.gateway.as_str()).or_insert(passed_over.sent_ms);
    }
    absent
}

/// Roles of whose kill something is promised.
fn promised_roles(field: Field) -> Vec<&'static str> {
    let mut roles: Vec<&str> = STORES.to_vec();
    if field.replicas >= ENOUGH {
        roles.extend(REPLICATED);
        roles.push(GATEWAY);
    }
    if field.brokers >= ENOUGH {
        roles.push(KAFKA);
    }
    roles
}

/// A long run shows of each promise that it is kept.
fn judge_whole(evidence: &Evidence, find: &mut impl FnMut(Rule, String)) {
    let promises = promises(evidence);
    for role in promised_roles(evidence.field) {
        let of_role = promises.iter().filter(|promise| promise.struck.strike.role == role);
        if of_role.map(|promise| promise.kept(&evidence.told).decided).sum::<u64>() == 0 {
            find(Rule::ShowsSomething, format!("no checkout shows how it goes on after {role} was killed alone"));
        }
    }
}

pub(super) fn judge(evidence: &Evidence, find: &mut impl FnMut(Rule, String)) {
    if evidence.field.lasts >= WHOLE {
        judge_whole(evidence, find);
    }
    for (gateway, at_ms) in absent(evidence) {
        find(Rule::AvailableAgain, format!("{gateway} took no connection after {at_ms} ms, when it was not struck"));
    }
    for promise in promises(evidence) {
        if is_of_replica(promise.struck) {
            let unfair = promise.in_flight(&evidence.told).filter(|told| !is_fair(promise.struck, told));
            for Told { order, status, .. } in unfair {
                let strike = &promise.struck.strike;
                find(Rule::InFlightTold, format!("{strike}: order {order}, in flight, was told {status:?}"));
            }
        }
        let broken: Vec<&Told> = promise.broken_by(&evidence.told).collect();
        if let Some(first) = broken.first() {
            let after_s = (first.sent_ms - promise.struck.at_ms) as f64 / 1e3;
            let (strike, order, status) = (&promise.struck.strike, first.order, first.status);
            let count = broken.len();
            let example = format!("order {order}, sent {after_s:.1} s after it, was told {status:?}");
            find(Rule::AvailableAgain, format!("{strike}: {count} checkouts undecided; {example}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::Strike;

    fn struck(fault: usize, at_ms: u64, role: &str) -> Struck {
        let strike = Strike {
            kind: Kind::Kill,
            role: role.to_owned(),
            target: format!("{role}-1"),
            lasts: Duration::ZERO,
            amount: 0,
        };
        Struck { fault, at_ms, healed_ms: at_ms + 1_000, strike }
    }

    fn told(sent_ms: u64, done_ms: u64, status: u16) -> Told {
        Told { order: 0, sent_ms, done_ms, status: Some(status) }
    }

    fn run(brokers: u32, struck: Vec<Struck>, told: Vec<Told>) -> Evidence {
        let field = Field { replicas: 3, brokers, has_clocks: false, lasts: Duration::ZERO };
        Evidence { field, struck, told, ..Evidence::default() }
    }

    fn broken(evidence: &Evidence) -> usize {
        let mut count = 0;
        judge(evidence, &mut |rule, _| count += usize::from(rule == Rule::AvailableAgain));
        count
    }

    #[test]
    fn what_is_sent_late_enough_must_be_decided_before_the_next_fault() {
        let strikes = || vec![struck(0, 1_000, "stock-svc"), struck(1, 12_000, "gateway")];
        let fine = vec![told(1_500, 30_000, 504), told(6_100, 6_200, 200), told(6_200, 6_300, 402)];
        assert_eq!(broken(&run(1, strikes(), fine)), 0);
        for told in [told(6_100, 6_200, 504), told(6_100, 6_200, 429), told(6_500, 20_000, 200)] {
            assert_eq!(broken(&run(1, strikes(), vec![told])), 1);
        }
        // The next fault may have hit this one.
        assert_eq!(broken(&run(1, strikes(), vec![told(11_000, 20_000, 504)])), 0);
    }

    #[test]
    fn a_fault_is_felt_until_the_last_late_checkout_was_sent() {
        let at = [
            (1_200, 1_900, 200),
            (1_500, 2_500, 200),
            (1_600, 1_700, 504),
            (11_900, 15_000, 200),
            (12_500, 30_000, 504),
        ];
        let late = at.map(|(sent_ms, done_ms, status)| told(sent_ms, done_ms, status)).to_vec();
        for (role, felt_ms) in [("stock-svc", 600), ("redis-stock", 0)] {
            let run = run(1, vec![struck(0, 1_000, role), struck(1, 12_000, "gateway")], late.clone());
            assert_eq!(promises(&run)[0].felt_ms(&run.told), felt_ms, "{role}");
        }
    }

    #[test]
    fn who_is_in_flight_when_a_replica_dies_is_told_what_holds_or_504() {
        let unfair = |role, told: Told| {
            let load_ends = Told { status: Some(200), sent_ms: 90_000, done_ms: 90_001, order: 1 };
            let mut count = 0;
            let run = run(1, vec![struck(0, 1_000, role)], vec![told, load_ends]);
            judge(&run, &mut |rule, _| count += usize::from(rule == Rule::InFlightTold));
            count
        };
        assert_eq!([200, 402, 409, 504].map(|status| unfair("stock-svc", told(900, 1_100, status))), [0; 4]);
        assert_eq!([429, 500, 503].map(|status| unfair("stock-svc", told(900, 1_100, status))), [1; 3]);
        assert_eq!(unfair("stock-svc", Told { status: None, ..told(5_900, 6_100, 0) }), 1, "the connection broke");
        let (before, later) = (told(900, 999, 503), told(6_100, 6_200, 503));
        assert_eq!([before, later].map(|told| unfair("stock-svc", told)), [0; 2]);
        // What the faults before and after it did.
        let three =
            vec![struck(0, 50_000, "redis-stock"), struck(1, 60_000, "stock-svc"), struck(2, 70_000, "gateway")];
        let all = [(52_900, 60_100), (53_100, 60_100), (60_100, 70_000)].map(|(sent, done)| told(sent, done, 503));
        let mut found = Vec::new();
        judge(&run(1, three, all.to_vec()), &mut |rule, what| {
            found.extend((rule == Rule::InFlightTold).then_some(what))
        });
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(unfair("redis-stock", told(900, 1_100, 503)), 0, "there is one of them");
        assert_eq!(unfair(GATEWAY, told(900, 1_100, 503)), 1);
        assert_eq!(unfair(GATEWAY, Told { status: None, ..told(900, 1_100, 0) }), 0, "it was connected to that one");
        assert_eq!(unfair(GATEWAY, Told { status: None, ..told(2_000, 2_100, 0) }), 1, "by then it was another one");
    }

    #[test]
    fn a_long_run_shows_that_each_promise_is_kept() {
        let field = Field { replicas: 3, brokers: 3, has_clocks: false, lasts: WHOLE };
        let roles = promised_roles(field);
        let at_ms = |fault: usize| fault as u64 * 60_000;
        let struck = (0..).zip(&roles).map(|(fault, role)| struck(fault, at_ms(fault), role)).collect();
        let told = (0..=roles.len()).map(|fault| told(at_ms(fault) + 20_000, at_ms(fault) + 20_100, 200)).collect();
        let evidence = Evidence { field, struck, told, ..Evidence::default() };
        let found = |evidence: &Evidence| {
            let mut found = Vec::new();
            judge(evidence, &mut |rule, what| found.extend((rule == Rule::ShowsSomething).then_some(what)));
            found
        };
        assert_eq!(found(&evidence), Vec::<String>::new());
        for (fault, role) in roles.iter().enumerate() {
            let mut without = evidence.clone();
            without.struck.retain(|struck| struck.fault != fault);
            let mut silent = evidence.clone();
            silent.told[fault].status = Some(504);
            for found in [found(&without), found(&silent)] {
                assert!(found.len() == 1 && found[0].contains(role), "{role}: {found:?}");
            }
        }
        let short = Field { lasts: Duration::from_secs(120), ..field };
        assert_eq!(found(&Evidence { field: short, ..Evidence::default() }), Vec::<String>::new());
    }

    #[test]
    fn a_gateway_takes_connections_soon_after_it_is_back() {
        let found = |sent_ms| {
            let passed_over = vec![PassedOver { gateway: "gateway-1".to_owned(), sent_ms, refused_ms: sent_ms + 10 }];
            broken(&Evidence { passed_over, ..run(1, vec![struck(0, 1_000, GATEWAY)], Vec::new()) })
        };
        assert_eq!([989, 990, 7_000, 7_001].map(found), [1, 0, 0, 1]);
    }

    #[test]
    fn a_pair_promises_nothing() {
        let pair = vec![struck(0, 1_000, "stock-svc"), struck(0, 1_000, "order-svc")];
        assert_eq!(broken(&run(1, pair, vec![told(6_100, 6_200, 504), told(9_000, 9_001, 200)])), 0);
    }

    #[test]
    fn brokers_and_stores_have_times_of_their_own() {
        let late = |sent_ms| vec![told(sent_ms, sent_ms + 1, 504), told(90_000, 90_001, 200)];
        let broken_at = |brokers, role, sent_ms| broken(&run(brokers, vec![struck(0, 1_000, role)], late(sent_ms)));
        assert_eq!([broken_at(3, KAFKA, 10_900), broken_at(3, KAFKA, 11_100), broken_at(1, KAFKA, 50_000)], [0, 1, 0]);
        assert_eq!([broken_at(1, "redis-stock", 3_900), broken_at(1, "redis-stock", 4_100)], [0, 1]);
    }
}
