//! Each rule notices its own violation: one is planted into the real file at a time.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::{file, rules};

/// Where something is planted, what, and part of the sentence that must follow.
fn plants() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("/services/gateway/read_only", json!(false), "gateway: its root file system can be written"),
        ("/services/gateway/privileged", json!(true), "it asks for privileged"),
        ("/services/gateway/cap_add", json!(["SYS_ADMIN"]), "it asks for cap_add"),
        ("/services/gateway/pid", json!("host"), "it asks for pid"),
        ("/services/gateway/cap_drop", json!(["NET_RAW"]), "it keeps capabilities"),
        ("/services/gateway/cap_drop", Value::Null, "it keeps capabilities"),
        ("/services/gateway/security_opt", json!([]), "it may gain privileges"),
        ("/services/gateway/user", json!("0:0"), "not a uid:gid above 0"),
        ("/services/gateway/user", json!("root"), "not a uid:gid above 0"),
        ("/services/gateway/user", Value::Null, "not a uid:gid above 0"),
        ("/services/gateway/deploy/resources/limits/memory", Value::Null, "no limit of memory"),
        ("/services/gateway/deploy/resources/limits/pids", Value::Null, "no limit of pids"),
        ("/services/redis-order/healthcheck", Value::Null, "redis-order: it has no health check"),
        ("/services/redis-order/healthcheck/test", json!(["NONE"]), "it has no health check"),
        ("/services/redis-order/healthcheck/test", json!(["CMD", "true"]), "it has no health check"),
        ("/services/gateway/healthcheck/test", json!(["CMD", "/usr/local/bin/gateway", "health"]), "ask readiness"),
        ("/services/gateway/restart", Value::Null, "it is not started again"),
        ("/services/gateway/restart", json!("no"), "it is a job that nobody waits for"),
        ("/services/gateway/logging", Value::Null, "its log has no end"),
        ("/services/gateway/logging/options/max-file", Value::Null, "its log has no end"),
        ("/services/kafka-1/image", json!("apache/kafka:latest"), "has no fixed tag"),
        ("/services/kafka-1/image", json!("apache/kafka"), "has no fixed tag"),
        ("/services/kafka-1/image", json!("registry.example:5000/kafka"), "has no fixed tag"),
        ("/services/redis-order/ports", json!([{"host_ip": "127.0.0.1", "target": 6379}]), "it publishes a port"),
        ("/services/gateway/ports", json!([{"published": "8000", "target": 8000}]), "to more than this machine"),
        ("/services/gateway/ports", json!(["8000:8000"]), "to more than this machine"),
        ("/services/stock-svc/networks", json!(["front"]), "network front leads outside"),
        ("/services/stock-svc/networks", Value::Null, "it is on the default network"),
        ("/services/stock-svc/network_mode", json!("host"), "its network is \"host\""),
        ("/networks/back/internal", json!(false), "network back leads outside"),
        ("/services/stock-svc/environment/REDIS_PASSWORD", json!("x"), "variable REDIS_PASSWORD holds a secret"),
        ("/services/redis-order/command", json!(["--requirepass", "x"]), "its command holds a secret"),
        ("/services/gateway/volumes", json!(["/var/run/docker.sock:/s:ro"]), "it can command the engine"),
        ("/services/gateway/volumes", json!(["./docker:/docker"]), "it can write ./docker"),
        (
            "/services/gateway/volumes",
            json!([{"type": "bind", "source": "/etc", "target": "/etc"}]),
            "it can write /etc of this machine",
        ),
        ("/services/gateway/container_name", json!("gateway"), "it cannot be scaled"),
        ("/services/stock-svc/deploy/replicas", json!(1), "it has 1 replicas, not 3"),
        ("/services/gateway/depends_on", json!(["order-svc"]), "it waits for a start only"),
        (
            "/services/gateway/depends_on/order-svc/condition",
            json!("service_started"),
            "it waits for order-svc otherwise than by service_healthy",
        ),
        (
            "/services/stock-svc/depends_on/topics/condition",
            json!("service_healthy"),
            "it waits for topics otherwise than by service_completed_successfully",
        ),
        ("/services/kafka-1", Value::Null, "topics: it waits for kafka-1, which is not there"),
        ("/services", json!({}), "there are no services"),
    ]
}

/// Plants one violation after the other.
pub fn each_is_noticed() -> anyhow::Result<()> {
    let clean = file::read()?;
    ensure!(rules::violations(&clean).is_empty(), "the file itself breaks rules");
    for (pointer, value, sentence) in plants() {
        let mut planted = clean.clone();
        plant(&mut planted, pointer, value.clone())?;
        let found = rules::violations(&planted);
        ensure!(
            found.iter().any(|violation| violation.contains(sentence)),
            "{pointer} = {value} was not noticed as \"{sentence}\": {found:?}"
        );
    }
    Ok(())
}

/// Sets what the pointer names; `null` takes it away.
fn plant(file: &mut Value, pointer: &str, value: Value) -> anyhow::Result<()> {
    let (parent, key) = pointer.rsplit_once('/').context("a pointer")?;
    let parent = file.pointer_mut(parent).and_then(Value::as_object_mut);
    let parent = parent.with_context(|| format!("the file has nothing at {pointer}"))?;
    match value {
        Value::Null => drop(parent.remove(key).with_context(|| format!("{pointer} is missing already"))?),
        value => drop(parent.insert(key.to_owned(), value)),
    }
    Ok(())
}
