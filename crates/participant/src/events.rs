//! What happened, told once: the log line and the count of one occurrence in one place.

use event_stream::Lane;
use saga_core::record::Outcome;
use telemetry::metrics::{
    PARTICIPANT_ALARMS, PARTICIPANT_ANSWERS, PARTICIPANT_CHUNK_SIZE, PARTICIPANT_IGNORED, PARTICIPANT_REPEATED,
};

use crate::plan::{Executed, Note};

/// Names of the outcomes, in the order of [`place`].
const OUTCOMES: [&str; 6] = ["applied", "refused", "undone", "cancelled", "failed", "stale"];

/// A chunk is committed.
pub(crate) fn executed(lane: Lane, records: usize, executed: &Executed) {
    if records > 0 {
        PARTICIPANT_CHUNK_SIZE.record(records as f64, &[]);
    }
    let mut counts = [0_u64; OUTCOMES.len()];
    for answer in &executed.answers {
        counts[place(&answer.reply.outcome)] += 1;
    }
    for (outcome, count) in OUTCOMES.into_iter().zip(counts) {
        if count > 0 {
            PARTICIPANT_ANSWERS.add(count, &[("outcome", outcome)]);
        }
    }
    executed.notes.iter().for_each(|note| alarm(lane, note));
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

fn alarm(lane: Lane, note: &Note) {
    tracing::error!(%lane, offset = note.offset, alarm = note.name, detail = note.detail, "participant alarm");
    PARTICIPANT_ALARMS.add(1, &[("alarm", note.name)]);
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
