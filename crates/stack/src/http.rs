//! A small HTTP/1 client for admin ports and for the gateway.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::header::HeaderMap;
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// A checkout may be answered as late as 30 s after it was asked for.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(40);

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{} is answered without JSON: {}", self.status, self.text()))
    }

    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// One header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Whether nobody took the connection, so that nothing was sent.
pub fn never_connected(error: &anyhow::Error) -> bool {
    error.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(hyper_util::client::legacy::Error::is_connect)
}

/// A client with a connection pool; clones share it.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client<HttpConnector, Empty<Bytes>>,
    timeout: Duration,
}

impl Default for Http {
    fn default() -> Self {
        Self::with_timeout(DEFAULT_TIMEOUT)
    }
}

impl Http {
    /// A client that gives up a request after `timeout`.
    pub fn with_timeout(timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { client: Client::builder(TokioExecutor::new()).build(connector), timeout }
    }

    /// Sends a request without a body and reads the whole answer, whatever its status.
    pub async fn send(&self, method: Method, url: &str) -> anyhow::Result<Answer> {
        self.send_with(method, url, &[]).await
    }

    /// The same, with headers.
    pub async fn send_with(&self, method: Method, url: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is no address"))?;
        let what = format!("{method} {url}");
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::new()).context("build a request")?;
        let exchange = async {
            let response = self.client.request(request).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        let answered = tokio::time::timeout(self.timeout, exchange).await;
        answered.with_context(|| format!("{what}: no answer within {:?}", self.timeout))?.context(what)
    }

    /// GET.
    pub async fn get(&self, url: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, url).await
    }

    /// POST without a body.
    pub async fn post(&self, url: &str) -> anyhow::Result<Answer> {
        self.send(Method::POST, url).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_port_that_nobody_has_is_told_from_a_server_that_hangs_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let hangs_up = async { drop(listener.accept().await.unwrap()) };
        let (answered, ()) = tokio::join!(async { Http::default().get(&url).await }, hangs_up);
        assert!(!never_connected(&answered.unwrap_err()));
        drop(listener);
        assert!(never_connected(&Http::default().get(&url).await.unwrap_err()));
    }
}
