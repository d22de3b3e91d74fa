//! Whether a campaign was one: faults enough, of every kind, on everything, and a load that they met.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Evidence, Rule};

/// Faults per minute, at least.
const FAULTS_PER_MINUTE: u64 = 2;
/// From this length on every kind and every role must have been struck.
pub(super) const WHOLE: Duration = Duration::from_secs(30 * 60);
/// So often, at least.
const TIMES: u32 = 2;

pub(super) fn judge(evidence: &Evidence, find: &mut impl FnMut(Rule, String)) {
    let mut find = |what: String| find(Rule::ShowsSomething, what);
    let faults: BTreeSet<usize> = evidence.struck.iter().map(|struck| struck.fault).collect();
    let minutes = evidence.field.lasts.as_secs() / 60;
    if faults.is_empty() {
        find("no fault was injected".to_owned());
    } else if (faults.len() as u64) < minutes * FAULTS_PER_MINUTE {
        find(format!("only {} faults in {minutes} minutes", faults.len()));
    }
    if !evidence.told.iter().any(|told| told.status == Some(200)) {
        find("no checkout succeeded".to_owned());
    }
    if evidence.floors.is_empty() {
        find("no participant knows that anything has ended: nothing was forgotten, or it cannot be read".to_owned());
    }
    if !evidence.load_lasted {
        find("the orders were used up before the faults were over".to_owned());
    }
    if evidence.field.lasts < WHOLE {
        return;
    }
    let (mut kinds, mut roles): (BTreeMap<String, u32>, BTreeMap<String, u32>) = Default::default();
    for (kind, role) in evidence.field.everything() {
        kinds.insert(kind.to_string(), 0);
        roles.insert(role, 0);
    }
    for struck in &evidence.struck {
        *kinds.entry(struck.strike.kind.to_string()).or_default() += 1;
        *roles.entry(struck.strike.role.clone()).or_default() += 1;
    }
    for (what, times) in kinds.iter().chain(&roles).filter(|(_, times)| **times < TIMES) {
        find(format!("{what} was struck {times} times in {minutes} minutes"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Told;
    use crate::plan::{Field, Plan, Struck};

    fn whole() -> Evidence {
        let field = Field { replicas: 3, brokers: 1, has_clocks: true, lasts: WHOLE };
        let faults = Plan::new(1, field).take(field.everything().len() * 2).enumerate();
        let struck = faults.flat_map(|(fault, planned)| {
            planned.strikes.into_iter().map(move |strike| Struck { fault, at_ms: 0, healed_ms: 0, strike })
        });
        Evidence {
            told: vec![Told { order: 0, sent_ms: 0, done_ms: 1, status: Some(200) }],
            struck: struck.collect(),
            field,
            load_lasted: true,
            floors: std::iter::once((("redis-stock".to_owned(), 0, "order".to_owned()), Default::default())).collect(),
            ..Evidence::default()
        }
    }

    fn found(evidence: &Evidence) -> Vec<String> {
        let mut found = Vec::new();
        judge(evidence, &mut |_, what| found.push(what));
        found
    }

    #[test]
    fn two_rounds_of_everything_are_enough() {
        assert_eq!(found(&whole()), Vec::<String>::new());
    }

    #[test]
    fn a_role_or_a_kind_that_was_struck_once_is_named() {
        let mut evidence = whole();
        let mut once = true;
        evidence.struck.retain(|struck| struck.strike.role != "gateway" || std::mem::take(&mut once));
        assert_eq!(found(&evidence), ["gateway was struck 1 times in 30 minutes"]);
        let mut evidence = whole();
        evidence.struck.retain(|struck| struck.strike.kind != crate::plan::Kind::Full);
        assert_eq!(found(&evidence), ["full was struck 0 times in 30 minutes"]);
    }

    #[test]
    fn few_faults_are_not_enough() {
        let mut evidence = whole();
        evidence.struck.retain(|struck| struck.fault < 59);
        assert!(found(&evidence).contains(&"only 59 faults in 30 minutes".to_owned()));
        evidence.struck.clear();
        assert!(found(&evidence).contains(&"no fault was injected".to_owned()));
        assert!(found(&Evidence { load_lasted: false, ..whole() })[0].starts_with("the orders were used up"));
    }
}
