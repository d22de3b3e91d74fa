//! The set of fetching consumers of a process: which of them serves which lane.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use saga_core::ids::Lane;

use crate::fetcher::{Fetcher, Target};
use crate::ground::Ground;
use crate::inbox::Inbox;
use crate::inquiry::Inquiry;
use crate::settings::KafkaSettings;
use crate::silence::{Renewals, Silence};

/// A fetcher without lanes is kept this long: a rebalance often brings new lanes at once.
const IDLE_LIFE: Duration = Duration::from_secs(10);

/// Hands lanes out to fetchers, about ten each; makes and ends fetchers as needed.
pub(crate) struct Fetchers {
    settings: KafkaSettings,
    group: String,
    topic: Arc<str>,
    ground: Ground,
    inquiry: Arc<Inquiry>,
    runtime: tokio::runtime::Handle,
    epochs: AtomicU64,
    renewals: Renewals,
    running: Mutex<Vec<Slot>>,
}

struct Slot {
    fetcher: Arc<Fetcher>,
    empty_since: Option<Instant>,
}

/// That a fetcher serves a lane for one run of its loop.
pub(crate) struct Attachment {
    lane: Lane,
    epoch: u64,
    fetcher: Arc<Fetcher>,
}

impl Fetchers {
    pub(crate) fn new(
        settings: KafkaSettings,
        group: &str,
        topic: Arc<str>,
        ground: Ground,
        inquiry: Arc<Inquiry>,
    ) -> Self {
        Self {
            settings,
            group: group.to_owned(),
            topic,
            ground,
            inquiry,
            runtime: tokio::runtime::Handle::current(),
            epochs: AtomicU64::new(0),
            renewals: Renewals::default(),
            running: Mutex::default(),
        }
    }

    /// Has the lane fetched from `start` on into `inbox`: by the fetcher with most lanes that has room, so that the
    /// others may run empty and end.
    pub(crate) fn attach(&self, lane: Lane, start: i64, inbox: Arc<Inbox>) -> Attachment {
        let epoch = self.epochs.fetch_add(1, Ordering::Relaxed);
        let mut running = self.running.lock().expect("no code panics while it holds the fetchers");
        running.retain(|slot| !slot.fetcher.has_ended());
        let open = running
            .iter_mut()
            .map(|slot| (slot.fetcher.lanes(), slot))
            .filter(|(lanes, _)| *lanes < self.settings.lanes_per_fetcher)
            .max_by_key(|(lanes, _)| *lanes);
        let fetcher = match open {
            Some((_, slot)) => {
                slot.empty_since = None;
                Arc::clone(&slot.fetcher)
            }
            None => {
                let fetcher = self.start_fetcher(running.len());
                running.push(Slot { fetcher: Arc::clone(&fetcher), empty_since: None });
                fetcher
            }
        };
        fetcher.set_target(lane, Target { epoch, start, inbox });
        Attachment { lane, epoch, fetcher }
    }

    /// Stops fetching these lanes.
    pub(crate) fn detach(&self, lanes: &[Lane]) {
        for slot in self.running.lock().expect("no code panics while it holds the fetchers").iter() {
            slot.fetcher.remove_targets(lanes);
        }
    }

    /// Ends fetchers that have had no lane for a while.
    pub(crate) fn prune(&self) {
        let now = Instant::now();
        self.running.lock().expect("no code panics while it holds the fetchers").retain_mut(|slot| {
            if slot.fetcher.lanes() > 0 {
                slot.empty_since = None;
                return true;
            }
            let idle = now.duration_since(*slot.empty_since.get_or_insert(now)) >= IDLE_LIFE;
            if idle {
                slot.fetcher.stop();
            }
            !idle
        });
    }

    /// Ends all fetchers and waits for their threads until the deadline.
    pub(crate) fn stop(&self, deadline: Duration) {
        let slots = std::mem::take(&mut *self.running.lock().expect("no code panics while it holds the fetchers"));
        for slot in &slots {
            slot.fetcher.stop();
        }
        let end = Instant::now() + deadline;
        for slot in &slots {
            slot.fetcher.wait_until_ended(end.saturating_duration_since(Instant::now()));
        }
    }

    fn start_fetcher(&self, number: usize) -> Arc<Fetcher> {
        Fetcher::start(
            self.settings.fetcher(&self.group),
            Arc::clone(&self.topic),
            number,
            self.ground.clone(),
            Silence::new(Arc::clone(&self.inquiry), Arc::clone(&self.renewals)),
            self.runtime.clone(),
        )
    }
}

impl Attachment {
    /// The loop has room again.
    pub(crate) fn resume(&self) {
        self.fetcher.wake();
    }

    /// Stops fetching, unless the lane has been attached anew since.
    pub(crate) fn detach(&self) {
        self.fetcher.remove_target(self.lane, self.epoch);
    }
}
