//! The group member: it decides which lanes the process owns and fetches nothing. It lives on a thread of its own, for
//! its callbacks wait until revoked lanes have drained.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use saga_core::ids::Lane;
use telemetry::logs::Throttle;
use telemetry::metrics;
use tokio_util::sync::CancellationToken;

use crate::brokers::Brokers;
use crate::client_log;
use crate::error::StreamError;
use crate::fetchers::Fetchers;
use crate::inquiry::Inquiry;
use crate::lane::LaneStatus;
use crate::lanes::Lanes;
use crate::settings::{GroupProtocol, KafkaSettings};

/// How soon the thread notices that it shall end.
const POLL_TIME: Duration = Duration::from_millis(100);
/// Offsets are committed this often, for show and for the check of missing positions, and the topic's id is looked at: the
/// client itself reads on in a topic that was made anew, if its position lies in the new one, and tells nobody.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);
/// Gauges are set this often.
const GAUGE_INTERVAL: Duration = Duration::from_secs(1);
/// Tried again with every commit while the broker is away.
static NOT_COMMITTED: Throttle = Throttle::new(Duration::from_secs(30));
/// Pause before a member that met a fatal error is made anew.
const RENEW_PAUSE: Duration = Duration::from_secs(1);
/// How long questions that are under way may keep a member from leaving.
const QUESTIONS_GRACE: Duration = Duration::from_secs(2);
/// How long fetching threads may take to end.
const FETCHERS_GRACE: Duration = Duration::from_secs(5);

/// What the member's thread, its callbacks and the [`crate::Consumer`] share.
pub(crate) struct Membership {
    pub(crate) settings: KafkaSettings,
    pub(crate) group: String,
    pub(crate) topic: Arc<str>,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) fetchers: Arc<Fetchers>,
    pub(crate) inquiry: Arc<Inquiry>,
    pub(crate) joined: AtomicBool,
    /// Since when the group owes an assignment, perhaps an empty one; `None` when it has given one.
    pub(crate) awaits_group: Mutex<Option<Instant>>,
    pub(crate) stop: AtomicBool,
    /// Positions may not have been committed although they were handed to the client.
    pub(crate) commit_failed: AtomicBool,
    pub(crate) ended: CancellationToken,
    /// Lanes whose gauges have been set.
    pub(crate) shown: Mutex<BTreeSet<Lane>>,
}

/// Makes the member; does not wait for a broker.
pub(crate) fn new_member(membership: &Arc<Membership>) -> Result<Arc<BaseConsumer<MemberContext>>, StreamError> {
    let context = MemberContext { membership: Arc::clone(membership) };
    let config = membership.settings.member(&membership.group);
    let member: BaseConsumer<MemberContext> =
        config.create_with_context(context).map_err(|error| StreamError::kafka("make the group member", error))?;
    member.subscribe(&[&membership.topic]).map_err(|error| StreamError::kafka("join the group", error))?;
    membership.set_awaits_group(Some(Instant::now()));
    let member = Arc::new(member);
    membership.inquiry.set_member(&member);
    Ok(member)
}

/// Body of the member's thread: polls until told to stop, then drains, leaves and ends the fetchers.
pub(crate) fn run(membership: &Arc<Membership>, first: Arc<BaseConsumer<MemberContext>>) {
    let mut member = Some(first);
    while !membership.stops() {
        match member.take() {
            Some(current) => {
                poll(membership, &current);
                membership.give_up_all(&current);
                leave(current);
            }
            None => {
                metrics::STREAM_MEMBER_RENEWALS.add(1, &[("topic", &membership.topic)]);
                std::thread::sleep(RENEW_PAUSE);
                match new_member(membership) {
                    Ok(new) => member = Some(new),
                    Err(error) => tracing::error!(%error, "the group member cannot be made anew"),
                }
            }
        }
    }
    if let Some(member) = member {
        leave(member);
    }
    membership.fetchers.stop(FETCHERS_GRACE);
    membership.set_gauges();
    membership.ended.cancel();
}

/// Returns when told to stop, or when the member is of no use any more.
fn poll(membership: &Membership, member: &BaseConsumer<MemberContext>) {
    let (mut last_commit, mut last_gauges) = (Instant::now(), Instant::now());
    let mut committed = BTreeMap::new();
    let brokers = Brokers::new(&membership.settings.brokers);
    while !membership.stops() {
        brokers.keep(member.client());
        membership.lanes.heed_ground();
        match member.poll(POLL_TIME) {
            None => {}
            Some(Ok(_)) => tracing::error!(topic = %membership.topic, "the group member fetched a record"),
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                tracing::error!(%error, topic = %membership.topic, "the group member is made anew");
                return;
            }
            Some(Err(error)) => tracing::debug!(%error, topic = %membership.topic, "group member"),
        }
        // The client has been seen to stay outside for ever after its coordinator was away.
        if membership.is_forgotten() {
            let waited_ms = membership.settings.rejoin_deadline.as_millis();
            tracing::error!(topic = %membership.topic, waited_ms, "the group member is not taken in, it is made anew");
            return;
        }
        if last_gauges.elapsed() >= GAUGE_INTERVAL {
            last_gauges = Instant::now();
            membership.set_gauges();
        }
        if last_commit.elapsed() >= COMMIT_INTERVAL {
            last_commit = Instant::now();
            // A lane that has fallen silent would never be committed again.
            if membership.commit_failed.swap(false, Ordering::AcqRel) {
                committed.clear();
            }
            let positions = membership.lanes.stored();
            let moved = positions.into_iter().filter(|(lane, next)| committed.insert(*lane, *next) != Some(*next));
            membership.commit(member, moved.collect());
            membership.fetchers.prune();
            membership.lanes.look_at_ground();
        }
    }
}

/// Leaves the group by dropping the consumer, which blocks until the broker knows.
fn leave(member: Arc<BaseConsumer<MemberContext>>) {
    let end = Instant::now() + QUESTIONS_GRACE;
    while Arc::strong_count(&member) > 1 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(member);
}

impl Membership {
    fn stops(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn set_awaits_group(&self, since: Option<Instant>) {
        *self.awaits_group.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Whether the group has owed an assignment for too long. Under KIP-848 a member without lanes may hear nothing.
    fn is_forgotten(&self) -> bool {
        if self.settings.group_protocol != GroupProtocol::Classic {
            return false;
        }
        let since = *self.awaits_group.lock().unwrap_or_else(PoisonError::into_inner);
        let patience = self.settings.session_timeout + self.settings.rejoin_deadline;
        since.is_some_and(|since| since.elapsed() >= patience)
    }

    fn give_up_all(&self, member: &BaseConsumer<MemberContext>) {
        let lanes = self.lanes.owned();
        let positions = self.lanes.revoke(&lanes, self.settings.drain_deadline);
        self.commit(member, positions);
    }

    fn commit(&self, member: &BaseConsumer<MemberContext>, positions: Vec<(Lane, i64)>) {
        if positions.is_empty() {
            return;
        }
        let list: TopicPartitionList = positions
            .into_iter()
            .map(|(lane, next)| (self.topic.to_string(), lane.0.cast_signed(), Offset::Offset(next)))
            .collect();
        if let Err(error) = member.commit(&list, CommitMode::Async) {
            self.commit_failed.store(true, Ordering::Release);
            log_commit(&error);
        }
    }

    fn set_gauges(&self) {
        let statuses = self.lanes.statuses();
        let count = |wanted: fn(&LaneStatus) -> bool| statuses.values().filter(|lane| wanted(lane)).count() as f64;
        let topic = ("topic", &*self.topic);
        metrics::STREAM_LANES.set(statuses.len() as f64, &[topic, ("state", "owned")]);
        metrics::STREAM_LANES.set(count(|lane| lane.loaded), &[topic, ("state", "loaded")]);
        metrics::STREAM_LANES.set(count(|lane| lane.halted.is_some()), &[topic, ("state", "halted")]);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        // A gauge keeps its last value: a lane that went to another process must not show one here.
        for lane in shown.iter().filter(|lane| !statuses.contains_key(lane)) {
            let lane = lane.to_string();
            metrics::STREAM_LANE_LAG.set(0.0, &[topic, ("lane", &lane)]);
            metrics::STREAM_LANE_HALTED.set(0.0, &[topic, ("lane", &lane)]);
        }
        let mut sum = 0;
        for (lane, status) in &statuses {
            let lag = if status.position < 0 { 0 } else { (status.log_end - status.position).max(0) };
            sum += lag;
            let lane = lane.to_string();
            metrics::STREAM_LANE_LAG.set(lag as f64, &[topic, ("lane", &lane)]);
            metrics::STREAM_LANE_HALTED.set(f64::from(u8::from(status.halted.is_some())), &[topic, ("lane", &lane)]);
        }
        metrics::STREAM_LAG_RECORDS.set(sum as f64, &[topic]);
        *shown = statuses.into_keys().collect();
    }
}

/// Hears what the group decides.
pub(crate) struct MemberContext {
    membership: Arc<Membership>,
}

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        client_log::line("member", level, facility, text);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error("member", &error, reason);
    }
}

impl ConsumerContext for MemberContext {
    fn rebalance(&self, member: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.take_on(member, list),
            _ => self.give_up(member, list),
        }
    }

    fn commit_callback(&self, outcome: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = outcome {
            self.membership.commit_failed.store(true, Ordering::Release);
            log_commit(&error);
        }
    }
}

impl MemberContext {
    fn take_on(&self, member: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let lanes = lanes_of(list);
        // An offset of some kind, so that the member does not look up where it would fetch: it never does.
        let mut paused = list.clone();
        let outcome = paused
            .set_all_offsets(Offset::Offset(0))
            .and_then(|()| member.incremental_assign(&paused))
            .and_then(|()| if lanes.is_empty() { Ok(()) } else { member.pause(&paused) });
        if let Err(error) = outcome {
            tracing::error!(%error, topic = %self.membership.topic, "the assigned lanes could not be taken on");
        }
        self.membership.joined.store(true, Ordering::Release);
        self.membership.set_awaits_group(None);
        if lanes.is_empty() {
            return;
        }
        tracing::info!(topic = %self.membership.topic, lanes = lanes.len(), "lanes assigned");
        metrics::STREAM_REBALANCES.add(1, &[("topic", &self.membership.topic), ("kind", "assigned")]);
        self.membership.lanes.assign(&lanes);
    }

    fn give_up(&self, member: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let lanes = lanes_of(list);
        let lost = member.assignment_lost();
        if lost {
            self.membership.set_awaits_group(Some(Instant::now()));
        }
        if !lanes.is_empty() {
            let kind = if lost { "lost" } else { "revoked" };
            let positions = self.membership.lanes.revoke(&lanes, self.membership.settings.drain_deadline);
            if !lost {
                self.membership.commit(member, positions);
            }
            tracing::info!(topic = %self.membership.topic, lanes = lanes.len(), kind, "lanes given up");
            metrics::STREAM_REBALANCES.add(1, &[("topic", &self.membership.topic), ("kind", kind)]);
        }
        if let Err(error) = member.incremental_unassign(list) {
            tracing::warn!(%error, "incremental unassign failed, all is unassigned");
            let _ = member.unassign();
        }
    }
}

fn lanes_of(list: &TopicPartitionList) -> Vec<Lane> {
    list.elements().iter().filter_map(|element| u32::try_from(element.partition()).ok().map(Lane)).collect()
}

fn log_commit(error: &KafkaError) {
    use RDKafkaErrorCode::{IllegalGeneration, NoOffset, RebalanceInProgress, UnknownMemberId};
    match error.rdkafka_error_code() {
        Some(NoOffset | RebalanceInProgress | IllegalGeneration | UnknownMemberId) => {
            tracing::debug!(%error, "offsets were not committed");
        }
        _ => {
            if let Some(held_back) = NOT_COMMITTED.admit() {
                tracing::warn!(%error, held_back, "offsets were not committed");
            }
        }
    }
}
