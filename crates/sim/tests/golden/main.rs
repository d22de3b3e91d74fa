//! Logs that were written down once, with what the fold made of them then: today's fold must make the same of them.
//!
//! A golden log is never written again. A change of the fold that alters one is a new fold version, which lanes adopt by a
//! record, and new fields or records are a new folder beside the old ones: `GOLDEN_SEEDS=3,5 cargo test -p sim --test
//! golden` writes those that are missing, and `GOLDEN_BY_HAND=1` the one that is made by hand.

mod by_hand;
mod log;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Once;

use proto::FORMAT;
use saga_core::lane::{FIRST_FOLD_VERSION, LaneState, SUPPORTED_FOLD_VERSION};
use saga_core::record::InboxEvent;
use sim::run::inboxes;
use sim::world::Options;

use crate::log::{Entry, LANE, checkpoint, fold, load, put_checkpoints, read, stored};

/// Records between two checkpoints of a golden log of a seed.
const CHECKPOINT_EVERY: usize = 25;
/// Orders of a golden log, so that much happens in it.
const SAGAS: usize = 50;

/// What no seed brings: records that are set aside and sagas that are held, garbage, records of a fold version.
const BY_HAND: &str = "by-hand.txt";

/// Golden logs are never taken away.
const KEPT: [&str; 3] = ["format-1-fold-1/by-hand.txt", "format-1-fold-1/seed-19.txt", "format-1-fold-1/seed-22.txt"];

#[test]
fn todays_fold_makes_of_old_logs_what_it_made_of_them_then() {
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
        let folded = fold(&read(&golden));
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
        let entries = read(&golden);
        let end = stored(&golden, entries.len());
        let with_checkpoint = (1..entries.len()).filter(|upto| entries[upto - 1].has_checkpoint);
        for upto in with_checkpoint {
            let mut store = stored(&golden, upto);
            let mut state = load(&store);
            entries[upto..].iter().for_each(|entry| drop(entry.take(&mut state)));
            checkpoint(&mut state, &mut store, &mut String::new());
            assert_eq!(store, end, "{} from record {upto}", path.display());
        }
    }
}

#[test]
fn the_log_made_by_hand_holds_what_no_seed_brings() {
    let by_hand = golden_logs().into_iter().find(|path| path.ends_with(BY_HAND)).expect("a log that is made by hand");
    let entries = read(&std::fs::read_to_string(by_hand).unwrap());
    let garbage = entries.iter().filter(|entry| entry.event().is_none()).count();
    let versions = entries.iter().filter(|entry| matches!(entry.event(), Some(InboxEvent::FoldVersion(_)))).count();
    assert!(garbage >= 3 && versions >= 2, "{garbage} records that are garbage, {versions} of a fold version");
    let (mut state, mut held) = (LaneState::new(LANE), BTreeSet::new());
    for (entry, next) in entries.iter().zip(entries.iter().skip(1).map(Some).chain([None])) {
        entry.take(&mut state);
        held.extend(state.sagas().values().filter(|saga| saga.is_held()).map(|saga| saga.id));
        let is_owed = entry.owes_checkpoint() && next.is_none_or(|next| next.event().is_some());
        assert!(!is_owed || entry.has_checkpoint, "no checkpoint lies behind offset {}", entry.record.offset);
    }
    let moved_on = held.iter().filter(|saga| state.saga(**saga).is_none()).count();
    assert!(moved_on >= 6 && moved_on < held.len(), "{moved_on} of {} held sagas have ended", held.len());
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn golden_logs() -> Vec<PathBuf> {
    static WRITTEN: Once = Once::new();
    WRITTEN.call_once(write_missing);
    let folders = std::fs::read_dir(folder()).into_iter().flatten().flatten();
    let files = folders.flat_map(|version| std::fs::read_dir(version.path()).into_iter().flatten().flatten());
    files.map(|file| file.path()).collect()
}

/// Writes the logs of `GOLDEN_SEEDS` and the one of `GOLDEN_BY_HAND`, unless they are there.
fn write_missing() {
    let seeds = std::env::var("GOLDEN_SEEDS").unwrap_or_default();
    for seed in seeds.split(',').filter(|seed| !seed.is_empty()) {
        let options = Options { sagas: Some(SAGAS), ..Options::new(seed.parse().unwrap()) };
        let records = inboxes(&options).expect("a seed without a violation").swap_remove(0);
        let mut entries: Vec<Entry> = records.into_iter().map(|record| Entry::new(record, false)).collect();
        put_checkpoints(&mut entries, CHECKPOINT_EVERY);
        write_new(&format!("seed-{seed}.txt"), &entries);
    }
    if std::env::var_os("GOLDEN_BY_HAND").is_some() {
        write_new(BY_HAND, &by_hand::entries());
    }
}

fn write_new(name: &str, entries: &[Entry]) {
    let folder = folder().join(format!("format-{FORMAT}-fold-{FIRST_FOLD_VERSION}"));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    if !path.exists() {
        std::fs::write(path, fold(entries)).unwrap();
    }
}
