//! Whether the Redis is still one that may be believed: the same data set as before, and none that forgets by itself.
//!
//! A store that has lost its data answers "there is none" to everything, which is false. So nothing is read and nothing
//! is written until it is the old one again.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use redis::Value;
use telemetry::metrics::REDIS_DISTRUSTED;

use crate::connection::{Failure, string};
use crate::store::STORE_ID_KEY;

/// Another data set than before.
const REPLACED: &str = "store-replaced";
/// It evicts keys, or would.
const EVICTS: &str = "store-evicts";

/// What is held against one Redis. Shared by all its connections.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    address: String,
    /// The data set's id, once it is known.
    id: OnceLock<String>,
    alarms: Mutex<BTreeMap<&'static str, String>>,
}

impl Trust {
    pub(crate) fn new(address: &str) -> Self {
        let trust = Self { address: address.to_owned(), ..Self::default() };
        [REPLACED, EVICTS].into_iter().for_each(|alarm| REDIS_DISTRUSTED.set(0.0, &[("alarm", alarm)]));
        trust
    }

    /// From now on it must be this data set.
    pub(crate) fn know(&self, id: &str) {
        // The first one counts.
        let _ = self.id.set(id.to_owned());
    }

    /// Whether there is an id to compare with.
    pub(crate) fn knows_id(&self) -> bool {
        self.id.get().is_some()
    }

    /// `found` is what the store has for its id.
    pub(crate) fn check_id(&self, found: Option<Value>) -> Result<(), Failure> {
        let Some(known) = self.id.get() else { return Ok(()) };
        let found = found.and_then(string);
        if found.as_deref() == Some(known.as_bytes()) {
            self.settle(REPLACED, None);
            return Ok(());
        }
        let found = found.map_or("none".into(), |found| String::from_utf8_lossy(&found).into_owned());
        let cause = format!("another data set than before: its {STORE_ID_KEY} is {found}, not {known}");
        self.settle(REPLACED, Some(cause.clone()));
        Err(Failure::Replaced(cause))
    }

    /// What the server says of evicting; `None` if all is well.
    pub(crate) fn evicts(&self, cause: Option<String>) {
        self.settle(EVICTS, cause);
    }

    /// Why the store must not be asked now.
    pub(crate) fn doubt(&self) -> Option<String> {
        self.lock().get(EVICTS).cloned()
    }

    /// Whether nothing is held against it.
    pub(crate) fn is_kept(&self) -> bool {
        self.lock().is_empty()
    }

    fn settle(&self, alarm: &'static str, cause: Option<String>) {
        let mut alarms = self.lock();
        let address = &self.address;
        match cause {
            Some(cause) => {
                if alarms.insert(alarm, cause.clone()).is_none() {
                    tracing::error!(
                        address,
                        alarm,
                        cause,
                        "the store must not be believed: nothing is read or written"
                    );
                    REDIS_DISTRUSTED.set(1.0, &[("alarm", alarm)]);
                }
            }
            None => {
                if alarms.remove(alarm).is_some() {
                    tracing::info!(address, alarm, "the store may be believed again");
                    REDIS_DISTRUSTED.set(0.0, &[("alarm", alarm)]);
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(id: &str) -> Option<Value> {
        Some(Value::BulkString(id.into()))
    }

    #[test]
    fn another_data_set_is_not_believed_until_the_old_one_is_back() {
        let trust = Trust::new("here");
        assert!(trust.check_id(Some(Value::Nil)).is_ok(), "nothing is known yet");
        trust.know("a");
        for other in [found("b"), Some(Value::Nil), None] {
            assert!(matches!(trust.check_id(other), Err(Failure::Replaced(_))));
            assert!(!trust.is_kept());
        }
        assert!(trust.check_id(found("a")).is_ok() && trust.is_kept());
    }

    #[test]
    fn a_store_that_evicts_is_not_asked() {
        let trust = Trust::new("here");
        trust.evicts(Some("allkeys-lru".to_owned()));
        assert_eq!((trust.doubt().as_deref(), trust.is_kept()), (Some("allkeys-lru"), false));
        trust.evicts(None);
        assert_eq!((trust.doubt(), trust.is_kept()), (None, true));
    }
}
