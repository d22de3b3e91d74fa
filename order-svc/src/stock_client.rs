//! Asks stock-svc for the price of an item.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use service_kit::params::{MAX_AMOUNT, not_found};
use service_kit::problem::Problem;
use service_kit::upstream::{FetchError, UpstreamClient, Upstreams};
use telemetry::logs::Throttle;

/// How long the price may take, all replicas and repetitions together.
const PRICE_TIMEOUT: Duration = Duration::from_secs(2);

/// Where prices are found.
const PRICE_ROUTE: &str = "/stock/find/{item_id}";

/// While stock-svc is away every edit meets it.
static NO_PRICE: Throttle = Throttle::new(Duration::from_secs(1));

/// The replicas of stock-svc.
#[derive(Clone)]
pub struct StockClient {
    /// Who they are.
    pub upstreams: Arc<Upstreams>,
    /// Pooled connections.
    pub client: UpstreamClient,
}

#[derive(Deserialize)]
struct Item {
    price: u64,
}

impl StockClient {
    /// The price of this moment. `item_id` is a checked id.
    pub async fn price(&self, item_id: &str) -> Result<u64, Problem> {
        let path = format!("/stock/find/{item_id}");
        let found = self.upstreams.get_json::<Item>(&self.client, item_id, PRICE_ROUTE, &path, PRICE_TIMEOUT).await;
        match found {
            Ok(item) if item.price <= MAX_AMOUNT => Ok(item.price),
            Ok(item) => Err(away(&format!("a price of {} cannot be", item.price))),
            Err(FetchError::Status { status: 404, .. }) => Err(not_found("item", item_id)),
            Err(error) => Err(away(&error.to_string())),
        }
    }
}

fn away(why: &str) -> Problem {
    if let Some(held_back) = NO_PRICE.admit() {
        tracing::warn!(why, held_back, "no price from stock");
    }
    Problem::new(503, "stock-unavailable", "the price of the item cannot be asked for now; nothing was changed")
}
