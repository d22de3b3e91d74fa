//! A running stack and its parts.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use local_servers::{Kafka, ManagedProcess, ProcessSpec, Redis, free_port, kafka_libs, refuse_port_in_use};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{block_in_place, spawn_blocking};

use crate::http::Http;
use crate::options::{Data, Scope, StackOptions};
use crate::plan::{self, Detour, Kind, Servers, ServicePlan, address};
use crate::progress::Progress;
use crate::ready::{self, Look};
use crate::servers::{self, StartedServers};
use crate::state::{ProcessInfo, StackState, running_since};

/// Pause between two looks at the services.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Pause between two looks at a process that shall end.
const END_INTERVAL: Duration = Duration::from_millis(20);
/// A service that does not answer its admin port in this time is not ready.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Kafka, Redis and services on this machine. Dropping it kills them all; it needs a runtime with several threads.
#[derive(Debug)]
pub struct Stack {
    parts: Vec<Part>,
    spares: Vec<ServicePlan>,
    servers: Servers,
    gateway_url: String,
    options: StackOptions,
    http: Http,
}

#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) address: String,
    pub(crate) admin_address: Option<String>,
    pub(crate) log_file: PathBuf,
    pub(crate) runner: Runner,
}

#[derive(Debug)]
pub(crate) enum Runner {
    Kafka(Kafka),
    Redis(Redis),
    Service(ManagedProcess),
}

impl Runner {
    fn process(&mut self) -> &mut ManagedProcess {
        match self {
            Runner::Kafka(kafka) => kafka.process(),
            Runner::Redis(redis) => redis.process(),
            Runner::Service(process) => process,
        }
    }

    fn pid(&self) -> u32 {
        match self {
            Runner::Kafka(kafka) => kafka.pid(),
            Runner::Redis(redis) => redis.pid(),
            Runner::Service(process) => process.pid(),
        }
    }
}

impl Stack {
    /// Starts everything and waits until a checkout could succeed. If that fails, nothing is left running.
    pub async fn start(options: StackOptions, progress: &Progress) -> anyhow::Result<Self> {
        let mut stack = Self::start_servers(options, progress).await?;
        if stack.options.scope == Scope::Everything {
            stack.start_services(progress).await?;
        }
        progress.finish();
        Ok(stack)
    }

    /// The first half of [`start`](Self::start): Kafka with the topics and the four Redis.
    pub async fn start_servers(options: StackOptions, progress: &Progress) -> anyhow::Result<Self> {
        let options = prepare(options)?;
        progress.stage("starting Kafka and Redis");
        let StartedServers { servers, parts } = servers::start(&options).await?;
        progress.stage("making the topics");
        servers::make_topics(&options, &servers.brokers).await?;
        let (gateway_url, http) = (String::new(), Http::with_timeout(LOOK_TIMEOUT));
        Ok(Self { parts, spares: Vec::new(), servers, gateway_url, http, options })
    }

    /// The second half: the services. Whoever forwards on the ports of [`detours`](Self::detours) must be there by now.
    pub async fn start_services(&mut self, progress: &Progress) -> anyhow::Result<()> {
        let plans = plan::services(&self.options, &self.servers, free_port)?;
        progress.stage("starting the services");
        for plan in plans {
            if plan.is_spare {
                self.spares.push(plan);
            } else {
                self.start_service(plan)?;
            }
        }
        self.wait_until_ready(progress).await
    }

    /// The ports over which the services that were asked for reach their servers.
    pub fn detours(&self) -> &[Detour] {
        &self.servers.detours
    }

    /// Bootstrap addresses of all brokers.
    pub fn brokers(&self) -> &str {
        &self.servers.brokers
    }

    /// Starts one more replica that the others know already; `stock-svc-4` where three run.
    pub fn start_spare(&mut self, name: &str) -> anyhow::Result<()> {
        anyhow::ensure!(self.process(name).is_err(), "{name} runs already");
        let plan = self.spares.iter().find(|plan| plan.name == name).cloned();
        self.start_service(plan.with_context(|| format!("no spare {name}"))?)
    }

    /// Ends a replica that was started as a spare: SIGTERM, and SIGKILL after the deadline. Does not block the thread: it
    /// may be the one that load comes from.
    pub async fn stop_spare(&mut self, name: &str, deadline: Duration) -> anyhow::Result<std::process::ExitStatus> {
        anyhow::ensure!(self.spares.iter().any(|plan| plan.name == name), "{name} is no spare");
        let process = self.runner(name)?.process();
        process.ask_to_end()?;
        let end = Instant::now() + deadline;
        let status = loop {
            if let Some(status) = process.exit_status() {
                break status;
            }
            if Instant::now() >= end {
                process.kill()?;
            }
            tokio::time::sleep(END_INTERVAL).await;
        };
        self.parts.retain(|part| part.name != name);
        Ok(status)
    }

    /// Names of the processes that have ended.
    pub fn ended(&mut self) -> Vec<String> {
        let dead = self.parts.iter_mut().filter_map(|part| {
            let has_ended = part.runner.process().exit_status().is_some();
            has_ended.then(|| part.name.clone())
        });
        dead.collect()
    }

    /// Where the shop is: `http://127.0.0.1:<port>` of the first gateway.
    pub fn gateway_url(&self) -> &str {
        &self.gateway_url
    }

    /// Name and URL of every gateway.
    pub fn gateways(&self) -> Vec<(String, String)> {
        let gateways = self.parts.iter().filter(|part| part.kind == Kind::Gateway);
        gateways.map(|part| (part.name.clone(), format!("http://{}", part.address))).collect()
    }

    /// All processes, in the order they were started.
    pub fn processes(&self) -> Vec<ProcessInfo> {
        self.parts.iter().map(info).collect()
    }

    /// One process by its name.
    pub fn process(&self, name: &str) -> anyhow::Result<ProcessInfo> {
        self.parts.iter().find(|part| part.name == name).map(info).with_context(|| format!("no process {name}"))
    }

    /// SIGKILL.
    pub fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        self.runner(name)?.process().kill()
    }

    /// SIGTERM, and SIGKILL after the deadline.
    pub fn terminate(&mut self, name: &str, deadline: Duration) -> anyhow::Result<std::process::ExitStatus> {
        let runner = self.runner(name)?;
        blocking(|| runner.process().terminate(deadline))
    }

    /// Starts it again, after a kill if it still runs; on its old address. A server answers when this returns, a
    /// service may not be ready yet: see [`wait_until_ready`](Self::wait_until_ready).
    pub fn restart(&mut self, name: &str) -> anyhow::Result<()> {
        let runner = self.runner(name)?;
        blocking(|| match runner {
            Runner::Kafka(kafka) => kafka.restart(),
            Runner::Redis(redis) => redis.restart(),
            Runner::Service(process) => process.restart(),
        })
    }

    /// The folder of the programs that the services began with.
    pub fn programs(&self) -> &Path {
        &self.options.programs
    }

    /// Has the next start of a service run its program from this folder: another build.
    pub fn use_programs(&mut self, name: &str, folder: &Path) -> anyhow::Result<()> {
        let part =
            self.parts.iter_mut().find(|part| part.name == name).with_context(|| format!("no process {name}"))?;
        part.runner.process().use_program(folder.join(part.kind.name()));
        Ok(())
    }

    /// SIGSTOP.
    pub fn pause(&mut self, name: &str) -> anyhow::Result<()> {
        self.runner(name)?.process().pause()
    }

    /// SIGCONT.
    pub fn resume(&mut self, name: &str) -> anyhow::Result<()> {
        self.runner(name)?.process().resume()
    }

    /// Waits until every service is ready and the loaded lanes of each add up to the partition count; a dead service
    /// is an error at once.
    pub async fn wait_until_ready(&mut self, progress: &Progress) -> anyhow::Result<()> {
        progress.stage("waiting until all lanes are loaded");
        let end = Instant::now() + self.options.ready_deadline;
        let partitions = self.options.partitions;
        loop {
            if let Some(error) = self.first_death() {
                return Err(error);
            }
            let look = self.look().await;
            if look.is_complete(partitions) {
                return Ok(());
            }
            let loaded: u64 = look.loaded.iter().map(|(_, loaded)| loaded).sum();
            let all = u64::from(partitions) * look.loaded.len() as u64;
            progress.update(&format!("waiting until all lanes are loaded: {loaded} of {all}"));
            let deadline = self.options.ready_deadline;
            anyhow::ensure!(Instant::now() < end, "not ready after {deadline:?}: {}", look.missing(partitions));
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// What the services say of themselves now.
    pub async fn look(&self) -> Look {
        let with_admin = |part: &Part| Some((part.name.clone(), part.kind, part.admin_address.clone()?));
        let services: Vec<_> = self.parts.iter().filter_map(with_admin).collect();
        ready::look(&self.http, &services).await
    }

    /// An error for the first process that has ended, with the end of its log.
    pub fn first_death(&mut self) -> Option<anyhow::Error> {
        let processes = self.parts.iter_mut().map(|part| part.runner.process());
        let mut dead = processes.filter_map(|process| process.exit_status().map(|_| process.failure("died")));
        dead.next()
    }

    /// What `down` and `status` need to know.
    pub fn state(&self) -> StackState {
        StackState {
            gateway_url: self.gateway_url.clone(),
            partitions: self.options.partitions,
            replicas: self.options.replicas,
            supervisor: None,
            processes: self.processes(),
        }
    }

    /// Ends everything in order: the services drain, then the servers end. Says which had to be killed.
    pub async fn stop(self) -> anyhow::Result<Vec<String>> {
        let state = self.state();
        let killed = spawn_blocking(move || state.end()).await.context("end the stack")?;
        drop(self);
        Ok(killed)
    }

    /// Leaves everything running behind this process; only for a stack that was started [`Lifetime::Detached`](local_servers::Lifetime::Detached).
    pub fn leave_running(mut self) {
        for part in &mut self.parts {
            part.runner.process().leave_running();
        }
    }

    fn runner(&mut self, name: &str) -> anyhow::Result<&mut Runner> {
        let part = self.parts.iter_mut().find(|part| part.name == name);
        Ok(&mut part.with_context(|| format!("no process {name}"))?.runner)
    }

    fn start_service(&mut self, plan: ServicePlan) -> anyhow::Result<()> {
        let spec = ProcessSpec {
            name: plan.name.clone(),
            program: self.options.program(plan.kind),
            args: Vec::new(),
            envs: plan.envs,
            log_file: plan.log_file.clone(),
            lifetime: self.options.lifetime,
        };
        if plan.kind == Kind::Gateway && self.gateway_url.is_empty() {
            self.gateway_url = format!("http://{}", address(plan.port));
        }
        self.parts.push(Part {
            name: plan.name,
            kind: plan.kind,
            address: address(plan.port),
            admin_address: Some(address(plan.admin_port)),
            log_file: plan.log_file,
            runner: Runner::Service(ManagedProcess::spawn(spec)?),
        });
        Ok(())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // The services first: they would only complain about servers that are gone.
        while self.parts.pop().is_some() {}
    }
}

fn info(part: &Part) -> ProcessInfo {
    let pid = part.runner.pid();
    ProcessInfo {
        name: part.name.clone(),
        kind: part.kind,
        pid,
        started_ticks: running_since(pid).unwrap_or(0),
        address: part.address.clone(),
        admin_address: part.admin_address.clone(),
        log_file: part.log_file.clone(),
    }
}

/// What can be known to fail is refused before anything runs.
fn prepare(mut options: StackOptions) -> anyhow::Result<StackOptions> {
    let least = options.partitions.min(options.replicas).min(options.gateways);
    anyhow::ensure!(least > 0, "partitions, replicas and gateways must be at least 1");
    anyhow::ensure!(matches!(options.brokers, 1 | 3), "a stack has 1 broker or 3, not {}", options.brokers);
    if options.data == Data::Forget {
        servers::forget(&options.dir)?;
    }
    servers::refuse_other_cluster(&options)?;
    let dir = &options.dir;
    std::fs::create_dir_all(dir.join("logs")).with_context(|| format!("make {}", dir.display()))?;
    options.dir = dir.canonicalize().with_context(|| format!("find {}", dir.display()))?;
    kafka_libs()?;
    if options.scope == Scope::Everything {
        if let Some(port) = options.gateway_port {
            refuse_port_in_use(port).context("the gateway cannot start (--port chooses another)")?;
        }
        for kind in Kind::CONSUMERS.into_iter().chain([Kind::Gateway]) {
            let program = options.program(kind);
            anyhow::ensure!(program.is_file(), "{} is not built: run cargo build --workspace", program.display());
        }
    }
    Ok(options)
}

/// Does what blocks; on a runtime of one thread everything else waits for it.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => work(),
        _ => block_in_place(work),
    }
}
