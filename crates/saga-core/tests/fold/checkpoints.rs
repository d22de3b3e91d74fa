//! Folding a log twice, or from any checkpoint on, gives the same states and effects; a corrupt checkpoint is found.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use saga_core::definition::Definition;
use saga_core::effect::Step;
use saga_core::ids::SagaId;
use saga_core::invariants::Invariant;
use saga_core::lane::{Changes, LaneHead, LaneState, RestoreError};
use saga_core::record::{InboxEvent, InboxRecord};
use saga_core::saga::Saga;

use crate::plans::{CHECKOUT, PARALLEL, definition_text};
use crate::rig::{LANE, Rig, saga_id};
use crate::world::World;

/// What a store holds of one lane: only ever written by changes, as a checkpoint does.
#[derive(Default)]
struct Store {
    head: Option<LaneHead>,
    sagas: BTreeMap<SagaId, Arc<Saga>>,
    definitions: Vec<Arc<Definition>>,
}

impl Store {
    fn write(&mut self, changes: Changes) {
        self.head = Some(changes.head);
        for saga in changes.changed {
            self.sagas.insert(saga.id, saga);
        }
        for id in changes.ended {
            self.sagas.remove(&id);
        }
        if let Some(definitions) = changes.definitions {
            self.definitions = definitions;
        }
    }

    fn load(&self) -> Result<LaneState, RestoreError> {
        let head = self.head.clone().expect("written before");
        LaneState::restore(head, self.definitions.clone(), self.sagas.values().cloned())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn folding_again_from_any_checkpoint_gives_the_same(
        text in definition_text(),
        sagas in 1_u64..5,
        choices in prop::collection::vec(any::<u16>(), 0..300),
        every in 1_usize..12,
    ) {
        let mut world = World::new(&text, sagas, choices);
        world.run();
        let log = &world.log;

        // Twice, with checkpoints on the way that must not disturb it.
        let mut store = Store::default();
        let mut state = LaneState::new(LANE);
        for (index, (record, expected)) in log.iter().enumerate() {
            prop_assert_eq!(&state.step(record), expected);
            if index % every == 0 {
                store.write(state.take_changes());
                let mut loaded = store.load().expect("a sound checkpoint");
                prop_assert_eq!(&loaded, &state);
                let rest: Vec<Step> = log[index + 1..].iter().map(|(record, _)| loaded.step(record)).collect();
                let expected: Vec<&Step> = log[index + 1..].iter().map(|(_, step)| step).collect();
                prop_assert_eq!(rest.iter().collect::<Vec<_>>(), expected);
                prop_assert_eq!(&loaded, &world.state);
            }
        }
        prop_assert_eq!(&state, &world.state);
    }

    /// Records that a loop has folded already, read again after a checkpoint, change nothing.
    #[test]
    fn what_lies_before_the_checkpoint_is_not_folded_again(
        text in definition_text(),
        choices in prop::collection::vec(any::<u16>(), 0..200),
        back in 1_usize..20,
    ) {
        let mut world = World::new(&text, 3, choices);
        world.run();
        let mut state = LaneState::new(LANE);
        for (index, (record, _)) in world.log.iter().enumerate() {
            state.step(record);
            for (before, _) in &world.log[index.saturating_sub(back)..=index] {
                prop_assert_eq!(state.step(before).effects, vec![]);
            }
        }
        prop_assert_eq!(&state, &world.state);
    }
}

/// One open saga after two records, and what a store would hold of it.
fn two_open() -> (LaneState, Store) {
    let rig = Rig::run(PARALLEL, "start checkout-parallel -> do reserve, do charge\napplied reserve ->");
    let mut state = rig.state;
    let mut store = Store::default();
    store.write(state.take_changes());
    (state, store)
}

fn head(store: &mut Store) -> &mut LaneHead {
    store.head.as_mut().expect("written before")
}

fn change(store: &mut Store, change: impl FnOnce(&mut Saga)) {
    let saga = store.sagas.get_mut(&saga_id(0)).expect("open");
    change(Arc::make_mut(saga));
}

#[test]
fn a_sound_checkpoint_loads() {
    let (state, store) = two_open();
    assert_eq!(store.load(), Ok(state));
}

#[test]
fn changes_are_handed_out_once_and_frozen() {
    let mut rig = Rig::run(CHECKOUT, "start checkout -> do reserve");
    assert_eq!(rig.state.changes_pending(), 1);
    let first = rig.state.take_changes();
    assert_eq!((first.changed.len(), first.ended.len(), first.definitions.is_some()), (1, 0, true));
    let frozen = first.changed[0].clone();
    rig.play("applied reserve -> do charge");
    assert_eq!(frozen.changed_by, 1, "the copy stays as it was");
    let second = rig.state.take_changes();
    assert_eq!((second.changed.len(), second.definitions.is_some()), (1, false));
    rig.play("applied reserve -> (DuplicateReply)");
    assert_eq!(rig.state.changes_pending(), 0, "nothing changed");
    rig.play("applied charge -> completed\nsaga 1\nstart checkout -> do reserve\noperator undo -> tell undoing, undo reserve\nundone reserve -> ended Operator - operator");
    let third = rig.state.take_changes();
    assert_eq!(third.changed, []);
    assert_eq!(third.ended, [saga_id(0), saga_id(1)], "even one that was never stored");
    assert_eq!(third.head.ended.values().next().map(saga_core::ended::EndedSequences::below), Some(2));
}

#[test]
fn a_saga_that_has_ended_is_corruption() {
    let (_, mut store) = two_open();
    for ended in head(&mut store).ended.values_mut() {
        ended.insert(0);
    }
    assert_eq!(store.load(), Err(RestoreError::SagaHasEnded(saga_id(0))));
}

#[test]
fn a_state_ahead_of_the_offset_is_corruption() {
    let (_, mut store) = two_open();
    head(&mut store).next_offset -= 1;
    match store.load() {
        Err(RestoreError::Broken(violation)) => assert_eq!(violation.invariant, Invariant::StateNotAhead),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_checkpoint_that_does_not_fit_together_is_corruption() {
    let (_, mut store) = two_open();
    store.sagas.clear();
    assert_eq!(store.load(), Err(RestoreError::SagaMissing(saga_id(0))));

    let (_, mut store) = two_open();
    head(&mut store).open.clear();
    assert_eq!(store.load(), Err(RestoreError::SagaNotOpen(saga_id(0))));

    let (_, mut store) = two_open();
    store.definitions.clear();
    assert!(matches!(store.load(), Err(RestoreError::DefinitionMissing { .. })));

    let (_, mut store) = two_open();
    let mut twin = store.sagas[&saga_id(0)].as_ref().clone();
    twin.id = saga_id(1);
    store.sagas.insert(twin.id, Arc::new(twin));
    head(&mut store).open.push(saga_id(1));
    assert!(matches!(store.load(), Err(RestoreError::OrdinalTwice { .. })));

    let (_, mut store) = two_open();
    change(&mut store, |saga| saga.ordinal.lane.0 += 1);
    assert!(matches!(store.load(), Err(RestoreError::WrongLane { .. })));

    let (_, mut store) = two_open();
    head(&mut store).fold_version = 99;
    assert_eq!(store.load(), Err(RestoreError::FoldVersion(99)));

    let (_, mut store) = two_open();
    change(&mut store, |saga| {
        saga.steps.pop();
    });
    match store.load() {
        Err(RestoreError::Broken(violation)) => assert_eq!(violation.invariant, Invariant::StepsFitPlan),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_owner_sends_what_is_awaited() {
    let (state, store) = two_open();
    let loaded = store.load().expect("sound");
    assert_eq!(loaded.awaited(), state.awaited());
    assert_eq!(loaded.awaited().len(), 1, "the charge");
    assert_eq!(loaded.awaited_of(saga_id(0)), loaded.awaited());
    assert_eq!(loaded.awaited_of(saga_id(5)), []);
}

#[test]
fn a_lane_without_records_is_a_checkpoint_too() {
    let mut state = LaneState::new(LANE);
    let mut store = Store::default();
    store.write(state.take_changes());
    let mut loaded = store.load().expect("sound");
    assert_eq!(loaded, state);
    let record = InboxRecord { offset: 5, time_ms: 1, event: InboxEvent::Activate { text: CHECKOUT.to_owned() } };
    assert_eq!(loaded.step(&record), Step::default());
    assert_eq!(loaded.next_offset(), 6);
}
