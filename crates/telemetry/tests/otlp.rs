//! Spans, log lines and metrics of a checkout's hops arrive at a collector: one connected trace, and the same names as
//! in `/metrics`. A process has one subscriber, so this is one test.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use otlp_sink::{Link, Sink, Span, SpanKind};
use saga_core::ids::SagaId;
use telemetry::context::{
    self, ExecSpan, Message, RedisServer, RequestTrace, TraceContext, TransactionSpan, UpstreamSpan,
};
use telemetry::logs::LineFormat;
use telemetry::metrics;
use telemetry::setup::{Export, Identity, Sampling, start_with};

const ROUTE: &str = "/orders/checkout/{order_id}";

fn saga() -> SagaId {
    SagaId("01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("an id"))
}

/// The headers of a record as a consumer gets them.
fn on_the_wire(context: &TraceContext) -> Vec<(String, Bytes)> {
    context::to_headers(context).into_iter().map(|(name, value)| (name.to_owned(), Bytes::from(value))).collect()
}

/// One hop through a topic: sent with `parent`, taken out at the other end.
fn hop(topic: &str, about: &str, parent: &TraceContext) -> (tracing::Span, TraceContext) {
    let message = Message { topic, lane: 7, offset: None, saga: saga(), about: &about };
    let send = context::send_span(&message, parent);
    let received = context::from_headers(&on_the_wire(&context::of_span(&send, parent)));
    let process = context::process_span(&Message { offset: Some(42), ..message }, &received);
    let context = context::of_span(&process, &received).into_owned();
    (process, context)
}

/// Gateway, order-svc, inbox, commands, a Redis transaction.
async fn checkout() {
    let replica = "127.0.0.1:8080".parse().expect("address");
    let request = RequestTrace::begin("POST", ROUTE, "/orders/checkout/1", &HeaderMap::new());
    let upstream = UpstreamSpan::begin("POST", ROUTE, "/orders/checkout/1", replica, 1, request.context());
    let mut headers = HeaderMap::new();
    context::inject(&upstream.context(request.context()), &mut headers);
    let handler = RequestTrace::begin("POST", ROUTE, "/orders/checkout/1", &headers);
    let start = handler.run(async {
        context::note_saga(saga());
        tracing::info!(saga.id = %saga(), lines = 2, "inside a span");
        context::current()
    });
    let start = start.await;
    let (consumed, at_orchestrator) = hop("saga.inbox", "start", &start);
    let fold = context::fold_span("start", saga(), &consumed);
    context::ignored(&fold, "duplicate-start");
    let at_orchestrator = context::of_span(&fold, &at_orchestrator).into_owned();
    let (_stock, at_stock) = hop("stock.commands", "reserve", &at_orchestrator);
    let server = RedisServer::new("127.0.0.1", 6379);
    let parts: Vec<_> = [&at_stock, &at_orchestrator]
        .into_iter()
        .filter_map(|parent| TransactionSpan::begin(&server, parent))
        .collect();
    assert!(TransactionSpan::begin(&server, &TraceContext::default()).is_none());
    ExecSpan::begin(&server, 2, 3, parts.iter()).answered("done");
    parts.into_iter().for_each(|part| part.done(1));
    {
        let _scope = context::scope(&at_stock);
        tracing::warn!(saga.id = %saga(), "inside a scope");
    }
    tracing::info!("outside");
    upstream.answered(409);
    handler.answered(200);
    request.answered(503);
}

fn assert_connected(spans: &[&Span]) {
    let ids: BTreeSet<_> = spans.iter().map(|span| &span.id).collect();
    let roots: Vec<_> = spans.iter().filter(|span| span.parent.is_empty()).collect();
    assert_eq!(roots.len(), 1, "one root: {roots:?}");
    for span in spans.iter().filter(|span| !span.parent.is_empty()) {
        assert!(ids.contains(&span.parent), "{} has a parent that nobody sent", span.name);
    }
}

fn find<'a>(spans: &[&'a Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no span {name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_arrives_as_one_trace_with_its_lines_and_metrics() {
    let (sink, endpoint) = Sink::start().await;
    let identity = Identity { service: "order-svc", instance: "a".to_owned(), lines: LineFormat::Json };
    let telemetry = start_with(&identity, Some(Export::to(endpoint, Sampling::ALL))).expect("started");

    checkout().await;
    let unsampled = unrecorded_requests_stay_unrecorded().await;
    metrics::HTTP_PANICS.add(3, &[]);
    metrics::REDIS_QUEUE_DEPTH.set(2.5, &[("queue", "lane")]);
    metrics::GATEWAY_SECONDS.record(0.25, &[("route", "/a")]);
    let prometheus = metrics::render();
    telemetry.shutdown(Duration::from_secs(10)).await;

    let all = sink.spans();
    let root = all.iter().find(|span| span.kind == SpanKind::Server && span.parent.is_empty()).expect("the root");
    let spans: Vec<&Span> = all.iter().filter(|span| span.trace == root.trace).collect();
    assert_connected(&spans);
    assert_names_and_attributes(&spans);
    assert_summary(&all, &unsampled);
    assert_lines(&sink, &spans, &unsampled);
    assert_same_metrics(&sink, &prometheus);
    // After the end nothing is recorded any more.
    let late = RequestTrace::begin("GET", "/", "/", &HeaderMap::new());
    assert!(late.context().traceparent.is_empty());
}

fn assert_names_and_attributes(spans: &[&Span]) {
    assert!(spans.iter().all(|span| span.service == "order-svc"));
    let mut kinds = BTreeMap::new();
    for span in spans {
        *kinds.entry((span.name.as_str(), span.kind)).or_insert(0) += 1;
    }
    let expected = BTreeMap::from([
        (("POST /orders/checkout/{order_id}", SpanKind::Server), 2),
        (("POST /orders/checkout/{order_id}", SpanKind::Client), 1),
        (("send saga.inbox", SpanKind::Producer), 1),
        (("process saga.inbox", SpanKind::Consumer), 1),
        (("fold start", SpanKind::Internal), 1),
        (("send stock.commands", SpanKind::Producer), 1),
        (("process stock.commands", SpanKind::Consumer), 1),
        (("MULTI", SpanKind::Client), 2),
        (("MULTI batch", SpanKind::Client), 1),
    ]);
    assert_eq!(kinds, expected);
    let has = |name: &str, expected: &[(&str, &str)]| {
        let span = find(spans, name);
        for (key, value) in expected {
            assert_eq!(span.attributes.get(*key).map(String::as_str), Some(*value), "{key} of {span:?}");
        }
    };
    let saga = saga().to_string();
    has(
        "process stock.commands",
        &[
            ("messaging.system", "kafka"),
            ("messaging.operation.type", "process"),
            ("messaging.operation.name", "process"),
            ("messaging.destination.name", "stock.commands"),
            ("messaging.destination.partition.id", "7"),
            ("messaging.kafka.offset", "42"),
            ("messaging.consumer.group.name", "order-svc"),
            ("messaging.message.conversation_id", &saga),
            ("saga.id", &saga),
            ("saga.message", "reserve"),
        ],
    );
    has("fold start", &[("saga.id", &saga), ("saga.event", "start"), ("saga.ignored", "duplicate-start")]);
    let redis = [("db.system.name", "redis"), ("db.operation.name", "MULTI"), ("server.port", "6379")];
    has("MULTI", &redis);
    has("MULTI", &[("saga.redis.execs", "1")]);
    has("MULTI batch", &redis);
    has("MULTI batch", &[("db.operation.batch.size", "2"), ("saga.redis.transactions", "3")]);
    let batch = find(spans, "MULTI batch");
    let parts: Vec<&&Span> = spans.iter().filter(|span| span.name == "MULTI").collect();
    let linked: Vec<_> = parts.iter().map(|part| Link { trace: part.trace.clone(), id: part.id.clone() }).collect();
    assert_eq!(batch.links.len(), 2);
    assert!(linked.iter().all(|link| batch.links.contains(link)), "{batch:?}");
    assert!(parts.iter().all(|part| part.links == [Link { trace: batch.trace.clone(), id: batch.id.clone() }]));
    let http = |kind, key: &str| -> BTreeSet<String> {
        spans.iter().filter(|span| span.kind == kind).filter_map(|span| span.attributes.get(key).cloned()).collect()
    };
    assert_eq!(http(SpanKind::Server, "http.response.status_code"), ["200", "503"].map(str::to_owned).into());
    assert_eq!(http(SpanKind::Server, "saga.id"), [saga].into());
    assert_eq!(http(SpanKind::Client, "error.type"), ["409".to_owned()].into());
    assert_eq!(http(SpanKind::Client, "http.request.resend_count"), ["1".to_owned()].into());
}

/// The summary of a saga whose trace nobody records links to it.
fn assert_summary(all: &[Span], unsampled: &TraceContext) {
    let summary = all.iter().find(|span| span.name == "saga checkout").expect("the summary");
    assert_eq!(summary.parent, "");
    assert_eq!((summary.start_ns, summary.end_ns), (1_000_000_000, 3_500_000_000));
    let link = &summary.links[0];
    assert_eq!(format!("00-{}-{}-00", link.trace, link.id), unsampled.traceparent);
    let outcome = summary.attributes.get("saga.outcome").map(String::as_str);
    assert_eq!((outcome, summary.attributes["saga.reason"].as_str()), (Some("refused"), "out-of-stock"));
}

fn assert_lines(sink: &Sink, spans: &[&Span], unsampled: &TraceContext) {
    let logs = sink.logs();
    let line = |body: &str| logs.iter().find(|log| log.body == body).unwrap_or_else(|| panic!("no line {body}"));
    let saga = saga().to_string();
    let in_span = line("inside a span");
    let handler = spans.iter().find(|span| span.attributes.contains_key("saga.id") && span.kind == SpanKind::Server);
    let handler = handler.expect("the handler's span");
    assert_eq!((&in_span.trace, &in_span.span), (&handler.trace, &handler.id));
    assert_eq!((&in_span.attributes["saga.id"], &in_span.attributes["lines"]), (&saga, &"2".to_owned()));
    let in_scope = line("inside a scope");
    let process = find(spans, "process stock.commands");
    assert_eq!((&in_scope.trace, &in_scope.span, in_scope.level.as_str()), (&process.trace, &process.id, "WARN"));
    assert_eq!(line("outside").trace, "");
    let not_recorded = line("in a trace that nobody records");
    assert!(unsampled.traceparent.contains(&not_recorded.trace) && !not_recorded.trace.is_empty());
    assert!(logs.iter().all(|log| log.service == "order-svc"));
}

/// Every metric of one export is in the other, under the name that the rule makes of it, with the same labels and
/// values.
fn assert_same_metrics(sink: &Sink, prometheus: &str) {
    let mut exported = BTreeSet::new();
    for metric in sink.metrics() {
        let described = metrics::all().iter().find(|known| known.name() == metric.name);
        let described = described.unwrap_or_else(|| panic!("{} is not in the list", metric.name));
        assert_eq!((described.kind(), described.unit()), (metric.kind, metric.unit.as_str()), "{}", metric.name);
        exported.insert(described.prometheus_name());
        for (labels, value) in &metric.points {
            let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
            let suffix = if metric.kind == "histogram" { "_count" } else { "" };
            let series = match labels.is_empty() {
                true => format!("{}{suffix} ", described.prometheus_name()),
                false => format!("{}{suffix}{{{}}} ", described.prometheus_name(), labels.join(",")),
            };
            if metric.name.starts_with("saga.telemetry") {
                // It has counted its own export since.
                continue;
            }
            assert!(prometheus.contains(&format!("{series}{value}")), "{series}{value} in {prometheus}");
        }
    }
    let families = prometheus.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let shown: BTreeSet<String> = families.filter(|name| *name != "target_info").map(str::to_owned).collect();
    assert_eq!(exported, shown);
    for expected in ["saga_http_panics_total", "saga_redis_queue_depth", "saga_gateway_duration_seconds"] {
        assert!(shown.contains(expected), "{expected} in {shown:?}");
    }
}

/// Answers the context of a request whose caller said no.
async fn unrecorded_requests_stay_unrecorded() -> TraceContext {
    let mut incoming = HeaderMap::new();
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    incoming.insert("traceparent", traceparent.parse().expect("value"));
    let request = RequestTrace::begin("GET", "/", "/", &incoming);
    assert_eq!(request.context().traceparent, traceparent, "passed on as it came");
    let unsampled = request.context().clone();
    let current = request.run(async {
        tracing::info!("in a trace that nobody records");
        context::current()
    });
    assert_eq!(current.await, unsampled);
    let message = Message { topic: "t", lane: 0, offset: None, saga: saga(), about: &"start" };
    assert!(context::process_span(&message, &unsampled).is_disabled());
    assert!(context::send_span(&message, &TraceContext::default()).is_disabled());
    let mut outgoing = incoming.clone();
    context::inject(&TraceContext::default(), &mut outgoing);
    assert!(outgoing.is_empty(), "an empty context removes what is there");
    context::summarise(&context::Summary {
        saga: saga(),
        definition: "checkout",
        lane: 7,
        outcome: "refused",
        reason: "out-of-stock",
        started_ms: 1_000,
        ended_ms: 3_500,
        trace: &unsampled,
    });
    unsampled
}
