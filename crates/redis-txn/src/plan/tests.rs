use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::transaction::{Reply, Transaction};

/// One instruction of a transaction that a test made up.
#[derive(Clone, Debug)]
enum Op {
    Read(u8),
    /// Writes what was read so far, so that an outcome depends on everything before it.
    Write(u8),
    Unlink(u8),
    Panic,
}

/// Ops over a handful of keys; names only some of the keys that it reads.
#[derive(Clone, Debug)]
struct Script {
    named: Vec<u8>,
    covered: Vec<u8>,
    ops: Vec<Op>,
}

fn key(number: u8) -> String {
    format!("key:{number}")
}

impl Transaction for Script {
    type Outcome = String;

    fn keys(&self, keys: &mut Vec<String>) {
        keys.extend(self.named.iter().map(|number| key(*number)));
    }

    fn covered_keys(&self, keys: &mut Vec<String>) {
        keys.extend(self.covered.iter().map(|number| key(*number)));
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<String, Unread> {
        let mut seen = String::new();
        for op in &self.ops {
            match op {
                Op::Read(number) => {
                    let value = view.get(&key(*number))?;
                    seen = format!("{}{:?};", shorten(seen), value);
                }
                Op::Write(number) => view.set(key(*number), format!("[{seen}]")),
                Op::Unlink(number) => view.unlink(key(*number)),
                Op::Panic => std::panic::resume_unwind(Box::new("as planned")),
            }
        }
        Ok(seen)
    }
}

/// Values that contain values grow without bound; the tail is enough to tell them apart.
fn shorten(text: String) -> String {
    text[text.len().saturating_sub(40)..].to_owned()
}

/// One transaction at a time over a map.
fn model(script: &Script, store: &mut BTreeMap<String, Bytes>, foreign: &BTreeSet<String>) -> Result<String, String> {
    let mut scratch = store.clone();
    let mut seen = String::new();
    let mut met = None;
    let mut touched = BTreeSet::new();
    for op in &script.ops {
        match op {
            Op::Read(number) => {
                if foreign.contains(&key(*number)) && !touched.contains(number) {
                    met = met.or(Some(key(*number)));
                }
                seen = format!("{}{:?};", shorten(seen), scratch.get(&key(*number)));
            }
            Op::Write(number) | Op::Unlink(number) => {
                if foreign.contains(&key(*number)) && touched.insert(*number) {
                    met = met.or(Some(key(*number)));
                }
                match op {
                    Op::Write(_) => scratch.insert(key(*number), format!("[{seen}]").into()),
                    _ => scratch.remove(&key(*number)),
                };
            }
            Op::Panic => return Err("panicked".to_owned()),
        }
    }
    if let Some(key) = met {
        return Err(format!("wrong type {key}"));
    }
    *store = scratch;
    Ok(seen)
}

fn entry(script: Script, origin: Origin) -> (Entry, Reply<String>) {
    Entry::new(script, origin)
}

/// Reads and applies until nothing is unread, as the committer does.
fn run(
    overlay: &mut Overlay,
    entries: &mut [Entry],
    store: &BTreeMap<String, Bytes>,
    foreign: &BTreeSet<String>,
) -> u32 {
    overlay.clear();
    entries.iter_mut().for_each(|entry| entry.want(overlay));
    for round in 1.. {
        let values: Vec<_> = overlay.wanted().map(|key| store.get(key).cloned()).collect();
        overlay.put_read(values);
        let missing: Vec<String> = overlay.missing().map(str::to_owned).collect();
        missing.iter().filter(|key| foreign.contains(*key)).for_each(|key| overlay.mark_foreign(key));
        if apply_in_order(overlay, entries) {
            return round;
        }
        entries.iter().for_each(|entry| entry.want_asked(overlay));
    }
    unreachable!("rounds are bounded by the keys")
}

fn answer(mut reply: Reply<String>) -> Result<String, String> {
    match reply.try_recv().expect("every transaction is answered") {
        Ok(outcome) => Ok(outcome),
        Err(CommitError::Panicked(_)) => Err("panicked".to_owned()),
        Err(CommitError::WrongType(key)) => Err(format!("wrong type {key}")),
        Err(other) => panic!("unexpected: {other}"),
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..6u8).prop_map(Op::Read),
        8 => (0..6u8).prop_map(Op::Write),
        3 => (0..6u8).prop_map(Op::Unlink),
        1 => Just(Op::Panic),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let keys = || prop::collection::vec(0..6u8, 0..4);
    (keys(), keys(), prop::collection::vec(op(), 0..8)).prop_map(|(named, covered, ops)| Script { named, covered, ops })
}

proptest! {
    /// Whatever the batch, its transactions see and leave what they would one after the other.
    #[test]
    fn a_batch_equals_one_at_a_time(
        scripts in prop::collection::vec((script(), 0..4usize), 1..12),
        present in prop::collection::btree_set(0..6u8, 0..6),
    ) {
        let mut store: BTreeMap<_, _> = present.iter().map(|number| (key(*number), Bytes::from("old"))).collect();
        let before = store.clone();
        let none = BTreeSet::new();
        let (mut entries, replies): (Vec<_>, Vec<_>) = scripts
            .iter()
            .map(|(script, lane)| entry(script.clone(), if *lane == 0 { Origin::Rest } else { Origin::Lane(*lane) }))
            .unzip();
        let mut overlay = Overlay::default();
        run(&mut overlay, &mut entries, &before, &none);
        let expected: Vec<_> = scripts.iter().map(|(script, _)| model(script, &mut store, &none)).collect();
        entries.iter_mut().for_each(Entry::commit);
        let answers: Vec<_> = replies.into_iter().map(answer).collect();
        prop_assert_eq!(answers, expected);
        let mut after = before;
        for (key, value) in overlay.writes() {
            match value {
                Some(value) => after.insert(key.to_owned(), value.clone()),
                None => after.remove(key),
            };
        }
        prop_assert_eq!(after, store);
    }

    /// The same with keys of another type, all of which are read: no one of them is ever replaced.
    #[test]
    fn keys_of_another_type_are_never_written(
        scripts in prop::collection::vec(script(), 1..8),
        foreign in prop::collection::btree_set((0..6u8).prop_map(key), 1..3),
    ) {
        let mut store = BTreeMap::new();
        let before = store.clone();
        let (mut entries, replies): (Vec<_>, Vec<_>) = scripts
            .iter()
            .map(|script| entry(Script { named: (0..6).collect(), ..script.clone() }, Origin::Rest))
            .unzip();
        let mut overlay = Overlay::default();
        run(&mut overlay, &mut entries, &before, &foreign);
        let expected: Vec<_> = scripts.iter().map(|script| model(script, &mut store, &foreign)).collect();
        entries.iter_mut().for_each(Entry::commit);
        prop_assert_eq!(replies.into_iter().map(answer).collect::<Vec<_>>(), expected);
        prop_assert!(overlay.writes().all(|(key, _)| !foreign.contains(key)));
    }
}

#[test]
fn a_batch_that_changes_nothing_is_not_written() {
    let store = BTreeMap::from([("key:0".to_owned(), Bytes::from("[]"))]);
    let same = Script { named: vec![0, 1], covered: vec![], ops: vec![Op::Write(0), Op::Unlink(1)] };
    let (one, _reply) = entry(same, Origin::Rest);
    let mut overlay = Overlay::default();
    run(&mut overlay, &mut [one], &store, &BTreeSet::new());
    assert!(!overlay.has_changes());
}

#[test]
fn an_unchanged_value_is_written_beside_changes_for_those_who_watch_it() {
    let store = BTreeMap::from([("key:0".to_owned(), Bytes::from("[]"))]);
    let script = Script { named: vec![0], covered: vec![1], ops: vec![Op::Write(0), Op::Write(1)] };
    let (one, _reply) = entry(script, Origin::Rest);
    let mut overlay = Overlay::default();
    run(&mut overlay, &mut [one], &store, &BTreeSet::new());
    assert!(overlay.has_changes());
    assert_eq!(overlay.writes().map(|(key, _)| key).collect::<Vec<_>>(), ["key:0", "key:1"]);
}

#[test]
fn a_covered_key_is_read_and_not_watched() {
    let script = Script { named: vec![0, 1], covered: vec![1, 2], ops: vec![] };
    let (mut one, _reply) = entry(script, Origin::Rest);
    let mut overlay = Overlay::default();
    one.want(&mut overlay);
    assert_eq!(overlay.watched().collect::<Vec<_>>(), ["key:0", "key:1"]);
    assert_eq!(overlay.wanted().collect::<Vec<_>>(), ["key:0", "key:1", "key:2"]);
}

#[test]
fn all_keys_that_were_asked_for_are_read_in_one_round() {
    struct Greedy;
    impl Transaction for Greedy {
        type Outcome = ();
        fn keys(&self, _keys: &mut Vec<String>) {}
        fn apply(&mut self, view: &mut View<'_>) -> Result<(), Unread> {
            let values: Vec<_> = (0..6).map(|number| view.get(&key(number))).collect();
            values.into_iter().try_for_each(|value| value.map(drop))
        }
    }
    let (one, _reply) = Entry::new(Greedy, Origin::Rest);
    let rounds = run(&mut Overlay::default(), &mut [one], &BTreeMap::new(), &BTreeSet::new());
    assert_eq!(rounds, 2);
}

#[test]
fn the_rest_of_a_lane_waits_for_what_its_predecessor_lacks() {
    /// Panics unless the transaction before it in the lane was applied.
    struct Second;
    impl Transaction for Second {
        type Outcome = ();
        fn keys(&self, keys: &mut Vec<String>) {
            keys.push(key(1));
        }
        fn apply(&mut self, view: &mut View<'_>) -> Result<(), Unread> {
            if view.get(&key(1))?.is_none() {
                std::panic::resume_unwind(Box::new("applied before its predecessor"));
            }
            Ok(())
        }
    }
    let first = Script { named: vec![], covered: vec![], ops: vec![Op::Read(0), Op::Write(1)] };
    let (first, first_reply) = entry(first, Origin::Lane(7));
    let (second, mut second_reply) = Entry::new(Second, Origin::Lane(7));
    let mut entries = [first, second];
    run(&mut Overlay::default(), &mut entries, &BTreeMap::new(), &BTreeSet::new());
    entries.iter_mut().for_each(Entry::commit);
    assert!(answer(first_reply).is_ok());
    assert!(second_reply.try_recv().expect("answered").is_ok());
}

#[test]
fn a_transaction_that_asks_for_what_it_has_is_given_up() {
    struct Stubborn;
    impl Transaction for Stubborn {
        type Outcome = ();
        fn keys(&self, keys: &mut Vec<String>) {
            keys.push(key(0));
        }
        fn apply(&mut self, _view: &mut View<'_>) -> Result<(), Unread> {
            Err(Unread(key(0)))
        }
    }
    let (one, mut reply) = Entry::new(Stubborn, Origin::Lane(1));
    run(&mut Overlay::default(), &mut [one], &BTreeMap::new(), &BTreeSet::new());
    assert!(matches!(reply.try_recv(), Ok(Err(CommitError::Panicked(_)))));
}
