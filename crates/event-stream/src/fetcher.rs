//! One plain consumer and the thread that alone uses it: it takes on and gives up lanes, drains what the client has
//! fetched, and hands each lane its records in one piece.
//!
//! Because the thread that polls is the one that assigns, no record of an earlier assignment can slip into a later one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};
use saga_core::ids::Lane;
use telemetry::logs::Throttle;
use telemetry::metrics;

use crate::brokers::Brokers;
use crate::error::{HaltReason, LaneFault};
use crate::fetch_client::{FetchContext, Polled, is_lost_position, lane_of, new_consumer, take};
use crate::fetching::{Accept, Fetching, Gap};
use crate::ground::Ground;
use crate::inbox::{Inbox, Item};
use crate::record::Record;
use crate::silence::Silence;
use crate::watermark;

/// The thread sleeps until the client or a lane wakes it; this bounds what a wake-up lost in the client could cost.
const SLEEP_LIMIT: Duration = Duration::from_millis(500);
/// Where the logs end is looked up this often: it is for show, in metrics.
const LOG_END_INTERVAL: Duration = Duration::from_secs(1);
/// Asked again and again while the broker is away.
static BOUNDS_UNKNOWN: Throttle = Throttle::new(Duration::from_secs(30));
/// Most records of one round, so that lanes are served while a long backlog is read.
const MAX_ROUND_RECORDS: usize = 2000;
/// Lanes that start together are taken on together: a fetch that is under way without them may wait at the broker.
const COLLECT_TIME: Duration = Duration::from_millis(5);
/// Pause between two looks for the lane whose position the log does not hold.
const RANGE_CHECK_PAUSE: Duration = Duration::from_millis(200);

/// What a lane wants from its fetcher.
pub(crate) struct Target {
    /// Which run of the loop asks; another one means to start again.
    pub(crate) epoch: u64,
    /// The first offset wanted.
    pub(crate) start: i64,
    /// Where the records go.
    pub(crate) inbox: Arc<Inbox>,
}

/// Handle to a fetching thread.
pub(crate) struct Fetcher {
    orders: Mutex<Orders>,
    changed: AtomicBool,
    thread: Mutex<Option<Thread>>,
    ended: Mutex<bool>,
    ended_changed: Condvar,
}

/// What the thread shall do: the lanes it shall serve, rather than a queue of commands, so it is bounded.
#[derive(Default)]
struct Orders {
    targets: BTreeMap<Lane, Target>,
    /// Take every lane up again where it stands: one of them has lost its fetch position.
    revive: bool,
    stop: bool,
}

impl Fetcher {
    /// Starts the thread, which makes the consumer.
    pub(crate) fn start(
        config: ClientConfig,
        topic: Arc<str>,
        number: usize,
        ground: Ground,
        silence: Silence,
        runtime: tokio::runtime::Handle,
    ) -> Arc<Self> {
        let fetcher = Arc::new(Self {
            orders: Mutex::default(),
            changed: AtomicBool::new(false),
            thread: Mutex::new(None),
            ended: Mutex::new(false),
            ended_changed: Condvar::new(),
        });
        let body = Arc::clone(&fetcher);
        let name = format!("fetch-{number}");
        let spawned = std::thread::Builder::new().name(name).spawn(move || {
            let _end = EndGuard(Arc::clone(&body));
            match new_consumer(&config) {
                Ok(consumer) => {
                    let brokers = Brokers::new(config.get("bootstrap.servers").unwrap_or_default());
                    FetchLoop::new(body, consumer, brokers, topic, ground, silence, runtime).run();
                }
                Err(error) => tracing::error!(%error, "a fetching consumer cannot be made"),
            }
        });
        match spawned {
            Ok(handle) => *fetcher.lock_thread() = Some(handle.thread().clone()),
            Err(error) => {
                tracing::error!(%error, "a fetching thread cannot be started");
                drop(EndGuard(Arc::clone(&fetcher)));
            }
        }
        fetcher
    }

    pub(crate) fn has_ended(&self) -> bool {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lanes(&self) -> usize {
        self.lock().targets.len()
    }

    pub(crate) fn set_target(&self, lane: Lane, target: Target) {
        self.lock().targets.insert(lane, target);
        self.wake();
        if self.has_ended() {
            self.fail_all();
        }
    }

    pub(crate) fn remove_target(&self, lane: Lane, epoch: u64) {
        let mut orders = self.lock();
        if orders.targets.get(&lane).is_some_and(|target| target.epoch == epoch) {
            orders.targets.remove(&lane);
            drop(orders);
            self.wake();
        }
    }

    pub(crate) fn remove_targets(&self, lanes: &[Lane]) {
        let mut orders = self.lock();
        lanes.iter().for_each(|lane| drop(orders.targets.remove(lane)));
        drop(orders);
        self.wake();
    }

    /// Has the thread look at its orders and at the lanes' inboxes.
    pub(crate) fn wake(&self) {
        self.changed.store(true, Ordering::Release);
        if let Some(thread) = self.lock_thread().as_ref() {
            thread.unpark();
        }
    }

    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.wake();
    }

    pub(crate) fn wait_until_ended(&self, deadline: Duration) {
        let ended = self.ended.lock().expect("nothing panics while it holds this flag");
        let waited = self.ended_changed.wait_timeout_while(ended, deadline, |ended| !*ended);
        if waited.is_ok_and(|(ended, _)| !*ended) {
            tracing::warn!("a fetching consumer did not end in time and is left behind");
        }
    }

    /// Has the lanes that are still here start again, elsewhere.
    fn fail_all(&self) {
        let targets = std::mem::take(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner).targets);
        for target in targets.into_values() {
            target.inbox.push(Item::Fault(LaneFault::Restart("the fetching thread has ended".into())));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().expect("no code panics while it holds a fetcher's orders")
    }

    fn lock_thread(&self) -> MutexGuard<'_, Option<Thread>> {
        self.thread.lock().expect("no code panics while it holds a thread handle")
    }
}

struct EndGuard(Arc<Fetcher>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.ended_changed.notify_all();
        self.0.fail_all();
    }
}

struct FetchLoop {
    fetcher: Arc<Fetcher>,
    consumer: BaseConsumer<FetchContext>,
    brokers: Brokers,
    topic: Arc<str>,
    ground: Ground,
    silence: Silence,
    runtime: tokio::runtime::Handle,
    lanes: BTreeMap<Lane, Fetching>,
    lost_position: bool,
    looked_at: Instant,
    checking_range: Arc<AtomicBool>,
}

impl FetchLoop {
    fn new(
        fetcher: Arc<Fetcher>,
        consumer: BaseConsumer<FetchContext>,
        brokers: Brokers,
        topic: Arc<str>,
        ground: Ground,
        silence: Silence,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        Self {
            fetcher,
            consumer,
            brokers,
            topic,
            ground,
            silence,
            runtime,
            lanes: BTreeMap::new(),
            lost_position: false,
            looked_at: Instant::now(),
            checking_range: Arc::default(),
        }
    }

    fn run(mut self) {
        loop {
            if self.fetcher.changed.swap(false, Ordering::Acquire) {
                let (stop, new_lanes) = {
                    let orders = self.fetcher.lock();
                    (orders.stop, orders.targets.keys().any(|lane| !self.lanes.contains_key(lane)))
                };
                if stop {
                    return;
                }
                if new_lanes {
                    std::thread::sleep(COLLECT_TIME);
                }
                self.follow_orders();
            }
            let records = self.drain();
            self.brokers.keep(self.consumer.client());
            if self.lost_position && !self.checking_range.swap(true, Ordering::AcqRel) {
                self.lost_position = false;
                self.check_range();
            }
            if self.looked_at.elapsed() >= LOG_END_INTERVAL {
                self.look_at_log_ends();
            }
            #[cfg(test)]
            crate::silence::tests::fall_silent_if_told(&self.consumer, self.lanes.keys().copied(), &self.topic);
            if let Some(lane) = self.silence.look(&self.lanes, &self.runtime) {
                tracing::error!(topic = %self.topic, %lane, "the log holds records that are not fetched: the consumer is made anew");
                metrics::STREAM_FETCHER_RENEWALS.add(1, &[("topic", &self.topic)]);
                // The lanes go on elsewhere at once: the client may take long to end.
                return drop(EndGuard(Arc::clone(&self.fetcher)));
            }
            if records < MAX_ROUND_RECORDS {
                std::thread::park_timeout(SLEEP_LIMIT);
            }
        }
    }

    /// How far the lanes are behind: what was fetched tells only of what has arrived here.
    fn look_at_log_ends(&mut self) {
        self.looked_at = Instant::now();
        let Some(topic) = watermark::c_name(&self.topic) else { return };
        for (lane, fetching) in &self.lanes {
            if let Some(end) = watermark::log_end(&self.consumer, &topic, *lane) {
                fetching.inbox.cell.saw_log_end(end);
            }
        }
    }

    /// Gives up and takes on lanes until they are the ones that are wanted; pauses and resumes as inboxes ask.
    fn follow_orders(&mut self) {
        let mut give_up = Vec::new();
        let mut take_on = Vec::new();
        {
            let mut orders = self.fetcher.lock();
            let revive = std::mem::take(&mut orders.revive);
            self.lanes.retain(|lane, fetching| {
                let same = orders.targets.get(lane).is_some_and(|target| target.epoch == fetching.epoch);
                if !same || revive {
                    give_up.push(*lane);
                }
                if same && revive {
                    take_on.push((*lane, fetching.next));
                    fetching.paused = false;
                }
                same
            });
            for (lane, target) in &orders.targets {
                self.lanes.entry(*lane).or_insert_with(|| {
                    take_on.push((*lane, target.start));
                    Fetching::new(target.epoch, target.start, Arc::clone(&target.inbox))
                });
            }
        }
        self.reassign(&give_up, &take_on);
        self.follow_inboxes();
    }

    fn reassign(&mut self, give_up: &[Lane], take_on: &[(Lane, i64)]) {
        if !give_up.is_empty() {
            let list = self.list(give_up.iter().map(|lane| (*lane, Offset::Invalid)));
            // The client remembers a pause beyond the assignment, and would never read the lane again.
            if let Err(error) = self.consumer.resume(&list) {
                tracing::warn!(%error, "lanes could not be resumed");
            }
            if let Err(error) = self.consumer.incremental_unassign(&list) {
                tracing::warn!(%error, "lanes could not be unassigned");
            }
        }
        if take_on.is_empty() {
            return;
        }
        let list = self.list(take_on.iter().map(|(lane, start)| (*lane, Offset::Offset(*start))));
        if let Err(error) = self.consumer.incremental_assign(&list) {
            for (lane, _) in take_on {
                if let Some(fetching) = self.lanes.get(lane) {
                    fetching.inbox.push(Item::Fault(LaneFault::Restart(format!("assign the lane: {error}"))));
                }
            }
        }
    }

    /// Pauses lanes whose loop is behind, and resumes those that have room: the others never wait for them.
    fn follow_inboxes(&mut self) {
        let mut pause = Vec::new();
        let mut resume = Vec::new();
        for (lane, fetching) in &mut self.lanes {
            let wanted = fetching.inbox.is_paused();
            if wanted != fetching.paused {
                fetching.paused = wanted;
                if wanted { &mut pause } else { &mut resume }.push((*lane, Offset::Invalid));
            }
        }
        let outcomes = [
            (!pause.is_empty()).then(|| self.consumer.pause(&self.list(pause.into_iter()))),
            (!resume.is_empty()).then(|| self.consumer.resume(&self.list(resume.into_iter()))),
        ];
        for error in outcomes.into_iter().flatten().filter_map(Result::err) {
            tracing::warn!(%error, "lanes could not be paused or resumed");
        }
    }

    /// Hands on what the client has, each lane's records in one piece, and says how many there were.
    fn drain(&mut self) -> usize {
        let mut round: BTreeMap<Lane, Vec<Record>> = BTreeMap::new();
        let mut count = 0;
        let mut gaps = Vec::new();
        while count < MAX_ROUND_RECORDS {
            let polled = match take(&self.consumer) {
                Polled::Something(polled) => polled,
                Polled::LogLine => {
                    count += 1;
                    continue;
                }
                Polled::Nothing => break,
            };
            match polled {
                Ok(message) => {
                    count += 1;
                    let Some(lane) = lane_of(message.partition()) else { continue };
                    let Some(fetching) = self.lanes.get_mut(&lane) else { continue };
                    match fetching.accept(message.offset()) {
                        Accept::Take => round.entry(lane).or_default().push(Record::read(&message)),
                        Accept::Skip => {}
                        Accept::Gap => gaps.push(lane),
                    }
                }
                Err(KafkaError::PartitionEOF(partition)) => {
                    let Some(lane) = lane_of(partition) else { continue };
                    let Some(fetching) = self.lanes.get_mut(&lane) else { continue };
                    if let Some(records) = round.remove(&lane) {
                        fetching.inbox.push(Item::Records(records));
                    }
                    if fetching.gap == Gap::Seen {
                        continue;
                    }
                    fetching.has_caught_up = true;
                    fetching.inbox.cell.saw_log_end(fetching.next);
                    fetching.inbox.push(Item::End);
                }
                Err(error) => self.lost_position |= is_lost_position(&error),
            }
        }
        let mut behind = Vec::new();
        for (lane, records) in round {
            let Some(fetching) = self.lanes.get(&lane) else { continue };
            fetching.inbox.cell.saw_log_end(fetching.next);
            fetching.inbox.push(Item::Records(records));
            if !fetching.has_caught_up {
                behind.push(lane);
            }
        }
        self.tell_first_ends(&behind);
        if count > 0 {
            self.close_gaps(&gaps);
            self.follow_inboxes();
        }
        count
    }

    /// Tells lanes that have read all that their last fetch knew of. The client does so itself only when a fetch brings
    /// nothing for a lane: never, for a lane alone in its consumer where records keep coming.
    fn tell_first_ends(&mut self, behind: &[Lane]) {
        if behind.is_empty() {
            return;
        }
        let Some(topic) = watermark::c_name(&self.topic) else { return };
        for lane in behind {
            let Some(fetching) = self.lanes.get_mut(lane) else { continue };
            let end = watermark::log_end(&self.consumer, &topic, *lane);
            if fetching.gap != Gap::Seen && end.is_some_and(|end| end <= fetching.next) {
                fetching.has_caught_up = true;
                fetching.inbox.push(Item::End);
            }
        }
    }

    /// Reads lanes again in which offsets were jumped over.
    fn close_gaps(&mut self, gaps: &[Lane]) {
        if gaps.is_empty() {
            return;
        }
        tracing::warn!(topic = %self.topic, lanes = ?gaps, "offsets were jumped over, reading again");
        let mut take_on = Vec::new();
        for lane in gaps {
            if let Some(fetching) = self.lanes.get_mut(lane) {
                fetching.read_again();
                take_on.push((*lane, fetching.next));
            }
        }
        self.reassign(gaps, &take_on);
    }

    fn list(&self, lanes: impl Iterator<Item = (Lane, Offset)>) -> TopicPartitionList {
        lanes.map(|(lane, offset)| (self.topic.to_string(), lane.0.cast_signed(), offset)).collect()
    }

    /// Finds the lane whose position the log does not hold: the client's error does not name it. By the time of the look
    /// it may lie in the log again, of a topic that was made anew: that is asked last, so that it holds for the bounds.
    fn check_range(&self) {
        let positions: BTreeMap<Lane, (u64, i64)> =
            self.lanes.iter().map(|(lane, fetching)| (*lane, (fetching.epoch, fetching.next))).collect();
        let fetcher = Arc::clone(&self.fetcher);
        let (inquiry, ground, topic) =
            (Arc::clone(&self.silence.inquiry), self.ground.clone(), Arc::clone(&self.topic));
        let checking = Arc::clone(&self.checking_range);
        self.runtime.spawn(async move {
            tokio::time::sleep(RANGE_CHECK_PAUSE).await;
            let bounds = inquiry.bounds(positions.keys().copied().collect()).await;
            let changed = ground.look(&inquiry, &topic).await;
            match bounds.and_then(|bounds| Ok((bounds, changed?))) {
                // The group member's thread halts all lanes.
                Ok((_, Some(_))) => return,
                Ok((bounds, None)) => {
                    for (lane, (low, high)) in bounds {
                        let Some((epoch, position)) = positions.get(&lane).copied() else { continue };
                        if position < low || position > high {
                            fetcher.halt(lane, epoch, HaltReason::OutOfRange { position, low, high });
                        }
                    }
                }
                Err(error) => {
                    if let Some(held_back) = BOUNDS_UNKNOWN.admit() {
                        tracing::warn!(%error, held_back, "the bounds of the log or the topic's id are not known yet");
                    }
                }
            }
            checking.store(false, Ordering::Release);
            // Whichever lane it was and why: taken up again, it goes on or tells once more.
            fetcher.lock().revive = true;
            fetcher.wake();
        });
    }
}

impl Fetcher {
    fn halt(&self, lane: Lane, epoch: u64, reason: HaltReason) {
        let mut orders = self.lock();
        if orders.targets.get(&lane).is_some_and(|target| target.epoch == epoch)
            && let Some(target) = orders.targets.remove(&lane)
        {
            drop(orders);
            target.inbox.push(Item::Fault(LaneFault::Halt(reason)));
        }
    }
}
