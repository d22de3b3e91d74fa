//! A closed loop: each connection begins the next checkout when the last one is answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::client::{Client, Orders};
use crate::tally::Tally;

/// Runs `connections` loops against `host:port` for `time`.
pub async fn run(
    authority: &Arc<str>,
    connections: usize,
    time: Duration,
    orders: &Arc<Orders>,
) -> anyhow::Result<(Tally, Duration)> {
    let begin = Instant::now();
    let loops: Vec<_> = (0..connections)
        .map(|_| tokio::spawn(one_connection(Arc::clone(authority), begin, begin + time, Arc::clone(orders))))
        .collect();
    let mut total = Tally::new(begin, None)?;
    for task in loops {
        total.merge(task.await.context("join a connection")??)?;
    }
    Ok((total, begin.elapsed()))
}

async fn one_connection(
    authority: Arc<str>,
    begin: Instant,
    until: Instant,
    orders: Arc<Orders>,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::new(begin, None)?;
    let mut client = Client::connect(&authority).await?;
    while Instant::now() < until {
        let Some(fresh) = orders.take() else {
            tally.ran_dry = true;
            break;
        };
        let sent = Instant::now();
        let (order, ended) = client.run(&orders, fresh).await;
        tally.record(order, ended, sent.elapsed());
        if !client.is_usable() {
            client = Client::connect(&authority).await?;
        }
    }
    Ok(tally)
}
