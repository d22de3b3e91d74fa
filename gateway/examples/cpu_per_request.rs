//! Measures what the gateway costs: starts `target/release/gateway` before a small service in this process, sends requests
//! over a number of kept-alive connections and prints requests/s and the gateway's CPU time per request.
//!
//!     cargo build --release -p gateway && cargo run --release -p gateway --example cpu_per_request -- 64 10

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderMap, Method};
use service_kit::client::{Outgoing, UpstreamClient};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// `/proc/<pid>/stat` counts in these: 100 per second on every Linux of ours.
const TICK_US: u64 = 10_000;

const TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let connections: usize = arguments.next().as_deref().unwrap_or("64").parse().context("connections")?;
    let seconds: u64 = arguments.next().as_deref().unwrap_or("10").parse().context("seconds")?;
    let service = start_service().await?;
    let address = free_address().await?;
    let mut gateway = Command::new("target/release/gateway")
        .env("LISTEN", address.to_string())
        .env("RUST_LOG", "warn")
        .envs(["ORDER_UPSTREAMS", "STOCK_UPSTREAMS", "PAYMENT_UPSTREAMS"].map(|name| (name, service.to_string())))
        .stdout(Stdio::null())
        .spawn()
        .context("start target/release/gateway; build it first")?;
    let measured = measure(address, gateway.id(), connections, Duration::from_secs(seconds)).await;
    gateway.kill().context("end the gateway")?;
    gateway.wait()?;
    println!("{}", measured?);
    Ok(())
}

async fn start_service() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/orders/checkout/{order_id}", post(async || "the order is paid"))
        .route("/internal/ready", get(async || "ok"));
    let limits = service_kit::http::Limits { max_streams: 4096, ..service_kit::http::Limits::default() };
    tokio::spawn(service_kit::http::serve(listener, router, limits, CancellationToken::new()));
    Ok(address)
}

async fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?)
}

async fn measure(address: SocketAddr, pid: u32, connections: usize, time: Duration) -> anyhow::Result<String> {
    let (client, done) = (UpstreamClient::new(), Arc::new(AtomicU64::new(0)));
    let deadline = Instant::now() + TIMEOUT;
    while client.request(address, &checkout()?, TIMEOUT).await.is_err() {
        anyhow::ensure!(Instant::now() < deadline, "the gateway did not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (started, cpu_before) = (Instant::now(), cpu_us(pid)?);
    let until = started + time;
    let load: Vec<_> =
        (0..connections).map(|_| tokio::spawn(ask(client.clone(), address, until, done.clone()))).collect();
    for task in load {
        task.await??;
    }
    let (count, cpu) = (done.load(Ordering::Relaxed), cpu_us(pid)? - cpu_before);
    Ok(format!(
        "{connections} connections: {:.0} requests/s, {:.1} us of gateway CPU per request ({:.2} cores)",
        count as f64 / started.elapsed().as_secs_f64(),
        cpu as f64 / count.max(1) as f64,
        cpu as f64 / started.elapsed().as_micros() as f64,
    ))
}

async fn ask(client: UpstreamClient, address: SocketAddr, until: Instant, done: Arc<AtomicU64>) -> anyhow::Result<()> {
    let outgoing = checkout()?;
    while Instant::now() < until {
        let (status, _) = client.request_whole(address, &outgoing, TIMEOUT).await?;
        anyhow::ensure!(status.is_success(), "answered {status}");
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn checkout() -> anyhow::Result<Outgoing> {
    let path = "/orders/checkout/0198b1a2-7a3c-7c4e-8d5f-1a2b3c4d5e6f".parse()?;
    Ok(Outgoing { method: Method::POST, path, headers: HeaderMap::new(), body: Bytes::new() })
}

/// User and system time of a process so far.
fn cpu_us(pid: u32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("read /proc/<pid>/stat")?;
    // The name in brackets may hold anything; the fields after it are counted from 3.
    let fields: Vec<_> = stat.rsplit_once(')').context("fields")?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index - 3).and_then(|text| text.parse::<u64>().ok()).context("ticks");
    Ok((ticks(14)? + ticks(15)?) * TICK_US)
}
