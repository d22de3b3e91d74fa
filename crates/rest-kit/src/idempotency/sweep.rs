//! Deletes the records whose day is over, and counts the others.

use std::time::Duration;

use bytes::Bytes;
use redis_txn::{CommitError, Queue, Store, Transaction, Unread, View};

use super::key::RECORD_PREFIX;
use super::record::Record;

/// Most records deleted by one transaction: as many as one WATCH may cheaply hold.
const MAX_FORGOTTEN: usize = 64;

/// Pause between two looks at the store, so that a sweep through a million records holds nobody up.
const PAUSE: Duration = Duration::from_millis(5);

/// Pause before a deletion is tried again that found no room in the queue: requests come first, but a store that is
/// always busy must forget too.
const BUSY_PAUSE: Duration = Duration::from_millis(200);

/// One walk through all records; the number of those that stay.
pub(crate) async fn sweep(store: &Store, queue: &Queue, now_hour: u64) -> Result<u64, CommitError> {
    let (mut cursor, mut kept) = (0, 0_u64);
    loop {
        let (next, keys) = store.scan(RECORD_PREFIX, cursor).await?;
        let values = read(store, &keys).await?;
        let mut expired = Vec::new();
        for (key, value) in keys.into_iter().zip(values) {
            match value.map(|bytes| Record::decode(&bytes)) {
                Some(Ok(record)) if record.has_expired(now_hour) => expired.push(key),
                Some(_) => kept += 1,
                None => {}
            }
        }
        for keys in expired.chunks(MAX_FORGOTTEN) {
            while let Err(error) = queue.run(Forget { keys: keys.to_vec(), now_hour }).await {
                match error {
                    CommitError::Full => tokio::time::sleep(BUSY_PAUSE).await,
                    error => return Err(error),
                }
            }
        }
        if next == 0 {
            return Ok(kept);
        }
        cursor = next;
        tokio::time::sleep(PAUSE).await;
    }
}

/// What somebody else has put there under such a name must not end every sweep.
async fn read(store: &Store, keys: &[String]) -> Result<Vec<Option<Bytes>>, CommitError> {
    match store.read(keys).await {
        Err(CommitError::WrongType(_)) => {}
        read => return read,
    }
    let mut values = Vec::with_capacity(keys.len());
    for key in keys {
        match store.read(std::slice::from_ref(key)).await {
            Err(CommitError::WrongType(_)) => values.push(None),
            read => values.extend(read?),
        }
    }
    Ok(values)
}

/// Deletes what has expired; a record that was written anew meanwhile stays.
struct Forget {
    keys: Vec<String>,
    now_hour: u64,
}

impl Transaction for Forget {
    type Outcome = ();

    fn keys(&self, keys: &mut Vec<String>) {
        keys.extend(self.keys.iter().cloned());
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<(), Unread> {
        for key in &self.keys {
            let expired = |bytes: &bytes::Bytes| Record::decode(bytes).is_ok_and(|r| r.has_expired(self.now_hour));
            if view.get(key)?.as_ref().is_some_and(expired) {
                view.unlink(key.clone());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Answer;
    use crate::idempotency::key::{Begun, RequestKey};
    use crate::idempotency::record::{KEPT_HOURS, Recorded};
    use crate::testing;

    #[tokio::test]
    async fn a_sweep_deletes_what_has_expired_and_counts_the_rest() {
        let (_folder, _redis, store) = testing::store().await;
        let record = |number: u64, hour| {
            let key = RequestKey {
                record: format!("{RECORD_PREFIX}POST /x {number}"),
                fingerprint: 0,
                hour,
                begun: Begun::Nothing,
            };
            let bytes = Record::new(&key, Recorded::Answer(Answer::text("done"))).encode();
            (key.record, bytes)
        };
        let rows = (0..3_000).map(|number| record(number, number % 3)).chain([("item:a".to_owned(), "x".into())]);
        store.bulk_set(rows.collect::<Vec<_>>().into_iter()).await.unwrap();
        let queue = store.rest_queue();
        assert_eq!(sweep(&store, &queue, KEPT_HOURS).await.unwrap(), 3_000);
        assert_eq!(sweep(&store, &queue, KEPT_HOURS + 2).await.unwrap(), 1_000);
        let left = store.read(&[record(0, 0).0, record(1, 1).0, record(2, 2).0, "item:a".to_owned()]).await.unwrap();
        assert_eq!(left.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, true, true]);
        store.shutdown().await;
    }
}
