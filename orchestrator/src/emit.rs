//! From effects to records, and the receipts of what was sent.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use event_stream::{Lane, MAX_PAYLOAD_BYTES, Outgoing, PublishError, Record};
use proto::Wire;
use proto::quarantine::{QUARANTINE, Quarantined};
use saga_core::definition::MAX_STEPS;
use saga_core::ids::{SagaId, TraceContext};
use saga_core::record::{
    Command, CommandRecord, Floor, InboxEvent, MAX_INPUTS_BYTES, MAX_OUTPUT_BYTES, ResultRecord, SagaOutcome,
    SagaResult, Timer,
};
use telemetry::context::{self, CommandWords, Message};
use telemetry::metrics;

/// The topic that this service consumes and writes timers and activations to.
pub const INBOX: &str = "saga.inbox";
/// Records of one lane that may be on their way to Kafka without an acknowledgement; above it the loop stops folding.
pub const MAX_UNACKNOWLEDGED: usize = 4_096;
/// Names of results topics that are kept at hand; starts name few.
const MAX_RESULT_TOPICS: usize = 64;

/// Bytes of a command that are neither its input nor outputs: names, ids and its trace.
const MAX_COMMAND_FRAME_BYTES: usize = 64 * 1024;
const _: () = assert!(
    MAX_INPUTS_BYTES + MAX_STEPS * MAX_OUTPUT_BYTES + MAX_COMMAND_FRAME_BYTES <= MAX_PAYLOAD_BYTES,
    "every command that starters and participants of this program can lead to fits into a record"
);

/// The topic of a participant's commands.
pub fn commands_topic(participant: &str) -> String {
    format!("{participant}.commands")
}

/// Encodes what a lane has to say, in order, until it is sent as one batch.
pub struct Emitter {
    lane: Lane,
    inbox: Arc<str>,
    command_topics: BTreeMap<Arc<str>, Arc<str>>,
    result_topics: BTreeMap<String, ResultTopic>,
    pending: Vec<Outgoing>,
    /// News among what is pending for topics of which nobody knows yet whether they are there.
    doubtful: Vec<Doubtful>,
}

/// The name is the starter's: it may be anything.
struct ResultTopic {
    name: Arc<str>,
    is_there: bool,
}

/// Something that may have nowhere to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubtful {
    /// Its place among what is pending.
    pub place: usize,
    /// The inbox record that it comes from.
    pub cause: i64,
}

impl Emitter {
    /// Nothing to say yet.
    pub fn new(lane: Lane) -> Self {
        Self {
            lane,
            inbox: INBOX.into(),
            command_topics: BTreeMap::new(),
            result_topics: BTreeMap::new(),
            pending: Vec::new(),
            doubtful: Vec::new(),
        }
    }

    /// A command for its participant. `cause` is the context of the record that led to it; a command without one
    /// rejoins the saga's own trace.
    ///
    /// One that fits in no record is not sent: its start or a reply came from a program with other limits, and the rest of
    /// the lane must go on. Its deadlines decide.
    pub fn command(&mut self, participant: &Arc<str>, command: Command, cause: &TraceContext) {
        let topic = self.command_topic(participant);
        let saga = command.id.saga;
        let headers = headers(&topic, self.lane, saga, &CommandWords(&command.id), cause, &command.trace);
        let payload = CommandRecord::Command(command).encode();
        if payload.len() <= MAX_PAYLOAD_BYTES {
            return self.push(topic, payload, headers);
        }
        let alarm = "command-too-large";
        metrics::FOLD_ALARMS.add(1, &[("alarm", alarm)]);
        let detail = format!("a command of {} bytes for {topic}; a record holds {MAX_PAYLOAD_BYTES}", payload.len());
        tracing::error!(lane = self.lane.0, alarm, saga.id = %saga, detail, "command not sent");
    }

    /// News of a saga for its starter, from the inbox record at `offset`.
    pub fn result(&mut self, topic: String, record: &ResultRecord, cause: &TraceContext, offset: i64) {
        let (topic, is_there) = self.result_topic(topic);
        if !is_there {
            self.doubtful.push(Doubtful { place: self.pending.len(), cause: offset });
        }
        let word = match record {
            ResultRecord::Ended(result) => context::outcome_word(&result.outcome),
            ResultRecord::Undoing(_) => "undoing",
        };
        let headers = headers(&topic, self.lane, record.saga(), &word, cause, record.trace());
        self.push(topic, encode_brief(record), headers);
    }

    /// A floor for each of the participants; encoded once.
    pub fn floor(&mut self, participants: impl IntoIterator<Item = Arc<str>>, floor: Floor) {
        let payload = CommandRecord::Floor(floor).encode();
        for participant in participants {
            let topic = self.command_topic(&participant);
            self.push(topic, payload.clone(), Vec::new());
        }
    }

    /// An inbox record that cannot be handled, for whoever looks after it.
    pub fn set_aside(&mut self, record: &Record, reason: String) {
        let set_aside = Quarantined::new(INBOX, self.lane.0, record.offset, reason, &record.payload, &record.headers);
        self.push(QUARANTINE.into(), set_aside.encode(), Vec::new());
    }

    /// A timer for the lane's own inbox; it belongs to the trace of its saga.
    pub fn timer(&mut self, timer: Timer, trace: &TraceContext) {
        let inbox = self.inbox.clone();
        let headers = headers(&inbox, self.lane, timer.saga, &"timer", trace, trace);
        self.push(inbox, InboxEvent::Timer(timer).encode(), headers);
    }

    /// An activation for the lane's own inbox.
    pub fn activation(&mut self, text: String) {
        self.push(self.inbox.clone(), InboxEvent::Activate { text }.encode(), Vec::new());
    }

    /// How many records are waiting to be sent.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether nothing is waiting to be sent.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// What is to be sent now.
    pub fn take(&mut self) -> Vec<Outgoing> {
        self.doubtful.clear();
        std::mem::take(&mut self.pending)
    }

    /// The first thing pending that may have nowhere to go, and the topic it is for.
    pub fn doubtful(&self) -> Option<(Doubtful, &Arc<str>)> {
        let doubtful = *self.doubtful.first()?;
        Some((doubtful, &self.pending.get(doubtful.place)?.topic))
    }

    /// This results topic is there: nothing for it is doubtful any more.
    pub fn is_there(&mut self, topic: &str) {
        if let Some(known) = self.result_topics.get_mut(topic) {
            known.is_there = true;
        }
        let pending = &self.pending;
        self.doubtful.retain(|doubtful| pending.get(doubtful.place).is_some_and(|record| &*record.topic != topic));
    }

    /// The topic of this is not there: it goes to the quarantine instead, as what would lie in that topic.
    pub fn has_nowhere_to_go(&mut self, doubtful: Doubtful, reason: String) {
        self.doubtful.retain(|other| *other != doubtful);
        let Some(record) = self.pending.get_mut(doubtful.place) else { return };
        let headers: Vec<(String, Bytes)> =
            record.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect();
        let (topic, lane) = (&record.topic, self.lane.0);
        let set_aside = Quarantined::new(topic, lane, doubtful.cause, reason, &record.payload, &headers);
        *record =
            Outgoing { topic: QUARANTINE.into(), lane: self.lane, payload: set_aside.encode(), headers: Vec::new() };
    }

    fn push(&mut self, topic: Arc<str>, payload: Bytes, headers: Vec<(&'static str, String)>) {
        self.pending.push(Outgoing { topic, lane: self.lane, payload, headers });
    }

    /// Definitions bound the number of participants.
    fn command_topic(&mut self, participant: &Arc<str>) -> Arc<str> {
        if let Some(topic) = self.command_topics.get(participant) {
            return topic.clone();
        }
        let topic: Arc<str> = commands_topic(participant).into();
        self.command_topics.insert(participant.clone(), topic.clone());
        topic
    }

    /// The topic, and whether it is known to be there.
    fn result_topic(&mut self, name: String) -> (Arc<str>, bool) {
        if let Some(topic) = self.result_topics.get(&name) {
            return (topic.name.clone(), topic.is_there);
        }
        if self.result_topics.len() >= MAX_RESULT_TOPICS {
            self.result_topics.clear();
        }
        let topic: Arc<str> = name.as_str().into();
        self.result_topics.insert(name, ResultTopic { name: topic.clone(), is_there: false });
        (topic, false)
    }
}

/// The news as it fits into a record. What says why it was refused may be as long as the reply that it came with.
fn encode_brief(record: &ResultRecord) -> Bytes {
    let payload = record.encode();
    if payload.len() <= MAX_PAYLOAD_BYTES {
        return payload;
    }
    let mut record = record.clone();
    if let ResultRecord::Ended(SagaResult { outcome: SagaOutcome::Undone { refusal, .. }, .. }) = &mut record {
        *refusal = refusal.clone().brief();
    }
    record.encode()
}

/// The headers of a record: the context of its send span, if its trace is recorded.
fn headers(
    topic: &str,
    lane: Lane,
    saga: SagaId,
    about: &dyn Display,
    cause: &TraceContext,
    own: &TraceContext,
) -> Vec<(&'static str, String)> {
    let parent = if cause.traceparent.is_empty() { own } else { cause };
    if !context::is_recorded(parent) {
        return context::to_headers(parent);
    }
    let span = context::send_span(&Message { topic, lane: lane.0, offset: None, saga, about }, parent);
    context::to_headers(&context::of_span(&span, parent))
}

/// Counts the batches sent; a checkpoint waits for the last one before it.
pub type Ticket = u64;

/// The receipts of what was sent, oldest first. Batches count as acknowledged in the order in which they were sent.
pub struct Outbox<R> {
    waiting: VecDeque<Sent<R>>,
    issued: Ticket,
    unacknowledged: usize,
}

struct Sent<R> {
    records: usize,
    receipt: R,
}

impl<R> Default for Outbox<R> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), issued: 0, unacknowledged: 0 }
    }
}

impl<R: Future<Output = Result<(), PublishError>> + Unpin> Outbox<R> {
    /// Remembers the receipt of a batch.
    pub fn sent(&mut self, records: usize, receipt: R) {
        self.issued += 1;
        self.unacknowledged += records;
        self.waiting.push_back(Sent { records, receipt });
    }

    /// The last batch sent.
    pub fn issued(&self) -> Ticket {
        self.issued
    }

    /// The last batch of which it and all before it are acknowledged.
    pub fn acknowledged(&self) -> Ticket {
        self.issued - self.waiting.len() as Ticket
    }

    /// Records without an acknowledgement.
    pub fn unacknowledged(&self) -> usize {
        self.unacknowledged
    }

    /// Whether the loop has to wait before it sends more.
    pub fn is_full(&self) -> bool {
        self.unacknowledged >= MAX_UNACKNOWLEDGED
    }

    /// Waits until the oldest batch is acknowledged; for ever when there is none. Cancel-safe.
    pub async fn next_acknowledged(&mut self) -> Result<(), PublishError> {
        let Some(oldest) = self.waiting.front_mut() else {
            return std::future::pending().await;
        };
        (&mut oldest.receipt).await?;
        if let Some(sent) = self.waiting.pop_front() {
            self.unacknowledged -= sent.records;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
