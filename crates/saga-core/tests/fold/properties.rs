//! Whatever happens on the way, every saga ends, and either all of its steps are applied or none.

use bytes::Bytes;
use proptest::prelude::*;
use saga_core::ids::{CommandId, Direction, Lane, SagaId};
use saga_core::invariants;
use saga_core::lane::LaneState;
use saga_core::record::{DeadlineKind, InboxEvent, InboxRecord, OperatorAct, Outcome, Reply, Start, Timer};
use uuid::Uuid;

use crate::plans::{CHECKOUT, DIAMOND, PARALLEL, PIVOT, definition_text};
use crate::rig::{LANE, ordinal, refusal, saga_id, start};
use crate::world::World;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_saga_ends_with_all_or_nothing(
        text in definition_text(),
        sagas in 1_u64..5,
        choices in prop::collection::vec(any::<u16>(), 0..600),
    ) {
        World::new(&text, sagas, choices).run();
    }

    /// No noise at all: the shortest way, and it completes.
    #[test]
    fn without_noise_every_saga_completes(text in definition_text(), sagas in 1_u64..4) {
        let mut world = World::new(&text, sagas, Vec::new());
        world.run();
        for result in world.results.values() {
            prop_assert_eq!(&result.outcome, &saga_core::record::SagaOutcome::Completed);
        }
    }

    /// Total: any record in any order, sensible or not, leaves a state that satisfies every invariant.
    #[test]
    fn no_record_can_make_the_fold_panic(records in prop::collection::vec((record_gap(), any_event()), 1..60)) {
        let mut state = LaneState::new(LANE);
        for ((gap, time_ms), event) in records {
            let offset = state.next_offset().saturating_add(gap);
            let before = state.clone();
            state.step(&InboxRecord { offset, time_ms, event });
            prop_assert_eq!(invariants::check_lane(&state), vec![]);
            prop_assert_eq!(invariants::check_growth(&before, &state), vec![]);
        }
        let sagas = state.sagas().values().cloned();
        let rebuilt = LaneState::restore(state.head(), state.definitions().iter().cloned(), sagas);
        prop_assert_eq!(rebuilt, Ok(state));
    }
}

/// Mostly the next offset, at times a record that was folded before or one far ahead; and any time at all.
fn record_gap() -> impl Strategy<Value = (i64, i64)> {
    let gap = prop_oneof![20 => Just(0_i64), 2 => 1_i64..9, 2 => -3_i64..0];
    let time_ms = prop_oneof![6 => 0_i64..100_000, 1 => any::<i64>()];
    (gap, time_ms)
}

fn any_saga() -> impl Strategy<Value = SagaId> {
    prop_oneof![9 => (0_u64..4).prop_map(saga_id), 1 => any::<u128>().prop_map(|id| SagaId(Uuid::from_u128(id)))]
}

fn any_step() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["reserve", "charge", "a", "b", "c", "book", "pay", "send", "s0", "nothing", ""])
        .prop_map(str::to_owned)
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => prop::sample::select(vec!["", "x"]).prop_map(|output| Outcome::Applied { output: Bytes::from(output) }),
        1 => prop::sample::select(vec!["no", "never"]).prop_map(|code| Outcome::Refused(refusal(code))),
        3 => Just(Outcome::Undone),
        1 => Just(Outcome::Cancelled),
        1 => Just(Outcome::Failed { reason: String::new() }),
        1 => Just(Outcome::Stale),
    ]
}

fn any_start() -> impl Strategy<Value = Start> {
    let sequence = prop_oneof![9 => 0_u64..4, 1 => any::<u64>(), 1 => Just(u64::MAX)];
    let definition = prop::sample::select(vec!["checkout", "checkout-parallel", "diamond", "pivot", "random", "none"]);
    let lane = prop_oneof![19 => Just(LANE), 1 => any::<u32>().prop_map(Lane)];
    let inputs = prop::option::weighted(0.1, prop::collection::vec(any_step(), 0..4));
    (any_saga(), sequence, definition, lane, inputs, prop::option::weighted(0.1, any::<u128>())).prop_map(
        |(saga, sequence, definition, lane, inputs, store)| {
            let fitting = match definition {
                "checkout" | "checkout-parallel" => vec!["reserve", "charge"],
                "diamond" => vec!["a", "b", "c"],
                "pivot" => vec!["book", "pay", "send"],
                _ => vec!["s0"],
            };
            let inputs = inputs.unwrap_or_else(|| fitting.into_iter().map(str::to_owned).collect());
            let mut start = start(sequence, definition, &inputs);
            start.saga = saga;
            start.ordinal.lane = lane;
            if let Some(store) = store {
                start.ordinal.starter.store = Uuid::from_u128(store);
            }
            start
        },
    )
}

fn any_timer() -> impl Strategy<Value = Timer> {
    let kind = (any_step(), 0_u8..3).prop_map(|(step, kind)| match kind {
        0 => DeadlineKind::Saga,
        1 => DeadlineKind::StepTimeout(step),
        _ => DeadlineKind::StepRetry(step),
    });
    let armed_by = prop_oneof![9 => 0_i64..40, 1 => any::<i64>()];
    (any_saga(), kind, armed_by).prop_map(|(saga, kind, armed_by)| Timer { saga, kind, armed_by })
}

fn any_text() -> impl Strategy<Value = String> {
    let known = vec![CHECKOUT, PARALLEL, DIAMOND, PIVOT];
    prop_oneof![
        8 => (prop::sample::select(known), 1_u32..4)
            .prop_map(|(text, version)| text.replace("version: 1", &format!("version: {version}"))),
        3 => definition_text(),
        1 => any::<String>(),
    ]
}

fn any_event() -> impl Strategy<Value = InboxEvent> {
    let reply = (any_saga(), any_step(), any::<bool>(), 0_u64..4, any_outcome()).prop_map(
        |(saga, step, undo, sequence, outcome)| {
            let direction = if undo { Direction::Undo } else { Direction::Action };
            let id = CommandId { saga, step, direction };
            // Mostly the ordinal that the saga of this id has.
            let sequence = (0..4).find(|own| saga_id(*own) == saga).unwrap_or(sequence);
            InboxEvent::Reply(Reply { id, ordinal: ordinal(sequence), outcome })
        },
    );
    prop_oneof![
        4 => any_start().prop_map(InboxEvent::Start),
        10 => reply,
        3 => any_timer().prop_map(InboxEvent::Timer),
        1 => (any_saga(), any::<bool>()).prop_map(|(saga, undo)| InboxEvent::Operator {
            saga,
            act: if undo { OperatorAct::Undo } else { OperatorAct::Retry },
        }),
        3 => any_text().prop_map(|text| InboxEvent::Activate { text }),
        1 => any::<u32>().prop_map(InboxEvent::FoldVersion),
    ]
}
