//! What happened, told once: the log line and the count of one occurrence in one place.

use std::time::Duration;

use event_stream::Lane;
use saga_core::ids::SagaId;
use saga_core::record::Outcome;
use telemetry::context;
use telemetry::metrics::{
    PARTICIPANT_ALARMS, PARTICIPANT_ANSWERS, PARTICIPANT_CHUNK_SIZE, PARTICIPANT_IGNORED, PARTICIPANT_REPEATED,
    PARTICIPANT_STAGE_SECONDS,
};

use crate::hop::Hop;
use crate::plan::{Chunk, Executed, Note};

/// Names of the outcomes, in the order of [`place`].
const OUTCOMES: [&str; 6] = ["applied", "refused", "undone", "cancelled", "failed", "stale"];

/// A chunk is committed.
pub(crate) fn executed(lane: Lane, chunk: &Chunk, hops: &[Hop], executed: &Executed, took: Duration) {
    PARTICIPANT_CHUNK_SIZE.record(chunk.entries.len() as f64, &[]);
    PARTICIPANT_STAGE_SECONDS.record(took.as_secs_f64(), &[("stage", "commit")]);
    let mut counts = [0_u64; OUTCOMES.len()];
    for answer in &executed.answers {
        counts[place(&answer.reply.outcome)] += 1;
    }
    for (outcome, count) in OUTCOMES.into_iter().zip(counts) {
        if count > 0 {
            PARTICIPANT_ANSWERS.add(count, &[("outcome", outcome)]);
        }
    }
    for note in &executed.notes {
        let entry = chunk.entries.iter().position(|entry| entry.offset == note.offset);
        let _scope = entry.and_then(|entry| hops.get(entry)).and_then(|hop| context::scope(&hop.context()));
        alarm(lane, note, entry.and_then(|entry| chunk.entries[entry].saga()));
    }
}

/// Kafka has acknowledged the answers of a chunk.
pub(crate) fn acknowledged(took: Duration) {
    PARTICIPANT_STAGE_SECONDS.record(took.as_secs_f64(), &[("stage", "publish")]);
}

/// Answers are said once more.
pub(crate) fn repeated(lane: Lane, repeated: &Executed) {
    let (answers, ignored) = (repeated.answers.len() as u64, repeated.notes.len());
    tracing::info!(%lane, answers, ignored, until = repeated.next, "repeated recorded answers");
    PARTICIPANT_REPEATED.add(answers, &[]);
    for note in &repeated.notes {
        tracing::debug!(%lane, offset = note.offset, reason = note.name, detail = note.detail, "record ignored");
        PARTICIPANT_IGNORED.add(1, &[("reason", note.name)]);
    }
}

/// Somebody else has moved the lane.
pub(crate) fn fenced(lane: Lane, expected: i64, found: i64) {
    tracing::warn!(%lane, expected, found, "fenced");
    PARTICIPANT_IGNORED.add(1, &[("reason", "fenced")]);
}

fn alarm(lane: Lane, note: &Note, saga: Option<SagaId>) {
    let (offset, alarm, detail) = (note.offset, note.name, &note.detail);
    tracing::error!(%lane, saga.id = saga.map(tracing::field::display), offset, alarm, detail, "participant alarm");
    PARTICIPANT_ALARMS.add(1, &[("alarm", note.name)]);
}

/// The word for an outcome.
pub(crate) fn outcome_name(outcome: &Outcome) -> &'static str {
    OUTCOMES[place(outcome)]
}

fn place(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Applied { .. } => 0,
        Outcome::Refused(_) => 1,
        Outcome::Undone => 2,
        Outcome::Cancelled => 3,
        Outcome::Failed { .. } => 4,
        Outcome::Stale => 5,
    }
}
