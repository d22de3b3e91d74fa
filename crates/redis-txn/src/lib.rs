//! Runs many small optimistic transactions as few Redis EXECs: the only crate that names the Redis client.
//!
//! Deliberately not in it: which keys mean what.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

/// A small pure transaction. It may be applied several times (conflict, unknown outcome): only the last one counts.
pub trait Transaction: Send + 'static {
    /// What the caller is told once the EXEC is known to have happened.
    type Outcome: Send + 'static;

    /// Adds the keys that `apply` will read. Keys found out later may be asked for all the same (see [`Unread`]).
    fn keys(&self, keys: &mut Vec<String>);

    /// Reads and writes the view. On `Err(Unread)` nothing of it is kept, the missing key is read and `apply` runs again.
    fn apply(&mut self, view: &mut View<'_>) -> Result<Self::Outcome, Unread>;
}

/// `apply` asked for a key that has not been read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread(pub String);

/// The values a transaction sees: what was read, overlaid by the writes of the transactions before it in the batch.
pub struct View<'a> {
    _private: std::marker::PhantomData<&'a ()>,
}

impl View<'_> {
    /// The key's value, `None` when it does not exist.
    pub fn get(&mut self, _key: &str) -> Result<Option<Bytes>, Unread> {
        unimplemented!()
    }
    /// Writes a value (absolute; the key need not have been read).
    pub fn set(&mut self, _key: impl Into<String>, _value: impl Into<Bytes>) {
        unimplemented!()
    }
    /// Removes a key.
    pub fn unlink(&mut self, _key: impl Into<String>) {
        unimplemented!()
    }
}

/// Why a transaction has no outcome.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// Bounded attempts were used up by conflicts; nothing was written.
    #[error("gave up after {attempts} conflicting attempts")]
    Conflict {
        /// How often it was tried.
        attempts: u32,
    },
    /// The store went away in the middle and stayed away: it may or may not have happened.
    #[error("the store went away, the outcome is unknown")]
    OutcomeUnknown,
    /// The store is away and this transaction was never sent: it has not happened.
    #[error("the store is away: {0}")]
    Unavailable(String),
    /// `apply` panicked; nothing of it was written.
    #[error("the transaction panicked: {0}")]
    Panicked(String),
    /// A key holds a hash, set or list: somebody else's data.
    #[error("key {0} is not a plain string")]
    WrongType(String),
    /// The queue is full: nothing was taken.
    #[error("the queue is full")]
    Full,
    /// The committer has been shut down.
    #[error("the committer has ended")]
    Closed,
}

/// Where and how to commit.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` of the Redis.
    pub address: String,
    /// Names this process in `commit:<process>:<connection>` and in turns; unique per process start.
    pub process: String,
    /// Most transactions in one EXEC.
    pub max_batch: usize,
    /// How long one reply may take before the connection counts as lost.
    pub response_timeout: Duration,
    /// How long a REST transaction may wait for a store that is away before it is answered.
    pub rest_patience: Duration,
}

/// Cheap handle to one Redis: its committer task, and reads.
#[derive(Clone)]
pub struct Store {}

/// A bounded queue of the committer, served round-robin with its siblings. Cloning shares the queue.
#[derive(Clone)]
pub struct Queue {}

impl Store {
    /// Connects (retrying with backoff until `deadline` has passed), and starts the committer task.
    pub async fn connect(_settings: Settings) -> Result<Self, CommitError> {
        unimplemented!()
    }
    /// Checks version, `maxmemory-policy noeviction`, `appendonly yes`, `appendfsync always`,
    /// `no-appendfsync-on-rewrite no`; each failure is one sentence that says what to set.
    pub async fn check(&self, _allow_unsafe_fsync: bool) -> Result<(), CheckError> {
        unimplemented!()
    }
    /// The random id of this data set, made when it is first asked for (`store:id`).
    pub async fn id(&self) -> Result<uuid::Uuid, CommitError> {
        unimplemented!()
    }
    /// A queue for one lane: its transactions are retried without limit.
    pub fn lane_queue(&self, _lane: u32) -> Queue {
        unimplemented!()
    }
    /// The queue for REST requests: bounded attempts, bounded patience.
    pub fn rest_queue(&self) -> Queue {
        unimplemented!()
    }
    /// Plain MGET on a shared connection that is never used for WATCH.
    pub async fn read(&self, _keys: &[String]) -> Result<Vec<Option<Bytes>>, CommitError> {
        unimplemented!()
    }
    /// Blind MSET chunks of about 1 000 rows on a connection of its own, a few outstanding; not atomic.
    pub async fn bulk_set<I>(&self, _rows: I) -> Result<u64, CommitError>
    where
        I: Iterator<Item = (String, Bytes)> + Send,
    {
        unimplemented!()
    }
    /// Whether the store answered lately (readiness).
    pub fn is_healthy(&self) -> bool {
        unimplemented!()
    }
    /// Finishes what was handed in, then ends the committer task.
    pub async fn shutdown(&self) {
        unimplemented!()
    }
}

impl Queue {
    /// Hands a transaction in and waits for its outcome. Dropping the future does not cancel the transaction.
    /// The transaction is in the queue when the first poll returns pending, so calls keep their order.
    pub fn run<T: Transaction>(
        &self,
        _transaction: T,
    ) -> impl Future<Output = Result<T::Outcome, CommitError>> + Send + 'static {
        std::future::ready(Err(CommitError::Closed))
    }
}

/// Settings of the Redis that are not safe, one sentence each.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] CommitError),
    /// What has to be changed.
    #[error("unsafe Redis settings: {}", .0.join("; "))]
    Unsafe(Vec<String>),
}
