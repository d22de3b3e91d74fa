//! An orchestrator in the test's own process, so that it can play a program which knows another version of the fold.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use clap::Parser;
use local_servers::free_port;
use orchestrator::Build;
use orchestrator::settings::Settings;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{LANES, PATIENCE, Stack, eventually};

/// One orchestrator in this process, as a program that knows the fold up to some version.
pub struct Program {
    port: u16,
    shutdown: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Program {
    pub fn start(stack: &Stack, name: &str, supported: u32) -> Self {
        Self::start_as(Build { supported_fold_version: supported, probe: None }, stack, name)
    }

    pub fn start_as(build: Build, stack: &Stack, name: &str) -> Self {
        let port = free_port().unwrap();
        let settings = Settings::parse_from([
            "orchestrator".to_owned(),
            format!("--instance={name}"),
            format!("--admin-listen=127.0.0.1:{port}"),
            format!("--kafka-brokers={}", stack.kafka.brokers()),
            format!("--partitions={LANES}"),
            format!("--redis={}", stack.redis.address()),
            format!("--definitions-dir={}", stack.definitions().display()),
            "--checkpoint-interval-ms=100".to_owned(),
        ]);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(orchestrator::run_as(build, settings, shutdown.clone()));
        Self { port, shutdown, running }
    }

    pub fn ask(&self, verb: &str, path: &str) -> Option<(u16, Value)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        write!(stream, "{verb} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).ok()?))
    }

    /// The versions of the lanes that are folded here.
    pub fn versions(&self) -> Option<Vec<(u32, u32)>> {
        let (_, answer) = self.ask("GET", "/fold-version")?;
        let version = |(lane, version): (&String, &Value)| Some((lane.parse().ok()?, version.as_u64()? as u32));
        Some(answer["lanes"].as_object()?.iter().filter_map(version).collect())
    }

    pub async fn has(&self, count: u32) -> Vec<u32> {
        let lanes = || self.versions().filter(|lanes| lanes.len() == count as usize);
        let lanes = eventually(&format!("{count} lanes are folded on port {}", self.port), lanes).await;
        lanes.into_iter().map(|(lane, _)| lane).collect()
    }

    pub async fn stands_at(&self, version: u32) {
        let all = || self.versions()?.iter().all(|(_, standing)| *standing == version).then_some(());
        eventually(&format!("all lanes of port {} are at version {version}", self.port), all).await;
    }

    pub async fn halted(&self, count: usize) -> Vec<(u32, String)> {
        let halted = || {
            let (_, answer) = self.ask("GET", "/readyz")?;
            let halted = answer["details"]["lanes"]["halted"].as_object()?;
            let lane = |(lane, why): (&String, &Value)| (lane.parse().unwrap(), why.as_str().unwrap().to_owned());
            (halted.len() == count).then(|| halted.iter().map(lane).collect())
        };
        eventually(&format!("{count} lanes are halted on port {}", self.port), halted).await
    }

    pub async fn end(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.running).await.expect("it ends").unwrap().unwrap();
    }
}
