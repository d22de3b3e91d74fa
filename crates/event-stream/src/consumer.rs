//! A running consumer: the group member, the fetchers and the lanes, as one handle.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use saga_core::ids::Lane;
use tokio_util::sync::CancellationToken;

use crate::error::StreamError;
use crate::fetchers::Fetchers;
use crate::ground::Ground;
use crate::inquiry::Inquiry;
use crate::lane::{LaneRunner, LaneStatus, OwnedLane};
use crate::lanes::{Lanes, Run};
use crate::member::{self, Membership};
use crate::settings::KafkaSettings;

/// A running consumer: one group member that owns lanes, plain consumers that fetch them, one task per owned lane.
/// Ends by itself when its last handle is dropped.
#[derive(Clone)]
pub struct Consumer {
    handle: Arc<Handle>,
}

struct Handle(Arc<Membership>);

impl Consumer {
    /// Joins the group `group` for `topic` and runs every lane it is given with `runner`. Call inside a runtime.
    pub fn start<R: LaneRunner>(
        settings: &KafkaSettings,
        group: &str,
        topic: &str,
        runner: Arc<R>,
    ) -> Result<Self, StreamError> {
        Self::start_on(Ground::unchecked(), settings, group, topic, runner)
    }

    /// The same for a runner whose positions belong to a certain topic: lanes halt when it is not that one (any more).
    pub fn start_on<R: LaneRunner>(
        ground: Ground,
        settings: &KafkaSettings,
        group: &str,
        topic: &str,
        runner: Arc<R>,
    ) -> Result<Self, StreamError> {
        settings.check()?;
        let topic: Arc<str> = topic.into();
        let run: Run = Arc::new(move |lane: OwnedLane| {
            let runner = Arc::clone(&runner);
            Box::pin(async move { runner.run(lane).await })
        });
        let inquiry = Arc::new(Inquiry::new(Arc::clone(&topic)));
        let fetchers = Fetchers::new(settings.clone(), group, Arc::clone(&topic), ground.clone(), Arc::clone(&inquiry));
        let fetchers = Arc::new(fetchers);
        let lanes = Lanes::new(Arc::clone(&topic), run, Arc::clone(&fetchers), Arc::clone(&inquiry), ground);
        let membership = Arc::new(Membership {
            settings: settings.clone(),
            group: group.to_owned(),
            topic,
            lanes: Arc::new(lanes),
            fetchers,
            inquiry,
            joined: AtomicBool::new(false),
            awaits_group: Mutex::default(),
            stop: AtomicBool::new(false),
            commit_failed: AtomicBool::new(false),
            ended: CancellationToken::new(),
            shown: Mutex::default(),
        });
        let first = member::new_member(&membership)?;
        let body = Arc::clone(&membership);
        std::thread::Builder::new()
            .name(format!("group-{group}"))
            .spawn(move || member::run(&body, first))
            .map_err(|error| StreamError::kafka("start the group member's thread", error))?;
        Ok(Self { handle: Arc::new(Handle(membership)) })
    }

    /// The owned lanes and how they are.
    pub fn lanes(&self) -> BTreeMap<Lane, LaneStatus> {
        self.handle.0.lanes.statuses()
    }

    /// Whether the group has answered since the start: lanes are assigned (perhaps none, with more processes than lanes).
    pub fn has_joined(&self) -> bool {
        self.handle.0.joined.load(Ordering::Acquire)
    }

    /// Drains all lanes, leaves the group, ends the threads; gives up after the deadline.
    pub async fn shutdown(&self, deadline: Duration) {
        self.handle.0.stop.store(true, Ordering::Release);
        if tokio::time::timeout(deadline, self.handle.0.ended.cancelled()).await.is_err() {
            tracing::warn!(topic = %self.handle.0.topic, "the consumer did not end in time and is left behind");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
    }
}
