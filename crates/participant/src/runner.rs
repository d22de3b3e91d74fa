//! The lane loop of a participant: takes records in, commits them chunk by chunk, answers, and remembers which answers
//! Kafka has acknowledged.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_stream::{HaltReason, LaneEvent, LaneFault, LaneRunner, Outgoing, OwnedLane, Publisher, Receipt, Record};
use proto::{DecodeError, Wire};
use redis_txn::{CommitError, Queue, Store, Transaction, Unread, View};
use saga_core::participant::ParticipantLane;
use service_kit::panics::MAX_TRIES;
use telemetry::context::TraceContext;
use telemetry::stages::{self, Stage};

use crate::business::{Business, Fault};
use crate::events;
use crate::hop::Hop;
use crate::plan::{Answer, Chunk, Entry, Executed, Verdict, execute, lane_key};
use crate::progress::{Progress, Task, repeat_keys};

/// Chunks whose answers may be unacknowledged at once: enough to keep Redis busy while Kafka acknowledges, and few
/// enough that little is repeated after a takeover.
const MAX_UNACKNOWLEDGED_CHUNKS: usize = 8;
/// A lane that has been silent for this long writes down that its answers are acknowledged. Otherwise *replied* would
/// stay behind until the next command, and could in the end lie before the start of the log.
const SILENCE_BEFORE_WRITE_MS: u64 = 5_000;

/// Takes part in sagas with one service's business rule: runs each lane of the service's command topic.
pub struct Participant<B> {
    pub(crate) business: Arc<B>,
    pub(crate) store: Store,
    pub(crate) publisher: Publisher,
    pub(crate) topics: Topics,
    pub(crate) drain: Duration,
}

/// Where commands come from and answers go.
#[derive(Clone, Debug)]
pub(crate) struct Topics {
    pub(crate) commands: Arc<str>,
    pub(crate) inbox: Arc<str>,
}

impl<B: Business> Participant<B> {
    /// For the commands of `participant` (topic `<participant>.commands`). A revoked lane waits up to `drain` for the
    /// acknowledgements of its answers.
    pub fn new(participant: &str, business: B, store: Store, publisher: Publisher, drain: Duration) -> Self {
        let topics = Topics { commands: format!("{participant}.commands").into(), inbox: "saga.inbox".into() };
        Self { business: Arc::new(business), store, publisher, topics, drain }
    }
}

impl<B: Business> LaneRunner for Participant<B> {
    async fn run(&self, lane: OwnedLane) -> Result<(), LaneFault> {
        Box::pin(async { LaneLoop::load(self, lane).await?.run().await }).await
    }
}

/// A chunk on its way through the committer.
struct ChunkTransaction<B> {
    business: Arc<B>,
    chunk: Arc<Chunk>,
    /// Of the sagas in it that are recorded.
    traces: Vec<TraceContext>,
}

impl<B: Business> Transaction for ChunkTransaction<B> {
    type Outcome = Verdict;

    fn keys(&self, keys: &mut Vec<String>) {
        self.chunk.keys(&*self.business, keys);
    }

    fn covered_keys(&self, keys: &mut Vec<String>) {
        self.chunk.record_keys(keys);
    }

    fn traces(&self, visit: &mut dyn FnMut(&TraceContext)) {
        self.traces.iter().for_each(visit);
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<Verdict, Unread> {
        execute(&*self.business, &self.chunk, view)
    }
}

/// Answers of one chunk that Kafka has not acknowledged; without a receipt there was nothing to send.
struct Unacknowledged {
    end: i64,
    receipt: Option<Pin<Box<Receipt>>>,
    sent: Instant,
}

/// One lane from load to revocation or fault.
struct LaneLoop<'a, B> {
    participant: &'a Participant<B>,
    lane: OwnedLane,
    queue: Queue,
    progress: Progress<Hop>,
    unacknowledged: VecDeque<Unacknowledged>,
    last_chunk: Instant,
    /// Since when the drain runs.
    revoked_at: Option<Instant>,
}

/// Whether the loop goes on.
enum Flow {
    Go,
    Revoked,
}

impl<'a, B: Business> LaneLoop<'a, B> {
    async fn load(participant: &'a Participant<B>, mut lane: OwnedLane) -> Result<Self, LaneFault> {
        let key = lane_key(lane.lane());
        let value = participant.store.read(std::slice::from_ref(&key)).await.map_err(store_failed)?;
        let stored = match value.into_iter().next().flatten() {
            None => None,
            Some(bytes) => Some(ParticipantLane::decode(&bytes).map_err(|cause| unreadable(&key, &cause))?),
        };
        let fetched = lane.fetch_from(stored.as_ref().map(|lane| lane.replied)).await?;
        let progress = Progress::new(lane.lane(), stored, fetched);
        lane.set_stored(progress.next());
        lane.set_loaded();
        Ok(Self {
            queue: participant.store.lane_queue(lane.lane().0),
            participant,
            lane,
            progress,
            unacknowledged: VecDeque::new(),
            last_chunk: Instant::now(),
            revoked_at: None,
        })
    }

    async fn run(mut self) -> Result<(), LaneFault> {
        loop {
            if let Flow::Revoked = self.work_off().await? {
                return self.drain().await;
            }
            if let Some(reason) = self.progress.take_halt() {
                return Err(reason.into());
            }
            let until = self.write_due();
            tokio::select! {
                biased;
                acknowledged = front(&mut self.unacknowledged), if !self.unacknowledged.is_empty() => {
                    self.acknowledge(acknowledged)?;
                }
                event = self.lane.next(until) => match event? {
                    LaneEvent::Records(records) => self.take_in(records)?,
                    LaneEvent::End => {}
                    LaneEvent::Tick => self.write_replied().await?,
                    LaneEvent::Revoked => return self.drain().await,
                },
            }
        }
    }

    /// When the store should learn of `replied` although no command has come.
    fn write_due(&self) -> Option<Instant> {
        self.progress.chunk_without_records().map(|_| self.last_chunk + Duration::from_millis(SILENCE_BEFORE_WRITE_MS))
    }

    /// Decodes records and puts them behind those that wait.
    fn take_in(&mut self, records: Vec<Record>) -> Result<(), LaneFault> {
        let lane = self.lane.lane();
        let topic = &self.participant.topics.commands;
        let _scope = stages::enter(Stage::Decode);
        for record in records {
            let (offset, payload) = (record.offset, record.payload.clone());
            self.progress.take_in(offset, &payload, |entry| Hop::arrived(topic, lane, entry, record))?;
        }
        Ok(())
    }

    /// Executes or repeats all that waits.
    async fn work_off(&mut self) -> Result<Flow, LaneFault> {
        while !self.progress.is_idle() {
            self.collect_acknowledged()?;
            if self.unacknowledged.len() >= MAX_UNACKNOWLEDGED_CHUNKS {
                let acknowledged = tokio::select! {
                    acknowledged = front(&mut self.unacknowledged) => acknowledged,
                    () = self.lane.revoked() => return Ok(Flow::Revoked),
                };
                self.acknowledge(acknowledged)?;
                continue;
            }
            let flow = match self.progress.next_task() {
                None => return Ok(Flow::Go),
                Some(Task::Repeat { entries, carried }) => self.repeat_some(&entries, &carried).await?,
                Some(Task::Execute { chunk, carried }) => self.execute_some(chunk, carried).await?,
            };
            if let Flow::Revoked = flow {
                return Ok(Flow::Revoked);
            }
        }
        Ok(Flow::Go)
    }

    /// Answers records below *next* once more, from their step records.
    async fn repeat_some(&mut self, entries: &[Entry], hops: &[Hop]) -> Result<Flow, LaneFault> {
        let keys = repeat_keys(entries);
        let found = self.participant.store.read(&keys).await.map_err(store_failed)?;
        let mut values: BTreeMap<String, Bytes> =
            keys.into_iter().zip(found).filter_map(|(key, value)| Some((key, value?))).collect();
        let repeated = self.progress.repeat(entries, &mut values).map_err(|fault| match fault {
            Fault::Unread(Unread(key)) => restart(format!("key {key} was not read")),
            Fault::Corrupt(why) => HaltReason::Corrupt(why).into(),
            Fault::UnknownFormat(why) => HaltReason::UnknownFormat(why).into(),
        })?;
        events::repeated(self.lane.lane(), &repeated);
        self.publish(entries, hops, repeated.answers, repeated.next).await
    }

    /// Executes the next chunk and sends its answers.
    async fn execute_some(&mut self, chunk: Chunk, hops: Vec<Hop>) -> Result<Flow, LaneFault> {
        let (first, count) = (chunk.first, chunk.entries.len());
        let chunk = Arc::new(chunk);
        let begun = Instant::now();
        let Some(verdict) = self.commit(&chunk, &hops).await else { return Ok(Flow::Revoked) };
        match verdict {
            Ok(Verdict::Executed(executed)) => {
                events::executed(self.lane.lane(), &chunk, &hops, &executed, begun.elapsed());
                self.executed(&chunk, &hops, executed).await
            }
            Ok(Verdict::Fenced { next }) => Err(self.fenced(first, next)),
            Err(CommitError::Panicked(why)) => {
                tracing::error!(lane = %self.lane.lane(), first, records = count, why, "a chunk panics");
                let tries = self.progress.panicked(Arc::unwrap_or_clone(chunk), hops);
                if tries < MAX_TRIES { Ok(Flow::Go) } else { self.set_aside(why).await }
            }
            Err(cause) => Err(store_failed(cause)),
        }
    }

    /// The record that waits longest has panicked too often. Only what lies in the quarantine may be passed over.
    async fn set_aside(&mut self, why: String) -> Result<Flow, LaneFault> {
        let Some((_, hop)) = self.progress.first() else { return Ok(Flow::Go) };
        let poison = hop.poison(&self.participant.topics.commands, self.lane.lane(), &why);
        let sent = async { self.participant.publisher.send(vec![poison]).await?.await };
        tokio::select! {
            sent = sent => sent.map_err(restart)?,
            // The next owner tries it again.
            () = self.lane.revoked() => return Ok(Flow::Revoked),
        }
        self.progress.set_aside(why);
        Ok(Flow::Go)
    }

    /// Hands the chunk to the committer. `None` if the lane is revoked and the store gives no answer in time: the
    /// chunk may happen or not, and whoever owns the lane next finds that out from the lane's position.
    async fn commit(&mut self, chunk: &Arc<Chunk>, hops: &[Hop]) -> Option<Result<Verdict, CommitError>> {
        let business = Arc::clone(&self.participant.business);
        let traces = hops.iter().filter_map(Hop::recorded).collect();
        let run = self.queue.run(ChunkTransaction { business, chunk: Arc::clone(chunk), traces });
        tokio::pin!(run);
        tokio::select! {
            biased;
            verdict = &mut run => return Some(verdict),
            () = self.lane.revoked() => {}
        }
        tokio::time::timeout(self.drain_left(), run).await.ok()
    }

    /// The EXEC is known to have happened: move on, then answer.
    async fn executed(&mut self, chunk: &Chunk, hops: &[Hop], executed: Executed) -> Result<Flow, LaneFault> {
        self.progress.executed(chunk, &executed);
        self.last_chunk = Instant::now();
        self.lane.set_stored(self.progress.next());
        let flow = self.publish(&chunk.entries, hops, executed.answers, executed.next).await?;
        match executed.stop {
            Some(reason) => Err(reason.into()),
            None => Ok(flow),
        }
    }

    async fn publish(
        &mut self,
        entries: &[Entry],
        hops: &[Hop],
        answers: Vec<Answer>,
        end: i64,
    ) -> Result<Flow, LaneFault> {
        let mut receipt = None;
        let records = self.records(entries, hops, answers, end);
        if !records.is_empty() {
            let sent = tokio::select! {
                sent = self.participant.publisher.send(records) => sent.map_err(restart)?,
                // What is not sent will be repeated by the next owner.
                () = self.lane.revoked() => return Ok(Flow::Revoked),
            };
            receipt = Some(Box::pin(sent));
        }
        self.unacknowledged.push_back(Unacknowledged { end, receipt, sent: Instant::now() });
        Ok(Flow::Go)
    }

    /// The answers, and what was set aside among the entries below `end`.
    fn records(&self, entries: &[Entry], hops: &[Hop], answers: Vec<Answer>, end: i64) -> Vec<Outgoing> {
        let _scope = stages::enter(Stage::Encode);
        let (lane, inbox) = (self.lane.lane(), &self.participant.topics.inbox);
        let mut records: Vec<Outgoing> = answers
            .into_iter()
            .map(|answer| hops[answer.entry].answer(inbox, lane, &entries[answer.entry], answer.reply))
            .collect();
        let done = entries.iter().zip(hops).take_while(|(entry, _)| entry.offset < end);
        let commands = &self.participant.topics.commands;
        records.extend(done.filter_map(|(_, hop)| hop.quarantined(commands, lane)));
        records
    }

    fn acknowledge(&mut self, acknowledged: Result<i64, LaneFault>) -> Result<(), LaneFault> {
        let end = acknowledged?;
        if let Some(Unacknowledged { receipt: Some(_), sent, .. }) = self.unacknowledged.pop_front() {
            events::acknowledged(sent.elapsed());
        }
        self.progress.acknowledged(end);
        Ok(())
    }

    /// Takes note of what is acknowledged already, without waiting.
    fn collect_acknowledged(&mut self) -> Result<(), LaneFault> {
        while !self.unacknowledged.is_empty() {
            let mut context = Context::from_waker(Waker::noop());
            let Poll::Ready(acknowledged) = std::pin::pin!(front(&mut self.unacknowledged)).poll(&mut context) else {
                break;
            };
            self.acknowledge(acknowledged)?;
        }
        Ok(())
    }

    /// Moves `replied` in the store, without any record.
    async fn write_replied(&mut self) -> Result<(), LaneFault> {
        let Some(chunk) = self.progress.chunk_without_records() else { return Ok(()) };
        let chunk = Arc::new(chunk);
        match self.commit(&chunk, &[]).await {
            None => Ok(()),
            Some(Ok(Verdict::Executed(executed))) => match &executed.stop {
                None => {
                    self.progress.executed(&chunk, &executed);
                    self.last_chunk = Instant::now();
                    Ok(())
                }
                Some(reason) => Err(reason.clone().into()),
            },
            Some(Ok(Verdict::Fenced { next })) => Err(self.fenced(chunk.first, next)),
            Some(Err(cause)) => Err(store_failed(cause)),
        }
    }

    /// Somebody else has moved the lane: load again, and go on as long as the lane is ours.
    fn fenced(&self, expected: i64, found: i64) -> LaneFault {
        events::fenced(self.lane.lane(), expected, found);
        restart(format!("fenced: expected {expected}, found {found}"))
    }

    /// What is left of the time that a drain may take; the clock starts with the first question.
    fn drain_left(&mut self) -> Duration {
        let since = *self.revoked_at.get_or_insert_with(Instant::now);
        self.participant.drain.saturating_sub(since.elapsed())
    }

    /// The lane is taken away: wait for the acknowledgements, so that the next owner has little to repeat.
    async fn drain(mut self) -> Result<(), LaneFault> {
        let left = self.drain_left();
        let settled = tokio::time::timeout(left, async {
            while !self.unacknowledged.is_empty() {
                let acknowledged = front(&mut self.unacknowledged).await;
                self.acknowledge(acknowledged)?;
            }
            self.write_replied().await
        });
        // Whatever is left undone, the next owner repeats.
        match settled.await {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => tracing::debug!(lane = %self.lane.lane(), %cause, "drain ended early"),
            Err(_) => tracing::warn!(lane = %self.lane.lane(), "drain deadline passed"),
        }
        Ok(())
    }
}

/// Resolves when the oldest answers are acknowledged, with the offset below which all are. Never called without any.
async fn front(unacknowledged: &mut VecDeque<Unacknowledged>) -> Result<i64, LaneFault> {
    match unacknowledged.front_mut() {
        None => std::future::pending().await,
        Some(oldest) => {
            if let Some(receipt) = &mut oldest.receipt {
                receipt.as_mut().await.map_err(restart)?;
            }
            Ok(oldest.end)
        }
    }
}

fn restart(cause: impl ToString) -> LaneFault {
    LaneFault::Restart(cause.to_string())
}

/// A value that cannot be ours is not passed by, however often it is read; the rest may be better next time.
fn store_failed(cause: CommitError) -> LaneFault {
    match cause {
        CommitError::WrongType(key) => HaltReason::Corrupt(format!("key {key} holds another type of value")).into(),
        cause => restart(cause),
    }
}

fn unreadable(key: &str, cause: &DecodeError) -> LaneFault {
    let why = format!("key {key}: {cause}");
    match cause {
        DecodeError::Malformed { .. } => HaltReason::Corrupt(why).into(),
        DecodeError::UnknownFormat { .. } => HaltReason::UnknownFormat(why).into(),
    }
}
