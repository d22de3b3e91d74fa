//! Where and how to commit: the settings, and their environment variables.

use std::time::Duration;

use service_kit::process::BadConfiguration;

use crate::password::Password;

/// Where and how to commit.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` of the Redis.
    pub address: String,
    /// Its password, if it has one.
    pub password: Password,
    /// Names this process in `commit:<process>:<committer>` and in turns; unique per process start.
    pub process: String,
    /// Most transactions in one EXEC.
    pub max_batch: usize,
    /// A turn is taken after this many conflicts in a row; 0: never.
    pub conflicts_before_turn: u32,
    /// How long one reply may take before the connection counts as lost.
    pub response_timeout: Duration,
    /// How long a REST transaction may wait for a store that is away before it is answered.
    pub rest_patience: Duration,
}

/// The Redis settings of a service.
#[derive(Clone, Debug, clap::Args)]
pub struct RedisArgs {
    /// Redis of this service, host:port
    #[arg(long, env = "REDIS", default_value = "127.0.0.1:6401")]
    pub redis: String,
    /// File with the password of that Redis in its first line; none when empty
    #[arg(long, env = "REDIS_PASSWORD_FILE", default_value = "")]
    pub redis_password_file: String,
    /// Accept a Redis that may forget what it acknowledged (1 = yes)
    #[arg(long, env = "ALLOW_UNSAFE_FSYNC", value_parser = clap::builder::FalseyValueParser::new())]
    pub allow_unsafe_fsync: bool,
    /// Most transactions in one Redis EXEC
    #[arg(long, env = "COMMIT_MAX_BATCH", default_value_t = 256, value_parser = batch_size)]
    pub commit_max_batch: usize,
    /// Conflicts in a row after which replicas take turns; 0: never
    #[arg(long, env = "COMMIT_CONFLICTS_BEFORE_TURN", default_value_t = 2)]
    pub commit_conflicts_before_turn: u32,
    /// How long Redis may take for one reply before the connection counts as lost, milliseconds
    #[arg(long, env = "COMMIT_RESPONSE_TIMEOUT_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub commit_response_timeout_ms: u64,
    /// How long a REST request may wait for a Redis that is away before it is answered, milliseconds
    #[arg(long, env = "COMMIT_REST_PATIENCE_MS", default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub commit_rest_patience_ms: u64,
}

/// Largest batch that may be set: an EXEC holds up everybody else's commands while it runs.
const MAX_BATCH: usize = 4_096;

impl RedisArgs {
    /// Settings of one process of `service`. The name of the process gets a random part, so that no two starts share
    /// it: a commit key must have one writer.
    pub fn settings(&self, service: &str, instance: &str) -> Result<Settings, BadConfiguration> {
        Ok(Settings {
            address: self.redis.clone(),
            password: Password::from_file(&self.redis_password_file)?,
            process: format!("{service}-{instance}-{:08x}", rand::random::<u32>()),
            max_batch: self.commit_max_batch,
            conflicts_before_turn: self.commit_conflicts_before_turn,
            response_timeout: Duration::from_millis(self.commit_response_timeout_ms),
            rest_patience: Duration::from_millis(self.commit_rest_patience_ms),
        })
    }
}

fn batch_size(text: &str) -> Result<usize, String> {
    let range = 1..=MAX_BATCH;
    text.parse()
        .ok()
        .filter(|size| range.contains(size))
        .ok_or_else(|| format!("expected a number from 1 to {MAX_BATCH}"))
}
