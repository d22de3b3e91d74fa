//! Values that participants and starters store.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use saga_core::ended::EndedSequences;
use saga_core::ids::Starter;
use saga_core::participant::{ParticipantLane, StepRecord, StepRecords};
use saga_core::starter::StarterLane;
use wire::participant_lane::StarterFloor;
use wire::step_record::{Applied, State};

use super::ids::{read_ended, read_refusal, read_saga, read_starter, write_uuid};
use crate::error::{malformed, parse, position};
use crate::{DecodeError, FORMAT, Wire, saga_v1 as wire};

const PARTICIPANT_LANE: &str = "participant lane";
const STEP_RECORDS: &str = "step records";
const STARTER_LANE: &str = "starter lane";

impl Wire for ParticipantLane {
    fn encode(&self) -> Bytes {
        let (floors, forgotten) = (write_floors(&self.floors), write_floors(&self.forgotten));
        let lane = wire::ParticipantLane { format: FORMAT, next: self.next, replied: self.replied, floors, forgotten };
        lane.encode_to_vec().into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let lane: wire::ParticipantLane = parse(PARTICIPANT_LANE, bytes)?;
        let next = position(PARTICIPANT_LANE, "next", lane.next)?;
        let replied = position(PARTICIPANT_LANE, "replied", lane.replied)?;
        if replied > next {
            return Err(malformed(PARTICIPANT_LANE, format!("replied {replied} is beyond next {next}")));
        }
        Ok(Self { next, replied, floors: read_floors(lane.floors)?, forgotten: read_floors(lane.forgotten)? })
    }
}

fn write_floors(floors: &BTreeMap<Starter, EndedSequences>) -> Vec<StarterFloor> {
    let write = |(starter, ended): (&Starter, &EndedSequences)| StarterFloor {
        starter: Some(starter.into()),
        ended: Some(ended.into()),
    };
    floors.iter().map(write).collect()
}

fn read_floors(floors: Vec<StarterFloor>) -> Result<BTreeMap<Starter, EndedSequences>, DecodeError> {
    let mut read = BTreeMap::new();
    for floor in floors {
        let starter = read_starter(PARTICIPANT_LANE, floor.starter)?;
        let ended = read_ended(PARTICIPANT_LANE, floor.ended)?;
        if read.insert(starter, ended).is_some() {
            return Err(malformed(PARTICIPANT_LANE, "a starter has two floors"));
        }
    }
    Ok(read)
}

impl Wire for StepRecords {
    fn encode(&self) -> Bytes {
        let steps = self.steps.iter().map(|(step, record)| (step.clone(), record.into())).collect();
        wire::StepRecords { format: FORMAT, saga: write_uuid(self.saga.0), steps }.encode_to_vec().into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let records: wire::StepRecords = parse(STEP_RECORDS, bytes)?;
        let mut steps = BTreeMap::new();
        for (step, record) in records.steps {
            if step.is_empty() {
                return Err(malformed(STEP_RECORDS, "a step name is empty"));
            }
            steps.insert(step, read_step_record(record)?);
        }
        Ok(Self { saga: read_saga(STEP_RECORDS, &records.saga)?, steps })
    }
}

impl From<&StepRecord> for wire::StepRecord {
    fn from(record: &StepRecord) -> Self {
        let state = match record {
            StepRecord::Applied { output, undo } => {
                State::Applied(Applied { output: output.clone(), undo: undo.clone() })
            }
            StepRecord::Refused(refusal) => State::Refused(refusal.into()),
            StepRecord::Undone => State::Undone(wire::Empty {}),
            StepRecord::Cancelled => State::Cancelled(wire::Empty {}),
        };
        Self { state: Some(state) }
    }
}

fn read_step_record(record: wire::StepRecord) -> Result<StepRecord, DecodeError> {
    match record.state {
        None => Err(DecodeError::UnknownFormat { what: STEP_RECORDS, number: 0 }),
        Some(State::Applied(applied)) => Ok(StepRecord::Applied { output: applied.output, undo: applied.undo }),
        Some(State::Refused(refusal)) => read_refusal(STEP_RECORDS, refusal).map(StepRecord::Refused),
        Some(State::Undone(_)) => Ok(StepRecord::Undone),
        Some(State::Cancelled(_)) => Ok(StepRecord::Cancelled),
    }
}

impl Wire for StarterLane {
    fn encode(&self) -> Bytes {
        wire::StarterLane {
            format: FORMAT,
            next_sequence: self.next_sequence,
            results_next: self.results_next,
            ended: Some((&self.ended).into()),
        }
        .encode_to_vec()
        .into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let lane: wire::StarterLane = parse(STARTER_LANE, bytes)?;
        Ok(Self {
            next_sequence: lane.next_sequence,
            results_next: position(STARTER_LANE, "results_next", lane.results_next)?,
            ended: read_ended(STARTER_LANE, lane.ended)?,
        })
    }
}
