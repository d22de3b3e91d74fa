//! The pure half of a participant: the values it stores and the admission table.
//!
//! The table is asked *before* any business rule, and the floor before the table.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ended::EndedSequences;
use crate::ids::{Direction, Ordinal, SagaId, Starter};
use crate::record::{Floor, Refusal};

/// What a participant stores per lane, in the key `lane:<lane>`, moved on in the EXEC of every effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParticipantLane {
    /// Next offset to execute.
    pub next: i64,
    /// Replies to every command below this offset are acknowledged by Kafka; rides in the next EXEC.
    pub replied: i64,
    /// Per starter: which sagas have ended. Only ever grows.
    pub floors: BTreeMap<Starter, EndedSequences>,
    /// Per starter: of which ended sagas the step records are deleted. A part of `floors`.
    pub forgotten: BTreeMap<Starter, EndedSequences>,
}

impl ParticipantLane {
    /// Takes a floor record in: the highest floor and the union of the ranges.
    pub fn raise_floor(&mut self, floor: &Floor) {
        self.floors.entry(floor.starter.clone()).or_default().union(&floor.ended);
    }

    /// Chooses up to `most` ended sagas whose step records shall be deleted in the same EXEC as this value is written, and
    /// counts them as forgotten. Asked again until it gives none, it forgets everything that has ended.
    pub fn forget(&mut self, most: usize) -> Vec<(Starter, u64)> {
        let mut chosen = Vec::new();
        for (starter, ended) in &self.floors {
            let forgotten = self.forgotten.entry(starter.clone()).or_default();
            let sequences: Vec<u64> = ended.without(forgotten).take(most - chosen.len()).collect();
            for sequence in sequences {
                forgotten.insert(sequence);
                chosen.push((starter.clone(), sequence));
            }
        }
        chosen
    }

    /// Whether step records of ended sagas are still to be deleted.
    pub fn has_to_forget(&self) -> bool {
        let none = EndedSequences::default();
        let has_more = |(starter, ended): (&Starter, &EndedSequences)| {
            ended.without(self.forgotten.get(starter).unwrap_or(&none)).next().is_some()
        };
        self.floors.iter().any(has_more)
    }

    /// Whether the saga with this ordinal has ended, so that a command of it is *stale*.
    pub fn has_ended(&self, ordinal: &Ordinal) -> bool {
        self.floors.get(&ordinal.starter).is_some_and(|ended| ended.contains(ordinal.sequence))
    }
}

/// The state of one step at its participant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepRecord {
    /// The action was done; what it gave out, and what its undo needs.
    Applied {
        /// The recorded output.
        output: Bytes,
        /// What was done, as the undo needs it; opaque to everyone but the business.
        undo: Bytes,
    },
    /// The action was refused.
    Refused(Refusal),
    /// The undo came after the action.
    Undone,
    /// The undo came first: a tombstone that refuses the late action.
    Cancelled,
}

/// What a participant stores per saga, in the key `rec:<lane>:<starter>:<sequence>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepRecords {
    /// The saga that holds the ordinal.
    pub saga: SagaId,
    /// By step name.
    pub steps: BTreeMap<String, StepRecord>,
}

/// What to do with a command, given the step record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// No record: apply the business rule, record the answer.
    Decide,
    /// The action is recorded as applied: give the recorded reply.
    RepeatApplied {
        /// The recorded output.
        output: Bytes,
    },
    /// The action is recorded as refused: give the recorded reply.
    RepeatRefused(Refusal),
    /// The undo came first: refuse as cancelled.
    AnswerCancelled,
    /// Nothing was done: record *cancelled*, reply undone.
    RecordCancelled,
    /// Reverse what the record says was done, record *undone*.
    Reverse {
        /// What was done.
        undo: Bytes,
    },
    /// Nothing was done (refused): record *undone*, change nothing.
    RecordUndone,
    /// Undone before: reply undone again.
    RepeatUndone,
}

/// The admission table of a participant: eight cells.
pub fn admit(record: Option<&StepRecord>, direction: Direction) -> Admission {
    match (record, direction) {
        (None, Direction::Action) => Admission::Decide,
        (None, Direction::Undo) => Admission::RecordCancelled,
        (Some(StepRecord::Applied { output, .. }), Direction::Action) => {
            Admission::RepeatApplied { output: output.clone() }
        }
        (Some(StepRecord::Applied { undo, .. }), Direction::Undo) => Admission::Reverse { undo: undo.clone() },
        (Some(StepRecord::Refused(refusal)), Direction::Action) => Admission::RepeatRefused(refusal.clone()),
        (Some(StepRecord::Refused(_)), Direction::Undo) => Admission::RecordUndone,
        (Some(StepRecord::Undone | StepRecord::Cancelled), Direction::Action) => Admission::AnswerCancelled,
        (Some(StepRecord::Undone | StepRecord::Cancelled), Direction::Undo) => Admission::RepeatUndone,
    }
}

#[cfg(test)]
mod tests;
