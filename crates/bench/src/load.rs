//! A closed loop of checkouts: each connection sends the next one when the last is answered, fresh orders only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest latency that the histogram can hold, in microseconds: twice the gateway's deadline.
const LONGEST_US: u64 = 60_000_000;

/// The orders that have not been checked out yet: ids `0 … count-1`, taken once each.
pub struct FreshOrders {
    next: AtomicU64,
    count: u64,
}

impl FreshOrders {
    /// All orders of a `batch_init` of `count`.
    pub fn new(count: u64) -> Self {
        Self { next: AtomicU64::new(0), count }
    }

    /// Orders that were handed out: ids below this number.
    pub fn taken(&self) -> u64 {
        self.next.load(Ordering::Relaxed).min(self.count)
    }

    fn take(&self) -> Option<u64> {
        let order = self.next.fetch_add(1, Ordering::Relaxed);
        (order < self.count).then_some(order)
    }
}

/// What one phase of the loop saw.
pub struct Phase {
    /// Latency in microseconds of every answer.
    pub latency_us: Histogram<u64>,
    /// Answers 200.
    pub paid: u64,
    /// Answers 4xx.
    pub refused: u64,
    /// Everything else: 5xx and broken connections.
    pub other: u64,
    /// Orders answered 200, for the audit.
    pub paid_orders: Vec<u64>,
    /// Orders answered 4xx, for the audit.
    pub refused_orders: Vec<u64>,
    /// How long the phase took.
    pub elapsed: Duration,
    /// True when the orders were used up before the time was over.
    pub ran_dry: bool,
}

impl Phase {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            latency_us: Histogram::new_with_max(LONGEST_US, 3).context("make a histogram")?,
            paid: 0,
            refused: 0,
            other: 0,
            paid_orders: Vec::new(),
            refused_orders: Vec::new(),
            elapsed: Duration::ZERO,
            ran_dry: false,
        })
    }

    fn record(&mut self, order: u64, status: u16, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US);
        self.latency_us.saturating_record(micros);
        match status {
            200 => {
                self.paid += 1;
                self.paid_orders.push(order);
            }
            400..=499 => {
                self.refused += 1;
                self.refused_orders.push(order);
            }
            _ => self.other += 1,
        }
    }

    fn merge(&mut self, other: Self) -> anyhow::Result<()> {
        self.latency_us.add(&other.latency_us).context("add histograms")?;
        self.paid += other.paid;
        self.refused += other.refused;
        self.other += other.other;
        self.paid_orders.extend(other.paid_orders);
        self.refused_orders.extend(other.refused_orders);
        self.ran_dry |= other.ran_dry;
        Ok(())
    }
}

/// Runs `connections` loops against `host:port` for `time`.
pub async fn closed_loop(
    authority: &str,
    connections: usize,
    time: Duration,
    orders: &Arc<FreshOrders>,
) -> anyhow::Result<Phase> {
    let begin = Instant::now();
    let loops: Vec<_> = (0..connections)
        .map(|_| tokio::spawn(one_connection(authority.to_owned(), begin + time, Arc::clone(orders))))
        .collect();
    let mut total = Phase::new()?;
    for task in loops {
        total.merge(task.await.context("join a connection")??)?;
    }
    total.elapsed = begin.elapsed();
    Ok(total)
}

async fn one_connection(authority: String, until: Instant, orders: Arc<FreshOrders>) -> anyhow::Result<Phase> {
    let mut phase = Phase::new()?;
    let mut sender = connect(&authority).await?;
    while Instant::now() < until {
        let Some(order) = orders.take() else {
            phase.ran_dry = true;
            break;
        };
        let begin = Instant::now();
        match checkout(&mut sender, &authority, order).await {
            Ok(status) => phase.record(order, status, begin.elapsed()),
            Err(_) => {
                phase.record(order, 0, begin.elapsed());
                sender = connect(&authority).await?;
            }
        }
    }
    Ok(phase)
}

async fn connect(authority: &str) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(authority).await.with_context(|| format!("connect to {authority}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.context("start HTTP")?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn checkout(sender: &mut SendRequest<Empty<Bytes>>, authority: &str, order: u64) -> anyhow::Result<u16> {
    sender.ready().await?;
    let request =
        http::Request::post(format!("/orders/checkout/{order}")).header("host", authority).body(Empty::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(status)
}
