//! Topics that are not the ones that the positions belong to: deleted and made anew, or grown.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Applier, Store, end, eventually, loaded, new_topic, outgoing, produce, settings};
use event_stream::{Consumer, Ground, HaltReason, Lane, Publisher, TopicSpec, topic_id};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;

fn admin() -> AdminClient<DefaultClientContext> {
    rdkafka::ClientConfig::from_iter([("bootstrap.servers".to_owned(), settings().brokers)]).create().unwrap()
}

async fn make_anew(topic: &str, partitions: u32) {
    let settings = settings();
    let before = topic_id(&settings, topic).await.unwrap().unwrap();
    admin().delete_topics(&[topic], &AdminOptions::new()).await.unwrap();
    let spec = TopicSpec { name: topic.to_owned(), partitions, log_append_time: true };
    // The broker deletes it a moment later.
    let deadline = std::time::Instant::now() + common::PATIENCE;
    loop {
        let made = event_stream::make_topics(&settings, std::slice::from_ref(&spec), 1, 32 << 20, 8 << 20).await;
        if made.is_ok() && topic_id(&settings, topic).await.is_ok_and(|id| id.is_some_and(|id| id != before)) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "not made anew: {made:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn consume_on(ground: Ground, topic: &str, store: &Arc<Store>) -> Consumer {
    let runner = Arc::new(Applier { store: Arc::clone(store) });
    Consumer::start_on(ground, &settings(), &format!("{topic}-group"), topic, runner).unwrap()
}

fn changed(consumer: &Consumer) -> usize {
    let halted = |reason: &Option<HaltReason>| matches!(reason, Some(HaltReason::TopicChanged(_)));
    consumer.lanes().values().filter(|lane| halted(&lane.halted)).count()
}

/// A producer of its own: the client of an old one may still know the topic that is gone.
async fn fill(topic: &str, partitions: u32) {
    let publisher = Publisher::new(&settings()).unwrap();
    for lane in 0..partitions {
        let records = (0..20).map(|number| outgoing(topic, lane, format!("new {number}"))).collect();
        publisher.send(records).await.unwrap().await.unwrap();
    }
}

/// Seldom the group takes the lanes away from who consumes a topic that is gone, and nobody knows when it finds the new one:
/// then another consumer takes them.
async fn taken_up_again(consumer: Consumer, ground: Ground, topic: &str, store: &Arc<Store>) -> Consumer {
    if !consumer.lanes().is_empty() {
        return consumer;
    }
    end(consumer).await;
    consume_on(ground, topic, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_anew_meanwhile_halts_its_lanes() {
    let (settings, store) = (settings(), Arc::new(Store::default()));
    let topic = new_topic(&settings, 2).await;
    let id = topic_id(&settings, &topic).await.unwrap().unwrap();
    let publisher = Publisher::new(&settings).unwrap();
    let consumer = consume_on(Ground::new(2, Some(&id)), &topic, &store);
    for lane in 0..2 {
        produce(&publisher, &topic, lane, 0..5).await;
    }
    eventually("all is read", || store.total() == 10).await;
    end(consumer).await;
    // Longer than the old one, so that the stored positions lie within it.
    make_anew(&topic, 2).await;
    fill(&topic, 2).await;
    let consumer = consume_on(Ground::new(2, Some(&id)), &topic, &store);
    eventually("both lanes halt", || changed(&consumer) == 2).await;
    let reason = consumer.lanes()[&Lane(0)].halted.clone().unwrap();
    assert!(reason.name() == "topic-changed" && reason.to_string().contains(&id), "{reason}");
    assert_eq!((store.total(), loaded(&consumer)), (10, 0), "nothing of it is taken for the old one");
    end(consumer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_anew_under_its_consumer_halts_its_lanes_and_no_others() {
    let (settings, store, other) = (settings(), Arc::new(Store::default()), Arc::new(Store::default()));
    let (topic, neighbour) = (new_topic(&settings, 2).await, new_topic(&settings, 1).await);
    let id = topic_id(&settings, &topic).await.unwrap().unwrap();
    let publisher = Publisher::new(&settings).unwrap();
    let consumer = consume_on(Ground::new(2, Some(&id)), &topic, &store);
    let neighbours = consume_on(Ground::new(1, None), &neighbour, &other);
    for lane in 0..2 {
        produce(&publisher, &topic, lane, 0..5).await;
    }
    eventually("all is read", || store.total() == 10 && loaded(&neighbours) == 1).await;
    make_anew(&topic, 2).await;
    // For this reason, although their positions are out of range too: filled by the time of that look, they are not.
    eventually("its lanes halt, or are taken away", || changed(&consumer) == consumer.lanes().len()).await;
    let consumer = taken_up_again(consumer, Ground::new(2, Some(&id)), &topic, &store).await;
    eventually("both lanes halt", || changed(&consumer) == 2).await;
    fill(&topic, 2).await;
    produce(&publisher, &neighbour, 0, 0..5).await;
    eventually("the other topic is read", || other.total() == 5).await;
    assert!(store.total() == 10, "nothing of the new one is taken for the old one: {:?}", store.lane(0).texts);
    end(consumer).await;
    end(neighbours).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_anew_and_outgrows_the_positions_at_once_halts_its_lanes_too() {
    let (settings, store) = (settings(), Arc::new(Store::default()));
    let topic = new_topic(&settings, 2).await;
    let id = topic_id(&settings, &topic).await.unwrap().unwrap();
    let publisher = Publisher::new(&settings).unwrap();
    let consumer = consume_on(Ground::new(2, Some(&id)), &topic, &store);
    for lane in 0..2 {
        produce(&publisher, &topic, lane, 0..5).await;
    }
    eventually("all is read", || store.total() == 10).await;
    make_anew(&topic, 2).await;
    fill(&topic, 2).await;
    // What lies beyond the positions may be read until the next look: the client does not tell that it is another topic.
    eventually("its lanes halt, or are taken away", || changed(&consumer) == consumer.lanes().len()).await;
    let consumer = taken_up_again(consumer, Ground::new(2, Some(&id)), &topic, &store).await;
    eventually("both lanes halt", || changed(&consumer) == 2).await;
    end(consumer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_nobody_has_planned_for_halt_and_the_others_go_on() {
    let (settings, store) = (settings(), Arc::new(Store::default()));
    let topic = new_topic(&settings, 2).await;
    let id = topic_id(&settings, &topic).await.unwrap().unwrap();
    admin().create_partitions(&[NewPartitions::new(&topic, 4)], &AdminOptions::new()).await.unwrap();
    assert_eq!(topic_id(&settings, &topic).await.unwrap().unwrap(), id, "it is the same topic");
    let publisher = Publisher::new(&settings).unwrap();
    let consumer = consume_on(Ground::new(2, Some(&id)), &topic, &store);
    eventually("the new lanes halt", || changed(&consumer) == 2).await;
    for lane in 0..2 {
        produce(&publisher, &topic, lane, 0..5).await;
    }
    eventually("the others go on", || store.total() == 10).await;
    let lanes = consumer.lanes();
    assert!(lanes[&Lane(2)].halted.is_some() && lanes[&Lane(3)].halted.is_some());
    end(consumer).await;
}
