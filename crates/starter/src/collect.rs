//! Collects requests into windows and carries each through: one EXEC, then one batch of starts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use redis_txn::CommitError;
use saga_core::ids::{Lane, SagaId};
use saga_core::starter::PendingStart;
use tokio::sync::mpsc;
use tokio::time::timeout_at;

use crate::business::Business;
use crate::lanes::{Open, Tenure};
use crate::start::{Decided, Member, WindowOutcome, WindowTransaction};
use crate::waiters::{Heard, StartError};
use crate::window::{Placement, Rate, WINDOW_SAGAS};
use crate::{Shared, events, publish};

/// Runs until the queue is closed and empty.
pub(crate) async fn collect<B: Business>(shared: Arc<Shared<B>>, mut queue: mpsc::Receiver<Member<B::Request>>) {
    let mut rate = Rate::default();
    loop {
        let mut members = Vec::with_capacity(WINDOW_SAGAS);
        let first = tokio::select! {
            count = queue.recv_many(&mut members, WINDOW_SAGAS) => count,
            () = shared.shutdown.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
        };
        if first == 0 {
            return;
        }
        let begun = Instant::now();
        rate.arrived(first, begun);
        let closes = begun + shared.lanes.pace().open_for(rate.per_second(begun));
        while members.len() < WINDOW_SAGAS {
            let room = WINDOW_SAGAS - members.len();
            match timeout_at(closes.into(), queue.recv_many(&mut members, room)).await {
                Ok(0) | Err(_) => break,
                Ok(more) => rate.arrived(more, Instant::now()),
            }
        }
        // Windows that wait for Redis or Kafka are bounded; then the queue fills, and then requests are shed.
        let Ok(permit) = shared.windows.clone().acquire_owned().await else { return };
        close(&shared, members, permit);
    }
}

fn close<B: Business>(
    shared: &Arc<Shared<B>>,
    mut members: Vec<Member<B::Request>>,
    permit: tokio::sync::OwnedSemaphorePermit,
) {
    events::window_closed(members.len());
    let Some(choice) = shared.lanes.choose(Instant::now()) else {
        let sagas: Vec<_> = members.iter().map(|member| member.saga).collect();
        let error = if shared.lanes.are_loaded() { StartError::Full } else { StartError::NoLane };
        fail(shared, &sagas, &error);
        return;
    };
    let permit = Arc::new(permit);
    if let Some(probe) = choice.probe
        && let Some(member) = members.pop()
    {
        // Without a permit of a window: where nothing is delivered, one probe after the other would take them all.
        spawn(shared, probe, vec![member], Delivery::Once, None);
    }
    match shared.placement {
        Placement::Window if members.is_empty() => {}
        Placement::Window => spawn(shared, choice.lane, members, Delivery::Repeated, Some(permit)),
        Placement::Hashed => {
            let hashed = shared.lanes.hashed();
            let mut by_lane: BTreeMap<Lane, Vec<_>> = BTreeMap::new();
            for member in members {
                by_lane.entry(hashed.lane(member.saga).unwrap_or(choice.lane)).or_default().push(member);
            }
            // One transaction per lane; the committer carries them in one EXEC as far as they wait together.
            by_lane
                .into_iter()
                .for_each(|(lane, members)| spawn(shared, lane, members, Delivery::Repeated, Some(permit.clone())));
        }
    }
}

/// Bounds the windows that are under way; a probe has none.
type Permit = Option<Arc<tokio::sync::OwnedSemaphorePermit>>;

/// How the starts of a window are sent.
#[derive(Clone, Copy)]
enum Delivery {
    /// Until they are acknowledged.
    Repeated,
    /// Once, to a lane that may take nothing: the sweep sends them again, a bounded number of them at a time.
    Once,
}

fn spawn<B: Business>(
    shared: &Arc<Shared<B>>,
    lane: Lane,
    members: Vec<Member<B::Request>>,
    delivery: Delivery,
    permit: Permit,
) {
    let shared_for_task = shared.clone();
    shared.tasks.spawn(async move {
        run(&shared_for_task, lane, members, delivery, permit).await;
    });
}

/// One window from its EXEC to the acknowledgement of its starts.
///
/// A member that makes the code panic, or that needs a key of another type, takes its window along: nothing of it was
/// written, so it is carried through again in halves, until that member stands alone and fails alone.
async fn run<B: Business>(
    shared: &Shared<B>,
    lane: Lane,
    members: Vec<Member<B::Request>>,
    delivery: Delivery,
    mut permit: Permit,
) {
    let mut parts = vec![members.into_iter().map(Arc::new).collect::<Vec<_>>()];
    while let Some(part) = parts.pop() {
        match carry(shared, lane, part.clone(), delivery, &mut permit).await {
            Err(StartError::Commit(error @ (CommitError::Panicked(_) | CommitError::WrongType(_))))
                if part.len() > 1 =>
            {
                events::window_halved(lane, part.len(), &error);
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second.to_vec(), first.to_vec()]);
            }
            Err(error) => fail(shared, &part.iter().map(|member| member.saga).collect::<Vec<_>>(), &error),
            Ok(()) => {}
        }
    }
}

/// The same for what is in one EXEC. An error: nothing of it is known to be written.
async fn carry<B: Business>(
    shared: &Shared<B>,
    lane: Lane,
    members: Vec<Arc<Member<B::Request>>>,
    delivery: Delivery,
    permit: &mut Permit,
) -> Result<(), StartError> {
    let (begun, tenure) = (Instant::now(), shared.lanes.tenure(lane));
    let sagas: Vec<SagaId> = members.iter().map(|member| member.saga).collect();
    let transaction = WindowTransaction {
        business: shared.business.clone(),
        starter: shared.starter.clone(),
        results_topic: shared.results_topic.clone(),
        lane,
        members,
    };
    // The commit is awaited here and nowhere else, so nothing is sent whose EXEC is not known to have happened.
    // The lane's queue never gives up, so a commit is always known in the end; whoever cannot wait for it is told so
    // by its own deadline.
    let (decided, pending) = match shared.store.lane_queue(lane.0).run(transaction).await {
        Ok(WindowOutcome::Committed { decided, pending }) => (decided, pending),
        Ok(WindowOutcome::Corrupt(why)) => return Err(StartError::Corrupt(why)),
        Err(error) => return Err(StartError::Commit(error)),
    };
    let committed = Instant::now();
    note_pending(shared, lane, tenure, &pending, committed);
    let (mut joined, mut answered, mut abandoned) = (0, 0, 0);
    for (saga, decided) in sagas.into_iter().zip(decided) {
        match decided {
            Decided::Started => {}
            Decided::Abandoned => abandoned += 1,
            Decided::Joins(other) => {
                joined += 1;
                shared.waiters.tell(saga, Heard::Joins(other));
            }
            Decided::Answered(answer) => {
                answered += 1;
                shared.waiters.tell(saga, Heard::Answered(answer));
            }
        }
    }
    events::window_committed(lane, [pending.len(), joined, answered, abandoned], committed - begun);
    if !pending.is_empty() {
        deliver(shared, lane, pending, delivery, permit).await;
        events::window_delivered(committed.elapsed());
    }
    Ok(())
}

/// Sends the starts of one EXEC.
async fn deliver<B: Business>(
    shared: &Shared<B>,
    lane: Lane,
    pending: Vec<PendingStart>,
    delivery: Delivery,
    permit: &mut Permit,
) {
    let sequences: Vec<u64> = pending.iter().map(|entry| entry.start.ordinal.sequence).collect();
    let records = publish::records(&shared.inbox, pending);
    match delivery {
        Delivery::Once => {
            if !publish::try_once(&shared.publisher, records).await {
                return;
            }
        }
        Delivery::Repeated => {
            let give_permit_back = || {
                // Those who wait for a window must not wait for this partition. Where no lane takes anything, what is begun
                // stays bounded.
                if shared.lanes.has_good(Instant::now()) {
                    *permit = None;
                }
            };
            publish::deliver(&shared.publisher, records, give_permit_back).await;
        }
    }
    shared.lanes.delivered(lane, sequences);
}

/// Makes the window's sagas known to the result loop, or sends their requests to read if it is gone.
fn note_pending<B: Business>(
    shared: &Shared<B>,
    lane: Lane,
    tenure: Option<Tenure>,
    pending: &[PendingStart],
    since: Instant,
) {
    for entry in pending {
        let saga = entry.start.saga;
        // First the waiter, then the lane: a result loop that ends meanwhile looks in the other order.
        shared.waiters.at_lane(saga, lane);
        let open = Open { saga, subject: entry.subject.as_str().into(), since, is_delivered: false };
        if !shared.lanes.remember(lane, tenure, entry.start.ordinal.sequence, open) {
            shared.waiters.elsewhere(saga);
        }
    }
}

fn fail<B: Business>(shared: &Shared<B>, sagas: &[SagaId], error: &StartError) {
    events::window_failed(sagas.len(), error);
    for saga in sagas {
        shared.waiters.tell(*saga, Heard::Failed(error.clone()));
    }
}
