//! A participant that is down for a long time costs latency and nothing else: all its replicas are killed while checkouts go
//! on arriving, and started again much later. Then everything that was begun must end, and nothing may be left of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use stack::{Kind, Progress};

use crate::open::Steady;
use crate::run::{Course, Plan};
use crate::tally::Ended;
use crate::timeline::{SLOW, Seen};
use crate::{metrics, result, soak};

/// Arrivals per second, unless `--rate` says otherwise: each waits for the gateway's whole patience, so that many of them are
/// in the system at a time.
const RATE: f64 = 10.0;
/// Load before the participant goes.
const QUIET: Duration = Duration::from_secs(5);
/// What was begun has ended within this time after its return, or it is an error.
const SETTLE: Duration = Duration::from_secs(300);
/// Load after everything has ended, so that clients are seen to be served at once again.
const AFTERWARDS: Duration = Duration::from_secs(10);
/// Pause between two looks at the orchestrator.
const LOOK: Duration = Duration::from_secs(1);
/// Orchestrators say every second how old their oldest saga is.
const STALE: Duration = Duration::from_secs(2);

/// The options of this measurement.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The participant that is down
    #[arg(long, default_value = "payment-svc", value_parser = ["payment-svc", "stock-svc"])]
    service: String,
    /// Minutes for which it is down
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Where the result goes, as JSON
    #[arg(long, default_value = "target/bench/outage.json")]
    out: std::path::PathBuf,
    #[command(flatten)]
    plan: Plan,
}

/// What all orchestrators say of their sagas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Sagas {
    open: f64,
    need_attention: f64,
    oldest_s: f64,
    /// Records of their own: deadlines that have passed.
    appended: f64,
}

/// Everything that was found out; times in seconds.
#[derive(Clone, Debug, Serialize)]
struct Report {
    service: String,
    rate: f64,
    down_s: f64,
    /// Answers to checkouts that were due while it was down, by status.
    answers_while_down: BTreeMap<String, u64>,
    /// Answers to those that were due after everything had ended.
    answers_afterwards: BTreeMap<String, u64>,
    most_open: f64,
    most_needing_attention: f64,
    /// From its end until the first saga needed attention; orchestrators count these every five seconds.
    attention_after_s: Option<f64>,
    /// Deadlines of all sagas that passed meanwhile; at each of them a command is asked for again, or an undo begins.
    deadlines: f64,
    /// From its start until it served every lane again.
    ready_after_s: f64,
    /// From its start until every saga had ended that was begun before.
    ended_after_s: f64,
    /// From its start until the last checkout was due that was not paid within a second.
    slow_until_s: f64,
    /// Most resident memory of the services together, megabytes: before it was down, and from then on.
    memory_mb: [f64; 2],
}

/// Starts a stack, takes a participant away and brings it back, prints what that cost, audits, ends it. An error when a saga
/// does not end, a key is left, or the stores and what clients were told do not agree.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let rate = args.plan.one_rate(RATE)?;
    ensure!(args.minutes > 0.0 && args.minutes.is_finite(), "--minutes needs a number above 0");
    let mut course = Course::begin(&args.plan).await?;
    course.warm_up(Duration::from_secs(args.plan.warmup_s)).await?;
    let keys = with_commit_keys(soak::at_rest(&course).await?, args);
    let steady = course.steady(rate)?;
    let outage = outage(args, &mut course, &steady).await;
    let (tally, seen) = steady.end().await?;
    let ran_dry = tally.ran_dry;
    course.add(tally);
    let report = outage?.told(&seen);
    print!("{report}");
    result::write(&args.out, &report)?;
    println!("{}", args.out.display());
    let left = soak::forgotten(&course, &keys).await?;
    course.end().await?;
    ensure!(!ran_dry, "the fresh orders were used up before the end: raise --orders");
    ensure!(left == keys, "keys should be {}, and are {}", soak::shown(&keys), soak::shown(&left));
    Ok(())
}

/// A process that is killed leaves the key of its last transaction.
fn with_commit_keys(mut keys: soak::Keys, args: &Args) -> soak::Keys {
    let store = if args.service == Kind::StockSvc.name() { Kind::StockSvc.store() } else { Kind::PaymentSvc.store() };
    if let Some(count) = store.and_then(|store| keys.get_mut(store)) {
        *count += u64::from(args.plan.replicas);
    }
    keys
}

/// One outage, before anybody has asked the clients. Moments count from the load's beginning.
struct Outage {
    report: Report,
    down: Duration,
    back: Duration,
    ended: Duration,
}

async fn outage(args: &Args, course: &mut Course, steady: &Steady) -> anyhow::Result<Outage> {
    let names: Vec<String> = (1..=args.plan.replicas).map(|replica| format!("{}-{replica}", args.service)).collect();
    tokio::time::sleep(QUIET).await;
    let (first, memory_before) = (sagas(course).await?, soak::services_mb(course));
    names.iter().try_for_each(|name| course.stack.kill(name))?;
    let down = steady.elapsed();
    let (mut most, mut memory, mut attention_after_s) = (Sagas::default(), memory_before, None);
    while (steady.elapsed() - down).as_secs_f64() < args.minutes * 60.0 {
        tokio::time::sleep(LOOK).await;
        let now = sagas(course).await?;
        if now.need_attention > 0.0 && attention_after_s.is_none() {
            attention_after_s = Some((steady.elapsed() - down).as_secs_f64());
        }
        (most.open, most.need_attention) = (most.open.max(now.open), most.need_attention.max(now.need_attention));
        memory = memory.max(soak::services_mb(course));
    }
    names.iter().try_for_each(|name| course.stack.restart(name))?;
    let back = steady.elapsed();
    course.stack.wait_until_ready(&Progress::Silent).await?;
    let ready = steady.elapsed();
    let last = loop {
        let now = sagas(course).await?;
        memory = memory.max(soak::services_mb(course));
        if now.oldest_s < (steady.elapsed() - back).saturating_sub(STALE).as_secs_f64() && now.need_attention == 0.0 {
            break now;
        }
        ensure!(steady.elapsed() - back < SETTLE, "not ended after {SETTLE:?}: {now:?}");
        tokio::time::sleep(LOOK).await;
    };
    let ended = steady.elapsed();
    tokio::time::sleep(AFTERWARDS).await;
    let report = Report {
        service: args.service.clone(),
        rate: args.plan.one_rate(RATE)?,
        down_s: (back - down).as_secs_f64(),
        answers_while_down: BTreeMap::new(),
        answers_afterwards: BTreeMap::new(),
        most_open: most.open,
        most_needing_attention: most.need_attention,
        attention_after_s,
        deadlines: last.appended - first.appended,
        ready_after_s: (ready - back).as_secs_f64(),
        ended_after_s: (ended - back).as_secs_f64(),
        slow_until_s: 0.0,
        memory_mb: [memory_before, memory],
    };
    Ok(Outage { report, down, back, ended })
}

impl Outage {
    /// With what the clients saw.
    fn told(mut self, seen: &[Seen]) -> Report {
        let answers = |from: Duration, to: Duration| {
            let mut answers: BTreeMap<String, u64> = BTreeMap::new();
            for seen in seen.iter().filter(|seen| (from..to).contains(&seen.due)) {
                let status = seen.ended.status().map_or_else(|| "none".to_owned(), |status| status.to_string());
                *answers.entry(status).or_default() += 1;
            }
            answers
        };
        self.report.answers_while_down = answers(self.down, self.back);
        self.report.answers_afterwards = answers(self.ended, Duration::MAX);
        let is_slow = |seen: &&Seen| seen.ended != Ended::Paid || seen.latency >= SLOW;
        let slow_until = seen.iter().filter(is_slow).map(|seen| seen.due).max().unwrap_or_default();
        self.report.slow_until_s = slow_until.saturating_sub(self.back).as_secs_f64();
        self.report
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answers = |answers: &BTreeMap<String, u64>| {
            answers.iter().map(|(status, count)| format!("{status}: {count}")).collect::<Vec<_>>().join(", ")
        };
        let Self { service, rate, down_s, most_open, most_needing_attention, deadlines, .. } = self;
        writeln!(out, "{service} was down for {down_s:.0} s, while {rate} checkouts arrived each second")?;
        writeln!(out, "answers while it was down    {}", answers(&self.answers_while_down))?;
        writeln!(out, "open sagas, at most          {most_open:.0}")?;
        let after = self.attention_after_s.map_or("never".to_owned(), |seconds| format!("after {seconds:.0} s"));
        writeln!(out, "needing attention, at most   {most_needing_attention:.0}; the first {after}")?;
        writeln!(out, "deadlines that passed        {deadlines:.0}")?;
        let [before, after] = self.memory_mb;
        writeln!(out, "services' memory             {before:.0} MB before, at most {after:.0} MB then")?;
        writeln!(out, "all lanes served             {:.1} s after its return", self.ready_after_s)?;
        writeln!(out, "everything old had ended     {:.1} s after its return", self.ended_after_s)?;
        writeln!(out, "last checkout not paid soon  {:.1} s after its return", self.slow_until_s)?;
        writeln!(out, "answers afterwards           {}", answers(&self.answers_afterwards))
    }
}

async fn sagas(course: &Course) -> anyhow::Result<Sagas> {
    let mut all = Sagas::default();
    for text in metrics::of_all(Kind::Orchestrator, &course.stack.processes()).await? {
        let gauge =
            |name: &str| metrics::sum(&text, name).with_context(|| format!("an orchestrator does not tell {name}"));
        all.open += gauge("saga_open")?;
        all.need_attention += gauge("saga_attention")?;
        all.oldest_s = all.oldest_s.max(gauge("saga_open_oldest_seconds")?);
        all.appended += metrics::sum(&text, "saga_inbox_appended_total").unwrap_or_default();
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_asked_for_the_time_of_the_outage_and_after_it() {
        let seen = |due_s, ended| Seen {
            order: String::new(),
            due: Duration::from_secs(due_s),
            latency: Duration::from_millis(if due_s == 71 { 1_500 } else { 20 }),
            ended,
        };
        let times: BTreeMap<String, u64> = BTreeMap::new();
        let report = Report {
            service: "payment-svc".to_owned(),
            rate: 10.0,
            down_s: 60.0,
            answers_while_down: times.clone(),
            answers_afterwards: times,
            most_open: 0.0,
            most_needing_attention: 0.0,
            attention_after_s: None,
            deadlines: 0.0,
            ready_after_s: 1.0,
            ended_after_s: 5.0,
            slow_until_s: 0.0,
            memory_mb: [0.0; 2],
        };
        let at = Duration::from_secs;
        let outage = Outage { report, down: at(5), back: at(65), ended: at(70) };
        let unknown = Ended::Unknown(Some(504));
        let all =
            [seen(4, Ended::Paid), seen(6, unknown), seen(7, unknown), seen(64, Ended::Paid), seen(71, Ended::Paid)];
        let report = outage.told(&all);
        assert_eq!(report.answers_while_down, BTreeMap::from([("200".to_owned(), 1), ("504".to_owned(), 2)]));
        assert_eq!(report.answers_afterwards, BTreeMap::from([("200".to_owned(), 1)]));
        assert!((report.slow_until_s - 6.0).abs() < 1e-9, "{report}");
    }
}
