//! How connections are opened, the committer's private one, and the meaning of Redis's replies.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, Pipeline, RedisResult, Value};
use telemetry::stages::{Stage, in_stage};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::args::Settings;
use crate::password::Password;
use crate::store::STORE_ID_KEY;
use crate::trust::Trust;

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
    /// The password is wrong, missing or not asked for: nothing will change until a person acts.
    #[error("{0}")]
    Denied(String),
    /// It is another data set than before: what it says is not to be believed.
    #[error("{0}")]
    Replaced(String),
}

/// One Redis, as something to connect to.
#[derive(Clone)]
pub(crate) struct Server {
    client: Client,
    address: String,
    password: Password,
    response_timeout: Duration,
    trust: Arc<Trust>,
}

impl Server {
    /// Nothing is sent yet.
    pub(crate) fn new(settings: &Settings) -> Result<Self, Failure> {
        let address = settings.address.clone();
        let refused = |error: redis::RedisError| Failure::Refused(format!("address {address}: {error}"));
        let info = format!("redis://{address}/").into_connection_info().map_err(refused)?;
        let client = Client::open(info).map_err(refused)?;
        let password = settings.password.clone();
        let trust = Arc::new(Trust::new(&address));
        Ok(Self { client, address, password, response_timeout: settings.response_timeout, trust })
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What is held against this Redis.
    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// A connection that may be cloned: for reads and for bulk writes, never for WATCH.
    pub(crate) async fn open_shared(&self) -> Result<Connection, Failure> {
        let opened = timeout(CONNECT_TIMEOUT, self.connect()).await;
        let opened = opened.map_err(|_| Failure::Lost("no connection in time".to_owned()))?;
        let mut connection = opened.map_err(|error| lost(&error))?;
        if let Some(password) = self.password.reveal() {
            // Not left to the client, which calls every error here a wrong password, also that of a Redis that is full.
            let mut commands = pipeline();
            commands.cmd("AUTH").arg(password);
            first_error(&ask(&mut connection, &commands).await?).map_err(|failure| self.explain(failure))?;
        }
        if self.trust.knows_id() {
            let mut commands = pipeline();
            commands.cmd("GET").arg(STORE_ID_KEY);
            let mut replies = ask(&mut connection, &commands).await?;
            first_error(&replies)?;
            self.trust.check_id(replies.pop())?;
        }
        Ok(connection)
    }

    /// Not left to the client, which would start the connection's task itself: it does most of what Redis costs here, and
    /// is to be counted so.
    async fn connect(&self) -> RedisResult<Connection> {
        let info = self.client.get_connection_info();
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            return Err((redis::ErrorKind::InvalidClientConfig, "only TCP is supported").into());
        };
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        // Without this a batch that is larger than one TCP segment waits for the acknowledgement of its first part.
        stream.set_nodelay(true)?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(self.response_timeout));
        let (inner, task) = MultiplexedConnection::new_with_config(info.redis_settings(), stream, config).await?;
        let task = tokio::spawn(in_stage(Stage::Redis, Box::pin(task))).abort_handle();
        Ok(Connection { inner, _task: Arc::new(AbortOnDrop(task)) })
    }

    /// A connection for WATCH. Makes sure that MULTI is allowed: if only MULTI were refused, the writes behind it in the
    /// same pipeline would be executed one by one.
    pub(crate) async fn open_private(&self) -> Result<Private, Failure> {
        let mut private = Private { inner: self.open_shared().await? };
        let mut probe = pipeline();
        probe.cmd("MULTI").cmd("EXEC");
        first_error(&private.ask(&probe).await?).map_err(|failure| self.explain(failure))?;
        Ok(private)
    }

    fn explain(&self, failure: Failure) -> Failure {
        let Failure::Denied(code) = failure else { return failure };
        let address = &self.address;
        Failure::Denied(match code.as_str() {
            NO_AUTH => format!("Redis {address} asks for a password: set REDIS_PASSWORD_FILE"),
            WRONG_PASSWORD => format!("Redis {address} refuses the password in REDIS_PASSWORD_FILE"),
            _ => format!("Redis {address} has no password: leave REDIS_PASSWORD_FILE empty, or give it one"),
        })
    }
}

/// Codes of Redis's errors about passwords.
const NO_AUTH: &str = "NOAUTH";
const WRONG_PASSWORD: &str = "WRONGPASS";
/// Part of the answer to AUTH of a Redis that has no password; its code is a mere `ERR`.
const NO_PASSWORD_THERE: &str = "without any password configured";

/// A connection that may be cloned. Its task ends with the last clone, whatever is still under way.
#[derive(Clone)]
pub(crate) struct Connection {
    inner: MultiplexedConnection,
    _task: Arc<AbortOnDrop>,
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection for WATCH. It has one owner and no `Clone`: another task's EXEC on it would silently drop our watches.
pub(crate) struct Private {
    inner: Connection,
}

impl Private {
    /// Sends the commands in one piece and waits for all replies. Errors of single commands stay among the replies.
    ///
    /// After [`Failure::Lost`], or when the future was dropped, the connection is to be dropped too.
    pub(crate) async fn ask(&mut self, commands: &Pipeline) -> Result<Vec<Value>, Failure> {
        ask(&mut self.inner, commands).await
    }
}

/// As [`Private::ask`], on a shared connection.
pub(crate) async fn ask(connection: &mut Connection, commands: &Pipeline) -> Result<Vec<Value>, Failure> {
    match in_stage(Stage::Redis, pin!(commands.query_async::<Value>(&mut connection.inner))).await {
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
        Value::ServerError(error) if is_about_passwords(error) => Err(Failure::Denied(error.code().to_owned())),
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

/// Whether a reply of TYPE names something that is no string.
pub(crate) fn is_foreign(kind: &Value) -> bool {
    !matches!(kind, Value::SimpleString(kind) if kind == "none" || kind == "string")
}

fn is_about_passwords(error: &redis::ServerError) -> bool {
    [NO_AUTH, WRONG_PASSWORD].contains(&error.code())
        || error.details().is_some_and(|details| details.contains(NO_PASSWORD_THERE))
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
