//! An Apache Kafka broker (KRaft, broker and controller in one process), alone or in a cluster, run from its jars.

use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use crate::class_archive::Jars;
use crate::kafka_settings;
use crate::ports::{free_port, refuse_port_in_use};
use crate::process::{Lifetime, ManagedProcess, ProcessSpec, log_tail};
use crate::wait::{connect, wait_until};

/// 4 s on a free machine; a busy one and a log that must be recovered after a kill take longer.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// Any id does: no other cluster is near.
const CLUSTER_ID: &str = "local-servers-kafka-00";
/// Where `./dev setup` puts the jars, below the root of the repository.
const LIBS_BELOW_ROOT: &str = ".cache/kafka-4.1.0/libs";
/// The second compiler stays away.
const FIRST_COMPILER: &str = "-XX:TieredStopAtLevel=1";
const LOGGING: &str = include_str!("../kafka/log4j2.xml");

/// How to run a broker.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// Port for clients; a free one if `None`.
    pub port: Option<u16>,
    /// Port on which the broker talks to its own controller; a free one if `None`.
    pub controller_port: Option<u16>,
    /// Largest heap of the Java machine, MiB.
    pub heap_mb: u32,
    /// Which compilers of the Java machine work.
    pub compilers: Compilers,
    /// Its number in the cluster, from 1.
    pub node: u32,
    /// Controller ports of all brokers of the cluster, in the order of their numbers; empty if it is alone.
    pub voters: Vec<u16>,
    /// More ports for clients.
    pub listeners: Vec<Listener>,
    /// More broker settings; the last one of a name counts.
    pub settings: Vec<(String, String)>,
    /// How long it lives.
    pub lifetime: Lifetime,
}

/// How the Java machine compiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compilers {
    /// Once and quickly: half the CPU time until it answers. For brokers that live for seconds or minutes.
    First,
    /// Twice, as it does by itself: for brokers that live longer.
    Both,
}

/// A port for clients that come another way: they are told to connect to another port, from which somebody forwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Capital letters and digits.
    pub name: String,
    /// Where the broker listens.
    pub port: u16,
    /// Where its clients connect.
    pub advertised_port: u16,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            port: None,
            controller_port: None,
            heap_mb: 512,
            compilers: Compilers::First,
            node: 1,
            voters: Vec::new(),
            listeners: Vec::new(),
            settings: Vec::new(),
            lifetime: Lifetime::WithParent,
        }
    }
}

/// A running broker.
#[derive(Debug)]
pub struct Kafka {
    process: ManagedProcess,
    port: u16,
    log_file: PathBuf,
}

impl Kafka {
    /// Starts a broker over the data in `dir` (formatted on first use) and waits until it answers clients.
    pub fn start(dir: &Path, options: KafkaOptions) -> anyhow::Result<Self> {
        Self::start_from(&Jars::with_archive(kafka_libs()?), dir, options)
    }

    /// The same from these jars.
    pub(crate) fn start_from(jars: &Jars, dir: &Path, options: KafkaOptions) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let dir = dir.canonicalize().with_context(|| format!("find {}", dir.display()))?;
        let port = port_or_free(options.port)?;
        let controller_port = port_or_free(options.controller_port)?;
        refuse_port_in_use(port)?;
        let configuration = write_configuration(&dir, port, controller_port, &options)?;
        format_storage(&dir, jars, &configuration)?;
        let process = ManagedProcess::spawn(java(&dir, jars, &configuration, port, &options))?;
        let mut kafka = Self { process, port, log_file: dir.join("kafka.log") };
        kafka.wait_until_ready()?;
        Ok(kafka)
    }

    /// Bootstrap address, `host:port`.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port for clients.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The broker's log.
    pub fn log_file(&self) -> &Path {
        &self.log_file
    }

    /// The child process.
    pub fn process(&mut self) -> &mut ManagedProcess {
        &mut self.process
    }

    /// SIGKILL; what was acknowledged is in the page cache and so not lost.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()
    }

    /// Starts it again (after a kill if it still runs) on the same port over the same data, and waits until it answers.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.process.restart()?;
        self.wait_until_ready()
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.process.pause()
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.process.resume()
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let Self { process, port, .. } = self;
        let mut ended = false;
        let answered = wait_until(START_DEADLINE, || {
            ended = process.exit_status().is_some();
            ended || answers_api_versions(*port)
        });
        if answered && !ended {
            return Ok(());
        }
        let error = process.failure("did not start");
        Err(error.context(format!("the end of {}:\n{}", self.log_file.display(), log_tail(&self.log_file))))
    }
}

/// The folder with Kafka's jars: `KAFKA_LIBS`, or where `./dev setup` puts them in the repository that holds this
/// crate's sources, the working folder or the running program.
pub fn kafka_libs() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("KAFKA_LIBS") {
        let folder = PathBuf::from(folder);
        anyhow::ensure!(has_broker(&folder), "KAFKA_LIBS is {}, which holds no Kafka jars", folder.display());
        return Ok(folder);
    }
    let starts =
        [Some(PathBuf::from(env!("CARGO_MANIFEST_DIR"))), std::env::current_dir().ok(), std::env::current_exe().ok()];
    let mut candidates =
        starts.iter().flatten().flat_map(|start| start.ancestors()).map(|root| root.join(LIBS_BELOW_ROOT));
    candidates.find(|folder| has_broker(folder)).context("Kafka's jars are missing: run ./dev setup")
}

fn has_broker(folder: &Path) -> bool {
    let Ok(entries) = folder.read_dir() else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("kafka-server-"))
}

fn port_or_free(port: Option<u16>) -> anyhow::Result<u16> {
    port.map_or_else(free_port, Ok)
}

fn write_configuration(dir: &Path, port: u16, controller_port: u16, options: &KafkaOptions) -> anyhow::Result<PathBuf> {
    let path = dir.join("server.properties");
    let text = kafka_settings::properties(&dir.join("data"), port, controller_port, options);
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    std::fs::write(dir.join("log4j2.xml"), LOGGING).context("write the logging configuration")?;
    Ok(path)
}

fn java(dir: &Path, jars: &Jars, configuration: &Path, port: u16, options: &KafkaOptions) -> ProcessSpec {
    let mut args = jars.broker_options();
    if options.compilers == Compilers::First {
        args.push(FIRST_COMPILER.into());
    }
    args.extend([
        format!("-Xmx{}m", options.heap_mb).into(),
        format!("-Xms{}m", options.heap_mb / 2).into(),
        // What a broker makes new lives for one request: the more room it has, the fewer the pauses.
        format!("-Xmn{}m", options.heap_mb / 4).into(),
        "-XX:+UseSerialGC".into(),
        "-XX:+ExitOnOutOfMemoryError".into(),
        "-Djava.awt.headless=true".into(),
        format!("-Dlog4j2.configurationFile={}", dir.join("log4j2.xml").display()).into(),
        format!("-Dkafka.log.file={}", dir.join("kafka.log").display()).into(),
        "kafka.Kafka".into(),
        configuration.into(),
    ]);
    ProcessSpec {
        name: format!("Kafka on port {port}"),
        program: PathBuf::from("java"),
        args,
        envs: Vec::new(),
        // What the Java machine itself says; Kafka's own words go to kafka.log, which has a limit.
        log_file: dir.join("java.log"),
        lifetime: options.lifetime,
    }
}

fn format_storage(dir: &Path, jars: &Jars, configuration: &Path) -> anyhow::Result<()> {
    if dir.join("data/meta.properties").exists() {
        return Ok(());
    }
    let output = Command::new("java")
        .args(["-Xmx128m", "-XX:+UseSerialGC", FIRST_COMPILER])
        .args(jars.tool_options())
        .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
        .arg(configuration)
        .output()
        .context("java cannot be started: run ./dev setup")?;
    anyhow::ensure!(
        output.status.success(),
        "formatting Kafka's storage in {} failed: {}{}",
        dir.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Asks for the supported versions (request 18, version 0), the first thing that every client asks. The broker opens
/// its port early and answers once it is fit for work.
fn answers_api_versions(port: u16) -> bool {
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    let ask = || -> std::io::Result<[u8; 10]> {
        let mut stream = connect(port)?;
        stream.write_all(&REQUEST)?;
        let mut answer = [0; 10];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    // Length, correlation id 7, error code 0.
    matches!(ask(), Ok(answer) if answer[4..] == [0, 0, 0, 7, 0, 0])
}
