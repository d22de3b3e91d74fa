//! The pure half of the committer: values that were read, the writes laid over them, transactions applied in order.
//!
//! Nothing here waits or knows Redis; the property test compares it with one transaction at a time over a map.

use bytes::Bytes;
use indexmap::IndexMap;

use crate::error::CommitError;
use crate::transaction::{Applied, Entry, Origin, Unread, View};

/// A transaction that keeps asking for keys walks through the store and does not belong here: it is answered as failed.
/// Each round reads the whole batch again.
const MAX_ROUNDS_UNREAD: u32 = 64;

/// What is known of a key at the start of the batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Read {
    /// It was written without having been read.
    #[default]
    Not,
    Missing,
    Value(Bytes),
    /// It holds a hash, set, list or the like, which MGET shows as missing.
    Foreign,
}

/// Whether a key is read, and how it is protected until EXEC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Want {
    #[default]
    No,
    Covered,
    Watched,
}

#[derive(Debug, Default)]
struct Slot {
    want: Want,
    read: Read,
    /// `Some(None)`: removed.
    written: Option<Option<Bytes>>,
}

/// The values of one batch. One map, reused from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    slots: IndexMap<String, Slot>,
    /// What the transaction that is being applied has overwritten, to take it back.
    undo: Vec<(usize, Option<Option<Bytes>>)>,
    /// Keys which it asked for and that were not read.
    missed: Vec<String>,
    /// The key of another type which it has read or would have replaced.
    foreign: Option<String>,
}

impl Overlay {
    /// Forgets everything but the memory it has.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.keep();
    }

    pub(crate) fn want_watched(&mut self, key: String) {
        self.slots.entry(key).or_default().want = Want::Watched;
    }

    pub(crate) fn want_covered(&mut self, key: String) {
        let slot = self.slots.entry(key).or_default();
        slot.want = slot.want.max(Want::Covered);
    }

    pub(crate) fn watched(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().filter(|(_, slot)| slot.want == Want::Watched).map(|(key, _)| key.as_str())
    }

    /// The keys to read, in the order in which [`put_read`](Self::put_read) takes their values.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().filter(|(_, slot)| slot.want != Want::No).map(|(key, _)| key.as_str())
    }

    /// Takes the values of the wanted keys and forgets all writes. Returns how many keys have a value.
    pub(crate) fn put_read(&mut self, values: impl IntoIterator<Item = Option<Bytes>>) -> usize {
        let mut values = values.into_iter();
        let mut present = 0;
        for slot in self.slots.values_mut() {
            slot.written = None;
            if slot.want != Want::No {
                slot.read = values.next().flatten().map_or(Read::Missing, Read::Value);
                present += usize::from(matches!(slot.read, Read::Value(_)));
            }
        }
        present
    }

    /// Keys that were read as missing, for the rare case that not all of them are.
    pub(crate) fn missing(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().filter(|(_, slot)| slot.read == Read::Missing).map(|(key, _)| key.as_str())
    }

    pub(crate) fn mark_foreign(&mut self, key: &str) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.read = Read::Foreign;
        }
    }

    /// Whether anything would be different after the writes.
    pub(crate) fn has_changes(&self) -> bool {
        self.slots.values().any(|slot| match (&slot.read, &slot.written) {
            (_, None) | (Read::Missing, Some(None)) => false,
            (Read::Value(old), Some(Some(new))) => old != new,
            _ => true,
        })
    }

    /// Every key that was written, with its new value; `None` is to be removed.
    ///
    /// A value that is what it was is written all the same: it tells those who watch that key that the keys covered by
    /// it may have changed. (Removing what is missing tells nobody anything, so that is left out.)
    pub(crate) fn writes(&self) -> impl Iterator<Item = (&str, Option<&Bytes>)> {
        self.slots.iter().filter_map(|(key, slot)| {
            let written = slot.written.as_ref()?;
            let is_void = slot.read == Read::Missing && written.is_none();
            (!is_void).then_some((key.as_str(), written.as_ref()))
        })
    }

    pub(crate) fn get(&mut self, key: &str) -> Result<Option<Bytes>, Unread> {
        if let Some(slot) = self.slots.get(key) {
            if let Some(written) = &slot.written {
                return Ok(written.clone());
            }
            match &slot.read {
                Read::Value(value) => return Ok(Some(value.clone())),
                Read::Missing => return Ok(None),
                Read::Foreign => {
                    self.foreign.get_or_insert_with(|| key.to_owned());
                    return Ok(None);
                }
                Read::Not => {}
            }
        }
        self.missed.push(key.to_owned());
        Err(Unread(key.to_owned()))
    }

    pub(crate) fn take_foreign(&mut self) -> Option<String> {
        self.foreign.take()
    }

    pub(crate) fn write(&mut self, key: String, value: Option<Bytes>) {
        let entry = self.slots.entry(key);
        let index = entry.index();
        let slot = entry.or_default();
        let previous = slot.written.replace(value);
        let replaces_foreign = slot.read == Read::Foreign && previous.is_none();
        self.undo.push((index, previous));
        if replaces_foreign && self.foreign.is_none() {
            self.foreign = self.slots.get_index(index).map(|(key, _)| key.clone());
        }
    }

    /// A transaction named a missing key itself (it made the `Unread` and did not get it from the view).
    pub(crate) fn miss(&mut self, key: String) {
        if !self.missed.contains(&key) && self.slots.get(&key).is_none_or(|slot| slot.read == Read::Not) {
            self.missed.push(key);
        }
    }

    /// The writes of the transaction stay.
    fn keep(&mut self) {
        self.undo.clear();
        self.missed.clear();
        self.foreign = None;
    }

    /// The writes of the transaction are taken back, the last one first.
    fn take_back(&mut self) {
        while let Some((index, previous)) = self.undo.pop() {
            if let Some((_, slot)) = self.slots.get_index_mut(index) {
                slot.written = previous;
            }
        }
    }
}

/// Applies the entries in order. Answers those that panic or meet a key of another type; their writes are
/// taken back, so that the entries after them are applied as if they had not been there.
///
/// Returns false when keys have to be read first: then the result is void, the keys are among those wanted and all of
/// it is to be done again. After such a transaction the rest of its lane is not applied in this round, because it may
/// rely on it and would be judged by values that never were. (Transactions of other queues cannot rely on it.)
pub(crate) fn apply_in_order(overlay: &mut Overlay, entries: &mut [Entry]) -> bool {
    let mut complete = true;
    let mut held: Vec<Origin> = Vec::new();
    for entry in entries.iter_mut().filter(|entry| !entry.is_answered()) {
        if held.contains(&entry.origin) {
            continue;
        }
        match entry.apply(&mut View::new(overlay)) {
            Applied::Done => {
                if let Some(key) = overlay.foreign.take() {
                    overlay.take_back();
                    entry.fail(CommitError::WrongType(key));
                }
            }
            Applied::Unread => {
                overlay.take_back();
                entry.rounds_unread += 1;
                let asked_new = entry.ask_for(overlay.missed.drain(..));
                if !asked_new || entry.rounds_unread > MAX_ROUNDS_UNREAD {
                    entry.fail(CommitError::Panicked("it keeps asking for keys that were read".to_owned()));
                } else {
                    complete = false;
                    if let Origin::Lane(_) = entry.origin {
                        held.push(entry.origin);
                    }
                }
            }
            Applied::Panicked(text) => {
                overlay.take_back();
                entry.fail(CommitError::Panicked(text));
            }
        }
        overlay.keep();
    }
    complete
}

#[cfg(test)]
mod tests;
