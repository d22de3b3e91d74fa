//! A store in memory, to test transactions without a Redis.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::plan::Overlay;
use crate::transaction::{Transaction, Unread, View};

/// A map with the rules of a [`View`]: only keys that were named or asked for are read, and all writes happen or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    values: BTreeMap<String, Bytes>,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// With this key in it.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.values.insert(key.into(), value.into());
        self
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Bytes> {
        self.values.get(key)
    }

    /// All keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Runs a transaction as the committer would, keys that it asks for later included.
    pub fn run<T: Transaction>(&mut self, transaction: &mut T) -> T::Outcome {
        let mut keys = Vec::new();
        transaction.keys(&mut keys);
        transaction.covered_keys(&mut keys);
        loop {
            let mut overlay = Overlay::default();
            keys.iter().for_each(|key| overlay.want_watched(key.clone()));
            let values: Vec<_> = overlay.wanted().map(|key| self.values.get(key).cloned()).collect();
            overlay.put_read(values);
            match transaction.apply(&mut View::new(&mut overlay)) {
                Ok(outcome) => {
                    self.write(&overlay);
                    return outcome;
                }
                Err(Unread(key)) => {
                    assert!(!keys.contains(&key), "the transaction asks for {key}, which was read");
                    keys.push(key);
                }
            }
        }
    }

    fn write(&mut self, overlay: &Overlay) {
        for (key, value) in overlay.writes() {
            match value {
                Some(value) => self.values.insert(key.to_owned(), value.clone()),
                None => self.values.remove(key),
            };
        }
    }
}
