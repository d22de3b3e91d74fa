//! The loop of one lane of the results topic: takes over what is pending, applies results, then answers who waits.

use std::sync::Arc;
use std::time::Instant;

use event_stream::{HaltReason, LaneEvent, LaneFault, LaneRunner, Outgoing, OwnedLane, Record};
use proto::quarantine::{QUARANTINE, Quarantined};
use proto::{DecodeError, Wire};
use redis_txn::CommitError;
use saga_core::ids::Lane;
use saga_core::record::{ResultRecord, SagaResult, UndoNotice};
use saga_core::starter::{PendingStart, StarterLane};
use service_kit::panics::caught;
use telemetry::context::{self, Message};
use telemetry::metrics::QUARANTINED;
use telemetry::stages::{self, Stage};
use tracing::Span;

use crate::apply::{BatchOutcome, Fate, Ignored, Incoming, News, ResultBatch};
use crate::business::{Business, unreadable};
use crate::events::{self, Occasion};
use crate::keys::{lane_key, pending_key};
use crate::lanes::{Open, SWEEP_INTERVAL};
use crate::poison::Failure;
use crate::{Shared, publish};

/// Most results in one EXEC: two windows. Each watches a subject, and the cost of WATCH grows with the square of the keys.
const MAX_RESULTS_PER_EXEC: usize = 128;

/// Most pending entries read by one MGET.
const MAX_ENTRIES_PER_READ: usize = 256;

/// Most starts that one sweep of a lane sends again.
const MAX_RESENDS_PER_SWEEP: usize = 256;

/// Runs the lanes of the starter's results topic.
pub struct ResultsRunner<B: Business> {
    pub(crate) shared: Arc<Shared<B>>,
}

/// The lane is known to the windows as long as this lives, however the loop ends.
struct Presence<'a, B: Business> {
    shared: &'a Shared<B>,
    lane: Lane,
}

impl<B: Business> Drop for Presence<'_, B> {
    fn drop(&mut self) {
        // First the lane, then the waiters: a window that commits meanwhile looks in the other order.
        self.shared.lanes.leave(self.lane);
        self.shared.waiters.lane_lost(self.lane);
    }
}

impl<B: Business> LaneRunner for ResultsRunner<B> {
    async fn run(&self, mut lane: OwnedLane) -> Result<(), LaneFault> {
        let id = lane.lane();
        self.shared.lanes.enter(id);
        let _presence = Presence { shared: &self.shared, lane: id };
        let stored = self.read_lane(id).await?;
        let mut position = lane.fetch_from(stored.as_ref().map(|stored| stored.results_next)).await?;
        if stored.is_none() {
            // From now on a missing key means a lost store, never a new lane.
            position = self.move_to(id, position, position).await?;
        }
        lane.set_stored(position);
        let pending: Vec<u64> = stored.unwrap_or_default().pending().collect();
        tokio::select! {
            taken_over = self.take_over(id, pending) => taken_over?,
            () = lane.revoked() => return Ok(()),
        }
        lane.set_loaded();
        self.shared.lanes.loaded(id);
        let mut sweep_at = first_sweep(id, Instant::now());
        loop {
            match lane.next(Some(sweep_at)).await? {
                LaneEvent::Records(records) => {
                    position = self.apply(id, position, &records).await?;
                    lane.set_stored(position);
                }
                LaneEvent::End => {}
                LaneEvent::Tick => {
                    self.sweep(id).await?;
                    sweep_at = Instant::now() + SWEEP_INTERVAL;
                }
                LaneEvent::Revoked => return Ok(()),
            }
        }
    }
}

/// Lanes that were taken over together do not sweep together.
fn first_sweep(lane: Lane, now: Instant) -> Instant {
    now + SWEEP_INTERVAL + SWEEP_INTERVAL * (lane.0 % 100) / 100
}

impl<B: Business> ResultsRunner<B> {
    async fn read_lane(&self, lane: Lane) -> Result<Option<StarterLane>, LaneFault> {
        let values = self.shared.store.read(&[lane_key(lane)]).await.map_err(restart)?;
        let Some(bytes) = values.into_iter().next().flatten() else { return Ok(None) };
        StarterLane::decode(&bytes).map(Some).map_err(|error| unreadable(&lane_key(lane), &error).into())
    }

    /// Sends every pending start again and remembers it.
    async fn take_over(&self, lane: Lane, pending: Vec<u64>) -> Result<(), LaneFault> {
        for sequences in pending.chunks(MAX_ENTRIES_PER_READ) {
            let entries = self.read_pending(lane, sequences).await?;
            self.remember(lane, &entries);
            events::resent(lane, entries.len(), Occasion::Takeover);
            let records = publish::records(&self.shared.inbox, entries);
            publish::deliver(&self.shared.publisher, records, || ()).await;
            self.shared.lanes.delivered(lane, sequences.iter().copied());
        }
        Ok(())
    }

    /// Sends what has been pending for long again, from the store, which knows more than this process's memory.
    async fn sweep(&self, lane: Lane) -> Result<(), LaneFault> {
        let stored = self.read_lane(lane).await?.unwrap_or_default();
        self.shared.lanes.prune(lane, &stored);
        let now = Instant::now();
        let is_due = |sequence: &u64| self.shared.lanes.is_due(lane, *sequence, now);
        let due: Vec<u64> = stored.pending().filter(is_due).take(MAX_RESENDS_PER_SWEEP).collect();
        if due.is_empty() {
            return Ok(());
        }
        let entries = self.read_pending(lane, &due).await?;
        let unknown: Vec<_> = entries
            .iter()
            .filter(|entry| self.shared.lanes.recall(lane, entry.start.ordinal.sequence).is_none())
            .cloned()
            .collect();
        self.remember(lane, &unknown);
        events::resent(lane, entries.len(), Occasion::Sweep);
        let records = publish::records(&self.shared.inbox, entries);
        let shared = self.shared.clone();
        // Once only, and the lane goes on meanwhile: the next sweep is the retry.
        self.shared.tasks.spawn(async move {
            if publish::try_once(&shared.publisher, records).await {
                shared.lanes.delivered(lane, due);
            }
        });
        Ok(())
    }

    fn remember(&self, lane: Lane, entries: &[PendingStart]) {
        let tenure = self.shared.lanes.tenure(lane);
        for entry in entries {
            let subject = entry.subject.as_str().into();
            let open = Open { saga: entry.start.saga, subject, since: Instant::now(), is_delivered: false };
            self.shared.lanes.remember(lane, tenure, entry.start.ordinal.sequence, open);
        }
    }

    /// The entries of these sequences, without those that have ended since.
    async fn read_pending(&self, lane: Lane, sequences: &[u64]) -> Result<Vec<PendingStart>, LaneFault> {
        let keys: Vec<String> = sequences.iter().map(|sequence| pending_key(lane, *sequence)).collect();
        let values = self.shared.store.read(&keys).await.map_err(restart)?;
        let mut entries = Vec::with_capacity(values.len());
        let mut missing = Vec::new();
        for ((sequence, key), value) in sequences.iter().zip(&keys).zip(values) {
            match value {
                Some(bytes) => entries.push(PendingStart::decode(&bytes).map_err(|error| unreadable(key, &error))?),
                None => missing.push(*sequence),
            }
        }
        if !missing.is_empty() {
            let lane_now = self.read_lane(lane).await?.unwrap_or_default();
            if let Some(sequence) = missing.iter().find(|sequence| !lane_now.ended.contains(**sequence)) {
                let why = format!("sequence {sequence} has not ended, but its pending entry is missing");
                return Err(HaltReason::Corrupt(why).into());
            }
        }
        Ok(entries)
    }

    pub(crate) fn quarantined(&self, lane: Lane, record: &Record, reason: String) -> Outgoing {
        let topic = &self.shared.results_topic;
        QUARANTINED.add(1, &[("topic", topic)]);
        let set_aside = Quarantined::new(topic, lane.0, record.offset, reason, &record.payload, &record.headers);
        Outgoing { topic: QUARANTINE.into(), lane, payload: set_aside.encode(), headers: Vec::new() }
    }

    /// Applies records that begin at `position`; answers the position after them.
    async fn apply(&self, lane: Lane, mut position: i64, records: &[Record]) -> Result<i64, LaneFault> {
        for chunk in records.chunks(MAX_RESULTS_PER_EXEC) {
            position = match self.apply_chunk(lane, position, chunk).await {
                Ok(next) => next,
                Err(Failure::Panicked(why)) => {
                    events::batch_panicked(lane, position, chunk.len(), &why);
                    self.apply_each(lane, position, chunk).await?
                }
                Err(Failure::Fault(fault)) => return Err(fault),
            }
        }
        Ok(position)
    }

    /// The same in one EXEC.
    pub(crate) async fn apply_chunk(&self, lane: Lane, position: i64, chunk: &[Record]) -> Result<i64, Failure> {
        let Decoded { results, set_aside, next, halt } = self.decode(lane, position, chunk)?;
        self.send_aside(set_aside).await?;
        let position = self.commit(lane, position, next, results, chunk).await?;
        halt.map_or(Ok(position), |reason| Err(LaneFault::from(reason).into()))
    }

    /// Reads records up to one that halts the lane.
    fn decode(&self, lane: Lane, position: i64, chunk: &[Record]) -> Result<Decoded, Failure> {
        let _scope = stages::enter(Stage::Decode);
        let results = Vec::with_capacity(chunk.len());
        let mut decoded = Decoded { results, set_aside: Vec::new(), next: position, halt: None };
        for record in chunk {
            match caught(|| ResultRecord::decode(&record.payload)).map_err(Failure::Panicked)? {
                Ok(news) => decoded.results.push(self.incoming(lane, record, news)),
                Err(error @ DecodeError::Malformed { .. }) => {
                    events::result_malformed(lane, record.offset, &error);
                    decoded.set_aside.push(self.quarantined(lane, record, error.to_string()));
                }
                Err(error @ DecodeError::UnknownFormat { .. }) => {
                    let why = format!("offset {}: {error}", record.offset);
                    decoded.halt = Some(HaltReason::UnknownFormat(why));
                    break;
                }
            }
            decoded.next = record.offset + 1;
        }
        Ok(decoded)
    }

    /// Only what lies in the quarantine may be passed over.
    pub(crate) async fn send_aside(&self, records: Vec<Outgoing>) -> Result<(), LaneFault> {
        if records.is_empty() {
            return Ok(());
        }
        let sent = publish::send(&self.shared.publisher, records).await;
        sent.map_err(|error| LaneFault::Restart(format!("set records aside: {error}")))
    }

    fn incoming(&self, lane: Lane, record: &Record, news: ResultRecord) -> Incoming {
        // The headers name the span that sent this record; the record itself only the trace that its saga began in.
        let sent_by = context::from_headers(&record.headers);
        let trace = |own| if sent_by.traceparent.is_empty() { own } else { sent_by.clone() };
        let news = match news {
            ResultRecord::Ended(result) => {
                News::Ended(Arc::new(SagaResult { trace: trace(result.trace.clone()), ..result }))
            }
            ResultRecord::Undoing(notice) => {
                News::Undoing(Arc::new(UndoNotice { trace: trace(notice.trace.clone()), ..notice }))
            }
        };
        let ordinal = news.ordinal();
        let known = (ordinal.starter == self.shared.starter && ordinal.lane == lane)
            .then(|| self.shared.lanes.recall(lane, ordinal.sequence))
            .flatten();
        let (topic, offset) = (&*self.shared.results_topic, Some(record.offset));
        let message = Message { topic, lane: lane.0, offset, saga: news.saga(), about: &news.word() };
        let span = context::process_span(&message, news.trace());
        Incoming { offset: record.offset, news, known, span }
    }

    /// The lane stands elsewhere, and nothing else changes.
    pub(crate) async fn move_to(&self, lane: Lane, expected: i64, next: i64) -> Result<i64, LaneFault> {
        Ok(self.commit(lane, expected, next, Vec::new(), &[]).await?)
    }

    /// One EXEC; then, and only then, whoever waits is answered. `chunk` is what the results were read from.
    async fn commit(
        &self,
        lane: Lane,
        expected: i64,
        next: i64,
        results: Vec<Incoming>,
        chunk: &[Record],
    ) -> Result<i64, Failure> {
        let told: Vec<Told> = results.iter().map(Told::of).collect();
        let batch = ResultBatch {
            business: self.shared.business.clone(),
            starter: self.shared.starter.clone(),
            lane,
            expected,
            next,
            results,
        };
        let (fates, halt) = match self.shared.store.lane_queue(lane.0).run(batch).await.map_err(Failure::from)? {
            BatchOutcome::Committed { fates, halt } => (fates, halt),
            BatchOutcome::Fenced { found } => {
                events::fenced(lane, expected, found);
                return Err(LaneFault::Restart(format!("fenced: expected {expected}, found {found}")).into());
            }
        };
        // An ignored result that is foreign has not ended a sequence of ours.
        let ended = told.iter().zip(&fates).filter(|(told, fate)| ends_sequence(&told.news, **fate));
        self.shared.lanes.forget(lane, ended.map(|(told, _)| told.news.ordinal().sequence), Instant::now());
        for (told, fate) in told.iter().zip(&fates) {
            self.tell(told, *fate);
        }
        self.set_impossible_aside(lane, &told, &fates, chunk).await?;
        match halt {
            Some(reason) => Err(LaneFault::from(reason).into()),
            None => Ok(next),
        }
    }

    /// What no orchestrator of ours sends is kept for people to see. Only the EXEC could tell, so the position has moved: if the
    /// process dies, the lane is lost or the broker takes nothing, the record stays where it was, and the alarm was given.
    async fn set_impossible_aside(
        &self,
        lane: Lane,
        told: &[Told],
        fates: &[Fate],
        chunk: &[Record],
    ) -> Result<(), LaneFault> {
        let records = told.iter().zip(fates).filter_map(|(told, fate)| {
            let Fate::Ignored(why) = fate else { return None };
            let record = chunk.iter().find(|record| why.is_alarm() && record.offset == told.offset)?;
            Some(self.quarantined(lane, record, format!("an impossible result ({})", why.word())))
        });
        self.send_aside(records.collect()).await
    }

    fn tell(&self, Told { news, since, span, .. }: &Told, fate: Fate) {
        let saga = news.saga();
        // What is said of a record that changes something is said on the level of debugging.
        let is_said = matches!(fate, Fate::Ignored(_)) || tracing::enabled!(tracing::Level::DEBUG);
        let _scope = is_said.then(|| context::scope(&context::of_span(span, news.trace())));
        match (news, fate) {
            (News::Ended(result), Fate::Applied) => {
                events::result_applied(result, since.map(|since| since.elapsed()));
                self.shared.waiters.ended(result);
            }
            (News::Ended(_), Fate::Ignored(why)) => {
                events::result_ignored(news, why);
                self.shared.waiters.elsewhere(saga);
            }
            // Whoever waits goes on waiting: only the end is an answer.
            (News::Undoing(_), Fate::Applied) => events::undo_noted(saga),
            (News::Undoing(_), Fate::Ignored(why)) => events::result_ignored(news, why),
        }
    }
}

/// What was found in a piece of the log.
struct Decoded {
    results: Vec<Incoming>,
    set_aside: Vec<Outgoing>,
    /// The offset behind it.
    next: i64,
    /// Why nothing behind it may be read.
    halt: Option<HaltReason>,
}

/// What is needed to tell of a record when its batch has been committed.
struct Told {
    offset: i64,
    news: News,
    /// Since when its saga is known to be pending here.
    since: Option<Instant>,
    span: Span,
}

impl Told {
    fn of(incoming: &Incoming) -> Self {
        let since = incoming.known.as_ref().map(|open| open.since);
        Self { offset: incoming.offset, news: incoming.news.clone(), since, span: incoming.span.clone() }
    }
}

fn ends_sequence(news: &News, fate: Fate) -> bool {
    matches!(news, News::Ended(_))
        && matches!(fate, Fate::Applied | Fate::Ignored(Ignored::NotCurrent | Ignored::Duplicate))
}

/// The store is away: the stream runs the lane again, after a pause.
fn restart(error: CommitError) -> LaneFault {
    Failure::from(error).into()
}
