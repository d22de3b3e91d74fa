//! What the committer promises while nothing breaks, on a real Redis.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use redis_txn::{CheckError, CommitError, Queue, RedisArgs, Store, Unread, View};
use support::{Add, Do, Server, connect, counter, counters, in_time, number, settings};

/// `callers` tasks that add one to a shared counter and one to their own, `times` times each.
fn add_all(queue_of: impl Fn(u32) -> Queue, callers: u32, times: u64) -> Vec<tokio::task::JoinHandle<()>> {
    let caller = |caller| {
        let queue = queue_of(caller);
        tokio::spawn(async move {
            for done in 0..times {
                let keys = vec!["all".to_owned(), format!("own:{caller}")];
                let before = queue.run(Add { keys, amount: 1 }).await.unwrap();
                assert_eq!(before[1], done);
            }
        })
    };
    (0..callers).map(caller).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_of_two_processes_are_exact() {
    let server = Server::start();
    let stores = [server.store("one").await, server.store("two").await];
    // Odd callers stand for lanes, the others for requests, and each process has both.
    let queue_of = |caller: u32| {
        let store = &stores[caller as usize / 2 % 2];
        if caller.is_multiple_of(2) { store.rest_queue() } else { store.lane_queue(caller) }
    };
    for caller in add_all(queue_of, 200, 20) {
        in_time(caller).await.unwrap();
    }
    assert_eq!(counter(&stores[0], "all").await, 4_000);
    let own: Vec<_> = (0..200).map(|caller| format!("own:{caller}")).collect();
    assert_eq!(counters(&stores[1], &own).await, [20; 200]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_committers_make_progress_on_hot_keys() {
    let server = Server::start();
    let mut stores = Vec::new();
    for process in ["one", "two", "three", "four"] {
        let mut settings = settings(&server.redis.address(), process);
        settings.rest_patience = Duration::from_secs(30);
        stores.push(connect(settings).await);
    }
    let callers: Vec<_> = (0..64_u64)
        .map(|caller| {
            let store = &stores[caller as usize % 4];
            let queue = if caller < 32 { store.rest_queue() } else { store.lane_queue(caller as u32) };
            tokio::spawn(async move {
                for round in 0..50 {
                    let hot = (caller * 7 + round * 13) % 20;
                    let keys = vec![format!("hot:{hot}"), format!("hot:{}", (hot + 1) % 20)];
                    queue.run(Add { keys, amount: 1 }).await.unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        in_time(caller).await.unwrap();
    }
    let hot: Vec<_> = (0..20).map(|key| format!("hot:{key}")).collect();
    assert_eq!(counters(&stores[0], &hot).await.iter().sum::<u64>(), 64 * 50 * 2);
}

#[derive(Debug, PartialEq, Eq)]
enum Moved {
    On,
    Fenced,
}

/// The lane's next position goes from `expected` one on, and the effect is counted; or nothing happens.
async fn move_lane(queue: Queue, expected: u64) -> Moved {
    let keys = vec!["lane:7".to_owned(), "effects".to_owned()];
    let apply = move |view: &mut View<'_>| {
        if number(view.get("lane:7")?.as_deref()) != expected {
            return Ok(Moved::Fenced);
        }
        let effects = number(view.get("effects")?.as_deref());
        view.set("lane:7", (expected + 1).to_string());
        view.set("effects", (effects + 1).to_string());
        Ok(Moved::On)
    };
    in_time(queue.run(Do(keys, apply))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_owners_of_a_lane_is_fenced() {
    let server = Server::start();
    let stores = [server.store("owner").await, server.store("zombie").await];
    for position in 0..200 {
        let both = stores.each_ref().map(|store| tokio::spawn(move_lane(store.lane_queue(7), position)));
        let mut moved = 0;
        for one in both {
            moved += u64::from(one.await.unwrap() == Moved::On);
        }
        assert_eq!(moved, 1, "position {position}");
    }
    assert_eq!(counter(&stores[0], "effects").await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_lane_falls_out_and_its_neighbours_commit() {
    let server = Server::start();
    let store = server.store("test").await;
    let neighbours = add_all(|caller| store.lane_queue(caller), 5, 1);
    assert_eq!(move_lane(store.lane_queue(7), 3).await, Moved::Fenced);
    for neighbour in neighbours {
        in_time(neighbour).await.unwrap();
    }
    assert_eq!(counters(&store, &["all".to_owned(), "effects".to_owned()]).await, [5, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_answered_alone() {
    let server = Server::start();
    let store = server.store("test").await;
    let neighbours = add_all(|_| store.rest_queue(), 20, 10);
    for _ in 0..10 {
        let apply = |view: &mut View<'_>| -> Result<(), Unread> {
            view.set("all", "999");
            std::panic::resume_unwind(Box::new("no good"))
        };
        let answer = in_time(store.lane_queue(1).run(Do(vec!["all".to_owned()], apply))).await;
        assert!(matches!(&answer, Err(CommitError::Panicked(text)) if text == "no good"), "{answer:?}");
    }
    for neighbour in neighbours {
        in_time(neighbour).await.unwrap();
    }
    assert_eq!(counter(&store, "all").await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_handed_in_happens_without_its_caller() {
    let server = Server::start();
    let store = server.store("test").await;
    for _ in 0..50 {
        let mut run = Box::pin(store.rest_queue().run(Add::one("a")));
        let polled = futures::poll!(&mut run);
        assert!(polled.is_pending());
        drop(run);
    }
    // A shutdown finishes what was handed in.
    in_time(store.shutdown()).await;
    assert_eq!(counter(&store, "a").await, 50);
    assert!(matches!(store.rest_queue().run(Add::one("a")).await, Err(CommitError::Closed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commit_key_goes_with_the_committer() {
    let server = Server::start();
    let mut foreign = server.foreign().await;
    let keys = async |connection: &mut redis::aio::MultiplexedConnection| -> Vec<String> {
        redis::cmd("KEYS").arg("commit:*").query_async(connection).await.unwrap()
    };
    let store = server.store("test").await;
    in_time(store.rest_queue().run(Add::one("a"))).await.unwrap();
    assert_eq!(keys(&mut foreign).await.len(), 1);
    in_time(store.shutdown()).await;
    assert_eq!(keys(&mut foreign).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_type_is_not_replaced() {
    let server = Server::start();
    let store = server.store("test").await;
    let mut foreign = server.foreign().await;
    for command in [["HSET", "hash", "a", "1"].as_slice(), &["RPUSH", "list", "1"], &["SADD", "set", "1"]] {
        redis::cmd(command[0]).arg(&command[1..]).exec_async(&mut foreign).await.unwrap();
    }
    let neighbours = add_all(|_| store.rest_queue(), 10, 20);
    for key in ["hash", "list", "set"] {
        let keys = vec!["other".to_owned(), key.to_owned()];
        let answer = in_time(store.lane_queue(1).run(Add { keys, amount: 1 })).await;
        assert!(matches!(&answer, Err(CommitError::WrongType(named)) if named == key), "{answer:?}");
        let read = in_time(store.read(&["other".to_owned(), key.to_owned(), "none".to_owned()])).await;
        assert!(matches!(&read, Err(CommitError::WrongType(named)) if named == key), "{read:?}");
    }
    for neighbour in neighbours {
        in_time(neighbour).await.unwrap();
    }
    let kind: String = redis::cmd("TYPE").arg("hash").query_async(&mut foreign).await.unwrap();
    assert_eq!(kind, "hash");
    assert_eq!(counters(&store, &["other".to_owned(), "all".to_owned()]).await, [0, 200]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_without_writes_needs_no_exec() {
    let server = Server::start();
    let store = server.store("test").await;
    in_time(store.rest_queue().run(Add::one("a"))).await.unwrap();
    let before = execs(&server).await;
    for _ in 0..10 {
        let apply = |view: &mut View<'_>| view.get("a");
        let value = in_time(store.rest_queue().run(Do(vec!["a".to_owned()], apply))).await.unwrap();
        assert_eq!(value.as_deref(), Some(&b"1"[..]));
    }
    assert_eq!(execs(&server).await, before);
    // The watches that were left over do not stand in the way.
    redis::cmd("SET").arg("a").arg("5").exec_async(&mut server.foreign().await).await.unwrap();
    in_time(store.rest_queue().run(Add::one("b"))).await.unwrap();
    assert_eq!(execs(&server).await, before + 1);
}

async fn execs(server: &Server) -> u64 {
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut server.foreign().await).await.unwrap();
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_exec:calls=")).unwrap();
    line.split(',').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_turn_up_late_are_read_and_watched() {
    let server = Server::start();
    let stores = [server.store("one").await, server.store("two").await];
    redis::cmd("SET").arg("pointer").arg("a").exec_async(&mut server.foreign().await).await.unwrap();
    let callers: Vec<_> = (0..40)
        .map(|caller| {
            let queue = stores[caller % 2].lane_queue(caller as u32);
            tokio::spawn(async move {
                let apply = |view: &mut View<'_>| {
                    let to = String::from_utf8(view.get("pointer")?.unwrap().to_vec()).unwrap();
                    let value = number(view.get(&to)?.as_deref());
                    view.set(to, (value + 1).to_string());
                    Ok(())
                };
                for _ in 0..10 {
                    queue.run(Do(vec!["pointer".to_owned()], apply)).await.unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        in_time(caller).await.unwrap();
    }
    assert_eq!(counter(&stores[0], "a").await, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_keeps_its_order() {
    let server = Server::start();
    let stores = [server.store("one").await, server.store("two").await];
    // The other process makes conflicts on the way.
    let stir = add_all(|_| stores[1].rest_queue(), 4, 100);
    let lane = stores[0].lane_queue(3);
    let runs: Vec<_> = (0..300_u64)
        .map(|number| {
            let keys = vec!["order".to_owned(), "all".to_owned()];
            let run = lane.run(Do(keys, move |view: &mut View<'_>| {
                let next = support::number(view.get("order")?.as_deref());
                view.set("order", (next + 1).to_string());
                Ok((number, next))
            }));
            async move { run.await.unwrap() }
        })
        .collect();
    for (number, place) in in_time(futures::future::join_all(runs)).await {
        assert_eq!(number, place);
    }
    for one in stir {
        in_time(one).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_refuses_writes_has_done_nothing() {
    let server = Server::start();
    let mut settings = settings(&server.redis.address(), "test");
    settings.rest_patience = Duration::from_millis(300);
    let store = connect(settings).await;
    let mut foreign = server.foreign().await;
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1").exec_async(&mut foreign).await.unwrap();
    let lane = tokio::spawn(store.lane_queue(1).run(Add::one("lane")));
    let answer = in_time(store.rest_queue().run(Add::one("rest"))).await;
    assert!(matches!(answer, Err(CommitError::Unavailable(_))), "{answer:?}");
    assert!(!store.is_healthy());
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("0").exec_async(&mut foreign).await.unwrap();
    in_time(lane).await.unwrap().unwrap();
    assert_eq!(counters(&store, &["rest".to_owned(), "lane".to_owned()]).await, [0, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_always_conflict_are_given_up() {
    let server = Server::start();
    let store = server.store("test").await;
    let address = server.redis.address();
    let attempts = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&attempts);
    // Somebody else writes the key between the read and EXEC, every time.
    let apply = move |view: &mut View<'_>| {
        count.fetch_add(1, Ordering::Relaxed);
        let client = redis::Client::open(format!("redis://{address}/")).unwrap();
        redis::cmd("INCR").arg("hot").exec(&mut client.get_connection().unwrap()).unwrap();
        let value = number(view.get("hot")?.as_deref());
        view.set("hot", (value + 1).to_string());
        Ok(())
    };
    let answer = in_time(store.rest_queue().run(Do(vec!["hot".to_owned()], apply))).await;
    assert!(matches!(answer, Err(CommitError::Conflict { attempts: 16 })), "{answer:?}");
    assert_eq!(counter(&store, "hot").await, attempts.load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_has_one_id() {
    let server = Server::start();
    let stores = [server.store("one").await, server.store("two").await];
    let id = stores[0].id().await.unwrap();
    assert_eq!(stores[1].id().await.unwrap(), id);
    assert_eq!(stores[0].read(&["store:id".to_owned()]).await.unwrap(), [Some(Bytes::from(id.to_string()))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_rows_are_written_at_once() {
    let server = Server::start();
    let store: Store = server.store("test").await;
    let rows = (0..25_500_u64).map(|row| (format!("row:{row}"), Bytes::from(row.to_string())));
    assert_eq!(in_time(store.bulk_set(rows)).await.unwrap(), 25_500);
    let keys: Vec<_> = (0..25_500).map(|row| format!("row:{row}")).collect();
    assert!(counters(&store, &keys).await.into_iter().eq(0..25_500));
    assert_eq!(in_time(store.bulk_set(std::iter::empty())).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_after_a_restart() {
    let mut server = Server::start();
    let store = server.store("test").await;
    in_time(store.rest_queue().run(Add::one("a"))).await.unwrap();
    assert_eq!(counter(&store, "a").await, 1);
    server.redis.kill().unwrap();
    assert!(matches!(store.read(&["a".to_owned()]).await, Err(CommitError::Unavailable(_))));
    server.redis.restart().unwrap();
    assert_eq!(counter(&store, "a").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsafe_settings_are_named() {
    let server = Server::start();
    let store = server.store("test").await;
    store.check(false).await.unwrap();
    let id = store.claim("test").await.unwrap();
    assert_eq!(store.claim("test").await.unwrap(), id);
    let Err(CheckError::Unsafe(faults)) = store.claim("other").await else { panic!("it has an owner") };
    assert!(faults[0].contains("that of test"), "{faults:?}");
    let mut foreign = server.foreign().await;
    let mut set = async |name: &str, value: &str| {
        redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec_async(&mut foreign).await.unwrap();
    };
    set("appendfsync", "everysec").await;
    let Err(CheckError::Unsafe(faults)) = store.check(false).await else { panic!("it is unsafe") };
    assert_eq!(faults.len(), 1);
    assert!(faults[0].starts_with("set appendfsync always (it is everysec)"), "{faults:?}");
    store.check(true).await.unwrap();
    set("maxmemory-policy", "allkeys-lru").await;
    set("appendonly", "no").await;
    let Err(CheckError::Unsafe(faults)) = store.check(false).await else { panic!("it is unsafe") };
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(matches!(store.check(true).await, Err(CheckError::Unsafe(faults)) if faults.len() == 1));
}

#[test]
fn settings_come_from_arguments() {
    #[derive(clap::Parser)]
    struct Service {
        #[command(flatten)]
        redis: RedisArgs,
    }
    let parse = |args: &[&str]| <Service as clap::Parser>::try_parse_from([&["service"], args].concat());
    let args = parse(&["--redis", "127.0.0.1:7000", "--allow-unsafe-fsync"]).ok().unwrap().redis;
    assert!(args.allow_unsafe_fsync);
    let settings = || args.settings("stock-svc", "0").unwrap();
    let (one, two) = (settings(), settings());
    assert_eq!((one.address.as_str(), one.max_batch), ("127.0.0.1:7000", 256));
    assert!(one.process.starts_with("stock-svc-0-") && one.process != two.process);
    assert!(parse(&["--commit-max-batch", "0"]).is_err());
    let missing = parse(&["--redis-password-file", "/nowhere/password"]).ok().unwrap().redis;
    assert!(missing.settings("stock-svc", "0").unwrap_err().to_string().contains("/nowhere/password"));
}
