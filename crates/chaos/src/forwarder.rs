//! Forwards a port of this machine to another one, and misbehaves when it is told to: what a network does.
//!
//! Toxiproxy does this and more, as a Go program that Debian has no package of; for three faults on this machine it
//! would cost every run of the tests a second toolchain and a module proxy.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// Bytes that one direction of a connection takes up before it passes them on.
const BUFFER_BYTES: usize = 64 * 1024;
/// Connections at the same time: a service has some dozens to Kafka.
const MAX_CONNECTIONS: usize = 1_024;

/// How the way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Bytes pass.
    Open,
    /// No byte passes in either direction and nobody is told; what waits passes when the way is open again.
    Severed,
    /// Whatever passes is late by so much.
    Slow(Duration),
    /// Every connection is reset, and every new one too.
    Reset,
}

/// One port from which somebody forwards. Dropping it closes the port.
#[derive(Debug)]
pub(crate) struct Forwarder {
    way: watch::Sender<Way>,
    accepting: JoinHandle<()>,
}

impl Forwarder {
    /// Forwards from `port` to `server_port`.
    pub(crate) async fn start(port: u16, server_port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.with_context(|| format!("listen on port {port}"))?;
        let (way, seen) = watch::channel(Way::Open);
        Ok(Self { way, accepting: tokio::spawn(accept(listener, server_port, seen)) })
    }

    /// From now on the way is like this.
    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, server_port: u16, way: watch::Receiver<Way>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        // An error concerns one connection that was closed before it was accepted.
        let Ok((client, _)) = listener.accept().await else { continue };
        let way = way.clone();
        tokio::spawn(async move {
            // Both ends see how it ended; nobody else has to know.
            let _ = carry(client, server_port, way).await;
            drop(place);
        });
    }
}

/// One connection, from its beginning to its end. `Err` too is the end of it.
async fn carry(mut client: TcpStream, server_port: u16, mut way: watch::Receiver<Way>) -> anyhow::Result<()> {
    if passable(&mut way).await? == Way::Reset {
        return Ok(client.set_zero_linger()?);
    }
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let both = async {
        tokio::try_join!(
            pump(&mut from_client, &mut to_server, way.clone()),
            pump(&mut from_server, &mut to_client, way.clone())
        )
    };
    let mut reset = way.clone();
    tokio::select! {
        ended = both => ended.map(drop),
        seen = reset.wait_for(|way| *way == Way::Reset) => {
            drop(seen?);
            client.set_zero_linger()?;
            server.set_zero_linger()?;
            Ok(())
        }
    }
}

async fn pump(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mut way: watch::Receiver<Way>,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if let Way::Slow(delay) = passable(&mut way).await? {
            tokio::time::sleep(delay).await;
            // It may have been severed in the meantime.
            passable(&mut way).await?;
        }
        if count == 0 {
            return Ok(to.shutdown().await?);
        }
        to.write_all(&buffer[..count]).await?;
    }
}

/// How the way is, once it is not severed.
async fn passable(way: &mut watch::Receiver<Way>) -> anyhow::Result<Way> {
    Ok(*way.wait_for(|way| *way != Way::Severed).await?)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::time::timeout;

    use super::*;

    /// Longest wait for what must come.
    const SOON: Duration = Duration::from_secs(10);
    /// So long nothing comes: then nothing passes.
    const SILENCE: Duration = Duration::from_millis(300);

    /// A server that says everything back, and a forwarder before it.
    async fn echo() -> (Forwarder, u16) {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server_port = server.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = server.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let port = stack::free_port().unwrap();
        (Forwarder::start(port, server_port).await.unwrap(), port)
    }

    async fn connect(port: u16) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap()
    }

    async fn said_back(stream: &mut TcpStream) -> std::io::Result<u8> {
        stream.write_all(b"x").await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn what_is_severed_passes_later_and_no_connection_is_lost() {
        let (forwarder, port) = echo().await;
        let mut stream = connect(port).await;
        assert_eq!(said_back(&mut stream).await.unwrap(), b'x');
        forwarder.set(Way::Severed);
        assert!(timeout(SILENCE, said_back(&mut stream)).await.is_err());
        let mut late = connect(port).await;
        assert!(timeout(SILENCE, said_back(&mut late)).await.is_err());
        forwarder.set(Way::Open);
        assert_eq!(timeout(SOON, stream.read_u8()).await.unwrap().unwrap(), b'x');
        assert_eq!(timeout(SOON, late.read_u8()).await.unwrap().unwrap(), b'x');
    }

    #[tokio::test]
    async fn what_is_slow_is_late_in_both_directions() {
        let (forwarder, port) = echo().await;
        let mut stream = connect(port).await;
        forwarder.set(Way::Slow(Duration::from_millis(150)));
        let begun = Instant::now();
        assert_eq!(said_back(&mut stream).await.unwrap(), b'x');
        assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_reset_ends_connections_and_refuses_new_ones_until_the_way_is_open() {
        let (forwarder, port) = echo().await;
        let mut stream = connect(port).await;
        assert_eq!(said_back(&mut stream).await.unwrap(), b'x');
        forwarder.set(Way::Reset);
        let error = timeout(SOON, stream.read_u8()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let mut refused = connect(port).await;
        assert!(timeout(SOON, said_back(&mut refused)).await.unwrap().is_err());
        forwarder.set(Way::Open);
        assert_eq!(said_back(&mut connect(port).await).await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn the_end_of_one_side_reaches_the_other() {
        let (_forwarder, port) = echo().await;
        let mut stream = connect(port).await;
        assert_eq!(said_back(&mut stream).await.unwrap(), b'x');
        stream.shutdown().await.unwrap();
        assert_eq!(timeout(SOON, stream.read(&mut [0])).await.unwrap().unwrap(), 0);
    }
}
