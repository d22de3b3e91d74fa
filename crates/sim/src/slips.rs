//! The transaction of a participant's chunk: the real [`execute`], and the mistakes that are made around it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use participant::{Business, Chunk, Decision, Fault, UndoOutcome, Values, Verdict, Work, execute, lane_key};
use proto::Wire;
use redis_txn::{Transaction, Unread, View};
use saga_core::ids::Direction;
use saga_core::participant::{ParticipantLane, StepRecord, StepRecords};
use saga_core::record::{Command, Outcome, Refusal};

use crate::mistakes::Mistake;
use crate::oracle::Entry;
use crate::plans::{Ledger, read_ask, refusal, rule, undo_note};

/// A chunk on its way through the committer.
pub struct ChunkTransaction {
    /// The records.
    pub chunk: Arc<Chunk>,
    /// The rule.
    pub ledger: Ledger,
    /// What the attempt does, in order.
    pub attempt: Arc<Mutex<Vec<Entry>>>,
    /// What is done wrong.
    pub mistake: Option<Mistake>,
}

impl Transaction for ChunkTransaction {
    type Outcome = Verdict;

    fn keys(&self, keys: &mut Vec<String>) {
        self.chunk.keys(&self.ledger, keys);
    }

    fn covered_keys(&self, keys: &mut Vec<String>) {
        self.chunk.record_keys(keys);
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<Verdict, Unread> {
        let mut chunk = self.chunk.clone();
        if let Some(mistake) = self.mistake {
            chunk = self.altered(mistake, view)?;
        }
        let verdict = match self.mistake {
            None => execute(&self.ledger, &chunk, view)?,
            Some(mistake) => {
                let slips = SlippingLedger { ledger: self.ledger.clone(), mistake };
                let before = decode(view.get(&lane_key(chunk.lane))?.as_ref());
                let mut lying = Lying { view, mistake };
                let mut verdict = execute(&slips, &chunk, &mut lying)?;
                after(mistake, &chunk, &before, &self.ledger, view, &mut verdict)?;
                verdict
            }
        };
        self.journal(&chunk, &verdict);
        Ok(verdict)
    }
}

impl ChunkTransaction {
    /// Mistakes that are made before the records are executed.
    fn altered(&self, mistake: Mistake, view: &mut View<'_>) -> Result<Arc<Chunk>, Unread> {
        let mut chunk = (*self.chunk).clone();
        match mistake {
            Mistake::NoFence => chunk.first = decode(view.get(&lane_key(chunk.lane))?.as_ref()).next,
            Mistake::RetriableRefusalRecorded => {
                for entry in &mut chunk.entries {
                    if let Work::Command { command, .. } = &mut entry.work {
                        command.may_refuse |= command.id.direction == Direction::Action;
                    }
                }
            }
            _ => {}
        }
        Ok(Arc::new(chunk))
    }

    fn journal(&self, chunk: &Chunk, verdict: &Verdict) {
        let Verdict::Executed(executed) = verdict else { return };
        let failed = executed
            .answers
            .iter()
            .filter(|answer| matches!(answer.reply.outcome, Outcome::Failed { .. }))
            .map(|answer| chunk.entries[answer.entry].offset)
            .collect();
        let (lane, to) = (chunk.lane, executed.next);
        let from = chunk.entries.first().map_or(to, |entry| entry.offset);
        let mut attempt = self.attempt.lock().expect("one thread");
        // Applied again because a key had not been read: only the last time counts.
        attempt.retain(|entry| !matches!(entry, Entry::Executed { lane: other, .. } if *other == lane));
        attempt.push(Entry::Executed { lane, from, to, failed });
    }
}

fn decode(bytes: Option<&Bytes>) -> ParticipantLane {
    bytes.and_then(|bytes| ParticipantLane::decode(bytes).ok()).unwrap_or_default()
}

/// Values as a careless program sees and writes them.
struct Lying<'a, 'b> {
    view: &'a mut View<'b>,
    mistake: Mistake,
}

impl Values for Lying<'_, '_> {
    fn get(&mut self, key: &str) -> Result<Option<Bytes>, Unread> {
        let value = self.view.get(key)?;
        if self.mistake == Mistake::NoStepRecord && key.starts_with("rec:") {
            return Ok(None);
        }
        if self.mistake == Mistake::StaleUnchecked && key.starts_with("lane:") {
            let floors = std::collections::BTreeMap::new();
            return Ok(value.map(|bytes| ParticipantLane { floors, ..decode(Some(&bytes)) }.encode()));
        }
        Ok(value)
    }

    fn set(&mut self, key: String, value: Bytes) {
        if !key.starts_with("rec:") {
            return self.view.set(key, value);
        }
        let Ok(mut records) = StepRecords::decode(&value) else { return };
        match self.mistake {
            Mistake::NoStepRecord => return,
            Mistake::NoTombstone => records.steps.retain(|_, record| *record != StepRecord::Cancelled),
            Mistake::RecordDroppedAfterUndo => {
                records.steps.retain(|_, record| !matches!(record, StepRecord::Undone | StepRecord::Cancelled));
            }
            _ => return self.view.set(key, value),
        }
        if records.steps.is_empty() { self.view.unlink(key) } else { self.view.set(key, records.encode()) }
    }

    fn unlink(&mut self, key: String) {
        self.view.unlink(key);
    }
}

/// Mistakes that are made after the records have been executed.
fn after(
    mistake: Mistake,
    chunk: &Chunk,
    before: &ParticipantLane,
    ledger: &Ledger,
    view: &mut View<'_>,
    verdict: &mut Verdict,
) -> Result<(), Unread> {
    let Verdict::Executed(executed) = verdict else { return Ok(()) };
    match mistake {
        Mistake::StaleUnchecked => {
            // The floors were hidden, so they are put back together with those of the chunk.
            put_floors(chunk, view, before, |into, floor| into.raise_floor(floor))?;
        }
        Mistake::FloorAsSent => put_floors(chunk, view, before, |into, floor| {
            into.floors.insert(floor.starter.clone(), floor.ended.clone());
        })?,
        Mistake::RuleFirst => {
            for answer in &mut executed.answers {
                let Work::Command { command, .. } = &chunk.entries[answer.entry].work else { continue };
                if command.id.direction == Direction::Action
                    && let Outcome::Applied { .. } = &answer.reply.outcome
                    && says_no(command, ledger, view)?
                {
                    answer.reply.outcome = Outcome::Refused(refusal(&command.operation));
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn put_floors(
    chunk: &Chunk,
    view: &mut View<'_>,
    before: &ParticipantLane,
    put: impl Fn(&mut ParticipantLane, &saga_core::record::Floor),
) -> Result<(), Unread> {
    let key = lane_key(chunk.lane);
    let mut lane = decode(view.get(&key)?.as_ref());
    lane.floors = before.floors.clone();
    for entry in &chunk.entries {
        if let Work::Floor(floor) = &entry.work {
            put(&mut lane, floor);
        }
    }
    view.set(key, lane.encode());
    Ok(())
}

/// What the rule would say now, whatever is recorded.
fn says_no(command: &Command, _ledger: &Ledger, view: &mut View<'_>) -> Result<bool, Unread> {
    let Some((key, amount)) = read_ask(&command.input) else { return Ok(true) };
    let balance = crate::plans::read_balance(view.get(&key)?.as_ref());
    Ok(rule(&command.operation, balance, amount).is_none())
}

/// The rule with mistakes of its own.
struct SlippingLedger {
    ledger: Ledger,
    mistake: Mistake,
}

impl Business for SlippingLedger {
    fn keys(&self, command: &Command) -> Vec<String> {
        self.ledger.keys(command)
    }

    fn action(&self, command: &Command, values: &mut dyn Values) -> Result<Decision, Fault> {
        match (self.mistake, self.ledger.action(command, values)?) {
            (Mistake::FailureRecorded, Decision::Fail { reason }) => {
                Ok(Decision::Refuse(Refusal { code: "failed".to_owned(), reason }))
            }
            (_, decision) => Ok(decision),
        }
    }

    fn undo(&self, command: &Command, done: &Bytes, values: &mut dyn Values) -> Result<UndoOutcome, Fault> {
        if self.mistake == Mistake::UndoByCommand
            && let Some((_, amount)) = read_ask(&command.input)
        {
            return self.ledger.undo(command, &undo_note(&command.input, amount), values);
        }
        self.ledger.undo(command, done, values)
    }
}
