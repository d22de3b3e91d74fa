//! How long a record takes from `send` to its lane loop, and what waiting costs, against a broker that is started here:
//! `cargo run -p event-stream --example hops`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_stream::{
    Consumer, KafkaSettings, Lane, LaneEvent, LaneFault, LaneRunner, Outgoing, OwnedLane, Publisher, TopicSpec,
};
use local_servers::{Compilers, Kafka, KafkaOptions};

const LANES: u32 = 100;
const PAYLOAD_BYTES: usize = 200;
const WARM_UP: Duration = Duration::from_secs(10);
const MEASURE: Duration = Duration::from_secs(10);
/// A lane's window: how often the source sends.
const WINDOW: Duration = Duration::from_millis(10);

#[derive(Clone)]
struct Stopwatch {
    began: Instant,
    waits_us: Arc<Mutex<Vec<u64>>>,
    batches: Arc<Mutex<(u64, u64)>>,
}

impl LaneRunner for Stopwatch {
    async fn run(&self, mut lane: OwnedLane) -> Result<(), LaneFault> {
        lane.fetch_from(None).await?;
        lane.set_loaded();
        loop {
            match lane.next(None).await? {
                LaneEvent::Records(records) => {
                    let now_us = self.began.elapsed().as_micros() as u64;
                    let mut waits = self.waits_us.lock().unwrap();
                    waits.extend(
                        records
                            .iter()
                            .map(|record| now_us - u64::from_le_bytes(record.payload[..8].try_into().unwrap())),
                    );
                    let mut batches = self.batches.lock().unwrap();
                    batches.0 += 1;
                    batches.1 += records.len() as u64;
                }
                LaneEvent::Revoked => return Ok(()),
                LaneEvent::End | LaneEvent::Tick => {}
            }
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let kafka = Kafka::start(folder.path(), KafkaOptions { compilers: Compilers::Both, ..KafkaOptions::default() })?;
    let settings = KafkaSettings::new(kafka.brokers(), "hops");
    let spec = TopicSpec { name: "hops".into(), partitions: LANES, log_append_time: true };
    event_stream::make_topics(&settings, &[spec], 1, 32 << 20, 8 << 20).await?;
    let publisher = Publisher::new(&settings)?;
    let watch = Stopwatch { began: Instant::now(), waits_us: Arc::default(), batches: Arc::default() };
    let consumer = Consumer::start(&settings, "hops", "hops", Arc::new(watch.clone()))?;
    while consumer.lanes().values().filter(|lane| lane.loaded).count() < LANES as usize {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{LANES} lanes loaded {:?} after the start", watch.began.elapsed());
    for rate in [500, 4000] {
        for _ in 0..2 {
            run(&watch, &publisher, rate, WARM_UP).await?;
            report(&watch, &publisher, rate, kafka.pid()).await?;
        }
    }
    let (us, broker) = (cpu_us("self"), cpu_us(&kafka.pid().to_string()));
    tokio::time::sleep(MEASURE).await;
    println!(
        "idle: {:.2} % of a core here, {:.2} % in the broker",
        (cpu_us("self") - us) as f64 / MEASURE.as_micros() as f64 * 100.0,
        (cpu_us(&kafka.pid().to_string()) - broker) as f64 / MEASURE.as_micros() as f64 * 100.0
    );
    consumer.shutdown(Duration::from_secs(10)).await;
    Ok(())
}

async fn report(watch: &Stopwatch, publisher: &Publisher, rate: u32, kafka: u32) -> anyhow::Result<()> {
    watch.waits_us.lock().unwrap().clear();
    *watch.batches.lock().unwrap() = (0, 0);
    let (us, broker) = (cpu_us("self"), cpu_us(&kafka.to_string()));
    run(watch, publisher, rate, MEASURE).await?;
    let (us, broker) = (cpu_us("self") - us, cpu_us(&kafka.to_string()) - broker);
    let mut waits = std::mem::take(&mut *watch.waits_us.lock().unwrap());
    waits.sort_unstable();
    let at = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize] as f64 / 1000.0;
    let (events, records) = *watch.batches.lock().unwrap();
    println!(
        "{rate}/s: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms; {:.1} records per event; CPU per record {:.0} us here, {:.0} us in the broker",
        at(0.5),
        at(0.99),
        at(1.0),
        records as f64 / events as f64,
        us as f64 / records as f64,
        broker as f64 / records as f64,
    );
    Ok(())
}

/// Sends a batch every window, each to the next lane.
async fn run(watch: &Stopwatch, publisher: &Publisher, rate: u32, time: Duration) -> anyhow::Result<()> {
    let topic: Arc<str> = "hops".into();
    let size = (f64::from(rate) * WINDOW.as_secs_f64()).round() as usize;
    let mut interval = tokio::time::interval(WINDOW);
    let began = Instant::now();
    let mut lane = 0;
    let mut receipts = std::collections::VecDeque::new();
    while began.elapsed() < time {
        interval.tick().await;
        lane = (lane + 1) % LANES;
        let mut payload = vec![0; PAYLOAD_BYTES];
        payload[..8].copy_from_slice(&(watch.began.elapsed().as_micros() as u64).to_le_bytes());
        let record = Outgoing {
            topic: Arc::clone(&topic),
            lane: Lane(lane),
            payload: Bytes::from(payload),
            headers: Vec::new(),
        };
        receipts.push_back(publisher.send(vec![record; size]).await?);
        if receipts.len() > 100
            && let Some(receipt) = receipts.pop_front()
        {
            receipt.await?;
        }
    }
    for receipt in receipts {
        receipt.await?;
    }
    Ok(())
}

/// CPU time of a process so far, microseconds.
fn cpu_us(process: &str) -> u64 {
    const TICK_US: u64 = 10_000;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    [11, 12].iter().filter_map(|index| fields.get(*index)?.parse::<u64>().ok()).sum::<u64>() * TICK_US
}
