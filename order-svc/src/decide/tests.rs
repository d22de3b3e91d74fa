use proptest::prelude::*;
use saga_core::ids::{Lane, Starter, TraceContext};
use saga_core::record::{Refusal, UndoCause};
use uuid::Uuid;

use super::*;

fn saga(number: u128) -> SagaId {
    SagaId(Uuid::from_u128(number))
}

fn ordinal() -> Ordinal {
    Ordinal { starter: Starter { name: "order".into(), store: Uuid::nil() }, lane: Lane(7), sequence: 41 }
}

fn line(item_id: &str, quantity: u64, price: u64) -> Line {
    Line { item_id: item_id.into(), quantity, price }
}

fn result(number: u128, outcome: SagaOutcome) -> SagaResult {
    SagaResult { saga: saga(number), ordinal: ordinal(), outcome, trace: TraceContext::default() }
}

fn refused() -> SagaOutcome {
    let refusal = Refusal { code: "out-of-stock".into(), reason: "no b".into() };
    SagaOutcome::Undone { cause: UndoCause::Refused, step: Some("reserve".into()), refusal }
}

fn order_with_line() -> Order {
    let mut order = Order::new("u");
    add_item(&mut order, line("a", 2, 3)).unwrap();
    order
}

#[test]
fn lines_are_kept_in_order_and_added_up() {
    let mut order = order_with_line();
    add_item(&mut order, line("b", 1, 5)).unwrap();
    add_item(&mut order, line("a", 4, 1)).unwrap();
    assert_eq!(order.total_cost, 15);
    assert_eq!(order.lines.iter().map(|line| line.item_id.as_str()).collect::<Vec<_>>(), ["a", "b", "a"]);
    assert_eq!(merged_lines(&order), BTreeMap::from([("a", 6), ("b", 1)]));
}

#[test]
fn sums_stay_amounts() {
    let table = [
        (line("b", MAX_AMOUNT, MAX_AMOUNT), Err(EditRefusal::TooLarge)),
        (line("b", MAX_AMOUNT, 1), Err(EditRefusal::TooLarge)),
        (line("b", MAX_AMOUNT - 6, 1), Ok(())),
        (line("b", MAX_AMOUNT, 0), Ok(())),
        (line("a", MAX_AMOUNT, 0), Err(EditRefusal::TooLarge)),
        (line("a", MAX_AMOUNT - 2, 0), Ok(())),
    ];
    for (line, expected) in table {
        let mut order = order_with_line();
        let before = order.clone();
        assert_eq!(add_item(&mut order, line.clone()), expected, "{line:?}");
        assert_eq!(order != before, expected.is_ok(), "a refused line changes nothing");
    }
}

#[test]
fn an_order_has_at_most_a_thousand_lines() {
    let mut order = Order::new("u");
    for _ in 0..MAX_LINES {
        add_item(&mut order, line("a", 1, 1)).unwrap();
    }
    assert_eq!(add_item(&mut order, line("a", 1, 1)), Err(EditRefusal::TooManyLines));
}

#[test]
fn the_lock_holds_until_the_saga_ends() {
    let mut order = order_with_line();
    assert_eq!(checkout(&mut order, saga(1), &ordinal()), Checkout::Started);
    assert_eq!(order.status, Status::CheckingOut { saga: saga(1), lane: 7, sequence: 41, course: Course::Forward });
    assert_eq!(add_item(&mut order, line("b", 1, 1)), Err(EditRefusal::CheckingOut(saga(1))));
    assert_eq!(checkout(&mut order, saga(2), &ordinal()), Checkout::Joins(saga(1)));
    assert_eq!(about(&order, saga(1)), About::Running);

    let locked = order.clone();
    assert_eq!(apply_result(&mut order, &result(2, SagaOutcome::Completed)), Applied::NotCurrent);
    assert_eq!(order, locked, "a result of another saga changes nothing");

    assert_eq!(apply_result(&mut order, &result(1, SagaOutcome::Completed)), Applied::Yes);
    assert_eq!(order.status, Status::Paid { saga: Some(saga(1)) });
    assert_eq!(checkout(&mut order, saga(3), &ordinal()), Checkout::WasPaid(Some(saga(1))));
    assert_eq!(add_item(&mut order, line("b", 1, 1)), Err(EditRefusal::Paid));
    assert_eq!(about(&order, saga(1)), About::Ended(Verdict::Paid));
}

#[test]
fn a_refused_order_is_open_again_and_its_next_checkout_is_a_new_saga() {
    let mut order = order_with_line();
    checkout(&mut order, saga(1), &ordinal());
    assert_eq!(apply_result(&mut order, &result(1, refused())), Applied::Yes);
    assert_eq!(order.status, Status::Open);
    assert_eq!(about(&order, saga(1)), About::Ended(verdict(&refused())));
    add_item(&mut order, line("b", 1, 1)).unwrap();
    assert_eq!(checkout(&mut order, saga(2), &ordinal()), Checkout::Started);
    assert_eq!(apply_result(&mut order, &result(1, SagaOutcome::Completed)), Applied::NotCurrent, "late or forged");
    assert_eq!(about(&order, saga(1)), About::Ended(verdict(&refused())), "the answer never flips");
    assert_eq!(about(&order, saga(2)), About::Running);
    assert_eq!(about(&order, saga(3)), About::Unknown);
}

#[test]
fn a_saga_that_the_order_has_forgotten_was_refused() {
    let mut order = order_with_line();
    for number in 1..=10 {
        checkout(&mut order, saga(number), &ordinal());
        assert_eq!(apply_result(&mut order, &result(number, refused())), Applied::Yes);
    }
    assert_eq!(order.attempts.len(), MAX_ATTEMPTS);
    for number in [1, 2] {
        let told = about(&order, saga(number));
        assert!(
            matches!(&told, About::Ended(Verdict::Undone { code, .. }) if code == "forgotten"),
            "{number}: {told:?}"
        );
    }
    assert_eq!(about(&order, saga(3)), About::Ended(verdict(&refused())), "still remembered");
    assert_eq!(about(&order, saga(11)), About::Unknown, "newer than all");
    assert_eq!(about(&order, saga(0)), About::Unknown, "of an order that this one has replaced");
}

#[test]
fn an_undo_is_noted_by_the_order_that_waits_for_it_and_by_no_other() {
    let mut order = order_with_line();
    assert_eq!(note_undo(&mut order, saga(1)), Applied::NotCurrent);
    checkout(&mut order, saga(1), &ordinal());
    assert_eq!(note_undo(&mut order, saga(2)), Applied::NotCurrent);
    assert_eq!(note_undo(&mut order, saga(1)), Applied::Yes);
    assert_eq!(order.status, Status::CheckingOut { saga: saga(1), lane: 7, sequence: 41, course: Course::Undoing });
    assert_eq!(checkout(&mut order, saga(3), &ordinal()), Checkout::Joins(saga(1)), "it stays locked");
    apply_result(&mut order, &result(1, refused()));
    assert_eq!(order.status, Status::Open);
    checkout(&mut order, saga(2), &ordinal());
    assert_eq!(note_undo(&mut order, saga(1)), Applied::NotCurrent, "late");
    assert_eq!(order.status, Status::CheckingOut { saga: saga(2), lane: 7, sequence: 41, course: Course::Forward });
}

#[test]
fn an_order_without_lines_is_paid_without_a_saga() {
    let mut order = Order::new("u");
    assert_eq!(checkout(&mut order, saga(1), &ordinal()), Checkout::PaidForNothing);
    assert_eq!(checkout(&mut order, saga(2), &ordinal()), Checkout::WasPaid(None));
}

#[test]
fn the_last_attempts_are_remembered() {
    let mut order = order_with_line();
    for number in 0..20 {
        checkout(&mut order, saga(number), &ordinal());
        apply_result(&mut order, &result(number, refused()));
    }
    let remembered: Vec<_> = order.attempts.iter().map(|attempt| attempt.saga).collect();
    assert_eq!(remembered, (12..20).map(saga).collect::<Vec<_>>());
}

proptest! {
    /// Whatever is asked in whatever order: the total is the sum of the lines, a paid order stays as it is, and at
    /// most one saga is at work, which only its own result ends.
    #[test]
    fn the_state_machine_keeps_its_promises(acts in prop::collection::vec((0_u8..4, 0_u128..6, 0_u64..9), 0..60)) {
        let mut order = Order::new("u");
        for (act, number, quantity) in acts {
            let before = order.clone();
            match act {
                0 => { let _ = add_item(&mut order, line("a", quantity + 1, 7)); }
                1 => { checkout(&mut order, saga(number), &ordinal()); }
                2 => { apply_result(&mut order, &result(number, SagaOutcome::Completed)); }
                _ => { apply_result(&mut order, &result(number, refused())); }
            }
            let sum: u64 = order.lines.iter().map(|line| line.quantity * line.price).sum();
            prop_assert_eq!(sum, order.total_cost);
            prop_assert!(order.attempts.len() <= MAX_ATTEMPTS);
            match before.status {
                Status::Paid { .. } => prop_assert_eq!(&order, &before),
                Status::CheckingOut { saga: current, .. } => {
                    prop_assert!(order == before || (act >= 2 && saga(number) == current));
                    prop_assert_eq!(&order.lines, &before.lines);
                }
                Status::Open => {}
            }
        }
    }
}
