//! What every service process needs: settings, clock, backoff, signals, drain, HTTP serving, health and metrics port.
//!
//! Deliberately not in it: Kafka, Redis, business rules.

pub mod admin;
pub mod backoff;
pub mod http;
pub mod params;
pub mod problem;
pub mod process;
