//! What is known of the truth: every record of every inbox folded once, everything that happened to the stores, every
//! answer that a client was given. It is asked after every event.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use event_stream::Record;
use proto::Wire;
use proto::checkpoint::Checkpoint;
use saga_core::definition::Definition;
use saga_core::effect::{Alarm, Effect};
use saga_core::ids::{Lane, Ordinal, SagaId, Starter};
use saga_core::invariants::{check_end, check_growth, check_lane};
use saga_core::lane::LaneState;
use saga_core::participant::{ParticipantLane, StepRecord, StepRecords};
use saga_core::record::{InboxEvent, InboxRecord, ResultRecord, SagaOutcome};
use saga_core::saga::AttentionCause;
use saga_core::starter::{PendingStart, StarterLane};
use uuid::Uuid;

use crate::coverage::{Coverage, state_of};
use crate::mutate::base_name;
use crate::plans::{ACCOUNT_PREFIX, PARTICIPANTS, read_ask, read_balance};
use crate::store::{SimStore, Writes};

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Stable name.
    pub name: &'static str,
    /// What was seen.
    pub detail: String,
}

/// The result of a check.
pub type Check = Result<(), Violation>;

/// A violation with this name unless the condition holds.
pub fn must(holds: bool, name: &'static str, detail: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(Violation { name, detail: detail() }) }
}

/// One thing that a participant's store has gone through, in the order of its EXECs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A lane's commands from one offset to another, of which some failed technically.
    Executed {
        /// The lane.
        lane: Lane,
        /// First offset.
        from: i64,
        /// Offset after the last.
        to: i64,
        /// Those that were answered *fail*.
        failed: Vec<i64>,
    },
    /// A REST request added to an account.
    Added {
        /// Which request.
        number: u64,
        /// The account's key.
        account: String,
        /// How much.
        amount: i64,
    },
}

/// A saga as it became pending.
#[derive(Clone, Debug)]
pub struct Started {
    /// The saga.
    pub saga: SagaId,
    /// The order.
    pub order: String,
    /// Its lane.
    pub lane: Lane,
    /// Its sequence.
    pub sequence: u64,
}

/// Everything known.
#[derive(Debug)]
pub struct Oracle {
    /// Per lane: the state after each offset of the inbox.
    snapshots: Vec<Vec<LaneState>>,
    /// The definition of each saga that ran, and how it ended.
    definitions: BTreeMap<SagaId, std::sync::Arc<Definition>>,
    /// The first result of each saga.
    pub outcomes: BTreeMap<SagaId, SagaOutcome>,
    /// Per participant: what its store has gone through.
    pub journal: Vec<Vec<Entry>>,
    /// Per participant: the last record of each step, also when it has been forgotten since.
    recorded: Vec<BTreeMap<(SagaId, String), StepRecord>>,
    /// Sagas in the order in which they became pending.
    pub started: Vec<Started>,
    /// Sagas of which a client was told that they were not started.
    pub denied: BTreeSet<SagaId>,
    /// What clients were told.
    pub answers: BTreeMap<SagaId, bool>,
    /// Payloads that were made up: alarms about them are expected.
    pub forged: BTreeSet<Bytes>,
}

impl Oracle {
    /// Nothing has happened yet.
    pub fn new(lanes: usize) -> Self {
        Self {
            snapshots: vec![Vec::new(); lanes],
            definitions: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            journal: vec![Vec::new(); PARTICIPANTS.len()],
            recorded: vec![BTreeMap::new(); PARTICIPANTS.len()],
            started: Vec::new(),
            denied: BTreeSet::new(),
            answers: BTreeMap::new(),
            forged: BTreeSet::new(),
        }
    }

    /// The state of a lane after everything that its inbox holds.
    pub fn now(&self, lane: Lane) -> Option<&LaneState> {
        self.snapshots[lane.0 as usize].last()
    }

    fn has_ended(&self, ordinal: &Ordinal) -> bool {
        let starter = self.now(ordinal.lane).and_then(|state| state.starters().get(&ordinal.starter));
        starter.is_some_and(|starter| starter.ended.contains(ordinal.sequence))
    }

    /// A record was appended to an inbox: folds it, with every invariant checked.
    pub fn inbox(&mut self, lane: Lane, record: &Record, coverage: &mut Coverage) -> Check {
        let snapshots = &mut self.snapshots[lane.0 as usize];
        let before = snapshots.last().cloned().unwrap_or_else(|| LaneState::new(lane));
        let mut after = before.clone();
        let Ok(event) = InboxEvent::decode(&record.payload) else {
            after.pass_over(record.offset, record.timestamp_ms, None);
            snapshots.push(after);
            return Ok(());
        };
        let seen = state_of(&before, &event, &self.outcomes);
        let record_in = InboxRecord { offset: record.offset, time_ms: record.timestamp_ms, event };
        let step = after.step(&record_in);
        coverage.pair(seen, &record_in.event, step.ignored);
        if let Some(broken) = check_lane(&after).into_iter().chain(check_growth(&before, &after)).next() {
            let detail = format!("lane {lane} offset {}: {broken}", record.offset);
            return Err(Violation { name: broken.invariant.id(), detail });
        }
        if let InboxEvent::Start(start) = &record_in.event
            && let Some(saga) = after.saga(start.saga)
        {
            self.definitions.insert(start.saga, saga.definition.clone());
        }
        let expected = self.forged.contains(&record.payload);
        for effect in &step.effects {
            if let (Effect::Alarm(alarm), false) = (effect, expected) {
                check_alarm(alarm)?;
            }
        }
        // A parked start begins with the definition that has just come.
        if let InboxEvent::Activate { .. } = &record_in.event {
            for (id, saga) in after.sagas() {
                self.definitions.entry(*id).or_insert_with(|| saga.definition.clone());
            }
        }
        snapshots.push(after);
        Ok(())
    }

    /// A loop has folded its log up to a position: it must be where everybody else is there.
    pub fn folded(&self, lane: Lane, position: i64, state: &LaneState) -> Check {
        let Ok(index) = usize::try_from(position - 1) else { return Ok(()) };
        let expected = self.snapshots[lane.0 as usize].get(index);
        must(expected == Some(state), "folds-differ", || {
            let open = |state: &LaneState| state.sagas().keys().map(ToString::to_string).collect::<Vec<_>>();
            let expected = expected.map(|state| (state.next_offset(), open(state)));
            format!("lane {lane} at {position}: {:?} instead of {expected:?}", (state.next_offset(), open(state)))
        })
    }

    /// A record was appended to the results: one outcome for ever, and all or nothing.
    pub fn result(&mut self, payload: &[u8]) -> Check {
        let Ok(ResultRecord::Ended(result)) = ResultRecord::decode(payload) else { return Ok(()) };
        if let Some(before) = self.outcomes.get(&result.saga) {
            return must(*before == result.outcome, "outcome-flips", || {
                format!("saga {}: {before:?}, then {:?}", result.saga, result.outcome)
            });
        }
        self.outcomes.insert(result.saga, result.outcome.clone());
        let Some(definition) = self.definitions.get(&result.saga) else { return Ok(()) };
        let mut records = BTreeMap::new();
        for plan in &definition.steps {
            let participant = PARTICIPANTS.iter().position(|name| **name == *plan.participant).unwrap_or(0);
            if let Some(record) = self.recorded[participant].get(&(result.saga, plan.name.clone())) {
                records.insert(plan.name.clone(), record.clone());
            }
        }
        match check_end(result.saga, definition, &result.outcome, &records).into_iter().next() {
            None => Ok(()),
            Some(broken) => Err(Violation { name: broken.invariant.id(), detail: broken.to_string() }),
        }
    }

    /// What the REST requests of an EXEC add: each of them once.
    pub fn added(&self, participant: usize, entries: &[Entry]) -> Result<i64, Violation> {
        let mut sum = 0;
        for entry in entries {
            if let Entry::Added { number, amount, .. } = entry {
                must(!self.has_added(participant, *number), "effect-at-most-once", || format!("addition {number}"))?;
                sum += amount;
            }
        }
        Ok(sum)
    }

    /// Whether a REST request is in the store.
    pub fn has_added(&self, participant: usize, number: u64) -> bool {
        let mut entries = self.journal[participant].iter();
        entries.any(|entry| matches!(entry, Entry::Added { number: other, .. } if *other == number))
    }

    /// An EXEC is about to happen at a participant: conservation, and what a step record may become.
    pub fn participant(&mut self, participant: usize, store: &SimStore, writes: &Writes, added: i64) -> Check {
        let mut balance = -added;
        let mut held = 0;
        for (key, value) in writes {
            if key.starts_with(ACCOUNT_PREFIX) {
                let now = read_balance(value.as_ref());
                must(now >= 0, "never-negative", || format!("{key} is {now}"))?;
                balance += now - read_balance(store.get(key));
            } else if key.starts_with("rec:") {
                held += self.records(participant, key, store.get(key), value.as_ref())?;
            } else if key.starts_with("lane:") {
                check_positions(key, store.get(key), value.as_ref())?;
            }
        }
        must(balance + held == 0, "conservation", || {
            format!("{}: balances change by {balance}, records hold {held} more", PARTICIPANTS[participant])
        })
    }

    /// By how much more the records hold.
    fn records(
        &mut self,
        participant: usize,
        key: &str,
        before: Option<&Bytes>,
        after: Option<&Bytes>,
    ) -> Result<i64, Violation> {
        let read = |bytes: Option<&Bytes>| bytes.and_then(|bytes| StepRecords::decode(bytes).ok());
        let before = read(before);
        let Some(after) = read(after) else {
            // What has ended according to the inbox: its result may still be on its way.
            let ended = ordinal(key).is_some_and(|ordinal| self.has_ended(&ordinal));
            must(ended || before.is_none(), "record-forgotten-early", || format!("{key} of an open saga is deleted"))?;
            return Ok(0);
        };
        let held = |record: Option<&StepRecord>| match record {
            Some(StepRecord::Applied { undo, .. }) => read_ask(undo).map_or(0, |(_, moved)| moved),
            _ => 0,
        };
        let mut change = 0;
        for (step, record) in &after.steps {
            let was = before.as_ref().and_then(|before| before.steps.get(step));
            if was == Some(record) {
                continue;
            }
            let known = (after.saga, base_name(step).to_owned());
            let first = self.recorded[participant].insert(known, record.clone()).is_none();
            let fits = match (was, record) {
                // Action and undo may be executed in one EXEC.
                (None, _) => first,
                (Some(StepRecord::Applied { .. } | StepRecord::Refused(_)), StepRecord::Undone) => true,
                _ => false,
            };
            must(fits, "effect-at-most-once", || format!("{key} {step}: {record:?} after {was:?}, first: {first}"))?;
            change += held(Some(record)) - held(was);
        }
        Ok(change)
    }

    /// An EXEC is about to happen at the starter: notes which sagas became pending.
    pub fn starter(&mut self, store: &SimStore, writes: &Writes) -> Check {
        for (key, value) in writes {
            if key.starts_with("starter:") {
                check_starter_lane(key, store.get(key), value.as_ref())?;
            }
            let (true, Some(bytes)) = (key.starts_with("pending:"), value) else { continue };
            let Ok(entry) = PendingStart::decode(bytes) else { continue };
            let saga = entry.start.saga;
            must(!self.denied.contains(&saga), "false-answer", || format!("{saga} starts after all"))?;
            if self.started.iter().all(|started| started.saga != saga) {
                let ordinal = entry.start.ordinal;
                let (lane, sequence) = (ordinal.lane, ordinal.sequence);
                self.started.push(Started { saga, order: entry.subject, lane, sequence });
            }
        }
        Ok(())
    }

    /// A client is told how a saga ended. It must be so already, and stay so.
    pub fn told(&mut self, saga: SagaId, paid: bool, store: &SimStore) -> Check {
        let before = self.answers.insert(saga, paid);
        must(before.is_none_or(|before| before == paid), "answer-flips", || {
            format!("saga {saga}: {before:?}, {paid}")
        })?;
        let Some(started) = self.started.iter().find(|started| started.saga == saga) else { return Ok(()) };
        let order = store.get(&order_svc::store::order_key(&started.order));
        let order = order.and_then(|bytes| order_svc::store::decode(bytes).ok());
        let about = order.map(|order| order_svc::decide::about(&order, saga));
        let fits = match &about {
            Some(order_svc::decide::About::Ended(verdict)) => (*verdict == order_svc::order::Verdict::Paid) == paid,
            // The order remembers the last few sagas only.
            Some(order_svc::decide::About::Unknown) => !paid,
            Some(order_svc::decide::About::Running) | None => false,
        };
        must(fits, "false-answer", || format!("saga {saga}: told paid = {paid}, the order says {about:?}"))
    }
}

/// Silence is part of the noise; everything else says that a rule is broken.
fn check_alarm(alarm: &Alarm) -> Check {
    let harmless = matches!(alarm, Alarm::NeedsAttention { cause: AttentionCause::Unanswered, .. });
    must(harmless, "alarm", || alarm.to_string())
}

/// A lane's position and sequence only ever grow, and what has ended stays so.
fn check_starter_lane(key: &str, before: Option<&Bytes>, after: Option<&Bytes>) -> Check {
    let read = |bytes: Option<&Bytes>| bytes.and_then(|bytes| StarterLane::decode(bytes).ok()).unwrap_or_default();
    let (before, after) = (read(before), read(after));
    let mut ended = before.ended.clone();
    ended.union(&after.ended);
    let grows = before.next_sequence <= after.next_sequence && before.results_next <= after.results_next;
    must(grows && ended == after.ended, "position-goes-back", || format!("{key}: {after:?} after {before:?}"))
}

/// A checkpoint is one version newer than the one before, and not behind it.
pub fn check_checkpoints(store: &SimStore, writes: &Writes) -> Check {
    let read = |bytes: Option<&Bytes>| bytes.and_then(|bytes| Checkpoint::decode(bytes).ok());
    for (key, value) in writes.iter().filter(|(key, _)| key.starts_with("checkpoint:")) {
        let (before, after) = (read(store.get(key)), read(value.as_ref()));
        let stands = before.map_or((0, 0), |before| (before.version, before.head.next_offset));
        let goes = after.map_or((0, 0), |after| (after.version, after.head.next_offset));
        must(goes.0 == stands.0 + 1 && goes.1 >= stands.1, "checkpoint-goes-back", || {
            format!("{key}: version and offset {goes:?} after {stands:?}")
        })?;
    }
    Ok(())
}

/// Positions and floors only ever grow, and what is answered has been executed.
fn check_positions(key: &str, before: Option<&Bytes>, after: Option<&Bytes>) -> Check {
    let read = |bytes: Option<&Bytes>| bytes.and_then(|bytes| ParticipantLane::decode(bytes).ok()).unwrap_or_default();
    let (before, after) = (read(before), read(after));
    let grows = before.next <= after.next && before.replied <= after.replied && after.replied <= after.next;
    must(grows, "position-goes-back", || {
        format!("{key}: {}/{} after {}/{}", after.next, after.replied, before.next, before.replied)
    })?;
    for (starter, was) in &before.floors {
        let mut both = was.clone();
        let is = after.floors.get(starter);
        both.union(is.unwrap_or(was));
        must(is == Some(&both), "floor-goes-back", || format!("{key}: {is:?} after {was:?}"))?;
    }
    Ok(())
}

/// The ordinal that a record's key names.
fn ordinal(key: &str) -> Option<Ordinal> {
    let mut parts = key.strip_prefix("rec:")?.splitn(3, ':');
    let lane = Lane(parts.next()?.parse().ok()?);
    let (name, store) = parts.next()?.split_once('@')?;
    let starter = Starter { name: name.to_owned(), store: Uuid::try_parse(store).ok()? };
    Some(Ordinal { starter, lane, sequence: parts.next()?.parse().ok()? })
}
