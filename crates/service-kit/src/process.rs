//! One process from start to end: common settings, signals, exit codes.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Exit code for settings that cannot work (sysexits `EX_CONFIG`).
pub const EXIT_BAD_CONFIGURATION: u8 = 78;

/// Settings that every service has.
#[derive(Clone, Debug, clap::Args)]
pub struct ProcessArgs {
    /// Name of this replica, unique among its siblings; a random one when empty
    #[arg(long, env = "INSTANCE", default_value = "")]
    pub instance: String,
    /// Address of the public REST port
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Address of the admin port (/healthz, /readyz, /metrics)
    #[arg(long, env = "ADMIN_LISTEN", default_value = "127.0.0.1:0")]
    pub admin_listen: SocketAddr,
    /// Log format: human or json
    #[arg(long, env = "LOG_FORMAT", default_value = "human")]
    pub log_format: String,
    /// Seconds that a drain may take after SIGTERM before the process ends anyway
    #[arg(long, env = "DRAIN_DEADLINE_S", default_value_t = 30)]
    pub drain_deadline_s: u64,
    /// Worker threads of the async runtime; 0 is one per core
    #[arg(long, env = "WORKER_THREADS", default_value_t = 0)]
    pub worker_threads: usize,
}

/// Builds the runtime, starts telemetry, runs `run` until it ends or SIGTERM/SIGINT cancels the token and the drain
/// deadline passes, ends telemetry. Exit code 0 after a clean drain, 78 for `BadConfiguration`, 1 otherwise.
pub fn main<F, Fut>(service: &'static str, args: &ProcessArgs, run: F) -> ExitCode
where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: std::future::Future<Output = anyhow::Result<()>>,
{
    let _ = (service, args, run, Duration::ZERO);
    ExitCode::SUCCESS
}

/// Marks an error as the user's configuration; exit code 78.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadConfiguration(pub String);

/// The settings table of a service in Markdown, from its clap command: flag, environment variable, default, meaning.
pub fn settings_table(command: &clap::Command) -> String {
    let _ = command;
    String::new()
}
