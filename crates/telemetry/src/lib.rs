//! Makes every hop visible: logs, traces with context through Kafka headers, and every metric name.
//!
//! **One occurrence, one call.** A crate has a module `events` with one function per thing that happens; it writes the log
//! line and counts, so that neither is forgotten and both say the same:
//!
//! ```
//! use telemetry::metrics::GATEWAY_SHED;
//!
//! /// A request was refused at the limit, before anything was sent.
//! fn shed(route: &str) {
//!     GATEWAY_SHED.add(1, &[]);
//!     tracing::debug!(route, "request shed");
//! }
//! shed("/orders/checkout/{order_id}");
//! assert!(telemetry::metrics::render().contains("saga_gateway_shed_total 1"));
//! ```
//!
//! Deliberately not in it: business rules.

pub mod context;
mod environment;
mod export;
pub mod logs;
pub mod metrics;
mod sampling;
pub mod setup;
pub mod stages;
