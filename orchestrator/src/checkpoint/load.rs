//! Reads a lane's state back, or says why it must not be used.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use event_stream::{HaltReason, Lane, LaneFault};
use proto::checkpoint::{Checkpoint, DefinitionRef, decode_definitions, decode_saga};
use proto::{DecodeError, Wire};
use redis_txn::Store;
use saga_core::definition::Definition;
use saga_core::ids::SagaId;
use saga_core::lane::{LaneState, RestoreError};
use saga_core::saga::Saga;

use super::{checkpoint_key, definitions_key, saga_key, store_failed};

/// Keys of one MGET: a few hundred kilobytes.
const READ_CHUNK: usize = 1_000;
/// How often a checkpoint may be replaced while it is being read. A former owner writes one at most.
const READ_ATTEMPTS: usize = 5;

/// A lane's state as it was stored.
pub struct Loaded {
    /// The state.
    pub state: LaneState,
    /// The checkpoint's version; 0 when there is none.
    pub version: u64,
    /// Where to read on; none when there is no checkpoint.
    pub next: Option<i64>,
}

/// Loads the lane's checkpoint into a program that knows the fold up to version `supported`; an empty state when there is none.
pub async fn load(store: &Store, lane: Lane, supported: u32) -> Result<Loaded, LaneFault> {
    for _ in 0..READ_ATTEMPTS {
        let [head, definitions] = read_pair(store, lane).await?;
        let Some(head) = head else {
            return Ok(Loaded { state: LaneState::new(lane).supporting(supported), version: 0, next: None });
        };
        let checkpoint = Checkpoint::decode(&head).map_err(|error| unreadable(&checkpoint_key(lane), &error))?;
        let sagas = read_sagas(store, lane, &checkpoint.head.open).await?;
        // Several reads make one picture only if nobody has written in between.
        if read_pair(store, lane).await? == [Some(head), definitions.clone()] {
            return restore(supported, lane, checkpoint, definitions.as_ref(), sagas).map_err(LaneFault::from);
        }
    }
    Err(LaneFault::Restart("the checkpoint is being replaced while it is read".to_owned()))
}

/// A value that cannot be read halts the lane: it is corrupt, or of a later program.
pub(super) fn unreadable(key: &str, error: &DecodeError) -> HaltReason {
    match error {
        DecodeError::UnknownFormat { .. } => HaltReason::UnknownFormat(format!("{key}: {error}")),
        DecodeError::Malformed { .. } => HaltReason::Corrupt(format!("{key}: {error}")),
    }
}

async fn read_pair(store: &Store, lane: Lane) -> Result<[Option<Bytes>; 2], LaneFault> {
    let values = read(store, &[checkpoint_key(lane), definitions_key(lane)]).await?;
    values.try_into().map_err(|_| LaneFault::Restart("the store answered another number of values".to_owned()))
}

async fn read_sagas(store: &Store, lane: Lane, open: &[SagaId]) -> Result<Vec<Option<Bytes>>, LaneFault> {
    let mut values = Vec::with_capacity(open.len());
    for chunk in open.chunks(READ_CHUNK) {
        let keys: Vec<String> = chunk.iter().map(|id| saga_key(lane, *id)).collect();
        values.extend(read(store, &keys).await?);
    }
    Ok(values)
}

async fn read(store: &Store, keys: &[String]) -> Result<Vec<Option<Bytes>>, LaneFault> {
    store.read(keys).await.map_err(|error| store_failed("read", error))
}

/// Builds the state from what was read. Nothing is guessed: what does not fit halts the lane.
pub fn restore(
    supported: u32,
    lane: Lane,
    checkpoint: Checkpoint,
    definitions: Option<&Bytes>,
    sagas: Vec<Option<Bytes>>,
) -> Result<Loaded, HaltReason> {
    let key = checkpoint_key(lane);
    let Checkpoint { version, head, .. } = checkpoint;
    if head.lane != lane {
        return Err(HaltReason::Corrupt(format!("{key} is of lane {}", head.lane)));
    }
    let definitions = match definitions {
        None => Vec::new(),
        Some(bytes) => decode_definitions(bytes).map_err(|error| unreadable(&definitions_key(lane), &error))?,
    };
    let by_name: BTreeMap<DefinitionRef, Arc<Definition>> =
        definitions.iter().map(|definition| (DefinitionRef::of(definition), definition.clone())).collect();
    let mut states = Vec::with_capacity(sagas.len());
    for (id, value) in head.open.iter().zip(sagas) {
        states.push(read_saga(lane, *id, value, &by_name)?);
    }
    let next = head.next_offset;
    let state = LaneState::restore_supporting(supported, head, definitions, states).map_err(|error| match error {
        RestoreError::FoldVersion(_) => HaltReason::UnknownFormat(format!("{key}: {error}")),
        error => HaltReason::Corrupt(format!("{key}: {error}")),
    })?;
    Ok(Loaded { state, version, next: Some(next) })
}

fn read_saga(
    lane: Lane,
    id: SagaId,
    value: Option<Bytes>,
    definitions: &BTreeMap<DefinitionRef, Arc<Definition>>,
) -> Result<Arc<Saga>, HaltReason> {
    let key = saga_key(lane, id);
    let Some(value) = value else {
        return Err(HaltReason::Corrupt(format!("{key} is missing, but the checkpoint says that it is open")));
    };
    let saga =
        decode_saga(&value, |named| definitions.get(named).cloned()).map_err(|error| unreadable(&key, &error))?;
    if saga.id != id {
        return Err(HaltReason::Corrupt(format!("{key} holds saga {}", saga.id)));
    }
    Ok(Arc::new(saga))
}
