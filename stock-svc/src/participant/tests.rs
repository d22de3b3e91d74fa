//! Reserving and putting back, over a map.

use std::collections::BTreeMap;

use proptest::prelude::*;
use saga_core::ids::{CommandId, Direction, Lane, Ordinal, SagaId, Starter, TraceContext};
use uuid::Uuid;

use super::*;

type Values = BTreeMap<String, Bytes>;

fn command(operation: &str, input: Bytes) -> Command {
    let starter = Starter { name: "order".to_owned(), store: Uuid::nil() };
    Command {
        id: CommandId { saga: SagaId(Uuid::nil()), step: "reserve".to_owned(), direction: Direction::Action },
        ordinal: Ordinal { starter, lane: Lane(0), sequence: 0 },
        operation: operation.to_owned(),
        input,
        uses: BTreeMap::new(),
        may_refuse: true,
        trace: TraceContext::default(),
    }
}

fn lines(lines: &[(&str, u64)]) -> Bytes {
    let line = |(item_id, quantity): &(&str, u64)| ReserveLine { item_id: (*item_id).to_owned(), quantity: *quantity };
    ReserveInput::new(lines.iter().map(line).collect()).encode()
}

fn shelf(items: &[(&str, u64)]) -> Values {
    items.iter().map(|(id, stock)| (item_key(id), Item { stock: *stock, price: 1 }.encode())).collect()
}

fn ask(values: &mut Values, asked: &[(&str, u64)]) -> Decision {
    Stock.action(&command(RESERVE, lines(asked)), values).expect("readable")
}

fn stock(values: &Values, id: &str) -> u64 {
    Item::decode(&values[&item_key(id)]).expect("an item").stock
}

#[test]
fn lines_of_the_same_item_are_taken_together() {
    let mut values = shelf(&[("a", 5), ("b", 9)]);
    let Decision::Apply { undo, .. } = ask(&mut values, &[("a", 2), ("b", 1), ("a", 3)]) else { panic!("refused") };
    assert_eq!((stock(&values, "a"), stock(&values, "b")), (0, 8));
    assert_eq!(undo, lines(&[("a", 5), ("b", 1)]));
    let undone = Stock.undo(&command(RESERVE, Bytes::new()), &undo, &mut values);
    assert_eq!(undone, Ok(UndoOutcome::Reversed));
    assert_eq!(values, shelf(&[("a", 5), ("b", 9)]));
    assert!(
        matches!(ask(&mut values, &[("a", 3), ("a", 3)]), Decision::Refuse(refusal) if refusal.code == "out-of-stock")
    );
}

#[test]
fn refusals_have_codes() {
    let code = |asked: &[(&str, u64)]| match ask(&mut shelf(&[("a", 5)]), asked) {
        Decision::Refuse(refusal) => refusal.code,
        other => format!("{other:?}"),
    };
    assert_eq!(code(&[("a", 6)]), "out-of-stock");
    assert_eq!(code(&[("nothing", 1)]), "item-not-found");
    assert_eq!(code(&[("a", u64::MAX), ("a", 1)]), "out-of-stock");
}

#[test]
fn nonsense_is_refused_and_the_unknown_fails() {
    let decide = |operation, input| Stock.action(&command(operation, input), &mut Values::new()).expect("readable");
    let nonsense = decide(RESERVE, Bytes::from_static(b"nonsense"));
    assert!(matches!(nonsense, Decision::Refuse(refusal) if refusal.code == INVALID_INPUT));
    assert!(matches!(decide(RESERVE, Bytes::from_static(b"\x08\x07")), Decision::Fail { .. }));
    assert!(matches!(decide("paint", lines(&[])), Decision::Fail { .. }));
}

#[test]
fn what_is_gone_is_named_and_the_rest_put_back() {
    let mut values = shelf(&[("a", 0)]);
    let undone = Stock.undo(&command(RESERVE, Bytes::new()), &lines(&[("a", 2), ("b", 1)]), &mut values);
    assert_eq!(undone, Ok(UndoOutcome::ObjectGone { object: "items b".to_owned() }));
    assert_eq!(stock(&values, "a"), 2);
}

#[test]
fn the_keys_are_those_that_are_read() {
    let keys = Stock.keys(&command(RESERVE, lines(&[("a", 1), ("b", 1)])));
    assert_eq!(keys, ["item:a", "item:b"]);
    assert!(Stock.keys(&command(RESERVE, Bytes::from_static(b"nonsense"))).is_empty());
}

proptest! {
    #[test]
    fn an_undo_is_exact(asked in prop::collection::vec(("[a-d]", 0_u64..6), 0..8), held in 0_u64..12) {
        let all: Vec<(&str, u64)> = ["a", "b", "c"].map(|id| (id, held)).to_vec();
        let mut values = shelf(&all);
        let asked: Vec<(&str, u64)> = asked.iter().map(|(id, quantity)| (id.as_str(), *quantity)).collect();
        if let Decision::Apply { undo, .. } = ask(&mut values, &asked) {
            let wanted: u64 = asked.iter().map(|(_, quantity)| quantity).sum();
            let left: u64 = ["a", "b", "c"].iter().map(|id| stock(&values, id)).sum();
            prop_assert_eq!(left + wanted, 3 * held);
            prop_assert_eq!(Stock.undo(&command(RESERVE, Bytes::new()), &undo, &mut values), Ok(UndoOutcome::Reversed));
            prop_assert_eq!(values, shelf(&all));
        }
    }
}
