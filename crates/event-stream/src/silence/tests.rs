//! When a consumer counts as silent, and what becomes of its lanes, on a real broker.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use local_servers::{Kafka, KafkaOptions};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::*;
use crate::consumer::Consumer;
use crate::error::LaneFault;
use crate::fetch_client::FetchContext;
use crate::inbox::Inbox;
use crate::lane::{LaneCell, LaneEvent, LaneRunner, OwnedLane};
use crate::publisher::Publisher;
use crate::record::Outgoing;
use crate::settings::KafkaSettings;
use crate::topics::{TopicSpec, make_topics};

const PATIENCE: Duration = Duration::from_secs(60);
const LANES: u32 = 3;

/// Has the next fetching thread that comes by pause its lanes in the client, which says nothing.
static PLANTED: AtomicBool = AtomicBool::new(false);

pub(crate) fn fall_silent_if_told(
    consumer: &BaseConsumer<FetchContext>,
    lanes: impl Iterator<Item = Lane>,
    topic: &str,
) {
    if PLANTED.swap(false, Ordering::AcqRel) {
        let lanes: TopicPartitionList =
            lanes.map(|lane| (topic.to_owned(), lane.0.cast_signed(), Offset::Invalid)).collect();
        consumer.pause(&lanes).unwrap();
    }
}

fn lanes(places: &[(u32, i64, bool)]) -> BTreeMap<Lane, Fetching> {
    let fetching = |(lane, next, paused): &(u32, i64, bool)| {
        let inbox = Arc::new(Inbox::new(Arc::new(LaneCell::new(Lane(*lane)))));
        (Lane(*lane), Fetching { paused: *paused, ..Fetching::new(u64::from(*lane), *next, inbox) })
    };
    places.iter().map(fetching).collect()
}

fn silence_with(renewals: Renewals) -> Silence {
    Silence::new(Arc::new(Inquiry::new("silent".into())), renewals)
}

#[test]
fn a_lane_is_silent_that_stands_before_records_at_two_looks() {
    let ends = Ends::from([(Lane(1), 10), (Lane(2), 10)]);
    let behind = lanes(&[(1, 5, false)]);
    // What is there at the look before, and at this one.
    let table = [
        (lanes(&[(1, 5, false)]), behind, true),
        (lanes(&[(1, 4, false)]), lanes(&[(1, 5, false)]), false),
        (lanes(&[(1, 5, true)]), lanes(&[(1, 5, true)]), false),
        (lanes(&[(1, 5, true)]), lanes(&[(1, 5, false)]), false),
        (lanes(&[(1, 10, false)]), lanes(&[(1, 10, false)]), false),
        (lanes(&[(2, 5, false)]), lanes(&[(1, 5, false)]), false),
    ];
    for (number, (before, now, is_silent)) in table.into_iter().enumerate() {
        let renewals = Renewals::default();
        let mut silence = silence_with(renewals.clone());
        assert_eq!(silence.judge(&before, &ends), None, "one look says nothing");
        assert_eq!(silence.judge(&now, &ends).is_some(), is_silent, "case {number}");
        // The next consumer does not bring it either: nobody gains by one more.
        let mut next = silence_with(renewals);
        let again = [next.judge(&now, &ends), next.judge(&now, &ends)];
        assert!(!is_silent || again == [None, None], "case {number}");
    }
}

#[test]
fn looks_without_an_answer_say_nothing() {
    let (ends, at) = (Ends::from([(Lane(1), 10)]), lanes(&[(1, 5, false)]));
    let mut silence = silence_with(Renewals::default());
    assert_eq!(silence.judge(&at, &ends), None);
    assert_eq!(silence.judge(&at, &Ends::new()), None, "the broker is away");
    assert_eq!(silence.judge(&at, &ends), None, "it is back, and the consumer has not asked yet");
    assert_eq!(silence.judge(&at, &ends), Some(Lane(1)));
}

#[test]
fn a_lane_that_was_taken_on_anew_is_another() {
    let ends = Ends::from([(Lane(1), 10)]);
    let mut silence = silence_with(Renewals::default());
    assert_eq!(silence.judge(&lanes(&[(1, 5, false)]), &ends), None);
    let mut anew = lanes(&[(1, 5, false)]);
    anew.values_mut().for_each(|fetching| fetching.epoch += 1);
    assert_eq!(silence.judge(&anew, &ends), None);
}

/// Counts what it reads.
#[derive(Default)]
struct Counter(AtomicUsize);

impl LaneRunner for Counter {
    async fn run(&self, mut lane: OwnedLane) -> Result<(), LaneFault> {
        lane.fetch_from(Some(0)).await?;
        lane.set_loaded();
        loop {
            match lane.next(None).await? {
                LaneEvent::Records(records) => drop(self.0.fetch_add(records.len(), Ordering::Relaxed)),
                LaneEvent::Revoked => return Ok(()),
                LaneEvent::End | LaneEvent::Tick => {}
            }
        }
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_consumer_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(folder.path(), KafkaOptions::default()).unwrap();
    let settings = KafkaSettings::new(kafka.brokers(), "test");
    let spec = TopicSpec { name: "silent".into(), partitions: LANES, log_append_time: true };
    make_topics(&settings, &[spec], 1, 32 << 20, 8 << 20).await.unwrap();
    let publisher = Publisher::new(&settings).unwrap();
    let counter = Arc::new(Counter::default());
    let consumer = Consumer::start(&settings, "readers", "silent", Arc::clone(&counter)).unwrap();
    until("all lanes are loaded", || consumer.lanes().values().filter(|lane| lane.loaded).count() == LANES as usize)
        .await;
    PLANTED.store(true, Ordering::Release);
    until("the consumer is silent", || !PLANTED.load(Ordering::Acquire)).await;
    let record = |lane| Outgoing { topic: "silent".into(), lane: Lane(lane), payload: "x".into(), headers: Vec::new() };
    publisher.send((0..LANES).map(record).collect()).await.unwrap().await.unwrap();
    // Its lanes begin anew, each at 0.
    until("all is read", || counter.0.load(Ordering::Relaxed) >= LANES as usize).await;
    consumer.shutdown(PATIENCE).await;
}
