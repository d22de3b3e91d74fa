//! Whether this replica can do its work.

use std::collections::BTreeMap;
use std::sync::Arc;

use event_stream::{Consumer, Publisher};
use redis_txn::Store;
use serde_json::json;
use service_kit::admin::Readiness;
use tokio_util::sync::CancellationToken;

/// What readiness is made of.
#[derive(Clone)]
pub struct Parts {
    /// The order store.
    pub store: Store,
    /// The producer of starts.
    pub publisher: Publisher,
    /// The consumer of results.
    pub consumer: Consumer,
    /// Cancelled: draining.
    pub shutdown: CancellationToken,
}

impl Parts {
    /// Looks now. Lanes that are halted do not make the replica unready; a replica without a lane can start nothing.
    pub fn look(&self) -> Readiness {
        let lanes = self.consumer.lanes();
        let loaded = lanes.values().filter(|lane| lane.loaded).count();
        let halted: BTreeMap<String, String> = lanes
            .iter()
            .filter_map(|(lane, status)| Some((lane.to_string(), status.halted.as_ref()?.to_string())))
            .collect();
        let all_loaded = lanes.values().all(|lane| lane.loaded || lane.halted.is_some());
        let (redis, kafka) = (self.store.is_healthy(), self.publisher.is_connected());
        let draining = self.shutdown.is_cancelled();
        let has_lanes = self.consumer.has_joined() && loaded > 0 && all_loaded;
        Readiness {
            ready: redis && kafka && has_lanes && !draining,
            details: json!({
                "redis": redis,
                "kafka": kafka,
                "draining": draining,
                "lanes": { "owned": lanes.len(), "loaded": loaded, "halted": halted },
            }),
        }
    }

    /// For the admin port.
    pub fn probe(self) -> Arc<dyn Fn() -> Readiness + Send + Sync> {
        Arc::new(move || self.look())
    }
}
