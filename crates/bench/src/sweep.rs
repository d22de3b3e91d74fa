//! The same run with one thing varied, several times over, so that each ratio compares neighbours in time.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tokio::signal::unix::{SignalKind, signal};

use crate::curve::{Measured, Value};
use crate::curve_picture;
use crate::result::Run;
use crate::run::Plan;
use crate::vary::{Variant, Vary};

/// What a sweep varies.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What is varied: NAME=VALUE,VALUE…; NAME is rate, connections, replicas, brokers, partitions, appendfsync, scenario, the
    /// environment variable of a setting of the services (`KAFKA_LINGER_MS`) or a setting of the broker (`num.io.threads`)
    #[arg(long)]
    vary: String,
    /// Rounds; each measures every value once
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Folder for the results: each run as JSON, the table as Markdown, the curves as a picture
    #[arg(long, default_value = "target/bench/sweep")]
    out: PathBuf,
    #[command(flatten)]
    plan: Plan,
}

/// A sweep on its way.
struct Sweep<'a> {
    vary: &'a Vary,
    rounds: usize,
    out: &'a Path,
    /// The arguments of this program: whoever reads the table can do it again.
    command: String,
    measured: Measured,
}

/// Measures everything, prints the table and draws the curves. An error when a run failed or it was interrupted; what has
/// been measured until then is kept.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.rounds > 0, "--rounds needs a number above 0");
    let vary = Vary::parse(&args.vary, &args.plan)?;
    let value = |variant: &Variant| Value { text: variant.value.clone(), fsync: variant.plan.appendfsync };
    let values = vary.variants.iter().map(value).collect();
    let mut sweep = Sweep {
        vary: &vary,
        rounds: args.rounds,
        out: &args.out,
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        measured: Measured::new(&vary.name, values, args.rounds),
    };
    sweep.all(Plan::run, interrupted()).await?;
    print!("{}", sweep.measured.text());
    println!("{} and {}", sweep.file("md").display(), sweep.file("svg").display());
    let failed = sweep.measured.failures.len();
    ensure!(failed == 0, "not everything was measured, see the line FAILED above; the other runs are kept");
    Ok(())
}

impl Sweep<'_> {
    /// Round after round until everything is measured or somebody ends it. A run that fails does not end the others.
    async fn all(
        &mut self,
        measure: impl AsyncFn(&Plan) -> anyhow::Result<Run>,
        end: impl Future<Output = anyhow::Result<&'static str>>,
    ) -> anyhow::Result<()> {
        let mut end = std::pin::pin!(end);
        for round in 0..self.rounds {
            // Every second round backwards: a machine that drifts must not favour the first value.
            for step in 0..self.vary.variants.len() {
                let place = if round % 2 == 0 { step } else { self.vary.variants.len() - 1 - step };
                let Variant { value, plan } = &self.vary.variants[place];
                let what = format!("round {} of {}: {}={value}", round + 1, self.rounds, self.vary.name);
                println!("-- {what}{}", plan.appendfsync.mark());
                let path = self.out.join(self.vary.file_name(place, round));
                forget(&path)?;
                let outcome = tokio::select! {
                    outcome = measure(plan) => outcome,
                    signal = &mut end => {
                        self.measured.failures.push(format!("{what}: ended by {}, nothing after it was measured", signal?));
                        return self.write();
                    }
                };
                match outcome {
                    Ok(run) => {
                        run.write(&path)?;
                        self.measured.runs[place][round] = Some(run);
                    }
                    Err(error) => {
                        println!("FAILED: {what}: {error:#}");
                        self.measured.failures.push(format!("{what}: {error:#}"));
                    }
                }
                self.write()?;
            }
        }
        Ok(())
    }

    /// After every run, so that whatever ends this program leaves all of it behind.
    fn write(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(self.out).with_context(|| format!("make {}", self.out.display()))?;
        let picture = curve_picture::draw(&self.measured, self.vary.title());
        let text = self.measured.markdown(&self.command, &format!("{}.svg", self.vary.name));
        for (path, text) in [(self.file("svg"), picture), (self.file("md"), text)] {
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    fn file(&self, extension: &str) -> PathBuf {
        self.out.join(format!("{}.{extension}", self.vary.name))
    }
}

/// The result of an earlier sweep must not pass for one of a run that failed.
fn forget(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("delete {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Waits for the signals that end a program, and says which came.
async fn interrupted() -> anyhow::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::bail;
    use clap::Parser;

    use crate::result::tests::run;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn vary() -> Vary {
        let args = Cli::parse_from(["bench", "--vary", "replicas=1,2,3"]).args;
        Vary::parse(&args.vary, &args.plan).unwrap()
    }

    fn sweep<'a>(vary: &'a Vary, out: &'a Path) -> Sweep<'a> {
        let value = |variant: &Variant| Value { text: variant.value.clone(), fsync: variant.plan.appendfsync };
        let measured = Measured::new(&vary.name, vary.variants.iter().map(value).collect(), 2);
        Sweep { vary, rounds: 2, out, command: "sweep".to_owned(), measured }
    }

    fn files(out: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(out).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_run_that_fails_is_named_and_the_others_are_kept() {
        let (folder, vary) = (tempfile::tempdir().unwrap(), vary());
        std::fs::write(folder.path().join("replicas-2-0.json"), "of an earlier sweep").unwrap();
        let mut sweep = sweep(&vary, folder.path());
        let order = std::cell::RefCell::new(Vec::new());
        let measure = async |plan: &Plan| {
            order.borrow_mut().push(plan.replicas);
            if plan.replicas == 2 && order.borrow().len() < 4 {
                bail!("made up");
            }
            Ok(run(64, 1000, 10.0, 1.0))
        };
        sweep.all(measure, std::future::pending()).await.unwrap();
        assert_eq!(order.into_inner(), [1, 2, 3, 3, 2, 1], "rounds are interleaved, every second one backwards");
        let results = ["1-0", "1-1", "2-1", "3-0", "3-1"].map(|run| format!("replicas-{run}.json"));
        let expected = [results.as_slice(), &["replicas.md".to_owned(), "replicas.svg".to_owned()]].concat();
        assert_eq!(files(folder.path()), expected);
        let text = std::fs::read_to_string(folder.path().join("replicas.md")).unwrap();
        assert!(text.contains("FAILED: round 1 of 2: replicas=2: made up"), "{text}");
    }

    #[tokio::test]
    async fn what_was_measured_before_an_interruption_is_kept() {
        let (folder, vary) = (tempfile::tempdir().unwrap(), vary());
        let mut sweep = sweep(&vary, folder.path());
        let (begun, interrupt) = (Cell::new(0), tokio::sync::Notify::new());
        let measure = async |_: &Plan| {
            begun.set(begun.get() + 1);
            if begun.get() == 3 {
                interrupt.notify_one();
                std::future::pending::<()>().await;
            }
            Ok(run(64, 1000, 10.0, 1.0))
        };
        let end = async {
            interrupt.notified().await;
            Ok("SIGINT")
        };
        sweep.all(measure, end).await.unwrap();
        assert_eq!(files(folder.path()), ["replicas-1-0.json", "replicas-2-0.json", "replicas.md", "replicas.svg"]);
        let text = std::fs::read_to_string(folder.path().join("replicas.md")).unwrap();
        assert!(text.contains("FAILED: round 1 of 2: replicas=3: ended by SIGINT"), "{text}");
    }
}
