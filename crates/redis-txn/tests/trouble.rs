//! A Redis in trouble: nothing false is answered, nothing happens twice, and what can go on by itself does.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis_txn::{CommitError, Store, View};
use support::{Add, Do, Server, connect, counter, in_time, number, settings, until};

/// Requests lose patience after this; lanes never do.
const PATIENCE: Duration = Duration::from_millis(300);

/// A store that knows its data set, with one in `a`.
async fn store(server: &Server) -> Store {
    let mut settings = settings(&server.redis.address(), "test");
    settings.rest_patience = PATIENCE;
    let store = connect(settings).await;
    store.id().await.unwrap();
    in_time(store.lane_queue(1).run(Add::one("a"))).await.unwrap();
    store
}

async fn say(connection: &mut MultiplexedConnection, words: &str) {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        command.arg(word);
    });
    command.exec_async(connection).await.unwrap();
}

/// While the trouble lasts: the store is not healthy, a request is told that nothing was done, a read gives the truth or
/// nothing, and what a lane has handed in waits.
async fn nothing_false(store: &Store, what: &str) -> tokio::task::JoinHandle<Result<Vec<u64>, CommitError>> {
    let lane = tokio::spawn(store.lane_queue(1).run(Add::one("a")));
    until(|| !store.is_healthy()).await;
    let answer = in_time(store.rest_queue().run(Add::one("a"))).await;
    assert!(matches!(answer, Err(CommitError::Unavailable(_))), "{what}: {answer:?}");
    if let Ok(values) = in_time(store.read(&["a".to_owned()])).await {
        assert_eq!(number(values[0].as_deref()), 1, "{what}");
    }
    assert!(!lane.is_finished() && !store.is_healthy(), "{what}");
    lane
}

/// Once it is over: what the lane has handed in has happened once, what the request was refused never.
async fn all_is_well(store: &Store, lane: tokio::task::JoinHandle<Result<Vec<u64>, CommitError>>, what: &str) {
    assert_eq!(in_time(lane).await.unwrap().unwrap(), [1], "{what}");
    assert_eq!(counter(store, "a").await, 2, "{what}");
    until(|| store.is_healthy()).await;
    assert_eq!(in_time(store.rest_queue().run(Add::one("a"))).await.unwrap(), [2], "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_setting_starts_a_setting_ends() {
    // What begins the trouble, and what ends it.
    let table = [
        ("it is full", "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("it is a replica", "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
        ("too few replicas to write", "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
        ("it may evict", "CONFIG SET maxmemory-policy allkeys-lru", "CONFIG SET maxmemory-policy noeviction"),
    ];
    for (what, begin, end) in table {
        let server = Server::start();
        let store = store(&server).await;
        let mut foreign = server.foreign().await;
        say(&mut foreign, begin).await;
        if what == "it may evict" {
            // Noticed by the next look at the server, not by an answer.
            until(|| !store.is_healthy()).await;
        }
        let lane = nothing_false(&store, what).await;
        say(&mut foreign, end).await;
        all_is_well(&store, lane, what).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_does_not_end_makes_everybody_wait() {
    let server = Server::start_with(&[("busy-reply-threshold", "50")]);
    let store = store(&server).await;
    let mut endless = server.foreign().await;
    let running = tokio::spawn(async move {
        let _killed = redis::cmd("EVAL").arg("while true do end").arg(0).exec_async(&mut endless).await;
    });
    let mut foreign = server.foreign().await;
    in_time(async { while redis::cmd("PING").exec_async(&mut foreign).await.is_ok() {} }).await;
    let lane = nothing_false(&store, "a script runs").await;
    say(&mut server.foreign().await, "SCRIPT KILL").await;
    all_is_well(&store, lane, "a script runs").await;
    in_time(running).await.unwrap();
}

/// The standstill is longer than what the client itself would wait, and than what services that start once had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_starts_while_it_stands_still_waits() {
    let mut server = Server::start();
    server.redis.pause().unwrap();
    let newcomer = tokio::spawn(Store::connect(settings(&server.redis.address(), "newcomer")));
    tokio::time::sleep(Duration::from_secs(32)).await;
    server.redis.resume().unwrap();
    let newcomer = in_time(newcomer).await.unwrap().expect("it has waited");
    assert_eq!(counter(&newcomer, "a").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_loads_its_data_everybody_waits() {
    // Some seconds of loading: the server looks after its connections once in 1 024 commands.
    let mut server = Server::start_with(&[("key-load-delay", "300")]);
    let store = store(&server).await;
    let mut foreign = server.foreign().await;
    for part in 0..30 {
        let mut some = redis::pipe();
        for key in 0..200 {
            some.cmd("SET").arg(format!("filler:{part}:{key}")).arg(key);
        }
        some.exec_async(&mut foreign).await.unwrap();
    }
    let address = server.redis.address();
    server.redis.kill().unwrap();
    let restarting = tokio::task::spawn_blocking(move || {
        server.redis.restart().unwrap();
        server
    });
    let lane = nothing_false(&store, "it loads").await;
    // A process that starts meanwhile waits too, from the moment on at which it is let in.
    let newcomer = connect(settings(&address, "newcomer")).await;
    in_time(newcomer.check(false)).await.unwrap();
    assert_eq!(in_time(newcomer.id()).await.unwrap(), store.id().await.unwrap());
    let server = in_time(restarting).await.unwrap();
    all_is_well(&store, lane, "it loads").await;
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lost_between_watch_and_exec_costs_one_more_attempt() {
    let server = Server::start();
    let store = store(&server).await;
    let (address, killed) = (server.redis.address(), AtomicBool::new(false));
    let apply = move |view: &mut View<'_>| {
        let value = number(view.get("a")?.as_deref());
        if !killed.swap(true, Ordering::Relaxed) {
            let client = redis::Client::open(format!("redis://{address}/")).unwrap();
            let mut other = client.get_connection().unwrap();
            redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").exec(&mut other).unwrap();
            // Somebody else may write as long as nobody watches.
            redis::cmd("SET").arg("a").arg(7).exec(&mut other).unwrap();
        }
        view.set("a", (value + 1).to_string());
        Ok(value)
    };
    let outcome = in_time(store.lane_queue(1).run(Do(vec!["a".to_owned()], apply))).await.unwrap();
    assert_eq!((outcome, counter(&store, "a").await), (7, 8), "judged by what is there, not by what was read before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_without_its_data_is_not_believed() {
    let mut server = Server::start();
    let store = store(&server).await;
    let (data, kept) = (server.data(), server.data().with_extension("kept"));
    server.redis.kill().unwrap();
    std::fs::rename(&data, &kept).unwrap();
    server.redis.restart().unwrap();
    let lane = nothing_false(&store, "it is empty").await;
    assert!(store.read(&["a".to_owned()]).await.is_err(), "\"there is none\" would be false");
    let mut foreign = server.foreign().await;
    let keys: i64 = redis::cmd("DBSIZE").query_async(&mut foreign).await.unwrap();
    assert_eq!(keys, 0, "nothing was written into it");
    server.redis.kill().unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&kept, &data).unwrap();
    server.redis.restart().unwrap();
    all_is_well(&store, lane, "its data is back").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_emptied_is_not_believed() {
    let server = Server::start();
    let store = store(&server).await;
    let id = store.id().await.unwrap().to_string();
    let mut foreign = server.foreign().await;
    // On the connections that are open.
    say(&mut foreign, "FLUSHALL").await;
    let lane = nothing_false(&store, "it was emptied").await;
    assert!(store.read(&["a".to_owned()]).await.is_err());
    // A person who knows what is in it can make it the old one again.
    say(&mut foreign, "SET a 1").await;
    say(&mut foreign, &format!("SET store:id {id}")).await;
    all_is_well(&store, lane, "it was filled").await;
}
