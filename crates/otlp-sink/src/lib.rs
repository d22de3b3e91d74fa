//! A collector for tests and measurements: takes OTLP over gRPC and remembers it, or throws it away, or never answers.
//!
//! Deliberately not in it: storage, queries, anything of this system's own types.

mod discard;
mod seen;
mod silent;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use prost::Message as _;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

pub use discard::Discard;
pub use seen::{Link, Log, Metric, Span, SpanKind};
pub use silent::Silent;

/// Remembers everything that it receives, for as long as it lives: for tests, which are short.
#[derive(Clone, Default)]
pub struct Sink {
    received: Arc<Mutex<Received>>,
}

#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    logs: Vec<Log>,
    metrics: Vec<Metric>,
    /// As it came over the wire.
    raw: Vec<Vec<u8>>,
}

impl Sink {
    /// Serves on a free port of this machine until the runtime ends; also says where (`http://127.0.0.1:…`).
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start() -> (Self, String) {
        let sink = Self::default();
        let (incoming, endpoint) = bind();
        let server = Server::builder()
            .add_service(TraceServiceServer::new(sink.clone()))
            .add_service(LogsServiceServer::new(sink.clone()))
            .add_service(MetricsServiceServer::new(sink.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        (sink, endpoint)
    }

    /// The same on a thread of its own, until the process ends: for a program that starts its runtime later.
    pub fn start_thread() -> (Self, String) {
        on_thread(Self::start)
    }

    /// Every span so far, in the order of arrival.
    pub fn spans(&self) -> Vec<Span> {
        self.lock().spans.clone()
    }

    /// Every log line so far.
    pub fn logs(&self) -> Vec<Log> {
        self.lock().logs.clone()
    }

    /// Every metric of every export so far; the last one of a service and name is the newest.
    pub fn metrics(&self) -> Vec<Metric> {
        self.lock().metrics.clone()
    }

    /// Whether this text stands anywhere in what was received: names, attributes, bodies, resources.
    pub fn contains(&self, text: &str) -> bool {
        let needle = text.as_bytes();
        self.lock().raw.iter().any(|raw| raw.windows(needle.len()).any(|window| window == needle))
    }

    fn lock(&self) -> MutexGuard<'_, Received> {
        // Only whole lists are appended under the lock.
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let request = request.into_inner();
        let mut received = self.lock();
        received.raw.push(request.encode_to_vec());
        received.spans.extend(request.resource_spans.into_iter().flat_map(seen::spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Sink {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let request = request.into_inner();
        let mut received = self.lock();
        received.raw.push(request.encode_to_vec());
        received.logs.extend(request.resource_logs.into_iter().flat_map(seen::logs));
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Sink {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let request = request.into_inner();
        let mut received = self.lock();
        received.raw.push(request.encode_to_vec());
        received.metrics.extend(request.resource_metrics.into_iter().flat_map(seen::metrics));
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn bind() -> (TcpIncoming, String) {
    let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let endpoint = format!("http://{}", incoming.local_addr().expect("the address of a bound port"));
    (incoming, endpoint)
}

/// Runs a server on a thread and a runtime of its own.
fn on_thread<S: Send + 'static>(start: impl AsyncFnOnce() -> (S, String) + Send + 'static) -> (S, String) {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let _ = tell.send(start().await);
            std::future::pending::<()>().await;
        });
    });
    told.recv().expect("the server starts")
}
