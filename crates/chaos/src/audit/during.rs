//! What must hold at every moment, faults or not: judged while the campaign runs, from looks at the stores.
//!
//! A look reads the orders first and the goods after them, so what a paid order has taken is gone by then; and whatever is
//! gone was asked for by a client before the goods were read.

use std::collections::{BTreeMap, BTreeSet};

use super::coverage::WHOLE;
use super::{Evidence, Rule, Told, is_refusal};
use crate::collect::Goods;

/// A long run has a look that saw everything at least every so many seconds, on the average.
const SELDOM_S: u64 = 15;

/// What the looks during a campaign gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct During {
    /// Looks that read everything they wanted.
    pub whole: u64,
    /// Looks that could not, because a store was struck: they found nothing.
    pub broken: u64,
    /// What must not be, in the order in which it was seen.
    pub findings: Vec<String>,
}

/// What an order may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who pays.
    pub user: String,
    /// Item and quantity.
    pub lines: Vec<(String, u64)>,
    /// What it costs.
    pub total: u64,
    /// Whether it was paid when it was read last.
    pub is_paid: bool,
}

/// One look.
#[derive(Debug)]
pub struct Look<'a> {
    /// Every order that clients had taken in hand when the goods had been read, by number.
    pub claims: &'a [Claim],
    /// Answers that came before the orders were read.
    pub told: &'a [Told],
    /// Orders that were refused for good by then, and are asked for no more.
    pub refused: &'a BTreeSet<u64>,
    /// Stock and credit before the first client.
    pub before: &'a Goods,
    /// Stock and credit as they were read.
    pub now: &'a Goods,
}

impl Look<'_> {
    /// What must not be.
    pub fn judge(&self) -> Vec<String> {
        let mut findings = Vec::new();
        let is_paid = |order: u64| {
            let claim = usize::try_from(order).ok().and_then(|order| self.claims.get(order));
            claim.is_some_and(|claim| claim.is_paid)
        };
        for told in self.told {
            match told.status {
                Some(200) if !is_paid(told.order) => {
                    findings.push(format!("order {} was answered 200 and was not paid then", told.order));
                }
                Some(status) if is_refusal(status) && is_paid(told.order) => {
                    findings.push(format!("order {} was answered {status} and was paid", told.order));
                }
                Some(_) | None => {}
            }
        }
        let [mut pieces, mut credit]: [BTreeMap<&str, Taken>; 2] = Default::default();
        for (order, claim) in (0..).zip(self.claims) {
            let most = u64::from(!self.refused.contains(&order));
            let least = u64::from(claim.is_paid);
            for (item, quantity) in &claim.lines {
                pieces.entry(item).or_default().add(least * quantity, most * quantity);
            }
            credit.entry(&claim.user).or_default().add(least * claim.total, most * claim.total);
        }
        compare("item", &pieces, &self.before.0, &self.now.0, &mut findings);
        compare("user", &credit, &self.before.1, &self.now.1, &mut findings);
        findings
    }
}

/// What paid orders have taken, and what all that were not refused may have.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    least: u64,
    most: u64,
}

impl Taken {
    fn add(&mut self, least: u64, most: u64) {
        self.least += least;
        self.most += most;
    }
}

fn compare(
    kind: &str,
    taken: &BTreeMap<&str, Taken>,
    before: &BTreeMap<String, u64>,
    now: &BTreeMap<String, u64>,
    findings: &mut Vec<String>,
) {
    for (id, before) in before {
        let Taken { least, most } = taken.get(id.as_str()).copied().unwrap_or_default();
        let Some(now) = now.get(id) else {
            findings.push(format!("{kind} {id} is gone"));
            continue;
        };
        if now + least > *before {
            findings.push(format!("{kind} {id} had {now} of {before} left when paid orders had taken {least}"));
        }
        if now + most < *before {
            findings.push(format!("{kind} {id} had {now} of {before} left when {most} at most could be taken"));
        }
    }
}

pub(super) fn judge(evidence: &Evidence, find: &mut impl FnMut(Rule, String)) {
    for finding in &evidence.during.findings {
        find(Rule::HeldThroughout, finding.clone());
    }
    let During { whole, broken, .. } = &evidence.during;
    if *whole == 0 {
        find(Rule::ShowsSomething, "nobody looked while it ran".to_owned());
    }
    let lasts = evidence.field.lasts;
    if lasts >= WHOLE && lasts.as_secs() > whole * SELDOM_S {
        find(Rule::ShowsSomething, format!("only {whole} looks while it ran saw everything, {broken} did not"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Seen {
        claims: Vec<Claim>,
        told: Vec<Told>,
        refused: BTreeSet<u64>,
        now: Goods,
    }

    #[test]
    fn a_long_run_that_was_seldom_looked_at_shows_nothing() {
        let mut evidence = Evidence::default();
        evidence.field.lasts = WHOLE;
        for (whole, expected) in [(0, 2), (119, 1), (120, 0)] {
            evidence.during.whole = whole;
            let mut found = 0;
            judge(&evidence, &mut |rule, _| {
                assert_eq!(rule, Rule::ShowsSomething);
                found += 1;
            });
            assert_eq!(found, expected, "{whole} looks");
        }
    }

    fn told(order: u64, status: u16) -> Told {
        Told { order, sent_ms: 0, done_ms: 1, status: Some(status) }
    }

    fn goods(pieces: u64, credit: u64) -> Goods {
        (BTreeMap::from([("a".to_owned(), pieces)]), BTreeMap::from([("u".to_owned(), credit)]))
    }

    /// Order 0 is paid, order 1 refused, order 2 under way: its stock is taken, its credit is not.
    fn sound() -> Seen {
        let claim = |is_paid| Claim { user: "u".to_owned(), lines: vec![("a".to_owned(), 2)], total: 5, is_paid };
        Seen {
            claims: vec![claim(true), claim(false), claim(false)],
            told: vec![told(0, 200), told(1, 402), told(2, 504), told(2, 429)],
            refused: BTreeSet::from([1]),
            now: goods(6, 95),
        }
    }

    fn judged(seen: &Seen) -> Vec<String> {
        let before = goods(10, 100);
        let Seen { claims, told, refused, now } = seen;
        Look { claims, told, refused, before: &before, now }.judge()
    }

    #[test]
    fn what_is_under_way_may_have_taken_its_things_or_not() {
        for now in [goods(6, 95), goods(8, 95), goods(8, 90), goods(6, 90)] {
            assert_eq!(judged(&Seen { now, ..sound() }), Vec::<String>::new());
        }
    }

    #[test]
    fn every_planted_corruption_is_found() {
        type Plant = (&'static str, fn(&mut Seen));
        let plants: [Plant; 8] = [
            ("answered 200", |seen| seen.told.push(told(2, 200))),
            ("answered 200", |seen| seen.told.push(told(9, 200))),
            ("answered 402", |seen| seen.claims[1].is_paid = true),
            ("item a had 9 of 10", |seen| seen.now = goods(9, 95)),
            ("item a had 11 of 10", |seen| seen.now = goods(11, 95)),
            ("item a had 4 of 10", |seen| seen.now = goods(4, 95)),
            ("user u had 96 of 100", |seen| seen.now = goods(6, 96)),
            ("user u had 89 of 100", |seen| seen.now = goods(6, 89)),
        ];
        for (expected, plant) in plants {
            let mut seen = sound();
            plant(&mut seen);
            let findings = judged(&seen);
            assert!(findings.iter().any(|finding| finding.contains(expected)), "{expected}: {findings:?}");
        }
        let mut gone = sound();
        gone.now.0.clear();
        assert_eq!(judged(&gone), ["item a is gone"]);
    }
}
