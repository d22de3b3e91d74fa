//! The list of every metric, and the page of the docs made from it.

use super::Describe;

/// Every metric, in the order of their definition.
pub fn all() -> &'static [&'static dyn Describe] {
    ALL
}

static ALL: &[&dyn Describe] = &[
    &super::HTTP_PANICS,
    &super::UPSTREAM_READY,
    &super::GATEWAY_REQUESTS,
    &super::GATEWAY_SECONDS,
    &super::GATEWAY_REPEATS,
    &super::GATEWAY_SHED,
    &super::REDIS_EXECS,
    &super::REDIS_BATCH_SIZE,
    &super::REDIS_EXEC_SECONDS,
    &super::REDIS_TURNS,
    &super::REDIS_SETTLED,
    &super::REDIS_CONNECTIONS,
    &super::REDIS_QUEUE_DEPTH,
    &super::PARTICIPANT_ANSWERS,
    &super::PARTICIPANT_REPEATED,
    &super::PARTICIPANT_IGNORED,
    &super::PARTICIPANT_ALARMS,
    &super::PARTICIPANT_CHUNK_SIZE,
    &super::STARTER_WINDOW_SIZE,
    &super::STARTER_STAGE_SECONDS,
    &super::IDEMPOTENCY_REQUESTS,
    &super::IDEMPOTENCY_RECORDS,
    &super::STARTER_REQUESTS,
    &super::STARTER_RESULTS,
    &super::STARTER_UNDO_NOTICES,
    &super::STARTER_IGNORED,
    &super::STARTER_RESENT,
    &super::STARTER_FENCED,
    &super::STARTER_DELIVERY_FAILED,
    &super::STARTER_ALARMS,
    &super::STARTER_WAITING,
    &super::STREAM_LANES,
    &super::STREAM_LAG_RECORDS,
    &super::STREAM_LANE_HALTS,
    &super::STREAM_LANE_RESTARTS,
    &super::STREAM_DRAIN_OVERRUNS,
    &super::STREAM_REBALANCES,
    &super::PUBLISHED,
    &super::PUBLISH_FAILURES,
    &super::PUBLISH_QUEUE_FULL,
    &super::PUBLISHER_REPLACED,
    &super::SAGAS_STARTED,
    &super::SAGAS_ENDED,
    &super::SAGAS_OPEN,
    &super::SAGA_SECONDS,
    &super::SAGA_STEP_SECONDS,
    &super::FOLD_BATCH_SIZE,
    &super::FOLD_IGNORED,
    &super::FOLD_ALARMS,
    &super::INBOX_APPENDED,
    &super::SAGAS_RESENT,
    &super::CHECKPOINTS,
    &super::CHECKPOINT_SECONDS,
    &super::UNACKNOWLEDGED,
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::path::Path;

    #[test]
    fn the_list_is_complete_and_names_are_unique() {
        let defined = include_str!("../metrics.rs").matches("\npub static ").count();
        assert_eq!(ALL.len(), defined, "a metric of metrics.rs is missing in the list of metrics/all.rs");
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.prometheus_name()).collect();
        assert_eq!(names.len(), ALL.len(), "two metrics have one name");
        for metric in ALL {
            let name = metric.name();
            assert!(name.starts_with("saga."), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte)), "{name}");
            assert!(!metric.help().is_empty(), "{name}");
        }
    }

    #[test]
    fn the_docs_name_every_metric() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
        let page = page();
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        if found == page {
            return;
        }
        let update = std::env::var("UPDATE_DOCS").is_ok_and(|value| value == "1");
        assert!(update, "docs/metrics.md does not say what the code says; run this test with UPDATE_DOCS=1");
        std::fs::write(&path, page).expect("docs/metrics.md");
    }

    fn page() -> String {
        let mut page = String::from(
            "# Metrics\n\nWritten by a test of `telemetry` from the code (`UPDATE_DOCS=1` rewrites it). Every process serves \
             the ones it has used at\n`/metrics` on its admin port, in Prometheus text. Labels are few and bounded; an id is \
             never a label.\n\n| in `/metrics` | kind | meaning |\n|---|---|---|\n",
        );
        for metric in ALL {
            let _ = writeln!(page, "| `{}` | {} | {} |", metric.prometheus_name(), metric.kind(), metric.help());
        }
        page
    }
}
