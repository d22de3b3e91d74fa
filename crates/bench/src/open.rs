//! An open loop: checkouts arrive at a fixed rate, whatever the system does.
//!
//! Latency counts from the moment at which the checkout should have begun. A system that stalls for a second makes all
//! arrivals of that second late, and that is what is recorded (Gil Tene's "coordinated omission").

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::client::{Client, Fresh, Orders};
use crate::tally::{Ended, Tally};

/// Most connections; arrivals beyond wait, and their latency counts. More than the requests that the gateway lets in, so that
/// it can be seen refusing, and fewer than the connections that it takes.
const MAX_CONNECTIONS: usize = 8000;

/// What becomes of arrivals that still wait for a connection when the last one has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// They are sent: a stall of the system hides nothing.
    WorkOff,
    /// They are never sent, and counted: a generator that is behind does not go on with an overload that is over.
    Leave,
}

/// What the checkouts of one phase share.
struct Loop {
    authority: Arc<str>,
    orders: Arc<Orders>,
    /// Connections that are not in use; the last one used is the first one taken.
    idle: Mutex<Vec<Client>>,
    free: Semaphore,
    tally: Mutex<Tally>,
}

/// Lets `rate` checkouts per second arrive for `time`, evenly spaced, and waits for the last answer; the phase ends
/// with the arrivals.
pub async fn run(
    authority: &Arc<str>,
    rate: f64,
    time: Duration,
    orders: &Arc<Orders>,
    backlog: Backlog,
) -> anyhow::Result<(Tally, Duration)> {
    let begin = Instant::now();
    let shared = Arc::new(Loop {
        authority: Arc::clone(authority),
        orders: Arc::clone(orders),
        idle: Mutex::default(),
        free: Semaphore::new(MAX_CONNECTIONS),
        tally: Mutex::new(Tally::new(begin, Some(begin + time))?),
    });
    let mut under_way = JoinSet::new();
    let arrivals = (rate * time.as_secs_f64()).floor() as u64;
    for arrival in 0..arrivals {
        if backlog == Backlog::Leave && begin.elapsed() > time {
            shared.tally().unsent += arrivals - arrival;
            break;
        }
        let due = begin + Duration::from_secs_f64(arrival as f64 / rate);
        if Instant::now() < due {
            tokio::time::sleep_until(due.into()).await;
        }
        let Some(fresh) = orders.take() else {
            shared.tally().ran_dry = true;
            break;
        };
        under_way.spawn(Arc::clone(&shared).one(fresh, due));
        while under_way.try_join_next().is_some() {}
    }
    let elapsed = begin.elapsed();
    if backlog == Backlog::Leave {
        shared.free.close();
    }
    while under_way.join_next().await.is_some() {}
    let shared = Arc::into_inner(shared).context("all checkouts have ended")?;
    Ok((shared.tally.into_inner().unwrap_or_else(PoisonError::into_inner), elapsed))
}

impl Loop {
    async fn one(self: Arc<Self>, fresh: Fresh, due: Instant) {
        let Ok(_permit) = self.free.acquire().await else {
            self.tally().unsent += 1;
            return;
        };
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().filter(Client::is_usable);
        let connected = match idle {
            Some(client) => Ok(client),
            None => Client::connect(&self.authority).await,
        };
        let (order, ended) = match connected {
            Ok(mut client) => {
                let ended = client.run(&self.orders, fresh).await;
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
                ended
            }
            Err(_) => (String::new(), Ended::Unknown),
        };
        self.tally().record(order, ended, due.elapsed());
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
