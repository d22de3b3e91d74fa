//! Looks at the server now and then: for the metrics (memory, persistence, connections), and whether it may be believed, which a
//! store that nobody asks would never be again. On the shared connection, never on the committer's.

use std::sync::Weak;
use std::time::Duration;

use telemetry::metrics::{self, Gauge};

use crate::check::{field, text};
use crate::connection::{first_error, pipeline};
use crate::store::{Inner, STORE_ID_KEY};

/// Pause between two looks: what is looked at changes slowly, and INFO is not free.
const PAUSE: Duration = Duration::from_secs(10);

/// The only one with which nothing is forgotten.
const SAFE_POLICY: &str = "noeviction";

/// Fields of INFO that are shown as they are.
const NUMBERS: [(&str, &Gauge); 10] = [
    ("used_memory", &metrics::REDIS_MEMORY_USED),
    ("used_memory_rss", &metrics::REDIS_MEMORY_RESIDENT),
    ("maxmemory", &metrics::REDIS_MEMORY_LIMIT),
    ("aof_enabled", &metrics::REDIS_AOF_ENABLED),
    ("aof_current_size", &metrics::REDIS_AOF_SIZE),
    ("aof_rewrite_in_progress", &metrics::REDIS_AOF_REWRITING),
    ("aof_delayed_fsync", &metrics::REDIS_AOF_DELAYED_FSYNC),
    ("connected_clients", &metrics::REDIS_CLIENTS),
    ("uptime_in_seconds", &metrics::REDIS_UPTIME),
    ("loading", &metrics::REDIS_LOADING),
];

/// Fields of INFO that say `ok` or something else.
const STATES: [(&str, &Gauge); 2] = [
    ("aof_last_write_status", &metrics::REDIS_AOF_WRITE_OK),
    ("aof_last_bgrewrite_status", &metrics::REDIS_AOF_REWRITE_OK),
];

/// Looks until the store is dropped.
pub(crate) async fn watch(store: Weak<Inner>) {
    loop {
        match store.upgrade() {
            Some(store) => look(&store).await,
            None => return,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(store: &Inner) {
    let mut commands = pipeline();
    for section in ["server", "clients", "memory", "persistence", "stats"] {
        commands.cmd("INFO").arg(section);
    }
    commands.cmd("GET").arg(STORE_ID_KEY);
    // A store that is away is told by the committer.
    let Ok(mut replies) = store.reader.ask(&commands).await else { return };
    if first_error(&replies).is_err() {
        return;
    }
    // Trust remembers what is wrong.
    let _ = store.server.trust().check_id(replies.pop());
    let info: String = replies.into_iter().map(|reply| text(Some(reply))).collect();
    show(&info);
    store.server.trust().evicts(eviction(&info));
}

/// Why this server must not be trusted to keep what it was given; `None` if it may be.
fn eviction(info: &str) -> Option<String> {
    let evicted = field(info, "evicted_keys").and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
    let policy = field(info, "maxmemory_policy").unwrap_or(SAFE_POLICY);
    match (evicted, policy) {
        (0, SAFE_POLICY) => None,
        (0, policy) => Some(format!("maxmemory-policy is {policy}: set it to {SAFE_POLICY}")),
        (evicted, _) => Some(format!("it has evicted {evicted} keys: bring the data back, then restart it")),
    }
}

fn show(info: &str) {
    for (name, gauge) in NUMBERS {
        if let Some(value) = field(info, name).and_then(|value| value.parse::<f64>().ok()) {
            gauge.set(value, &[]);
        }
    }
    for (name, gauge) in STATES {
        if let Some(state) = field(info, name) {
            gauge.set(if state == "ok" { 1.0 } else { 0.0 }, &[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eviction_is_noticed() {
        let info = |policy: &str, evicted: u64| format!("maxmemory_policy:{policy}\r\nevicted_keys:{evicted}\r\n");
        assert_eq!(eviction(&info("noeviction", 0)), None);
        assert_eq!(eviction(""), None);
        assert!(eviction(&info("allkeys-lru", 0)).unwrap().contains("allkeys-lru"));
        assert!(eviction(&info("noeviction", 3)).unwrap().contains("3 keys"));
    }

    #[test]
    fn what_the_server_says_is_shown() {
        show(
            "# Memory\r\nused_memory:1048576\r\nmaxmemory:0\r\n# Persistence\r\nloading:0\r\naof_last_write_status:err\r\n",
        );
        let text = telemetry::metrics::render();
        for line in [
            "saga_redis_memory_used_bytes 1048576",
            "saga_redis_aof_last_write_ok 0",
            "saga_redis_memory_limit_bytes 0",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
