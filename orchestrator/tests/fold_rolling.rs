//! Old and new orchestrators side by side under load, on a real broker and a real Redis: rolled forward, back and forward
//! again. Then a version of the fold that differs is adopted while sagas run. In the end everything that was said and done is held
//! against one fold of each inbox from its beginning.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::ledger::{Books, Participants, holds, is_held, is_refused};
use common::program::Program;
use common::{INBOX, LANES, PATIENCE, Stack, Watched, eventually, start};
use event_stream::{Lane, Outgoing, Publisher, Record};
use orchestrator::checkpoint;
use proto::Wire;
use saga_core::effect::Effect;
use saga_core::ids::{CommandId, Direction, Ordinal, SagaId};
use saga_core::lane::{FIRST_FOLD_VERSION, LaneState, TRIAL_FOLD_VERSION};
use saga_core::record::{Command, InboxEvent, InboxRecord, ResultRecord, SagaOutcome, SagaResult, UndoCause};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const OLD: u32 = FIRST_FOLD_VERSION;
const NEW: u32 = TRIAL_FOLD_VERSION;
const REPLICAS: usize = 3;
/// Time between two batches of starts, each in the next lane: twenty sagas in a second.
const PACE: Duration = Duration::from_millis(100);
const BATCH: usize = 2;
/// Sagas that may be open; when they are, the load pauses.
const MAX_OPEN: usize = 500;
/// Sagas that begin and end after each change of a replica.
const SAGAS_PER_CHANGE: usize = 8;
/// Nothing in it is ever late, however slow the machine is.
const PATIENT: &str = "\
name: patient
version: 1
deadline_ms: 3600000
steps:
  - name: reserve
    participant: stock
    timeout_ms: 3600000
  - name: charge
    participant: payment
    after: [reserve]
    timeout_ms: 3600000
";
/// Most records of the inboxes together.
const MAX_RECORDS: usize = 1_000_000;

/// Sagas that start all the time, and the participants that answer.
struct Load {
    stack: Stack,
    participants: Participants,
    started: Started,
    stop: CancellationToken,
    starting: JoinHandle<()>,
}

type Started = Arc<Mutex<Vec<(SagaId, Ordinal)>>>;

impl Load {
    fn begin(stack: Stack) -> Self {
        let (started, stop) = (Started::default(), CancellationToken::new());
        let (publisher, watched) = (stack.publisher.clone(), stack.watched.clone());
        let starting = tokio::spawn(start_sagas(publisher, watched, started.clone(), stop.clone()));
        Self { participants: Participants::start(&stack), stack, started, stop, starting }
    }

    /// Sagas are half done in each lane, some of them to be refused.
    async fn half_done(&self) {
        let held = || {
            self.participants.with(|books| {
                let refused = books.held.values().filter(|command| is_refused(&command.ordinal));
                let lanes: BTreeSet<Lane> = refused.map(|command| command.ordinal.lane).collect();
                (lanes.len() == LANES as usize).then_some(())
            })
        };
        eventually("sagas are half done in each lane", held).await;
    }

    /// What was held goes on, and sagas that begin now are run to their end.
    async fn goes_on(&self) {
        let before = self.started.lock().unwrap().len();
        self.participants.let_go().await;
        let ended = || {
            let started = self.started.lock().unwrap();
            let new = started[before..].iter();
            let ended = self.stack.watched.with(|seen| new.filter(|(saga, _)| seen.results.contains_key(saga)).count());
            (ended >= SAGAS_PER_CHANGE).then_some(())
        };
        eventually("new sagas begin and end", ended).await;
    }

    /// Starts no more, and waits until all have ended.
    async fn end(self) -> (Stack, Vec<(SagaId, Ordinal)>, Books) {
        self.stop.cancel();
        self.starting.await.unwrap();
        let started = std::mem::take(&mut *self.started.lock().unwrap());
        let held = started.iter().filter(|(_, ordinal)| is_held(ordinal)).count();
        let heard = || {
            let heard = self.participants.with(|books| books.commands.values().filter(|it| holds(it)).count());
            (heard == held).then_some(())
        };
        eventually("every first step is asked for", heard).await;
        self.participants.let_go().await;
        let ended = || {
            let watched = &self.stack.watched;
            watched.with(|seen| started.iter().all(|(saga, _)| seen.results.contains_key(saga))).then_some(())
        };
        eventually("every saga has ended", ended).await;
        (self.stack, started, self.participants.end().await)
    }
}

/// Ends between two batches.
async fn start_sagas(publisher: Publisher, watched: Watched, started: Started, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = [0_u64; LANES as usize];
    for lane in (0..LANES).cycle() {
        if stop.run_until_cancelled(ticks.tick()).await.is_none() {
            return;
        }
        if started.lock().unwrap().len() > MAX_OPEN + watched.with(|seen| seen.results.len()) {
            continue;
        }
        let sequence = &mut next[lane as usize];
        let starts = (*sequence..).take(BATCH).map(|sequence| start(SagaId(Uuid::now_v7()), lane, sequence, "patient"));
        let starts: Vec<_> = starts.collect();
        *sequence += BATCH as u64;
        started.lock().unwrap().extend(starts.iter().map(|start| (start.saga, start.ordinal.clone())));
        let record = |start| {
            let payload = InboxEvent::Start(start).encode();
            Outgoing { topic: INBOX.into(), lane: Lane(lane), payload, headers: Vec::new() }
        };
        publisher.send(starts.into_iter().map(record).collect()).await.unwrap().await.unwrap();
    }
}

/// The orchestrators that run now, the oldest first.
#[derive(Default)]
struct Replicas {
    programs: Vec<Program>,
    count: usize,
}

impl Replicas {
    fn add(&mut self, stack: &Stack, supported: u32) {
        self.count += 1;
        self.programs.push(Program::start(stack, &format!("{}-supports-{supported}", self.count), supported));
    }

    /// The lanes of each; none while a lane is on its way, or a replica without one.
    fn lanes(&self) -> Option<Vec<Vec<(u32, u32)>>> {
        let lanes = self.programs.iter().map(Program::versions).collect::<Option<Vec<_>>>()?;
        let mut all: Vec<u32> = lanes.iter().flatten().map(|(lane, _)| *lane).collect();
        all.sort_unstable();
        (all.into_iter().eq(0..LANES) && lanes.iter().all(|own| !own.is_empty())).then_some(lanes)
    }

    async fn share_the_lanes(&self) {
        eventually("every lane is folded, and every replica has one", || self.lanes()).await;
        assert_eq!(alarms(), Vec::<String>::new());
    }

    /// Replaces all of them, so many at a time, while sagas are half done.
    async fn roll(&mut self, load: &Load, supported: u32, at_a_time: usize) {
        for _ in 0..REPLICAS / at_a_time {
            load.half_done().await;
            let begun = Instant::now();
            let leaving: Vec<Program> = self.programs.drain(..at_a_time).collect();
            (0..at_a_time).for_each(|_| self.add(&load.stack, supported));
            for program in leaving {
                program.end().await;
            }
            self.share_the_lanes().await;
            println!("{at_a_time} replaced, and all lanes folded again after {:?}", begun.elapsed());
            load.goes_on().await;
        }
    }

    /// As `./dev fold-version adopt`: asks until every lane has adopted it.
    async fn adopt(&self, version: u32) {
        let adopted = || {
            for program in &self.programs {
                let (status, answer) = program.ask("POST", &format!("/fold-version/{version}"))?;
                assert_eq!(status, 200, "{answer}");
            }
            self.lanes()?.iter().flatten().all(|(_, standing)| *standing == version).then_some(())
        };
        eventually("every lane has adopted the version", adopted).await;
    }
}

/// Lanes that halted and alarms of the fold, in all orchestrators of this process since its start.
fn alarms() -> Vec<String> {
    let shown = telemetry::metrics::render();
    let is_alarm = |line: &&str| line.starts_with("saga_stream_lane_halts") || line.starts_with("saga_fold_alarms");
    shown.lines().filter(|line| is_alarm(line) && !line.ends_with(" 0")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_version_that_differs_is_rolled_and_adopted_under_load() {
    let stack = Stack::start().await;
    std::fs::write(stack.definitions().join("patient.yaml"), PATIENT).unwrap();
    let mut replicas = Replicas::default();
    (0..REPLICAS).for_each(|_| replicas.add(&stack, OLD));
    replicas.share_the_lanes().await;
    let load = Load::begin(stack);

    replicas.roll(&load, NEW, 1).await;
    replicas.roll(&load, OLD, 1).await;
    replicas.roll(&load, NEW, REPLICAS).await;
    load.half_done().await;
    replicas.adopt(NEW).await;
    load.goes_on().await;
    replicas.roll(&load, NEW, REPLICAS).await;

    let (stack, started, books) = load.end().await;
    for program in replicas.programs {
        program.end().await;
    }
    assert_eq!(alarms(), Vec::<String>::new());
    let folded = fold_again(&stack).await;
    judge(&stack, &started, &books, &folded);
}

/// What one fold of the inboxes from their beginnings gives.
#[derive(Default)]
struct Folded {
    versions: BTreeMap<SagaId, u32>,
    commands: BTreeMap<CommandId, Command>,
    notices: BTreeSet<SagaId>,
    results: BTreeMap<SagaId, SagaResult>,
    /// Sagas that began before the adoption and ended after it.
    across: BTreeSet<SagaId>,
}

/// Folds every inbox again and holds the last checkpoints against it.
async fn fold_again(stack: &Stack) -> Folded {
    let survey = event_stream::survey(&stack.settings, INBOX, MAX_RECORDS, PATIENCE).await.unwrap();
    assert!(!survey.is_cut, "more than {MAX_RECORDS} records");
    let store = stack.store().await;
    let mut folded = Folded::default();
    for lane in (0..LANES).map(Lane) {
        let records = survey.records.iter().filter(|(of, _)| *of == lane).map(|(_, record)| decode(record));
        let records: Vec<InboxRecord> = records.collect();
        let mut state = LaneState::new(lane).supporting(NEW);
        for record in &records {
            folded.take_in(&mut state, record);
        }
        assert_eq!((state.fold_version(), state.sagas().len()), (NEW, 0), "lane {lane}");

        let loaded = checkpoint::load(&store, lane, NEW).await.unwrap();
        let next = loaded.next.expect("a checkpoint");
        let mut restored = loaded.state;
        records.iter().filter(|record| record.offset >= next).for_each(|record| drop(restored.step(record)));
        assert_eq!(restored, state, "lane {lane}, from the checkpoint at {next}");
    }
    folded
}

fn decode(record: &Record) -> InboxRecord {
    let event = InboxEvent::decode(&record.payload).unwrap();
    InboxRecord { offset: record.offset, time_ms: record.timestamp_ms, event }
}

impl Folded {
    fn take_in(&mut self, state: &mut LaneState, record: &InboxRecord) {
        for effect in state.step(record).effects {
            match effect {
                Effect::Command { command, .. } => {
                    let saga = state.saga(command.id.saga).expect("whoever asks is open");
                    self.versions.insert(saga.id, saga.fold_version);
                    self.commands.insert(command.id.clone(), command);
                }
                Effect::Result { record: ResultRecord::Undoing(notice), .. } => {
                    self.notices.insert(notice.saga);
                }
                Effect::Result { record: ResultRecord::Ended(result), .. } => {
                    if self.versions[&result.saga] != state.fold_version() {
                        self.across.insert(result.saga);
                    }
                    let second = self.results.insert(result.saga, result);
                    assert_eq!(second, None, "a saga ends once");
                }
                Effect::Alarm(alarm) => panic!("{alarm}"),
            }
        }
    }
}

/// Everything that was said and done is what the fold says, and what the participants' answers call for.
fn judge(stack: &Stack, started: &[(SagaId, Ordinal)], books: &Books, folded: &Folded) {
    assert_eq!(books.changed, [], "a command that comes again says the same");
    assert!(books.commands == folded.commands, "other commands were sent than the fold of the inboxes gives");
    assert_eq!(folded.results.len(), started.len());
    let mut effects = BTreeMap::<SagaId, Vec<(&str, Direction)>>::new();
    for id in &books.effects {
        effects.entry(id.saga).or_default().push((id.step.as_str(), id.direction));
    }
    let (action, undo) = (Direction::Action, Direction::Undo);
    let (said, noticed) = stack.watched.with(|seen| (seen.results.clone(), seen.undoing.clone()));
    let noticed = BTreeSet::from_iter(noticed);
    for (saga, ordinal) in started {
        let result = &folded.results[saga];
        assert!(said[saga].iter().all(|said| said == result), "{:?} instead of {result:?}", said[saga]);
        let (expected, what) = match &result.outcome {
            SagaOutcome::Completed => (false, [("reserve", action), ("charge", action)]),
            SagaOutcome::Undone { cause: UndoCause::Refused, .. } => (true, [("reserve", action), ("reserve", undo)]),
            outcome @ SagaOutcome::Undone { .. } => panic!("{ordinal:?}: {outcome:?}"),
        };
        assert_eq!(is_refused(ordinal), expected, "{ordinal:?}");
        assert_eq!(effects[saga], what, "{ordinal:?}");
        // What the new version does otherwise, and only for the sagas that began under it.
        let is_told = is_refused(ordinal) && folded.versions[saga] == NEW;
        assert_eq!((noticed.contains(saga), folded.notices.contains(saga)), (is_told, is_told), "{ordinal:?}");
    }
    let by = |version| folded.versions.values().filter(|of| **of == version).count();
    let refused = started.iter().filter(|(saga, ordinal)| is_refused(ordinal) && folded.across.contains(saga));
    let lanes: BTreeSet<Lane> = refused.map(|(_, ordinal)| ordinal.lane).collect();
    assert_eq!(lanes.len(), LANES as usize, "in each lane a saga of the old version is refused after the adoption");
    let (old, new, across) = (by(OLD), by(NEW), folded.across.len());
    println!("{old} sagas of the old version, {across} of them ended after the adoption, and {new} of the new one");
}
