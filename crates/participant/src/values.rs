//! The values that a rule sees: in production the view of a Redis transaction, in tests and simulations a map.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::{DecodeError, Wire};
use redis_txn::{Unread, View};

use crate::business::Fault;

/// Reads and writes plain values by key.
pub trait Values {
    /// The key's value, `None` when it does not exist.
    fn get(&mut self, key: &str) -> Result<Option<Bytes>, Unread>;
    /// The key of another type that was read as missing since the last time, if any.
    fn take_foreign(&mut self) -> Option<String> {
        None
    }
    /// Writes a value (absolute).
    fn set(&mut self, key: String, value: Bytes);
    /// Removes a key.
    fn unlink(&mut self, key: String);
}

/// Reads a key and decodes it; what cannot be decoded is a [`Fault`] that names the key.
pub fn read<T: Wire>(values: &mut dyn Values, key: &str) -> Result<Option<T>, Fault> {
    let Some(bytes) = values.get(key)? else { return Ok(None) };
    T::decode(&bytes).map(Some).map_err(|cause| unreadable(&format!("key {key}"), &cause))
}

/// A key that holds a hash, a list or the like reads as missing; whatever was made of that is not true.
pub(crate) fn refuse_foreign<T>(decided: Result<T, Fault>, values: &mut dyn Values) -> Result<T, Fault> {
    match (decided, values.take_foreign()) {
        (Ok(_), Some(key)) => Err(Fault::Corrupt(format!("key {key}: it holds another type of value"))),
        (decided, _) => decided,
    }
}

/// What it means that a stored value cannot be decoded: it is damaged, or a later program has written it.
pub fn unreadable(what: &str, cause: &DecodeError) -> Fault {
    let why = format!("{what}: {cause}");
    match cause {
        DecodeError::Malformed { .. } => Fault::Corrupt(why),
        DecodeError::UnknownFormat { .. } => Fault::UnknownFormat(why),
    }
}

impl Values for View<'_> {
    fn get(&mut self, key: &str) -> Result<Option<Bytes>, Unread> {
        View::get(self, key)
    }
    fn take_foreign(&mut self) -> Option<String> {
        View::take_foreign(self)
    }
    fn set(&mut self, key: String, value: Bytes) {
        View::set(self, key, value);
    }
    fn unlink(&mut self, key: String) {
        View::unlink(self, key);
    }
}

impl Values for BTreeMap<String, Bytes> {
    fn get(&mut self, key: &str) -> Result<Option<Bytes>, Unread> {
        Ok(BTreeMap::get(self, key).cloned())
    }
    fn set(&mut self, key: String, value: Bytes) {
        self.insert(key, value);
    }
    fn unlink(&mut self, key: String) {
        self.remove(&key);
    }
}

/// The writes of one command, kept apart until it is known that they count.
pub(crate) struct Draft<'a> {
    below: &'a mut dyn Values,
    /// Few keys per command, so a list is searched faster than a map is built.
    writes: Vec<(String, Option<Bytes>)>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(below: &'a mut dyn Values) -> Self {
        Self { below, writes: Vec::new() }
    }

    /// Makes the writes count; a draft that is dropped instead leaves no trace.
    pub(crate) fn keep(self) {
        for (key, value) in self.writes {
            match value {
                Some(value) => self.below.set(key, value),
                None => self.below.unlink(key),
            }
        }
    }

    fn write(&mut self, key: String, value: Option<Bytes>) {
        match self.writes.iter_mut().find(|(written, _)| *written == key) {
            Some((_, old)) => *old = value,
            None => self.writes.push((key, value)),
        }
    }
}

impl Values for Draft<'_> {
    fn get(&mut self, key: &str) -> Result<Option<Bytes>, Unread> {
        match self.writes.iter().find(|(written, _)| written == key) {
            Some((_, value)) => Ok(value.clone()),
            None => self.below.get(key),
        }
    }
    fn take_foreign(&mut self) -> Option<String> {
        self.below.take_foreign()
    }
    fn set(&mut self, key: String, value: Bytes) {
        self.write(key, Some(value));
    }
    fn unlink(&mut self, key: String) {
        self.write(key, None);
    }
}
