//! Fills a store with many rows, for the batch endpoints: fast, blind, not atomic.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use redis::Pipeline;

use crate::connection::{Connection, Failure, Server, ask, first_error, pipeline};
use crate::error::CommitError;
use crate::store::unavailable;

/// Rows in one MSET: long enough to be cheap, short enough not to hold up others (about a millisecond).
const ROWS_PER_CHUNK: usize = 1_000;

/// Chunks on their way at once: one is executed while the next travels.
const CHUNKS_OUTSTANDING: usize = 4;

/// Writes the rows; see `Store::bulk_set`.
pub(crate) async fn set<I>(server: &Server, rows: I) -> Result<u64, CommitError>
where
    I: Iterator<Item = (String, Bytes)> + Send,
{
    let mut rows = rows.peekable();
    let connection = server.open_shared().await.map_err(unavailable)?;
    let mut outstanding = FuturesUnordered::new();
    let mut written = 0;
    loop {
        while outstanding.len() < CHUNKS_OUTSTANDING && rows.peek().is_some() {
            outstanding.push(send(connection.clone(), chunk(rows.by_ref().take(ROWS_PER_CHUNK))));
        }
        match outstanding.next().await {
            Some(result) => written += result?,
            None => return Ok(written),
        }
    }
}

fn chunk(rows: impl Iterator<Item = (String, Bytes)>) -> (Pipeline, u64) {
    let mut commands = pipeline();
    commands.cmd("MSET");
    let mut count = 0;
    for (key, value) in rows {
        commands.arg(key).arg(value.as_ref());
        count += 1;
    }
    (commands, count)
}

async fn send(mut connection: Connection, (commands, count): (Pipeline, u64)) -> Result<u64, CommitError> {
    let replies = ask(&mut connection, &commands).await.map_err(|failure| match failure {
        Failure::Lost(_) => CommitError::OutcomeUnknown,
        Failure::Refused(cause) | Failure::Denied(cause) | Failure::Replaced(cause) => CommitError::Unavailable(cause),
    })?;
    first_error(&replies).map_err(unavailable)?;
    Ok(count)
}
