//! An endpoint that says yes to everything and reads none of it: for measurements, where a collector's own work would be
//! counted against the system.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, Full};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Server;
use tower::Service;

/// Frame of an empty message: not compressed, length 0.
const EMPTY_MESSAGE: Bytes = Bytes::from_static(&[0, 0, 0, 0, 0]);

/// Counts bytes and throws them away.
#[derive(Clone, Default)]
pub struct Discard {
    bytes: Arc<AtomicU64>,
}

impl Discard {
    /// Serves on a free port of this machine until the runtime ends; also says where.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start() -> (Self, String) {
        let discard = Self::default();
        let (incoming, endpoint) = crate::bind();
        let server = Server::builder()
            .add_service(Traces(discard.clone()))
            .add_service(Logs(discard.clone()))
            .add_service(Metrics(discard.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        (discard, endpoint)
    }

    /// The same on a thread of its own, until the process ends.
    pub fn start_thread() -> (Self, String) {
        crate::on_thread(Self::start)
    }

    /// Bytes of all messages so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    async fn answer(self, request: http::Request<Body>) -> Result<http::Response<Body>, Infallible> {
        let mut body = request.into_body();
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            self.bytes.fetch_add(length as u64, Ordering::Relaxed);
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let body = Full::new(EMPTY_MESSAGE).with_trailers(async move { Some(Ok(trailers)) });
        let mut response = http::Response::new(Body::new(body));
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        Ok(response)
    }
}

macro_rules! service {
    ($name:ident, $path:literal) => {
        #[derive(Clone)]
        struct $name(Discard);

        impl NamedService for $name {
            const NAME: &'static str = $path;
        }

        impl Service<http::Request<Body>> for $name {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<Body>) -> Self::Future {
                Box::pin(self.0.clone().answer(request))
            }
        }
    };
}
service!(Traces, "opentelemetry.proto.collector.trace.v1.TraceService");
service!(Logs, "opentelemetry.proto.collector.logs.v1.LogsService");
service!(Metrics, "opentelemetry.proto.collector.metrics.v1.MetricsService");
