//! One lane of a participant. What is done with which records is decided by the real [`Progress`] and [`participant::execute`]; the
//! order in which the loop asks them is that of `crates/participant/src/runner.rs`, modelled.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use event_stream::Outgoing;
use participant::{Answer, Chunk, Executed, Fault as Unable, Progress, Task, Verdict, lane_key, repeat_keys};
use proto::Wire;
use redis_txn::CommitError;
use saga_core::ids::Lane;
use saga_core::participant::ParticipantLane;
use saga_core::record::InboxEvent;

use crate::faults::Point;
use crate::log::Topic;
use crate::mistakes::Mistake;
use crate::network::{Acknowledged, SimReceipt};
use crate::orchestrate::look;
use crate::slips::ChunkTransaction;
use crate::task::Did;
use crate::world::{PARTICIPANT, Stop, World};

/// As in the runner.
const MAX_UNACKNOWLEDGED_CHUNKS: usize = 8;
const SILENCE_BEFORE_WRITE_MS: i64 = 5_000;
/// Most records taken in at a time.
const MAX_TAKEN: usize = 8;
/// A lane that is given up waits so many looks for acknowledgements.
const DRAIN_LOOKS: u32 = 10;

type Commit = Pin<Box<dyn Future<Output = Result<Verdict, CommitError>>>>;

/// One lane from load to revocation or fault.
pub struct ParticipantLoop {
    participant: usize,
    worker: usize,
    lane: Lane,
    progress: Option<Progress<()>>,
    running: Option<(Arc<Chunk>, Commit)>,
    /// A mistake: the answers were sent before the EXEC was known.
    answered_early: bool,
    resigned: bool,
    unacknowledged: VecDeque<(i64, Option<SimReceipt>)>,
    last_chunk_ms: i64,
    drain_looks: u32,
}

impl ParticipantLoop {
    /// Nothing is loaded yet.
    pub fn new(service: usize, worker: usize, lane: Lane) -> Self {
        Self {
            participant: service - PARTICIPANT,
            worker,
            lane,
            progress: None,
            running: None,
            answered_early: false,
            resigned: false,
            unacknowledged: VecDeque::new(),
            last_chunk_ms: 0,
            drain_looks: 0,
        }
    }

    /// When something is due.
    pub fn due_ms(&self) -> Option<i64> {
        let progress = self.progress.as_ref()?;
        progress.chunk_without_records().map(|_| self.last_chunk_ms + SILENCE_BEFORE_WRITE_MS)
    }

    /// One thing.
    pub fn step(&mut self, world: &mut World, revoked: bool) -> Result<Did, Stop> {
        if self.resigned {
            return Ok(if revoked { Did::Ended } else { Did::Nothing });
        }
        if self.progress.is_none() {
            world.point(Point::ParticipantLoad)?;
            self.load(world)?;
            world.point(Point::ParticipantLoaded)?;
            return Ok(Did::Something);
        }
        if let Some(did) = self.poll_commit(world)? {
            return Ok(did);
        }
        if let Some(did) = self.collect_acknowledged(world)? {
            return Ok(did);
        }
        if revoked {
            return self.drain(world);
        }
        if self.unacknowledged.len() >= MAX_UNACKNOWLEDGED_CHUNKS {
            return Ok(Did::Nothing);
        }
        match self.progress.as_mut().and_then(Progress::next_task) {
            Some(Task::Repeat { entries, .. }) => self.repeat(world, &entries),
            Some(Task::Execute { chunk, .. }) => self.hand_in(world, chunk),
            None => self.take_in(world),
        }
    }

    fn load(&mut self, world: &mut World) -> Result<(), Stop> {
        let key = lane_key(self.lane);
        let stored = world.stores[PARTICIPANT + self.participant].get(&key);
        let mut stored = match stored.map(|bytes| ParticipantLane::decode(bytes)) {
            None => None,
            Some(Ok(lane)) => Some(lane),
            Some(Err(error)) => return Err(Stop::Halt(format!("{key}: {error}"))),
        };
        if let (true, Some(lane)) = (world.makes(Mistake::NoRepliedPosition), &mut stored) {
            lane.replied = lane.next;
        }
        let service = PARTICIPANT + self.participant;
        let fetched = match &stored {
            Some(lane) => lane.replied,
            None => world.start_of_new_lane(service, self.lane)?,
        };
        let at = stored.as_ref().map_or(fetched, |lane| lane.next);
        world.stands(service, self.lane, at);
        self.progress = Some(Progress::new(self.lane, stored, fetched));
        self.last_chunk_ms = world.now_ms;
        world.note(|| format!("{}[{}]: loaded, next {at}, replied {fetched}", self.name(), self.lane));
        Ok(())
    }

    /// The chunk that is at the store.
    fn poll_commit(&mut self, world: &mut World) -> Result<Option<Did>, Stop> {
        let Some((chunk, commit)) = &mut self.running else { return Ok(None) };
        let Poll::Ready(verdict) = look(commit) else { return Ok(Some(Did::Nothing)) };
        let chunk = chunk.clone();
        self.running = None;
        match verdict {
            Ok(Verdict::Executed(executed)) => self.executed(world, &chunk, executed).map(Some),
            Ok(Verdict::Fenced { next }) => {
                world.coverage.count("participants fenced", 1);
                if world.makes(Mistake::FencedResigns) {
                    self.resigned = true;
                    return Ok(Some(Did::Something));
                }
                Err(Stop::Restart(format!("fenced: expected {}, found {next}", chunk.first)))
            }
            Err(CommitError::Panicked(why)) => Err(Stop::Halt(why)),
            Err(error) => Err(Stop::Restart(error.to_string())),
        }
    }

    fn executed(&mut self, world: &mut World, chunk: &Chunk, executed: Executed) -> Result<Did, Stop> {
        world.point(Point::ParticipantExecuted)?;
        if let Some(progress) = &mut self.progress {
            progress.executed(chunk, &executed);
        }
        world.stands(PARTICIPANT + self.participant, self.lane, executed.next);
        world.coverage.count("sagas forgotten by participants", executed.forgotten as u64);
        self.last_chunk_ms = world.now_ms;
        if let Some(reason) = &executed.stop {
            return Err(Stop::Halt(reason.to_string()));
        }
        if !chunk.entries.is_empty() {
            let answers = if self.answered_early { Vec::new() } else { executed.answers };
            self.answered_early = false;
            self.publish(world, answers, executed.next)?;
            world.point(Point::ParticipantAnswered)?;
        }
        Ok(Did::Something)
    }

    fn collect_acknowledged(&mut self, world: &mut World) -> Result<Option<Did>, Stop> {
        let Some((end, receipt)) = self.unacknowledged.front() else { return Ok(None) };
        let hasty = world.makes(Mistake::RepliedBeforeAck);
        let look = receipt.as_ref().map_or(Acknowledged::Yes, SimReceipt::look);
        match look {
            Acknowledged::Failed if !hasty => Err(Stop::Restart("delivery failed".to_owned())),
            Acknowledged::NotYet if !hasty => Ok(None),
            _ => {
                let end = *end;
                self.unacknowledged.pop_front();
                if let Some(progress) = &mut self.progress {
                    progress.acknowledged(end);
                }
                world.point(Point::ParticipantAcknowledged)?;
                Ok(Some(Did::Something))
            }
        }
    }

    fn hand_in(&mut self, world: &mut World, chunk: Chunk) -> Result<Did, Stop> {
        let chunk = Arc::new(chunk);
        let process = world.process(PARTICIPANT + self.participant, self.worker);
        let offline = process.offline.clone();
        let transaction = ChunkTransaction {
            chunk: chunk.clone(),
            ledger: process.ledger.clone(),
            attempt: process.attempt.clone(),
            mistake: world.options.mistake,
        };
        if world.makes(Mistake::AnswerBeforeExec) {
            let store = &world.stores[PARTICIPANT + self.participant];
            let mut values: BTreeMap<String, Bytes> =
                store.with_prefix("").map(|(key, value)| (key.to_owned(), value.clone())).collect();
            if let Ok(Verdict::Executed(executed)) = participant::execute(&transaction.ledger, &chunk, &mut values) {
                self.answered_early = true;
                self.publish(world, executed.answers, i64::MIN)?;
            }
        }
        self.running = Some((chunk, Box::pin(offline.run(self.lane.0, transaction))));
        world.point(Point::ParticipantHandedIn)?;
        Ok(Did::Something)
    }

    fn repeat(&mut self, world: &mut World, entries: &[participant::Entry]) -> Result<Did, Stop> {
        let store = &world.stores[PARTICIPANT + self.participant];
        let keys = repeat_keys(entries).into_iter();
        let mut values: BTreeMap<String, Bytes> =
            keys.filter_map(|key| store.get(&key).cloned().map(|value| (key, value))).collect();
        let Some(progress) = &self.progress else { return Ok(Did::Nothing) };
        let repeated = progress.repeat(entries, &mut values).map_err(|fault| match fault {
            Unable::Unread(unread) => Stop::Restart(unread.0),
            Unable::Corrupt(why) | Unable::UnknownFormat(why) => Stop::Halt(why),
        })?;
        world.coverage.count("answers repeated", repeated.answers.len() as u64);
        self.publish(world, repeated.answers, repeated.next)?;
        world.point(Point::ParticipantRepeated)?;
        Ok(Did::Something)
    }

    fn take_in(&mut self, world: &mut World) -> Result<Did, Stop> {
        let Some(progress) = &mut self.progress else { return Ok(Did::Nothing) };
        if let Some(reason) = progress.take_halt() {
            return Err(Stop::Halt(reason.to_string()));
        }
        let count = 1 + world.rng.below(MAX_TAKEN);
        let records = world.read(Topic::Commands(self.participant), self.lane, progress.fetched(), count);
        for record in &records {
            let taken = progress.take_in(record.offset, &record.payload, |_| ());
            taken.map_err(|reason| Stop::Halt(reason.to_string()))?;
        }
        if !records.is_empty() {
            world.point(Point::ParticipantTaken)?;
            return Ok(Did::Something);
        }
        if world.now_ms >= self.last_chunk_ms + SILENCE_BEFORE_WRITE_MS
            && let Some(chunk) = progress.chunk_without_records()
        {
            return self.hand_in(world, chunk);
        }
        Ok(Did::Nothing)
    }

    fn publish(&mut self, world: &mut World, answers: Vec<Answer>, end: i64) -> Result<(), Stop> {
        let topic: Arc<str> = Arc::from("saga.inbox");
        let lane = self.lane;
        let records: Vec<Outgoing> = answers
            .into_iter()
            .map(|answer| {
                let payload = InboxEvent::Reply(answer.reply).encode();
                Outgoing { topic: topic.clone(), lane, payload, headers: Vec::new() }
            })
            .collect();
        let receipt = if records.is_empty() { None } else { Some(world.send(records)?) };
        self.unacknowledged.push_back((end, receipt));
        Ok(())
    }

    /// The lane is taken away: waits a little for acknowledgements and writes them down.
    fn drain(&mut self, world: &mut World) -> Result<Did, Stop> {
        self.drain_looks += 1;
        let chunk = self.progress.as_ref().and_then(Progress::chunk_without_records);
        match chunk {
            _ if self.drain_looks > DRAIN_LOOKS => Ok(Did::Ended),
            _ if !self.unacknowledged.is_empty() => Ok(Did::Something),
            Some(chunk) => self.hand_in(world, chunk),
            None => Ok(Did::Ended),
        }
    }

    fn name(&self) -> String {
        crate::committer::name(PARTICIPANT + self.participant, self.worker)
    }
}
