//! Keeps items: how many pieces there are and what one costs. Takes part in sagas as `stock` (`reserve`).
//!
//! Deliberately not in it: orders, users, and anything about sagas but its own rule.

pub mod decide;
mod participant;
mod rest;
mod settings;
pub mod store;

use ::participant::Business;
use ::participant::host::{self, Names};
use tokio_util::sync::CancellationToken;

pub use crate::participant::Stock;
pub use crate::settings::Settings;

/// What this service is called.
pub const NAMES: Names = Names { service: "stock-svc", participant: "stock" };

/// Runs the service until `shutdown` is cancelled and it has drained.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    run_by(Stock, settings, shutdown).await
}

/// The same by another rule over the same items.
pub async fn run_by(rule: impl Business, settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let batch_init = settings.participant.batch_init;
    host::run(NAMES, &settings.participant, rule, |store, shutdown| rest::router(store, shutdown, batch_init), shutdown)
        .await
}
