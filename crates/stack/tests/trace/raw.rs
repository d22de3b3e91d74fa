//! A request with whatever headers and body a test wants.

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// POSTs and answers the status.
pub async fn post(address: String, path: &str, headers: &[(&str, String)], body: &str) -> anyhow::Result<u16> {
    let mut stream = TcpStream::connect(&address).await.with_context(|| format!("connect to {address}"))?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.context("read the answer")?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.with_context(|| format!("no status in {answer}"))
}
