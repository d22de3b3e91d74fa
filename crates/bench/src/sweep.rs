//! The same run with one thing varied, several times over, so that each ratio compares neighbours in time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};

use crate::result::Run;
use crate::run::Plan;

/// What a sweep varies.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What is varied: NAME=VALUE,VALUE…; NAME is replicas, partitions, scenario or a setting of the services
    #[arg(long)]
    vary: String,
    /// Rounds; each measures every value once
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Folder for the results
    #[arg(long, default_value = "target/bench/sweep")]
    out: PathBuf,
    #[command(flatten)]
    plan: Plan,
}

/// Measures everything and prints the table.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let (name, values) = args.vary.split_once('=').context("--vary: write NAME=VALUE,VALUE")?;
    let plans = values.split(',').map(|value| Ok((value.to_owned(), varied(&args.plan, name, value)?)));
    let plans: Vec<(String, Plan)> = plans.collect::<anyhow::Result<_>>()?;
    ensure!(plans.len() > 1, "--vary needs at least two values");
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); plans.len()];
    for round in 0..args.rounds {
        for (place, (value, plan)) in plans.iter().enumerate() {
            println!("-- round {} of {}: {name}={value}", round + 1, args.rounds);
            let run = plan.run().await?;
            run.write(&args.out.join(format!("{name}-{value}-{round}.json")))?;
            runs[place].push(run);
        }
    }
    let labels: Vec<String> = plans.into_iter().map(|(value, _)| value).collect();
    print!("{}", table(name, &labels, &runs));
    Ok(())
}

fn varied(plan: &Plan, name: &str, value: &str) -> anyhow::Result<Plan> {
    let mut plan = plan.clone();
    let number = || value.parse::<u32>().with_context(|| format!("--vary {name}: {value} is no number"));
    match name {
        "replicas" => plan.replicas = number()?,
        "partitions" => plan.partitions = number()?,
        "scenario" => plan.scenario = clap::ValueEnum::from_str(value, false).map_err(anyhow::Error::msg)?,
        _ if name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_') => {
            plan.envs.push(format!("{name}={value}"));
        }
        _ => bail!("--vary {name}: neither replicas, partitions or scenario, nor the NAME of a setting"),
    }
    Ok(plan)
}

/// Medians over the rounds, and the median of the rounds' ratios to the first value.
fn table(name: &str, values: &[String], runs: &[Vec<Run>]) -> String {
    let mut text = String::new();
    let mut by_load: BTreeMap<String, ()> = BTreeMap::new();
    for phase in runs.iter().flatten().flat_map(|run| &run.phases) {
        by_load.insert(phase.load.to_string(), ());
    }
    for load in by_load.keys() {
        // Infallible: it writes into a String. So below.
        let _ =
            writeln!(text, "{load:<26} {:>9} {:>7} {:>9} {:>9} {:>9}", "per s", "ratio", "p50 ms", "p99 ms", "CPU µs");
        for (place, value) in values.iter().enumerate() {
            let figures = |figure: &dyn Fn(&crate::result::Phase) -> f64, place: usize| -> Vec<f64> {
                let phases = runs[place].iter().flat_map(|run| run.phases.iter());
                phases.filter(|phase| phase.load.to_string() == *load).map(figure).collect()
            };
            let rates = figures(&crate::result::Phase::per_second, place);
            let first = figures(&crate::result::Phase::per_second, 0);
            let ratios: Vec<f64> = rates.iter().zip(&first).map(|(rate, first)| rate / first).collect();
            let _ = writeln!(
                text,
                "  {:<24} {:>9.0} {:>7.2} {:>9.1} {:>9.1} {:>9.0}",
                format!("{name}={value}"),
                median(&rates),
                median(&ratios),
                median(&figures(&|phase| phase.latency_ms(50.0), place)),
                median(&figures(&|phase| phase.latency_ms(99.0), place)),
                median(&figures(&crate::result::Phase::cpu_us_in_all, place)),
            );
        }
    }
    let loops = runs.iter().flatten().flat_map(|run| run.fixed_loop_ms);
    let (least, most) = loops.fold((f64::MAX, 0.0_f64), |(least, most), ms| (least.min(ms), most.max(ms)));
    let _ = writeln!(text, "fixed CPU loop: {least:.0} to {most:.0} ms");
    text
}

/// The middle one, or the middle of the two; not a number without any.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get((sorted.len().max(1) - 1) / 2), sorted.get(sorted.len() / 2)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::result::tests::run;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn plan() -> Plan {
        Cli::parse_from(["bench", "--vary", "replicas=1,2"]).args.plan
    }

    #[test]
    fn one_thing_is_varied() {
        assert_eq!(varied(&plan(), "replicas", "3").unwrap().replicas, 3);
        assert_eq!(varied(&plan(), "partitions", "10").unwrap().partitions, 10);
        assert_eq!(varied(&plan(), "MAX_BATCH", "8").unwrap().envs, ["MAX_BATCH=8"]);
        assert_eq!(varied(&plan(), "scenario", "flash-sale").unwrap().scenario.name(), "flash-sale");
        for (name, value) in [("replicas", "many"), ("scenario", "nothing"), ("colour", "red")] {
            assert!(varied(&plan(), name, value).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn ratios_compare_the_runs_of_one_round() {
        let first = vec![run(64, 1000, 10.0, 1.0), run(64, 2000, 10.0, 1.0)];
        let second = vec![run(64, 500, 10.0, 1.0), run(64, 1000, 10.0, 1.0)];
        let text = table("replicas", &["1".into(), "3".into()], &[first, second]);
        let line = text.lines().find(|line| line.contains("replicas=3")).unwrap();
        assert_eq!(line.split_whitespace().take(3).collect::<Vec<_>>(), ["replicas=3", "75", "0.50"]);
    }

    #[test]
    fn medians() {
        assert!(median(&[]).is_nan());
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }
}
