use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::*;
use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use http::StatusCode;
use proptest::prelude::*;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const WAIT: Duration = Duration::from_secs(10);

fn upstreams(setting: &str) -> Arc<Upstreams> {
    Upstreams::new("stock", setting).expect("setting")
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A replica whose readiness the test sets, and that counts its requests.
async fn replica(prices: BTreeMap<String, u64>) -> (SocketAddr, Arc<AtomicBool>, Arc<AtomicU32>, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let (ready, asked, shutdown) =
        (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)), CancellationToken::new());
    let (is_ready, count) = (ready.clone(), asked.clone());
    let find = async move |Path(item): Path<String>| {
        count.fetch_add(1, Ordering::Relaxed);
        match prices.get(&item) {
            Some(price) => Ok(axum::Json(serde_json::json!({"stock": 1, "price": price}))),
            None if item == "broken" => Err(StatusCode::INTERNAL_SERVER_ERROR),
            None => Err(StatusCode::NOT_FOUND),
        }
    };
    let router = Router::new()
        .route("/stock/find/{item}", get(find))
        .merge(crate::admin::internal_ready(Arc::new(move || is_ready.load(Ordering::Relaxed))));
    tokio::spawn(crate::http::serve(listener, router, crate::http::Limits::default(), shutdown.clone()));
    (address, ready, asked, shutdown)
}

#[test]
fn settings_are_read_or_refused() {
    assert_eq!(upstreams("127.0.0.1:1, 127.0.0.1:2,").counts(), (2, 0));
    assert_eq!(upstreams("dns:stock:8000").sources, [Source::AllOf("stock:8000".into())]);
    assert_eq!(upstreams("stock-1:8000").sources, [Source::OneOf("stock-1:8000".into())]);
    for bad in ["", " , ", "stock", "stock:", "stock:x", "stock:0", "http://stock:80", "dns:", "dns:stock", "a:b:80"] {
        let error = Upstreams::new("stock", bad).expect_err(bad).to_string();
        assert!(error.contains("stock") && error.contains("host:port"), "{error}");
    }
}

#[test]
fn a_key_keeps_its_replica_when_another_one_goes() {
    let three = upstreams("10.0.0.1:80,10.0.0.2:80,10.0.0.3:80");
    let two = upstreams("10.0.0.1:80,10.0.0.3:80");
    let gone: SocketAddr = "10.0.0.2:80".parse().expect("address");
    let mut load = BTreeMap::new();
    for key in 0..3_000 {
        let key = format!("order-{key}");
        let first = three.ranked(&key)[0];
        *load.entry(first).or_insert(0) += 1;
        if first == gone {
            assert_eq!(two.ranked(&key)[0], three.ranked(&key)[1]);
        } else {
            assert_eq!(two.ranked(&key)[0], first);
        }
    }
    assert!(load.len() == 3 && load.values().all(|count| (800..1_200).contains(count)), "uneven: {load:?}");
}

proptest! {
    #[test]
    fn ranking_lists_every_replica_once_and_ready_ones_first(key in ".*", ready in proptest::collection::vec(any::<bool>(), 1..8)) {
        let setting: Vec<_> = (0..ready.len()).map(|index| format!("127.0.0.1:{}", 1_000 + index)).collect();
        let upstreams = upstreams(&setting.join(","));
        for (replica, ready) in upstreams.replicas().iter().zip(&ready) {
            replica.ready.store(*ready, Ordering::Relaxed);
        }
        for ranked in [upstreams.ranked(&key), upstreams.rotated()] {
            let is_ready = |address: &SocketAddr| ready[usize::from(address.port()) - 1_000];
            prop_assert!(ranked.iter().map(is_ready).is_sorted_by(|a, b| a >= b));
            let distinct: std::collections::BTreeSet<_> = ranked.iter().collect();
            prop_assert_eq!(distinct.len(), ready.len());
        }
        prop_assert_eq!(upstreams.ranked(&key), upstreams.ranked(&key));
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved_hides_no_other() {
    let (replica, ..) = replica(BTreeMap::new()).await;
    let upstreams = upstreams(&format!("no-such-host.invalid:80,localhost:{}", replica.port()));
    let shutdown = CancellationToken::new();
    let probe = upstreams.spawn_probe(shutdown.clone());
    eventually("the other one is known and ready", || upstreams.counts() == (1, 1)).await;
    shutdown.cancel();
    probe.await.expect("the task ends");
}

#[tokio::test]
async fn probes_follow_readiness_and_refusal() {
    let (first, ready, _, stop) = replica(BTreeMap::new()).await;
    let (second, ..) = replica(BTreeMap::new()).await;
    let upstreams = upstreams(&format!("{first},{second}"));
    let shutdown = CancellationToken::new();
    let probe = upstreams.spawn_probe(shutdown.clone());
    eventually("both ready", || upstreams.counts() == (2, 2)).await;
    ready.store(false, Ordering::Relaxed);
    eventually("the draining one left out", || upstreams.counts() == (2, 1)).await;
    assert!((0..50).all(|key| upstreams.ranked(&key.to_string())[0] == second));
    ready.store(true, Ordering::Relaxed);
    eventually("both ready again", || upstreams.counts() == (2, 2)).await;
    stop.cancel();
    eventually("the dead one left out", || upstreams.counts() == (2, 1)).await;
    upstreams.mark_refused(second);
    assert!(!upstreams.is_available());
    shutdown.cancel();
    probe.await.expect("probe ends");
}

#[tokio::test]
async fn the_gauge_follows_replicas_that_come_and_leave_the_name() {
    let (first, ..) = replica(BTreeMap::new()).await;
    let (second, ..) = replica(BTreeMap::new()).await;
    let upstreams = Upstreams::new("leaving", &format!("{first},{second}")).expect("setting");
    let shown = |ready: u32| {
        let series = format!("saga_upstream_ready{{upstream=\"leaving\"}} {ready}\n");
        telemetry::metrics::render().contains(&series)
    };
    let probe = upstreams.spawn_probe(CancellationToken::new());
    assert!(shown(0), "one that was never ready is shown too, or its absence could not be an alert");
    eventually("both ready", || upstreams.counts() == (2, 2) && shown(2)).await;
    // As a new look at the name has it, while the one that left still answers.
    upstreams.take_over([first].into());
    assert!(shown(1), "{}", telemetry::metrics::render());
    probe.abort();
}

#[tokio::test]
async fn names_are_resolved() {
    let (address, ..) = replica(BTreeMap::new()).await;
    for setting in [format!("localhost:{}", address.port()), format!("dns:localhost:{}", address.port())] {
        let upstreams = upstreams(&setting);
        upstreams.spawn_probe(CancellationToken::new());
        eventually("resolved and ready", || upstreams.is_available()).await;
        assert_eq!(upstreams.ranked("any")[0], address);
    }
}

#[derive(Debug, serde::Deserialize)]
struct Found {
    price: u64,
}

#[tokio::test]
async fn json_is_read_from_whoever_answers() {
    let (alive, _, asked, _) = replica(BTreeMap::from([("apple".to_owned(), 3)])).await;
    let (dead, _, _, stop) = replica(BTreeMap::new()).await;
    stop.cancel();
    let client = UpstreamClient::new();
    eventually("port closed", || std::net::TcpStream::connect(dead).is_err()).await;
    let upstreams = upstreams(&format!("{dead},{alive}"));
    for key in 0..20 {
        let found: Found = upstreams
            .get_json(&client, &key.to_string(), "/stock/find/{item_id}", "/stock/find/apple", WAIT)
            .await
            .expect("an answer");
        assert_eq!(found.price, 3);
    }
    let missing = upstreams
        .get_json::<Found>(&client, "k", "/stock/find/{item_id}", "/stock/find/pear", WAIT)
        .await
        .expect_err("404");
    assert!(matches!(missing, FetchError::Status { status: 404, .. }), "{missing}");
    let before = asked.load(Ordering::Relaxed);
    let timeout = Duration::from_millis(300);
    let away = upstreams
        .get_json::<Found>(&client, "k", "/stock/find/{item_id}", "/stock/find/broken", timeout)
        .await
        .expect_err("5xx");
    assert!(matches!(away, FetchError::Away { .. }), "{away}");
    assert!(asked.load(Ordering::Relaxed) > before + 1, "5xx is asked again");
}
