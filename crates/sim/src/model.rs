//! The plain model: what every store must hold at the end, byte for byte, worked out from the logs alone. (The order in
//! which a participant's lanes took turns, and which commands failed technically, is not in any log: the journal of its
//! EXECs says so, as it says what REST requests added.) It is written as plainly as can be and shares nothing with the
//! services but data types, encodings and the rule of the accounts.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::Wire;
use proto::checkpoint::{Checkpoint, encode_definitions};
use saga_core::ended::EndedSequences;
use saga_core::ids::{Direction, Lane, SagaId, Starter};
use saga_core::lane::LaneHead;
use saga_core::participant::{ParticipantLane, StepRecord, StepRecords};
use saga_core::record::{Command, CommandRecord, InboxEvent, Outcome, ResultRecord, SagaOutcome, SagaResult};
use saga_core::starter::StarterLane;

use crate::log::Topic;
use crate::oracle::{Check, Entry, must};
use crate::plans::{
    ACCOUNT_PREFIX, GENERATIONS, PARTICIPANTS, definitions, is_reversible, output, read_ask, read_balance, refusal,
    rule, undo_note,
};
use crate::world::{ORCHESTRATOR, PARTICIPANT, STARTER, World};

/// An order remembers so many sagas.
pub(crate) const REMEMBERED: usize = 8;

/// The state of one step as the model sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Applied { output: Bytes, note: Bytes },
    Refused,
    Undone,
    Cancelled,
}

/// Compares every store with what the logs make of it, and every answer with the end of its saga.
pub fn check(world: &World) -> Check {
    let results = results(world)?;
    let mut steps = BTreeMap::new();
    for participant in 0..PARTICIPANTS.len() {
        check_participant(world, participant, &mut steps)?;
    }
    check_sagas(world, &results, &steps)?;
    check_starter(world, &results)?;
    check_orchestrator(world)
}

fn lanes(world: &World) -> impl Iterator<Item = Lane> + use<> {
    (0..world.lanes as u32).map(Lane)
}

/// Every saga's end; it is the same wherever it is told.
fn results(world: &World) -> Result<BTreeMap<SagaId, SagaResult>, crate::oracle::Violation> {
    let mut results: BTreeMap<SagaId, SagaResult> = BTreeMap::new();
    for lane in lanes(world) {
        for record in world.log.partition(Topic::Results, lane) {
            if let Ok(ResultRecord::Ended(result)) = ResultRecord::decode(&record.payload) {
                let first = results.entry(result.saga).or_insert_with(|| result.clone());
                must(*first == result, "outcome-flips", || format!("{first:?}, then {result:?}"))?;
            }
        }
    }
    Ok(results)
}

type Steps = BTreeMap<(SagaId, String), Step>;

struct Books {
    accounts: BTreeMap<String, i64>,
    records: BTreeMap<String, (SagaId, BTreeMap<String, Step>)>,
    /// Per lane and starter: which sequences have ended.
    ended: BTreeMap<(Lane, Starter), BTreeSet<u64>>,
}

fn check_participant(world: &World, participant: usize, all: &mut Steps) -> Check {
    let mut books = Books { accounts: BTreeMap::new(), records: BTreeMap::new(), ended: BTreeMap::new() };
    for (account, balance) in &world.initial[participant] {
        books.accounts.insert(account.clone(), *balance);
    }
    let mut next: BTreeMap<Lane, i64> = BTreeMap::new();
    for entry in &world.oracle.journal[participant] {
        match entry {
            Entry::Added { account, amount, .. } => *books.accounts.entry(account.clone()).or_default() += amount,
            Entry::Executed { lane, from, to, failed } => {
                let stands = next.entry(*lane).or_default();
                must(stands == from || from == to, "gap-in-execution", || {
                    format!("{} lane {lane}: executed {from}..{to} at {stands}", PARTICIPANTS[participant])
                })?;
                *stands = *to;
                for record in &world.log.partition(Topic::Commands(participant), *lane)[*from as usize..*to as usize] {
                    if let Ok(record_in) = CommandRecord::decode(&record.payload) {
                        books.take(*lane, record_in, failed.contains(&record.offset), all);
                    }
                }
            }
        }
    }
    // Everything has ended, and the floors say so: nothing is left to be remembered.
    must(books.records.is_empty(), "not-forgotten", || format!("{:?}", books.records.keys().collect::<Vec<_>>()))?;
    let mut expected = books.store();
    for lane in lanes(world) {
        let end = world.log.end(Topic::Commands(participant), lane);
        let floors = books.ended.iter().filter(|((of, _), _)| *of == lane);
        let floors: BTreeMap<Starter, EndedSequences> =
            floors.map(|((_, starter), ended)| (starter.clone(), ranges(ended))).collect();
        if end > 0 {
            let value = ParticipantLane { next: end, replied: end, forgotten: floors.clone(), floors };
            expected.insert(format!("lane:{lane}"), value.encode());
        }
    }
    compare(world, PARTICIPANT + participant, &expected)
}

fn ranges(ended: &BTreeSet<u64>) -> EndedSequences {
    EndedSequences::new(0, ended.iter().map(|sequence| (*sequence, sequence + 1)))
}

impl Books {
    fn take(&mut self, lane: Lane, record: CommandRecord, failed: bool, all: &mut Steps) {
        match record {
            CommandRecord::Floor(floor) => {
                let sequences: BTreeSet<u64> =
                    (0..floor.ended.below()).chain(floor.ended.above().flat_map(|(start, end)| start..end)).collect();
                // Nobody asks for their step records any more.
                for sequence in &sequences {
                    self.records.remove(&format!("rec:{lane}:{}:{sequence}", floor.starter));
                }
                self.ended.entry((lane, floor.starter)).or_default().extend(sequences);
            }
            CommandRecord::Command(command) => {
                let ordinal = &command.ordinal;
                let ended = self.ended.get(&(lane, ordinal.starter.clone()));
                if !failed && ordinal.lane == lane && !ended.is_some_and(|ended| ended.contains(&ordinal.sequence)) {
                    self.command(&command, all);
                }
            }
        }
    }

    fn command(&mut self, command: &Command, all: &mut Steps) {
        let ordinal = &command.ordinal;
        let key = format!("rec:{}:{}:{}", ordinal.lane, ordinal.starter, ordinal.sequence);
        let before = self.records.get(&key).and_then(|(_, steps)| steps.get(&command.id.step).cloned());
        let after = match (before, command.id.direction) {
            (None, Direction::Action) => self.act(command),
            (None, Direction::Undo) => Some(Step::Cancelled),
            (Some(Step::Applied { note, .. }), Direction::Undo) => {
                if let (true, Some((account, moved))) = (is_reversible(&command.operation), read_ask(&note)) {
                    *self.accounts.entry(account).or_default() += moved;
                }
                Some(Step::Undone)
            }
            (Some(Step::Refused), Direction::Undo) => Some(Step::Undone),
            (Some(_), _) => None,
        };
        if let Some(after) = after {
            all.insert((command.id.saga, command.id.step.clone()), after.clone());
            let (_, steps) = self.records.entry(key).or_insert_with(|| (command.id.saga, BTreeMap::new()));
            steps.insert(command.id.step.clone(), after);
        }
    }

    fn act(&mut self, command: &Command) -> Option<Step> {
        let (account, amount) = read_ask(&command.input)?;
        let balance = self.accounts.entry(account).or_default();
        match rule(&command.operation, *balance, amount) {
            Some((left, moved)) => {
                *balance = left;
                let output = output(&command.operation, moved, left, command.uses.len());
                Some(Step::Applied { output, note: undo_note(&command.input, moved) })
            }
            None => command.may_refuse.then_some(Step::Refused),
        }
    }

    fn store(&self) -> BTreeMap<String, Bytes> {
        let accounts = self.accounts.iter().map(|(key, balance)| (key.clone(), Bytes::from(balance.to_string())));
        let records = self.records.iter().map(|(key, (saga, steps))| {
            let steps = steps.iter().map(|(step, state)| (step.clone(), state.record())).collect();
            (key.clone(), StepRecords { saga: *saga, steps }.encode())
        });
        accounts.chain(records).collect()
    }
}

impl Step {
    fn record(&self) -> StepRecord {
        match self {
            Self::Applied { output, note } => StepRecord::Applied { output: output.clone(), undo: note.clone() },
            // The reason names the operation; the model keeps no text, so the store's own is checked by its shape.
            Self::Refused => StepRecord::Refused(refusal("")),
            Self::Undone => StepRecord::Undone,
            Self::Cancelled => StepRecord::Cancelled,
        }
    }
}

/// All or nothing, one result each, answers that are true, and replies that say what happened.
fn check_sagas(world: &World, results: &BTreeMap<SagaId, SagaResult>, steps: &Steps) -> Check {
    for started in &world.oracle.started {
        let result = results.get(&started.saga);
        must(result.is_some(), "no-result", || format!("saga {} has not ended", started.saga))?;
        let completed = result.is_some_and(|result| result.outcome == SagaOutcome::Completed);
        for ((_, step), state) in
            steps.range((started.saga, String::new())..).take_while(|((saga, _), _)| *saga == started.saga)
        {
            let applied = matches!(state, Step::Applied { .. });
            must(applied == completed, "all-or-nothing", || {
                format!("saga {} completed = {completed}, step {step} is {state:?}", started.saga)
            })?;
        }
        if let Some(paid) = world.oracle.answers.get(&started.saga) {
            must(*paid == completed, "false-answer", || format!("saga {}: told {paid}, is {completed}", started.saga))?;
        }
    }
    for lane in lanes(world) {
        for record in world.log.partition(Topic::Inbox, lane) {
            if world.oracle.forged.contains(&record.payload) {
                continue;
            }
            let Ok(InboxEvent::Reply(reply)) = InboxEvent::decode(&record.payload) else { continue };
            let state = steps.get(&(reply.id.saga, reply.id.step.clone()));
            let fits = match (&reply.outcome, state) {
                (Outcome::Applied { output }, Some(Step::Applied { output: is, .. })) => output == is,
                (Outcome::Applied { .. }, state) => state == Some(&Step::Undone),
                (Outcome::Refused(_), state) => matches!(state, Some(Step::Refused | Step::Undone)),
                (Outcome::Undone, state) => matches!(state, Some(Step::Undone | Step::Cancelled)),
                (Outcome::Cancelled, state) => matches!(state, Some(Step::Undone | Step::Cancelled)),
                (Outcome::Failed { .. } | Outcome::Stale, _) => true,
            };
            must(fits, "untrue-reply", || format!("{reply:?}, but the step is {state:?}"))?;
        }
    }
    Ok(())
}

/// Orders in the order in which their sagas became pending; nothing pending; every sequence ended.
fn check_starter(world: &World, results: &BTreeMap<SagaId, SagaResult>) -> Check {
    let mut expected: BTreeMap<String, Bytes> = BTreeMap::new();
    for number in 0..world.orders {
        let order = format!("o{number}");
        let mut value = order_svc::store::decode(&crate::shop::new_order(number))
            .map_err(|error| crate::oracle::Violation { name: "model", detail: error.to_string() })?;
        for started in world.oracle.started.iter().filter(|started| started.order == order) {
            let Some(result) = results.get(&started.saga) else { continue };
            must(!matches!(value.status, order_svc::order::Status::Paid { .. }), "bought-twice", || {
                format!("order {order}, saga {}", started.saga)
            })?;
            if result.outcome == SagaOutcome::Completed {
                value.status = order_svc::order::Status::Paid { saga: Some(started.saga) };
            }
            let verdict = match &result.outcome {
                SagaOutcome::Completed => order_svc::order::Verdict::Paid,
                SagaOutcome::Undone { cause, refusal, .. } => order_svc::order::Verdict::Undone {
                    cause: *cause,
                    code: refusal.code.clone(),
                    reason: refusal.reason.clone(),
                },
            };
            value.attempts.push(order_svc::order::Attempt { saga: started.saga, verdict });
        }
        let forgotten = value.attempts.len().saturating_sub(REMEMBERED);
        let forgotten = value.attempts.drain(..forgotten).next();
        value.forgotten = forgotten.map(|attempt| attempt.saga);
        expected.insert(format!("order:{order}"), order_svc::store::encode(&value));
    }
    for lane in lanes(world) {
        let count = world.oracle.started.iter().filter(|started| started.lane == lane).count() as u64;
        let results_next = world.log.end(Topic::Results, lane);
        let value = StarterLane { next_sequence: count, results_next, ended: EndedSequences::new(count, []) };
        expected.insert(format!("starter:{lane}"), value.encode());
    }
    expected.insert("store:id".to_owned(), Bytes::from(world.starter.store.to_string()));
    compare(world, STARTER, &expected)
}

/// Checkpoints at the end of the inbox, without any open saga.
fn check_orchestrator(world: &World) -> Check {
    let mut expected: BTreeMap<String, Bytes> = BTreeMap::new();
    for lane in lanes(world) {
        let Some(last) = world.log.partition(Topic::Inbox, lane).last() else { continue };
        let started: BTreeSet<u64> = world
            .oracle
            .started
            .iter()
            .filter(|started| started.lane == lane)
            .map(|started| started.sequence)
            .collect();
        let key = format!("checkpoint:{lane}");
        let stored = world.stores[ORCHESTRATOR].get(&key).and_then(|bytes| Checkpoint::decode(bytes).ok());
        let (version, writer) = stored.map_or_else(Default::default, |stored| (stored.version, stored.writer));
        let ended = if started.is_empty() {
            BTreeMap::new()
        } else {
            BTreeMap::from([(world.starter.clone(), ranges(&started))])
        };
        let head = LaneHead {
            lane,
            next_offset: last.offset + 1,
            time_ms: last.timestamp_ms,
            fold_version: 1,
            ended,
            open: Vec::new(),
            parked: Vec::new(),
        };
        expected.insert(key, Checkpoint { version, writer, head }.encode());
        // Of each name the newest version that any orchestrator wants.
        let softened = world.makes(crate::mistakes::Mistake::PivotUndone);
        let known: Vec<_> = definitions(&world.names, GENERATIONS - 1, softened).iter().cloned().collect();
        if !known.is_empty() {
            expected.insert(format!("definitions:{lane}"), encode_definitions(&known));
        }
    }
    compare(world, ORCHESTRATOR, &expected)
}

/// Key by key, but for the committers' own keys.
fn compare(world: &World, service: usize, expected: &BTreeMap<String, Bytes>) -> Check {
    let stored: BTreeMap<&str, &Bytes> =
        world.stores[service].with_prefix("").filter(|(key, _)| !key.starts_with("commit:")).collect();
    let keys: BTreeSet<&str> = stored.keys().copied().chain(expected.keys().map(String::as_str)).collect();
    for key in keys {
        let (is, should) = (stored.get(key).copied(), expected.get(key));
        let same = match (is, should) {
            (Some(is), Some(should)) => is == should || is_same_refusal(key, is, should),
            (None, Some(should)) => key.starts_with(ACCOUNT_PREFIX) && read_balance(Some(should)) == 0,
            (_, None) => false,
        };
        must(same, "store-differs", || {
            let show = |bytes: Option<&Bytes>| bytes.map(|bytes| show(key, bytes));
            format!("{} {key}: {:?} instead of {:?}", crate::committer::name(service, 0), show(is), show(should))
        })?;
    }
    Ok(())
}

/// Records that differ in the sentence of a refusal only: the model does not write sentences.
fn is_same_refusal(key: &str, is: &[u8], should: &[u8]) -> bool {
    if !key.starts_with("rec:") {
        return false;
    }
    let plain = |bytes: &[u8]| {
        let mut records = StepRecords::decode(bytes).ok()?;
        for record in records.steps.values_mut() {
            if let StepRecord::Refused(reason) = record {
                *reason = refusal("");
            }
        }
        Some(records)
    };
    plain(is).is_some() && plain(is) == plain(should)
}

fn show(key: &str, bytes: &Bytes) -> String {
    let kind = key.split(':').next().unwrap_or_default();
    match kind {
        "rec" => format!("{:?}", StepRecords::decode(bytes)),
        "lane" => format!("{:?}", ParticipantLane::decode(bytes)),
        "starter" => format!("{:?}", StarterLane::decode(bytes)),
        "checkpoint" => format!("{:?}", Checkpoint::decode(bytes)),
        "order" => format!("{:?}", order_svc::store::decode(bytes)),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}
