//! Lost replies, lost requests and late ones: every transaction happens once or is not answered with a success.

mod support;

use std::time::Duration;

use redis_txn::CommitError;
use support::proxy::{Fault, Proxy};
use support::{Add, Server, connect, counter, counters, in_time, settings, until};

/// Shorter than in service, where a slow disk must not look like a lost connection.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);

async fn through_proxy(server: &Server) -> (Proxy, redis_txn::Store) {
    let proxy = Proxy::start(server.redis.address()).await;
    let mut settings = settings(&proxy.address, "test");
    settings.response_timeout = RESPONSE_TIMEOUT;
    (proxy, connect(settings).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exec_whose_reply_is_lost_counts_once() {
    let server = Server::start();
    let (proxy, store) = through_proxy(&server).await;
    for (round, fault) in [Fault::LoseReply, Fault::LoseReplyTwice].into_iter().enumerate() {
        let before = proxy.executed();
        proxy.set(fault);
        let outcome = in_time(store.lane_queue(1).run(Add::one("a"))).await.unwrap();
        assert_eq!(outcome, [round as u64], "the outcome of the EXEC that happened");
        assert!(proxy.is_spent());
        assert_eq!(proxy.executed(), before + 1, "{fault:?}: it was not sent again");
        assert_eq!(counter(&store, "a").await, round as u64 + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exec_that_never_arrived_is_run_again() {
    let server = Server::start();
    let (proxy, store) = through_proxy(&server).await;
    proxy.set(Fault::LoseRequest);
    assert_eq!(in_time(store.rest_queue().run(Add::one("a"))).await.unwrap(), [0]);
    assert!(proxy.is_spent());
    assert_eq!(proxy.executed(), 2);
    assert_eq!(counter(&store, "a").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exec_that_arrives_late_aborts() {
    let server = Server::start();
    for fault in [Fault::HoldBack, Fault::HoldBackSilently] {
        let (proxy, store) = through_proxy(&server).await;
        let before = counter(&store, "a").await;
        proxy.set(fault);
        let running = tokio::spawn(store.lane_queue(1).run(Add::one("a")));
        // Settled by now, and not yet run again: only the settling write can stop the late one.
        proxy.wait_blocked().await;
        let reply = proxy.deliver_late().await;
        assert!(reply.ends_with(b"*-1\r\n"), "{fault:?}: {}", String::from_utf8_lossy(&reply));
        assert_eq!(in_time(running).await.unwrap().unwrap(), [before]);
        assert_eq!(counter(&store, "a").await, before + 1);
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_are_exact_when_replies_are_lost_again_and_again() {
    let server = Server::start();
    let (proxy, store) = through_proxy(&server).await;
    let callers: Vec<_> = (0..32)
        .map(|caller| {
            let queue = if caller % 2 == 0 { store.rest_queue() } else { store.lane_queue(caller) };
            tokio::spawn(async move {
                for done in 0..100 {
                    let keys = vec!["all".to_owned(), format!("own:{caller}")];
                    let before = queue.run(Add { keys, amount: 1 }).await.unwrap();
                    assert_eq!(before[1], done);
                }
            })
        })
        .collect();
    for fault in [Fault::LoseReply, Fault::LoseRequest, Fault::LoseReplyTwice, Fault::LoseReply, Fault::LoseRequest] {
        if callers.iter().all(|caller| caller.is_finished()) {
            break;
        }
        proxy.set(fault);
        until(|| proxy.is_spent() || callers.iter().all(|caller| caller.is_finished())).await;
    }
    for caller in callers {
        in_time(caller).await.unwrap();
    }
    assert_eq!(counter(&store, "all").await, 3_200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_are_exact_across_a_killed_redis() {
    let mut server = Server::start();
    let stores = [server.store("one").await, server.store("two").await];
    let callers: Vec<_> = (0..16)
        .map(|caller| {
            let queue = stores[caller % 2].lane_queue(caller as u32);
            tokio::spawn(async move {
                for done in 0..400_u64 {
                    let keys = vec!["all".to_owned(), format!("own:{caller}")];
                    let before = queue.run(Add { keys, amount: 1 }).await.unwrap();
                    assert_eq!(before[1], done, "nothing lost, nothing twice");
                }
            })
        })
        .collect();
    for share in 1..4 {
        let reader = stores[0].clone();
        in_time(async {
            while number_or_zero(&reader).await < 6_400 * share / 4 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        server.redis.kill().unwrap();
        server.redis.restart().unwrap();
    }
    for caller in callers {
        in_time(caller).await.unwrap();
    }
    assert_eq!(counter(&stores[0], "all").await, 6_400);
    until(|| stores.iter().all(redis_txn::Store::is_healthy)).await;
}

async fn number_or_zero(store: &redis_txn::Store) -> u64 {
    store.read(&["all".to_owned()]).await.map_or(0, |values| support::number(values[0].as_deref()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_lose_patience_and_lanes_do_not() {
    let mut server = Server::start();
    let mut settings = settings(&server.redis.address(), "test");
    settings.rest_patience = Duration::from_millis(300);
    let store = connect(settings).await;
    server.redis.kill().unwrap();
    until(|| !store.is_healthy()).await;
    let lane = tokio::spawn(store.lane_queue(1).run(Add::one("lane")));
    let refused = in_time(store.rest_queue().run(Add::one("rest"))).await;
    assert!(matches!(refused, Err(CommitError::Unavailable(_))), "{refused:?}");
    assert!(!lane.is_finished());
    server.redis.restart().unwrap();
    assert_eq!(in_time(lane).await.unwrap().unwrap(), [0]);
    assert_eq!(counters(&store, &["rest".to_owned(), "lane".to_owned()]).await, [0, 1]);
    until(|| store.is_healthy()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_doubt_is_answered_so_and_never_run_again() {
    let server = Server::start();
    let proxy = Proxy::start(server.redis.address()).await;
    let mut settings = settings(&proxy.address, "test");
    settings.rest_patience = Duration::from_millis(300);
    let store = connect(settings).await;
    proxy.set(Fault::HoldBackSilently);
    // The reply times out after five seconds, patience ends long before.
    let answer = in_time(store.rest_queue().run(Add::one("a"))).await;
    assert!(matches!(answer, Err(CommitError::OutcomeUnknown)), "{answer:?}");
    let lane = tokio::spawn(store.lane_queue(1).run(Add::one("b")));
    proxy.wait_blocked().await;
    assert!(proxy.deliver_late().await.ends_with(b"*-1\r\n"));
    in_time(lane).await.unwrap().unwrap();
    assert_eq!(counters(&store, &["a".to_owned(), "b".to_owned()]).await, [0, 1]);
}

/// The request in doubt has been answered, so its batch is empty when the doubt is settled: what has come meanwhile was no part
/// of that EXEC.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_while_an_exec_is_in_doubt_does_not_share_its_outcome() {
    let server = Server::start();
    let proxy = Proxy::start(server.redis.address()).await;
    let mut settings = settings(&proxy.address, "test");
    (settings.rest_patience, settings.response_timeout) = (Duration::from_millis(200), Duration::from_secs(2));
    let store = connect(settings).await;
    proxy.set(Fault::SwallowReply);
    let answer = in_time(store.rest_queue().run(Add::one("a"))).await;
    assert!(matches!(answer, Err(CommitError::OutcomeUnknown)), "{answer:?}");
    assert_eq!(in_time(store.lane_queue(1).run(Add::one("b"))).await.unwrap(), [0]);
    assert_eq!(counters(&store, &["a".to_owned(), "b".to_owned()]).await, [1, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_gone_does_not_hold_up_the_end() {
    let mut server = Server::start();
    let mut settings = settings(&server.redis.address(), "test");
    settings.rest_patience = Duration::from_millis(200);
    let store = connect(settings).await;
    server.redis.kill().unwrap();
    let lane = tokio::spawn(store.lane_queue(1).run(Add::one("a")));
    until(|| !store.is_healthy()).await;
    in_time(store.shutdown()).await;
    assert!(in_time(lane).await.unwrap().is_err());
    assert!(matches!(store.lane_queue(1).run(Add::one("a")).await, Err(CommitError::Closed)));
}
