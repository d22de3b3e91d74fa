//! One campaign: a stack under load, faults by plan, a quiet end, the verdict.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use stack::{Clocks, Data, Kind as Process, Progress, Shop, Stack, StackOptions};

use crate::audit::during::During;
use crate::audit::{Evidence, Finding, judge};
use crate::clients::{Crowd, set_up};
use crate::collect::{Addresses, Goods, evidence, goods};
use crate::plan::{Fault, Field, Plan, REPLICATED, Struck, on_detour, with_clock};
use crate::remains::{self, Keys, Memories};
use crate::strike::Target;
use crate::watch::watch;

/// Load before the first fault, at least: every lane has had a saga.
const WARM_UP: Duration = Duration::from_secs(10);
/// The same, at most: while the Java machines compile, three of them take more than two processors have.
const MAX_WARM_UP: Duration = Duration::from_secs(120);
/// Load after the last fault: what was struck last must be seen to work again.
const COOL_DOWN: Duration = Duration::from_secs(5);
/// Everything has ended within this time after the last fault was over, or it is a finding.
pub const SETTLE: Duration = Duration::from_secs(60);
/// What has passed must pass once more after this: sweeps, re-sends and whoever was slow would have acted by then.
const STILL: Duration = Duration::from_secs(35);
/// What the last clients have begun gets so long, even if they went later than that.
const SETTLE_LAST: Duration = Duration::from_secs(15);
/// Most findings that are printed: the first ones say what is wrong.
const MAX_SHOWN: usize = 50;
/// Pause between two looks at the end.
const LOOK: Duration = Duration::from_secs(1);
/// Orders for so much longer than faults begin: the last fault may be a long one.
const SPARE_TIME: Duration = Duration::from_secs(180);

/// What to run.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Seed of the plan.
    pub seed: u64,
    /// What is struck, and how long.
    pub field: Field,
    /// Checkouts that begin each second.
    pub rate_per_s: u32,
    /// Most clients at the same time.
    pub at_once: u32,
    /// Folder of the stack.
    pub dir: PathBuf,
    /// More settings for the services.
    pub envs: Vec<(String, String)>,
}

impl Campaign {
    /// Orders at hand: more than can be asked for.
    fn orders(&self) -> u64 {
        let time = MAX_WARM_UP + self.field.lasts + SPARE_TIME;
        time.as_secs() * u64::from(self.rate_per_s)
    }
}

/// Whether clocks can jump on this machine; where they cannot, the plan leaves them out.
pub fn can_move_clocks() -> bool {
    Clocks::find(std::path::Path::new("")).is_some()
}

/// The judgement.
#[derive(Debug)]
pub enum Verdict {
    /// Everything was read, and everything holds.
    Passed,
    /// Something does not hold.
    Failed(Vec<Finding>),
    /// Not everything could be read.
    Unknown(String),
}

/// What a campaign gave.
#[derive(Debug)]
pub struct Outcome {
    /// The judgement.
    pub verdict: Verdict,
    /// What it was judged by.
    pub evidence: Evidence,
    /// How long everything took to end after the last client had gone.
    pub settled: Option<Duration>,
}

impl Verdict {
    /// Whether waiting cannot change it: what is still under way ends, and is forgotten; the rest stays.
    fn is_final(&self) -> bool {
        match self {
            Self::Passed => true,
            Self::Failed(findings) => !findings.iter().any(|finding| finding.rule.may_heal()),
            Self::Unknown(_) => false,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => out.write_str("PASSED"),
            Self::Failed(findings) => {
                write!(out, "FAILED: {} findings", findings.len())?;
                findings.iter().take(MAX_SHOWN).try_for_each(|finding| write!(out, "\n  {finding}"))
            }
            Self::Unknown(why) => write!(out, "UNKNOWN: {why}"),
        }
    }
}

/// Runs a campaign on a stack of its own.
pub async fn run(campaign: &Campaign, progress: &Progress) -> anyhow::Result<Outcome> {
    let mut options = StackOptions::new(&campaign.dir)?;
    options.data = Data::Forget;
    (options.brokers, options.replicas, options.spares) = (campaign.field.brokers, campaign.field.replicas, 1);
    options.gateways = campaign.field.replicas;
    options.envs.clone_from(&campaign.envs);
    options.detours = REPLICATED.map(on_detour).into();
    let clocks = Clocks::find(&campaign.dir.join("clocks")).filter(|_| campaign.field.has_clocks);
    for service in REPLICATED {
        options.own_envs.extend(clocks.as_ref().map_or(Ok(Vec::new()), |clocks| clocks.envs(&with_clock(service)))?);
    }
    let stack = Stack::start_servers(options, progress).await?;
    let target = Target::new(stack, clocks).await?;
    target.stack.lock().await.start_services(progress).await?;
    progress.finish();
    let outcome = under_fire(campaign, &target).await;
    target.stack.into_inner().stop().await?;
    outcome
}

async fn under_fire(campaign: &Campaign, target: &Target) -> anyhow::Result<Outcome> {
    let (shop, gateways, at) = {
        let stack = target.stack.lock().await;
        (Shop::new(stack.gateway_url()), stack.gateways(), Addresses::of(&stack)?)
    };
    set_up(&shop, campaign.orders()).await.context("set the shop up")?;
    let goods = goods(&at)?;
    let began = Instant::now();
    let crowd = Crowd::new(gateways, campaign.orders(), began);
    // In a task of its own: clients come on the beat while a strike waits for a process to end.
    let load = tokio::spawn({
        let (crowd, rate_per_s, at_once) = (crowd.clone(), campaign.rate_per_s, campaign.at_once);
        async move { crowd.run(rate_per_s, at_once).await }
    });
    let during = Arc::new(Mutex::new(During::default()));
    let watch = tokio::spawn(watch(at.clone(), goods.clone(), crowd.clone(), began, during.clone()));
    let faults = faults(campaign, target, &at, goods, &crowd, began).await;
    crowd.stop();
    load.await.context("the load")??;
    watch.abort();
    let during = std::mem::take(&mut *during.lock().unwrap_or_else(PoisonError::into_inner));
    let (before, struck) = faults?;
    let last_ms = struck.iter().map(|struck| struck.healed_ms).max().unwrap_or_default();
    let quiet_since = Instant::now();
    let deadline = (began + Duration::from_millis(last_ms) + SETTLE).max(quiet_since + SETTLE_LAST);
    let (mut lasting, mut passed) = (Vec::new(), None);
    loop {
        let read = look(campaign, target, &at, &before, &crowd).await;
        let read = read.map(|evidence| Evidence { struck: struck.clone(), during: during.clone(), ..evidence });
        let (verdict, evidence) = (verdict(read.as_ref(), &mut lasting), read.unwrap_or_default());
        if passed.is_none() && matches!(verdict, Verdict::Passed) {
            passed = Some(quiet_since.elapsed());
            tokio::time::sleep(STILL).await;
            continue;
        }
        if verdict.is_final() || Instant::now() > deadline + passed.map_or(Duration::ZERO, |_| STILL) {
            let settled = passed.filter(|_| matches!(verdict, Verdict::Passed));
            return Ok(Outcome { verdict, evidence, settled });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Of one look; `lasting` is what time cannot mend of the looks before it.
fn verdict(read: Result<&Evidence, &anyhow::Error>, lasting: &mut Vec<Finding>) -> Verdict {
    match read.map(|evidence| with_lasting(judge(evidence), lasting)) {
        Ok(findings) if findings.is_empty() => Verdict::Passed,
        Ok(findings) => Verdict::Failed(findings),
        Err(_) if !lasting.is_empty() => Verdict::Failed(lasting.clone()),
        Err(why) => Verdict::Unknown(format!("{why:#}")),
    }
}

/// What is found now, and what an earlier look found that time cannot mend.
fn with_lasting(mut findings: Vec<Finding>, lasting: &mut Vec<Finding>) -> Vec<Finding> {
    lasting.retain(|earlier| !findings.contains(earlier));
    findings.append(lasting);
    *lasting = findings.iter().filter(|finding| !finding.rule.may_heal()).cloned().collect();
    findings
}

/// From the first client to a while after the last fault.
async fn faults(
    campaign: &Campaign,
    target: &Target,
    at: &Addresses,
    goods: Goods,
    crowd: &Crowd,
    began: Instant,
) -> anyhow::Result<(Before, Vec<Struck>)> {
    warm_up(crowd, began).await;
    let before = Before { goods, keys: remains::keys(at)?, memory: memory(target).await? };
    let struck = tokio::select! {
        struck = strike_all(campaign, target, began, began.elapsed() + campaign.field.lasts) => struck?,
        failed = revive_all(target, began) => return Err(failed),
    };
    tokio::time::sleep(COOL_DOWN).await;
    Ok((before, struck))
}

/// Until the system keeps up with the load.
async fn warm_up(crowd: &Crowd, began: Instant) {
    tokio::time::sleep(WARM_UP).await;
    while !crowd.is_calm() {
        if began.elapsed() > MAX_WARM_UP {
            println!("{:>7.1} s  the load is not carried; faults begin all the same", began.elapsed().as_secs_f64());
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
    println!("{:>7.1} s  the load is carried", began.elapsed().as_secs_f64());
}

/// How it was before the first fault; the goods, before the first client.
struct Before {
    goods: Goods,
    keys: Keys,
    memory: Memories,
}

/// Everything that is judged, but the strikes.
async fn look(
    campaign: &Campaign,
    target: &Target,
    at: &Addresses,
    before: &Before,
    crowd: &Crowd,
) -> anyhow::Result<Evidence> {
    let evidence = evidence(at, &before.goods, crowd.taken(), crowd.history()).await?;
    let deaths = target.deaths().await;
    let keys = remains::keys(at)?;
    let ended = target.ended_processes();
    Ok(Evidence {
        keys: remains::compare(&before.keys, &keys, at.partitions(), ended + u64::from(campaign.field.replicas)),
        memory: remains::compare_memory(&before.memory, &memory(target).await?),
        deaths,
        field: campaign.field,
        load_lasted: !crowd.ran_dry(),
        passed_over: crowd.passed_over(),
        ..evidence
    })
}

async fn memory(target: &Target) -> anyhow::Result<Memories> {
    let processes = target.stack.lock().await.processes();
    // The heap of the Java machine has a limit, and grows up to it when it likes.
    let measured = processes.into_iter().filter(|process| process.kind != Process::Kafka);
    let memory = |process: stack::ProcessInfo| {
        let redis = (process.kind == Process::Redis).then_some(process.address.as_str());
        Ok((process.name.clone(), remains::memory_kb(process.pid, redis)?))
    };
    measured.map(memory).collect()
}

/// Times count from `began`; no fault begins after `until`.
async fn strike_all(
    campaign: &Campaign,
    target: &Target,
    began: Instant,
    until: Duration,
) -> anyhow::Result<Vec<Struck>> {
    let now_ms = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut all = Vec::new();
    for (fault, Fault { strikes, quiet }) in Plan::new(campaign.seed, campaign.field).enumerate() {
        if began.elapsed() > until {
            break;
        }
        let struck = strikes.into_iter().map(async |strike| {
            let at_ms = now_ms();
            println!("{:>7.1} s  {strike}", began.elapsed().as_secs_f64());
            target.strike(&strike).await?;
            anyhow::Ok(Struck { fault, at_ms, healed_ms: now_ms(), strike })
        });
        all.extend(futures::future::try_join_all(struck).await?);
        tokio::time::sleep(quiet).await;
    }
    Ok(all)
}

/// Starts again what ends by itself; returns only when that fails.
async fn revive_all(target: &Target, began: Instant) -> anyhow::Error {
    loop {
        match target.revive().await {
            Ok(ended) => {
                for name in ended {
                    println!("{:>7.1} s  {name} ended by itself and was started again", began.elapsed().as_secs_f64());
                }
            }
            Err(error) => return error,
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Rule;

    #[test]
    fn what_cannot_be_read_is_unknown_unless_something_is_wrong_for_good() {
        let (unread, empty) = (anyhow::anyhow!("no store"), Evidence::default());
        let mut lasting = Vec::new();
        assert!(matches!(verdict(Err(&unread), &mut lasting), Verdict::Unknown(why) if why == "no store"));
        let Verdict::Failed(findings) = verdict(Ok(&empty), &mut lasting) else { panic!("nothing was shown") };
        assert!(findings.iter().any(|finding| finding.rule == Rule::ShowsSomething), "{findings:?}");
        assert!(matches!(verdict(Err(&unread), &mut lasting), Verdict::Failed(_)), "found before");
    }

    #[test]
    fn what_time_cannot_mend_stays_found() {
        let finding = |rule| Finding { rule, what: "order 7".to_owned() };
        let mut lasting = Vec::new();
        let early = vec![finding(Rule::PaidWhenToldSo)];
        let both = [vec![finding(Rule::StockConserved)], early.clone()].concat();
        assert_eq!(with_lasting(both.clone(), &mut lasting), both);
        assert_eq!(with_lasting(early.clone(), &mut lasting), early, "once, not twice");
        assert_eq!(with_lasting(Vec::new(), &mut lasting), early);
        assert_eq!(with_lasting(Vec::new(), &mut lasting), early);
    }
}
