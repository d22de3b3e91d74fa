//! Charging and giving back, over a map.

use std::collections::BTreeMap;

use saga_core::ids::{CommandId, Direction, Lane, Ordinal, SagaId, Starter, TraceContext};
use uuid::Uuid;

use super::*;

type Values = BTreeMap<String, Bytes>;

fn command(operation: &str, input: Bytes) -> Command {
    let starter = Starter { name: "order".to_owned(), store: Uuid::nil() };
    Command {
        id: CommandId { saga: SagaId(Uuid::nil()), step: "charge".to_owned(), direction: Direction::Action },
        ordinal: Ordinal { starter, lane: Lane(0), sequence: 0 },
        operation: operation.to_owned(),
        input,
        uses: BTreeMap::new(),
        may_refuse: true,
        trace: TraceContext::default(),
    }
}

fn purse(credit: u64) -> Values {
    Values::from([(user_key("u"), User { credit }.encode())])
}

fn ask(values: &mut Values, user_id: &str, amount: u64) -> Decision {
    let input = ChargeInput::new(user_id, amount).encode();
    Payment.action(&command(CHARGE, input), values).expect("readable")
}

#[test]
fn a_charge_and_its_undo_leave_nothing() {
    let mut values = purse(7);
    let Decision::Apply { undo, .. } = ask(&mut values, "u", 7) else { panic!("refused") };
    assert_eq!(values, purse(0));
    let undone = Payment.undo(&command(CHARGE, Bytes::new()), &undo, &mut values);
    assert_eq!((undone, values), (Ok(UndoOutcome::Reversed), purse(7)));
}

#[test]
fn refusals_have_codes() {
    let code = |user_id, amount| match ask(&mut purse(5), user_id, amount) {
        Decision::Refuse(refusal) => refusal.code,
        other => format!("{other:?}"),
    };
    assert_eq!(code("u", 6), "insufficient-credit");
    assert_eq!(code("nobody", 1), "user-not-found");
}

#[test]
fn nonsense_is_refused_and_the_unknown_fails() {
    let decide = |operation, input| Payment.action(&command(operation, input), &mut purse(1)).expect("readable");
    let nonsense = decide(CHARGE, Bytes::from_static(b"nonsense"));
    assert!(matches!(nonsense, Decision::Refuse(refusal) if refusal.code == INVALID_INPUT));
    assert!(matches!(decide(CHARGE, Bytes::from_static(b"\x08\x07")), Decision::Fail { .. }));
    assert!(matches!(decide("paint", ChargeInput::new("u", 1).encode()), Decision::Fail { .. }));
}

#[test]
fn a_user_who_is_gone_is_named() {
    let done = ChargeInput::new("u", 2).encode();
    let undone = Payment.undo(&command(CHARGE, Bytes::new()), &done, &mut Values::new());
    assert_eq!(undone, Ok(UndoOutcome::ObjectGone { object: "user u".to_owned() }));
}

#[test]
fn the_keys_are_those_that_are_read() {
    assert_eq!(Payment.keys(&command(CHARGE, ChargeInput::new("u", 2).encode())), ["user:u"]);
    assert!(Payment.keys(&command(CHARGE, Bytes::from_static(b"nonsense"))).is_empty());
}
