//! Canaries where secrets are: none of them may sing in a log line, a span or a metric. And every line is what a collector
//! of lines can read.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use stack::Http;

use crate::wait::until;
use crate::{EXPORTED, World, order_of_one, raw, saga_of};

/// What the services present to the collector.
pub const COLLECTOR_HEADER: &str = "api-key=canary-of-the-collector";

const CANARIES: [&str; 7] = [
    "canary-of-the-collector",
    "canary-in-the-authorization",
    "canary-in-the-cookie",
    "canary-in-a-header",
    "canary-in-the-idempotency-key",
    "canary-in-the-query",
    "canary-in-the-body",
];

pub(crate) async fn nothing_exported_holds_a_secret(world: Arc<World>) -> anyhow::Result<()> {
    let order = order_of_one(&world, 0).await?;
    let headers = [
        ("authorization", "Bearer canary-in-the-authorization".to_owned()),
        ("cookie", "session=canary-in-the-cookie".to_owned()),
        ("x-api-key", "canary-in-a-header".to_owned()),
        ("idempotency-key", "canary-in-the-idempotency-key".to_owned()),
    ];
    // A checkout that is refused, a route that does not exist, a number that is none: three ways through the code.
    for path in ["/orders/checkout/ORDER", "/no/such/route", "/payment/add_funds/nobody/much"] {
        let path = format!("{}?token=canary-in-the-query", path.replace("ORDER", &order));
        raw::post(world.gateway_address().await, &path, &headers, "canary-in-the-body").await?;
    }
    let saga = saga_of(&world, &order).await?;
    until("the saga has left its spans and lines", EXPORTED, async || {
        let is_of_saga = |id: Option<&String>| id.is_some_and(|id| *id == saga);
        let spans = world.sink.spans().iter().any(|span| is_of_saga(span.attributes.get("saga.id")));
        let lines = world.sink.logs().iter().any(|line| is_of_saga(line.attributes.get("saga.id")));
        (spans && lines && !world.sink.metrics().is_empty()).then_some(())
    })
    .await?;
    for canary in CANARIES {
        ensure!(!world.sink.contains(canary), "{canary} was exported");
    }
    let processes = world.stack.lock().await.processes();
    for process in processes.iter().filter(|process| process.admin_address.is_some()) {
        let lines = std::fs::read_to_string(&process.log_file).with_context(|| format!("log of {}", process.name))?;
        check_lines(&process.name, &lines)?;
        let admin = process.admin_address.as_deref().unwrap_or_default();
        let metrics = Http::default().get(&format!("http://{admin}/metrics")).await?.text();
        for canary in CANARIES {
            ensure!(!lines.contains(canary), "{canary} is in the log of {}", process.name);
            ensure!(!metrics.contains(canary), "{canary} is in the metrics of {}", process.name);
        }
    }
    Ok(())
}

/// Each line is one JSON object, and names the trace when it names a saga.
fn check_lines(process: &str, lines: &str) -> anyhow::Result<()> {
    ensure!(!lines.is_empty(), "{process} has written nothing");
    for line in lines.lines() {
        let value: Value = serde_json::from_str(line).with_context(|| format!("{process}: {line}"))?;
        for key in ["timestamp", "level", "target", "message"] {
            ensure!(value.get(key).is_some_and(Value::is_string), "{process}: no {key} in {line}");
        }
        let is_of_saga = value.get("saga.id").is_some_and(Value::is_string);
        ensure!(!is_of_saga || value.get("trace_id").is_some_and(Value::is_string), "{process}: no trace in {line}");
    }
    Ok(())
}
