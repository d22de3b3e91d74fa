//! The settings of a broker: pure.

use std::fmt::Write as _;
use std::path::Path;

use crate::kafka::{KafkaOptions, Listener};

/// Copies of internal topics where there are enough brokers.
const COPIES: usize = 3;

/// The text of `server.properties`.
pub(crate) fn properties(data: &Path, port: u16, controller_port: u16, options: &KafkaOptions) -> String {
    let voters = if options.voters.is_empty() {
        format!("{}@127.0.0.1:{controller_port}", options.node)
    } else {
        let voters = (1..).zip(&options.voters).map(|(node, port)| format!("{node}@127.0.0.1:{port}"));
        voters.collect::<Vec<_>>().join(",")
    };
    let own = Listener { name: "CLIENTS".to_owned(), port, advertised_port: port };
    let listeners = || std::iter::once(&own).chain(&options.listeners);
    let joined = |texts: &mut dyn Iterator<Item = String>| texts.collect::<Vec<_>>().join(",");
    let mut text = format!(
        "process.roles=broker,controller\nnode.id={}\n\
         controller.quorum.voters={voters}\n\
         controller.listener.names=CONTROLLER\ninter.broker.listener.name=CLIENTS\n\
         listeners={},CONTROLLER://127.0.0.1:{controller_port}\n\
         advertised.listeners={}\n\
         listener.security.protocol.map={},CONTROLLER:PLAINTEXT\n\
         log.dirs={}\n",
        options.node,
        joined(&mut listeners().map(|one| format!("{}://127.0.0.1:{}", one.name, one.port))),
        joined(&mut listeners().map(|one| format!("{}://127.0.0.1:{}", one.name, one.advertised_port))),
        joined(&mut listeners().map(|one| format!("{}:PLAINTEXT", one.name))),
        data.display()
    );
    text.push_str(FIXED_SETTINGS);
    text.push_str(if options.voters.len() >= COPIES { CLUSTER_SETTINGS } else { LONELY_SETTINGS });
    let own_threads = options.listeners.iter().map(|one| {
        // One client each: the default of three threads per listener is for many.
        (format!("listener.name.{}.num.network.threads", one.name.to_lowercase()), "1".to_owned())
    });
    for (name, value) in own_threads.chain(options.settings.iter().cloned()) {
        // Infallible: it writes into a String.
        let _ = writeln!(text, "{name}={value}");
    }
    text
}

/// Groups that notice a dead member within seconds, a cluster that notices a dead broker within seconds, and small files
/// for many small partitions. The cleaner has a few offsets of groups to clean: its 128 MiB would be a quarter of the heap.
const FIXED_SETTINGS: &str = "\
auto.create.topics.enable=false
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=3000
group.consumer.session.timeout.ms=3000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=4194304
log.retention.check.interval.ms=10000
num.recovery.threads.per.data.dir=2
";

/// One broker alone.
const LONELY_SETTINGS: &str = "\
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
";

/// Three brokers. All of them end together when a stack does, and the last ones would wait for a quorum that is gone: so
/// they do not ask for leave before they end. Each fetch of a follower costs both sides something for every partition it
/// asks for, and at a quiet hour it brings one record: so the partitions are spread over several.
const CLUSTER_SETTINGS: &str = "\
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
default.replication.factor=3
min.insync.replicas=2
num.replica.fetchers=8
controlled.shutdown.enable=false
";

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, name: &str) -> String {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        lines.rfind(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
    }

    #[test]
    fn a_broker_alone_votes_alone() {
        let text = properties(Path::new("data"), 9092, 9093, &KafkaOptions::default());
        assert_eq!(value(&text, "controller.quorum.voters"), "1@127.0.0.1:9093");
        assert_eq!(value(&text, "listeners"), "CLIENTS://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093");
        assert_eq!(value(&text, "offsets.topic.replication.factor"), "1");
    }

    #[test]
    fn three_brokers_know_each_other_and_keep_three_copies() {
        let options = KafkaOptions { node: 2, voters: vec![7001, 7002, 7003], ..KafkaOptions::default() };
        let text = properties(Path::new("data"), 9092, 7002, &options);
        assert_eq!(value(&text, "node.id"), "2");
        let voters = "1@127.0.0.1:7001,2@127.0.0.1:7002,3@127.0.0.1:7003";
        assert_eq!(value(&text, "controller.quorum.voters"), voters);
        assert_eq!(value(&text, "offsets.topic.replication.factor"), "3");
        assert_eq!(value(&text, "min.insync.replicas"), "2");
    }

    #[test]
    fn clients_of_another_listener_are_told_to_come_another_way() {
        let listeners = vec![Listener { name: "DETOUR1".to_owned(), port: 9100, advertised_port: 9200 }];
        let options = KafkaOptions { listeners, ..KafkaOptions::default() };
        let text = properties(Path::new("data"), 9092, 9093, &options);
        assert!(value(&text, "listeners").contains("DETOUR1://127.0.0.1:9100,CONTROLLER"));
        let advertised = "CLIENTS://127.0.0.1:9092,DETOUR1://127.0.0.1:9200";
        assert_eq!(value(&text, "advertised.listeners"), advertised);
        assert!(value(&text, "listener.security.protocol.map").contains("DETOUR1:PLAINTEXT"));
    }
}
