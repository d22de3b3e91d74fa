//! The lanes a process owns: one supervised task each, from assignment to the end of its drain.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use saga_core::ids::Lane;
use service_kit::backoff::Backoff;
use telemetry::logs::Throttle;
use telemetry::metrics;
use tokio::task::JoinHandle;

use crate::error::LaneFault;
use crate::fetchers::Fetchers;
use crate::ground::Ground;
use crate::inquiry::Inquiry;
use crate::lane::{LaneCell, LaneStatus, OwnedLane};

/// First pause before a lane runs again: a fenced lane shall reload almost at once.
const FIRST_RESTART_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause before a lane runs again.
const MAX_RESTART_PAUSE: Duration = Duration::from_secs(5);
/// Restarts are said this often.
static RESTARTED: Throttle = Throttle::new(Duration::from_secs(10));
/// A run this long was a good one: the next pause is short again.
const GOOD_RUN: Duration = Duration::from_secs(10);
/// How long an aborted task may take to let go before the member stops waiting for it.
const ABORT_GRACE: Duration = Duration::from_millis(200);

/// The service's loop, whatever its type.
pub(crate) type Run = Arc<dyn Fn(OwnedLane) -> BoxFuture<'static, Result<(), LaneFault>> + Send + Sync>;

/// Starts, watches and ends the lane tasks.
pub(crate) struct Lanes {
    topic: Arc<str>,
    run: Run,
    fetchers: Arc<Fetchers>,
    inquiry: Arc<Inquiry>,
    ground: Ground,
    assignments: AtomicU64,
    looking: AtomicBool,
    runtime: tokio::runtime::Handle,
    table: Arc<Table>,
}

/// Which lanes have a task, and a bell for when one ends.
#[derive(Default)]
struct Table {
    state: Mutex<TableState>,
    ended: Condvar,
}

#[derive(Default)]
struct TableState {
    owned: BTreeMap<Lane, Entry>,
    /// Tasks that overran their drain deadline and have not let go yet: a lane never runs twice in a process.
    leftovers: BTreeMap<Lane, JoinHandle<()>>,
}

struct Entry {
    cell: Arc<LaneCell>,
    task: JoinHandle<()>,
    ended: bool,
}

impl Lanes {
    pub(crate) fn new(
        topic: Arc<str>,
        run: Run,
        fetchers: Arc<Fetchers>,
        inquiry: Arc<Inquiry>,
        ground: Ground,
    ) -> Self {
        let runtime = tokio::runtime::Handle::current();
        let (assignments, looking) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { topic, run, fetchers, inquiry, ground, assignments, looking, runtime, table: Arc::default() }
    }

    /// Looks, meanwhile, whether the topic is still the one that the positions belong to.
    pub(crate) fn look_at_ground(self: &Arc<Self>) {
        if self.owned().is_empty() {
            return;
        }
        let lanes = Arc::clone(self);
        self.runtime.spawn(async move {
            // A broker that is away keeps an earlier look waiting.
            if lanes.looking.swap(true, Ordering::AcqRel) {
                return;
            }
            if let Err(error) = lanes.ground.look(&lanes.inquiry, &lanes.topic).await {
                tracing::debug!(topic = %lanes.topic, %error, "the topic's id is not known");
            }
            lanes.looking.store(false, Ordering::Release);
        });
    }

    /// Halts all lanes if somebody has found that the topic is another one.
    pub(crate) fn heed_ground(&self) {
        let Some(reason) = self.ground.changed() else { return };
        self.table.lock().owned.values().for_each(|entry| entry.cell.condemn(reason.clone()));
    }

    /// Starts a task for each of these lanes.
    pub(crate) fn assign(&self, lanes: &[Lane]) {
        let assignment = self.assignments.fetch_add(1, Ordering::Relaxed) + 1;
        let mut state = self.table.lock();
        for lane in lanes {
            if state.owned.contains_key(lane) {
                tracing::error!(topic = %self.topic, %lane, "a lane was assigned that is owned already");
                continue;
            }
            let cell = Arc::new(LaneCell::new(*lane));
            let before = state.leftovers.remove(lane);
            let supervised = self.supervise(Arc::clone(&cell), assignment);
            let ended = EndBell { table: Arc::clone(&self.table), cell: Arc::clone(&cell) };
            let task = self.runtime.spawn(async move {
                let _ended = ended;
                if let Some(before) = before {
                    let _ = before.await;
                }
                supervised.await;
            });
            state.owned.insert(*lane, Entry { cell, task, ended: false });
        }
    }

    /// Takes these lanes away: tells their loops, waits until they have drained, at most until the deadline, and drops
    /// those that have not. Answers the positions that are stored. Blocks; called by the member's thread.
    pub(crate) fn revoke(&self, lanes: &[Lane], deadline: Duration) -> Vec<(Lane, i64)> {
        self.fetchers.detach(lanes);
        let mut state = self.table.lock();
        for lane in lanes {
            if let Some(entry) = state.owned.get(lane) {
                entry.cell.revoked.cancel();
            }
        }
        state = self.table.wait(state, lanes, deadline);
        let mut overran = Vec::new();
        for lane in lanes {
            if let Some(entry) = state.owned.get(lane)
                && !entry.ended
            {
                entry.task.abort();
                overran.push(*lane);
            }
        }
        if !overran.is_empty() {
            tracing::error!(topic = %self.topic, lanes = ?overran, "lanes overran the drain deadline and were dropped");
            metrics::STREAM_DRAIN_OVERRUNS.add(overran.len() as u64, &[("topic", &self.topic)]);
            state = self.table.wait(state, &overran, ABORT_GRACE);
        }
        let mut positions = Vec::new();
        for lane in lanes {
            let Some(entry) = state.owned.remove(lane) else { continue };
            positions.extend(entry.cell.stored().map(|stored| (*lane, stored)));
            if !entry.ended {
                state.leftovers.insert(*lane, entry.task);
            }
        }
        positions
    }

    pub(crate) fn owned(&self) -> Vec<Lane> {
        self.table.lock().owned.keys().copied().collect()
    }

    /// The stored positions of the lanes that have told one.
    pub(crate) fn stored(&self) -> Vec<(Lane, i64)> {
        let state = self.table.lock();
        state.owned.iter().filter_map(|(lane, entry)| Some((*lane, entry.cell.stored()?))).collect()
    }

    pub(crate) fn statuses(&self) -> BTreeMap<Lane, LaneStatus> {
        self.table.lock().owned.iter().map(|(lane, entry)| (*lane, entry.cell.status())).collect()
    }

    /// Runs the loop again and again until the lane is taken away.
    fn supervise(&self, cell: Arc<LaneCell>, assignment: u64) -> impl Future<Output = ()> + Send + 'static {
        let (run, fetchers, inquiry) = (Arc::clone(&self.run), Arc::clone(&self.fetchers), Arc::clone(&self.inquiry));
        let (topic, ground) = (Arc::clone(&self.topic), self.ground.clone());
        async move {
            tokio::select! {
                () = ground.verify(&inquiry, &topic, assignment) => {}
                () = cell.revoked.cancelled() => return,
            }
            let mut backoff = Backoff::new(FIRST_RESTART_PAUSE, MAX_RESTART_PAUSE);
            while !cell.revoked.is_cancelled() {
                let (started, before) = (Instant::now(), cell.position());
                let lane = OwnedLane::new(Arc::clone(&cell), Arc::clone(&fetchers), Arc::clone(&inquiry));
                let fault = match ground.refuses(&topic, cell.lane) {
                    None => run_once(&run, lane).await,
                    Some(reason) => Err(reason.into()),
                };
                cell.unload();
                if cell.revoked.is_cancelled() {
                    log_end_of_drain(&topic, &cell, fault);
                    return;
                }
                if let Err(LaneFault::Halt(reason)) = fault {
                    tracing::error!(%topic, lane = %cell.lane, alarm = reason.name(), %reason, "lane halted");
                    metrics::STREAM_LANE_HALTS.add(1, &[("topic", &topic), ("reason", reason.name())]);
                    cell.halt(reason);
                    return cell.revoked.cancelled().await;
                }
                if started.elapsed() >= GOOD_RUN || cell.position() > before {
                    backoff.reset();
                }
                log_restart(&topic, &cell, fault);
                let _ = tokio::time::timeout(backoff.pause(), cell.revoked.cancelled()).await;
            }
        }
    }
}

async fn run_once(run: &Run, lane: OwnedLane) -> Result<(), LaneFault> {
    let panicked = |panic: Box<dyn std::any::Any + Send>| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        tracing::error!(text, "a lane loop panicked");
        Err(LaneFault::Restart(format!("panicked: {text}")))
    };
    match std::panic::catch_unwind(AssertUnwindSafe(|| run(lane))) {
        Ok(future) => AssertUnwindSafe(future).catch_unwind().await.unwrap_or_else(panicked),
        Err(panic) => panicked(panic),
    }
}

fn log_end_of_drain(topic: &str, cell: &LaneCell, outcome: Result<(), LaneFault>) {
    if let Err(fault) = outcome {
        tracing::debug!(topic, lane = %cell.lane, %fault, "lane ended while it was taken away");
    }
}

fn log_restart(topic: &str, cell: &LaneCell, outcome: Result<(), LaneFault>) {
    metrics::STREAM_LANE_RESTARTS.add(1, &[("topic", topic)]);
    match outcome {
        Err(fault) => {
            // A store or broker that is away makes all lanes run again and again: said for one of them.
            if let Some(held_back) = RESTARTED.admit() {
                tracing::warn!(topic, lane = %cell.lane, %fault, held_back, "lane runs again");
            }
            tracing::debug!(topic, lane = %cell.lane, %fault, "lane runs again");
        }
        Ok(()) => {
            tracing::error!(topic, lane = %cell.lane, "a lane loop ended although it owns the lane, it runs again")
        }
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, TableState> {
        self.state.lock().expect("no code panics while it holds the table of lanes")
    }

    /// Waits until all these lanes' tasks have ended, or the deadline.
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, TableState>,
        lanes: &[Lane],
        deadline: Duration,
    ) -> MutexGuard<'a, TableState> {
        let running =
            |state: &mut TableState| lanes.iter().any(|lane| state.owned.get(lane).is_some_and(|entry| !entry.ended));
        let waited = self.ended.wait_timeout_while(state, deadline, running);
        waited.expect("no code panics while it holds the table of lanes").0
    }
}

/// Rings when a lane's task has ended, however it ended.
struct EndBell {
    table: Arc<Table>,
    cell: Arc<LaneCell>,
}

impl Drop for EndBell {
    fn drop(&mut self) {
        let Ok(mut state) = self.table.state.lock() else { return };
        // A task that overran its drain may end when the lane is owned anew.
        if let Some(entry) = state.owned.get_mut(&self.cell.lane)
            && Arc::ptr_eq(&entry.cell, &self.cell)
        {
            entry.ended = true;
        }
        self.table.ended.notify_all();
    }
}
