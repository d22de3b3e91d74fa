//! What may be left when everything has ended: no step record below a floor, no more keys and memory than before.

use std::ops::Range;

use super::{Evidence, Rule};

/// Kinds of keys of which there is none while nothing is under way.
const PASSING: [&str; 3] = ["pending", "rec", "saga"];
/// Kinds of keys that hold the goods of the shop: clients make them, and the other rules count them.
const GOODS: [&str; 3] = ["order", "item", "user"];
/// A process may hold on to this much more than it had before, KiB: buffers of connections, and pieces of the heap.
const SPARE_KB: u64 = 48 * 1024;

/// A participant's store, a lane and a starter.
pub type Place = (String, u32, String);

/// Sequences that have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// All below this.
    pub below: u64,
    /// And these.
    pub above: Vec<Range<u64>>,
}

/// A step record that is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Store, lane and starter.
    pub place: Place,
    /// Which.
    pub sequence: u64,
}

/// Keys of one kind in one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCount {
    /// The store.
    pub store: String,
    /// What the keys begin with, up to the colon.
    pub kind: String,
    /// How many before the first fault.
    pub before: u64,
    /// How many when everything had ended.
    pub after: u64,
    /// How many there may be anyway: one per lane, or one per process that was killed.
    pub allowed: u64,
}

/// Memory of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The process.
    pub process: String,
    /// Before the first fault, under load, KiB.
    pub before_kb: u64,
    /// When everything had ended, KiB.
    pub after_kb: u64,
}

impl KeyCount {
    /// Whether these keys must come back to their number.
    fn is_counted(&self) -> bool {
        !GOODS.contains(&self.kind.as_str())
    }

    /// Most that may be left.
    fn limit(&self) -> u64 {
        if PASSING.contains(&self.kind.as_str()) { 0 } else { self.before.max(self.allowed) }
    }
}

impl Memory {
    fn limit_kb(&self) -> u64 {
        self.before_kb + self.before_kb / 2 + SPARE_KB
    }
}

impl Ended {
    /// Whether this sequence is among them.
    pub fn holds(&self, sequence: u64) -> bool {
        sequence < self.below || self.above.iter().any(|range| range.contains(&sequence))
    }
}

pub(super) fn judge(evidence: &Evidence, find: &mut impl FnMut(Rule, String)) {
    for Record { place, sequence } in &evidence.records {
        if evidence.floors.get(place).is_some_and(|ended| ended.holds(*sequence)) {
            let (store, lane, starter) = place;
            find(Rule::Forgotten, format!("{store} keeps the record of {starter}, lane {lane}, sequence {sequence}"));
        }
    }
    for keys in evidence.keys.iter().filter(|keys| keys.is_counted() && keys.after > keys.limit()) {
        let KeyCount { store, kind, before, after, .. } = keys;
        find(Rule::KeysComeBack, format!("{store} has {after} keys {kind}:…, {before} before, limit {}", keys.limit()));
    }
    for memory in evidence.memory.iter().filter(|memory| memory.after_kb > memory.limit_kb()) {
        let Memory { process, before_kb, after_kb } = memory;
        find(Rule::MemoryComesBack, format!("{process} has {after_kb} KiB, {before_kb} before"));
    }
}
