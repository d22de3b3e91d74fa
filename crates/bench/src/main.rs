//! Measures checkouts on this machine: closed and open loops through the gateway of a stack of its own, and an audit of
//! the stores afterwards.
//!
//! Deliberately not in it: any figure that it did not measure in this run, and faults, but for the few whose cost it measures
//! (`./dev chaos` is for the others).

mod audit;
mod client;
mod closed;
mod compare;
mod cpu;
mod curve;
mod curve_picture;
mod diagram;
mod disk;
mod fsync;
mod hop_cost;
mod hot_key;
mod metrics;
mod open;
mod outage;
mod overload;
mod picture;
mod poison;
mod poison_records;
mod rebalance;
mod rebalance_report;
mod report;
mod result;
mod run;
mod scenario;
mod soak;
mod stages;
mod sweep;
mod tally;
mod telemetry;
mod timeline;
mod vary;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// Load of checkouts on a stack that is started for it and ended afterwards
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    plan: run::Plan,
    /// Where the result goes, as JSON; a picture is put beside it
    #[arg(long, default_value = "target/bench/last.json")]
    out: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Prints the ratios of two results
    Compare {
        /// The result that counts as 1
        a: PathBuf,
        /// The result that is compared with it
        b: PathBuf,
    },
    /// Measures the same with one thing varied, in interleaved rounds
    Sweep(sweep::Args),
    /// Measures what exporting telemetry costs: several stacks side by side, as ratios
    Telemetry(telemetry::Args),
    /// Measures what is left when several times the peak arrives, and how soon it is back
    Overload(overload::Args),
    /// Measures what taking turns is worth where committers fight over one key
    HotKey(hot_key::Args),
    /// Checks out a million times and looks at what is left: keys, memory
    Soak(soak::Args),
    /// Measures what checkouts notice while replicas come and go and lanes change owner
    Rebalance(rebalance::Args),
    /// Takes a participant away for minutes, brings it back, and looks at what that cost
    Outage(outage::Args),
    /// Measures what records that nobody can read, or at which a program panics, cost everybody else
    Poison(poison::Args),
}

// It stands in for the clients on the processors that it measures, so it is to take little of them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    service_kit::process::raise_file_limit();
    match cli.command {
        None => {
            let run = cli.plan.run().await?;
            run.write(&cli.out)?;
            let picture = cli.out.with_extension("svg");
            std::fs::write(&picture, picture::draw(&run)).with_context(|| format!("write {}", picture.display()))?;
            println!("{} and {}", cli.out.display(), picture.display());
            Ok(())
        }
        Some(Command::Compare { a, b }) => {
            print!("{}", compare::table(&result::Run::read(&a)?, &result::Run::read(&b)?));
            Ok(())
        }
        Some(Command::Sweep(args)) => sweep::run(&args).await,
        Some(Command::Telemetry(args)) => telemetry::run(&args).await,
        Some(Command::Overload(args)) => overload::run(&args).await,
        Some(Command::HotKey(args)) => hot_key::run(&args).await,
        Some(Command::Soak(args)) => soak::run(&args).await,
        Some(Command::Rebalance(args)) => rebalance::run(&args).await,
        Some(Command::Outage(args)) => outage::run(&args).await,
        Some(Command::Poison(args)) => poison::run(&args).await,
    }
}
