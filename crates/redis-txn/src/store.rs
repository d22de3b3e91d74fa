//! The handle to one Redis.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use service_kit::backoff::{Backoff, START_PATIENCE};
use service_kit::process::BadConfiguration;
use telemetry::logs::Throttle;
use telemetry::stages::{Stage, in_stage};
use tokio::time::Instant;
use uuid::Uuid;

use crate::args::Settings;
use crate::committer::Committer;
use crate::connection::{Failure, Server, first_error, pipeline, string};
use crate::error::{CheckError, CommitError, ConnectError};
use crate::queue::{Handles, Queue, Shared};
use crate::reader::Reader;
use crate::watch::watch;
use crate::{bulk, check};

/// The key of the data set's random id.
pub const STORE_ID_KEY: &str = "store:id";

/// The key that names the service whose data set it is.
const OWNER_KEY: &str = "store:owner";

/// First and longest pause between two attempts to connect.
const CONNECT_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

static NO_ANSWER: Throttle = Throttle::new(Duration::from_secs(5));

/// Cheap handle to one Redis: its committer task, and reads.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    handles: Arc<Handles>,
    pub(crate) server: Server,
    pub(crate) reader: Reader,
    id: OnceLock<Uuid>,
}

impl Store {
    /// Connects (retrying with backoff for up to 90 s; a password that is not accepted is not tried again), and starts
    /// the committer task.
    pub async fn connect(settings: Settings) -> Result<Self, ConnectError> {
        let server = Server::new(&settings).map_err(unavailable)?;
        let is_away = |failure: &Failure| !matches!(failure, Failure::Denied(_));
        let connection =
            patiently(&settings.address, is_away, || server.open_private()).await.map_err(|failure| match failure {
                Failure::Denied(sentence) => ConnectError::Denied(BadConfiguration(sentence)),
                failure => ConnectError::from(unavailable(failure)),
            })?;
        let shared = Arc::new(Shared::new(&settings.address));
        let inner = Inner {
            handles: Arc::new(Handles { shared: Arc::clone(&shared) }),
            reader: Reader::new(server.clone()),
            server: server.clone(),
            id: OnceLock::new(),
        };
        let committer = Committer::new(settings, server, connection, shared);
        tokio::spawn(async move { in_stage(Stage::Redis, pin!(committer.run())).await });
        let inner = Arc::new(inner);
        tokio::spawn(watch(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    /// Checks version, `maxmemory-policy noeviction`, `appendonly yes`, `appendfsync always`,
    /// `no-appendfsync-on-rewrite no`; each failure is one sentence that says what to set.
    ///
    /// `allow_unsafe_fsync` lets the last three pass: for tests, and for those who can live with lost data.
    ///
    /// A store that does not answer is asked again for up to 90 s.
    pub async fn check(&self, allow_unsafe_fsync: bool) -> Result<(), CheckError> {
        let is_away = |error: &CheckError| matches!(error, CheckError::Store(CommitError::Unavailable(_)));
        patiently(self.address(), is_away, || check::check(&self.inner.reader, allow_unsafe_fsync)).await
    }

    /// The [id](Self::id) of the data set, which must be that of `service`, or nobody's, and is that service's from now on: two
    /// that share one would take each other's lanes for their own. Asked last: a service that does not start claims nothing.
    pub async fn claim(&self, service: &str) -> Result<Uuid, CheckError> {
        let owner = self.remember(OWNER_KEY, service).await?;
        if owner == service {
            return Ok(self.id().await?);
        }
        let fault = format!(
            "give {service} a Redis of its own: this one is that of {owner} (it is new, or {service} has written all that is in it: \
             delete {OWNER_KEY})"
        );
        Err(CheckError::Unsafe(vec![fault]))
    }

    /// The random id of this data set, made when it is first asked for (`store:id`). From then on this handle believes no
    /// other data set: what is read or run fails or waits until the known one is back.
    pub async fn id(&self) -> Result<Uuid, CommitError> {
        if let Some(id) = self.inner.id.get() {
            return Ok(*id);
        }
        let text = self.remember(STORE_ID_KEY, &Uuid::new_v4().to_string()).await?;
        let id = Uuid::try_parse(&text).map_err(|_| CommitError::WrongType(STORE_ID_KEY.to_owned()))?;
        self.inner.server.trust().know(&text);
        Ok(*self.inner.id.get_or_init(|| id))
    }

    /// Whether the data set has no id yet: nobody has ever asked for it, or all of it is lost. A store that does not answer
    /// is asked again for up to 90 s.
    pub async fn is_new(&self) -> Result<bool, CommitError> {
        let is_away = |error: &CommitError| matches!(error, CommitError::Unavailable(_));
        let key = [STORE_ID_KEY.to_owned()];
        let found = patiently(self.address(), is_away, || self.inner.reader.read(&key)).await?;
        Ok(found.iter().all(Option::is_none))
    }

    /// What the key holds; if it holds nothing, `value` from now on. A store that does not answer is asked again for up to
    /// 90 s.
    pub async fn remember(&self, key: &str, value: &str) -> Result<String, CommitError> {
        let is_away = |error: &CommitError| matches!(error, CommitError::Unavailable(_));
        patiently(self.address(), is_away, || self.remember_now(key, value)).await
    }

    fn address(&self) -> &str {
        self.inner.server.address()
    }

    async fn remember_now(&self, key: &str, value: &str) -> Result<String, CommitError> {
        let mut commands = pipeline();
        commands.cmd("SET").arg(key).arg(value).arg("NX");
        commands.cmd("GET").arg(key);
        let mut replies = self.inner.reader.ask(&commands).await?;
        first_error(&replies).map_err(unavailable)?;
        let text = replies.pop().and_then(string).ok_or_else(|| CommitError::WrongType(key.to_owned()))?;
        String::from_utf8(text.into()).map_err(|_| CommitError::WrongType(key.to_owned()))
    }

    /// A queue for one lane: its transactions are retried without limit.
    pub fn lane_queue(&self, lane: u32) -> Queue {
        Queue::lane(Arc::clone(&self.inner.handles), lane)
    }

    /// The queue for REST requests: bounded attempts, bounded patience.
    pub fn rest_queue(&self) -> Queue {
        Queue::rest(Arc::clone(&self.inner.handles))
    }

    /// Plain MGET on a shared connection that is never used for WATCH.
    ///
    /// Up to 1 000 keys are one atomic look; more are read in pieces. A key of another type is an error, not `None`.
    pub async fn read(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, CommitError> {
        self.inner.reader.read(keys).await
    }

    /// Some of the keys that begin with `prefix`, and the cursor for the next ones; 0 begins and 0 ends.
    ///
    /// Keys that are there all the time are found at least once; those that come or go meanwhile perhaps.
    pub async fn scan(&self, prefix: &str, cursor: u64) -> Result<(u64, Vec<String>), CommitError> {
        self.inner.reader.scan(prefix, cursor).await
    }

    /// Blind MSET chunks of about 1 000 rows on a connection of its own, a few outstanding; not atomic.
    ///
    /// Returns the number of rows. On an error some of them may be written.
    pub fn bulk_set<I>(&self, rows: I) -> impl Future<Output = Result<u64, CommitError>> + Send
    where
        I: Iterator<Item = (String, Bytes)> + Send,
    {
        bulk::set(&self.inner.server, rows)
    }

    /// Whether the store answered lately and may be believed (readiness).
    pub fn is_healthy(&self) -> bool {
        self.inner.handles.shared.is_healthy() && self.inner.server.trust().is_kept()
    }

    /// Finishes what was handed in, then ends the committer task.
    ///
    /// If the store is away, transactions of the lanes too are given up after `rest_patience`.
    pub async fn shutdown(&self) {
        self.inner.handles.shared.close();
        self.inner.handles.shared.ended().await;
    }
}

/// Asks until somebody answers: a process that starts while its store does must not end for that.
async fn patiently<T, E: std::fmt::Display, Answer: Future<Output = Result<T, E>>>(
    address: &str,
    is_away: impl Fn(&E) -> bool,
    ask: impl Fn() -> Answer,
) -> Result<T, E> {
    let deadline = Instant::now() + START_PATIENCE;
    let mut backoff = Backoff::new(CONNECT_PAUSE.0, CONNECT_PAUSE.1);
    loop {
        match ask().await {
            Err(error) if is_away(&error) && Instant::now() < deadline => {
                if let Some(held_back) = NO_ANSWER.admit() {
                    tracing::warn!(address, %error, held_back, "no answer from Redis yet");
                }
            }
            outcome => return outcome,
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// Nothing was sent, or it was refused.
pub(crate) fn unavailable(failure: Failure) -> CommitError {
    CommitError::Unavailable(failure.to_string())
}
