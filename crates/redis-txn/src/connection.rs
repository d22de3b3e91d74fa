//! The committer's private connection, and the meaning of Redis's replies.

use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, Pipeline, Value};

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no reply to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The connection is lost or timed out: what was sent may or may not have arrived.
    #[error("{0}")]
    Lost(String),
    /// Redis answered with an error (`-OOM`, `-LOADING`, `-READONLY`, …): it did nothing.
    #[error("{0}")]
    Refused(String),
}

/// A connection for WATCH. It has one owner and no `Clone`: another task's EXEC on it would silently drop our watches.
pub(crate) struct Private {
    inner: MultiplexedConnection,
}

impl Private {
    /// Connects, and makes sure that MULTI is allowed: if only MULTI were refused, the writes behind it in the same
    /// pipeline would be executed one by one.
    pub(crate) async fn open(client: &Client, response_timeout: Duration) -> Result<Self, Failure> {
        let mut private = Self { inner: open_shared(client, response_timeout).await? };
        let mut probe = pipeline();
        probe.cmd("MULTI").cmd("EXEC");
        first_error(&private.ask(&probe).await?)?;
        Ok(private)
    }

    /// Sends the commands in one piece and waits for all replies. Errors of single commands stay among the replies.
    ///
    /// After [`Failure::Lost`], or when the future was dropped, the connection is to be dropped too.
    pub(crate) async fn ask(&mut self, commands: &Pipeline) -> Result<Vec<Value>, Failure> {
        ask(&mut self.inner, commands).await
    }
}

/// A client of the Redis at `host:port`; nothing is sent yet.
pub(crate) fn client(address: &str) -> Result<Client, Failure> {
    let refused = |error: redis::RedisError| Failure::Refused(format!("address {address}: {error}"));
    let info = format!("redis://{address}/").into_connection_info().map_err(refused)?;
    // Without this a batch that is larger than one TCP segment waits for the acknowledgement of its first part.
    let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
    Client::open(info.set_tcp_settings(tcp)).map_err(refused)
}

/// A connection that may be cloned: for reads and for bulk writes, never for WATCH.
pub(crate) async fn open_shared(client: &Client, response_timeout: Duration) -> Result<MultiplexedConnection, Failure> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(response_timeout));
    client.get_multiplexed_async_connection_with_config(&config).await.map_err(|error| lost(&error))
}

/// As [`Private::ask`], on a shared connection.
pub(crate) async fn ask(connection: &mut MultiplexedConnection, commands: &Pipeline) -> Result<Vec<Value>, Failure> {
    match commands.query_async::<Value>(connection).await {
        Ok(Value::Array(replies)) if replies.len() == commands.len() => Ok(replies),
        Ok(other) => Err(Failure::Lost(format!("replies of another shape: {other:?}"))),
        Err(error) => Err(lost(&error)),
    }
}

/// An empty pipeline that hands out every reply, errors included.
pub(crate) fn pipeline() -> Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.ignore_errors();
    pipeline
}

/// What came of an EXEC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exec {
    Done,
    /// Nil: a watched key was touched.
    Conflict,
    /// `-EXECABORT`: a command was not even queued, so nothing was executed.
    Refused(String),
    /// Replies that prove neither. The commit key knows.
    Unclear(String),
}

/// Reads the replies to MULTI, writes, EXEC.
pub(crate) fn read_exec(replies: &[Value]) -> Exec {
    let (Some(multi), Some(exec)) = (replies.first(), replies.last()) else {
        return Exec::Unclear("no replies".to_owned());
    };
    if let Value::ServerError(error) = multi {
        return Exec::Unclear(format!("MULTI: {error}"));
    }
    match exec {
        Value::Nil => Exec::Conflict,
        Value::Array(results) => match first_error(results) {
            // EXEC does not roll back: the commands beside the one that failed were executed. The commit number rides
            // in the MSET, so it tells whether that one was.
            Err(error) => Exec::Unclear(format!("inside EXEC: {error}")),
            Ok(()) => Exec::Done,
        },
        Value::ServerError(error) if error.code() == "EXECABORT" => {
            let cause = first_error(&replies[..replies.len() - 1]).err();
            Exec::Refused(cause.map_or_else(|| error.to_string(), |cause| cause.to_string()))
        }
        other => Exec::Unclear(format!("EXEC: {other:?}")),
    }
}

/// The first error among the replies.
pub(crate) fn first_error(replies: &[Value]) -> Result<(), Failure> {
    replies.iter().try_for_each(|reply| match reply {
        Value::ServerError(error) => Err(Failure::Refused(server_error(error))),
        _ => Ok(()),
    })
}

/// The value of a key in a reply of GET or MGET.
pub(crate) fn string(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        Value::SimpleString(text) => Some(text.into()),
        Value::Okay => Some(Bytes::from_static(b"OK")),
        Value::Int(number) => Some(number.to_string().into()),
        _ => None,
    }
}

fn server_error(error: &redis::ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}

fn lost(error: &redis::RedisError) -> Failure {
    // `-LOADING` and the like may answer the commands that set a connection up: trying again later is all the same.
    Failure::Lost(error.to_string())
}

#[cfg(test)]
mod tests;
