//! One lane as its loop sees it.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use saga_core::ids::Lane;
use telemetry::stages::{Stage, in_stage};
use tokio_util::sync::CancellationToken;

use crate::error::{HaltReason, LaneFault};
use crate::fetchers::{Attachment, Fetchers};
use crate::inbox::{Inbox, Item};
use crate::inquiry::Inquiry;
use crate::record::Record;

/// What a service does with each lane it owns.
pub trait LaneRunner: Send + Sync + 'static {
    /// Runs the lane until `Revoked`. On `Err` it is called again (restart) or the lane stays halted.
    fn run(&self, lane: OwnedLane) -> impl Future<Output = Result<(), LaneFault>> + Send;
}

/// What a lane loop hears.
#[derive(Debug)]
pub enum LaneEvent {
    /// Records in offset order, never empty.
    Records(Vec<Record>),
    /// The log's end has been reached: told once after [`OwnedLane::fetch_from`], and whenever a fetch brings nothing.
    End,
    /// The time given to `next` has come.
    Tick,
    /// The lane is taken away: drain and return `Ok`. Told once; the drain deadline runs.
    Revoked,
}

/// What is known of one owned lane.
#[derive(Clone, Debug)]
pub struct LaneStatus {
    /// True once the loop has called `set_loaded`.
    pub loaded: bool,
    /// Where the loop stands (next offset); -1 before it has told.
    pub position: i64,
    /// End of the log, as far as fetches have told; -1 before they have.
    pub log_end: i64,
    /// Why the lane is halted, if it is.
    pub halted: Option<HaltReason>,
}

/// One lane for as long as this process owns it; given to [`LaneRunner::run`].
pub struct OwnedLane {
    cell: Arc<LaneCell>,
    fetchers: Arc<Fetchers>,
    inquiry: Arc<Inquiry>,
    stream: Option<(Arc<Inbox>, Attachment)>,
    told_revoked: bool,
    told_tick: bool,
}

/// What one ownership of a lane shares between its loop, its fetcher and the group member.
pub(crate) struct LaneCell {
    pub(crate) lane: Lane,
    pub(crate) revoked: CancellationToken,
    loaded: AtomicBool,
    position: AtomicI64,
    stored: AtomicI64,
    log_end: AtomicI64,
    /// The first position at which the loop called itself loaded.
    loaded_at: AtomicI64,
    halted: Mutex<Option<HaltReason>>,
    /// Set once: the loop is to end with this.
    condemned: OnceLock<HaltReason>,
    condemnation: CancellationToken,
}

/// Neither told nor known yet.
const UNKNOWN_OFFSET: i64 = -1;

impl OwnedLane {
    pub(crate) fn new(cell: Arc<LaneCell>, fetchers: Arc<Fetchers>, inquiry: Arc<Inquiry>) -> Self {
        Self { cell, fetchers, inquiry, stream: None, told_revoked: false, told_tick: false }
    }

    /// Which lane.
    pub fn lane(&self) -> Lane {
        self.cell.lane
    }

    /// Starts fetching at `next`. `None`: no position is stored; then the log must start at 0 and the group must
    /// have committed nothing, else the lane halts. Answers where fetching starts.
    pub async fn fetch_from(&mut self, next: Option<i64>) -> Result<i64, LaneFault> {
        let start = match next {
            Some(next) => next,
            None => tokio::select! {
                () = self.cell.revoked.cancelled() => return Err(LaneFault::Restart("revoked before it began".into())),
                start = self.inquiry.start_of_new_lane(self.cell.lane) => start?,
            },
        };
        self.stop_fetching();
        let inbox = Arc::new(Inbox::new(Arc::clone(&self.cell)));
        let attachment = self.fetchers.attach(self.cell.lane, start, Arc::clone(&inbox));
        self.stream = Some((inbox, attachment));
        Ok(start)
    }

    /// The next event, in order; `Tick` when `until` passes first. Cancel-safe. An `Err` is a fault of the stream
    /// (position out of range …) that the loop returns from `run`.
    ///
    /// When `until` has passed already, `Tick` comes before records, but never twice in a row before them: neither
    /// can starve the other.
    pub async fn next(&mut self, until: Option<Instant>) -> Result<LaneEvent, LaneFault> {
        in_stage(Stage::Consume, pin!(self.next_event(until))).await
    }

    async fn next_event(&mut self, until: Option<Instant>) -> Result<LaneEvent, LaneFault> {
        loop {
            if self.cell.revoked.is_cancelled() && !self.told_revoked {
                self.told_revoked = true;
                self.stop_fetching();
                return Ok(LaneEvent::Revoked);
            }
            if let Some(reason) = self.cell.condemned.get().cloned() {
                self.stop_fetching();
                return Err(reason.into());
            }
            if !self.told_tick && until.is_some_and(|until| until <= Instant::now()) {
                self.told_tick = true;
                return Ok(LaneEvent::Tick);
            }
            if let Some(event) = self.take()? {
                self.told_tick = false;
                return Ok(event);
            }
            self.told_tick = false;
            self.wait(until).await;
        }
    }

    /// Resolves when the lane is being taken away (for loops that wait for something else than `next`).
    pub async fn revoked(&self) {
        self.cell.revoked.cancelled().await;
    }

    /// Tells where the loop stands, for the lag. A loop that stores at once what it has done calls only
    /// [`Self::set_stored`].
    pub fn set_position(&self, next: i64) {
        self.cell.position.store(next, Ordering::Relaxed);
    }

    /// Tells the position that the store holds, which is where the loop stands too, or before that. The group is told
    /// this one and none further on: a later run without a stored position takes it as proof that the store was lost.
    pub fn set_stored(&self, next: i64) {
        self.cell.stored.store(next, Ordering::Relaxed);
    }

    /// Marks the lane as loaded: it does its work from now on.
    pub fn set_loaded(&self) {
        self.cell.loaded.store(true, Ordering::Relaxed);
        let position = self.cell.position.load(Ordering::Relaxed);
        let _ = self.cell.loaded_at.compare_exchange(UNKNOWN_OFFSET, position, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether the record was appended since the loop was first loaded in this ownership: no earlier owner has read it,
    /// unless it does not know yet that it has lost the lane.
    pub fn is_ours_alone(&self, offset: i64) -> bool {
        let loaded_at = self.cell.loaded_at.load(Ordering::Relaxed);
        loaded_at != UNKNOWN_OFFSET && offset >= loaded_at
    }

    fn take(&mut self) -> Result<Option<LaneEvent>, LaneFault> {
        let Some((inbox, attachment)) = &self.stream else { return Ok(None) };
        let Some(popped) = inbox.pop() else { return Ok(None) };
        if popped.resume {
            attachment.resume();
        }
        match popped.item {
            Item::Records(records) => Ok(Some(LaneEvent::Records(records))),
            Item::End => Ok(Some(LaneEvent::End)),
            Item::Fault(fault) => Err(fault),
        }
    }

    async fn wait(&self, until: Option<Instant>) {
        let pushed = async {
            match &self.stream {
                Some((inbox, _)) => inbox.ready().await,
                None => std::future::pending().await,
            }
        };
        let due = async {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.cell.revoked.cancelled(), if !self.told_revoked => {}
            () = self.cell.condemnation.cancelled() => {}
            () = pushed => {}
            () = due => {}
        }
    }

    fn stop_fetching(&mut self) {
        if let Some((_, attachment)) = self.stream.take() {
            attachment.detach();
        }
    }
}

impl Drop for OwnedLane {
    fn drop(&mut self) {
        self.stop_fetching();
    }
}

impl LaneCell {
    pub(crate) fn new(lane: Lane) -> Self {
        Self {
            lane,
            revoked: CancellationToken::new(),
            loaded: AtomicBool::new(false),
            position: AtomicI64::new(UNKNOWN_OFFSET),
            stored: AtomicI64::new(UNKNOWN_OFFSET),
            log_end: AtomicI64::new(UNKNOWN_OFFSET),
            loaded_at: AtomicI64::new(UNKNOWN_OFFSET),
            halted: Mutex::new(None),
            condemned: OnceLock::new(),
            condemnation: CancellationToken::new(),
        }
    }

    /// The next offset of the loop, once it has told one.
    pub(crate) fn position(&self) -> Option<i64> {
        let position = self.position.load(Ordering::Relaxed).max(self.stored.load(Ordering::Relaxed));
        Some(position).filter(|position| *position >= 0)
    }

    /// The position that the store holds, once the loop has told one.
    pub(crate) fn stored(&self) -> Option<i64> {
        Some(self.stored.load(Ordering::Relaxed)).filter(|stored| *stored >= 0)
    }

    pub(crate) fn saw_log_end(&self, end: i64) {
        self.log_end.fetch_max(end, Ordering::Relaxed);
    }

    pub(crate) fn unload(&self) {
        self.loaded.store(false, Ordering::Relaxed);
    }

    /// Has the loop end, wherever it is the next time that it asks for records.
    pub(crate) fn condemn(&self, reason: HaltReason) {
        // The first reason stays.
        let _ = self.condemned.set(reason);
        self.condemnation.cancel();
    }

    pub(crate) fn halt(&self, reason: HaltReason) {
        self.unload();
        *self.halted.lock().expect("no code panics while it holds a halt reason") = Some(reason);
    }

    pub(crate) fn status(&self) -> LaneStatus {
        LaneStatus {
            loaded: self.loaded.load(Ordering::Relaxed),
            position: self.position().unwrap_or(UNKNOWN_OFFSET),
            log_end: self.log_end.load(Ordering::Relaxed),
            halted: self.halted.lock().expect("no code panics while it holds a halt reason").clone(),
        }
    }
}
