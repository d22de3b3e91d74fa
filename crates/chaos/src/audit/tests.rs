//! The auditor is tested by what it must find: one planted corruption after the other in evidence that passes.

use super::*;

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
        strikes: 3,
    }
}

#[test]
fn sound_evidence_passes() {
    assert_eq!(judge(&sound()), []);
}

#[test]
fn every_planted_corruption_is_found() {
    type Plant = (&'static str, fn(&mut Evidence), Rule);
    let plants: [Plant; 20] = [
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
        ("a run without faults", |e| e.strikes = 0, Rule::ShowsSomething),
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
    let evidence = Evidence { told: vec![told(3, 504)], orders: BTreeMap::new(), strikes: 1, ..Evidence::default() };
    assert_eq!(judge(&evidence).iter().map(|finding| finding.rule).collect::<Vec<_>>(), [Rule::ShowsSomething]);
}

impl Evidence {
    fn standing(&mut self, order: u64, standing: Standing) {
        self.orders.get_mut(&order).expect("an order of the sound evidence").standing = standing;
    }
    fn attempt(&mut self, order: u64, attempt: (Saga, bool)) {
        self.orders.get_mut(&order).expect("an order of the sound evidence").attempts.push(attempt);
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
