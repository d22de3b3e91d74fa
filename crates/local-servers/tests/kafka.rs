//! A real Kafka: it starts on free ports, and starts again over the same data after a kill.

use local_servers::{Kafka, KafkaOptions, accepts_connections, free_port, kafka_libs};

#[test]
fn it_starts_again_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut kafka = Kafka::start(folder.path(), KafkaOptions::default()).unwrap();
    let (port, pid) = (kafka.port(), kafka.pid());
    assert!(accepts_connections(port));
    kafka.kill().unwrap();
    assert!(!accepts_connections(port));
    kafka.restart().unwrap();
    assert_eq!(kafka.port(), port);
    assert_ne!(kafka.pid(), pid);
    drop(kafka);
    assert!(!accepts_connections(port));
}

#[test]
fn three_brokers_find_each_other_and_one_comes_back_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let voters: Vec<u16> = (0..3).map(|_| free_port().unwrap()).collect();
    let starting: Vec<_> = (1..=3_u32)
        .map(|node| {
            let (dir, voters) = (folder.path().join(node.to_string()), voters.clone());
            let controller_port = Some(voters[node as usize - 1]);
            let options = KafkaOptions { node, voters, controller_port, heap_mb: 256, ..KafkaOptions::default() };
            std::thread::spawn(move || Kafka::start(&dir, options).unwrap())
        })
        .collect();
    // A broker alone of three has no quorum and does not answer: that each start returned shows that they met.
    let mut brokers: Vec<Kafka> = starting.into_iter().map(|starting| starting.join().unwrap()).collect();
    brokers[0].kill().unwrap();
    brokers[0].restart().unwrap();
    assert!(brokers.iter().all(|broker| accepts_connections(broker.port())));
}

#[test]
fn brokers_take_their_classes_from_the_archive() {
    let folder = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(folder.path(), KafkaOptions::default()).unwrap();
    // An archive that does not fit the jars or the Java machine is not kept in memory.
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", kafka.pid())).unwrap();
    let folder = kafka_libs().unwrap().canonicalize().unwrap();
    let prefix = folder.with_file_name("classes-");
    assert!(maps.contains(prefix.to_str().unwrap()), "no {}*.jsa in memory", prefix.display());
}
