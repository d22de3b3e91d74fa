//! A broker that goes away and comes back, and what publishers say meanwhile.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{
    Applier, Broker, Store, consume, counter, end, eventually, loaded, new_topic, outgoing, produce, settings,
};
use event_stream::{
    Consumer, Ground, KafkaSettings, Outgoing, Publisher, StreamError, TopicSpec, TopicStorage, check_topics,
    ensure_topics, topic_id, wait_for_brokers,
};

/// Lanes of a topic that several fetchers share.
const LANES: u32 = 100;
/// A consumer looks at its topic's id every five seconds.
const TWO_LOOKS: Duration = Duration::from_secs(11);
/// Two clients try again after a tenth of a second to a second, and a look every twentieth of one: some 400. Without pauses
/// it was a hundred times as many.
const MANY_CONNECTIONS: u64 = 10_000;
/// Longer than the session between a broker of the tests and its controller.
const STOOD_STILL: Duration = Duration::from_millis(4_500);

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_comes_back_is_found_again_by_all() {
    let mut broker = tokio::task::spawn_blocking(Broker::start).await.unwrap();
    let mut settings = KafkaSettings::new(broker.kafka.brokers(), "test");
    settings.message_timeout = Duration::from_secs(3);
    let topic = new_topic(&settings, 20).await;
    let publisher = Publisher::new(&settings).unwrap();
    let store = Arc::new(Store::default());
    let consumer = consume(&settings, &topic, Applier { store: Arc::clone(&store) });
    eventually("all lanes are loaded", || loaded(&consumer) == 20).await;
    for lane in 0..20 {
        produce(&publisher, &topic, lane, 0..10).await;
    }
    eventually("the publisher is connected", || publisher.is_connected()).await;

    broker.kafka.kill().unwrap();
    let receipt = publisher.send(vec![outgoing(&topic, 0, "lost?")]).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(20), receipt).await.expect("a receipt never hangs");
    println!("receipt without a broker: {waited:?}");
    assert!(waited.is_err(), "nobody can have acknowledged it");
    eventually("the publisher knows", || !publisher.is_connected()).await;

    let mut broker = tokio::task::spawn_blocking(move || {
        broker.kafka.restart().unwrap();
        broker
    })
    .await
    .unwrap();
    let back = Instant::now();
    eventually("the publisher is connected again", || publisher.is_connected()).await;
    for lane in 0..20 {
        produce_until_acknowledged(&publisher, &topic, lane, 10..20).await;
    }
    println!("published again {:?} after the broker was back", back.elapsed());
    eventually("all is read again", || (0..20).all(|lane| store.lane(lane).texts.contains(&"19".to_owned()))).await;
    println!("read again {:?} after the broker was back", back.elapsed());
    for lane in 0..20 {
        let mut texts = store.lane(lane).texts;
        // Sent again after an unknown outcome, a batch may be there twice; nothing is missing and order holds.
        texts.dedup();
        texts.retain(|text| text != "lost?");
        let mut seen = std::collections::BTreeSet::new();
        texts.retain(|text| seen.insert(text.clone()));
        let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        assert_eq!(texts, expected, "lane {lane}");
    }
    end(consumer).await;
    broker.kafka.kill().unwrap();
}

/// The topic's id was once asked of the broker that had been the controller, whether it answers or not: see `topic_id.rs`.
/// Here no broker answers, so nobody may be asked. That it is the one that answers, of several, this test does not show.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_connected_to_with_pauses() {
    let mut broker = tokio::task::spawn_blocking(Broker::start).await.unwrap();
    let settings = KafkaSettings::new(broker.kafka.brokers(), "test");
    let topic = new_topic(&settings, 1).await;
    let ground = Ground::new(1, topic_id(&settings, &topic).await.unwrap().as_deref());
    let runner = Arc::new(Applier::default());
    let consumer = Consumer::start_on(ground, &settings, &format!("{topic}-group"), &topic, runner).unwrap();
    eventually("the lane is loaded", || loaded(&consumer) == 1).await;
    broker.kafka.kill().unwrap();
    let before = connections();
    tokio::time::sleep(TWO_LOOKS).await;
    let tried = connections() - before;
    println!("{tried} connections in {TWO_LOOKS:?}");
    assert!((1..MANY_CONNECTIONS).contains(&tried), "{tried} connections");
}

/// Connections that programs of this machine have tried to make so far.
fn connections() -> u64 {
    let text = std::fs::read_to_string("/proc/net/snmp").unwrap();
    let [names, numbers] = text.lines().filter(|line| line.starts_with("Tcp:")).collect::<Vec<_>>().try_into().unwrap();
    let opened = names.split_whitespace().zip(numbers.split_whitespace()).find(|(name, _)| *name == "ActiveOpens");
    opened.unwrap().1.parse().unwrap()
}

/// A broker that stood still for longer than its session with the controller is fenced, and says for a moment that the
/// cluster has no brokers. A client that believes it stays silent for ever: see `brokers.rs`.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stood_still_is_asked_again_by_all() {
    let mut broker = tokio::task::spawn_blocking(Broker::start).await.unwrap();
    let settings = KafkaSettings::new(broker.kafka.brokers(), "test");
    let topic = new_topic(&settings, LANES).await;
    let publisher = Publisher::new(&settings).unwrap();
    let store = Arc::new(Store::default());
    let consumer = consume(&settings, &topic, Applier { store: Arc::clone(&store) });
    eventually("all lanes are loaded", || loaded(&consumer) == LANES as usize).await;
    // Whether a client asks in that moment is chance: with ten fetchers in three rounds some do.
    for round in 1..=3 {
        broker.kafka.pause().unwrap();
        tokio::time::sleep(STOOD_STILL).await;
        broker.kafka.resume().unwrap();
        for lane in 0..LANES {
            produce_until_acknowledged(&publisher, &topic, lane, round..round + 1).await;
        }
        let last = round.to_string();
        let unread = || (0..LANES).filter(|lane| !store.lane(*lane).texts.contains(&last)).collect::<Vec<_>>();
        let end = Instant::now() + common::PATIENCE;
        while !unread().is_empty() {
            assert!(Instant::now() < end, "in vain: lanes {:?} are read again: {:#?}", unread(), consumer.lanes());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    end(consumer).await;
    broker.kafka.kill().unwrap();
}

/// The client may stay outside its group for ever after its coordinator was away: nobody relies on it to come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_its_group_does_not_take_in_is_made_anew() {
    let mut broker = tokio::task::spawn_blocking(Broker::start).await.unwrap();
    let mut settings = KafkaSettings::new(broker.kafka.brokers(), "test");
    let topic = new_topic(&settings, 4).await;
    broker.kafka.kill().unwrap();
    settings.rejoin_deadline = Duration::from_millis(100);
    let store = Arc::new(Store::default());
    let consumer = consume(&settings, &topic, Applier { store: Arc::clone(&store) });
    eventually("the member is made anew", || counter("saga_stream_member_renewals_total", &topic) >= 1).await;
    let mut broker = tokio::task::spawn_blocking(move || {
        broker.kafka.restart().unwrap();
        broker
    })
    .await
    .unwrap();
    let publisher = Publisher::new(&settings).unwrap();
    produce_until_acknowledged(&publisher, &topic, 0, 0..10).await;
    eventually("the new member works", || store.lane(0).texts.len() >= 10).await;
    end(consumer).await;
    broker.kafka.kill().unwrap();
}

async fn produce_until_acknowledged(publisher: &Publisher, topic: &str, lane: u32, numbers: std::ops::Range<u32>) {
    let end = Instant::now() + common::PATIENCE;
    loop {
        let records = numbers.clone().map(|number| outgoing(topic, lane, number.to_string())).collect();
        if publisher.send(records).await.unwrap().await.is_ok() {
            return;
        }
        assert!(Instant::now() < end, "in vain: publish");
    }
}

#[tokio::test]
async fn a_full_queue_makes_the_sender_wait_and_not_the_runtime() {
    let settings = settings();
    let topic = new_topic(&settings, 2).await;
    let publisher = Publisher::new(&settings).unwrap();
    let payload = "x".repeat(1000);
    // More than fits: 60 MB where 32 are allowed.
    let records: Vec<Outgoing> =
        (0..60_000).map(|number| outgoing(&topic, number % 2, format!("{number} {payload}"))).collect();
    let sending = publisher.send(records);
    let ticking = async {
        let (mut ticks, mut worst) = (0, Duration::ZERO);
        loop {
            let before = Instant::now();
            tokio::time::sleep(Duration::from_millis(1)).await;
            worst = worst.max(before.elapsed());
            ticks += 1;
            if ticks > 1_000_000 {
                return worst;
            }
        }
    };
    let receipt = tokio::select! {
        receipt = sending => receipt.unwrap(),
        worst = ticking => panic!("never sent, worst pause {worst:?}"),
    };
    receipt.await.unwrap();
    let store = Arc::new(Store::default());
    let consumer = consume(&settings, &topic, Applier { store: Arc::clone(&store) });
    eventually("all is read", || store.total() == 60_000).await;
    for lane in 0..2 {
        let numbers: Vec<u32> =
            store.lane(lane).texts.iter().map(|text| text.split(' ').next().unwrap().parse().unwrap()).collect();
        assert!(numbers.is_sorted(), "lane {lane} is in order");
    }
    end(consumer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_times_arrive() {
    let settings = settings();
    let topic = new_topic(&settings, 1).await;
    let publisher = Publisher::new(&settings).unwrap();
    let mut record = outgoing(&topic, 0, "x");
    record.headers = vec![("traceparent", "00-1-2-00".to_owned()), ("tracestate", String::new())];
    publisher.send(vec![record]).await.unwrap().await.unwrap();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let consumer = consume(&settings, &topic, First(sender));
    let record = receiver.recv().await.unwrap();
    assert_eq!(record.headers[0], ("traceparent".to_owned(), "00-1-2-00".into()));
    assert_eq!(record.headers[1].0, "tracestate");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    assert!((now - 60_000..now + 60_000).contains(&record.timestamp_ms), "{}", record.timestamp_ms);
    end(consumer).await;
    assert!(publisher.send(Vec::new()).await.unwrap().await.is_ok(), "nothing to wait for");
}

struct First(tokio::sync::mpsc::Sender<event_stream::Record>);

impl event_stream::LaneRunner for First {
    async fn run(&self, mut lane: event_stream::OwnedLane) -> Result<(), event_stream::LaneFault> {
        lane.fetch_from(Some(0)).await?;
        loop {
            match lane.next(None).await? {
                event_stream::LaneEvent::Records(mut records) => drop(self.0.send(records.remove(0)).await),
                event_stream::LaneEvent::Revoked => return Ok(()),
                _ => {}
            }
        }
    }
}

/// A service that starts meanwhile waits for it. Longer than one question of the client waits for its answer, which is 20 s.
#[tokio::test(flavor = "multi_thread")]
async fn topics_are_checked_once_a_broker_that_stands_still_goes_on() {
    let mut broker = tokio::task::spawn_blocking(Broker::start).await.unwrap();
    let settings = KafkaSettings::new(broker.kafka.brokers(), "test");
    let spec = TopicSpec { name: new_topic(&settings, 3).await, partitions: 3, log_append_time: true };
    broker.kafka.pause().unwrap();
    let checking = tokio::spawn(async move { check_topics(&settings, &[spec]).await });
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert!(!checking.is_finished(), "nobody has answered");
    broker.kafka.resume().unwrap();
    checking.await.unwrap().unwrap();
    broker.kafka.kill().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_are_not_as_they_must_be_are_told_in_one_go() {
    let settings = settings();
    let good = new_topic(&settings, 3).await;
    let spec = |name: &str, partitions| TopicSpec { name: name.to_owned(), partitions, log_append_time: true };
    check_topics(&settings, &[spec(&good, 3)]).await.unwrap();
    let other = TopicSpec { log_append_time: false, ..spec(&format!("{good}-plain"), 2) };
    event_stream::make_topics(&settings, std::slice::from_ref(&other), 1, 32 << 20, 8 << 20).await.unwrap();
    let wanted = [spec(&good, 4), spec("missing", 3), TopicSpec { log_append_time: true, ..other }];
    let Err(StreamError::Topics(complaints)) = check_topics(&settings, &wanted).await else { panic!("all is well?") };
    println!("{complaints:#?}");
    assert_eq!(complaints.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_a_broker_does_not_know_yet_is_waited_for() {
    let settings = settings();
    let spec = TopicSpec { name: "made-while-asked-for".to_owned(), partitions: 2, log_append_time: true };
    let make = event_stream::make_topics(&settings, std::slice::from_ref(&spec), 1, 32 << 20, 8 << 20);
    let (checked, made) = tokio::join!(check_topics(&settings, std::slice::from_ref(&spec)), make);
    made.unwrap();
    checked.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_are_not_as_they_must_be_are_told_too() {
    let settings = settings();
    let spec = TopicSpec { name: new_topic(&settings, 3).await, partitions: 3, log_append_time: true };
    let storage = TopicStorage { replication: 1, min_insync: 1, retention_bytes: 32 << 20, segment_bytes: 8 << 20 };
    ensure_topics(&settings, std::slice::from_ref(&spec), storage.clone()).await.unwrap();
    let safer = TopicStorage { replication: 3, min_insync: 2, ..storage };
    let Err(StreamError::Topics(complaints)) = ensure_topics(&settings, std::slice::from_ref(&spec), safer).await
    else {
        panic!("one broker keeps three copies?")
    };
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    assert!(complaints[0].contains("is kept on 1 brokers, not 3"), "{complaints:?}");
    assert!(complaints[1].contains("min.insync.replicas=1, not 2"), "{complaints:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_do_not_come_are_waited_for_until_the_deadline() {
    let settings = settings();
    assert_eq!(wait_for_brokers(&settings, 1, Duration::from_secs(30)).await.unwrap(), 1);
    let waited = wait_for_brokers(&settings, 2, Duration::from_millis(200)).await;
    assert!(waited.unwrap_err().to_string().contains("1 of 2 are there"));
}
