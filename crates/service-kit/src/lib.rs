//! What every service process needs: settings, clock, backoff, signals, drain, HTTP serving, health and metrics port,
//! and the way to other services' replicas.
//!
//! Deliberately not in it: Kafka, Redis, business rules.

pub mod admin;
pub mod backoff;
pub mod client;
pub mod clock;
mod health;
pub mod http;
pub mod panics;
pub mod params;
pub mod problem;
pub mod process;
pub mod settings;
pub mod traced;
pub mod upstream;
