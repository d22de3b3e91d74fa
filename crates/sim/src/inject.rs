//! Faults that are not part of any loop: strange records, operators, sick participants, long silences.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use proto::Wire;
use redis_txn::{CommitError, Transaction, Unread, View};
use saga_core::ids::{CommandId, Direction, Lane, SagaId};
use saga_core::record::{DeadlineKind, InboxEvent, OperatorAct, Outcome, Refusal, Reply, Start, Timer};
use saga_core::saga::{Phase, Saga, UndoState};

use crate::faults::Fault;
use crate::log::Topic;
use crate::mistakes::{Defence, Mistake};
use crate::oracle::{Check, Entry, Violation, must};
use crate::orchestrate::look;
use crate::plans::{ACCOUNT_PREFIX, ACCOUNTS, PARTICIPANTS, read_balance, texts};
use crate::world::{PARTICIPANT, WORKERS, World};

/// Perhaps something is injected.
pub fn something(world: &mut World) -> Check {
    let lane = Lane(world.rng.below(world.lanes) as u32);
    match world.rng.below(13) {
        0 if world.faults.strikes(Fault::TimerEarly, 3) => timer(world, lane, |timers, _| timers.last().cloned()),
        1 if world.faults.strikes(Fault::TimerAgain, 3) => timer_again(world, lane),
        2 if world.faults.strikes(Fault::TimerForNobody, 4) => strange_timer(world, lane),
        3 if world.faults.strikes(Fault::OperatorRetry, 3) => operator(world, lane, OperatorAct::Retry),
        4 if world.faults.strikes(Fault::OperatorUndo, 4) => operator(world, lane, OperatorAct::Undo),
        5 if world.faults.strikes(Fault::Garbage, 3) => garbage(world, lane),
        6 if world.faults.strikes(Fault::RecordAgain, 2) => record_again(world),
        7 if may_be_sick(world) && world.faults.strikes(Fault::Sick, 3) => {
            let (participant, worker) = (world.rng.below(PARTICIPANTS.len()), world.rng.below(WORKERS));
            let until_ms = world.now_ms + world.rng.between(50, 4_000);
            world.process(PARTICIPANT + participant, worker).sick_until_ms = until_ms;
            Ok(())
        }
        8 if world.faults.strikes(Fault::Pause, 4) => {
            world.now_ms += world.rng.between(500, 9_000);
            Ok(())
        }
        9 if world.faults.strikes(Fault::OldActivation, 3) => old_activation(world, lane),
        10 if world.faults.strikes(Fault::ForgedStart, 3) => forged_start(world, lane),
        11 if world.faults.strikes(Fault::StrangeReply, 3) => strange_reply(world, lane),
        12 => {
            expire(world);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Failures are not recorded, so a lost one is healed by a timeout or a re-send; without either nobody may fail.
fn may_be_sick(world: &World) -> bool {
    !(world.lacks(Defence::Timeouts) && world.lacks(Defence::Resends))
}

fn some_saga(world: &mut World, lane: Lane) -> Option<SagaId> {
    let count = world.oracle.now(lane).map_or(0, |state| state.sagas().len() + state.parked().len());
    let index = world.rng.below(count);
    let state = world.oracle.now(lane)?;
    state.sagas().keys().chain(state.parked().keys()).nth(index).copied()
}

/// People act on what hangs.
fn undoing_saga(world: &World, lane: Lane) -> Option<SagaId> {
    let mut sagas = world.oracle.now(lane)?.sagas().values();
    sagas.find(|saga| matches!(saga.phase, Phase::Undoing(_))).map(|saga| saga.id)
}

fn open_saga(world: &mut World, lane: Lane) -> Option<Saga> {
    let count = world.oracle.now(lane).map_or(0, |state| state.sagas().len());
    let index = world.rng.below(count);
    world.oracle.now(lane)?.sagas().values().nth(index).map(|saga| (**saga).clone())
}

fn timer(world: &mut World, lane: Lane, pick: impl Fn(Vec<Timer>, i64) -> Option<Timer>) -> Check {
    let now_ms = world.now_ms;
    let timers: Vec<Timer> =
        world.oracle.now(lane).map(|state| state.due(i64::MAX).cloned().collect()).unwrap_or_default();
    match pick(timers, now_ms) {
        Some(timer) => world.append(Topic::Inbox, lane, InboxEvent::Timer(timer).encode()),
        None => Ok(()),
    }
}

fn timer_again(world: &mut World, lane: Lane) -> Check {
    let is_timer = |payload: &Bytes| matches!(InboxEvent::decode(payload), Ok(InboxEvent::Timer(_)));
    let records = world.log.partition(Topic::Inbox, lane).iter().rev().map(|record| record.payload.clone());
    match records.take(60).find(is_timer) {
        Some(payload) => world.append(Topic::Inbox, lane, payload),
        None => Ok(()),
    }
}

fn strange_timer(world: &mut World, lane: Lane) -> Check {
    let Some(saga) = some_saga(world, lane) else { return Ok(()) };
    let kind = match world.rng.below(3) {
        0 => DeadlineKind::Saga,
        1 => DeadlineKind::StepTimeout("reserve".to_owned()),
        _ => DeadlineKind::StepRetry("charge".to_owned()),
    };
    let armed_by = world.rng.between(0, world.log.end(Topic::Inbox, lane));
    world.append(Topic::Inbox, lane, InboxEvent::Timer(Timer { saga, kind, armed_by }).encode())
}

fn operator(world: &mut World, lane: Lane, act: OperatorAct) -> Check {
    let ended = world.rng.once_in(5);
    let started = world.oracle.started.len();
    let index = world.rng.below(started);
    let old = world.oracle.started.get(index).filter(|_| ended).map(|started| (started.saga, started.lane));
    let undoing = undoing_saga(world, lane).filter(|_| world.rng.once_in(2)).map(|saga| (saga, lane));
    let chosen = old.or(undoing).or_else(|| some_saga(world, lane).map(|saga| (saga, lane)));
    let Some((saga, lane)) = chosen else { return Ok(()) };
    world.append(Topic::Inbox, lane, InboxEvent::Operator { saga, act }.encode())
}

fn garbage(world: &mut World, lane: Lane) -> Check {
    let topic = some_topic(world);
    world.append(topic, lane, Bytes::from_static(b"\xff\xff\xff no record"))
}

fn some_topic(world: &mut World) -> Topic {
    match world.rng.below(6) {
        0..=1 => Topic::Inbox,
        2 => Topic::Results,
        participant => Topic::Commands(participant - 3),
    }
}

/// A record that lies in some topic comes once more, as after a retry of its producer.
pub fn record_again(world: &mut World) -> Check {
    let lane = Lane(world.rng.below(world.lanes) as u32);
    let topic = some_topic(world);
    let end = world.log.end(topic, lane);
    if end == 0 {
        return Ok(());
    }
    let offset = world.rng.between(0, end - 1);
    let payload = world.log.read(topic, lane, offset, 1)[0].payload.clone();
    // What was made up could become true later; it is said once only.
    if world.oracle.forged.contains(&payload) {
        return Ok(());
    }
    world.append(topic, lane, payload)
}

fn old_activation(world: &mut World, lane: Lane) -> Check {
    let text = texts(&world.names, 0).next().map(str::to_owned);
    match text {
        Some(text) => world.append(Topic::Inbox, lane, InboxEvent::Activate { text }.encode()),
        None => Ok(()),
    }
}

/// A start that contradicts an open one: its ordinal, its id, or its lane.
fn forged_start(world: &mut World, lane: Lane) -> Check {
    let Some(saga) = open_saga(world, lane) else { return Ok(()) };
    let mut start = Start {
        saga: saga.id,
        ordinal: saga.ordinal.clone(),
        definition: saga.definition.id.name.clone(),
        inputs: std::collections::BTreeMap::new(),
        results_topic: "order.results".to_owned(),
        trace: saga_core::ids::TraceContext::default(),
    };
    match world.rng.below(3) {
        0 => start.saga = world.fresh_saga(),
        1 => start.ordinal.sequence += 5_000,
        _ => start.ordinal.lane = Lane(lane.0 + 1),
    }
    forge(world, lane, InboxEvent::Start(start))
}

fn forge(world: &mut World, lane: Lane, event: InboxEvent) -> Check {
    let payload = event.encode();
    world.oracle.forged.insert(payload.clone());
    world.append(Topic::Inbox, lane, payload)
}

/// An answer that no command can have.
fn strange_reply(world: &mut World, lane: Lane) -> Check {
    let Some(saga) = open_saga(world, lane) else { return Ok(()) };
    let step = world.rng.below(saga.steps.len());
    let name = saga.definition.steps[step].name.clone();
    let mut ordinal = saga.ordinal.clone();
    let state = &saga.steps[step];
    let forward = matches!(saga.phase, Phase::Forward);
    let refusal = Refusal { code: "strange".to_owned(), reason: "made up".to_owned() };
    let (step, direction, outcome) = match world.rng.below(7) {
        0 => ("no-such-step".to_owned(), Direction::Action, Outcome::Refused(refusal)),
        1 => {
            ordinal.sequence += 9_000;
            (name, Direction::Action, Outcome::Refused(refusal))
        }
        2 if forward => (name, Direction::Undo, Outcome::Undone),
        3 if state.is_applied() => (name, Direction::Action, Outcome::Refused(refusal)),
        4 if forward && state.undo == UndoState::NotIssued => (name, Direction::Action, Outcome::Cancelled),
        5 => (name, Direction::Action, Outcome::Stale),
        6 => (name, Direction::Undo, Outcome::Stale),
        _ => (name, Direction::Action, Outcome::Undone),
    };
    let id = CommandId { saga: saga.id, step, direction };
    forge(world, lane, InboxEvent::Reply(Reply { id, ordinal, outcome }))
}

/// Somebody adds to an account by REST.
pub fn add(world: &mut World) {
    if world.faults.is_quiet() {
        return;
    }
    let (participant, worker) = (world.rng.below(PARTICIPANTS.len()), world.rng.below(WORKERS));
    let account = format!("{ACCOUNT_PREFIX}{}", world.rng.below(ACCOUNTS));
    let amount = world.rng.between(1, 3);
    let process = world.process(PARTICIPANT + participant, worker);
    if process.up {
        let attempt = process.attempt.clone();
        let offline = process.offline.clone();
        let number = world.fresh_id().as_u128() as u64;
        let answer = Box::pin(offline.run(1_000, Add { number, account, amount, attempt }));
        world.additions.push(Addition { participant, number, answer });
    }
}

/// Requests whose answer has come: what was said to be committed is. False if none has.
pub fn answer_additions(world: &mut World) -> Result<bool, Violation> {
    let (mut answered, mut index) = (false, 0);
    while let Some(addition) = world.additions.get_mut(index) {
        let Poll::Ready(answer) = look(&mut addition.answer) else {
            index += 1;
            continue;
        };
        let (participant, number) = (addition.participant, addition.number);
        world.additions.swap_remove(index);
        answered = true;
        let happened = world.oracle.has_added(participant, number);
        // Whoever's process died gets no answer.
        must(happened || answer.is_err(), "false-answer", || format!("addition {number} is not in the store"))?;
    }
    Ok(answered)
}

/// A REST request that adds to an account, until it is answered.
pub struct Addition {
    /// At which participant.
    pub participant: usize,
    /// Its number.
    pub number: u64,
    /// The answer.
    pub answer: Pin<Box<dyn Future<Output = Result<(), CommitError>>>>,
}

/// Adds to an account.
struct Add {
    number: u64,
    account: String,
    amount: i64,
    attempt: std::sync::Arc<std::sync::Mutex<Vec<Entry>>>,
}

impl Transaction for Add {
    type Outcome = ();

    fn keys(&self, keys: &mut Vec<String>) {
        keys.push(self.account.clone());
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<(), Unread> {
        let balance = read_balance(view.get(&self.account)?.as_ref());
        view.set(self.account.clone(), Bytes::from((balance + self.amount).to_string()));
        let mut attempt = self.attempt.lock().expect("one thread");
        // Applied again because another transaction of the batch had not read a key: only the last time counts.
        attempt.retain(|entry| !matches!(entry, Entry::Added { number, .. } if *number == self.number));
        let (number, account, amount) = (self.number, self.account.clone(), self.amount);
        attempt.push(Entry::Added { number, account, amount });
        Ok(())
    }
}

/// A mistake: step records expire.
fn expire(world: &mut World) {
    if !world.makes(Mistake::RecordTtl) {
        return;
    }
    let participant = PARTICIPANT + world.rng.below(PARTICIPANTS.len());
    let keys: Vec<String> = world.stores[participant].with_prefix("rec:").map(|(key, _)| key.to_owned()).collect();
    if let Some(key) = keys.get(world.rng.below(keys.len())) {
        world.stores[participant].unlink(key);
    }
}
