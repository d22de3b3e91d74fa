//! The judgement: pure, from what clients were told and what the stores and the results topic hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::plan::{Field, Kind, POISON_LANES, Struck};

pub mod availability;
mod coverage;
pub mod during;
pub mod remains;

use during::During;
use remains::{Ended, KeyCount, Memory, Place, Record};

/// What one request to check out was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Which order.
    pub order: u64,
    /// When it was sent, milliseconds since the campaign began.
    pub sent_ms: u64,
    /// When it was answered, or given up.
    pub done_ms: u64,
    /// The HTTP status; none when the connection broke.
    pub status: Option<u16>,
}

/// A gateway that took no connection of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// Its name.
    pub gateway: String,
    /// When it was tried, milliseconds since the campaign began.
    pub sent_ms: u64,
    /// When that had failed.
    pub refused_ms: u64,
}

/// A saga's id.
pub type Saga = [u8; 16];

/// Where an order stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may be checked out.
    Open,
    /// A saga is at work on it.
    CheckingOut,
    /// Paid, by this saga.
    Paid(Option<Saga>),
}

/// One stored order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Who pays.
    pub user: String,
    /// Item and quantity.
    pub lines: Vec<(String, u64)>,
    /// What it costs.
    pub total: u64,
    /// Where it stands.
    pub standing: Standing,
    /// Sagas that have ended, and whether the order was paid by them.
    pub attempts: Vec<(Saga, bool)>,
}

/// One record of the results topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The saga that ended.
    pub saga: Saga,
    /// Starter, lane and sequence.
    pub ordinal: (String, u32, u64),
    /// Whether it completed; else it was undone.
    pub completed: bool,
}

/// What is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The clients' history.
    pub told: Vec<Told>,
    /// Gateways that their requests were not sent to.
    pub passed_over: Vec<PassedOver>,
    /// Orders by number.
    pub orders: BTreeMap<u64, Order>,
    /// Pieces of each item before the campaign, and after it.
    pub stock: BTreeMap<String, (u64, u64)>,
    /// Credit of each user before the campaign, and after it.
    pub credit: BTreeMap<String, (u64, u64)>,
    /// Everything that was announced.
    pub announced: Vec<Announced>,
    /// Records in the quarantine, by the topic that they come from.
    pub set_aside: BTreeMap<String, u64>,
    /// Keys of pending starts that are left.
    pub pending: Vec<String>,
    /// Keys of open sagas that the orchestrator's checkpoints still hold.
    pub open_sagas: Vec<String>,
    /// Step records that are left.
    pub records: Vec<Record>,
    /// What the participants' lanes say has ended.
    pub floors: BTreeMap<Place, Ended>,
    /// Keys of each store before and after.
    pub keys: Vec<KeyCount>,
    /// Memory of each process before and after.
    pub memory: Vec<Memory>,
    /// Processes that ended though nobody struck them.
    pub deaths: Vec<String>,
    /// What could be struck.
    pub field: Field,
    /// What was struck.
    pub struck: Vec<Struck>,
    /// Whether the load went on until the end of the faults.
    pub load_lasted: bool,
    /// What looks at the stores gave meanwhile.
    pub during: During,
}

/// One thing that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule that is broken.
    pub rule: Rule,
    /// What was found.
    pub what: String,
}

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// An order that was answered 200 is paid.
    PaidWhenToldSo,
    /// An order that was answered 4xx is not paid.
    NotPaidWhenRefused,
    /// No order is answered 200 by one request and 4xx by another.
    OneAnswer,
    /// Nothing is under way any more.
    EverythingEnded,
    /// Stock is taken once for each paid order, and for nothing else.
    StockConserved,
    /// Credit is taken once for each paid order, and for nothing else.
    CreditConserved,
    /// A saga is announced with one outcome only.
    OneOutcome,
    /// A sequence of a starter in a lane belongs to one saga.
    OneSagaPerSequence,
    /// An order is paid by a saga that was announced as completed, and every completed saga has paid an order.
    PaidByItsSaga,
    /// An order is paid by one saga at most.
    PaidOnce,
    /// The run shows something: there were faults enough, and there were successes.
    ShowsSomething,
    /// A participant keeps no step record of a saga that its floors say has ended.
    Forgotten,
    /// Keys that are not the shop's goods come back to their number.
    KeysComeBack,
    /// Memory comes back to what it was.
    MemoryComesBack,
    /// No process ends by itself.
    NobodyDies,
    /// After a kill of one replica, broker or store, checkouts succeed again in time.
    AvailableAgain,
    /// What nobody can read lies in the quarantine.
    SetAside,
    /// A request that the kill of one replica may have interrupted is told what holds, or 504.
    InFlightTold,
    /// What must hold at every moment held whenever somebody looked.
    HeldThroughout,
}

impl Rule {
    /// Whether time may mend what is found: it is judged again as long as everything may take to end. A 200 is told after
    /// its commit, so an order that is paid only later was told so too early.
    pub fn may_heal(self) -> bool {
        !matches!(
            self,
            Self::ShowsSomething
                | Self::NobodyDies
                | Self::AvailableAgain
                | Self::InFlightTold
                | Self::HeldThroughout
                | Self::OneAnswer
                | Self::PaidWhenToldSo
        )
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}: {}", self.rule, self.what)
    }
}

/// Judges; an empty list is a pass.
pub fn judge(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |rule, what: String| findings.push(Finding { rule, what });
    answers(evidence, &mut find);
    ends(evidence, &mut find);
    conservation(evidence, &mut find);
    announcements(evidence, &mut find);
    remains::judge(evidence, &mut find);
    availability::judge(evidence, &mut find);
    quarantine(evidence, &mut find);
    coverage::judge(evidence, &mut find);
    during::judge(evidence, &mut find);
    for name in &evidence.deaths {
        find(Rule::NobodyDies, format!("{name} ended by itself"));
    }
    findings
}

fn is_paid(evidence: &Evidence, order: u64) -> bool {
    evidence.orders.get(&order).is_some_and(|order| matches!(order.standing, Standing::Paid(_)))
}

impl Told {
    /// Whether it was told something that holds: paid, or refused for good.
    pub fn is_decided(&self) -> bool {
        self.status == Some(200) || self.is_refused()
    }

    /// Whether it was told that it will not be paid.
    pub fn is_refused(&self) -> bool {
        self.status.is_some_and(is_refusal)
    }
}

/// 429 says only that this request changed nothing; every other 4xx is a refusal for good.
fn is_refusal(status: u16) -> bool {
    (400..500).contains(&status) && status != 429
}

fn answers(evidence: &Evidence, find: &mut impl FnMut(Rule, String)) {
    let mut paid = BTreeSet::new();
    let mut refused = BTreeMap::new();
    for told in &evidence.told {
        match told.status {
            Some(200) => {
                paid.insert(told.order);
            }
            Some(status) if is_refusal(status) => {
                refused.insert(told.order, status);
            }
            Some(_) | None => {}
        }
    }
    for order in &paid {
        if !is_paid(evidence, *order) {
            find(Rule::PaidWhenToldSo, format!("order {order} was answered 200 and is not paid"));
        }
    }
    for (order, status) in &refused {
        if is_paid(evidence, *order) {
            find(Rule::NotPaidWhenRefused, format!("order {order} was answered {status} and is paid"));
        }
        if paid.contains(order) {
            find(Rule::OneAnswer, format!("order {order} was answered 200 and {status}"));
        }
    }
}

fn quarantine(evidence: &Evidence, find: &mut impl FnMut(Rule, String)) {
    let mut appended: BTreeMap<&str, u64> = BTreeMap::new();
    for struck in evidence.struck.iter().filter(|struck| struck.strike.kind == Kind::Poison) {
        *appended.entry(&struck.strike.role).or_default() += u64::from(POISON_LANES);
    }
    let topics: BTreeSet<&str> =
        appended.keys().copied().chain(evidence.set_aside.keys().map(String::as_str)).collect();
    for topic in topics {
        let appended = appended.get(topic).copied().unwrap_or_default();
        let found = evidence.set_aside.get(topic).copied().unwrap_or_default();
        if found != appended {
            find(Rule::SetAside, format!("{appended} records were spoilt in {topic}, {found} lie in the quarantine"));
        }
    }
}

fn ends(evidence: &Evidence, find: &mut impl FnMut(Rule, String)) {
    for (number, order) in &evidence.orders {
        if order.standing == Standing::CheckingOut {
            find(Rule::EverythingEnded, format!("order {number} is still checking out"));
        }
    }
    for key in evidence.pending.iter().chain(&evidence.open_sagas) {
        find(Rule::EverythingEnded, format!("{key} is left"));
    }
}

fn conservation(evidence: &Evidence, find: &mut impl FnMut(Rule, String)) {
    let (mut pieces, mut cost): (BTreeMap<&str, u64>, BTreeMap<&str, u64>) = Default::default();
    for order in evidence.orders.values() {
        if let Standing::Paid(_) = order.standing {
            for (item, quantity) in &order.lines {
                *pieces.entry(item).or_default() += quantity;
            }
            *cost.entry(&order.user).or_default() += order.total;
        }
    }
    let mut compare = |rule, kind: &str, what: &BTreeMap<String, (u64, u64)>, taken: &BTreeMap<&str, u64>| {
        for (id, (before, after)) in what {
            let taken = taken.get(id.as_str()).copied().unwrap_or(0);
            if before.checked_sub(taken) != Some(*after) {
                find(rule, format!("{kind} {id}: {after} left of {before}, paid orders took {taken}"));
            }
        }
        for id in taken.keys().filter(|id| !what.contains_key(**id)) {
            find(rule, format!("{kind} {id} is taken by a paid order and does not exist"));
        }
    };
    compare(Rule::StockConserved, "item", &evidence.stock, &pieces);
    compare(Rule::CreditConserved, "user", &evidence.credit, &cost);
}

fn announcements(evidence: &Evidence, find: &mut impl FnMut(Rule, String)) {
    let mut outcomes: BTreeMap<Saga, bool> = BTreeMap::new();
    let mut sequences: BTreeMap<&(String, u32, u64), Saga> = BTreeMap::new();
    for announced in &evidence.announced {
        if *outcomes.entry(announced.saga).or_insert(announced.completed) != announced.completed {
            find(Rule::OneOutcome, format!("saga {} was announced as completed and as undone", hex(&announced.saga)));
        }
        let holder = *sequences.entry(&announced.ordinal).or_insert(announced.saga);
        if holder != announced.saga {
            let both = (hex(&holder), hex(&announced.saga));
            find(
                Rule::OneSagaPerSequence,
                format!("{:?} belongs to sagas {} and {}", announced.ordinal, both.0, both.1),
            );
        }
    }
    let mut payers: BTreeSet<Saga> = BTreeSet::new();
    for (number, order) in &evidence.orders {
        let mut paid_by: BTreeSet<Saga> =
            order.attempts.iter().filter(|(_, paid)| *paid).map(|(saga, _)| *saga).collect();
        if let Standing::Paid(Some(saga)) = order.standing {
            paid_by.insert(saga);
            if outcomes.get(&saga) != Some(&true) {
                find(Rule::PaidByItsSaga, format!("order {number} is paid by saga {}, never announced so", hex(&saga)));
            }
        }
        if paid_by.len() > 1 {
            find(Rule::PaidOnce, format!("order {number} is paid by {} sagas", paid_by.len()));
        }
        payers.extend(paid_by);
    }
    for (saga, _) in outcomes.iter().filter(|(saga, completed)| **completed && !payers.contains(*saga)) {
        find(Rule::PaidByItsSaga, format!("saga {} was announced as completed and has paid no order", hex(saga)));
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
