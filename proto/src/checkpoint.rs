//! What the orchestrator stores per lane: the checkpoint's head, the texts of its definitions, the open sagas.

mod saga;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use saga_core::definition::Definition;
use saga_core::ids::{Lane, SagaId};
use saga_core::lane::{LaneHead, Parked};
use uuid::Uuid;
use wire::checkpoint::{EndedOfStarter, ParkedStart};

pub use self::saga::{DefinitionRef, decode_saga, encode_saga};
use self::saga::{read_deadline, write_deadline};
use crate::convert::ids::{read_ended, read_starter, read_uuid, write_uuid};
use crate::convert::inbox::read_start;
use crate::error::{malformed, parse, position, required};
use crate::{DecodeError, FORMAT, Wire, saga_v1 as wire};

const CHECKPOINT: &str = "checkpoint";
const DEFINITIONS: &str = "stored definitions";
/// Bytes of one saga id.
const ID_BYTES: usize = 16;

/// The value `checkpoint:<lane>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Grows by one with every write.
    pub version: u64,
    /// The run of a lane loop that wrote it.
    pub writer: Uuid,
    /// The lane's own part.
    pub head: LaneHead,
}

impl Wire for Checkpoint {
    fn encode(&self) -> Bytes {
        let head = &self.head;
        let ended = head
            .ended
            .iter()
            .map(|(starter, ended)| EndedOfStarter { starter: Some(starter.into()), ended: Some(ended.into()) })
            .collect();
        let mut open = Vec::with_capacity(head.open.len() * ID_BYTES);
        for id in &head.open {
            open.extend_from_slice(id.0.as_bytes());
        }
        wire::Checkpoint {
            format: FORMAT,
            version: self.version,
            writer: write_uuid(self.writer),
            lane: head.lane.0,
            next_offset: head.next_offset,
            time_ms: head.time_ms,
            fold_version: head.fold_version,
            ended,
            open: open.into(),
            parked: head.parked.iter().map(write_parked).collect(),
        }
        .encode_to_vec()
        .into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let checkpoint: wire::Checkpoint = parse(CHECKPOINT, bytes)?;
        let mut ended = BTreeMap::new();
        for entry in checkpoint.ended {
            let starter = read_starter(CHECKPOINT, entry.starter)?;
            if ended.insert(starter, read_ended(CHECKPOINT, entry.ended)?).is_some() {
                return Err(malformed(CHECKPOINT, "a starter is listed twice"));
            }
        }
        let head = LaneHead {
            lane: Lane(checkpoint.lane),
            next_offset: position(CHECKPOINT, "next_offset", checkpoint.next_offset)?,
            time_ms: checkpoint.time_ms,
            fold_version: checkpoint.fold_version,
            ended,
            open: read_open(&checkpoint.open)?,
            parked: checkpoint.parked.into_iter().map(read_parked).collect::<Result<_, _>>()?,
        };
        Ok(Self { version: checkpoint.version, writer: read_uuid(CHECKPOINT, "writer", &checkpoint.writer)?, head })
    }
}

/// The value `definitions:<lane>`: the texts.
pub fn encode_definitions(definitions: &[Arc<Definition>]) -> Bytes {
    let texts = definitions.iter().map(|definition| definition.text.to_string()).collect();
    wire::StoredDefinitions { format: FORMAT, texts }.encode_to_vec().into()
}

/// Reads the texts and what they mean.
pub fn decode_definitions(bytes: &[u8]) -> Result<Vec<Arc<Definition>>, DecodeError> {
    let stored: wire::StoredDefinitions = parse(DEFINITIONS, bytes)?;
    let read = |text: &String| {
        Definition::parse_shared("stored definition", text).map_err(|cause| malformed(DEFINITIONS, cause.to_string()))
    };
    stored.texts.iter().map(read).collect()
}

fn read_open(ids: &[u8]) -> Result<Vec<SagaId>, DecodeError> {
    let (ids, rest) = ids.as_chunks::<ID_BYTES>();
    if !rest.is_empty() {
        return Err(malformed(CHECKPOINT, "the open sagas are cut off"));
    }
    Ok(ids.iter().map(|id| SagaId(Uuid::from_bytes(*id))).collect())
}

fn write_parked(parked: &Parked) -> ParkedStart {
    ParkedStart { start: Some((&parked.start).into()), deadline: Some(write_deadline(parked.deadline)) }
}

fn read_parked(parked: ParkedStart) -> Result<Parked, DecodeError> {
    Ok(Parked {
        start: read_start(required(CHECKPOINT, "start", parked.start)?)?,
        deadline: read_deadline(required(CHECKPOINT, "deadline", parked.deadline)?)?,
    })
}

#[cfg(test)]
mod tests;
