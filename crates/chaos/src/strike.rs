//! Carries a strike out, and heals it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use event_stream::{KafkaSettings, Lane, Outgoing, Publisher};
use stack::Stack;
use tokio::sync::Mutex;

use crate::plan::{Kind, Strike};
use crate::resp::Resp;

/// A service drains within this time, or it is killed.
const DRAIN: Duration = Duration::from_secs(20);
/// Records that are no records, one for each of the first lanes.
const POISON_LANES: u32 = 5;
/// What is in them: a protobuf message that breaks off, with no format.
const POISON: &[u8] = b"\xff\xff poison";

/// One strike from beginning to end.
pub(crate) async fn strike(stack: &Mutex<Stack>, strike: &Strike) -> anyhow::Result<()> {
    let target = strike.target.as_str();
    let what = || strike.to_string();
    match strike.kind {
        Kind::Kill => {
            stack.lock().await.kill(target).with_context(what)?;
            tokio::time::sleep(strike.lasts).await;
            stack.lock().await.restart(target).with_context(what)
        }
        Kind::Drain => {
            stack.lock().await.terminate(target, DRAIN).with_context(what)?;
            tokio::time::sleep(strike.lasts).await;
            stack.lock().await.restart(target).with_context(what)
        }
        Kind::Pause => {
            stack.lock().await.pause(target).with_context(what)?;
            tokio::time::sleep(strike.lasts).await;
            stack.lock().await.resume(target).with_context(what)
        }
        Kind::Cut => {
            ask(stack, target, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await.with_context(what)
        }
        Kind::Full => {
            ask(stack, target, &["CONFIG", "SET", "maxmemory", "1"]).await.with_context(what)?;
            tokio::time::sleep(strike.lasts).await;
            ask(stack, target, &["CONFIG", "SET", "maxmemory", "0"]).await.with_context(what)
        }
        Kind::Poison => poison(stack, target).await.with_context(what),
    }
}

async fn ask(stack: &Mutex<Stack>, target: &str, command: &'static [&'static str]) -> anyhow::Result<()> {
    let address = stack.lock().await.process(target)?.address;
    tokio::task::spawn_blocking(move || Resp::connect(&address)?.ask(command).map(drop)).await?
}

async fn poison(stack: &Mutex<Stack>, topic: &str) -> anyhow::Result<()> {
    let brokers = stack.lock().await.process("kafka")?.address;
    let publisher = Publisher::new(&KafkaSettings::new(brokers, "chaos"))?;
    let record = |lane| Outgoing {
        topic: topic.into(),
        lane: Lane(lane),
        payload: bytes::Bytes::from_static(POISON),
        headers: Vec::new(),
    };
    let Ok(receipt) = publisher.send((0..POISON_LANES).map(record).collect()).await else {
        bail!("Kafka does not take it");
    };
    receipt.await?;
    Ok(())
}
