//! What the lane loops let others see: a few numbers without a lock, and answers to bounded questions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use event_stream::Lane;
use saga_core::ids::{Direction, SagaId};
use saga_core::lane::{LaneState, Parked};
use saga_core::saga::{ActionState, Phase, Saga, UndoState};
use serde::Serialize;
use service_kit::clock::unix_ms;
use tokio::sync::{mpsc, oneshot};

use crate::ages::Ages;

/// Questions that may wait for one lane loop; whoever asks more is told to come again.
const MAX_QUESTIONS: usize = 16;

/// All lanes that run in this process.
#[derive(Clone, Default)]
pub struct Registry {
    lanes: Arc<Mutex<BTreeMap<Lane, Entry>>>,
}

/// One lane as others see it.
#[derive(Clone)]
pub struct Entry {
    /// Numbers that the loop keeps up to date.
    pub numbers: Arc<Numbers>,
    /// Where to ask the loop for one saga.
    pub questions: mpsc::Sender<Question>,
}

/// Asks a lane loop for one saga.
pub struct Question {
    /// Which saga.
    pub saga: SagaId,
    /// Where the answer goes: none if the saga is not open in this lane.
    pub answer: oneshot::Sender<Option<SagaView>>,
}

/// Numbers of one lane, each exact, together perhaps of different moments.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Open sagas.
    pub open: AtomicU64,
    /// The version of the fold that the lane has adopted; true once the loop is [`Self::live`].
    pub fold_version: AtomicU32,
    /// Starts that wait for a definition.
    pub parked: AtomicU64,
    /// Records sent and not acknowledged.
    pub unacknowledged: AtomicU64,
    /// Log time of the oldest start among the open sagas, milliseconds; 0 for none.
    pub oldest_ms: AtomicI64,
    /// When the last checkpoint was loaded or written, milliseconds since 1970.
    pub checkpoint_ms: AtomicU64,
    /// When the oldest record was folded that no checkpoint holds, milliseconds since 1970; 0 for none.
    pub unsaved_since_ms: AtomicU64,
    /// Open sagas by age, and those among them that need a person.
    pub ages: Ages,
    /// True once the loop has folded the log to its end.
    pub live: AtomicBool,
}

/// Takes the lane out of the registry when its loop ends.
pub struct Registration {
    registry: Registry,
    lane: Lane,
    numbers: Arc<Numbers>,
}

impl Registry {
    /// Enters a lane whose loop begins.
    pub fn enter(&self, lane: Lane) -> (Registration, Arc<Numbers>, mpsc::Receiver<Question>) {
        let (questions, asked) = mpsc::channel(MAX_QUESTIONS);
        let numbers = Arc::new(Numbers::default());
        numbers.checkpointed();
        self.lock().insert(lane, Entry { numbers: numbers.clone(), questions });
        (Registration { registry: self.clone(), lane, numbers: numbers.clone() }, numbers, asked)
    }

    /// The lanes whose loops run, as they are now.
    pub fn lanes(&self) -> BTreeMap<Lane, Entry> {
        self.lock().clone()
    }

    /// The largest of one number over all lanes.
    pub fn max(&self, number: impl Fn(&Numbers) -> &AtomicU64) -> u64 {
        self.lock().values().map(|entry| number(&entry.numbers).load(Ordering::Relaxed)).max().unwrap_or(0)
    }

    /// When the oldest record of all lanes was folded that no checkpoint holds, milliseconds since 1970.
    pub fn unsaved_since_ms(&self) -> Option<u64> {
        let all = self.lock();
        let since = all.values().map(|entry| entry.numbers.unsaved_since_ms.load(Ordering::Relaxed));
        since.filter(|since| *since > 0).min()
    }

    /// The smallest log time of a start among the open sagas of all lanes.
    pub fn oldest_ms(&self) -> Option<i64> {
        let all = self.lock();
        all.values().map(|entry| entry.numbers.oldest_ms.load(Ordering::Relaxed)).filter(|oldest| *oldest > 0).min()
    }

    /// Sum of one number over all lanes.
    pub fn sum(&self, number: impl Fn(&Numbers) -> &AtomicU64) -> u64 {
        self.lock().values().map(|entry| number(&entry.numbers).load(Ordering::Relaxed)).sum()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Lane, Entry>> {
        // Only map operations run under the lock, so even after a panic the map is whole.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut lanes = self.registry.lock();
        // A newer run of the same lane may have entered already.
        if lanes.get(&self.lane).is_some_and(|entry| Arc::ptr_eq(&entry.numbers, &self.numbers)) {
            lanes.remove(&self.lane);
        }
    }
}

impl Numbers {
    /// Tells how the state is now.
    pub fn update(&self, state: &LaneState, unacknowledged: usize) {
        self.open.store(state.sagas().len() as u64, Ordering::Relaxed);
        self.fold_version.store(state.fold_version(), Ordering::Relaxed);
        self.parked.store(state.parked().len() as u64, Ordering::Relaxed);
        self.unacknowledged.store(unacknowledged as u64, Ordering::Relaxed);
        // Ids are UUIDv7, so the first one is the oldest, give or take the clocks of the starters.
        let oldest = state.sagas().values().next().map_or(0, |saga| saga.started_ms);
        self.oldest_ms.store(oldest, Ordering::Relaxed);
    }

    /// Tells since when something is not in a checkpoint.
    pub fn unsaved(&self, since: Option<Instant>) {
        let at_ms = |since: Instant| unix_ms().saturating_sub(u64::try_from(since.elapsed().as_millis()).unwrap_or(0));
        self.unsaved_since_ms.store(since.map_or(0, at_ms), Ordering::Relaxed);
    }

    /// A checkpoint has been loaded or written just now.
    pub fn checkpointed(&self) {
        self.checkpoint_ms.store(unix_ms(), Ordering::Relaxed);
    }
}

/// One open saga, for people.
#[derive(Debug, Serialize)]
pub struct SagaView {
    saga_id: String,
    lane: u32,
    starter: String,
    sequence: u64,
    /// `forward`, `undoing` or `parked`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    undo_reason: Option<String>,
    definition: DefinitionView,
    started_ms: Option<i64>,
    /// Log time since when the oldest unanswered command is awaited.
    awaited_since_ms: Option<i64>,
    deadline_ms: Option<i64>,
    trace_id: Option<String>,
    needs_attention: Option<AttentionView>,
    steps: Vec<StepView>,
}

#[derive(Debug, Serialize)]
struct DefinitionView {
    name: String,
    version: Option<u32>,
    hash: Option<String>,
}

#[derive(Debug, Serialize)]
struct AttentionView {
    cause: String,
    step: String,
    since_ms: i64,
}

#[derive(Debug, Serialize)]
struct StepView {
    name: String,
    participant: String,
    action: &'static str,
    undo: &'static str,
    awaits: Option<&'static str>,
    issued_ms: Option<i64>,
    failures: u32,
    timeout_ms: Option<i64>,
    retry_ms: Option<i64>,
}

impl SagaView {
    /// The saga with this id, if it is open or parked in the lane.
    pub fn find(state: &LaneState, id: SagaId) -> Option<Self> {
        let open = state.saga(id).map(Self::open);
        open.or_else(|| state.parked().get(&id).map(Self::parked))
    }

    fn open(saga: &Saga) -> Self {
        let steps: Vec<StepView> = (0..saga.steps.len()).filter_map(|step| step_view(saga, step)).collect();
        let awaited = steps.iter().filter(|step| step.awaits.is_some()).filter_map(|step| step.issued_ms).min();
        let (state, undo_reason) = match &saga.phase {
            Phase::Forward => ("forward", None),
            Phase::Undoing(undoing) => {
                ("undoing", Some(format!("{}: {}", undoing.refusal.code, undoing.refusal.reason)))
            }
        };
        let step_name = |step: usize| saga.definition.steps.get(step).map(|plan| plan.name.clone()).unwrap_or_default();
        Self {
            saga_id: saga.id.to_string(),
            lane: saga.ordinal.lane.0,
            starter: saga.ordinal.starter.to_string(),
            sequence: saga.ordinal.sequence,
            state,
            undo_reason,
            definition: DefinitionView {
                name: saga.definition.id.name.clone(),
                version: Some(saga.definition.id.version),
                hash: Some(saga.definition.hash.to_string()),
            },
            started_ms: Some(saga.started_ms),
            awaited_since_ms: awaited,
            deadline_ms: saga.deadline.map(|deadline| deadline.at_ms),
            trace_id: trace_id(&saga.trace.traceparent),
            needs_attention: saga.attention.map(|attention| AttentionView {
                cause: format!("{:?}", attention.cause),
                step: step_name(attention.step),
                since_ms: attention.since_ms,
            }),
            steps,
        }
    }

    fn parked(parked: &Parked) -> Self {
        let start = &parked.start;
        Self {
            saga_id: start.saga.to_string(),
            lane: start.ordinal.lane.0,
            starter: start.ordinal.starter.to_string(),
            sequence: start.ordinal.sequence,
            state: "parked",
            undo_reason: None,
            definition: DefinitionView { name: start.definition.clone(), version: None, hash: None },
            started_ms: None,
            awaited_since_ms: None,
            deadline_ms: Some(parked.deadline.at_ms),
            trace_id: trace_id(&start.trace.traceparent),
            needs_attention: None,
            steps: Vec::new(),
        }
    }
}

fn step_view(saga: &Saga, step: usize) -> Option<StepView> {
    let (plan, state) = (saga.definition.steps.get(step)?, saga.steps.get(step)?);
    let awaits = saga.awaits(step).map(|direction| match direction {
        Direction::Action => "action",
        Direction::Undo => "undo",
    });
    Some(StepView {
        name: plan.name.clone(),
        participant: plan.participant.to_string(),
        action: match state.action {
            ActionState::NotIssued => "not issued",
            ActionState::Issued => "issued",
            ActionState::Applied { .. } => "applied",
            ActionState::Refused(_) => "refused",
        },
        undo: match state.undo {
            UndoState::NotIssued => "not issued",
            UndoState::Issued => "issued",
            UndoState::Undone => "undone",
        },
        awaits,
        issued_ms: state.is_issued().then_some(state.issued_ms),
        failures: state.failures,
        timeout_ms: state.timeout.map(|deadline| deadline.at_ms),
        retry_ms: state.retry.map(|deadline| deadline.at_ms),
    })
}

/// The second part of a W3C `traceparent`.
fn trace_id(traceparent: &str) -> Option<String> {
    traceparent.split('-').nth(1).map(str::to_owned)
}
