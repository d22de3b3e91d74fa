//! A file in which the counts of many runs add up, so that a long campaign can be made in parts.
//!
//! Lines of words between tabs: what, its name or names, how many. A seed counts once.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::campaign::Outcome;
use crate::coverage::{Coverage, SagaEvent, SagaState};
use crate::faults::{Fault, Point};

/// What the runs so far have come to.
#[derive(Debug, Default)]
pub struct Ledger {
    path: PathBuf,
    /// Tells this program from others, whose seeds are other runs.
    program: u64,
    /// Seeds that were run, one range for each run.
    ran: Vec<Range<u64>>,
    sagas: u64,
    took: Duration,
    coverage: Coverage,
}

/// A number that changes with the program that runs.
pub fn program() -> std::io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    std::fs::read(std::env::current_exe()?)?.hash(&mut hasher);
    Ok(hasher.finish())
}

/// The file cannot be used.
#[derive(Debug)]
pub struct LedgerError(pub String);

impl Ledger {
    /// What the file holds; nothing if there is none. `program` is [`program`], and one file holds the runs of one.
    pub fn open(path: &Path, program: u64) -> Result<Self, LedgerError> {
        let mut ledger = Self { path: path.to_owned(), program, ..Self::default() };
        if !path.exists() {
            return Ok(ledger);
        }
        let text = std::fs::read_to_string(path).map_err(|error| ledger.error(&error.to_string()))?;
        if text.lines().next() != Some(&ledger.program_line()) {
            return Err(ledger.error("it holds the runs of another program: name a new file"));
        }
        for (number, line) in text.lines().enumerate().skip(1) {
            let words: Vec<&str> = line.split('\t').collect();
            if ledger.read(&words).is_none() {
                return Err(ledger.error(&format!("line {} is not of this program", number + 1)));
            }
        }
        Ok(ledger)
    }

    /// Refuses seeds that have been counted.
    pub fn check_new(&self, seeds: &Range<u64>) -> Result<(), LedgerError> {
        match self.ran.iter().find(|ran| ran.start < seeds.end && seeds.start < ran.end) {
            None => Ok(()),
            Some(ran) => {
                let next = self.ran.iter().map(|ran| ran.end).max().unwrap_or_default();
                let (start, end) = (ran.start, ran.end - 1);
                Err(self.error(&format!("seeds {start} to {end} are in it already; go on with --from {next}")))
            }
        }
    }

    /// Adds a run and writes the file.
    pub fn add(&mut self, from: u64, outcome: &Outcome) -> Result<(), LedgerError> {
        self.ran.push(from..from + outcome.seeds);
        self.sagas += outcome.sagas;
        self.took += outcome.took;
        self.coverage.add(&outcome.coverage);
        let part = self.path.with_extension("part");
        let written = std::fs::write(&part, self.text()).and_then(|()| std::fs::rename(&part, &self.path));
        written.map_err(|error| self.error(&error.to_string()))
    }

    /// All runs as if they were one. Failures are not kept: a run that fails is not added.
    pub fn sum(&self) -> Outcome {
        Outcome {
            seeds: self.ran.iter().map(|ran| ran.end - ran.start).sum(),
            sagas: self.sagas,
            failures: Vec::new(),
            coverage: self.coverage.clone(),
            took: self.took,
        }
    }

    fn program_line(&self) -> String {
        format!("program\t{:016x}", self.program)
    }

    fn error(&self, what: &str) -> LedgerError {
        LedgerError(format!("{}: {what}", self.path.display()))
    }

    fn read(&mut self, words: &[&str]) -> Option<()> {
        let (count, names) = words.split_last()?;
        let count: u64 = count.parse().ok()?;
        let coverage = &mut self.coverage;
        match *names {
            ["seeds", from] => self.ran.push(from.parse().ok()?..count),
            ["orders"] => self.sagas = count,
            ["milliseconds"] => self.took = Duration::from_millis(count),
            ["fault", name] => *coverage.faults.entry(Fault::named(name)?).or_default() += count,
            ["passed", name] => *coverage.passed.entry(Point::named(name)?).or_default() += count,
            ["died", name] => *coverage.died.entry(Point::named(name)?).or_default() += count,
            ["pair", state, event] => {
                let pair = (SagaState::named(state)?, SagaEvent::named(event)?);
                *coverage.pairs.entry(pair).or_default() += count;
            }
            ["number", name] => coverage.count(name, count),
            _ => return None,
        }
        Some(())
    }

    fn text(&self) -> String {
        let mut text = self.program_line() + "\n";
        let mut line = |names: &[&str], count: u64| {
            let _ = writeln!(text, "{}\t{count}", names.join("\t"));
        };
        self.ran.iter().for_each(|ran| line(&["seeds", &ran.start.to_string()], ran.end));
        line(&["orders"], self.sagas);
        line(&["milliseconds"], u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX));
        let Coverage { pairs, passed, died, faults, numbers } = &self.coverage;
        faults.iter().for_each(|(fault, count)| line(&["fault", fault.text()], *count));
        passed.iter().for_each(|(point, count)| line(&["passed", point.text()], *count));
        died.iter().for_each(|(point, count)| line(&["died", point.text()], *count));
        pairs.iter().for_each(|((state, event), count)| line(&["pair", state.text(), event.text()], *count));
        numbers.iter().for_each(|(name, count)| line(&["number", name], *count));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::Campaign;
    use crate::world::Options;

    fn run(from: u64, seeds: u64) -> Outcome {
        Campaign { options: Options::new(0), from, seeds, threads: 1 }.run(|_| ())
    }

    #[test]
    fn two_runs_add_up_to_what_one_run_finds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        for from in [0, 3] {
            let mut ledger = Ledger::open(&path, 7).unwrap();
            ledger.check_new(&(from..from + 3)).unwrap();
            ledger.add(from, &run(from, 3)).unwrap();
        }
        let (sum, whole) = (Ledger::open(&path, 7).unwrap().sum(), run(0, 6));
        assert_eq!((sum.seeds, sum.sagas), (6, whole.sagas));
        assert_eq!(format!("{:?}", sum.coverage), format!("{:?}", whole.coverage));
    }

    #[test]
    fn a_seed_counts_once_and_a_strange_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let mut ledger = Ledger::open(&path, 7).unwrap();
        ledger.add(10, &run(10, 2)).unwrap();
        let refused = ledger.check_new(&(11..20)).unwrap_err();
        assert!(refused.0.contains("--from 12"), "{}", refused.0);
        assert!(ledger.check_new(&(12..20)).is_ok() && ledger.check_new(&(0..10)).is_ok());
        assert!(Ledger::open(&path, 8).unwrap_err().0.contains("another program"));
        std::fs::write(&path, "program\t0000000000000007\nseeds\tmany\n").unwrap();
        assert!(Ledger::open(&path, 7).unwrap_err().0.contains("line 2"));
    }
}
