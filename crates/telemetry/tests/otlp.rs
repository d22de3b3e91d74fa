//! Spans of a checkout's hops arrive at an OTLP receiver as one connected trace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span as ExportedSpan;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use telemetry::context::{self, TraceContext};
use telemetry::setup::{Export, Identity, start_with};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tracing::Instrument;

/// What the receiver has got: spans with the service that sent them.
#[derive(Clone, Default)]
struct Receiver {
    spans: Arc<Mutex<Vec<(String, ExportedSpan)>>>,
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.spans.lock().expect("lock");
        for resource_spans in request.into_inner().resource_spans {
            let attributes = resource_spans.resource.map(|resource| resource.attributes).unwrap_or_default();
            let service = attributes.iter().find(|attribute| attribute.key == "service.name");
            let service = format!("{:?}", service.and_then(|attribute| attribute.value.clone()));
            let received = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(received.map(|span| (service.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn start_receiver() -> (Receiver, String) {
    let receiver = Receiver::default();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("address")).expect("bind");
    let endpoint = format!("http://{}", incoming.local_addr().expect("address"));
    let server = Server::builder().add_service(TraceServiceServer::new(receiver.clone()));
    tokio::spawn(server.serve_with_incoming(incoming));
    (receiver, endpoint)
}

/// The headers of a record as a consumer gets them.
fn on_the_wire(context: &TraceContext) -> Vec<(String, Bytes)> {
    context::to_headers(context).into_iter().map(|(name, value)| (name.to_owned(), Bytes::from(value))).collect()
}

/// One hop through a topic: sent with `parent`, taken out at the other end; the context of whoever handles it.
fn hop(topic: &str, parent: &TraceContext) -> TraceContext {
    let send = context::send_span(topic, 7, &"saga-1", parent);
    let received = context::from_headers(&on_the_wire(&context::of_span(&send, parent)));
    let process = context::process_span(topic, 7, &"saga-1", &received);
    context::of_span(&process, &received)
}

/// Gateway, order-svc, inbox, commands, a Redis transaction.
async fn checkout() {
    let from_client = HeaderMap::new();
    let request = context::http_span("POST", "/orders/checkout/{order_id}", &from_client);
    let upstream = context::client_span("POST", "order-svc", &request);
    let mut to_order_svc = HeaderMap::new();
    context::inject(&upstream, &from_client, &mut to_order_svc);
    let handler = context::http_span("POST", "/orders/checkout/{order_id}", &to_order_svc);
    let start = async { context::current() }.instrument(handler.clone()).await;
    let at_orchestrator = hop("saga.inbox", &start);
    let at_stock = hop("stock.commands", &at_orchestrator);
    drop(context::redis_span("EXEC", 3, [&TraceContext::default(), &at_stock, &at_orchestrator]));
    context::record_status(&handler, 200);
    context::record_status(&request, 503);
}

fn assert_connected(spans: &[(String, ExportedSpan)]) {
    let ids: BTreeSet<_> = spans.iter().map(|(_, span)| span.span_id.clone()).collect();
    let traces: BTreeSet<_> = spans.iter().map(|(_, span)| span.trace_id.clone()).collect();
    assert_eq!(traces.len(), 1, "one trace");
    let roots: Vec<_> = spans.iter().filter(|(_, span)| span.parent_span_id.is_empty()).collect();
    assert_eq!(roots.len(), 1, "one root: {roots:?}");
    for (_, span) in spans.iter().filter(|(_, span)| !span.parent_span_id.is_empty()) {
        assert!(ids.contains(&span.parent_span_id), "{} has a parent that nobody sent", span.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hops_and_more_are_one_connected_trace() {
    let (receiver, endpoint) = start_receiver().await;
    let identity = Identity { service: "order-svc", instance: "a".to_owned(), json_logs: true };
    let export = Export { endpoint: Some(endpoint), ratio: 1.0 };
    let telemetry = start_with(&identity, Some(export)).expect("started");

    checkout().await;
    unrecorded_requests_stay_unrecorded();
    telemetry.shutdown(Duration::from_secs(10)).await;

    let spans = receiver.spans.lock().expect("lock").clone();
    assert_connected(&spans);
    assert!(spans.iter().all(|(service, _)| service.contains("order-svc")), "{:?}", spans[0].0);
    let mut kinds = BTreeMap::new();
    for (_, span) in &spans {
        *kinds.entry((span.name.as_str(), span.kind())).or_insert(0) += 1;
    }
    let expected = BTreeMap::from([
        (("POST /orders/checkout/{order_id}", SpanKind::Server), 2),
        (("POST order-svc", SpanKind::Client), 1),
        (("send saga.inbox", SpanKind::Producer), 1),
        (("process saga.inbox", SpanKind::Consumer), 1),
        (("send stock.commands", SpanKind::Producer), 1),
        (("process stock.commands", SpanKind::Consumer), 1),
        (("EXEC", SpanKind::Client), 1),
    ]);
    assert_eq!(kinds, expected);
    let redis = spans.iter().find(|(_, span)| span.name == "EXEC").expect("redis");
    assert_eq!(redis.1.links.len(), 1, "linked to the other work in the batch");
    let process = spans.iter().find(|(_, span)| span.name == "process saga.inbox").expect("process");
    let attributes = format!("{:?}", process.1.attributes);
    for expected in ["messaging.message.conversation_id", "saga-1", "messaging.destination.partition.id", "kafka"] {
        assert!(attributes.contains(expected), "{expected} in {attributes}");
    }
    // After the end nothing is recorded any more.
    assert!(context::http_span("GET", "/", &HeaderMap::new()).is_disabled());
}

fn unrecorded_requests_stay_unrecorded() {
    let mut incoming = HeaderMap::new();
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    incoming.insert("traceparent", traceparent.parse().expect("value"));
    let span = context::http_span("GET", "/", &incoming);
    assert!(span.is_disabled(), "the caller said no");
    let mut outgoing = HeaderMap::new();
    context::inject(&span, &incoming, &mut outgoing);
    assert_eq!(outgoing["traceparent"], traceparent, "passed on as it came");
    let mut fresh = HeaderMap::new();
    context::inject(&span, &HeaderMap::new(), &mut fresh);
    assert!(fresh["traceparent"].to_str().expect("text").ends_with("-00"), "the next one does not begin a trace");
    assert!(context::http_span("GET", "/", &fresh).is_disabled());
    let unsampled = TraceContext { traceparent: traceparent.to_owned(), tracestate: String::new() };
    assert!(context::process_span("t", 0, &"s", &unsampled).is_disabled());
    assert!(context::send_span("t", 0, &"s", &TraceContext::default()).is_disabled());
}
