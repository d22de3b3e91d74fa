//! The commands `up`, `down`, `status` and `logs` of the stack on this machine; `topics` and `secrets` for containers;
//! `quarantine` and `fold-version` for operators.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use local_servers::{Compilers, Lifetime};
use tokio::signal::unix::{SignalKind, signal};

use crate::options::{DEFAULT_GATEWAY_PORT, DEFAULT_PARTITIONS, Data, Scope, StackOptions, repository};
use crate::plan::Kind;
use crate::progress::Progress;
use crate::stack::Stack;
use crate::state::{StackState, Supervisor};
use crate::topics::{self, Topics};
use crate::{fold_version, quarantine, secrets, table};

/// How often a foreground stack looks whether all its processes live.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// How much of a log `logs` shows.
const LOG_LINES: &str = "200";

/// The whole system on one machine.
#[derive(Debug, Parser)]
#[command(name = "stack")]
pub struct Cli {
    /// Folder of data, logs and state; two stacks need two folders and two gateway ports
    #[arg(long, env = "STACK_DIR", default_value_os_t = repository().join(".stack"), hide_default_value = true, global = true)]
    dir: PathBuf,
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Start everything and wait until a checkout could succeed
    Up(UpArgs),
    /// Stop everything
    Down,
    /// Say what runs where
    Status {
        /// As JSON: name, pid, address, log file … of each process
        #[arg(long)]
        json: bool,
    },
    /// Show the log of one process
    Logs {
        /// Name of the process, or the beginning of it
        name: String,
        /// Go on as it grows
        #[arg(short, long)]
        follow: bool,
    },
    /// Make the topics that are missing on given brokers and check all of them
    Topics(Topics),
    /// Look at records that could not be read, and put them back
    Quarantine {
        /// Kafka brokers, host:port,host:port; without them those of the running stack
        #[arg(long, env = "KAFKA_BROKERS")]
        brokers: Option<String>,
        #[command(subcommand)]
        action: quarantine::Action,
    },
    /// Look at the version of the fold, and adopt a new one once every orchestrator runs a program that knows it
    FoldVersion {
        /// Admin ports of all orchestrators, host:port,host:port; without them those of the running stack
        #[arg(long, value_delimiter = ',')]
        replicas: Vec<String>,
        #[command(subcommand)]
        action: fold_version::Action,
    },
    /// Make the passwords of stores that have none yet, a folder for each
    Secrets {
        /// Folders, each for one store and its service
        #[arg(required = true)]
        folders: Vec<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct UpArgs {
    /// How many of each service (the gateway apart)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=9))]
    replicas: u32,
    /// Brokers of Kafka: 1, or 3 with three copies of everything
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3))]
    brokers: u32,
    /// Partitions of every topic
    #[arg(long, default_value_t = DEFAULT_PARTITIONS, value_parser = clap::value_parser!(u32).range(1..=1000))]
    partitions: u32,
    /// Port of the gateway
    #[arg(long, default_value_t = DEFAULT_GATEWAY_PORT)]
    port: u16,
    /// Forget the data of an earlier stack
    #[arg(long)]
    fresh: bool,
    /// Stay until Ctrl-C, then end everything
    #[arg(long)]
    foreground: bool,
    /// Only Kafka with the topics and the four Redis, no services
    #[arg(long)]
    servers_only: bool,
}

/// Runs one command.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        CliCommand::Up(args) => up(&cli.dir, &args).await,
        CliCommand::Down => down(&cli.dir),
        CliCommand::Status { json } => status(&cli.dir, json),
        CliCommand::Logs { name, follow } => logs(&cli.dir, &name, follow),
        CliCommand::Topics(wanted) => {
            println!("{}", topics::make(&wanted).await?);
            Ok(ExitCode::SUCCESS)
        }
        CliCommand::Quarantine { brokers, action } => {
            let brokers = brokers.map_or_else(|| brokers_of_stack(&cli.dir), Ok)?;
            quarantine::act(&brokers, action).await?;
            Ok(ExitCode::SUCCESS)
        }
        CliCommand::FoldVersion { replicas, action } => {
            let replicas = if replicas.is_empty() { orchestrators_of_stack(&cli.dir)? } else { replicas };
            fold_version::act(&replicas, action).await?;
            Ok(ExitCode::SUCCESS)
        }
        CliCommand::Secrets { folders } => {
            secrets::make(&folders)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The admin ports of those that run; one that has died owns no lane any more.
fn orchestrators_of_stack(dir: &Path) -> anyhow::Result<Vec<String>> {
    let state = StackState::load(dir)?.filter(StackState::is_running);
    let state = state
        .context("no stack is running here: say --replicas HOST:PORT,… with the admin port of every orchestrator")?;
    let running =
        state.processes.into_iter().filter(|process| process.kind == Kind::Orchestrator && process.is_running());
    Ok(running.filter_map(|process| process.admin_address).collect())
}

fn brokers_of_stack(dir: &Path) -> anyhow::Result<String> {
    let state = StackState::load(dir)?.filter(StackState::is_running);
    let state = state.context("no stack is running here: say --brokers HOST:PORT")?;
    let brokers = state.processes.iter().filter(|process| process.kind == Kind::Kafka);
    let addresses: Vec<&str> = brokers.map(|process| process.address.as_str()).collect();
    anyhow::ensure!(!addresses.is_empty(), "the running stack has no Kafka");
    Ok(addresses.join(","))
}

async fn up(dir: &Path, args: &UpArgs) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    let lock = lock(dir)?;
    if let Some(state) = StackState::load(dir)?.filter(StackState::is_running) {
        return Ok(already_running(&state));
    }
    let lifetime = if args.foreground { Lifetime::WithParent } else { Lifetime::Detached };
    let options = StackOptions {
        partitions: args.partitions,
        brokers: args.brokers,
        compilers: Compilers::Both,
        replicas: args.replicas,
        data: if args.fresh { Data::Forget } else { Data::Keep },
        gateway_port: Some(args.port),
        lifetime,
        scope: if args.servers_only { Scope::ServersOnly } else { Scope::Everything },
        ..StackOptions::new(dir)?
    };
    let progress = Progress::for_people();
    let started = tokio::select! {
        started = Stack::start(options, &progress) => started,
        interrupted = interrupted() => {
            interrupted?;
            Err(anyhow::anyhow!("interrupted; what had been started is stopped"))
        }
    };
    progress.finish();
    let stack = started?;
    let mut state = stack.state();
    if args.foreground {
        state.supervisor = Supervisor::this_process();
    }
    state.save(dir)?;
    drop(lock);
    print!("{}", table::processes(&state));
    print!("{}", table::what_next(&state, dir));
    if args.foreground {
        return stay(stack, dir).await;
    }
    stack.leave_running();
    Ok(ExitCode::SUCCESS)
}

/// Waits for Ctrl-C or SIGTERM, or for the death of a process, then ends everything.
async fn stay(mut stack: Stack, dir: &Path) -> anyhow::Result<ExitCode> {
    println!("Ctrl-C ends everything.");
    let watch = async {
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            if let Some(death) = stack.first_death() {
                return death;
            }
        }
    };
    let death = tokio::select! {
        interrupted = interrupted() => { interrupted?; None }
        death = watch => Some(death),
    };
    eprintln!("stopping …");
    let killed = stack.stop().await?;
    StackState::remove(dir)?;
    tell_killed(&killed);
    death.map_or(Ok(ExitCode::SUCCESS), Err)
}

async fn interrupted() -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result.context("listen for Ctrl-C"),
        _ = terminated.recv() => Ok(()),
    }
}

fn already_running(state: &StackState) -> ExitCode {
    let dead: Vec<&str> =
        state.processes.iter().filter(|process| !process.is_running()).map(|process| process.name.as_str()).collect();
    print!("{}", table::processes(state));
    if dead.is_empty() {
        println!("It is running already. ./dev down stops it.");
        ExitCode::SUCCESS
    } else {
        eprintln!("It is running already, but dead: {}. Stop the rest with ./dev down first.", dead.join(", "));
        ExitCode::FAILURE
    }
}

fn down(dir: &Path) -> anyhow::Result<ExitCode> {
    let _lock = if dir.is_dir() { Some(lock(dir)?) } else { None };
    let Some(state) = StackState::load(dir)? else {
        println!("Nothing is running.");
        return Ok(ExitCode::SUCCESS);
    };
    // A foreground stack is ended by its supervisor; if that is gone or stuck, as any other.
    if !state.supervisor.as_ref().is_some_and(Supervisor::end) {
        tell_killed(&state.end());
    }
    StackState::remove(dir)?;
    println!("Stopped. The data stays; ./dev up --fresh forgets it.");
    Ok(ExitCode::SUCCESS)
}

fn tell_killed(names: &[String]) {
    if !names.is_empty() {
        eprintln!("killed, because they did not end in time: {}", names.join(", "));
    }
}

fn status(dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let state = StackState::load(dir)?;
    if json {
        println!("{}", table::json(state.as_ref())?);
    } else {
        match &state {
            Some(state) => print!("{}", table::processes(state)),
            None => println!("Nothing is running. ./dev up starts it."),
        }
    }
    let runs = state.is_some_and(|state| state.processes.iter().all(|process| process.is_running()));
    Ok(if runs { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn logs(dir: &Path, name: &str, follow: bool) -> anyhow::Result<ExitCode> {
    let state = StackState::load(dir)?.context("nothing is running: ./dev up starts it")?;
    let exact = state.processes.iter().filter(|process| process.name == name);
    let similar = state.processes.iter().filter(|process| process.name.starts_with(name) && process.name != name);
    let process = exact.chain(similar).next().with_context(|| {
        let names: Vec<&str> = state.processes.iter().map(|process| process.name.as_str()).collect();
        format!("there is no {name}; there are {}", names.join(", "))
    })?;
    let mut tail = Command::new("tail");
    tail.args(["-n", LOG_LINES]);
    if follow {
        tail.arg("-F");
    }
    // `tail` takes this process's place; only a failure comes back.
    Err(tail.arg(&process.log_file).exec()).context("start tail")
}

/// Two commands at once would start things twice.
fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    file.try_lock().with_context(|| format!("another up or down is working in {}", dir.display()))?;
    Ok(file)
}
