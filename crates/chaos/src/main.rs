//! `./dev chaos`: a campaign of faults against a stack of its own, and its verdict.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use chaos::campaign::{self, Campaign, Verdict};
use chaos::plan::Plan;
use chaos::report;
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
    /// Replicas of each service
    #[arg(long, default_value_t = 3)]
    replicas: u32,
    /// Clients that ask at the same time
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Orders at hand; when they are used up the load ends
    #[arg(long, default_value_t = 200_000)]
    orders: u64,
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

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let Some(count) = args.plan {
        for (number, fault) in Plan::new(args.seed, args.replicas).take(count).enumerate() {
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
        lasts: Duration::from_secs(args.minutes * 60),
        replicas: args.replicas,
        clients: args.clients,
        orders: args.orders,
        dir: std::path::absolute(&args.dir)?,
        envs: args.envs.iter().map(env).collect::<anyhow::Result<_>>()?,
    };
    let outcome = campaign::run(&campaign, &Progress::for_people()).await?;
    println!("\nseed {}, {} strikes\n\n{}", args.seed, outcome.struck.len(), report::markdown(&outcome));
    Ok(match outcome.verdict {
        Verdict::Passed => ExitCode::SUCCESS,
        Verdict::Failed(_) | Verdict::Unknown(_) => {
            println!("logs: {}", args.dir.join("logs").display());
            ExitCode::FAILURE
        }
    })
}
