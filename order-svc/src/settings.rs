//! The settings of order-svc.

use clap::Parser;
use event_stream::KafkaArgs;
use redis_txn::RedisArgs;
use service_kit::process::ProcessArgs;
use starter::window::Placement;

use crate::starting::Inputs;

/// Keeps orders and checks them out: starts sagas and hears how they end
#[derive(Clone, Debug, Parser)]
#[command(name = "order-svc", version)]
pub struct Settings {
    /// What every process has.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// The order store.
    #[command(flatten)]
    pub redis: RedisArgs,
    /// Replicas of stock-svc for prices: host:port,host:port or dns:host:port
    #[arg(long, env = "STOCK_UPSTREAMS", default_value = "127.0.0.1:8002")]
    pub stock_upstreams: String,
    /// Name of the definition that checks an order out
    #[arg(long, env = "CHECKOUT_DEFINITION", default_value = "checkout")]
    pub checkout_definition: String,
    /// What the steps of that definition get: the order's lines, or its user and total cost
    #[arg(long, env = "CHECKOUT_INPUTS", default_value = "reserve=lines,charge=total")]
    pub checkout_inputs: Inputs,
    /// How long a checkout waits for its end before it is answered 504, milliseconds
    #[arg(long, env = "CHECKOUT_WAIT_MS", default_value_t = 25_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub checkout_wait_ms: u64,
    /// Most checkouts that wait at once; more are answered 429
    #[arg(long, env = "MAX_WAITERS", default_value_t = 4_096, value_parser = waiters)]
    pub max_waiters: usize,
    /// Whether batch_init is served: on or off
    #[arg(long, env = "BATCH_INIT", default_value = "on", value_parser = batch_init)]
    pub batch_init: BatchInit,
    /// Lanes of checkouts that start together: window (one for all) or hashed (one for each, by the hash of its saga's id; for measuring only)
    #[arg(long, env = "PLACEMENT", default_value = "window", value_parser = placement)]
    pub placement: Placement,
}

/// Whether `batch_init` is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchInit {
    /// It is.
    On,
    /// It is answered 403.
    Off,
}

/// Most waiters that may be set: each costs some kilobytes.
const MAX_WAITERS: usize = 1_000_000;

fn waiters(text: &str) -> Result<usize, String> {
    let range = 1..=MAX_WAITERS;
    text.parse()
        .ok()
        .filter(|count| range.contains(count))
        .ok_or_else(|| format!("expected a number from 1 to {MAX_WAITERS}"))
}

fn batch_init(text: &str) -> Result<BatchInit, String> {
    match text {
        "on" => Ok(BatchInit::On),
        "off" => Ok(BatchInit::Off),
        _ => Err("expected on or off".to_owned()),
    }
}

fn placement(text: &str) -> Result<Placement, String> {
    match text {
        "window" => Ok(Placement::Window),
        "hashed" => Ok(Placement::Hashed),
        _ => Err("expected window or hashed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory;
    use service_kit::settings::{assert_documented, settings_page};

    use super::*;

    #[test]
    fn the_docs_say_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings/order-svc.md");
        assert_documented(&path, &settings_page("order-svc", &Settings::command()));
    }
}
