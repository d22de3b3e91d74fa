//! A real store for the tests of this crate.

use std::time::Duration;

use local_servers::Redis;
use redis_txn::{Password, Settings, Store};
use tempfile::TempDir;

/// A Redis of its own, and a store on it; the first two live as long as they are held.
pub(crate) async fn store() -> (TempDir, Redis, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let redis = Redis::start(folder.path(), None).expect("a Redis");
    let store = Store::connect(Settings {
        address: redis.address(),
        process: "test".to_owned(),
        password: Password::default(),
        max_batch: 256,
        conflicts_before_turn: 2,
        response_timeout: Duration::from_secs(5),
        rest_patience: Duration::from_secs(5),
    });
    (folder, redis, store.await.expect("a store"))
}
