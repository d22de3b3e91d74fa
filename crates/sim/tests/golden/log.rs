//! A golden log in a file: the records, what the fold made of each of them, and what the checkpoints wrote.
//!
//! A line that begins with `record` or `set-aside` is a record of the inbox: its offset, its time, its bytes. A log does not say
//! which of its records were set aside (whoever folds it later begins behind them), so the file does. The indented lines
//! are what came of the record, and what a checkpoint behind it stored.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use event_stream::Record;
use orchestrator::checkpoint::{checkpoint_key, definitions_key, restore, saga_key};
use proto::checkpoint::{Checkpoint, encode_definitions, encode_saga};
use proto::{DecodeError, Wire};
use saga_core::effect::{Effect, Step};
use saga_core::ids::Lane;
use saga_core::lane::{LaneState, SUPPORTED_FOLD_VERSION};
use saga_core::record::{CommandRecord, InboxEvent, InboxRecord};
use uuid::Uuid;

/// The lane that is written down: every seed has it.
pub(crate) const LANE: Lane = Lane(0);

/// How the line of a record that was folded begins, and that of one that was set aside.
const FOLDED: &str = "record";
const SET_ASIDE: &str = "set-aside";

/// The store of one lane, with what the checkpoints so far have written.
pub(crate) type Store = BTreeMap<String, Bytes>;

/// A record, and what its owner did with it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) record: Record,
    /// It could be read, and made the program panic.
    pub(crate) is_set_aside: bool,
    /// A checkpoint was written behind it.
    pub(crate) has_checkpoint: bool,
}

impl Entry {
    pub(crate) fn new(record: Record, is_set_aside: bool) -> Self {
        Self { record, is_set_aside, has_checkpoint: false }
    }

    pub(crate) fn event(&self) -> Option<InboxEvent> {
        match InboxEvent::decode(&self.record.payload) {
            Ok(event) => Some(event),
            Err(DecodeError::Malformed { .. }) => None,
            Err(error @ DecodeError::UnknownFormat { .. }) => panic!("offset {}: {error}", self.record.offset),
        }
    }

    /// Whether a checkpoint must lie behind it before anything is folded.
    pub(crate) fn owes_checkpoint(&self) -> bool {
        self.is_set_aside || self.event().is_none()
    }

    /// What an orchestrator does with it.
    pub(crate) fn take(&self, state: &mut LaneState) -> Step {
        let (offset, time_ms) = (self.record.offset, self.record.timestamp_ms);
        match self.event() {
            Some(event) if !self.is_set_aside => state.step(&InboxRecord { offset, time_ms, event }),
            event => Step { effects: state.pass_over(offset, time_ms, event.as_ref()), ignored: None },
        }
    }
}

/// Puts a checkpoint behind each so manieth record, the last one, and wherever one is owed.
pub(crate) fn put_checkpoints(entries: &mut [Entry], every: usize) {
    for index in 0..entries.len() {
        let waits = entries.get(index + 1).is_none_or(|next| next.event().is_some());
        let is_owed = entries[index].owes_checkpoint() && waits;
        entries[index].has_checkpoint = (index + 1) % every == 0 || index + 1 == entries.len() || is_owed;
    }
}

/// The records of a file, with the checkpoints where they were.
pub(crate) fn read(golden: &str) -> Vec<Entry> {
    let checkpoint = format!("  stored {} ", checkpoint_key(LANE));
    let mut entries: Vec<Entry> = Vec::new();
    for line in golden.lines() {
        entries.extend(read_record(line));
        if let (true, Some(entry)) = (line.starts_with(&checkpoint), entries.last_mut()) {
            entry.has_checkpoint = true;
        }
    }
    entries
}

fn read_record(line: &str) -> Option<Entry> {
    let [kind, offset, time_ms, payload] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
    if ![FOLDED, SET_ASIDE].contains(&kind) {
        return None;
    }
    let (offset, timestamp_ms) = (offset.parse().unwrap(), time_ms.parse().unwrap());
    let record = Record { offset, timestamp_ms, payload: from_hex(payload), headers: Vec::new() };
    Some(Entry::new(record, kind == SET_ASIDE))
}

/// Folds the records and writes down everything that can be seen of it.
pub(crate) fn fold(entries: &[Entry]) -> String {
    let mut state = LaneState::new(LANE);
    let (mut store, mut text) = (Store::new(), String::new());
    for entry in entries {
        let Record { offset, timestamp_ms, payload, .. } = &entry.record;
        let kind = if entry.is_set_aside { SET_ASIDE } else { FOLDED };
        line(&mut text, &format!("{kind} {offset} {timestamp_ms}"), payload);
        write_step(&mut text, entry.take(&mut state));
        if entry.has_checkpoint {
            checkpoint(&mut state, &mut store, &mut text);
        }
    }
    text
}

/// Names of alarms and of reasons to ignore are for people and may change; that there was one may not.
fn write_step(text: &mut String, step: Step) {
    if step.ignored.is_some() {
        text.push_str("  ignored\n");
    }
    for effect in step.effects {
        match effect {
            Effect::Command { participant, command } => {
                line(text, &format!("  command {participant}"), &CommandRecord::Command(command).encode());
            }
            Effect::Result { topic, record } => line(text, &format!("  result {topic}"), &record.encode()),
            Effect::Alarm(_) => text.push_str("  alarm\n"),
        }
    }
}

/// Writes what the orchestrator would write, as the first of all writers.
pub(crate) fn checkpoint(state: &mut LaneState, store: &mut Store, text: &mut String) {
    let changes = state.take_changes();
    let head = Checkpoint { version: 1, writer: Uuid::nil(), head: changes.head };
    let mut values = vec![(checkpoint_key(LANE), head.encode())];
    values.extend(changes.definitions.iter().map(|all| (definitions_key(LANE), encode_definitions(all))));
    values.extend(changes.changed.iter().map(|saga| (saga_key(LANE, saga.id), encode_saga(saga))));
    for (key, value) in values {
        line(text, &format!("  stored {key}"), &value);
        store.insert(key, value);
    }
    for id in changes.ended {
        let key = saga_key(LANE, id);
        if store.remove(&key).is_some() {
            let _ = writeln!(text, "  removed {key}");
        }
    }
}

/// The state that a new owner of the lane begins with.
pub(crate) fn load(store: &Store) -> LaneState {
    let checkpoint = Checkpoint::decode(&store[&checkpoint_key(LANE)]).unwrap();
    let sagas = checkpoint.head.open.iter().map(|id| store.get(&saga_key(LANE, *id)).cloned()).collect();
    restore(SUPPORTED_FOLD_VERSION, LANE, checkpoint, store.get(&definitions_key(LANE)), sagas).unwrap().state
}

/// What the checkpoints among the first records, and what belongs to them, leave in the store.
pub(crate) fn stored(golden: &str, records: usize) -> Store {
    let mut store = Store::new();
    let mut seen = 0;
    for line in golden.lines() {
        seen += usize::from(read_record(line).is_some());
        if seen > records {
            break;
        }
        match line.trim_start().split(' ').collect::<Vec<_>>()[..] {
            ["stored", key, value] => drop(store.insert(key.to_owned(), from_hex(value))),
            ["removed", key] => drop(store.remove(key)),
            _ => {}
        }
    }
    store
}

fn line(text: &mut String, words: &str, bytes: &[u8]) {
    text.push_str(words);
    text.push(' ');
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
}

fn from_hex(text: &str) -> Bytes {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}
