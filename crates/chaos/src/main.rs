//! `./dev chaos`: a campaign of faults against a stack of its own, and its verdict.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use chaos::campaign::{self, Campaign, Verdict};
use chaos::plan::{Field, Plan};
use chaos::{history, report};
use clap::Parser;
use stack::Progress;

/// Faults by a seeded plan against a whole system under load, and an audit
#[derive(Parser)]
struct Args {
    /// Minutes in which faults begin
    #[arg(long, default_value_t = 2)]
    minutes: u64,
    /// Seed of the plan: the same seed gives the same faults in the same order
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Replicas of each service, and gateways; from two on, clocks jump
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    replicas: u32,
    /// Brokers of Kafka: 1 or 3
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3))]
    brokers: u32,
    /// Checkouts that begin each second
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Most clients at the same time
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// Only print this many faults of the plan
    #[arg(long)]
    plan: Option<usize>,
    /// More settings for the services, NAME=VALUE
    #[arg(long = "env")]
    envs: Vec<String>,
    /// Folder of the stack's data and logs
    #[arg(long, default_value = ".stack/chaos")]
    dir: PathBuf,
}

impl Args {
    /// How the same plan comes about again: it depends on all of this.
    fn again(&self, has_clocks: bool) -> String {
        let Self { minutes, seed, replicas, brokers, rate, clients, .. } = self;
        let envs: String = self.envs.iter().map(|env| format!(" --env {env}")).collect();
        let clocks = if has_clocks { "with libfaketime" } else { "without libfaketime" };
        format!(
            "`./dev chaos --seed {seed} --minutes {minutes} --replicas {replicas} --brokers {brokers} --rate {rate} \
             --clients {clients}{envs}`, {clocks}."
        )
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let lasts = Duration::from_secs(args.minutes * 60);
    let has_clocks = args.replicas >= 2 && campaign::can_move_clocks();
    let field = Field { replicas: args.replicas, brokers: args.brokers, has_clocks, lasts };
    if !has_clocks {
        println!("No clock jumps: that needs two replicas and libfaketime (apt-get install libfaketime).");
    }
    if let Some(count) = args.plan {
        for (number, fault) in Plan::new(args.seed, field).take(count).enumerate() {
            let strikes: Vec<String> = fault.strikes.iter().map(ToString::to_string).collect();
            println!("{:>4}  {}, quiet for {} ms", number + 1, strikes.join(" and "), fault.quiet.as_millis());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let env = |env: &String| {
        let (name, value) = env.split_once('=').with_context(|| format!("--env {env}: write NAME=VALUE"))?;
        anyhow::Ok((name.to_owned(), value.to_owned()))
    };
    let campaign = Campaign {
        seed: args.seed,
        field,
        rate_per_s: args.rate,
        at_once: args.clients,
        dir: std::path::absolute(&args.dir)?,
        envs: args.envs.iter().map(env).collect::<anyhow::Result<_>>()?,
    };
    let outcome = campaign::run(&campaign, &Progress::for_people()).await?;
    println!("\n{}\n\n{}", args.again(has_clocks), report::markdown(&outcome));
    let history = args.dir.join("history.csv");
    std::fs::write(&history, history::csv(&outcome.evidence))
        .with_context(|| format!("write {}", history.display()))?;
    println!("every request: {}", history.display());
    Ok(match outcome.verdict {
        Verdict::Passed => ExitCode::SUCCESS,
        Verdict::Failed(_) | Verdict::Unknown(_) => {
            println!("logs: {}", args.dir.join("logs").display());
            ExitCode::FAILURE
        }
    })
}
