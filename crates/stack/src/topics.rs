//! The topics of the system, made and checked: for the stack on this machine, and as a job beside containers.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Args, Parser};
use event_stream::{KafkaArgs, KafkaSettings, TopicSpec, TopicStorage};

use crate::options::DEFAULT_PARTITIONS;

/// Copies of every partition where there are enough brokers: one may be lost while another is down for maintenance.
const COPIES: u16 = 3;
/// Longest wait for brokers that may be asked for: an hour.
const MAX_WAIT_S: u64 = 3_600;
/// The topics of the shop; nobody reads the last one.
const TOPICS: [&str; 5] = ["saga.inbox", "stock.commands", "payment.commands", "order.results", "saga.quarantine"];
/// The topics that services read.
pub const READ_TOPICS: [&str; 4] = [TOPICS[0], TOPICS[1], TOPICS[2], TOPICS[3]];
/// A megabyte, in which sizes are given on the command line.
const MB: u64 = 1024 * 1024;

/// What is to be there, and where.
#[derive(Clone, Debug, Args)]
pub(crate) struct Topics {
    /// Kafka brokers, host:port,host:port
    #[arg(long, env = "KAFKA_BROKERS", default_value = "127.0.0.1:9092")]
    pub(crate) brokers: String,
    /// Partitions of every topic
    #[arg(long, env = "PARTITIONS", default_value_t = DEFAULT_PARTITIONS, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) partitions: u32,
    /// Copies of every partition; without it three, or one where there are fewer than three brokers
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(crate) replication: Option<u16>,
    /// Copies that must have a record before it counts as written; without it two of three or more, else one
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(crate) min_insync: Option<u16>,
    /// Megabytes that each partition keeps; a partition whose consumer falls further behind halts
    // Records of yesterday's stack are still there, and 500 partitions stay below 16 GB.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) retention_mb: u64,
    /// Megabytes of a segment of the log; Kafka deletes whole segments only
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(crate) segment_mb: u64,
    /// How long to wait until enough brokers answer, seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=MAX_WAIT_S))]
    pub(crate) wait_s: u64,
}

/// Arguments without a command line: their defaults.
#[derive(Debug, Parser)]
struct Defaults<A: Args> {
    #[command(flatten)]
    args: A,
}

impl Topics {
    /// The defaults for one broker.
    pub(crate) fn on_one_broker(brokers: &str) -> anyhow::Result<Self> {
        let defaults = Defaults::<Self>::try_parse_from(["stack"]).context("read the settings of topics")?.args;
        Ok(Self { brokers: brokers.to_owned(), replication: Some(1), min_insync: Some(1), ..defaults })
    }
}

/// Makes what is missing and checks what exists; says in one line what is there.
pub(crate) async fn make(wanted: &Topics) -> anyhow::Result<String> {
    let settings = client(&wanted.brokers)?;
    let wait = Duration::from_secs(wanted.wait_s);
    let brokers = event_stream::wait_for_brokers(&settings, wanted.replication.unwrap_or(1), wait).await?;
    let (replication, min_insync) = copies(wanted, brokers)?;
    let storage = TopicStorage {
        replication,
        min_insync,
        retention_bytes: wanted.retention_mb * MB,
        segment_bytes: wanted.segment_mb * MB,
    };
    let topics = specs(wanted.partitions);
    event_stream::ensure_topics(&settings, &topics, storage).await?;
    let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
    Ok(format!(
        "{} partitions each, {replication} copies on {brokers} brokers, {min_insync} of them in sync: {}",
        wanted.partitions,
        names.join(", ")
    ))
}

/// The copies of each partition and how many of them must be in sync.
fn copies(wanted: &Topics, brokers: u16) -> anyhow::Result<(u16, u16)> {
    let replication = wanted.replication.unwrap_or(if brokers >= COPIES { COPIES } else { 1 });
    let min_insync = wanted.min_insync.unwrap_or(if replication >= COPIES { COPIES - 1 } else { 1 });
    ensure!(min_insync <= replication, "--min-insync {min_insync} is more than the {replication} copies there are");
    Ok((replication, min_insync))
}

/// The topics of the shop.
fn specs(partitions: u32) -> [TopicSpec; 5] {
    TOPICS.map(|name| TopicSpec { name: name.to_owned(), partitions, log_append_time: name == TOPICS[0] })
}

fn client(brokers: &str) -> anyhow::Result<KafkaSettings> {
    let defaults = Defaults::<KafkaArgs>::try_parse_from(["stack"]).context("read the settings for Kafka")?;
    Ok(KafkaSettings { brokers: brokers.to_owned(), ..defaults.args.settings("stack", "1") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_follow_the_brokers_unless_said_otherwise() {
        let automatic = Topics { replication: None, min_insync: None, ..Topics::on_one_broker("a:1").unwrap() };
        assert_eq!([1, 2, 3, 5].map(|brokers| copies(&automatic, brokers).unwrap()), [(1, 1), (1, 1), (3, 2), (3, 2)]);
        let said = Topics { replication: Some(2), min_insync: Some(2), ..automatic.clone() };
        assert_eq!(copies(&said, 3).unwrap(), (2, 2));
        let impossible = Topics { min_insync: Some(2), ..automatic };
        assert!(copies(&impossible, 1).unwrap_err().to_string().contains("--min-insync 2"));
    }
}
