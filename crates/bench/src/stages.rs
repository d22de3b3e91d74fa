//! CPU time inside the services: by stage, as they count it themselves, and by the threads that have a name of their own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, ensure};
use stack::{Http, ProcessInfo};

use crate::result::Phase;

/// The metric of the services.
const METRIC: &str = "saga_cpu_stage_seconds_total{";

/// Threads with one purpose, by the beginning of their names (the kernel keeps 15 bytes), and the column that their whole
/// time belongs to. Nothing that runs on them enters a stage, so that nothing counts twice.
const THREADS: [(&str, &str); 4] =
    [("rdk:", "rdkafka"), ("producer pollin", "produce"), ("hurry-producer", "produce"), ("fetch-", "consume")];

/// The columns of the table. Librdkafka's own threads come behind the services' stages, then what is in no stage.
const COLUMNS: [&str; 10] =
    ["http", "decode", "encode", "produce", "consume", "fold", "apply", "redis", "rdkafka", OTHER];

/// What is in no stage: the runtime itself, lane loops, telemetry, allocation by tasks of their own.
const OTHER: &str = "other";

/// CPU time per checkout in microseconds, by service and column.
pub type Table = BTreeMap<String, BTreeMap<String, f64>>;

/// What the services have used at one moment, in seconds.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// By service and stage.
    stages: BTreeMap<(String, String), f64>,
    /// By service, column and thread: a thread that has ended takes its time with it.
    threads: BTreeMap<(String, &'static str, u32), f64>,
}

impl Snapshot {
    /// Asks every service's admin port and reads its threads.
    pub async fn take(processes: &[ProcessInfo]) -> anyhow::Result<Self> {
        let mut snapshot = Self::default();
        let http = Http::default();
        for process in processes {
            let Some(admin) = &process.admin_address else { continue };
            let answer = http.get(&format!("http://{admin}/metrics")).await;
            let text = answer.with_context(|| format!("ask {} for its metrics", process.name))?.text();
            let stages = stages(&text);
            ensure!(!stages.is_empty(), "{} does not count its stages", process.name);
            let of_service = |(stage, used)| ((process.name.clone(), stage), used);
            snapshot.stages.extend(stages.into_iter().map(of_service));
            let of_service = |(column, thread, used)| ((process.name.clone(), column, thread), used);
            snapshot.threads.extend(threads(process.pid).into_iter().map(of_service));
        }
        Ok(snapshot)
    }

    /// Per checkout since an earlier snapshot, given what each process has used in all.
    pub fn since(&self, earlier: &Self, phase: &Phase) -> Table {
        let per_checkout = 1e6 / phase.ended().max(1) as f64;
        let mut table = Table::new();
        let mut add = |service: &str, column: &str, used: f64| {
            *table.entry(service.to_owned()).or_default().entry(column.to_owned()).or_default() += used * per_checkout;
        };
        for (key, now) in &self.stages {
            add(&key.0, &key.1, now - earlier.stages.get(key).copied().unwrap_or_default());
        }
        for (key, now) in &self.threads {
            add(&key.0, key.1, now - earlier.threads.get(key).copied().unwrap_or_default());
        }
        for (service, columns) in &mut table {
            let known: f64 = columns.values().sum();
            let in_all = phase.cpu_us.get(service).copied().unwrap_or(f64::NAN);
            columns.insert(OTHER.to_owned(), in_all - known);
        }
        table
    }
}

/// Seconds by stage in the text of `/metrics`.
fn stages(metrics: &str) -> BTreeMap<String, f64> {
    let series = metrics.lines().filter_map(|line| line.strip_prefix(METRIC));
    series
        .filter_map(|series| {
            let (labels, value) = series.rsplit_once("} ")?;
            let (_, stage) = labels.split_once("stage=\"")?;
            Some((stage.split('"').next()?.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// Column, thread and seconds of the threads in [`THREADS`].
fn threads(pid: u32) -> Vec<(&'static str, u32, f64)> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let found = tasks.flatten().filter_map(|task| {
        let column = column(&fs::read_to_string(task.path().join("comm")).ok()?)?;
        // Nanoseconds on a processor, and two figures about waiting for one.
        let times = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let ns: u64 = times.split_whitespace().next()?.parse().ok()?;
        Some((column, task.file_name().to_str()?.parse().ok()?, ns as f64 / 1e9))
    });
    found.collect()
}

fn column(thread: &str) -> Option<&'static str> {
    THREADS.iter().find(|(name, _)| thread.starts_with(name)).map(|(_, column)| *column)
}

/// The table as lines of text.
pub fn lines(table: &Table) -> Vec<String> {
    if table.is_empty() {
        return Vec::new();
    }
    let mut head = format!("    {:<18}", "by stage");
    for column in COLUMNS.iter().chain(&["in all"]) {
        // Infallible: it writes into a String. So below.
        let _ = write!(head, " {column:>7}");
    }
    let mut lines = vec!["  CPU µs per checkout by stage".to_owned(), head];
    for (service, columns) in table {
        let mut line = format!("    {service:<18}");
        for column in COLUMNS {
            let _ = match columns.get(column) {
                Some(used) => write!(line, " {used:>7.1}"),
                None => write!(line, " {:>7}", "-"),
            };
        }
        let _ = write!(line, " {:>7.1}", columns.values().sum::<f64>());
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use crate::result::tests::run;

    use super::*;

    fn snapshot(http_s: f64, rdkafka_s: f64, fetch_s: f64) -> Snapshot {
        let metrics = format!(
            "# TYPE saga_cpu_stage_seconds_total counter\nsaga_cpu_stage_seconds_total{{stage=\"http\"}} {http_s}\n\
             saga_cpu_stage_seconds_total{{stage=\"consume\"}} 1e-1\nsaga_http_panics_total 7\n"
        );
        let of_service = |(stage, used)| (("gateway".to_owned(), stage), used);
        let thread = |column, number| ("gateway".to_owned(), column, number);
        Snapshot {
            stages: stages(&metrics).into_iter().map(of_service).collect(),
            threads: BTreeMap::from([(thread("rdkafka", 7), rdkafka_s), (thread("consume", 8), fetch_s)]),
        }
    }

    fn table() -> Table {
        let mut phase = run(64, 1000, 40.0, 500.0).phases.remove(0);
        phase.cpu_us = BTreeMap::from([("gateway".to_owned(), 300.0), ("kafka".to_owned(), 500.0)]);
        let mut earlier = snapshot(1.0, 0.5, 0.0);
        earlier.threads.remove(&("gateway".to_owned(), "consume", 8));
        snapshot(1.1, 0.52, 0.03).since(&earlier, &phase)
    }

    #[test]
    fn what_is_in_no_stage_is_the_rest_of_the_process() {
        let table = table();
        let gateway = &table["gateway"];
        let expected = [("http", 100.0), ("rdkafka", 20.0), ("consume", 30.0), (OTHER, 150.0)];
        assert_eq!(gateway.len(), expected.len(), "{gateway:?}");
        for (column, us) in expected {
            assert!((gateway[column] - us).abs() < 1e-6, "{column}: {gateway:?}");
        }
        assert!(!table.contains_key("kafka"), "only services have stages");
    }

    #[test]
    fn the_columns_of_the_table_stay_in_place() {
        let lines = lines(&table());
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&lines[1])[2..], [&COLUMNS[..], &["in", "all"]].concat());
        let gateway = words(&lines[2]);
        assert_eq!(gateway, ["gateway", "100.0", "-", "-", "-", "30.0", "-", "-", "-", "20.0", "150.0", "300.0"]);
        assert!(super::lines(&Table::new()).is_empty());
    }

    #[test]
    fn every_stage_of_the_services_has_a_column() {
        for stage in telemetry::stages::Stage::ALL {
            assert!(COLUMNS.contains(&stage.name()), "{}", stage.name());
        }
        for (name, column) in THREADS {
            assert!(COLUMNS.contains(&column), "{column}");
            assert!(name.len() <= 15, "{name} is never the beginning of what the kernel keeps");
        }
    }

    #[test]
    fn threads_of_this_process_are_found_by_name() {
        let ((start, started), (stop, stopped)) = (channel::<()>(), channel::<()>());
        let body = move || {
            // A thread has its name before it runs.
            drop(start);
            stopped.recv()
        };
        let thread = std::thread::Builder::new().name("fetch-3".into()).spawn(body).unwrap();
        assert!(started.recv().is_err());
        let found = threads(std::process::id());
        drop(stop);
        assert!(thread.join().unwrap().is_err(), "it ends with the channel");
        assert!(found.iter().any(|(column, ..)| *column == "consume"), "{found:?}");
        assert_eq!(column("tokio-rt-worker"), None);
    }
}
