//! A real Kafka: it starts on free ports, and starts again over the same data after a kill.

use local_servers::{Kafka, KafkaOptions, accepts_connections};

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
