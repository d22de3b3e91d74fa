//! Logs that were written down once, with what the fold made of them then: today's fold must make the same of them.
//!
//! A golden log is never written again. A change of the fold that alters one is a new fold version, which lanes adopt by a
//! record, and new fields or records are a new folder beside the old ones: `GOLDEN_SEEDS=3,5 cargo test -p sim --test
//! golden` writes those that are missing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use event_stream::Record;
use orchestrator::checkpoint::{checkpoint_key, definitions_key, restore, saga_key};
use proto::checkpoint::{Checkpoint, encode_definitions, encode_saga};
use proto::{FORMAT, Wire};
use saga_core::effect::{Effect, Step};
use saga_core::ids::Lane;
use saga_core::lane::{FIRST_FOLD_VERSION, LaneState, SUPPORTED_FOLD_VERSION};
use saga_core::record::{CommandRecord, InboxEvent, InboxRecord};
use sim::run::inboxes;
use sim::world::Options;
use uuid::Uuid;

/// Records between two checkpoints of a golden log.
const CHECKPOINT_EVERY: usize = 25;
/// Orders of a golden log, so that much happens in it.
const SAGAS: usize = 50;
/// The lane that is written down: every seed has it.
const LANE: Lane = Lane(0);

/// Golden logs are never taken away.
const KEPT: [&str; 2] = ["format-1-fold-1/seed-19.txt", "format-1-fold-1/seed-22.txt"];

/// The store of one lane, with what the checkpoints so far have written.
type Store = BTreeMap<String, Bytes>;

#[test]
fn todays_fold_makes_of_old_logs_what_it_made_of_them_then() {
    write_missing();
    let logs = golden_logs();
    let names = logs.iter().filter_map(|path| path.strip_prefix(folder()).ok()?.to_str()).collect::<Vec<_>>();
    for kept in KEPT {
        assert!(names.contains(&kept), "{kept} is gone: a log that was published once stays, and must fold as it did");
    }
    for version in FIRST_FOLD_VERSION..=SUPPORTED_FOLD_VERSION {
        let of_version = format!("format-{FORMAT}-fold-{version}/");
        assert!(names.iter().any(|name| name.starts_with(&of_version)), "no golden log in {of_version}");
    }
    for path in logs {
        let golden = std::fs::read_to_string(&path).unwrap();
        let records: Vec<Record> = golden.lines().filter_map(read_record).collect();
        let folded = fold(&records);
        for (line, (was, is)) in golden.lines().zip(folded.lines()).enumerate() {
            assert_eq!(was, is, "{} line {}: the fold or the format has changed", path.display(), line + 1);
        }
        assert_eq!(golden.lines().count(), folded.lines().count(), "{}", path.display());
    }
}

/// A later program takes lanes over from checkpoints of an earlier one.
#[test]
fn an_old_checkpoint_leads_to_the_same_end_as_the_whole_log() {
    for path in golden_logs() {
        let golden = std::fs::read_to_string(&path).unwrap();
        let end = last_checkpoint(golden.lines());
        let records: Vec<InboxRecord> = golden.lines().filter_map(read_record).map(|record| decode(&record)).collect();
        for upto in (CHECKPOINT_EVERY..records.len()).step_by(CHECKPOINT_EVERY) {
            let mut seen = 0;
            let until = golden.lines().take_while(|line| {
                seen += usize::from(line.starts_with("record "));
                seen <= upto
            });
            let mut store = last_checkpoint(until);
            let mut state = load(&store);
            records[upto..].iter().for_each(|record| drop(state.step(record)));
            checkpoint(&mut state, &mut store, &mut String::new());
            assert_eq!(store, end, "{} from record {upto}", path.display());
        }
    }
}

/// Folds the records and writes down everything that can be seen of it.
fn fold(records: &[Record]) -> String {
    let mut state = LaneState::new(LANE);
    let (mut store, mut text) = (Store::new(), String::new());
    for (count, record) in records.iter().enumerate() {
        line(&mut text, &format!("record {} {}", record.offset, record.timestamp_ms), &record.payload);
        write_step(&mut text, state.step(&decode(record)));
        if (count + 1) % CHECKPOINT_EVERY == 0 || count + 1 == records.len() {
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
fn checkpoint(state: &mut LaneState, store: &mut Store, text: &mut String) {
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

fn load(store: &Store) -> LaneState {
    let checkpoint = Checkpoint::decode(&store[&checkpoint_key(LANE)]).unwrap();
    let sagas = checkpoint.head.open.iter().map(|id| store.get(&saga_key(LANE, *id)).cloned()).collect();
    restore(SUPPORTED_FOLD_VERSION, LANE, checkpoint, store.get(&definitions_key(LANE)), sagas).unwrap().state
}

/// What the checkpoints in these lines leave in the store.
fn last_checkpoint<'a>(lines: impl Iterator<Item = &'a str>) -> Store {
    let mut store = Store::new();
    for line in lines {
        match line.trim_start().split(' ').collect::<Vec<_>>()[..] {
            ["stored", key, value] => drop(store.insert(key.to_owned(), from_hex(value))),
            ["removed", key] => drop(store.remove(key)),
            _ => {}
        }
    }
    store
}

fn decode(record: &Record) -> InboxRecord {
    let event = InboxEvent::decode(&record.payload).unwrap();
    InboxRecord { offset: record.offset, time_ms: record.timestamp_ms, event }
}

fn read_record(line: &str) -> Option<Record> {
    let [offset, time_ms, payload] = line.strip_prefix("record ")?.split(' ').collect::<Vec<_>>()[..] else {
        panic!("a record has an offset, a time and bytes: {line}");
    };
    let (offset, timestamp_ms) = (offset.parse().unwrap(), time_ms.parse().unwrap());
    Some(Record { offset, timestamp_ms, payload: from_hex(payload), headers: Vec::new() })
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

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn golden_logs() -> Vec<PathBuf> {
    let folders = std::fs::read_dir(folder()).into_iter().flatten().flatten();
    let files = folders.flat_map(|version| std::fs::read_dir(version.path()).into_iter().flatten().flatten());
    files.map(|file| file.path()).collect()
}

/// Writes the logs of `GOLDEN_SEEDS`, unless they are there.
fn write_missing() {
    let Ok(seeds) = std::env::var("GOLDEN_SEEDS") else { return };
    let folder = folder().join(format!("format-{FORMAT}-fold-{FIRST_FOLD_VERSION}"));
    std::fs::create_dir_all(&folder).unwrap();
    for seed in seeds.split(',') {
        let options = Options { sagas: Some(SAGAS), ..Options::new(seed.parse().unwrap()) };
        let records = inboxes(&options).expect("a seed without a violation").swap_remove(0);
        let readable = records.into_iter().filter(|record| InboxEvent::decode(&record.payload).is_ok());
        let path = folder.join(format!("seed-{seed}.txt"));
        if !path.exists() {
            std::fs::write(path, fold(&readable.collect::<Vec<_>>())).unwrap();
        }
    }
}
