//! Lanes that change hands between members of a group: drain, deadline, leaving.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Applier, Store, consume, end, eventually, loaded, new_topic, produce, settings};
use event_stream::{GroupProtocol, LaneEvent, LaneFault, LaneRunner, OwnedLane, Publisher};

/// What happened to lanes, in order: (lane, who, what).
type Diary = Arc<Mutex<Vec<(u32, &'static str, &'static str)>>>;

/// Takes its time for a drain.
#[derive(Clone)]
struct Draining {
    who: &'static str,
    diary: Diary,
    drain: Duration,
}

impl LaneRunner for Draining {
    async fn run(&self, mut lane: OwnedLane) -> Result<(), LaneFault> {
        let number = lane.lane().0;
        let note = |what| self.diary.lock().unwrap().push((number, self.who, what));
        note("begins");
        let _ends = Ends(number, self.clone());
        lane.fetch_from(Some(0)).await?;
        lane.set_loaded();
        while !matches!(lane.next(None).await?, LaneEvent::Revoked) {}
        note("drains");
        // A transaction and its acknowledgements that are still on their way.
        tokio::time::sleep(self.drain).await;
        note("has drained");
        Ok(())
    }
}

/// Notes that a run is over, also when its future was dropped.
struct Ends(u32, Draining);

impl Drop for Ends {
    fn drop(&mut self) {
        self.1.diary.lock().unwrap().push((self.0, self.1.who, "ends"));
    }
}

fn count(diary: &Diary, who: &str, what: &str) -> usize {
    diary.lock().unwrap().iter().filter(|entry| entry.1 == who && entry.2 == what).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_begins_elsewhere_only_after_it_has_drained() {
    let settings = settings();
    let topic = new_topic(&settings, 10).await;
    let diary = Diary::default();
    let old = Draining { who: "old", diary: Arc::clone(&diary), drain: Duration::from_millis(400) };
    let first = consume(&settings, &topic, old.clone());
    eventually("the first has all lanes", || loaded(&first) == 10).await;
    let second = consume(&settings, &topic, Draining { who: "new", ..old });
    eventually("the second has half of them", || loaded(&second) == 5 && loaded(&first) == 5).await;
    let entries = diary.lock().unwrap().clone();
    for lane in entries.iter().filter(|entry| entry.1 == "new").map(|entry| entry.0) {
        let of_lane: Vec<_> = entries.iter().filter(|entry| entry.0 == lane).map(|entry| (entry.1, entry.2)).collect();
        let expected =
            [("old", "begins"), ("old", "drains"), ("old", "has drained"), ("old", "ends"), ("new", "begins")];
        assert_eq!(of_lane, expected, "lane {lane}");
    }
    end(second).await;
    end(first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_overruns_the_drain_deadline_is_dropped() {
    let mut settings = settings();
    settings.drain_deadline = Duration::from_millis(300);
    let topic = new_topic(&settings, 4).await;
    let diary = Diary::default();
    let old = Draining { who: "old", diary: Arc::clone(&diary), drain: Duration::from_secs(3600) };
    let first = consume(&settings, &topic, old.clone());
    eventually("the first has all lanes", || loaded(&first) == 4).await;
    let began = Instant::now();
    let second = consume(&settings, &topic, Draining { who: "new", drain: Duration::ZERO, ..old });
    eventually("the second has its lanes", || loaded(&second) == 2).await;
    assert!(began.elapsed() < settings.session_timeout * 4, "took {:?}", began.elapsed());
    assert_eq!((count(&diary, "old", "drains"), count(&diary, "old", "has drained")), (2, 0));
    eventually("the overrunning loops are dropped", || count(&diary, "old", "ends") == 2).await;
    end(second).await;
    end(first).await;
}

async fn leaves_at_once(protocol: GroupProtocol) {
    let mut settings = settings();
    settings.group_protocol = protocol;
    if protocol == GroupProtocol::Classic {
        // Long enough to show that nobody waits for it.
        settings.session_timeout = Duration::from_secs(60);
    }
    let topic = new_topic(&settings, 10).await;
    let publisher = Publisher::new(&settings).unwrap();
    let store = Arc::new(Store::default());
    let first = consume(&settings, &topic, Applier { store: Arc::clone(&store) });
    eventually("the first has all lanes", || loaded(&first) == 10).await;
    let second = consume(&settings, &topic, Applier { store: Arc::clone(&store) });
    eventually("they share", || loaded(&first) == 5 && loaded(&second) == 5).await;
    assert!(second.has_joined());
    for lane in 0..10 {
        produce(&publisher, &topic, lane, 0..10).await;
    }
    eventually("all is read", || store.total() == 100).await;
    let began = Instant::now();
    end(first).await;
    eventually("the second has all lanes", || loaded(&second) == 10).await;
    println!("{protocol:?}: taken over {:?} after the shutdown began", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(15), "took {:?}", began.elapsed());
    for lane in 0..10 {
        produce(&publisher, &topic, lane, 10..20).await;
    }
    eventually("all is read", || store.total() == 200).await;
    (0..10).for_each(|lane| store.assert_numbers(lane, 20));
    end(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_shuts_down_hands_its_lanes_over_at_once() {
    leaves_at_once(GroupProtocol::Classic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_protocol_of_kip_848_lanes_change_hands_too() {
    leaves_at_once(GroupProtocol::Consumer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_more_processes_than_lanes_the_idle_one_has_joined_too() {
    let settings = settings();
    let topic = new_topic(&settings, 1).await;
    let store = Arc::new(Store::default());
    let first = consume(&settings, &topic, Applier { store: Arc::clone(&store) });
    eventually("the first has the lane", || loaded(&first) == 1).await;
    let second = consume(&settings, &topic, Applier { store: Arc::clone(&store) });
    eventually("the second has joined", || second.has_joined()).await;
    assert_eq!(second.lanes().len() + first.lanes().len(), 1);
    end(second).await;
    end(first).await;
}

/// Waits for something else than events, and must hear of the revocation all the same.
#[derive(Clone)]
struct Busy(Arc<AtomicUsize>);

impl LaneRunner for Busy {
    async fn run(&self, lane: OwnedLane) -> Result<(), LaneFault> {
        lane.set_loaded();
        lane.revoked().await;
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_waits_for_something_else_hears_of_the_revocation() {
    let settings = settings();
    let topic = new_topic(&settings, 3).await;
    let told = Arc::new(AtomicUsize::new(0));
    let consumer = consume(&settings, &topic, Busy(Arc::clone(&told)));
    eventually("all lanes run", || loaded(&consumer) == 3).await;
    let began = Instant::now();
    end(consumer).await;
    assert_eq!(told.load(Ordering::Relaxed), 3);
    assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
}
