//! Shows that nothing is lost and nothing happens twice: faults by a seeded plan under load, then an audit.
//!
//! The auditor shares no code with the services: it reads the stores and the results with readers of its own, from the
//! published formats in `proto/`, and judges them by the clients' history. What is linked of the services' own crates belongs to `stack`,
//! which starts them; nothing that reads or judges uses it.
//!
//! Deliberately not in it: a full disk, which this machine cannot make for one process alone, and Byzantine services.

pub mod audit;
pub mod campaign;
pub mod clients;
pub mod collect;
mod forwarder;
pub mod history;
pub mod plan;
mod remains;
pub mod report;
pub mod resp;
mod strike;
mod topics;
mod watch;
mod wire;
