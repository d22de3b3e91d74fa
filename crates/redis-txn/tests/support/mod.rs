//! A real Redis, small transactions over counters, and a way to wait.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod proxy;

use std::future::Future;
use std::time::{Duration, Instant};

use local_servers::{Lifetime, Redis};
use redis_txn::{Settings, Store, Transaction, Unread, View};
use tempfile::TempDir;

/// Nothing here takes longer, unless it hangs.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A Redis in a folder of its own; both go when it is dropped.
pub struct Server {
    pub redis: Redis,
    folder: TempDir,
}

impl Server {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let redis = Redis::start(folder.path(), None).unwrap();
        Self { redis, folder }
    }

    /// With more lines in its configuration.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let redis = Redis::start_with(folder.path(), None, settings, Lifetime::WithParent).unwrap();
        Self { redis, folder }
    }

    /// Where its data is.
    pub fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("appendonlydir")
    }

    pub async fn store(&self, process: &str) -> Store {
        connect(settings(&self.redis.address(), process)).await
    }

    /// Commands past the committer, as somebody else would send them.
    pub async fn foreign(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(format!("redis://{}/", self.redis.address())).unwrap();
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(DEADLINE));
        client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
    }
}

pub fn settings(address: &str, process: &str) -> Settings {
    Settings {
        address: address.to_owned(),
        process: process.to_owned(),
        password: redis_txn::Password::default(),
        max_batch: 256,
        conflicts_before_turn: 2,
        response_timeout: Duration::from_secs(5),
        rest_patience: Duration::from_secs(5),
    }
}

pub async fn connect(settings: Settings) -> Store {
    in_time(Store::connect(settings)).await.unwrap()
}

/// Adds to counters and tells what they were before.
#[derive(Clone, Debug)]
pub struct Add {
    pub keys: Vec<String>,
    pub amount: u64,
}

impl Add {
    pub fn one(key: impl Into<String>) -> Self {
        Self { keys: vec![key.into()], amount: 1 }
    }
}

impl Transaction for Add {
    type Outcome = Vec<u64>;
    fn keys(&self, keys: &mut Vec<String>) {
        keys.extend_from_slice(&self.keys);
    }
    fn apply(&mut self, view: &mut View<'_>) -> Result<Vec<u64>, Unread> {
        let mut before = Vec::new();
        for key in &self.keys {
            let value = number(view.get(key)?.as_deref());
            view.set(key, (value + self.amount).to_string());
            before.push(value);
        }
        Ok(before)
    }
}

/// A transaction from a closure, for the odd ones.
pub struct Do<F>(pub Vec<String>, pub F);

impl<F, O> Transaction for Do<F>
where
    F: FnMut(&mut View<'_>) -> Result<O, Unread> + Send + 'static,
    O: Send + 'static,
{
    type Outcome = O;
    fn keys(&self, keys: &mut Vec<String>) {
        keys.extend_from_slice(&self.0);
    }
    fn apply(&mut self, view: &mut View<'_>) -> Result<O, Unread> {
        (self.1)(view)
    }
}

pub fn number(value: Option<&[u8]>) -> u64 {
    value.map_or(0, |value| std::str::from_utf8(value).unwrap().parse().unwrap())
}

/// The counters' values.
pub async fn counters(store: &Store, keys: &[String]) -> Vec<u64> {
    store.read(keys).await.unwrap().iter().map(|value| number(value.as_deref())).collect()
}

pub async fn counter(store: &Store, key: &str) -> u64 {
    counters(store, &[key.to_owned()]).await[0]
}

/// Waits for the future, but not for ever.
pub async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

/// Waits until the condition holds.
pub async fn until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "the condition never held");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
