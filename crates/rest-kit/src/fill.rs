//! Fills a store with many rows, for `batch_init`.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use redis_txn::{CommitError, Queue, Store, Transaction, Unread, View};
use serde_json::json;

use crate::answer::Answer;
use crate::idempotency::{Keyed, Outcome, Recorded, RequestKey, of_record, recorded};

/// Rows in one transaction: long enough to be cheap, short enough not to hold up others.
const ROWS_PER_CHUNK: usize = 500;
/// Chunks that wait for their EXEC at once; the committer takes them together.
const CHUNKS_UNDER_WAY: usize = 4;

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
    let mut rows = rows.peekable();
    let (mut under_way, mut written, mut last) = (FuturesUnordered::new(), 0, None);
    loop {
        while under_way.len() < CHUNKS_UNDER_WAY && last.is_none() && rows.peek().is_some() {
            let mut chunk: Vec<_> = rows.by_ref().take(ROWS_PER_CHUNK).collect();
            if rows.peek().is_none() {
                last = chunk.pop();
            }
            under_way.push(write(requests, Chunk { rows: chunk, key: key.clone() }));
        }
        match under_way.next().await {
            Some(count) => written += count?,
            None => break,
        }
    }
    written += u64::from(last.is_some());
    let answer = Answer::json(&json!({ "msg": format!("{written} {what} written") }));
    requests.run(Keyed::new(LastRow(last), key, move |()| answer.clone())).await
}

/// Answers how many rows it were.
async fn write(requests: &Queue, chunk: Chunk) -> Result<u64, CommitError> {
    let count = chunk.rows.len() as u64;
    requests.run(chunk).await.map(|()| count)
}

/// Some rows, written whatever is there. In transactions, although nobody else writes with them: one whose answer is lost is
/// known to have happened or never to happen, while a plain write may arrive when its rows have been changed by others.
struct Chunk {
    rows: Vec<(String, Bytes)>,
    /// Once its answer is recorded, the filling is over, whoever has done it.
    key: Option<RequestKey>,
}

impl Transaction for Chunk {
    type Outcome = ();

    fn keys(&self, keys: &mut Vec<String>) {
        keys.extend(self.key.iter().map(|key| key.record.clone()));
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<(), Unread> {
        if let Some(key) = &self.key
            && recorded(view, key)? != Outcome::New
        {
            return Ok(());
        }
        for (key, value) in &self.rows {
            view.set(key.clone(), value.clone());
        }
        Ok(())
    }
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
    use crate::idempotency::Begun;
    use crate::testing;

    fn rows(count: u64, value: &'static str) -> impl Iterator<Item = (String, Bytes)> {
        (0..count).map(move |number| (format!("row:{number}"), Bytes::from_static(value.as_bytes())))
    }

    fn key(name: &str) -> RequestKey {
        RequestKey { record: format!("idem:POST /fill {name}"), fingerprint: 1, hour: 7, begun: Begun::Nothing }
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

        // A filling that stood still while another with its key was answered writes nothing over what came after that.
        let late = Chunk { rows: rows(3, "late").collect(), key: Some(key("a")) };
        requests.run(late).await.unwrap();
        assert_eq!(texts(&store, &["row:0"]).await, [new()]);

        // A record that has expired is none, even while it is not swept yet.
        let next_day = RequestKey { hour: key("a").hour + 25, ..key("a") };
        fill(&store, &requests, rows(3, "next day"), ("rows", Some(next_day))).await.unwrap();
        let next_day = || Some("next day".to_owned());
        assert_eq!(texts(&store, &["row:0", "row:2"]).await, [next_day(), next_day()]);

        // The process ends between the rows and the record: the filling is not whole, and nobody takes it for whole.
        store.shutdown().await;
        assert!(fill(&store, &requests, rows(3, "last"), ("rows", Some(key("b")))).await.is_err());
        assert_eq!(texts(&store, &["row:1", "row:2", &key("b").record]).await, [next_day(), next_day(), None]);
    }
}
