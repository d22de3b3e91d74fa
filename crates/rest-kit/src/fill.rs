//! Fills a store with many rows, for `batch_init`.

use bytes::Bytes;
use redis_txn::{CommitError, Queue, Store, Transaction, Unread, View};
use serde_json::json;

use crate::answer::Answer;
use crate::idempotency::{Keyed, Outcome, Recorded, RequestKey, of_record};

/// Writes the rows, and the last one in the EXEC that records the answer: a request that comes again after its answer was
/// recorded writes nothing over what has changed since, and one whose record is missing was not whole and writes all of it
/// anew. The same request twice at the same time writes the same rows twice.
pub async fn fill(
    store: &Store,
    requests: &Queue,
    rows: impl Iterator<Item = (String, Bytes)> + Send,
    (what, key): (&str, Option<RequestKey>),
) -> Result<Answer, CommitError> {
    if let Some(key) = &key
        && let Some(answer) = recorded_answer(store, key).await?
    {
        return Ok(answer);
    }
    let (mut rows, mut last) = (rows.peekable(), None);
    let all_but_last = std::iter::from_fn(|| {
        let row = rows.next()?;
        if rows.peek().is_some() {
            return Some(row);
        }
        last = Some(row);
        None
    });
    let written = store.bulk_set(all_but_last).await? + u64::from(last.is_some());
    let answer = Answer::json(&json!({ "msg": format!("{written} {what} written") }));
    requests.run(Keyed::new(LastRow(last), key, move |()| answer.clone())).await
}

/// The answer that was given before, or why the key cannot be used.
async fn recorded_answer(store: &Store, key: &RequestKey) -> Result<Option<Answer>, CommitError> {
    let found = store.read(std::slice::from_ref(&key.record)).await?;
    let outcome = found.into_iter().flatten().next().map_or(Outcome::New, |bytes| of_record(&bytes, key));
    Ok(match outcome {
        Outcome::Recorded(Recorded::Answer(answer)) | Outcome::Unusable(answer) => Some(answer),
        // No other kind of request has this method and path; if one had, the transaction of the last row says so.
        Outcome::New | Outcome::Recorded(Recorded::Saga(_)) => None,
    })
}

/// Written whatever is there, as the rows before it; none if there are no rows.
struct LastRow(Option<(String, Bytes)>);

impl Transaction for LastRow {
    type Outcome = ();

    fn keys(&self, _keys: &mut Vec<String>) {}

    fn apply(&mut self, view: &mut View<'_>) -> Result<(), Unread> {
        if let Some((key, value)) = &self.0 {
            view.set(key.clone(), value.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn rows(count: u64, value: &'static str) -> impl Iterator<Item = (String, Bytes)> {
        (0..count).map(move |number| (format!("row:{number}"), Bytes::from_static(value.as_bytes())))
    }

    fn key(name: &str) -> RequestKey {
        RequestKey { record: format!("idem:POST /fill {name}"), fingerprint: 1, hour: 7 }
    }

    async fn texts(store: &Store, keys: &[&str]) -> Vec<Option<String>> {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let values = store.read(&keys).await.unwrap();
        values.into_iter().map(|value| Some(String::from_utf8_lossy(&value?).into_owned())).collect()
    }

    #[tokio::test]
    async fn the_last_row_comes_with_the_record() {
        let (_folder, _redis, store) = testing::store().await;
        let requests = store.rest_queue();
        for (count, text) in [(0, "0 rows written"), (1, "1 rows written"), (3, "3 rows written")] {
            let answer = fill(&store, &requests, rows(count, "old"), ("rows", None)).await.unwrap();
            assert_eq!(answer.body, json!({ "msg": text }).to_string());
        }
        let old = || Some("old".to_owned());
        assert_eq!(texts(&store, &["row:0", "row:2", "row:3"]).await, [old(), old(), None]);

        let first = fill(&store, &requests, rows(3, "new"), ("rows", Some(key("a")))).await.unwrap();
        let again = fill(&store, &requests, rows(3, "newer"), ("rows", Some(key("a")))).await.unwrap();
        assert_eq!(first, again);
        let new = || Some("new".to_owned());
        assert_eq!(texts(&store, &["row:0", "row:1", "row:2"]).await, [new(), new(), new()]);

        // The process ends between the rows and the record: the filling is not whole, and nobody takes it for whole.
        store.shutdown().await;
        assert!(fill(&store, &requests, rows(3, "last"), ("rows", Some(key("b")))).await.is_err());
        let last = Some("last".to_owned());
        assert_eq!(texts(&store, &["row:1", "row:2", &key("b").record]).await, [last, new(), None]);
    }
}
