//! The transaction that writes a snapshot, unless somebody else has moved the lane on.

use bytes::Bytes;
use event_stream::{HaltReason, Lane};
use proto::Wire;
use proto::checkpoint::{Checkpoint, encode_definitions, encode_saga};
use redis_txn::{Transaction, Unread, View};
use saga_core::lane::Changes;
use telemetry::context::{self, TraceContext};
use uuid::Uuid;

use super::load::unreadable;
use super::{checkpoint_key, definitions_key, saga_key};

/// Writes one snapshot: head, changed sagas, definitions if they changed; removes what has ended, stored or not.
pub struct WriteCheckpoint {
    head_key: String,
    head: Bytes,
    /// The version that must be there; 0 for none.
    expected: u64,
    values: Vec<(String, Bytes)>,
    gone: Vec<String>,
    /// Of the sagas in it that are recorded.
    traces: Vec<TraceContext>,
}

/// What became of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It is the lane's checkpoint now.
    Written,
    /// Somebody else has written; nothing was changed.
    Fenced {
        /// The version found; 0 for none.
        found: u64,
    },
    /// What is there cannot be read; nothing was changed.
    Unreadable(HaltReason),
}

impl WriteCheckpoint {
    /// Encodes the snapshot, once. `version` is the one last loaded or written by this `writer`.
    pub fn new(lane: Lane, version: u64, writer: Uuid, changes: Changes) -> Self {
        let mut values: Vec<(String, Bytes)> =
            changes.changed.iter().map(|saga| (saga_key(lane, saga.id), encode_saga(saga))).collect();
        if let Some(definitions) = &changes.definitions {
            values.push((definitions_key(lane), encode_definitions(definitions)));
        }
        let gone = changes.ended.iter().map(|id| saga_key(lane, *id)).collect();
        let traces = changes.changed.iter().map(|saga| &saga.trace);
        let traces = traces.filter(|trace| context::is_recorded(trace)).cloned().collect();
        let head = Checkpoint { version: version + 1, writer, head: changes.head }.encode();
        Self { head_key: checkpoint_key(lane), head, expected: version, values, gone, traces }
    }

    /// What the head that is there allows.
    fn verdict(&self, found: Option<&Bytes>) -> WriteOutcome {
        // The same bytes carry the same writer: this very snapshot has been written and its answer was lost.
        if found == Some(&self.head) {
            return WriteOutcome::Written;
        }
        let version = match found.map(|bytes| Checkpoint::decode(bytes)) {
            None => 0,
            Some(Ok(checkpoint)) => checkpoint.version,
            Some(Err(error)) => return WriteOutcome::Unreadable(unreadable(&self.head_key, &error)),
        };
        if version == self.expected { WriteOutcome::Written } else { WriteOutcome::Fenced { found: version } }
    }
}

impl Transaction for WriteCheckpoint {
    type Outcome = WriteOutcome;

    fn keys(&self, keys: &mut Vec<String>) {
        keys.push(self.head_key.clone());
    }

    fn traces(&self, visit: &mut dyn FnMut(&TraceContext)) {
        self.traces.iter().for_each(visit);
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<WriteOutcome, Unread> {
        let found = view.get(&self.head_key)?;
        let verdict = self.verdict(found.as_ref());
        if verdict == WriteOutcome::Written {
            view.set(self.head_key.clone(), self.head.clone());
            for (key, value) in &self.values {
                view.set(key.clone(), value.clone());
            }
            for key in &self.gone {
                view.unlink(key.clone());
            }
        }
        Ok(verdict)
    }
}
