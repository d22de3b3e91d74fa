//! The list of every metric, and the page of the docs made from it.

use super::Describe;

/// Every metric, in the order of their definition.
pub fn all() -> &'static [&'static dyn Describe] {
    ALL
}

static ALL: &[&dyn Describe] = &[
    &super::TELEMETRY_ITEMS,
    &super::CPU_STAGE_SECONDS,
    &super::HTTP_PANICS,
    &super::HTTP_CONNECTIONS,
    &super::UPSTREAM_READY,
    &super::GATEWAY_REQUESTS,
    &super::GATEWAY_SECONDS,
    &super::GATEWAY_IN_FLIGHT,
    &super::GATEWAY_REPEATS,
    &super::GATEWAY_GIVEN_UP,
    &super::GATEWAY_SHED,
    &super::REDIS_EXECS,
    &super::REDIS_BATCH_SIZE,
    &super::REDIS_EXEC_SECONDS,
    &super::REDIS_RETRIED,
    &super::REDIS_TURNS,
    &super::REDIS_SETTLED,
    &super::REDIS_CONNECTIONS,
    &super::REDIS_CONNECTED,
    &super::REDIS_QUEUE_DEPTH,
    &super::REDIS_MEMORY_USED,
    &super::REDIS_MEMORY_RESIDENT,
    &super::REDIS_MEMORY_LIMIT,
    &super::REDIS_AOF_ENABLED,
    &super::REDIS_AOF_WRITE_OK,
    &super::REDIS_AOF_REWRITE_OK,
    &super::REDIS_AOF_REWRITING,
    &super::REDIS_AOF_SIZE,
    &super::REDIS_AOF_DELAYED_FSYNC,
    &super::REDIS_CLIENTS,
    &super::REDIS_UPTIME,
    &super::REDIS_DISTRUSTED,
    &super::REDIS_LOADING,
    &super::PARTICIPANT_ANSWERS,
    &super::PARTICIPANT_STAGE_SECONDS,
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
    &super::STARTER_PENDING,
    &super::STARTER_PENDING_OLDEST,
    &super::STREAM_LANES,
    &super::STREAM_LAG_RECORDS,
    &super::STREAM_LANE_LAG,
    &super::STREAM_LANE_HALTED,
    &super::STREAM_LANE_HALTS,
    &super::STREAM_LANE_RESTARTS,
    &super::STREAM_DRAIN_OVERRUNS,
    &super::STREAM_MEMBER_RENEWALS,
    &super::STREAM_FETCHER_RENEWALS,
    &super::STREAM_REBALANCES,
    &super::KAFKA_CONNECTED,
    &super::PUBLISHED,
    &super::PUBLISH_FAILURES,
    &super::PUBLISH_QUEUE_FULL,
    &super::PUBLISHER_REPLACED,
    &super::QUARANTINED,
    &super::SAGAS_STARTED,
    &super::SAGAS_ENDED,
    &super::SAGAS_OPEN,
    &super::SAGAS_OPEN_BY_AGE,
    &super::SAGA_OLDEST,
    &super::SAGAS_ATTENTION,
    &super::SAGAS_PARKED,
    &super::FLOOR_AGE,
    &super::SAGA_SECONDS,
    &super::SAGA_STEP_SECONDS,
    &super::FOLD_BATCH_SIZE,
    &super::FOLD_IGNORED,
    &super::FOLD_ALARMS,
    &super::INBOX_APPENDED,
    &super::SAGAS_RESENT,
    &super::CHECKPOINTS,
    &super::CHECKPOINT_SECONDS,
    &super::CHECKPOINT_AGE,
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

    /// What a label may be called: its values come from the code, from definitions or from the number of lanes, never from a
    /// request.
    const LABELS: &[&str] = &[
        "age",
        "alarm",
        "cause",
        "direction",
        "fate",
        "kind",
        "lane",
        "occasion",
        "outcome",
        "participant",
        "port",
        "queue",
        "reason",
        "route",
        "signal",
        "stage",
        "state",
        "status",
        "topic",
        "upstream",
    ];

    #[test]
    fn no_label_is_an_id() {
        for metric in ALL {
            for label in metric.labels() {
                assert!(
                    LABELS.contains(label),
                    "{} has a label {label} that may have any number of values",
                    metric.name()
                );
            }
        }
    }

    #[test]
    #[should_panic(expected = "saga.http.panics has the labels []")]
    fn a_label_that_was_not_named_is_found_out() {
        super::super::HTTP_PANICS.add(1, &[("order_id", "1")]);
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
             the ones it has used at\n`/metrics` on its admin port, in Prometheus text, and exports them by OTLP when it is told \
             where to. The name in\n`/metrics` is made of the other by the rule of OpenTelemetry: dots become underscores, the unit \
             is spelled out at the end,\na counter ends in `_total`. Labels are few and bounded; an id is never a label.\n\n\
             | in `/metrics` | by OTLP | kind | labels | meaning |\n|---|---|---|---|---|\n",
        );
        for metric in ALL {
            let unit = if metric.unit().is_empty() { String::new() } else { format!(" in `{}`", metric.unit()) };
            let (prometheus, name) = (metric.prometheus_name(), metric.name());
            let (kind, labels, help) = (metric.kind(), metric.labels().join(", "), metric.help());
            let _ = writeln!(page, "| `{prometheus}` | `{name}`{unit} | {kind} | {labels} | {help} |");
        }
        page
    }
}
