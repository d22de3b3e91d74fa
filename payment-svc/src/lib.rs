//! Keeps users and their credit. Takes part in sagas as `payment` (`charge`).
//!
//! Deliberately not in it: orders, items, and anything about sagas but its own rule.

pub mod decide;
mod participant;
mod rest;
mod settings;
pub mod store;

use ::participant::host::{self, Names};
use tokio_util::sync::CancellationToken;

pub use crate::participant::Payment;
pub use crate::settings::Settings;

/// What this service is called.
pub const NAMES: Names = Names { service: "payment-svc", participant: "payment" };

/// Runs the service until `shutdown` is cancelled and it has drained.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let batch_init = settings.participant.batch_init;
    host::run(
        NAMES,
        &settings.participant,
        Payment,
        |store, shutdown| rest::router(store, shutdown, batch_init),
        shutdown,
    )
    .await
}
