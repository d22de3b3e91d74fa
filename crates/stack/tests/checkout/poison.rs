//! Records that no program can read.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use event_stream::{KafkaSettings, Lane, Outgoing, Publisher};

use crate::World;
use crate::wait::until;

/// Everything is set aside within this time.
const SETTLE: Duration = Duration::from_secs(30);

/// Garbage in a topic of each kind: it is set aside with where it came from, the lanes go on, and it can be put back.
pub async fn garbage_is_set_aside_and_the_lanes_go_on(world: Arc<World>) -> anyhow::Result<()> {
    let brokers = world.stack.process("kafka")?.address;
    let publisher = Publisher::new(&KafkaSettings::new(&brokers, "poisoner"))?;
    let topics = ["saga.inbox", "stock.commands", "order.results"];
    for topic in topics {
        let garbage = |lane| Outgoing {
            topic: topic.into(),
            lane: Lane(lane),
            payload: Bytes::from_static(b"no envelope"),
            headers: Vec::new(),
        };
        publisher.send((0..100).map(garbage).collect()).await?.await?;
    }
    let quarantine = |args: &[&str]| {
        let run =
            Command::new(env!("CARGO_BIN_EXE_stack")).args(["quarantine", "--brokers", &brokers]).args(args).output();
        let output = run.context("run `stack quarantine`")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let listed = |count: usize| {
        let list = quarantine(&["list"])?;
        let counts = topics.map(|topic| list.lines().filter(|line| line.starts_with(topic)).count());
        Ok::<_, anyhow::Error>((counts.iter().sum::<usize>() == count).then_some(list))
    };
    let list = until("all garbage is set aside", SETTLE, async || listed(300).ok().flatten()).await?;
    let id = list.lines().find(|line| line.starts_with("saga.inbox/7/")).and_then(|line| line.split(' ').next());
    let id = id.context("lane 7 of the inbox is listed")?;
    ensure!(quarantine(&["show", id])?.contains("6e6f20656e76656c6f7065"), "the value is shown in hex");

    // It has to be set aside again, as nobody can read it yet.
    quarantine(&["retry", id])?;
    until("what was put back is set aside again", SETTLE, async || listed(301).ok().flatten()).await?;

    let item = world.shop.create_item(2, 200).await?;
    let user = world.shop.create_user(1000).await?;
    for _ in 0..20 {
        let order = world.shop.create_order(&user, &[(&item, 1)]).await?;
        let answer = world.shop.checkout(&order).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    }
    ensure!(quarantine(&["show", "saga.inbox/0/999999"]).is_err(), "what is not there is said");
    Ok(())
}
