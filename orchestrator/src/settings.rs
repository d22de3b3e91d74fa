//! The settings of the orchestrator.

use std::path::PathBuf;
use std::time::Duration;

use event_stream::KafkaArgs;
use redis_txn::RedisArgs;
use service_kit::process::ProcessArgs;

use crate::summary::{Summaries, SummaryRule};

/// Runs sagas: folds `saga.inbox`, sends commands to participants and results to starters.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "orchestrator", version)]
pub struct Settings {
    /// What every process has
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Kafka
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// The store of the checkpoints
    #[command(flatten)]
    pub redis: RedisArgs,
    /// Folder with the definitions (*.yaml) that are to be active
    #[arg(long, env = "DEFINITIONS_DIR", default_value = "definitions")]
    pub definitions_dir: PathBuf,
    /// Participants that definitions may name, comma-separated; each has a topic PARTICIPANT.commands
    #[arg(long, env = "PARTICIPANTS", value_delimiter = ',', default_value = "stock,payment")]
    pub participants: Vec<String>,
    /// Milliseconds between two checkpoints of a lane that has news
    #[arg(long, env = "CHECKPOINT_INTERVAL_MS", default_value_t = 1000)]
    pub checkpoint_interval_ms: u64,
    /// Records after which a checkpoint is due before its time
    #[arg(long, env = "CHECKPOINT_RECORDS", default_value_t = 1000)]
    pub checkpoint_records: u64,
    /// Sagas that get a span which tells how they ended although their trace is not recorded: off, unusual (undone, slow or stuck) or all
    #[arg(long, env = "SAGA_SUMMARIES", default_value = "unusual", value_enum, hide_possible_values = true)]
    pub saga_summaries: Summaries,
    /// A saga that took longer from start to end is slow, milliseconds
    #[arg(long, env = "SLOW_SAGA_MS", default_value_t = 2_000, value_parser = clap::value_parser!(i64).range(1..))]
    pub slow_saga_ms: i64,
}

impl Settings {
    /// Time between two checkpoints of a lane that has news.
    pub fn checkpoint_interval(&self) -> Duration {
        Duration::from_millis(self.checkpoint_interval_ms)
    }

    /// Which sagas are summarised.
    pub fn summaries(&self) -> SummaryRule {
        SummaryRule { which: self.saga_summaries, slow_ms: self.slow_saga_ms }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory;
    use service_kit::settings::{assert_documented, settings_page};

    use super::*;

    #[test]
    fn the_documented_settings_are_the_ones_of_the_code() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings/orchestrator.md");
        assert_documented(&page, &settings_page("orchestrator", &Settings::command()));
    }
}
