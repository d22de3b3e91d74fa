//! The mistakes that are made between the real functions and the log: what an orchestrator reads, sends and stores.

use std::sync::Arc;

use bytes::Bytes;
use event_stream::{Outgoing, Record};
use orchestrator::checkpoint::{WriteCheckpoint, WriteOutcome, checkpoint_key, saga_key};
use orchestrator::lane_core::LaneCore;
use proto::Wire;
use proto::checkpoint::Checkpoint;
use redis_txn::{Transaction, Unread, View};
use saga_core::effect::Effect;
use saga_core::ended::EndedSequences;
use saga_core::ids::{Direction, Lane, Starter};
use saga_core::lane::LaneState;
use saga_core::record::{
    Command, CommandRecord, DeadlineKind, InboxEvent, InboxRecord, OperatorAct, Outcome, Refusal, Reply, ResultRecord,
    SagaOutcome, UndoCause,
};
use saga_core::saga::{ActionState, Phase, UndoState};

use crate::mistakes::{Defence, Mistake};
use crate::oracle::Violation;
use crate::plans::texts;
use crate::world::{ORCHESTRATOR, World};

/// How many starts the sequence of a start that is let in again is moved on.
const SECOND_LIFE: u64 = 1_000_000;

/// What is appended to an inbox instead of a record: for mistakes that every fold makes alike.
pub fn appended(world: &World, lane: Lane, payload: Bytes) -> Vec<Bytes> {
    let (Some(mistake), Ok(event)) = (world.options.mistake, InboxEvent::decode(&payload)) else {
        return vec![payload];
    };
    let empty = LaneState::new(lane);
    let state = world.oracle.now(lane).unwrap_or(&empty);
    match (mistake, event) {
        (Mistake::FreshCommandIds, InboxEvent::Reply(mut reply)) => {
            reply.id.step = base_name(&reply.id.step).to_owned();
            vec![InboxEvent::Reply(reply).encode()]
        }
        (Mistake::StartDedupForgotten, InboxEvent::Start(mut start)) => {
            let starter = state.starters().get(&start.ordinal.starter);
            if starter.is_some_and(|starter| starter.ended.contains(start.ordinal.sequence)) {
                start.ordinal.sequence += SECOND_LIFE;
            }
            vec![InboxEvent::Start(start).encode()]
        }
        (Mistake::StartSkipped, InboxEvent::Start(start))
            if state.definitions().active(&start.definition).is_none() =>
        {
            vec![Bytes::from_static(b"set aside")]
        }
        (Mistake::TakenForRefusal, InboxEvent::Reply(mut reply)) if reply.id.direction == Direction::Action => {
            if let Outcome::Failed { reason } = reply.outcome {
                reply.outcome = Outcome::Refused(Refusal { code: "failed".to_owned(), reason });
            }
            vec![InboxEvent::Reply(reply).encode()]
        }
        (Mistake::ActivationWithoutVersion, InboxEvent::Activate { text }) => {
            vec![InboxEvent::Activate { text: raise_version(state, &text) }.encode()]
        }
        (Mistake::VerbEndsUndo, InboxEvent::Operator { saga, act: OperatorAct::Undo }) => {
            let mut payloads = vec![payload];
            if let Some(saga) = state.saga(saga).filter(|saga| matches!(saga.phase, Phase::Undoing(_))) {
                let awaited = saga.plans().filter(|(_, step)| step.undo == UndoState::Issued);
                payloads.extend(awaited.map(|(plan, _)| {
                    let step = plan.name.clone();
                    let id = saga_core::ids::CommandId { saga: saga.id, step, direction: Direction::Undo };
                    let ordinal = saga.ordinal.clone();
                    InboxEvent::Reply(Reply { id, ordinal, outcome: Outcome::Undone }).encode()
                }));
            }
            payloads
        }
        _ => vec![payload],
    }
}

/// The name of a step without the number of an attempt.
pub fn base_name(step: &str) -> &str {
    step.split('#').next().unwrap_or(step)
}

/// Makes every activation newer than what is active, whatever it says.
fn raise_version(state: &LaneState, text: &str) -> String {
    let name = text.lines().find_map(|line| line.strip_prefix("name: ")).unwrap_or_default();
    let Some(active) = state.definitions().active(name) else { return text.to_owned() };
    let version = format!("version: {}", active.id.version + 1);
    text.lines().map(|line| if line.starts_with("version: ") { &version } else { line }).collect::<Vec<_>>().join("\n")
}

/// What one process folds instead of what it read.
pub fn records(
    world: &mut World,
    worker: usize,
    _lane: Lane,
    records: &[Record],
    _state: &LaneState,
) -> Result<Option<Vec<Record>>, Violation> {
    if !world.makes(Mistake::DefinitionAtFoldTime) {
        return Ok(None);
    }
    let generation = world.process(ORCHESTRATOR, worker).generation;
    let names = world.names.clone();
    let own = |text: &str| {
        let first = text.lines().next().unwrap_or_default();
        texts(&names, generation).find(|own| own.lines().next() == Some(first)).unwrap_or_default().to_owned()
    };
    let altered = records.iter().cloned().map(|mut record| {
        if let Ok(InboxEvent::Activate { text }) = InboxEvent::decode(&record.payload) {
            record.payload = InboxEvent::Activate { text: own(&text) }.encode();
        }
        record
    });
    Ok(Some(altered.collect()))
}

/// What an orchestrator sends instead of what follows from its state.
pub fn outgoing(world: &mut World, lane: Lane, records: Vec<Outgoing>, state: Option<&LaneState>) -> Vec<Outgoing> {
    let (Some(mistake), Some(state)) = (world.options.mistake, state) else { return records };
    records.into_iter().filter_map(|record| alter(world, lane, record, state, mistake)).collect()
}

fn alter(world: &mut World, lane: Lane, mut record: Outgoing, state: &LaneState, mistake: Mistake) -> Option<Outgoing> {
    if record.topic.ends_with(".results") {
        let silent = mistake == Mistake::RefusedStartSilent
            && matches!(ResultRecord::decode(&record.payload), Ok(ResultRecord::Ended(result))
                if matches!(result.outcome, SagaOutcome::Undone { cause: UndoCause::Invalid, .. }));
        return (!silent).then_some(record);
    }
    match (mistake, CommandRecord::decode(&record.payload)) {
        (_, Err(_)) => {}
        (Mistake::FreshCommandIds, Ok(CommandRecord::Command(mut command))) => {
            let number = world.fresh_id().as_u128() as u64;
            command.id.step = format!("{}#{number}", command.id.step);
            record.payload = CommandRecord::Command(command).encode();
        }
        (Mistake::UndoOnlyKnown, Ok(CommandRecord::Command(command))) if is_unknown(state, &command) => {
            let reply = Reply { id: command.id, ordinal: command.ordinal, outcome: Outcome::Undone };
            let payload = InboxEvent::Reply(reply).encode();
            return Some(Outgoing { topic: Arc::from("saga.inbox"), lane, payload, headers: Vec::new() });
        }
        (Mistake::FloorsNotRepeated, Ok(CommandRecord::Floor(_))) => return None,
        (_, Ok(CommandRecord::Floor(mut floor))) => {
            if let Some(ended) = wrong_floor(mistake, state, &floor.starter, &floor.ended) {
                floor.ended = ended;
                record.payload = CommandRecord::Floor(floor).encode();
            }
        }
        (_, Ok(CommandRecord::Command(_))) => {}
    }
    Some(record)
}

/// The undo of a step whose action was not answered.
fn is_unknown(state: &LaneState, command: &Command) -> bool {
    let saga = state.saga(command.id.saga);
    let step = saga.and_then(|saga| saga.steps.get(saga.definition.step_index(&command.id.step)?));
    command.id.direction == Direction::Undo && step.is_some_and(|step| step.action == ActionState::Issued)
}

fn wrong_floor(
    mistake: Mistake,
    state: &LaneState,
    starter: &Starter,
    ended: &EndedSequences,
) -> Option<EndedSequences> {
    let sagas = || state.sagas().values().filter(|saga| saga.ordinal.starter == *starter);
    let mut wrong = ended.clone();
    match mistake {
        Mistake::FloorAtUndo => {
            for saga in sagas().filter(|saga| matches!(saga.phase, Phase::Undoing(_))) {
                wrong.insert(saga.ordinal.sequence);
            }
        }
        Mistake::FloorLowestOpen => {
            let highest = ended.above().last().map_or(ended.below(), |(_, end)| end);
            let lowest = sagas().map(|saga| saga.ordinal.sequence).min().unwrap_or(highest);
            wrong.union(&EndedSequences::new(lowest, []));
        }
        Mistake::FloorHighestEnded => {
            let highest = ended.above().last().map_or(ended.below(), |(_, end)| end);
            wrong.union(&EndedSequences::new(highest, []));
        }
        Mistake::FloorOneTooHigh => wrong.union(&EndedSequences::new(ended.below() + 1, [])),
        _ => return None,
    }
    Some(wrong)
}

/// Whether a record is a floor.
pub fn is_floor(record: &Outgoing) -> bool {
    matches!(CommandRecord::decode(&record.payload), Ok(CommandRecord::Floor(_)))
}

/// Whether a record that became due is not sent because its safety net has been taken away.
pub fn is_cut_off(world: &World, record: &Outgoing, without_resends: bool) -> bool {
    if record.topic.ends_with(".commands") {
        return without_resends && !is_floor(record);
    }
    if !world.lacks(Defence::Timeouts) {
        return false;
    }
    let Ok(InboxEvent::Timer(timer)) = InboxEvent::decode(&record.payload) else { return false };
    let parked = world.oracle.now(record.lane).is_some_and(|state| state.parked().contains_key(&timer.saga));
    !parked && !matches!(timer.kind, DeadlineKind::StepRetry(_))
}

/// Acts on deadlines at once instead of sending their records. True if it did.
pub fn acts_locally(world: &World, core: &LaneCore, outgoing: &mut Vec<Outgoing>) -> bool {
    if !world.makes(Mistake::LocalTimeout) {
        return false;
    }
    let mut acted = false;
    let mut commands = Vec::new();
    outgoing.retain(|record| {
        let Ok(InboxEvent::Timer(timer)) = InboxEvent::decode(&record.payload) else { return true };
        let mut state = core.state().clone();
        let event = InboxEvent::Timer(timer);
        let record = InboxRecord { offset: state.next_offset(), time_ms: i64::MAX / 2, event };
        for effect in state.step(&record).effects {
            if let Effect::Command { participant, command } = effect {
                let topic = Arc::from(format!("{participant}.commands"));
                let payload = CommandRecord::Command(command).encode();
                commands.push(Outgoing { topic, lane: core.state().lane(), payload, headers: Vec::new() });
            }
        }
        acted = true;
        false
    });
    outgoing.append(&mut commands);
    acted
}

/// The mistake that is made when a checkpoint is written, if it is one of those.
pub fn checkpoint_slip(world: &World, _lane: Lane) -> Option<Mistake> {
    world.options.mistake.filter(|mistake| {
        matches!(
            mistake,
            Mistake::StateAhead | Mistake::StateBehind | Mistake::CheckpointUncompared | Mistake::EndedNotDeleted
        )
    })
}

/// A checkpoint that is written wrongly.
pub struct SlippedCheckpoint {
    /// The right one.
    pub write: WriteCheckpoint,
    /// What is done wrong.
    pub mistake: Mistake,
    /// The lane.
    pub lane: Lane,
}

impl Transaction for SlippedCheckpoint {
    type Outcome = WriteOutcome;

    fn keys(&self, keys: &mut Vec<String>) {
        self.write.keys(keys);
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<WriteOutcome, Unread> {
        let key = checkpoint_key(self.lane);
        let before = view.get(&key)?.and_then(|bytes| Checkpoint::decode(&bytes).ok());
        let mut kept = Vec::new();
        if let (Mistake::EndedNotDeleted, Some(before)) = (self.mistake, &before) {
            for id in &before.head.open {
                let key = saga_key(self.lane, *id);
                if let Some(value) = view.get(&key)? {
                    kept.push((*id, key, value));
                }
            }
        }
        let mut outcome = self.write.apply(view)?;
        if let (Mistake::CheckpointUncompared, WriteOutcome::Fenced { found }, Some(before)) =
            (self.mistake, &outcome, &before)
        {
            // Whatever version it expects is what it finds.
            for version in 0..=*found {
                view.set(key.clone(), Checkpoint { version, ..before.clone() }.encode());
                outcome = self.write.apply(view)?;
                if outcome == WriteOutcome::Written {
                    break;
                }
            }
        }
        let Some(Ok(mut written)) = view.get(&key)?.map(|bytes| Checkpoint::decode(&bytes)) else {
            return Ok(outcome);
        };
        match self.mistake {
            Mistake::StateAhead => written.head.next_offset = (written.head.next_offset - 1).max(0),
            Mistake::StateBehind => written.head.next_offset += 1,
            Mistake::EndedNotDeleted => {
                for (id, key, value) in kept {
                    if !written.head.open.contains(&id) {
                        written.head.open.push(id);
                        view.set(key, value);
                    }
                }
                written.head.open.sort_unstable();
            }
            _ => return Ok(outcome),
        }
        if outcome == WriteOutcome::Written {
            view.set(key, written.encode());
        }
        Ok(outcome)
    }
}
