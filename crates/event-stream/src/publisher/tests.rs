//! A producer that breaks for good, on a real broker.

use std::ffi::CString;

use local_servers::{Kafka, KafkaOptions};
use rdkafka::bindings::{rd_kafka_resp_err_t, rd_kafka_test_fatal_error};
use saga_core::ids::Lane;

use super::*;
use crate::topics::{TopicSpec, make_topics};

const PATIENCE: Duration = Duration::from_secs(60);

/// The client offers no safe way to meet a fatal error.
#[allow(unsafe_code, reason = "the client's own function for tests, called with a live handle and a C string")]
fn break_for_good(publisher: &Publisher) {
    let generation = publisher.shared.current();
    let reason = CString::new("planted").unwrap();
    let error = rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    // SAFETY: the handle lives as long as `generation`, and the library copies the reason.
    unsafe { rd_kafka_test_fatal_error(generation.producer().client().native_ptr(), error, reason.as_ptr()) };
}

fn record(topic: &str) -> Outgoing {
    Outgoing { topic: topic.into(), lane: Lane(0), payload: "x".into(), headers: Vec::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_producer_is_replaced_and_its_receipts_say_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::start(folder.path(), KafkaOptions::default()).unwrap();
    let settings = KafkaSettings::new(kafka.brokers(), "test");
    let spec = TopicSpec { name: "broken".into(), partitions: 1, log_append_time: true };
    make_topics(&settings, &[spec], 1, 32 << 20, 8 << 20).await.unwrap();
    let publisher = Publisher::new(&settings).unwrap();
    publisher.send(vec![record("broken")]).await.unwrap().await.unwrap();

    kafka.pause().unwrap();
    let open = publisher.send(vec![record("broken"); 10]).await.unwrap();
    let before = publisher.shared.current().number;
    break_for_good(&publisher);
    let told = tokio::time::timeout(PATIENCE, open).await.expect("a receipt never hangs");
    assert!(told.is_err());
    let end = Instant::now() + PATIENCE;
    while publisher.shared.current().number == before {
        assert!(Instant::now() < end, "in vain: a new producer");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    kafka.resume().unwrap();
    let receipt = publisher.send(vec![record("broken")]).await.unwrap();
    tokio::time::timeout(PATIENCE, receipt).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn small_batches_do_not_wait_for_company() {
    const BATCHES: u32 = 20;
    let folder = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(folder.path(), KafkaOptions::default()).unwrap();
    let settings = KafkaSettings { linger_ms: 1_000.0, ..KafkaSettings::new(kafka.brokers(), "test") };
    let spec = TopicSpec { name: "small".into(), partitions: 1, log_append_time: true };
    make_topics(&settings, &[spec], 1, 32 << 20, 8 << 20).await.unwrap();
    let publisher = Publisher::new(&settings).unwrap();
    let began = Instant::now();
    for _ in 0..BATCHES {
        publisher.send(vec![record("small")]).await.unwrap().await.unwrap();
    }
    // Each of them would take a second.
    assert!(began.elapsed() < Duration::from_secs(1) * BATCHES / 2, "{:?}", began.elapsed());
}
