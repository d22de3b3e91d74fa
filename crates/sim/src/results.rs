//! One lane of a starter's results. What is applied is decided by the real [`ResultBatch`], who is remembered by the real
//! lane table; takeover, sweep and the order of events are those of `crates/starter/src/results.rs`, modelled.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use proto::Wire;
use redis_txn::CommitError;
use saga_core::ids::Lane;
use saga_core::record::{Refusal, ResultRecord, SagaOutcome, SagaResult, Start, UndoCause};
use saga_core::starter::{PendingStart, StarterLane};
use starter::apply::{BatchOutcome, Fate, Ignored, Incoming, News, ResultBatch};
use starter::keys::{lane_key, pending_key};
use starter::lanes::{Open, SWEEP_INTERVAL};

use crate::clients::ClientState;
use crate::faults::Point;
use crate::log::Topic;
use crate::mistakes::{Defence, Mistake};
use crate::network::{Acknowledged, SimReceipt};
use crate::orchestrate::look;
use crate::task::Did;
use crate::unguarded::{Guard, Unguarded};
use crate::window::record;
use crate::world::{STARTER, Stop, World};

/// As in the service.
const SWEEP_INTERVAL_MS: i64 = SWEEP_INTERVAL.as_millis() as i64;
/// Most results in one EXEC, and most pending entries read at once.
const MAX_RESULTS: usize = 6;
const MAX_ENTRIES: usize = 4;

type Commit = Pin<Box<dyn Future<Output = Result<BatchOutcome, CommitError>>>>;

enum Phase {
    Load,
    TakeOver(Vec<u64>, Option<(Vec<Start>, SimReceipt)>),
    Live,
}

/// One lane from load to revocation or fault.
pub struct ResultsLane {
    worker: usize,
    lane: Lane,
    phase: Phase,
    position: i64,
    sweep_at_ms: i64,
    /// What was pending at the load.
    taken_over: BTreeSet<u64>,
    /// What was pending, and nobody here knew of it, when a sweep came by.
    found: BTreeSet<u64>,
    running: Option<(Commit, Vec<News>, i64)>,
}

impl ResultsLane {
    /// Nothing is loaded yet.
    pub fn new(worker: usize, lane: Lane) -> Self {
        let (taken_over, found) = (BTreeSet::new(), BTreeSet::new());
        Self { worker, lane, phase: Phase::Load, position: 0, sweep_at_ms: 0, taken_over, found, running: None }
    }

    /// When something is due.
    pub fn due_ms(&self) -> Option<i64> {
        matches!(self.phase, Phase::Live).then_some(self.sweep_at_ms)
    }

    /// The process knows that it serves the lane no more; whoever waits for it must read.
    pub fn leave(&self, world: &mut World, lane: Lane) {
        world.process(STARTER, self.worker).lanes.leave(lane);
        for client in world.clients.iter_mut().filter(|client| client.worker == self.worker) {
            if let ClientState::Waiting { saga, lane: Some(at) } = client.state
                && at == lane
            {
                client.state = ClientState::Polling(saga);
            }
        }
    }

    /// One thing.
    pub fn step(&mut self, world: &mut World, revoked: bool) -> Result<Did, Stop> {
        if let Some((commit, ..)) = &mut self.running {
            return match look(commit) {
                Poll::Pending => Ok(Did::Nothing),
                Poll::Ready(outcome) => self.committed(world, outcome),
            };
        }
        match &mut self.phase {
            Phase::Load => self.load(world),
            _ if revoked => Ok(Did::Ended),
            Phase::TakeOver(..) => self.take_over(world),
            Phase::Live => self.live(world),
        }
    }

    fn stored(&self, world: &World) -> Result<Option<StarterLane>, Stop> {
        let value = world.stores[STARTER].get(&lane_key(self.lane));
        value.map(|bytes| StarterLane::decode(bytes).map_err(|error| Stop::Halt(error.to_string()))).transpose()
    }

    fn load(&mut self, world: &mut World) -> Result<Did, Stop> {
        world.point(Point::ResultsLoad)?;
        world.process(STARTER, self.worker).lanes.enter(self.lane);
        let stored = self.stored(world)?;
        let is_new = stored.is_none();
        self.position = match &stored {
            Some(stored) => stored.results_next,
            None => world.start_of_new_lane(STARTER, self.lane)?,
        };
        let stored = stored.unwrap_or_default();
        let pending: Vec<u64> = stored.pending().collect();
        world
            .note(|| format!("order-{}[{}]: loaded at {}, pending {pending:?}", self.worker, self.lane, self.position));
        self.taken_over = pending.iter().copied().collect();
        self.phase = Phase::TakeOver(pending, None);
        if is_new {
            // From now on a missing key means a lost store, never a new lane.
            self.commit(world, self.position, Vec::new())?;
        }
        world.point(Point::ResultsLoaded)?;
        Ok(Did::Something)
    }

    /// Sends every pending start again and remembers it.
    fn take_over(&mut self, world: &mut World) -> Result<Did, Stop> {
        let Phase::TakeOver(left, sent) = &mut self.phase else { return Ok(Did::Nothing) };
        if let Some((starts, receipt)) = sent {
            match receipt.look() {
                Acknowledged::NotYet => return Ok(Did::Nothing),
                Acknowledged::Yes => *sent = None,
                Acknowledged::Failed => *receipt = world.send(starts.iter().cloned().map(record).collect())?,
            }
            return Ok(Did::Something);
        }
        let mistakes = [Mistake::StartsNeverResent, Mistake::SweepFromMemory, Mistake::StartsOnlySwept];
        if left.is_empty() || mistakes.into_iter().any(|mistake| world.makes(mistake)) {
            self.phase = Phase::Live;
            self.sweep_at_ms = world.now_ms + SWEEP_INTERVAL_MS;
            world.process(STARTER, self.worker).lanes.loaded(self.lane);
            return Ok(Did::Something);
        }
        let sequences: Vec<u64> = left.drain(..left.len().min(MAX_ENTRIES)).collect();
        let entries = self.read_pending(world, &sequences)?;
        self.remember(world, &entries);
        let starts: Vec<Start> = entries.into_iter().map(|entry| entry.start).collect();
        if !starts.is_empty() {
            world.coverage.count("starts sent again", starts.len() as u64);
            let receipt = world.send(starts.iter().cloned().map(record).collect())?;
            if let Phase::TakeOver(_, sent) = &mut self.phase {
                *sent = Some((starts, receipt));
            }
        }
        world.point(Point::ResultsTakeOver)?;
        Ok(Did::Something)
    }

    /// The entries of these sequences, without those that have ended since.
    fn read_pending(&self, world: &World, sequences: &[u64]) -> Result<Vec<PendingStart>, Stop> {
        let mut entries = Vec::new();
        let now = self.stored(world)?.unwrap_or_default();
        for sequence in sequences {
            match world.stores[STARTER].get(&pending_key(self.lane, *sequence)) {
                Some(bytes) => {
                    entries.push(PendingStart::decode(bytes).map_err(|error| Stop::Halt(error.to_string()))?);
                }
                None if now.ended.contains(*sequence) => {}
                None => return Err(Stop::Halt(format!("lane {}: pending {sequence} is missing", self.lane))),
            }
        }
        Ok(entries)
    }

    fn remember(&self, world: &mut World, entries: &[PendingStart]) {
        let since = world.instant();
        let lanes = world.process(STARTER, self.worker).lanes.clone();
        let tenure = lanes.tenure(self.lane);
        for entry in entries {
            let open =
                Open { saga: entry.start.saga, subject: entry.subject.as_str().into(), since, is_delivered: false };
            lanes.remember(self.lane, tenure, entry.start.ordinal.sequence, open);
        }
    }

    fn live(&mut self, world: &mut World) -> Result<Did, Stop> {
        if world.now_ms >= self.sweep_at_ms {
            self.sweep_at_ms = world.now_ms + SWEEP_INTERVAL_MS;
            if self.sweep(world)? {
                world.point(Point::ResultsSwept)?;
                return Ok(Did::Something);
            }
        }
        let count = 1 + world.rng.below(MAX_RESULTS);
        let records = world.read(Topic::Results, self.lane, self.position, count);
        let Some(last) = records.last() else { return Ok(Did::Nothing) };
        let next = last.offset + 1;
        let mut results = Vec::new();
        for record in &records {
            // Bytes that are no record are passed over with an alarm.
            if let Ok(news) = ResultRecord::decode(&record.payload) {
                results.push(self.incoming(world, record.offset, news));
            }
        }
        if world.makes(Mistake::ToldBeforeExec) {
            for one in &results {
                self.tell(world, &one.news, Fate::Applied)?;
            }
        }
        self.commit(world, next, results)?;
        world.point(Point::ResultsHandedIn)?;
        Ok(Did::Something)
    }

    fn incoming(&self, world: &mut World, offset: i64, news: ResultRecord) -> Incoming {
        let early = world.makes(Mistake::UndoNoticeEnds);
        let news = match news {
            ResultRecord::Ended(result) => News::Ended(Arc::new(result)),
            ResultRecord::Undoing(notice) if early => News::Ended(Arc::new(SagaResult {
                saga: notice.saga,
                ordinal: notice.ordinal,
                outcome: SagaOutcome::Undone {
                    cause: UndoCause::TimedOut,
                    step: None,
                    refusal: Refusal { code: "undoing".to_owned(), reason: String::new() },
                },
                trace: notice.trace,
            })),
            ResultRecord::Undoing(notice) => News::Undoing(Arc::new(notice)),
        };
        let ordinal = news.ordinal();
        let ours = ordinal.starter == world.starter && ordinal.lane == self.lane;
        let lanes = world.process(STARTER, self.worker).lanes.clone();
        let known = ours.then(|| lanes.recall(self.lane, news.ordinal().sequence)).flatten();
        let known = known.or_else(|| self.subject_of_any(world, &news).filter(|_| ours));
        Incoming { offset, news, known, span: tracing::Span::none() }
    }

    /// Where results that come again are not stopped, their orders are looked at; no pending entry names them any more.
    fn subject_of_any(&self, world: &World, news: &News) -> Option<Open> {
        if !world.lacks(Defence::Dedup) {
            return None;
        }
        let sequence = news.ordinal().sequence;
        let mut started = world.oracle.started.iter();
        let started = started.find(|started| started.lane == self.lane && started.sequence == sequence)?;
        let (saga, subject) = (started.saga, started.order.as_str().into());
        Some(Open { saga, subject, since: world.instant(), is_delivered: true })
    }

    fn commit(&mut self, world: &mut World, next: i64, results: Vec<Incoming>) -> Result<(), Stop> {
        let told = results.iter().map(|one| one.news.clone()).collect();
        let batch = ResultBatch {
            business: Arc::new(world.shop()),
            starter: world.starter.clone(),
            lane: self.lane,
            expected: self.position,
            next,
            results,
        };
        let offline = world.process(STARTER, self.worker).offline.clone();
        let lane = self.lane;
        let mut off = Vec::new();
        off.extend(world.makes(Mistake::ResultsUnfenced).then_some(Guard::Position));
        off.extend(world.lacks(Defence::Dedup).then_some(Guard::Ended));
        let commit: Commit = if off.is_empty() {
            Box::pin(offline.run(lane.0, batch))
        } else {
            Box::pin(offline.run(lane.0, Unguarded { batch, off }))
        };
        self.running = Some((commit, told, next));
        Ok(())
    }

    /// The EXEC is known to have happened; then, and only then, whoever waits is answered.
    fn committed(&mut self, world: &mut World, outcome: Result<BatchOutcome, CommitError>) -> Result<Did, Stop> {
        let Some((_, told, next)) = self.running.take() else { return Ok(Did::Nothing) };
        let fates = match outcome {
            Ok(BatchOutcome::Committed { fates, halt: None }) => fates,
            Ok(BatchOutcome::Committed { halt: Some(why), .. }) => return Err(Stop::Halt(why.to_string())),
            Ok(BatchOutcome::Fenced { found }) => {
                world.coverage.count("starters fenced", 1);
                return Err(Stop::Restart(format!("fenced: expected {}, found {found}", self.position)));
            }
            Err(error) => return Err(Stop::Restart(error.to_string())),
        };
        self.position = next;
        world.stands(STARTER, self.lane, next);
        world.point(Point::ResultsApplied)?;
        let ends = |news: &News, fate: &Fate| {
            matches!(news, News::Ended(_))
                && matches!(fate, Fate::Applied | Fate::Ignored(Ignored::NotCurrent | Ignored::Duplicate))
        };
        let ended = told.iter().zip(&fates).filter(|(news, fate)| ends(news, fate));
        let sequences: Vec<u64> = ended.map(|(news, _)| news.ordinal().sequence).collect();
        let now = world.instant();
        world.process(STARTER, self.worker).lanes.forget(self.lane, sequences.into_iter(), now);
        for (news, fate) in told.iter().zip(&fates) {
            if let Fate::Ignored(why) = fate {
                world.coverage.count(&format!("results ignored: {}", why.word()), 1);
                if why.is_alarm() {
                    return Err(Stop::Halt(format!("result of {}: {}", news.saga(), why.word())));
                }
            }
            self.tell(world, news, *fate)?;
        }
        if !told.is_empty() {
            world.point(Point::ResultsTold)?;
        }
        Ok(Did::Something)
    }

    fn tell(&self, world: &mut World, news: &News, fate: Fate) -> Result<(), Stop> {
        let News::Ended(result) = news else { return Ok(()) };
        let paid = result.outcome == SagaOutcome::Completed;
        let worker = self.worker;
        for index in 0..world.clients.len() {
            let client = &world.clients[index];
            if client.worker != worker || !client.waits_for(result.saga) {
                continue;
            }
            world.clients[index].state = if fate == Fate::Applied {
                world.oracle.told(result.saga, paid, &world.stores[STARTER])?;
                ClientState::Done
            } else {
                ClientState::Polling(result.saga)
            };
        }
        Ok(())
    }

    /// Sends what has been pending for long again. False if nothing has.
    fn sweep(&mut self, world: &mut World) -> Result<bool, Stop> {
        if world.makes(Mistake::StartsNeverSwept) || world.makes(Mistake::StartsNeverResent) {
            return Ok(false);
        }
        let stored = self.stored(world)?.unwrap_or_default();
        let (lanes, now) = (world.process(STARTER, self.worker).lanes.clone(), world.instant());
        lanes.prune(self.lane, &stored);
        let from_memory = world.makes(Mistake::SweepFromMemory);
        let is_due = |sequence: &u64| {
            let is_known = lanes.recall(self.lane, *sequence).is_some();
            lanes.is_due(self.lane, *sequence, now)
                && (!from_memory || is_known)
                && !(world.lacks(Defence::Sweep) && self.is_cared_for(*sequence, is_known))
        };
        let due: Vec<u64> = stored.pending().filter(is_due).collect();
        let entries = self.read_pending(world, &due)?;
        let unknown: Vec<PendingStart> = entries
            .iter()
            .filter(|entry| lanes.recall(self.lane, entry.start.ordinal.sequence).is_none())
            .cloned()
            .collect();
        self.remember(world, &unknown);
        self.found.extend(unknown.iter().map(|entry| entry.start.ordinal.sequence));
        if entries.is_empty() {
            return Ok(false);
        }
        world.coverage.count("starts swept", entries.len() as u64);
        world.send(entries.into_iter().map(|entry| record(entry.start)).collect())?;
        Ok(true)
    }

    /// Whether the takeover or a window of this process sends the start until it is acknowledged. The sweep is a net for
    /// those; the others have nobody else, such as what became pending after the takeover by a process that died before it
    /// could send.
    fn is_cared_for(&self, sequence: u64, is_known: bool) -> bool {
        self.taken_over.contains(&sequence) || is_known && !self.found.contains(&sequence)
    }
}
