//! One checkout is one connected trace through all services, received by an OTLP server inside the test.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/wait.rs"]
mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use stack::{Shop, Stack};
use wait::until;

/// Spans are exported within this time after they have ended.
const EXPORTED: Duration = Duration::from_secs(20);
/// The services that a paid checkout passes.
const SERVICES: [&str; 5] = ["gateway", "order-svc", "orchestrator", "stock-svc", "payment-svc"];

struct World {
    shop: Shop,
    stack: Stack,
    spans: Spans,
}

fn main() -> ExitCode {
    let port = local_servers::free_port().expect("a free port");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let spans = Spans::default();
    let receiver = spans.clone();
    // A thread of its own: the receiver is there before the stack and until the end of the process.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(receiver)).serve(address);
        runtime.block_on(server).expect("the receiver serves");
    });
    common::run(
        |options| {
            options.envs.push(("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), format!("http://{address}")));
            options.envs.push(("OTEL_BSP_SCHEDULE_DELAY".to_owned(), "200".to_owned()));
        },
        |stack| World { shop: Shop::new(stack.gateway_url()), stack, spans },
        async |world: World| world.stack.stop().await.map(drop),
        vec![scenario!(paid_checkout_is_one_connected_trace), scenario!(undone_checkout_is_one_connected_trace)],
    )
}

async fn paid_checkout_is_one_connected_trace(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let item = shop.create_item(1, 5).await?;
    let user = shop.create_user(5).await?;
    let order = shop.create_order(&user, &[(&item, 1)]).await?;
    ensure!(shop.checkout(&order).await?.status == 200);
    // Start, two commands, two replies, result: each is produced once and consumed once.
    check_trace(&world, &order, 6).await
}

async fn undone_checkout_is_one_connected_trace(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let item = shop.create_item(2, 5).await?;
    let user = shop.create_user(1).await?;
    let order = shop.create_order(&user, &[(&item, 1)]).await?;
    ensure!(shop.checkout(&order).await?.status == 402);
    // Two undos and their replies more; payment has refused, and its undo is asked for all the same.
    check_trace(&world, &order, 10).await
}

async fn check_trace(world: &World, order: &str, hops: usize) -> anyhow::Result<()> {
    let saga = world.shop.find_order(order).await?.saga_id.context("the order has had a saga")?;
    let patience = until("the whole trace has arrived", EXPORTED, async || {
        let trace = world.spans.trace_of(&saga)?;
        (defect(&trace, hops).is_none()).then_some(())
    });
    if let Err(late) = patience.await {
        let trace = world.spans.trace_of(&saga).unwrap_or_default();
        let defect = defect(&trace, hops);
        return Err(late.context(format!("{defect:?} in {trace:#?}")));
    }
    Ok(())
}

/// What is wrong with the trace, if anything.
fn defect(trace: &[Seen], hops: usize) -> Option<String> {
    let ids: BTreeSet<&[u8]> = trace.iter().map(|span| span.id.as_slice()).collect();
    let roots: Vec<&Seen> = trace.iter().filter(|span| span.parent.is_empty()).collect();
    let [root] = roots.as_slice() else { return Some(format!("{} roots", roots.len())) };
    if root.service != "gateway" {
        return Some(format!("the root is {} of {}", root.name, root.service));
    }
    if let Some(orphan) = trace.iter().find(|span| !span.parent.is_empty() && !ids.contains(span.parent.as_slice())) {
        return Some(format!("{} of {} is an orphan", orphan.name, orphan.service));
    }
    let services: BTreeSet<&str> = trace.iter().map(|span| span.service.as_str()).collect();
    if let Some(missing) = SERVICES.iter().find(|service| !services.contains(*service)) {
        return Some(format!("{missing} is missing"));
    }
    let by_id: BTreeMap<&[u8], &Seen> = trace.iter().map(|span| (span.id.as_slice(), span)).collect();
    let consumers: Vec<&Seen> = trace.iter().filter(|span| span.kind == SpanKind::Consumer as i32).collect();
    let producers = trace.iter().filter(|span| span.kind == SpanKind::Producer as i32).count();
    if (producers, consumers.len()) != (hops, hops) {
        return Some(format!("{producers} records produced and {} consumed, not {hops}", consumers.len()));
    }
    let stray = consumers
        .iter()
        .find(|span| by_id.get(span.parent.as_slice()).is_none_or(|parent| parent.kind != SpanKind::Producer as i32));
    stray.map(|span| format!("the parent of {} of {} is not a producer", span.name, span.service))
}

/// One span as it was received.
#[derive(Clone, Debug)]
struct Seen {
    service: String,
    name: String,
    kind: i32,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    saga: Option<String>,
}

/// Everything that was received.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Seen>>>);

impl Spans {
    /// All spans of the trace that a saga's records belong to.
    fn trace_of(&self, saga: &str) -> Option<Vec<Seen>> {
        let spans = self.0.lock().expect("no panic under the lock");
        let trace = &spans.iter().find(|span| span.saga.as_deref() == Some(saga))?.trace;
        Some(spans.iter().filter(|span| span.trace == *trace).cloned().collect())
    }
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let mut spans = self.0.lock().expect("no panic under the lock");
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
            let service = text(&attributes, "service.name").unwrap_or_default();
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.push(Seen {
                    service: service.clone(),
                    saga: text(&span.attributes, "messaging.message.conversation_id"),
                    name: span.name,
                    kind: span.kind,
                    trace: span.trace_id,
                    id: span.span_id,
                    parent: span.parent_span_id,
                });
            }
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?;
    match value.value? {
        any_value::Value::StringValue(text) => Some(text),
        _ => None,
    }
}
