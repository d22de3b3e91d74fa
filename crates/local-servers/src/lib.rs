//! Real servers on this machine, for tests and for the local stack: a Redis, a Kafka, and the child processes they run
//! in. Each server has its own folder and its own port, and can be killed, paused and started again over the same data.
//!
//! Deliberately not in it: clients for these servers, topics, the services of the shop, async.

mod class_archive;
mod kafka;
mod kafka_settings;
mod ports;
mod process;
mod redis;
mod wait;

pub use kafka::{Compilers, Kafka, KafkaOptions, Listener, kafka_libs};
pub use ports::{free_port, refuse_port_in_use};
pub use process::{Lifetime, ManagedProcess, ProcessSpec, log_tail};
pub use redis::Redis;
pub use wait::{accepts_connections, wait_until};
