//! The auditor is tested by what it must find: one planted corruption after the other in evidence that passes.

use std::time::Duration;

use super::*;
use crate::plan::{Kind, Strike};

fn saga(number: u8) -> Saga {
    [number; 16]
}

fn told(order: u64, status: u16) -> Told {
    Told { order, sent_ms: 0, done_ms: 1, status: Some(status) }
}

fn announced(number: u8, sequence: u64, completed: bool) -> Announced {
    Announced { saga: saga(number), ordinal: ("order".to_owned(), 7, sequence), completed }
}

/// Order 0 paid by saga 1, order 1 refused (saga 2), order 2 paid by saga 4 after saga 3 was undone, order 3 untouched,
/// order 4 undecided for its client and paid by saga 5.
fn sound() -> Evidence {
    let order = |user: &str, standing, attempts| Order {
        user: user.to_owned(),
        lines: vec![("a".to_owned(), 1), ("b".to_owned(), 2)],
        total: 5,
        standing,
        attempts,
    };
    let orders = BTreeMap::from([
        (0, order("u", Standing::Paid(Some(saga(1))), vec![(saga(1), true)])),
        (1, order("v", Standing::Open, vec![(saga(2), false)])),
        (2, order("u", Standing::Paid(Some(saga(4))), vec![(saga(3), false), (saga(4), true)])),
        (3, order("u", Standing::Open, Vec::new())),
        (4, order("w", Standing::Paid(Some(saga(5))), vec![(saga(5), true)])),
    ]);
    Evidence {
        passed_over: Vec::new(),
        told: vec![told(0, 200), told(0, 200), told(1, 402), told(2, 504), told(2, 200), told(4, 504), told(3, 429)],
        orders,
        stock: BTreeMap::from([("a".to_owned(), (10, 7)), ("b".to_owned(), (20, 14)), ("c".to_owned(), (5, 5))]),
        credit: BTreeMap::from([("u".to_owned(), (100, 90)), ("v".to_owned(), (3, 3)), ("w".to_owned(), (50, 45))]),
        announced: vec![
            announced(1, 0, true),
            announced(1, 0, true),
            announced(2, 1, false),
            announced(3, 2, false),
            announced(4, 3, true),
            announced(5, 4, true),
        ],
        pending: Vec::new(),
        open_sagas: Vec::new(),
        records: vec![record("order", 9), record("other", 3)],
        floors: BTreeMap::from([(place("order"), Ended { below: 7, above: vec![8..9, 11..12] })]),
        keys: vec![
            keys("lane", 40, 100),
            keys("rec", 12, 0),
            keys("order", 5, 5),
            keys("store", 1, 1),
            keys("commit", 3, 4),
        ],
        memory: vec![Memory { process: "stock-svc-1".to_owned(), before_kb: 60_000, after_kb: 80_000 }],
        deaths: Vec::new(),
        field: Field { replicas: 3, brokers: 1, has_clocks: false, lasts: Duration::from_secs(60) },
        struck: vec![
            killed(0, 1_000, "stock-svc"),
            killed(1, 20_000, "redis-stock"),
            killed(2, 40_000, "gateway"),
            poisoned(3, 50_000),
        ],
        set_aside: BTreeMap::from([("saga.inbox".to_owned(), 5)]),
        load_lasted: true,
        during: During { whole: 3, broken: 1, findings: Vec::new() },
    }
}

fn place(starter: &str) -> Place {
    ("redis-stock".to_owned(), 7, starter.to_owned())
}

fn record(starter: &str, sequence: u64) -> Record {
    Record { place: place(starter), sequence }
}

fn keys(kind: &str, before: u64, after: u64) -> KeyCount {
    let allowed = match kind {
        "lane" => 100,
        "commit" => 5,
        _ => 0,
    };
    KeyCount { store: "redis-stock".to_owned(), kind: kind.to_owned(), before, after, allowed }
}

fn poisoned(fault: usize, at_ms: u64) -> Struck {
    let Struck { strike, .. } = killed(fault, at_ms, "saga.inbox");
    Struck { fault, at_ms, healed_ms: at_ms, strike: Strike { kind: Kind::Poison, ..strike } }
}

fn killed(fault: usize, at_ms: u64, role: &str) -> Struck {
    let target = format!("{role}-1");
    let strike = Strike { kind: Kind::Kill, role: role.to_owned(), target, lasts: Duration::ZERO, amount: 0 };
    Struck { fault, at_ms, healed_ms: at_ms + 1_000, strike }
}

#[test]
fn sound_evidence_passes() {
    assert_eq!(judge(&sound()), []);
}

#[test]
fn every_planted_corruption_is_found() {
    type Plant = (&'static str, fn(&mut Evidence), Rule);
    let plants: [Plant; 39] = [
        (
            "a 503 when a replica was killed",
            |e| e.told.push(Told { sent_ms: 1_100, done_ms: 1_200, ..told(3, 503) }),
            Rule::InFlightTold,
        ),
        ("a record that was dropped", |e| *e.set_aside.entry("saga.inbox".to_owned()).or_default() = 4, Rule::SetAside),
        ("a record set aside that nobody spoilt", |e| e.struck.truncate(3), Rule::SetAside),
        (
            "something seen while it ran",
            |e| e.during.findings.push("order 7 was not paid then".to_owned()),
            Rule::HeldThroughout,
        ),
        ("a run at which nobody looked", |e| e.during.whole = 0, Rule::ShowsSomething),
        ("stores in which no lane was ever told what has ended", |e| e.floors.clear(), Rule::ShowsSomething),
        ("a 200 for an open order", |e| e.told.push(told(3, 200)), Rule::PaidWhenToldSo),
        ("a 200 for an order that is gone", |e| e.told.push(told(9, 200)), Rule::PaidWhenToldSo),
        ("a 4xx for a paid order", |e| e.told.push(told(4, 409)), Rule::NotPaidWhenRefused),
        ("an answer that flips", |e| e.told.push(told(0, 402)), Rule::OneAnswer),
        ("an order that hangs", |e| e.standing(3, Standing::CheckingOut), Rule::EverythingEnded),
        ("a pending start", |e| e.pending.push("pending:7:5".to_owned()), Rule::EverythingEnded),
        ("an open saga", |e| e.open_sagas.push("saga:7:x".to_owned()), Rule::EverythingEnded),
        ("stock taken twice", |e| e.set_stock("a", 6), Rule::StockConserved),
        ("stock given back twice", |e| e.set_stock("c", 6), Rule::StockConserved),
        ("stock below zero, wrapped", |e| e.set_stock("b", u64::MAX), Rule::StockConserved),
        ("an item lost", |e| e.lose_item("a"), Rule::StockConserved),
        ("credit taken for a refused order", |e| e.set_credit("v", 0), Rule::CreditConserved),
        ("credit taken twice", |e| e.set_credit("w", 40), Rule::CreditConserved),
        ("a user lost", |e| e.lose_user("w"), Rule::CreditConserved),
        ("two outcomes of one saga", |e| e.announced.push(announced(2, 1, true)), Rule::OneOutcome),
        ("two sagas in one sequence", |e| e.announced.push(announced(9, 2, false)), Rule::OneSagaPerSequence),
        ("paid by a saga that was undone", |e| e.standing(1, Standing::Paid(Some(saga(2)))), Rule::PaidByItsSaga),
        ("a completed saga without an order", |e| e.announced.push(announced(8, 8, true)), Rule::PaidByItsSaga),
        ("an order paid twice", |e| e.attempt(0, (saga(5), true)), Rule::PaidOnce),
        ("a run without faults", |e| e.struck.clear(), Rule::ShowsSomething),
        ("a run with one fault", |e| e.struck.truncate(1), Rule::ShowsSomething),
        ("a load that ended early", |e| e.load_lasted = false, Rule::ShowsSomething),
        ("a record below the floor", |e| e.records.push(record("order", 6)), Rule::Forgotten),
        ("a record among those ended above", |e| e.records.push(record("order", 8)), Rule::Forgotten),
        ("a step record that is left", |e| e.set_keys("rec", 1), Rule::KeysComeBack),
        ("one key more than lanes", |e| e.set_keys("lane", 101), Rule::KeysComeBack),
        ("commit keys that pile up", |e| e.set_keys("commit", 6), Rule::KeysComeBack),
        ("a kind of key that is new", |e| e.keys.push(keys("news", 0, 1)), Rule::KeysComeBack),
        ("memory that grows", |e| e.memory[0].after_kb = 150_000, Rule::MemoryComesBack),
        ("a process that ends by itself", |e| e.deaths.push("order-svc-1".to_owned()), Rule::NobodyDies),
        ("a late 504", |e| e.told.push(Told { sent_ms: 6_100, done_ms: 7_000, ..told(3, 504) }), Rule::AvailableAgain),
        (
            "a late loss",
            |e| e.told.push(Told { sent_ms: 23_100, done_ms: 23_200, ..told(3, 503) }),
            Rule::AvailableAgain,
        ),
        (
            "a late hang",
            |e| e.told.push(Told { sent_ms: 6_100, done_ms: 20_500, ..told(0, 200) }),
            Rule::AvailableAgain,
        ),
    ];
    for (what, plant, rule) in plants {
        let mut evidence = sound();
        plant(&mut evidence);
        let found: Vec<Rule> = judge(&evidence).into_iter().map(|finding| finding.rule).collect();
        assert!(found.contains(&rule), "{what}: {found:?}");
    }
}

#[test]
fn a_run_without_successes_shows_nothing() {
    let struck = vec![killed(0, 0, "gateway")];
    let Evidence { floors, during, .. } = sound();
    let told = vec![told(3, 504)];
    let evidence = Evidence { told, struck, load_lasted: true, floors, during, ..Evidence::default() };
    assert_eq!(judge(&evidence).iter().map(|finding| finding.rule).collect::<Vec<_>>(), [Rule::ShowsSomething]);
}

impl Evidence {
    fn standing(&mut self, order: u64, standing: Standing) {
        self.orders.get_mut(&order).expect("an order of the sound evidence").standing = standing;
    }
    fn attempt(&mut self, order: u64, attempt: (Saga, bool)) {
        self.orders.get_mut(&order).expect("an order of the sound evidence").attempts.push(attempt);
    }
    fn set_keys(&mut self, kind: &str, after: u64) {
        let keys = self.keys.iter_mut().find(|keys| keys.kind == kind);
        keys.expect("keys of the sound evidence").after = after;
    }
    fn lose_item(&mut self, item: &str) {
        self.stock.remove(item);
    }
    fn lose_user(&mut self, user: &str) {
        self.credit.remove(user);
    }
    fn set_stock(&mut self, item: &str, after: u64) {
        self.stock.get_mut(item).expect("an item of the sound evidence").1 = after;
    }
    fn set_credit(&mut self, user: &str, after: u64) {
        self.credit.get_mut(user).expect("a user of the sound evidence").1 = after;
    }
}
