//! The pure half: records of a lane and the values read → values to write and answers to send.
//!
//! For every command the floor is asked first, then the step record (the admission table), then the business. Nothing in
//! here logs or counts: a transaction may be applied several times. What should be counted is returned as [`Note`]s.

use std::collections::BTreeMap;

use bytes::Bytes;
use event_stream::{HaltReason, MAX_PAYLOAD_BYTES};
use proto::{DecodeError, Wire};
use redis_txn::Unread;
use saga_core::ids::{Direction, Lane, Ordinal, SagaId, Starter};
use saga_core::participant::{Admission, ParticipantLane, StepRecord, StepRecords, admit};
use saga_core::record::{Command, CommandRecord, Floor, MAX_OUTPUT_BYTES, Outcome, Reply, brief};
use service_kit::panics::caught;

use crate::business::{Business, Decision, Fault, UndoOutcome};
use crate::values::{Draft, Values, read, refuse_foreign};

/// Most records of a lane in one transaction: a window of the starter, so that it passes in one piece.
pub const MAX_CHUNK_RECORDS: usize = 64;
/// Most bytes of input in one transaction, unless a single command has more. The business names its keys from the input, and what
/// a WATCH costs Redis grows with the square of the keys: so many bytes name some four hundred objects by
/// UUIDs, and at the very most two thousand by the shortest of names (a thousand were measured to cost 17 ms).
pub(crate) const MAX_CHUNK_INPUT_BYTES: usize = 16 * 1024;
/// Most sagas whose step records one transaction deletes: more than a chunk begins, so that forgetting keeps up, and few
/// enough that nobody waits for it.
const MAX_FORGOTTEN: usize = 2 * MAX_CHUNK_RECORDS;

/// The key of a lane's positions and floors.
pub fn lane_key(lane: Lane) -> String {
    format!("lane:{lane}")
}

/// The key of all step records of one saga: named by ordinal, so that records can be dropped by floor.
fn record_key(lane: Lane, starter: &Starter, sequence: u64) -> String {
    format!("rec:{lane}:{starter}:{sequence}")
}

/// One record of the command topic, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its offset.
    pub offset: i64,
    /// What it asks for.
    pub work: Work,
}

/// What a record asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// An action or an undo.
    Command {
        /// The command.
        command: Box<Command>,
        /// Key of the saga's step records.
        record_key: String,
    },
    /// Permission to forget.
    Floor(Floor),
    /// Nothing that can be handled: it is passed over with an alarm.
    Unusable {
        /// What is wrong with it.
        why: String,
    },
    /// A command that makes the business panic: it is passed over with an alarm and not answered, as if it had never
    /// arrived. The saga's deadlines decide what comes of that.
    Poison {
        /// What the panic said.
        why: String,
    },
}

impl Entry {
    /// The saga that it is for, if it is for one.
    pub fn saga(&self) -> Option<SagaId> {
        match &self.work {
            Work::Command { command, .. } => Some(command.id.saga),
            Work::Floor(_) | Work::Unusable { .. } | Work::Poison { .. } => None,
        }
    }

    /// Bytes from which the business names its keys.
    pub(crate) fn input_bytes(&self) -> usize {
        match &self.work {
            Work::Command { command, .. } => command.input.len() + command.uses.values().map(Bytes::len).sum::<usize>(),
            Work::Floor(_) | Work::Unusable { .. } | Work::Poison { .. } => 0,
        }
    }

    /// The same for a record that may make the decoder panic: then it is of no use either.
    pub(crate) fn decode_guarded(lane: Lane, offset: i64, payload: &[u8]) -> Result<Self, HaltReason> {
        caught(|| Self::decode(lane, offset, payload))
            .unwrap_or_else(|why| Ok(Self { offset, work: Work::Unusable { why: format!("cannot be read: {why}") } }))
    }

    /// Reads a record's value. `Err` for a format that this program does not know: the lane must halt before it.
    pub fn decode(lane: Lane, offset: i64, payload: &[u8]) -> Result<Self, HaltReason> {
        // Its reply would have room in no record: nobody of ours has sent it.
        if payload.len() > MAX_PAYLOAD_BYTES {
            let why = format!("it has {} bytes, more than {MAX_PAYLOAD_BYTES}", payload.len());
            return Ok(Self { offset, work: Work::Unusable { why } });
        }
        let work = match CommandRecord::decode(payload) {
            Ok(CommandRecord::Command(command)) if command.ordinal.lane != lane => {
                Work::Unusable { why: format!("a command of lane {} in lane {lane}", command.ordinal.lane) }
            }
            Ok(CommandRecord::Command(command)) => {
                let Ordinal { lane, starter, sequence } = &command.ordinal;
                Work::Command { record_key: record_key(*lane, starter, *sequence), command: Box::new(command) }
            }
            Ok(CommandRecord::Floor(floor)) => Work::Floor(floor),
            Err(cause @ DecodeError::Malformed { .. }) => Work::Unusable { why: cause.to_string() },
            Err(cause @ DecodeError::UnknownFormat { .. }) => {
                return Err(HaltReason::UnknownFormat(format!("record at offset {offset}: {cause}")));
            }
        };
        Ok(Self { offset, work })
    }
}

/// Records of one lane that are executed in one transaction, without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The lane.
    pub lane: Lane,
    /// Where the lane must stand for this chunk: the offset of the first entry, or the position as it is when the chunk
    /// has no entries and only writes `replied`.
    pub first: i64,
    /// At most [`MAX_CHUNK_RECORDS`].
    pub entries: Vec<Entry>,
    /// Answers to everything below this offset have been acknowledged by Kafka.
    pub replied: i64,
}

impl Chunk {
    /// The keys to watch: the lane's position and what the business reads.
    pub fn keys<B: Business + ?Sized>(&self, business: &B, keys: &mut Vec<String>) {
        keys.push(lane_key(self.lane));
        let begin = keys.len();
        for entry in &self.entries {
            if let Work::Command { command, .. } = &entry.work {
                keys.extend(business.keys(command));
            }
        }
        // Hot objects are named by many commands.
        keys[begin..].sort_unstable();
        keys.dedup();
    }

    /// The keys of the step records: nobody writes them without moving the lane's position.
    pub fn record_keys(&self, keys: &mut Vec<String>) {
        keys.extend(self.entries.iter().filter_map(|entry| match &entry.work {
            Work::Command { record_key, .. } => Some(record_key.clone()),
            Work::Floor(_) | Work::Unusable { .. } | Work::Poison { .. } => None,
        }));
    }
}

/// What a transaction gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The chunk, or the part of it before `stop`, is executed.
    Executed(Executed),
    /// Somebody else has moved the lane: nothing was written.
    Fenced {
        /// Where the lane stands.
        next: i64,
    },
}

/// What was executed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Executed {
    /// The lane's position afterwards.
    pub next: i64,
    /// To be sent, in this order, once the EXEC is known to have happened.
    pub answers: Vec<Answer>,
    /// To be logged and counted then.
    pub notes: Vec<Note>,
    /// Why the chunk ends before its last entry, if it does: the lane halts.
    pub stop: Option<HaltReason>,
    /// How many sagas' step records were deleted, which may not have been there.
    pub forgotten: usize,
    /// Step records of ended sagas are left: another chunk, empty perhaps, should follow.
    pub has_to_forget: bool,
}

/// The answer to one entry of the chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which entry.
    pub entry: usize,
    /// What to send.
    pub reply: Reply,
}

/// Something that is worth a count, with the offset of the record and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Stable name.
    pub name: &'static str,
    /// The record.
    pub offset: i64,
    /// Facts for the log.
    pub detail: String,
}

/// Executes the chunk, or finds that the lane has been moved by somebody else.
pub fn execute<B>(business: &B, chunk: &Chunk, values: &mut dyn Values) -> Result<Verdict, Unread>
where
    B: Business + ?Sized,
{
    let mut lane = match read_lane(chunk.lane, values)? {
        Ok(lane) => lane,
        Err(reason) => return Ok(stopped(chunk.first, reason)),
    };
    if lane.next != chunk.first {
        return Ok(Verdict::Fenced { next: lane.next });
    }
    let mut execution = Execution { business, values, records: BTreeMap::new(), done: Executed::default() };
    for (index, entry) in chunk.entries.iter().enumerate() {
        if let Err(fault) = execution.entry(&mut lane, index, entry) {
            execution.done.stop = Some(halt(entry.offset, fault)?);
            break;
        }
        lane.next = entry.offset + 1;
    }
    lane.replied = lane.replied.max(chunk.replied).min(lane.next);
    let mut done = execution.finish(chunk.lane, &mut lane);
    done.next = lane.next;
    Ok(Verdict::Executed(done))
}

/// Reads the lane's value; a lane without one has executed nothing.
fn read_lane(lane: Lane, values: &mut dyn Values) -> Result<Result<ParticipantLane, HaltReason>, Unread> {
    match read(values, &lane_key(lane)) {
        Ok(value) => Ok(Ok(value.unwrap_or_default())),
        Err(Fault::Unread(unread)) => Err(unread),
        Err(Fault::Corrupt(why)) => Ok(Err(HaltReason::Corrupt(why))),
        Err(Fault::UnknownFormat(why)) => Ok(Err(HaltReason::UnknownFormat(why))),
    }
}

fn stopped(next: i64, reason: HaltReason) -> Verdict {
    Verdict::Executed(Executed { next, stop: Some(reason), ..Executed::default() })
}

fn halt(offset: i64, fault: Fault) -> Result<HaltReason, Unread> {
    match fault {
        Fault::Unread(unread) => Err(unread),
        Fault::Corrupt(why) => Ok(HaltReason::Corrupt(format!("command at offset {offset}: {why}"))),
        Fault::UnknownFormat(why) => Ok(HaltReason::UnknownFormat(format!("command at offset {offset}: {why}"))),
    }
}

/// One run through a chunk.
struct Execution<'a, B: ?Sized> {
    business: &'a B,
    values: &'a mut dyn Values,
    /// Step records read so far, by key; `true` once changed.
    records: BTreeMap<&'a str, (StepRecords, bool)>,
    done: Executed,
}

impl<'a, B: Business + ?Sized> Execution<'a, B> {
    /// One record. On `Err` nothing of it has happened.
    fn entry(&mut self, lane: &mut ParticipantLane, index: usize, entry: &'a Entry) -> Result<(), Fault> {
        match &entry.work {
            Work::Floor(floor) => lane.raise_floor(floor),
            Work::Unusable { why } => self.note("unusable-record", entry.offset, why.clone()),
            Work::Poison { why } => self.note("poison", entry.offset, why.clone()),
            Work::Command { command, record_key } => {
                let outcome = if lane.has_ended(&command.ordinal) {
                    Outcome::Stale
                } else {
                    self.command(entry.offset, command, record_key)?
                };
                let reply = Reply { id: command.id.clone(), ordinal: command.ordinal.clone(), outcome };
                self.done.answers.push(Answer { entry: index, reply });
            }
        }
        Ok(())
    }

    /// A command of a saga that is above the floor: the step record first, then the business.
    fn command(&mut self, offset: i64, command: &Command, record_key: &'a str) -> Result<Outcome, Fault> {
        if !self.records.contains_key(record_key) {
            let stored = read::<StepRecords>(self.values, record_key)?;
            let records = stored.unwrap_or_else(|| StepRecords { saga: command.id.saga, steps: BTreeMap::new() });
            self.records.insert(record_key, (records, false));
        }
        let records = &self.records[record_key].0;
        if records.saga != command.id.saga {
            let detail = format!("saga {} asks with the ordinal of saga {}", command.id.saga, records.saga);
            self.note("ordinal-taken", offset, detail.clone());
            return Ok(Outcome::Failed { reason: detail });
        }
        let admission = admit(records.steps.get(&command.id.step), command.id.direction);
        let (outcome, record) = match admission {
            Admission::RepeatApplied { output } => (Outcome::Applied { output }, None),
            Admission::RepeatRefused(refusal) => (Outcome::Refused(refusal), None),
            Admission::AnswerCancelled => (Outcome::Cancelled, None),
            Admission::RepeatUndone => (Outcome::Undone, None),
            Admission::RecordCancelled => (Outcome::Undone, Some(StepRecord::Cancelled)),
            Admission::RecordUndone => (Outcome::Undone, Some(StepRecord::Undone)),
            Admission::Decide => self.decide(offset, command)?,
            Admission::Reverse { undo } => self.reverse(offset, command, &undo)?,
        };
        if let (Some(record), Some((records, changed))) = (record, self.records.get_mut(record_key)) {
            records.steps.insert(command.id.step.clone(), record);
            *changed = true;
        }
        Ok(outcome)
    }

    /// Asks the business. Only what it applies leaves a trace in the values.
    fn decide(&mut self, offset: i64, command: &Command) -> Result<(Outcome, Option<StepRecord>), Fault> {
        let mut draft = Draft::new(self.values);
        match refuse_foreign(self.business.action(command, &mut draft), &mut draft) {
            Ok(Decision::Apply { output, .. }) if output.len() > MAX_OUTPUT_BYTES => {
                // Once it is done it must be answered, and no record would take the answer.
                let reason = format!("the output has {} bytes; it may have {MAX_OUTPUT_BYTES}", output.len());
                self.note("output-too-large", offset, format!("saga {}: {reason}", command.id.saga));
                Ok((Outcome::Failed { reason }, None))
            }
            Ok(Decision::Apply { output, undo }) => {
                draft.keep();
                let record = StepRecord::Applied { output: output.clone(), undo };
                Ok((Outcome::Applied { output }, Some(record)))
            }
            Ok(Decision::Refuse(refusal)) if command.may_refuse => {
                let refusal = refusal.brief();
                Ok((Outcome::Refused(refusal.clone()), Some(StepRecord::Refused(refusal))))
            }
            Ok(Decision::Refuse(refusal)) => Ok((failed(format!("{}: {}", refusal.code, refusal.reason)), None)),
            Ok(Decision::Fail { reason }) => Ok((failed(reason), None)),
            Err(Fault::Corrupt(why)) => Ok((self.corrupt_value(offset, why), None)),
            Err(fault) => Err(fault),
        }
    }

    fn reverse(
        &mut self,
        offset: i64,
        command: &Command,
        done: &Bytes,
    ) -> Result<(Outcome, Option<StepRecord>), Fault> {
        let mut draft = Draft::new(self.values);
        match refuse_foreign(self.business.undo(command, done, &mut draft), &mut draft) {
            Ok(UndoOutcome::Reversed) => {
                draft.keep();
                Ok((Outcome::Undone, Some(StepRecord::Undone)))
            }
            Ok(UndoOutcome::ObjectGone { object }) => {
                draft.keep();
                self.note("undo-object-gone", offset, format!("saga {}: {object} no longer exists", command.id.saga));
                Ok((Outcome::Undone, Some(StepRecord::Undone)))
            }
            Ok(UndoOutcome::Fail { reason }) => Ok((failed(reason), None)),
            Err(Fault::Corrupt(why)) => Ok((self.corrupt_value(offset, why), None)),
            Err(fault) => Err(fault),
        }
    }

    /// One damaged object must not stop a lane: those who need it fail until it is repaired.
    fn corrupt_value(&mut self, offset: i64, why: String) -> Outcome {
        self.note("corrupt-value", offset, why.clone());
        failed(why)
    }

    fn note(&mut self, name: &'static str, offset: i64, detail: String) {
        self.done.notes.push(Note { name, offset, detail });
    }

    /// Writes the step records and the lane's positions beside the effects, and deletes step records that nobody can
    /// ask for any more: every command of an ended saga is *stale* by the floor, before its records are looked at.
    fn finish(mut self, lane: Lane, value: &mut ParticipantLane) -> Executed {
        for (key, (records, changed)) in self.records {
            if changed {
                self.values.set(key.to_owned(), records.encode());
            }
        }
        let forgotten = value.forget(MAX_FORGOTTEN);
        self.done.forgotten = forgotten.len();
        self.done.has_to_forget = value.has_to_forget();
        for (starter, sequence) in forgotten {
            self.values.unlink(record_key(lane, &starter, sequence));
        }
        self.values.set(lane_key(lane), value.encode());
        self.done
    }
}

fn failed(reason: String) -> Outcome {
    Outcome::Failed { reason: brief(reason) }
}

/// Answers entries that were executed before (below *next*), from their step records alone; changes nothing.
///
/// A command without a recorded answer is a named ignore: it was answered *fail*, or its saga has ended.
pub fn repeat(lane: &ParticipantLane, entries: &[Entry], values: &mut dyn Values) -> Result<Executed, Fault> {
    let mut done = Executed::default();
    for (index, entry) in entries.iter().enumerate() {
        done.next = entry.offset + 1;
        let Work::Command { command, record_key } = &entry.work else { continue };
        match recorded(lane, command, record_key, values)? {
            Ok(outcome) => {
                let reply = Reply { id: command.id.clone(), ordinal: command.ordinal.clone(), outcome };
                done.answers.push(Answer { entry: index, reply });
            }
            Err(name) => {
                done.notes.push(Note { name, offset: entry.offset, detail: format!("saga {}", command.id.saga) });
            }
        }
    }
    Ok(done)
}

/// What the step record says about an executed command, or the name of the ignore.
fn recorded(
    lane: &ParticipantLane,
    command: &Command,
    record_key: &str,
    values: &mut dyn Values,
) -> Result<Result<Outcome, &'static str>, Fault> {
    if lane.has_ended(&command.ordinal) {
        return Ok(Err("repeat-of-ended-saga"));
    }
    let Some(records) = read::<StepRecords>(values, record_key)? else { return Ok(Err("repeat-without-record")) };
    if records.saga != command.id.saga {
        return Ok(Err("repeat-without-record"));
    }
    let record = records.steps.get(&command.id.step);
    Ok(match (record, command.id.direction) {
        (Some(StepRecord::Applied { output, .. }), Direction::Action) => {
            Ok(Outcome::Applied { output: output.clone() })
        }
        (Some(StepRecord::Refused(refusal)), Direction::Action) => Ok(Outcome::Refused(refusal.clone())),
        (Some(StepRecord::Undone | StepRecord::Cancelled), Direction::Action) => Ok(Outcome::Cancelled),
        (Some(StepRecord::Undone | StepRecord::Cancelled), Direction::Undo) => Ok(Outcome::Undone),
        // An undo that was executed and left the record as it was has been answered *fail*.
        (None, _) | (Some(StepRecord::Applied { .. } | StepRecord::Refused(_)), Direction::Undo) => {
            Err("repeat-without-record")
        }
    })
}

#[cfg(test)]
mod tests;
