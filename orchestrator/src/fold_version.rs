//! `/fold-version`: the operator's half of adopting a new version of the fold. Once every replica runs a program that knows
//! it, a record in each lane says so, and from there on that lane's new sagas run under it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use event_stream::{Lane, Outgoing};
use proto::Wire;
use saga_core::lane::FIRST_FOLD_VERSION;
use saga_core::record::InboxEvent;
use serde::Serialize;
use service_kit::problem::Problem;
use telemetry::metrics;

use crate::admin::Admin;
use crate::emit::INBOX;

/// How long Kafka may take to acknowledge the records of one request. Adopting again does no harm.
const ACKNOWLEDGED_DEADLINE: Duration = Duration::from_secs(20);

/// What one replica knows of the versions.
#[derive(Serialize)]
struct FoldVersions {
    /// This replica.
    instance: String,
    /// The highest version that its program knows.
    supported: u32,
    /// Lanes of all replicas together.
    partitions: u32,
    /// The lanes it owns with the version that each has adopted; none while it is loading or halted.
    lanes: BTreeMap<u32, Option<u32>>,
    /// The lowest version among these lanes.
    lowest: Option<u32>,
    /// The highest.
    highest: Option<u32>,
}

#[derive(Serialize)]
struct Adoption {
    /// Lanes that the record was appended to.
    appended: Vec<u32>,
    /// Lanes that had adopted the version before.
    standing: Vec<u32>,
    /// Lanes whose version is not known now: loading or halted. Ask again.
    unknown: Vec<u32>,
}

/// The routes.
pub fn router() -> Router<Arc<Admin>> {
    Router::new().route("/fold-version", get(show)).route("/fold-version/{version}", post(adopt))
}

async fn show(State(admin): State<Arc<Admin>>) -> Json<FoldVersions> {
    let lanes: BTreeMap<u32, Option<u32>> =
        versions(&admin).into_iter().map(|(lane, version)| (lane.0, version)).collect();
    let known = || lanes.values().flatten().copied();
    Json(FoldVersions {
        instance: admin.instance.clone(),
        supported: admin.supported_fold_version,
        partitions: admin.partitions,
        lowest: known().min(),
        highest: known().max(),
        lanes,
    })
}

async fn adopt(State(admin): State<Arc<Admin>>, Path(version): Path<String>) -> Response {
    let Ok(version) = version.parse::<u32>() else {
        return Problem::new(400, "bad-fold-version", "a fold version is a whole number").into_response();
    };
    let supported = admin.supported_fold_version;
    if !(FIRST_FOLD_VERSION..=supported).contains(&version) {
        let detail = format!(
            "this process knows the fold versions {FIRST_FOLD_VERSION} to {supported}: with {version} its lanes would halt; \
             nothing was changed"
        );
        return Problem::new(409, "fold-version-unsupported", detail).into_response();
    }
    let mut adoption = Adoption { appended: Vec::new(), standing: Vec::new(), unknown: Vec::new() };
    for (lane, standing) in versions(&admin) {
        match standing {
            None => adoption.unknown.push(lane.0),
            Some(standing) if standing >= version => adoption.standing.push(lane.0),
            Some(_) => adoption.appended.push(lane.0),
        }
    }
    match append(&admin, &adoption.appended, version).await {
        Ok(()) => Json(adoption).into_response(),
        Err(why) => {
            let detail = format!("it is not known which lanes have got the record: {why}; adopting again does no harm");
            Problem::new(503, "outcome-unknown", detail).into_response()
        }
    }
}

/// The owned lanes, and the versions of those that have been folded to the log's end.
fn versions(admin: &Admin) -> BTreeMap<Lane, Option<u32>> {
    let running = admin.registry.lanes();
    let version = |lane: &Lane| {
        let numbers = running.get(lane).map(|entry| &entry.numbers)?;
        numbers.live.load(Ordering::Relaxed).then(|| numbers.fold_version.load(Ordering::Relaxed))
    };
    admin.consumer.lanes().keys().map(|lane| (*lane, version(lane))).collect()
}

/// A lane that has moved on meanwhile gets the record all the same: it means the same to whoever owns it, and once.
async fn append(admin: &Admin, lanes: &[u32], version: u32) -> Result<(), String> {
    if lanes.is_empty() {
        return Ok(());
    }
    let payload = InboxEvent::FoldVersion(version).encode();
    let record =
        |lane: &u32| Outgoing { topic: INBOX.into(), lane: Lane(*lane), payload: payload.clone(), headers: Vec::new() };
    let sent = async {
        let receipt =
            admin.publisher.send(lanes.iter().map(record).collect()).await.map_err(|error| error.to_string())?;
        receipt.await.map_err(|error| error.to_string())
    };
    let acknowledged = tokio::time::timeout(ACKNOWLEDGED_DEADLINE, sent).await;
    acknowledged.unwrap_or_else(|_| Err("Kafka has not acknowledged in time".to_owned()))?;
    metrics::INBOX_APPENDED.add(lanes.len() as u64, &[("kind", "fold-version")]);
    tracing::info!(version, lanes = lanes.len(), "fold version appended");
    Ok(())
}
