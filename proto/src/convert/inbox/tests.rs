//! What must hold for starts that are damaged, and for records of a later program.

use std::collections::BTreeMap;

use prost::encoding::{WireType, encode_key, encode_varint};
use saga_core::ids::{Lane, Ordinal, SagaId, Starter, TraceContext};
use uuid::Uuid;

use super::*;

fn start() -> Start {
    Start {
        saga: SagaId(Uuid::from_u128(0x017f_22e2_79b0_7cc3_98c4_dc0c_0c07_398f)),
        ordinal: Ordinal {
            starter: Starter { name: "order".to_owned(), store: Uuid::from_u128(5) },
            lane: Lane(7),
            sequence: 41,
        },
        definition: "checkout".to_owned(),
        inputs: BTreeMap::from([("reserve".to_owned(), Bytes::from_static(b"x"))]),
        results_topic: "order.results".to_owned(),
        trace: TraceContext::default(),
    }
}

/// A record whose start has these bytes after the ones of `head`.
fn record_with(head: &wire::Start, tail: &[u8]) -> Vec<u8> {
    let mut body = head.encode_to_vec();
    body.extend_from_slice(tail);
    let mut bytes = vec![0x08, 0x01];
    encode_key(2, WireType::LengthDelimited, &mut bytes);
    encode_varint(body.len() as u64, &mut bytes);
    bytes.extend(body);
    bytes
}

fn unusable(start: Start) -> InboxEvent {
    InboxEvent::Start(Start { definition: String::new(), inputs: BTreeMap::new(), ..start })
}

#[test]
fn a_start_with_a_damaged_tail_keeps_its_ordinal() {
    let head = wire::Start { definition: String::new(), inputs: BTreeMap::new(), ..wire::Start::from(&start()) };
    // Field 4 (definition) with bytes that are no UTF-8; field 5 (inputs) cut off; an impossible key.
    for tail in [&[0x22_u8, 2, 0xff, 0xfe][..], &[0x2a, 0x7f, 1], &[0x07]] {
        let event = InboxEvent::decode(&record_with(&head, tail)).expect("the ids can be read");
        assert_eq!(event, unusable(start()), "tail {tail:?}");
    }
}

#[test]
fn a_start_with_an_empty_step_name_ends_as_invalid() {
    let mut body = wire::Start::from(&start());
    body.inputs.insert(String::new(), Bytes::new());
    let event = InboxEvent::decode(&record_with(&body, &[])).expect("the ids can be read");
    assert_eq!(event, unusable(start()));
}

#[test]
fn a_start_without_a_results_topic_answers_to_its_starter() {
    let body = wire::Start { results_topic: String::new(), ..wire::Start::from(&start()) };
    assert_eq!(InboxEvent::decode(&record_with(&body, &[])), Ok(InboxEvent::Start(start())));
}

#[test]
fn a_start_whose_ordinal_cannot_be_read_is_malformed() {
    let without_ordinal = wire::Start { ordinal: None, ..wire::Start::from(&start()) };
    let short_id = wire::Start { saga: Bytes::from_static(b"short"), ..wire::Start::from(&start()) };
    for body in [without_ordinal, short_id] {
        for tail in [&[][..], &[0x07]] {
            let decoded = InboxEvent::decode(&record_with(&body, tail));
            assert!(matches!(decoded, Err(DecodeError::Malformed { .. })), "{decoded:?}");
        }
    }
}

#[test]
fn an_event_of_a_later_program_is_not_malformed() {
    // Field 15, not known today.
    let decoded = InboxEvent::decode(&[0x08, 0x01, 0x7a, 0x01, 0x00]);
    assert_eq!(decoded, Err(DecodeError::UnknownFormat { what: RECORD, number: 0 }));
    // An act that is not known today.
    let act = wire::OperatorAct { saga: write_uuid(Uuid::nil()), act: 9 };
    let bytes = wire::InboxRecord { format: FORMAT, event: Some(Event::Operator(act)) }.encode_to_vec();
    assert_eq!(InboxEvent::decode(&bytes), Err(DecodeError::UnknownFormat { what: OPERATOR, number: 9 }));
}

#[test]
fn nothing_and_nonsense_are_malformed() {
    for bytes in [&b""[..], b"\x08", b"\x08\x01", b"\x08\x00\x12\x00", b"hello", b"\x12\x00"] {
        let decoded = InboxEvent::decode(bytes);
        assert!(matches!(decoded, Err(DecodeError::Malformed { .. })), "{bytes:?}: {decoded:?}");
    }
}
