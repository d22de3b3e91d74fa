//! What is stored comes back as it was; what cannot be read says so.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use saga_core::ended::EndedSequences;
use saga_core::ids::{Ordinal, Starter, TraceContext};
use saga_core::record::{Refusal, Start, UndoCause};
use saga_core::saga::{ActionState, Attention, AttentionCause, Deadline, Phase, Saga, StepState, UndoState, Undoing};

use super::*;

const STEPS: usize = 2;
const TEXT: &str = "\
name: buy
version: 3
deadline_ms: 20000
steps:
  - name: reserve
    participant: stock
  - name: charge
    participant: payment
    after: [reserve]
";

fn definition() -> Arc<Definition> {
    Arc::new(Definition::parse("buy.yaml", TEXT).unwrap())
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn payload() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

fn starter() -> impl Strategy<Value = Starter> {
    ("[a-z]{1,8}", uuid()).prop_map(|(name, store)| Starter { name, store })
}

fn ordinal() -> impl Strategy<Value = Ordinal> {
    (starter(), any::<u32>(), any::<u64>()).prop_map(|(starter, lane, sequence)| Ordinal {
        starter,
        lane: Lane(lane),
        sequence,
    })
}

fn trace() -> impl Strategy<Value = TraceContext> {
    ("[0-9a-f-]{0,55}", "[a-z=]{0,9}").prop_map(|(traceparent, tracestate)| TraceContext { traceparent, tracestate })
}

fn refusal() -> impl Strategy<Value = Refusal> {
    ("[a-z-]{1,12}", ".{0,20}").prop_map(|(code, reason)| Refusal { code, reason })
}

fn deadline() -> impl Strategy<Value = Deadline> {
    (any::<i64>(), 0..i64::MAX).prop_map(|(at_ms, armed_by)| Deadline { at_ms, armed_by })
}

fn phase() -> impl Strategy<Value = Phase> {
    let cause =
        prop::sample::select(vec![UndoCause::Refused, UndoCause::TimedOut, UndoCause::Invalid, UndoCause::Operator]);
    let undoing = (cause, prop::option::of(0..STEPS), refusal(), any::<i64>())
        .prop_map(|(cause, step, refusal, since_ms)| Phase::Undoing(Undoing { cause, step, refusal, since_ms }));
    prop_oneof![Just(Phase::Forward), undoing]
}

fn step() -> impl Strategy<Value = StepState> {
    let action = prop_oneof![
        Just(ActionState::NotIssued),
        Just(ActionState::Issued),
        payload().prop_map(|output| ActionState::Applied { output }),
        refusal().prop_map(ActionState::Refused),
    ];
    let undo = prop::sample::select(vec![UndoState::NotIssued, UndoState::Issued, UndoState::Undone]);
    let times = (any::<i64>(), any::<u32>(), prop::option::of(deadline()), prop::option::of(deadline()));
    (action, undo, times).prop_map(|(action, undo, (issued_ms, failures, timeout, retry))| StepState {
        action,
        undo,
        issued_ms,
        failures,
        timeout,
        retry,
    })
}

fn attention() -> impl Strategy<Value = Attention> {
    let cause = prop::sample::select(vec![
        AttentionCause::Unanswered,
        AttentionCause::Stale,
        AttentionCause::RefusedRetriable,
        AttentionCause::CancelledWithoutUndo,
        AttentionCause::SetAside,
    ]);
    (cause, 0..STEPS, any::<i64>()).prop_map(|(cause, step, since_ms)| Attention { cause, step, since_ms })
}

fn saga() -> impl Strategy<Value = Saga> {
    let names = (uuid().prop_map(SagaId), ordinal(), "[a-z.]{1,12}", trace());
    let parts = (
        prop::collection::vec(payload(), STEPS),
        prop::collection::vec(step(), STEPS),
        phase(),
        prop::option::of(deadline()),
        prop::option::of(attention()),
    );
    (names, parts, any::<u32>(), any::<i64>(), 0..i64::MAX).prop_map(
        |((id, ordinal, results_topic, trace), parts, fold_version, started_ms, changed_by)| {
            let (inputs, steps, phase, deadline, attention) = parts;
            Saga {
                id,
                ordinal,
                definition: definition(),
                fold_version,
                inputs,
                results_topic,
                trace,
                started_ms,
                changed_by,
                phase,
                deadline,
                steps,
                attention,
            }
        },
    )
}

fn parked() -> impl Strategy<Value = Parked> {
    let inputs = prop::collection::btree_map("[a-z]{1,6}", payload(), 0..3);
    (uuid().prop_map(SagaId), ordinal(), "[a-z]{0,8}", inputs, trace(), deadline()).prop_map(
        |(saga, ordinal, definition, inputs, trace, deadline)| {
            let results_topic = "order.results".to_owned();
            Parked { start: Start { saga, ordinal, definition, inputs, results_topic, trace }, deadline }
        },
    )
}

fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    let ended = (any::<u64>(), prop::collection::vec((any::<u64>(), any::<u64>()), 0..4))
        .prop_map(|(below, above)| EndedSequences::new(below, above));
    let head = (
        any::<u32>().prop_map(Lane),
        0..i64::MAX,
        any::<i64>(),
        any::<u32>(),
        prop::collection::btree_map(starter(), ended, 0..3),
        prop::collection::vec(uuid().prop_map(SagaId), 0..5),
        prop::collection::vec(parked(), 0..3),
    )
        .prop_map(|(lane, next_offset, time_ms, fold_version, ended, open, parked)| LaneHead {
            lane,
            next_offset,
            time_ms,
            fold_version,
            ended,
            open,
            parked,
        });
    (any::<u64>(), uuid(), head).prop_map(|(version, writer, head)| Checkpoint { version, writer, head })
}

proptest! {
    #[test]
    fn a_checkpoint_comes_back(checkpoint in checkpoint()) {
        prop_assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint));
    }

    #[test]
    fn a_saga_comes_back(saga in saga()) {
        let find = |named: &DefinitionRef| (*named == DefinitionRef::of(&definition())).then(definition);
        prop_assert_eq!(decode_saga(&encode_saga(&saga), find), Ok(saga));
    }

    #[test]
    fn cut_off_values_never_panic(saga in saga(), checkpoint in checkpoint(), keep in any::<prop::sample::Index>()) {
        let saga = encode_saga(&saga);
        let _ = decode_saga(&saga[..keep.index(saga.len())], |_| Some(definition()));
        let checkpoint = checkpoint.encode();
        let _ = Checkpoint::decode(&checkpoint[..keep.index(checkpoint.len())]);
    }
}

#[test]
fn definitions_come_back_with_their_meaning() {
    let stored = decode_definitions(&encode_definitions(&[definition()])).unwrap();
    assert_eq!(stored, [definition()]);
    assert_eq!(stored[0].hash, definition().hash);
}

#[test]
fn a_text_that_is_no_definition_is_malformed() {
    let bytes = wire::StoredDefinitions { format: FORMAT, texts: vec!["steps: []".to_owned()] }.encode_to_vec();
    assert!(matches!(decode_definitions(&bytes), Err(DecodeError::Malformed { .. })));
}

fn sample() -> Saga {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    saga().new_tree(&mut runner).unwrap().current()
}

#[test]
fn a_saga_without_its_definition_is_malformed() {
    let bytes = encode_saga(&sample());
    let error = decode_saga(&bytes, |_| None).unwrap_err();
    assert!(matches!(&error, DecodeError::Malformed { why, .. } if why.contains("buy v3")), "{error}");
    // A definition with another number of steps.
    let shorter = TEXT.split("  - name: charge").next().unwrap();
    let other = Arc::new(Definition::parse("buy.yaml", shorter).unwrap());
    assert!(matches!(decode_saga(&bytes, |_| Some(other.clone())), Err(DecodeError::Malformed { .. })));
}

#[test]
fn another_format_is_not_malformed() {
    let mut bytes = encode_saga(&sample()).to_vec();
    assert_eq!(bytes[..2], [8, 1], "format comes first");
    bytes[1] = 2;
    let error = decode_saga(&bytes, |_| Some(definition())).unwrap_err();
    assert!(matches!(error, DecodeError::UnknownFormat { number: 2, .. }), "{error}");
    assert!(matches!(Checkpoint::decode(&bytes), Err(DecodeError::UnknownFormat { number: 2, .. })));
    assert!(matches!(decode_definitions(&bytes), Err(DecodeError::UnknownFormat { number: 2, .. })));
}
