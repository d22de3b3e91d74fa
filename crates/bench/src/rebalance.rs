//! What checkouts notice while lanes change owner: under an open loop one more replica of each service comes, and goes
//! again by SIGTERM, one change at a time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use stack::{Kind, Stack};

use crate::open::Steady;
use crate::rebalance_report::{Change, Report, What};
use crate::run::{Course, Plan};
use crate::timeline::{Span, Timeline};
use crate::{cpu, result};

/// Arrivals per second, unless `--rate` says otherwise: some tenth of what two cores can do.
const RATE: f64 = 300.0;
/// Replicas of each service at least: a lane that comes and goes must have an owner besides.
const LEAST_REPLICAS: u32 = 2;
/// Every lane is served again within this time, or the measurement fails.
const SERVED: Duration = Duration::from_secs(60);
/// A service drains within its own deadline, which is shorter.
const DRAIN: Duration = Duration::from_secs(40);
/// Pause between two looks at all services, which cost some CPU time too.
const LOOK: Duration = Duration::from_millis(200);
/// What has waited for a lane is worked off within this time, which belongs to the change.
const TAIL: Duration = Duration::from_secs(1);

/// The options of this measurement.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Rounds; in each a replica of every service comes and goes, after `--seconds` without a change each time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Where the result goes, as JSON; a picture is put beside it
    #[arg(long, default_value = "target/bench/rebalance.json")]
    out: PathBuf,
    #[command(flatten)]
    plan: Plan,
}

/// Starts a stack, moves its lanes, prints the table, audits, ends it. An error when a checkout was answered anything but
/// 200, or when lanes stayed without an owner.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let rate = args.plan.one_rate(RATE)?;
    let mut plan = args.plan.clone();
    (plan.replicas, plan.spares) = (plan.replicas.max(LEAST_REPLICAS), 1);
    let mut course = Course::begin(&plan).await?;
    course.warm_up(Duration::from_secs(plan.warmup_s)).await?;
    let loop_before_ms = cpu::fixed_loop_ms();
    let steady = course.steady(rate)?;
    let mut changes = Vec::new();
    let changed = all_changes(&mut course.stack, &steady, args, &mut changes).await;
    let (tally, log) = steady.end().await?;
    let ran_dry = tally.ran_dry;
    course.add(tally);
    let mut report = Report::new(rate, &plan, &changes, &Timeline::new(log));
    report.fixed_loop_ms = [loop_before_ms, cpu::fixed_loop_ms()];
    print!("{}", report.text());
    result::write(&args.out, &report)?;
    let picture = args.out.with_extension("svg");
    std::fs::write(&picture, report.picture()).with_context(|| format!("write {}", picture.display()))?;
    println!("{} and {}", args.out.display(), picture.display());
    course.end().await?;
    changed?;
    ensure!(!ran_dry, "the fresh orders were used up before the last change: raise --orders");
    ensure!(report.findings.is_empty(), "{} checkouts or changes did not end as they should", report.findings.len());
    Ok(())
}

async fn all_changes(stack: &mut Stack, steady: &Steady, args: &Args, changes: &mut Vec<Change>) -> anyhow::Result<()> {
    let quiet = Duration::from_secs(args.plan.seconds);
    let replica = stack.state().replicas + 1;
    // The load opens its connections meanwhile.
    tokio::time::sleep(quiet).await;
    for round in 1..=args.rounds {
        for kind in Kind::CONSUMERS {
            let name = format!("{}-{replica}", kind.name());
            for what in [What::Comes, What::Goes] {
                let made = change(stack, steady, (round, &name, what), quiet).await;
                let made = made.with_context(|| format!("round {round}: {name} {what}"))?;
                println!("round {round}: {made}");
                changes.push(made);
            }
        }
    }
    // The last change is followed by quiet time too, so that what it has left behind is seen.
    tokio::time::sleep(quiet).await;
    Ok(())
}

/// After a quiet time one replica comes or goes, until every lane is served again and what has waited is worked off.
async fn change(
    stack: &mut Stack,
    steady: &Steady,
    (round, name, what): (u32, &str, What),
    quiet: Duration,
) -> anyhow::Result<Change> {
    let quiet_from = steady.elapsed();
    tokio::time::sleep(quiet).await;
    let before = stack.look().await.lanes;
    let from = steady.elapsed();
    let has_drained = match what {
        What::Comes => {
            stack.start_spare(name)?;
            true
        }
        What::Goes => stack.stop_spare(name, DRAIN).await?.success(),
    };
    served(stack, name, what).await?;
    let served = steady.elapsed();
    tokio::time::sleep(TAIL).await;
    let after = stack.look().await.lanes;
    Ok(Change {
        round,
        name: name.to_owned(),
        what,
        lanes: moved(&before, &after),
        has_drained,
        served_after: served - from,
        during: Span { from, to: steady.elapsed() },
        quiet: Span { from: quiet_from, to: from },
    })
}

/// Waits until every lane is loaded by some replica, and the new one has its share of them.
async fn served(stack: &mut Stack, name: &str, what: What) -> anyhow::Result<()> {
    let state = stack.state();
    let share = match what {
        What::Comes => u64::from(state.partitions / (state.replicas + 1)),
        What::Goes => 0,
    };
    let end = Instant::now() + SERVED;
    loop {
        if let Some(error) = stack.first_death() {
            return Err(error);
        }
        let look = stack.look().await;
        let own = look.lanes.get(name).copied().unwrap_or_default();
        if look.is_complete(state.partitions) && own >= share {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "not every lane is served after {SERVED:?}: {name} has {own} of {share} lanes; {}",
            look.missing(state.partitions)
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// How many lanes some process has now and had not before. Lanes that two processes have exchanged do not show.
fn moved(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> u64 {
    let had = |name| before.get(name).copied().unwrap_or_default();
    after.iter().map(|(name, lanes)| lanes.saturating_sub(had(name))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter().map(|(name, lanes)| ((*name).to_owned(), *lanes)).collect()
    }

    #[test]
    fn lanes_that_have_moved_are_those_that_somebody_has_now() {
        let two = lanes(&[("a-1", 50), ("a-2", 50), ("b-1", 100)]);
        let three = lanes(&[("a-1", 34), ("a-2", 33), ("a-3", 33), ("b-1", 100)]);
        assert_eq!(moved(&two, &three), 33);
        assert_eq!(moved(&three, &two), 33, "back again");
        assert_eq!(moved(&two, &two), 0);
    }
}
