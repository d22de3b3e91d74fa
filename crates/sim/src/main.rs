//! `./dev sim`: seeds of the simulation.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use sim::campaign::{Campaign, Outcome};
use sim::hunt::Case;
use sim::ledger::{Ledger, LedgerError, program};
use sim::mistakes::{Defence, Mistake};
use sim::run::run;
use sim::show;
use sim::shrink::shrink;
use sim::world::Options;

/// The real decisions of all services over a simulated log and simulated stores, with seeded faults
#[derive(Parser)]
struct Args {
    /// How many seeds are run
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Add this run's counts to those of earlier runs of this program in this file, and show the sum
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mistake", "without", "steps", "skip"])]
    add_to: Option<PathBuf>,
    /// Seeds that run at the same time; as many as there are processors, if not given
    #[arg(long)]
    threads: Option<usize>,
    /// Make this mistake in every seed (see --mistakes)
    #[arg(long, value_parser = mistake)]
    mistake: Option<Mistake>,
    /// Take this safety net away: resends, timeouts, dedup or sweep; may be given more than once
    #[arg(long, value_parser = defence)]
    without: Vec<Defence>,
    /// Run one seed and print its events
    #[arg(long, value_name = "SEED")]
    replay: Option<u64>,
    /// With --replay: events before the quiet phase
    #[arg(long)]
    steps: Option<usize>,
    /// With --replay: faults that do not happen, by number
    #[arg(long, value_delimiter = ',')]
    skip: Vec<usize>,
    /// Make every known mistake, one after the other, and print how many seeds it takes to notice it; --seeds is the
    /// most for one of them
    #[arg(long)]
    mistakes: bool,
}

fn mistake(id: &str) -> Result<Mistake, String> {
    let ids = || Mistake::ALL.iter().map(|mistake| mistake.id()).collect::<Vec<_>>().join(", ");
    Mistake::named(id).ok_or_else(|| format!("none of: {}", ids()))
}

fn defence(id: &str) -> Result<Defence, String> {
    let ids = || Defence::ALL.iter().map(|defence| defence.id()).collect::<Vec<_>>().join(", ");
    Defence::named(id).ok_or_else(|| format!("none of: {}", ids()))
}

fn main() -> ExitCode {
    let args = Args::parse();
    let (mistake, without) = (args.mistake, args.without.clone());
    let options = Options { mistake, without, skip: args.skip.clone(), steps: args.steps, ..Options::new(args.from) };
    let good = match args.replay {
        Some(seed) => replay(&Options { seed, trace: true, ..options }),
        None if args.mistakes => mistakes(args.from, args.seeds),
        None => campaign(&args, options),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(options: &Options) -> bool {
    let report = run(options);
    report.trace.iter().for_each(|line| println!("{line}"));
    match &report.violation {
        None => println!("seed {}: everything is as it must be", options.seed),
        Some(violation) => println!("seed {}: {}: {}", options.seed, violation.name, violation.detail),
    }
    report.violation.is_none()
}

fn mistakes(from: u64, most: u64) -> bool {
    println!("{}", show::CATCH_HEAD);
    let mut missed = 0;
    for case in Case::all() {
        let catch = case.hunt(from, most);
        println!("{}", show::catch(&case, from, catch.as_ref()));
        missed += usize::from(catch.is_none());
    }
    println!("\n{missed} of {} not noticed within {most} seeds", Mistake::ALL.len());
    missed == 0
}

fn campaign(args: &Args, options: Options) -> bool {
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let campaign = Campaign { options, from: args.from, seeds: args.seeds, threads };
    let mut ledger = match args.add_to.as_deref().map(|path| open_ledger(path, &campaign)).transpose() {
        Ok(ledger) => ledger,
        Err(error) => return refused(&error),
    };
    let outcome = campaign.run(|count| eprintln!("{count} of {} seeds", campaign.seeds));
    if !outcome.failures.is_empty() {
        println!("{}", show::outcome(&outcome));
        show_failures(&campaign, &outcome);
        return false;
    }
    let sum = match &mut ledger {
        None => outcome,
        Some(ledger) => match ledger.add(campaign.from, &outcome) {
            Ok(()) => ledger.sum(),
            Err(error) => return refused(&error),
        },
    };
    println!("{}", show::outcome(&sum));
    let is_whole = args.without.is_empty() && args.mistake.is_none();
    !is_whole || has_no_surprise(&sum)
}

fn open_ledger(path: &Path, campaign: &Campaign) -> Result<Ledger, LedgerError> {
    let program = program().map_err(|error| LedgerError(format!("read this program: {error}")))?;
    let ledger = Ledger::open(path, program)?;
    ledger.check_new(&(campaign.from..campaign.from + campaign.seeds))?;
    Ok(ledger)
}

fn refused(error: &LedgerError) -> bool {
    eprintln!("{}", error.0);
    false
}

fn show_failures(campaign: &Campaign, outcome: &Outcome) {
    for (seed, violation) in &outcome.failures {
        println!("seed {seed}: {}: {}", violation.name, violation.detail);
    }
    if let Some((seed, _)) = outcome.failures.first()
        && let Some(shrunk) = shrink(&Options { seed: *seed, ..campaign.options.clone() })
    {
        println!("\nwith {} faults left:\n{}", shrunk.faults, shrunk.report.trace.join("\n"));
        println!("\nreplay: {}", show::command(&shrunk.options));
    }
}

/// A long run that has not met something that can happen has not tested it; and what cannot happen must not.
fn has_no_surprise(sum: &Outcome) -> bool {
    let surprises = sum.coverage.surprises(sum.seeds);
    surprises.iter().for_each(|what| println!("{what}"));
    surprises.is_empty()
}
