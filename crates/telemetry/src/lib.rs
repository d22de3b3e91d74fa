//! Makes every hop visible: logs, traces with context through Kafka headers, and every metric name.
//!
//! Deliberately not in it: business rules.

pub mod context;
pub mod metrics;
pub mod setup;
