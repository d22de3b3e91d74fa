//! Lane loops against a real broker: reading, order, back-pressure, halts, restarts.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Applier, Store, consume, counter, end, eventually, loaded, new_topic, outgoing, produce, settings};
use event_stream::{HaltReason, Lane, LaneEvent, LaneFault, LaneRunner, OwnedLane, Publisher};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};

async fn reads_all(partitions: u32) {
    let settings = settings();
    let topic = new_topic(&settings, partitions).await;
    let publisher = Publisher::new(&settings).unwrap();
    for lane in 0..partitions {
        produce(&publisher, &topic, lane, 0..20).await;
    }
    let store = Arc::new(Store::default());
    let started = Instant::now();
    let consumer = consume(&settings, &topic, Applier { store: Arc::clone(&store) });
    eventually("all lanes are loaded", || loaded(&consumer) == partitions as usize).await;
    println!("{partitions} lanes loaded after {:?}", started.elapsed());
    eventually("all is read", || store.total() == 20 * partitions as usize).await;
    println!("{partitions} lanes read after {:?}", started.elapsed());
    eventually("all ends are told", || (0..partitions).all(|lane| store.lane(lane).ends > 0)).await;
    for lane in 0..partitions {
        produce(&publisher, &topic, lane, 20..40).await;
    }
    eventually("all is read", || store.total() == 40 * partitions as usize).await;
    eventually("ends are told again", || (0..partitions).all(|lane| store.lane(lane).ends > 1)).await;
    for lane in 0..partitions {
        store.assert_numbers(lane, 40);
        assert_eq!(store.lane(lane).runs, 1);
    }
    let late = &store.lane(0).batches;
    assert_eq!(late.last(), Some(&20), "a batch that was sent in one piece arrives in one piece");
    let status = consumer.lanes()[&Lane(0)].clone();
    assert_eq!((status.position, status.log_end, status.halted), (40, 40, None));
    end(consumer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_lanes_are_read_in_order_and_told_the_end() {
    reads_all(10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_lanes_are_read_in_order_and_told_the_end() {
    reads_all(100).await;
}

/// No fetch of this lane comes back empty, as none waits so long at the broker as it takes until the next record.
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_alone_is_told_its_end_while_records_keep_coming() {
    let settings = settings();
    let topic = new_topic(&settings, 1).await;
    let publisher = Publisher::new(&settings).unwrap();
    produce(&publisher, &topic, 0, 0..20).await;
    let store = Arc::new(Store::default());
    let consumer = consume(&settings, &topic, Applier { store: Arc::clone(&store) });
    let mut count = 20;
    while store.lane(0).ends == 0 {
        assert!(count < 1_000, "in vain: the end is told");
        produce(&publisher, &topic, 0, count..count + 1).await;
        count += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eventually("all is read", || store.total() == count as usize).await;
    store.assert_numbers(0, count);
    end(consumer).await;
}

/// Holds lane 0 back until it is let go.
struct Slow {
    applier: Applier,
    go: Arc<AtomicBool>,
}

impl LaneRunner for Slow {
    async fn run(&self, mut lane: OwnedLane) -> Result<(), LaneFault> {
        if lane.lane() != Lane(0) {
            return self.applier.run(lane).await;
        }
        lane.fetch_from(Some(0)).await?;
        lane.set_loaded();
        eventually("it is let go", || self.go.load(Ordering::Relaxed)).await;
        loop {
            match lane.next(None).await? {
                LaneEvent::Records(records) => drop(self.applier.store.apply(0, &records)?),
                LaneEvent::Revoked => return Ok(()),
                LaneEvent::End | LaneEvent::Tick => {}
            }
        }
    }
}

/// Lanes 1 to 3 read ten more records each.
async fn siblings_read(publisher: &Publisher, topic: &str, store: &Store, round: u32) {
    for lane in 1..4 {
        produce(publisher, topic, lane, round * 10..(round + 1) * 10).await;
    }
    let total = 30 * (round as usize + 1);
    eventually("the siblings have read theirs", || store.total() == total).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_lane_does_not_delay_its_siblings_and_loses_nothing() {
    let settings = settings();
    let topic = new_topic(&settings, 4).await;
    let publisher = Publisher::new(&settings).unwrap();
    let (store, go) = (Arc::new(Store::default()), Arc::new(AtomicBool::new(false)));
    let runner = Slow { applier: Applier { store: Arc::clone(&store) }, go: Arc::clone(&go) };
    let consumer = consume(&settings, &topic, runner);
    eventually("all lanes are loaded", || loaded(&consumer) == 4).await;
    produce(&publisher, &topic, 0, 0..5_000).await;
    // After the second of these the fetcher has looked at the inbox that is full.
    for round in 0..2 {
        siblings_read(&publisher, &topic, &store, round).await;
    }
    produce(&publisher, &topic, 0, 5_000..20_000).await;
    siblings_read(&publisher, &topic, &store, 2).await;
    let fetched = consumer.lanes()[&Lane(0)].log_end;
    assert!((1..=5_000).contains(&fetched), "what waits in memory is bounded: {fetched} fetched");
    go.store(true, Ordering::Relaxed);
    eventually("the slow lane has read all", || store.total() == 20_090).await;
    store.assert_numbers(0, 20_000);
    end(consumer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_position_a_lane_with_a_past_halts_and_the_others_go_on() {
    let settings = settings();
    let topic = new_topic(&settings, 4).await;
    let publisher = Publisher::new(&settings).unwrap();
    let first = Arc::new(Store::default());
    let consumer = consume(&settings, &topic, Applier { store: Arc::clone(&first) });
    eventually("all lanes are loaded", || loaded(&consumer) == 4).await;
    produce(&publisher, &topic, 1, 0..5).await;
    eventually("lane 1 is read", || first.total() == 5).await;
    end(consumer).await;
    let forgotten = Arc::new(Store::default());
    let consumer = consume(&settings, &topic, Applier { store: Arc::clone(&forgotten) });
    eventually("lane 1 halts", || consumer.lanes().get(&Lane(1)).is_some_and(|lane| lane.halted.is_some())).await;
    assert!(matches!(consumer.lanes()[&Lane(1)].halted, Some(HaltReason::MissingPosition(_))));
    for lane in [0, 2, 3] {
        produce(&publisher, &topic, lane, 0..5).await;
    }
    eventually("the others go on", || forgotten.total() == 15).await;
    assert_eq!(forgotten.lane(1).runs, 1, "a halted lane is not run again");
    end(consumer).await;
}

async fn cut_log(topic: &str, lane: u32, before: i64) {
    let config = rdkafka::ClientConfig::from_iter([("bootstrap.servers".to_owned(), settings().brokers)]);
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, lane.cast_signed(), Offset::Offset(before)).unwrap();
    admin.delete_records(&list, &AdminOptions::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_position_a_log_that_does_not_start_at_0_halts() {
    let settings = settings();
    let topic = new_topic(&settings, 2).await;
    let publisher = Publisher::new(&settings).unwrap();
    for lane in 0..2 {
        produce(&publisher, &topic, lane, 0..10).await;
    }
    cut_log(&topic, 1, 4).await;
    let store = Arc::new(Store::default());
    let consumer = consume(&settings, &topic, Applier { store: Arc::clone(&store) });
    eventually("lane 1 halts", || consumer.lanes().get(&Lane(1)).is_some_and(|lane| lane.halted.is_some())).await;
    let reason = consumer.lanes()[&Lane(1)].halted.clone();
    assert_eq!(reason, Some(HaltReason::MissingPosition("the log starts at 4".into())));
    eventually("lane 0 is read", || store.total() == 10).await;
    end(consumer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_outside_the_log_halts_its_lane_only() {
    let settings = settings();
    let topic = new_topic(&settings, 5).await;
    let publisher = Publisher::new(&settings).unwrap();
    for lane in 0..5 {
        produce(&publisher, &topic, lane, 0..10).await;
    }
    cut_log(&topic, 3, 6).await;
    let store = Arc::new(Store::default());
    store.set_next(1, 11);
    store.set_next(3, 2);
    let consumer = consume(&settings, &topic, Applier { store: Arc::clone(&store) });
    eventually("two lanes halt", || consumer.lanes().values().filter(|lane| lane.halted.is_some()).count() == 2).await;
    let lanes = consumer.lanes();
    assert_eq!(lanes[&Lane(1)].halted, Some(HaltReason::OutOfRange { position: 11, low: 0, high: 10 }));
    assert_eq!(lanes[&Lane(3)].halted, Some(HaltReason::OutOfRange { position: 2, low: 6, high: 10 }));
    for lane in [0, 2, 4] {
        produce(&publisher, &topic, lane, 10..20).await;
    }
    eventually("the others go on", || store.total() == 60).await;
    for lane in [0, 2, 4] {
        store.assert_numbers(lane, 20);
    }
    end(consumer).await;
}

/// Fails in every way, a few times each.
struct Faulty {
    applier: Applier,
    runs: AtomicUsize,
}

impl LaneRunner for Faulty {
    async fn run(&self, mut lane: OwnedLane) -> Result<(), LaneFault> {
        match self.runs.fetch_add(1, Ordering::Relaxed) {
            0 => panic!("planted"),
            1 => return Err(LaneFault::Restart("planted".into())),
            2 => return Ok(()),
            3 => {
                // Reads, but throws away: as after a fence, the next run must get the same records.
                lane.fetch_from(Some(0)).await?;
                while !matches!(lane.next(None).await?, LaneEvent::Records(_)) {}
                return Err(LaneFault::Restart("planted".into()));
            }
            _ => {}
        }
        self.applier.run(lane).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_fails_runs_again_soon_from_its_stored_position() {
    let settings = settings();
    let topic = new_topic(&settings, 1).await;
    let publisher = Publisher::new(&settings).unwrap();
    produce(&publisher, &topic, 0, 0..10).await;
    let store = Arc::new(Store::default());
    let runner = Faulty { applier: Applier { store: Arc::clone(&store) }, runs: AtomicUsize::new(0) };
    let consumer = consume(&settings, &topic, runner);
    eventually("all is read", || store.total() == 10).await;
    store.assert_numbers(0, 10);
    end(consumer).await;
}

/// Reads nothing of lane 0 until it is let go, and then begins anew.
struct Full {
    slow: Slow,
    runs: AtomicUsize,
}

impl LaneRunner for Full {
    async fn run(&self, mut lane: OwnedLane) -> Result<(), LaneFault> {
        if lane.lane() == Lane(0) && self.runs.fetch_add(1, Ordering::Relaxed) == 0 {
            lane.fetch_from(Some(0)).await?;
            lane.set_loaded();
            eventually("it is let go", || self.slow.go.load(Ordering::Relaxed)).await;
            return Err(LaneFault::Restart("planted".into()));
        }
        self.slow.run(lane).await
    }
}

/// The client remembers a pause beyond the assignment.
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_was_paused_is_read_by_its_next_loop() {
    let settings = settings();
    let topic = new_topic(&settings, 2).await;
    let publisher = Publisher::new(&settings).unwrap();
    let (store, go) = (Arc::new(Store::default()), Arc::new(AtomicBool::new(false)));
    let slow = Slow { applier: Applier { store: Arc::clone(&store) }, go: Arc::clone(&go) };
    // All of it lies in the log before the first fetch, which therefore fills the inbox by itself.
    produce(&publisher, &topic, 0, 0..20_000).await;
    let consumer = consume(&settings, &topic, Full { slow, runs: AtomicUsize::new(0) });
    eventually("both lanes are loaded", || loaded(&consumer) == 2).await;
    eventually("the inbox is full", || consumer.lanes()[&Lane(0)].log_end >= 2_000).await;
    // What the fetcher hands on to the sibling, twice, comes after it has looked at the inbox that is full.
    for number in 0..2 {
        produce(&publisher, &topic, 1, number..number + 1).await;
        eventually("the sibling has read it", || store.total() == usize::try_from(number).unwrap() + 1).await;
    }
    go.store(true, Ordering::Relaxed);
    eventually("the next loop has read all", || store.total() == 20_002).await;
    store.assert_numbers(0, 20_000);
    assert_eq!(counter("saga_stream_fetcher_renewals_total", &topic), 0, "by the consumer that had paused it");
    end(consumer).await;
}

/// Asks for a tick long ago, all the time.
#[derive(Clone, Default)]
struct Ticking {
    ticks: Arc<AtomicUsize>,
    records: Arc<AtomicUsize>,
}

impl LaneRunner for Ticking {
    async fn run(&self, mut lane: OwnedLane) -> Result<(), LaneFault> {
        lane.fetch_from(None).await?;
        loop {
            match lane.next(Some(Instant::now())).await? {
                LaneEvent::Records(records) => drop(self.records.fetch_add(records.len(), Ordering::Relaxed)),
                LaneEvent::Tick => drop(self.ticks.fetch_add(1, Ordering::Relaxed)),
                LaneEvent::End => {}
                LaneEvent::Revoked => return Ok(()),
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_ticks_nor_records_starve_the_other() {
    let settings = settings();
    let topic = new_topic(&settings, 1).await;
    let publisher = Publisher::new(&settings).unwrap();
    let ticking = Ticking::default();
    let consumer = consume(&settings, &topic, ticking.clone());
    for batch in 0..20 {
        publisher.send(vec![outgoing(&topic, 0, batch.to_string())]).await.unwrap().await.unwrap();
    }
    eventually("both come", || {
        ticking.records.load(Ordering::Relaxed) == 20 && ticking.ticks.load(Ordering::Relaxed) > 20
    })
    .await;
    end(consumer).await;
}
