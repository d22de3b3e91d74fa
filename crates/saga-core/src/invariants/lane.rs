//! What must hold of a lane as a whole.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Invariant};
use crate::ids::{Ordinal, SagaId, Starter};
use crate::lane::{LaneState, MAX_DEFINITIONS, MAX_OPEN_SAGAS, MAX_PARKED, MAX_STARTERS};
use crate::saga::Saga;

pub(super) fn check(state: &LaneState, findings: &mut Findings) {
    check_ordinals(state, findings);
    check_offsets(state, findings);
    check_definitions(state, findings);
    check_deadlines(state, findings);
    for (what, count, limit) in [
        ("open sagas", state.sagas.len(), MAX_OPEN_SAGAS),
        ("parked starts", state.parked.len(), MAX_PARKED),
        ("starters", state.starters.len(), MAX_STARTERS),
        ("definitions", state.definitions.len(), MAX_DEFINITIONS),
    ] {
        findings.must(Invariant::WithinLimits, count <= limit, || format!("{count} {what}"));
    }
}

fn check_ordinals(state: &LaneState, findings: &mut Findings) {
    let mut held: BTreeMap<&Starter, BTreeMap<u64, SagaId>> = BTreeMap::new();
    for (id, ordinal) in ordinals(state) {
        findings
            .must(Invariant::OwnLane, ordinal.lane == state.lane, || format!("saga {id} is of lane {}", ordinal.lane));
        let starter = state.starters.get(&ordinal.starter);
        let ended = starter.is_some_and(|starter| starter.ended.contains(ordinal.sequence));
        findings.must(Invariant::OpenHasNotEnded, !ended, || format!("saga {id}, sequence {}", ordinal.sequence));
        let other = held.entry(&ordinal.starter).or_default().insert(ordinal.sequence, id);
        findings.must(Invariant::OrdinalHeldOnce, other.is_none(), || {
            format!("sequence {} of {}", ordinal.sequence, ordinal.starter)
        });
    }
    for (starter, known) in &state.starters {
        let held = held.remove(starter).unwrap_or_default();
        findings.must(Invariant::OrdinalHeldOnce, known.holders == held, || {
            format!("holders of {starter} are {:?}, not {held:?}", known.holders)
        });
    }
    findings.must(Invariant::OrdinalHeldOnce, held.is_empty(), || format!("unknown starters {:?}", held.keys()));
}

fn ordinals(state: &LaneState) -> impl Iterator<Item = (SagaId, &Ordinal)> {
    let open = state.sagas.iter().map(|(id, saga)| (*id, &saga.ordinal));
    let parked = state.parked.iter().map(|(id, parked)| (*id, &parked.start.ordinal));
    open.chain(parked)
}

fn check_offsets(state: &LaneState, findings: &mut Findings) {
    let parked = state.parked.values().map(|parked| parked.deadline.armed_by);
    let open = state.sagas.values().flat_map(|saga| offsets(saga));
    for offset in open.chain(parked) {
        findings.must(Invariant::StateNotAhead, offset < state.next_offset, || {
            format!("offset {offset} where {} is the next", state.next_offset)
        });
    }
    for saga in state.sagas.values() {
        findings.must(Invariant::FoldVersionKnown, saga.fold_version <= state.fold_version, || {
            format!("saga {} has version {}", saga.id, saga.fold_version)
        });
    }
}

fn offsets(saga: &Saga) -> impl Iterator<Item = i64> {
    let armed = saga.deadlines().map(|(_, timer)| timer.armed_by);
    armed.chain([saga.changed_by])
}

fn check_definitions(state: &LaneState, findings: &mut Findings) {
    let mut running: BTreeMap<_, usize> = BTreeMap::new();
    for saga in state.sagas.values() {
        *running.entry(&saga.definition.id).or_default() += 1;
        let known = state.definitions.get(&saga.definition.id);
        findings.must(Invariant::DefinitionsCounted, known == Some(&saga.definition), || {
            format!("saga {} runs unknown {}", saga.id, saga.definition.id)
        });
    }
    for definition in state.definitions.iter() {
        let count = running.get(&definition.id).copied().unwrap_or_default();
        let active = state.definitions.active(&definition.id.name) == Some(definition);
        let counted = state.definitions.open_sagas(&definition.id);
        findings.must(Invariant::DefinitionsCounted, counted == count && (active || count > 0), || {
            format!("{} is counted {counted} times, run {count} times", definition.id)
        });
    }
    for parked in state.parked.values() {
        let name = &parked.start.definition;
        findings.must(Invariant::ParkedIsUnknown, state.definitions.active(name).is_none(), || {
            format!("saga {} waits for `{name}`", parked.start.saga)
        });
    }
}

fn check_deadlines(state: &LaneState, findings: &mut Findings) {
    let open = state.sagas.values().flat_map(|saga| saga.deadlines());
    let parked = state.parked.values().map(|parked| parked.timer());
    let expected: BTreeSet<_> = open.chain(parked).collect();
    findings.must(Invariant::DeadlinesIndexed, expected == state.deadlines, || {
        format!("{:?} instead of {expected:?}", state.deadlines)
    });
}
