//! The whole system on one machine: Kafka, four Redis, the topics, the services, until a checkout could succeed; and
//! their end. Behind `./dev up` and the end-to-end tests.
//!
//! Deliberately not in it: what flows between the processes. Of its commands only `topics`, `secrets`, `quarantine` and
//! `fold-version` are for containers and clusters as well.

pub mod cli;
mod clocks;
mod fold_version;
mod http;
mod options;
mod plan;
mod poison;
mod progress;
mod quarantine;
mod ready;
mod secrets;
mod servers;
mod shop;
mod stack;
mod state;
mod table;
mod topics;

pub use clocks::Clocks;
pub use http::{Answer, Http, never_connected};
pub use local_servers::{Compilers, Lifetime, free_port};
pub use options::{DEFAULT_GATEWAY_PORT, DEFAULT_PARTITIONS, Data, Scope, StackOptions, repository};
pub use plan::{Detour, Hop, Kind};
pub use poison::{POISON, Poisoner};
pub use progress::Progress;
pub use quarantine::quarantined;
pub use ready::Look;
pub use servers::LONELY_HEAP_MB;
pub use shop::{Item, Order, Shop, User};
pub use stack::Stack;
pub use state::{ProcessInfo, StackState, Supervisor};
pub use topics::READ_TOPICS;
