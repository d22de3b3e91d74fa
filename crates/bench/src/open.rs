//! An open loop: checkouts arrive at a fixed rate, whatever the system does.
//!
//! Latency counts from the moment at which the checkout should have begun. A system that stalls for a second makes all
//! arrivals of that second late, and that is what is recorded (Gil Tene's "coordinated omission").

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};

use crate::client::{Client, Fresh, Orders};
use crate::tally::{Ended, Tally};
use crate::timeline::Seen;

/// Most connections; what becomes of arrivals beyond is said by [`Backlog`]. More than the requests that the gateway lets in, so that
/// it can be seen refusing, and fewer than the connections that it takes.
const MAX_CONNECTIONS: usize = 8000;

/// What becomes of arrivals that find all connections taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// They wait and are sent: a stall of the system hides nothing.
    WorkOff,
    /// They are never sent, and counted: a generator that is behind neither spends its time on keeping them nor goes on with an
    /// overload that is over.
    Leave,
}

/// What the checkouts of one phase share.
struct Loop {
    authority: Arc<str>,
    orders: Arc<Orders>,
    begin: Instant,
    /// Connections that are not in use; the last one used is the first one taken.
    idle: Mutex<Vec<Client>>,
    free: Arc<Semaphore>,
    tally: Mutex<Tally>,
    /// Every checkout, where somebody wants to see them one by one.
    log: Option<Mutex<Vec<Seen>>>,
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
    let shared = Loop::new(authority, orders, Tally::new(begin, Some(begin + time))?, begin, None);
    let arrivals = (rate * time.as_secs_f64()).floor() as u64;
    // What is not there in time is not begun.
    let is_in_time = || backlog == Backlog::WorkOff || begin.elapsed() <= time;
    let (elapsed, arrived) = shared.arrivals(rate, backlog, |arrival| arrival < arrivals && is_in_time()).await;
    let shared = Arc::into_inner(shared).context("all checkouts have ended")?;
    let mut tally = shared.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.unsent += arrivals - arrived;
    Ok((tally, elapsed))
}

/// An open loop that goes on until it is told to stop, and remembers every checkout.
pub struct Steady {
    shared: Arc<Loop>,
    stop: Arc<AtomicBool>,
    arrivals: JoinHandle<(Duration, u64)>,
}

impl Steady {
    /// Lets `rate` checkouts per second arrive from now on.
    pub fn begin(authority: &Arc<str>, rate: f64, orders: &Arc<Orders>) -> anyhow::Result<Self> {
        let begin = Instant::now();
        let shared = Loop::new(authority, orders, Tally::new(begin, None)?, begin, Some(Mutex::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let arrivals = tokio::spawn({
            let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
            async move { shared.arrivals(rate, Backlog::WorkOff, |_| !stop.load(Ordering::Relaxed)).await }
        });
        Ok(Self { shared, stop, arrivals })
    }

    /// Time since its beginning: what the checkouts' times are told in.
    pub fn elapsed(&self) -> Duration {
        self.shared.begin.elapsed()
    }

    /// No more arrivals; waits for the last answer.
    pub async fn end(self) -> anyhow::Result<(Tally, Vec<Seen>)> {
        self.stop.store(true, Ordering::Relaxed);
        self.arrivals.await.context("join the arrivals")?;
        let shared = Arc::into_inner(self.shared).context("all checkouts have ended")?;
        let log = shared.log.map(|log| log.into_inner().unwrap_or_else(PoisonError::into_inner));
        Ok((shared.tally.into_inner().unwrap_or_else(PoisonError::into_inner), log.unwrap_or_default()))
    }
}

impl Loop {
    fn new(
        authority: &Arc<str>,
        orders: &Arc<Orders>,
        tally: Tally,
        begin: Instant,
        log: Option<Mutex<Vec<Seen>>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            authority: Arc::clone(authority),
            orders: Arc::clone(orders),
            begin,
            idle: Mutex::default(),
            free: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            tally: Mutex::new(tally),
            log,
        })
    }

    /// Arrivals, evenly spaced, as long as they are wanted by their number, and the wait for the last answer. Says how
    /// long there were arrivals, and how many.
    async fn arrivals(
        self: &Arc<Self>,
        rate: f64,
        backlog: Backlog,
        is_wanted: impl Fn(u64) -> bool,
    ) -> (Duration, u64) {
        let mut under_way = JoinSet::new();
        let mut arrival = 0;
        while is_wanted(arrival) {
            let due = self.begin + Duration::from_secs_f64(arrival as f64 / rate);
            if Instant::now() < due {
                tokio::time::sleep_until(due.into()).await;
            }
            arrival += 1;
            let place = match (backlog, Arc::clone(&self.free).try_acquire_owned()) {
                (Backlog::Leave, Err(_)) => {
                    lock(&self.tally).unsent += 1;
                    continue;
                }
                (_, place) => place.ok(),
            };
            let Some(fresh) = self.orders.take() else {
                lock(&self.tally).ran_dry = true;
                break;
            };
            under_way.spawn(Arc::clone(self).one(place, fresh, due));
            while under_way.try_join_next().is_some() {}
        }
        let elapsed = self.begin.elapsed();
        while under_way.join_next().await.is_some() {}
        (elapsed, arrival)
    }

    async fn one(self: Arc<Self>, place: Option<OwnedSemaphorePermit>, fresh: Fresh, due: Instant) {
        let _place = match place {
            Some(place) => place,
            None => Arc::clone(&self.free).acquire_owned().await.expect("nobody closes it"),
        };
        let idle = lock(&self.idle).pop().filter(Client::is_usable);
        let connected = match idle {
            Some(client) => Ok(client),
            None => Client::connect(&self.authority).await,
        };
        let (order, ended) = match connected {
            Ok(mut client) => {
                let ended = client.run(&self.orders, fresh).await;
                lock(&self.idle).push(client);
                ended
            }
            Err(_) => (String::new(), Ended::Unknown(None)),
        };
        let latency = due.elapsed();
        if let Some(log) = &self.log {
            let due = due.saturating_duration_since(self.begin);
            lock(log).push(Seen { order: order.clone(), due, latency, ended });
        }
        lock(&self.tally).record(order, ended, latency);
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::scenario::Scenario;

    const RATE: f64 = 100.0;
    const ARRIVALS: u64 = 20;

    /// A load on a server that answers no request before all checkouts have arrived.
    async fn stalled(begin: Instant) -> Arc<Loop> {
        stalled_until(begin, |shared| shared.orders.begun() == ARRIVALS).await
    }

    /// A load on a server that answers no request before `is_over`.
    async fn stalled_until(begin: Instant, is_over: fn(&Loop) -> bool) -> Arc<Loop> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let authority: Arc<str> = listener.local_addr().expect("an address").to_string().into();
        let orders = Arc::new(Orders::new(Scenario::Checkout, Scenario::Checkout.goods(1, ARRIVALS), ARRIVALS));
        let tally = Tally::new(begin, None).expect("a tally");
        let shared = Loop::new(&authority, &orders, tally, begin, Some(Mutex::default()));
        let load = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let load = Arc::clone(&load);
                tokio::spawn(serve(stream, move || is_over(&load)));
            }
        });
        shared
    }

    async fn serve(stream: TcpStream, is_over: impl Fn() -> bool) {
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                if stream.read_line(&mut line).await.expect("a line") == 0 {
                    return;
                }
            }
            while !is_over() {
                tokio::task::yield_now().await;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("sent");
        }
    }

    /// When the checkouts should have begun, and the others' moments: since the beginning of the load.
    async fn seen(shared: &Arc<Loop>) -> Vec<Seen> {
        shared.arrivals(RATE, Backlog::WorkOff, |arrival| arrival < ARRIVALS).await;
        let mut seen = std::mem::take(&mut *lock(shared.log.as_ref().expect("a log")));
        seen.sort_by_key(|seen| seen.due);
        let due: Vec<Duration> = seen.iter().map(|seen| seen.due).collect();
        let expected: Vec<Duration> = (0..ARRIVALS).map(|n| Duration::from_secs_f64(n as f64 / RATE)).collect();
        assert_eq!(due, expected, "evenly spaced, whatever the server does");
        assert_eq!(lock(&shared.tally).paid, ARRIVALS);
        seen
    }

    #[tokio::test]
    async fn a_stall_of_the_server_counts_for_all_that_should_have_begun_meanwhile() {
        let shared = stalled(Instant::now()).await;
        // All but the first wait for its connection, and are sent after the stall.
        shared.free.forget_permits(MAX_CONNECTIONS - 1);
        let seen = seen(&shared).await;
        let stalled_until = seen.last().expect("arrivals").due;
        for Seen { due, latency, .. } in &seen {
            assert!(*latency >= stalled_until - *due, "due at {due:?}, {latency:?}");
        }
        let stall_us = u64::try_from(stalled_until.as_micros()).expect("small");
        let longest_us = lock(&shared.tally).latency_us.max();
        // The histogram keeps three digits.
        assert!(longest_us >= stall_us - stall_us / 1_000, "{longest_us} of {stall_us} us");
    }

    #[tokio::test]
    async fn arrivals_that_come_late_count_from_when_they_were_due() {
        let late = Duration::from_secs(1);
        let begin = Instant::now().checked_sub(late).expect("the machine has run for a second");
        let shared = stalled(begin).await;
        for Seen { due, latency, .. } in seen(&shared).await {
            assert!(latency >= late - due, "due at {due:?}, {latency:?}");
        }
    }

    #[tokio::test]
    async fn a_backlog_that_is_left_is_counted_and_not_sent() {
        let shared = stalled_until(Instant::now(), |load| lock(&load.tally).unsent == ARRIVALS - 1).await;
        shared.free.forget_permits(MAX_CONNECTIONS - 1);
        shared.arrivals(RATE, Backlog::Leave, |arrival| arrival < ARRIVALS).await;
        assert_eq!((lock(&shared.tally).paid, shared.orders.begun()), (1, 1), "the others took no order");
    }
}
