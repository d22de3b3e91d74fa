//! Reads orders for requests that cannot wait at home: every 20 ms rising to 500 ms, all of a process in one MGET.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use redis_txn::{CommitError, Store};
use saga_core::ids::SagaId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep_until, timeout};

use crate::decide::{About, about};
use crate::order::Verdict;
use crate::store::{decode, order_key};

/// Pause before the first read, and between the first ones.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Longest pause between two reads of one order.
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// Reads that are due within this time are made together.
const TOGETHER: Duration = Duration::from_millis(5);

/// Most orders in one MGET.
const MAX_READ: usize = 512;

/// Requests on their way to the task; the poller itself holds at most one entry per waiting request.
const MAX_QUEUED: usize = 256;

/// Longest that one MGET is waited for; the orders are read again later.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// What reading an order has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The saga has ended.
    Ended(Verdict),
    /// The order does not know the saga: somebody has replaced it.
    Unknown,
}

struct Poll {
    key: String,
    saga: SagaId,
    pause: Duration,
    told: oneshot::Sender<Told>,
}

struct Due {
    at: Instant,
    poll: Poll,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// Cheap handle to the task that reads.
#[derive(Clone)]
pub struct Poller {
    queue: mpsc::Sender<Poll>,
}

impl Poller {
    /// Starts the task; it ends with the last handle.
    pub fn start(store: Store) -> Self {
        let (queue, requests) = mpsc::channel(MAX_QUEUED);
        tokio::spawn(run(store, requests));
        Self { queue }
    }

    /// Waits until the order says how the saga ended. Dropping the future ends the reading.
    pub async fn read(&self, order_id: &str, saga: SagaId) -> Told {
        let (told, answer) = oneshot::channel();
        let poll = Poll { key: order_key(order_id), saga, pause: FIRST_PAUSE, told };
        if self.queue.send(poll).await.is_err() {
            return Told::Unknown;
        }
        answer.await.unwrap_or(Told::Unknown)
    }
}

async fn run(store: Store, mut requests: mpsc::Receiver<Poll>) {
    let mut waiting: BinaryHeap<Reverse<Due>> = BinaryHeap::new();
    loop {
        let next = waiting.peek().map(|Reverse(due)| due.at);
        tokio::select! {
            poll = requests.recv() => match poll {
                Some(poll) => push(&mut waiting, poll),
                None => return,
            },
            () = sleep_until(next.unwrap_or_else(Instant::now).into()), if next.is_some() => {
                let polls = take_due(&mut waiting, Instant::now() + TOGETHER);
                for poll in read(&store, polls).await {
                    push(&mut waiting, poll);
                }
            }
        }
    }
}

fn push(waiting: &mut BinaryHeap<Reverse<Due>>, mut poll: Poll) {
    let at = Instant::now() + poll.pause;
    poll.pause = (poll.pause * 3 / 2).min(MAX_PAUSE);
    waiting.push(Reverse(Due { at, poll }));
}

/// Those that are due and whose request is still there.
fn take_due(waiting: &mut BinaryHeap<Reverse<Due>>, until: Instant) -> Vec<Poll> {
    let mut polls = Vec::new();
    while polls.len() < MAX_READ && waiting.peek().is_some_and(|Reverse(due)| due.at <= until) {
        let Some(Reverse(due)) = waiting.pop() else { break };
        if !due.poll.told.is_closed() {
            polls.push(due.poll);
        }
    }
    polls
}

/// Reads all of them and tells those that are decided; answers the others.
async fn read(store: &Store, polls: Vec<Poll>) -> Vec<Poll> {
    if polls.is_empty() {
        return polls;
    }
    let keys: Vec<String> = polls.iter().map(|poll| poll.key.clone()).collect();
    let values = match timeout(READ_TIMEOUT, store.read(&keys)).await {
        Ok(Ok(values)) => values,
        Ok(Err(CommitError::WrongType(key))) => {
            // Whoever waits for that one is told to look himself, the others are read once more.
            let (foreign, others): (Vec<_>, _) = polls.into_iter().partition(|poll| poll.key == key);
            foreign.into_iter().for_each(|poll| drop(poll.told.send(Told::Unknown)));
            return others;
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "orders could not be read, they are read again");
            return polls;
        }
        Err(_) => return polls,
    };
    let mut undecided = Vec::new();
    for (poll, value) in polls.into_iter().zip(values) {
        match tell(value.as_deref(), poll.saga) {
            Some(told) => {
                let _gone = poll.told.send(told);
            }
            None => undecided.push(poll),
        }
    }
    undecided
}

fn tell(value: Option<&[u8]>, saga: SagaId) -> Option<Told> {
    let Some(Ok(order)) = value.map(decode) else { return Some(Told::Unknown) };
    match about(&order, saga) {
        About::Running => None,
        About::Ended(verdict) => Some(Told::Ended(verdict)),
        About::Unknown => Some(Told::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::order::{Attempt, Course, Order, Status};
    use crate::store::encode;

    fn saga(number: u128) -> SagaId {
        SagaId(Uuid::from_u128(number))
    }

    #[test]
    fn an_order_tells_how_its_sagas_ended() {
        let mut order = Order::new("u");
        order.status = Status::CheckingOut { saga: saga(2), lane: 0, sequence: 0, course: Course::Forward };
        order.attempts.push(Attempt { saga: saga(1), verdict: Verdict::Paid });
        let bytes = encode(&order);
        assert_eq!(tell(Some(&bytes), saga(1)), Some(Told::Ended(Verdict::Paid)));
        assert_eq!(tell(Some(&bytes), saga(2)), None);
        assert_eq!(tell(Some(&bytes), saga(3)), Some(Told::Unknown), "never the answer of another saga");
        assert_eq!(tell(None, saga(1)), Some(Told::Unknown));
        assert_eq!(tell(Some(b"?"), saga(1)), Some(Told::Unknown));
    }

    #[test]
    fn the_earliest_is_read_first_and_who_went_away_is_not_read() {
        let mut waiting = BinaryHeap::new();
        let mut kept = Vec::new();
        for number in 1..=3_u32 {
            let (told, answer) = oneshot::channel();
            push(&mut waiting, Poll { key: number.to_string(), saga: saga(1), pause: FIRST_PAUSE * number, told });
            kept.push(answer);
        }
        kept.remove(1);
        let now = Instant::now();
        assert!(take_due(&mut waiting, now).is_empty());
        let polls = take_due(&mut waiting, now + MAX_PAUSE);
        assert_eq!(polls.iter().map(|poll| poll.key.as_str()).collect::<Vec<_>>(), ["1", "3"]);
        assert!(polls.iter().all(|poll| poll.pause > FIRST_PAUSE && poll.pause <= MAX_PAUSE));
    }
}
