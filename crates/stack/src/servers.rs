//! Kafka, the topics and the four Redis.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use local_servers::{Compilers, Kafka, KafkaOptions, Listener, Redis, free_port};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::options::StackOptions;
use crate::plan::{Detour, Hop, Kind, Servers};
use crate::stack::{Part, Runner};
use crate::topics::{self, Topics};

/// Largest heap of a broker alone, MiB.
pub const LONELY_HEAP_MB: u32 = 512;
/// Largest heap of each of three brokers, MiB.
const CLUSTER_HEAP_MB: u32 = 384;
/// Brokers of a cluster.
const CLUSTER: u32 = 3;

/// What runs, and where.
pub(crate) struct StartedServers {
    pub(crate) servers: Servers,
    pub(crate) parts: Vec<Part>,
}

/// Starts all servers at once.
pub(crate) async fn start(options: &StackOptions) -> anyhow::Result<StartedServers> {
    let detours = options.detours.iter().map(|service| detour(options, service)).collect::<anyhow::Result<Vec<_>>>()?;
    let brokers = start_brokers(options, &detours)?;
    let redis = start_redis(options)?;
    let (mut parts, mut stores) = (Vec::new(), Vec::new());
    for (kind, name, redis) in redis {
        let redis = redis.await.context("start Redis")??;
        stores.push((kind, redis.address()));
        let log_file = redis.log_file().to_owned();
        parts.push(part(name, Kind::Redis, redis.address(), log_file, Runner::Redis(redis)));
    }
    let mut addresses = Vec::new();
    for (name, kafka) in brokers {
        let kafka = kafka.await.context("start Kafka")??;
        addresses.push(kafka.brokers());
        let log_file = kafka.log_file().to_owned();
        parts.push(part(name, Kind::Kafka, kafka.brokers(), log_file, Runner::Kafka(kafka)));
    }
    let detours = with_redis_ports(detours, &parts)?;
    Ok(StartedServers { servers: Servers { brokers: addresses.join(","), stores, detours }, parts })
}

fn part(name: impl Into<String>, kind: Kind, address: String, log_file: PathBuf, runner: Runner) -> Part {
    Part { name: name.into(), kind, address, admin_address: None, log_file, runner }
}

type Starting<Server> = JoinHandle<anyhow::Result<Server>>;

fn start_redis(options: &StackOptions) -> anyhow::Result<Vec<(Kind, &'static str, Starting<Redis>)>> {
    let lifetime = options.lifetime;
    let start = |kind: Kind| {
        let name = kind.store().context("a consuming service has a store")?;
        let dir = options.dir.join(name);
        let settings = options.redis_settings.clone();
        let start = move || {
            let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (&**name, &**value)).collect();
            Redis::start_with(&dir, None, &settings, lifetime)
        };
        Ok((kind, name, spawn_blocking(start)))
    };
    Kind::CONSUMERS.into_iter().map(start).collect()
}

/// All at once: a broker of three answers only when it has met another.
fn start_brokers(options: &StackOptions, detours: &[Detour]) -> anyhow::Result<Vec<(String, Starting<Kafka>)>> {
    let voters = (0..options.brokers).map(|_| free_port()).collect::<anyhow::Result<Vec<u16>>>()?;
    let start = |(at, controller_port): (usize, &u16)| {
        let node = u32::try_from(at)? + 1;
        let name = broker_name(options.brokers, node);
        let listener = |(number, detour): (usize, &Detour)| {
            let Hop { port, server_port } = detour.brokers[at];
            Listener { name: format!("DETOUR{number}"), port: server_port, advertised_port: port }
        };
        // Three Java machines that compile their code twice keep two processors busy for most of a minute after each start,
        // that of a broker that was struck included.
        let (heap_mb, compilers) = match options.brokers {
            1 => (LONELY_HEAP_MB, options.compilers),
            _ => (CLUSTER_HEAP_MB, Compilers::First),
        };
        let settings = KafkaOptions {
            controller_port: Some(*controller_port),
            heap_mb,
            compilers,
            node,
            voters: voters.clone(),
            listeners: detours.iter().enumerate().map(listener).collect(),
            lifetime: options.lifetime,
            settings: options.kafka_settings.clone(),
            ..KafkaOptions::default()
        };
        let dir = options.dir.join(&name);
        Ok((name, spawn_blocking(move || Kafka::start(&dir, settings))))
    };
    voters.iter().enumerate().map(start).collect()
}

/// `kafka`, or `kafka-1` … of a cluster.
fn broker_name(brokers: u32, node: u32) -> String {
    let name = Kind::Kafka.name();
    if brokers == 1 { name.to_owned() } else { format!("{name}-{node}") }
}

/// The ports of a detour; where Redis listens is known when it has started.
fn detour(options: &StackOptions, service: &str) -> anyhow::Result<Detour> {
    let kind = Kind::CONSUMERS.into_iter().find(|kind| service.starts_with(kind.name()));
    let kind = kind.with_context(|| format!("{service} has neither Redis nor Kafka"))?;
    let brokers = (0..options.brokers).map(|_| Ok(Hop { port: free_port()?, server_port: free_port()? }));
    let brokers = brokers.collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Detour { service: service.to_owned(), kind, redis: Hop { port: free_port()?, server_port: 0 }, brokers })
}

fn with_redis_ports(mut detours: Vec<Detour>, parts: &[Part]) -> anyhow::Result<Vec<Detour>> {
    for detour in &mut detours {
        let store = parts.iter().find(|part| Some(part.name.as_str()) == detour.kind.store());
        let Some(Part { runner: Runner::Redis(redis), .. }) = store else {
            anyhow::bail!("{} has no Redis", detour.service)
        };
        detour.redis.server_port = redis.port();
    }
    Ok(detours)
}

/// Makes the topics that are missing and checks the others.
pub(crate) async fn make_topics(options: &StackOptions, brokers: &str) -> anyhow::Result<()> {
    let mut wanted = Topics { partitions: options.partitions, ..Topics::on_one_broker(brokers)? };
    if options.brokers >= CLUSTER {
        (wanted.replication, wanted.min_insync) = (Some(3), Some(2));
    }
    topics::make(&wanted)
        .await
        .map(drop)
        .context("the topics cannot be used (--fresh starts again without the old data)")
}

/// Deletes the data of an earlier stack.
pub(crate) fn forget(dir: &Path) -> anyhow::Result<()> {
    let stores = Kind::CONSUMERS.iter().filter_map(|kind| kind.store()).map(str::to_owned);
    let brokers = std::iter::once(broker_name(1, 1)).chain((1..=CLUSTER).map(|node| broker_name(CLUSTER, node)));
    for name in stores.chain(brokers).chain(["logs".to_owned()]) {
        let folder = dir.join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| format!("delete {}", folder.display()))?;
        }
    }
    Ok(())
}

/// The positions in Redis belong to the logs of the brokers that wrote them.
pub(crate) fn refuse_other_cluster(options: &StackOptions) -> anyhow::Result<()> {
    let other = if options.brokers == 1 { broker_name(CLUSTER, 1) } else { broker_name(1, 1) };
    let is_there = options.dir.join(other).exists();
    anyhow::ensure!(
        !is_there,
        "the data in {} belongs to a stack with another number of brokers: --fresh forgets it",
        options.dir.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Data;

    #[test]
    fn data_of_another_number_of_brokers_is_refused_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = StackOptions::new(folder.path()).unwrap();
        assert_eq!(options.data, Data::Keep);
        std::fs::create_dir(folder.path().join("kafka")).unwrap();
        assert!(refuse_other_cluster(&options).is_ok());
        options.brokers = 3;
        assert!(refuse_other_cluster(&options).unwrap_err().to_string().contains("--fresh"));
        forget(folder.path()).unwrap();
        assert!(refuse_other_cluster(&options).is_ok());
    }
}
