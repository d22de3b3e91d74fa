//! What is written is read back as it was, and no bytes make the reader panic.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proto::quarantine::Quarantined;
use proto::shop::{ChargeInput, Item, Order, ReserveInput, ReserveLine, User};
use proto::{DecodeError, Wire};
use saga_core::ended::EndedSequences;
use saga_core::ids::{CommandId, Direction, Lane, Ordinal, SagaId, Starter, TraceContext};
use saga_core::participant::{ParticipantLane, StepRecord, StepRecords};
use saga_core::record::{
    Command, CommandRecord, DeadlineKind, Floor, InboxEvent, OperatorAct, Outcome, Refusal, Reply, ResultRecord,
    SagaOutcome, SagaResult, Start, Timer, UndoCause, UndoNotice,
};
use saga_core::starter::StarterLane;
use uuid::Uuid;

fn word() -> impl Strategy<Value = String> {
    "[a-zé-]{1,12}"
}

fn text() -> impl Strategy<Value = String> {
    ".{0,12}"
}

fn blob() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn blobs() -> impl Strategy<Value = BTreeMap<String, Bytes>> {
    prop::collection::btree_map(word(), blob(), 0..4)
}

fn saga() -> impl Strategy<Value = SagaId> {
    any::<u128>().prop_map(|id| SagaId(Uuid::from_u128(id)))
}

fn starter() -> impl Strategy<Value = Starter> {
    (word(), any::<u128>()).prop_map(|(name, store)| Starter { name, store: Uuid::from_u128(store) })
}

fn ordinal() -> impl Strategy<Value = Ordinal> {
    (starter(), any::<u32>(), any::<u64>()).prop_map(|(starter, lane, sequence)| Ordinal {
        starter,
        lane: Lane(lane),
        sequence,
    })
}

fn trace() -> impl Strategy<Value = TraceContext> {
    (text(), text()).prop_map(|(traceparent, tracestate)| TraceContext { traceparent, tracestate })
}

fn refusal() -> impl Strategy<Value = Refusal> {
    (word(), text()).prop_map(|(code, reason)| Refusal { code, reason })
}

fn ended() -> impl Strategy<Value = EndedSequences> {
    (any::<u64>(), prop::collection::vec((any::<u64>(), any::<u64>()), 0..6))
        .prop_map(|(below, ranges)| EndedSequences::new(below, ranges))
}

fn command_id() -> impl Strategy<Value = CommandId> {
    (saga(), word(), prop_oneof![Just(Direction::Action), Just(Direction::Undo)])
        .prop_map(|(saga, step, direction)| CommandId { saga, step, direction })
}

fn start() -> impl Strategy<Value = Start> {
    (saga(), ordinal(), text(), blobs(), word(), trace()).prop_map(
        |(saga, ordinal, definition, inputs, results_topic, trace)| Start {
            saga,
            ordinal,
            definition,
            inputs,
            results_topic,
            trace,
        },
    )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        blob().prop_map(|output| Outcome::Applied { output }),
        refusal().prop_map(Outcome::Refused),
        Just(Outcome::Undone),
        Just(Outcome::Cancelled),
        text().prop_map(|reason| Outcome::Failed { reason }),
        Just(Outcome::Stale),
    ]
}

fn deadline() -> impl Strategy<Value = DeadlineKind> {
    prop_oneof![
        word().prop_map(DeadlineKind::StepTimeout),
        word().prop_map(DeadlineKind::StepRetry),
        Just(DeadlineKind::Saga),
    ]
}

fn inbox_event() -> impl Strategy<Value = InboxEvent> {
    prop_oneof![
        start().prop_map(InboxEvent::Start),
        (command_id(), ordinal(), outcome()).prop_map(|(id, ordinal, outcome)| InboxEvent::Reply(Reply {
            id,
            ordinal,
            outcome
        })),
        (saga(), deadline(), 0..=i64::MAX).prop_map(|(saga, kind, armed_by)| InboxEvent::Timer(Timer {
            saga,
            kind,
            armed_by
        })),
        (saga(), prop_oneof![Just(OperatorAct::Retry), Just(OperatorAct::Undo)])
            .prop_map(|(saga, act)| InboxEvent::Operator { saga, act }),
        text().prop_map(|text| InboxEvent::Activate { text }),
        any::<u32>().prop_map(InboxEvent::FoldVersion),
    ]
}

fn command_record() -> impl Strategy<Value = CommandRecord> {
    let command = (command_id(), ordinal(), word(), blob(), blobs(), any::<bool>(), trace()).prop_map(
        |(id, ordinal, operation, input, uses, may_refuse, trace)| {
            CommandRecord::Command(Command { id, ordinal, operation, input, uses, may_refuse, trace })
        },
    );
    let floor = (starter(), ended()).prop_map(|(starter, ended)| CommandRecord::Floor(Floor { starter, ended }));
    prop_oneof![command, floor]
}

fn result_record() -> impl Strategy<Value = ResultRecord> {
    let cause = prop_oneof![
        Just(UndoCause::Refused),
        Just(UndoCause::TimedOut),
        Just(UndoCause::Invalid),
        Just(UndoCause::Operator),
    ];
    let outcome = prop_oneof![
        Just(SagaOutcome::Completed),
        (cause, prop::option::of(word()), refusal()).prop_map(|(cause, step, refusal)| SagaOutcome::Undone {
            cause,
            step,
            refusal
        }),
    ];
    let ended = (saga(), ordinal(), outcome, trace())
        .prop_map(|(saga, ordinal, outcome, trace)| ResultRecord::Ended(SagaResult { saga, ordinal, outcome, trace }));
    let undoing = (saga(), ordinal(), trace())
        .prop_map(|(saga, ordinal, trace)| ResultRecord::Undoing(UndoNotice { saga, ordinal, trace }));
    prop_oneof![ended, undoing]
}

fn participant_lane() -> impl Strategy<Value = ParticipantLane> {
    let floors = || prop::collection::btree_map(starter(), ended(), 0..4);
    (0..=i64::MAX, any::<u64>(), floors(), floors()).prop_map(|(next, behind, floors, forgotten)| {
        let replied = next - i64::try_from(behind % 1000).unwrap_or(0).min(next);
        ParticipantLane { next, replied, floors, forgotten }
    })
}

fn step_records() -> impl Strategy<Value = StepRecords> {
    let record = prop_oneof![
        (blob(), blob()).prop_map(|(output, undo)| StepRecord::Applied { output, undo }),
        refusal().prop_map(StepRecord::Refused),
        Just(StepRecord::Undone),
        Just(StepRecord::Cancelled),
    ];
    (saga(), prop::collection::btree_map(word(), record, 0..4)).prop_map(|(saga, steps)| StepRecords { saga, steps })
}

fn starter_lane() -> impl Strategy<Value = StarterLane> {
    (any::<u64>(), 0..=i64::MAX, ended()).prop_map(|(next_sequence, results_next, ended)| StarterLane {
        next_sequence,
        results_next,
        ended,
    })
}

fn quarantined() -> impl Strategy<Value = Quarantined> {
    let headers = prop::collection::vec((text(), blob()), 0..3);
    (word(), any::<u32>(), 0..=i64::MAX, text(), blob(), headers, any::<u64>()).prop_map(
        |(topic, partition, offset, reason, payload, headers, cut_from_bytes)| Quarantined {
            topic,
            partition,
            offset,
            reason,
            payload,
            cut_from_bytes,
            headers,
        },
    )
}

fn reserve_input() -> impl Strategy<Value = ReserveInput> {
    prop::collection::vec((word(), any::<u64>()), 0..5).prop_map(|lines| {
        ReserveInput::new(lines.into_iter().map(|(item_id, quantity)| ReserveLine { item_id, quantity }).collect())
    })
}

/// Writes and reads; then reads every prefix and every damaged copy, which must answer, whatever it answers.
fn check<T: Wire + PartialEq + std::fmt::Debug>(value: &T, flip: usize) -> Result<(), TestCaseError> {
    let bytes = value.encode();
    prop_assert_eq!(&T::decode(&bytes).expect("own bytes"), value);
    for end in 0..bytes.len() {
        let _ = T::decode(&bytes[..end]);
    }
    let mut damaged = bytes.to_vec();
    let at = flip % damaged.len();
    damaged[at] ^= 1 << (flip % 8);
    let _ = T::decode(&damaged);
    // Another format is told apart whatever follows.
    let mut newer = bytes.to_vec();
    newer[1] = 2;
    let is_unknown = matches!(T::decode(&newer), Err(DecodeError::UnknownFormat { number: 2, .. }));
    prop_assert!(is_unknown);
    Ok(())
}

macro_rules! round_trips {
    ($($test:ident: $strategy:expr;)*) => {
        proptest! {
            $(
                #[test]
                fn $test(value in $strategy, flip in any::<usize>()) {
                    check(&value, flip)?;
                }
            )*
        }
    };
}

round_trips! {
    inbox_event_round_trips: inbox_event();
    start_round_trips: start();
    command_record_round_trips: command_record();
    result_record_round_trips: result_record();
    participant_lane_round_trips: participant_lane();
    step_records_round_trips: step_records();
    starter_lane_round_trips: starter_lane();
    quarantined_round_trips: quarantined();
    reserve_input_round_trips: reserve_input();
    charge_input_round_trips: (word(), any::<u64>()).prop_map(|(user, amount)| ChargeInput::new(user, amount));
    item_round_trips: (any::<u64>(), any::<u64>()).prop_map(|(stock, price)| Item::new(stock, price));
    user_round_trips: any::<u64>().prop_map(User::new);
    order_round_trips: word().prop_map(Order::new);
}

proptest! {
    #[test]
    fn garbage_never_panics(garbage in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut with_format = vec![0x08, 0x01];
        with_format.extend(&garbage);
        for bytes in [&garbage, &with_format] {
            let _ = InboxEvent::decode(bytes);
            let _ = CommandRecord::decode(bytes);
            let _ = ResultRecord::decode(bytes);
            let _ = ParticipantLane::decode(bytes);
            let _ = StepRecords::decode(bytes);
            let _ = StarterLane::decode(bytes);
            let _ = Quarantined::decode(bytes);
            let _ = Order::decode(bytes);
        }
    }
}

#[test]
fn equal_values_have_equal_bytes() {
    let steps =
        |order: &[&str]| order.iter().map(|step| ((*step).to_owned(), StepRecord::Undone)).collect::<BTreeMap<_, _>>();
    let saga = SagaId(Uuid::from_u128(7));
    let one = StepRecords { saga, steps: steps(&["a", "b", "c"]) };
    let other = StepRecords { saga, steps: steps(&["c", "a", "b"]) };
    assert_eq!(one.encode(), other.encode());
}

#[test]
fn a_position_beyond_next_is_impossible() {
    let bytes = ParticipantLane { next: 4, replied: 5, ..Default::default() }.encode();
    assert!(matches!(ParticipantLane::decode(&bytes), Err(DecodeError::Malformed { .. })));
}
