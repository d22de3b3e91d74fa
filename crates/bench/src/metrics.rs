//! Reads what services say at `/metrics`.

use std::ops::Sub;

use anyhow::{Context as _, ensure};
use stack::{Http, Kind, ProcessInfo};

/// The text of `/metrics` of every process of one kind.
pub async fn of_all(kind: Kind, processes: &[ProcessInfo]) -> anyhow::Result<Vec<String>> {
    let http = Http::default();
    let mut texts = Vec::new();
    for process in processes.iter().filter(|process| process.kind == kind) {
        let Some(admin) = &process.admin_address else { continue };
        let answer = http.get(&format!("http://{admin}/metrics")).await;
        let answer = answer.with_context(|| format!("ask {} for its metrics", process.name))?;
        ensure!(answer.is_success(), "{} answers {} when asked for its metrics", process.name, answer.status);
        texts.push(answer.text());
    }
    Ok(texts)
}

/// All values of one metric, over its labels; one that was never used is not there.
pub fn sum(text: &str, name: &str) -> Option<f64> {
    let of_metric = |line: &str| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']))?;
        rest.rsplit_once(' ')?.1.parse::<f64>().ok()
    };
    text.lines().filter_map(of_metric).fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

/// Windows of starts that were closed, and the requests in them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Windows {
    count: f64,
    requests: f64,
}

impl Windows {
    /// As the starters have counted them so far.
    pub async fn look(processes: &[ProcessInfo]) -> anyhow::Result<Self> {
        let mut all = Self::default();
        for text in of_all(Kind::OrderSvc, processes).await? {
            all.count += sum(&text, "saga_starter_window_size_count").unwrap_or_default();
            all.requests += sum(&text, "saga_starter_window_size_sum").unwrap_or_default();
        }
        Ok(all)
    }

    /// Requests in one of them, on the average; `None` if there are none.
    pub fn mean(self) -> Option<f64> {
        (self.count > 0.0).then(|| self.requests / self.count)
    }
}

impl Sub for Windows {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { count: self.count - earlier.count, requests: self.requests - earlier.requests }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_over_its_neighbours() {
        let text = "# HELP saga_open x\nsaga_open{a=\"1\"} 3\nsaga_open_by_age{age=\"x\"} 9\nsaga_open 4\n";
        assert_eq!(sum(text, "saga_open"), Some(7.0));
        assert_eq!(sum(text, "saga_closed"), None);
    }

    #[test]
    fn windows_are_those_since_the_first_look() {
        let (before, now) = (Windows { count: 2.0, requests: 10.0 }, Windows { count: 6.0, requests: 40.0 });
        assert_eq!((now - before).mean(), Some(7.5));
        assert_eq!((now - now).mean(), None);
    }
}
