//! What kind of stack to start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use local_servers::{Compilers, Lifetime};

use crate::plan::Kind;

/// Lanes of every topic, unless said otherwise.
pub const DEFAULT_PARTITIONS: u32 = 100;
/// Port of the gateway that `./dev up` starts.
pub const DEFAULT_GATEWAY_PORT: u16 = 8000;
/// All services are ready some seconds after Kafka is; a machine that compiles meanwhile needs longer.
const DEFAULT_READY_DEADLINE: Duration = Duration::from_secs(120);

/// Whether data of an earlier stack in the same folder counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// It goes on with what is there.
    Keep,
    /// What is there is deleted first.
    Forget,
}

/// What is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Kafka, the four Redis and the five services.
    Everything,
    /// Kafka with the topics and the four Redis.
    ServersOnly,
}

/// What kind of stack to start.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// Folder of data, logs and state.
    pub dir: PathBuf,
    /// Partitions of every topic.
    pub partitions: u32,
    /// Brokers of Kafka: 1 or 3.
    pub brokers: u32,
    /// How a broker that is alone compiles: once if the stack lives for a minute or two.
    pub compilers: Compilers,
    /// How many of each service, the gateway apart.
    pub replicas: u32,
    /// How many gateways; the stack puts nothing before them, so clients choose one.
    pub gateways: u32,
    /// How many more of each are known to the others and not started: see [`Stack::start_spare`](crate::Stack::start_spare).
    pub spares: u32,
    /// Names of services whose connections to Redis and Kafka lead over ports at which somebody else forwards them: see
    /// [`Stack::detours`](crate::Stack::detours).
    pub detours: Vec<String>,
    /// Whether earlier data counts.
    pub data: Data,
    /// Port of the first gateway; a free one if `None`.
    pub gateway_port: Option<u16>,
    /// Whether it goes on when this process ends.
    pub lifetime: Lifetime,
    /// What is started.
    pub scope: Scope,
    /// Folder of the services' programs.
    pub programs: PathBuf,
    /// Programs from elsewhere that run in place of a service's own.
    pub own_programs: Vec<(Kind, PathBuf)>,
    /// Folder of the saga definitions.
    pub definitions: PathBuf,
    /// More environment variables for every service.
    pub envs: Vec<(String, String)>,
    /// More environment variables for single services: name of the service, name and value.
    pub own_envs: Vec<(String, String, String)>,
    /// More lines for the configuration of every Redis, name and value; the last one of a name counts.
    pub redis_settings: Vec<(String, String)>,
    /// More settings for every broker, name and value; the last one of a name counts.
    pub kafka_settings: Vec<(String, String)>,
    /// How long the services may take until they are ready.
    pub ready_deadline: Duration,
}

impl StackOptions {
    /// A stack in `dir` with one replica, on free ports, that ends with this process: what a test wants.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            partitions: DEFAULT_PARTITIONS,
            brokers: 1,
            compilers: Compilers::First,
            replicas: 1,
            gateways: 1,
            spares: 0,
            detours: Vec::new(),
            data: Data::Keep,
            gateway_port: None,
            lifetime: Lifetime::WithParent,
            scope: Scope::Everything,
            programs: programs_folder()?,
            own_programs: Vec::new(),
            definitions: repository().join("definitions"),
            envs: Vec::new(),
            own_envs: Vec::new(),
            redis_settings: Vec::new(),
            kafka_settings: Vec::new(),
            ready_deadline: DEFAULT_READY_DEADLINE,
        })
    }

    /// The program that runs as this service.
    pub(crate) fn program(&self, kind: Kind) -> PathBuf {
        let own = self.own_programs.iter().find(|(replaced, _)| *replaced == kind);
        own.map_or_else(|| self.programs.join(kind.name()), |(_, program)| program.clone())
    }
}

/// The root of the repository that this program was built from.
pub fn repository() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.ancestors().nth(2).unwrap_or(crate_folder).to_owned()
}

/// `STACK_PROGRAMS`, or the folder of this program; Cargo puts tests one folder below.
fn programs_folder() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("STACK_PROGRAMS") {
        return Ok(folder.into());
    }
    let program = std::env::current_exe().context("find this program")?;
    let folder = program.parent().context("find the folder of this program")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.to_owned())
}
